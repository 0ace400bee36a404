"""Repeatable chance: a number for every (seed, subject, name, slot), in any order. Pure."""

from functools import cache
from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint64]


class Dice:
    """The chance of `count` subjects; the first ones draw the same whatever the count."""

    def __init__(self, seed: int, count: int) -> None:
        """Give each subject a key of its own."""
        subjects = np.arange(1, count + 1, dtype=np.uint64)
        self._keys: Final = _scramble(_scramble(subjects) ^ np.uint64(seed % 2**64))

    def uniform(self, name: str, who: Ints, slot: Ints | int = 0) -> Floats:
        """Return a number in [0, 1) for each (who, slot), independent for each `name`."""
        return (self._bits(name, who, slot) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self, name: str, who: Ints, slot: Ints | int = 0) -> Floats:
        """Return a nearly normal number within ±3.5: four 16-bit parts of one hash, added."""
        bits = self._bits(name, who, slot)
        total = np.zeros(bits.shape)
        for shift in (0, 16, 32, 48):
            total += (bits >> np.uint64(shift)) & np.uint64(0xFFFF)
        normal: Floats = (total / 65_536.0 - 2.0) * 3.0**0.5
        return normal

    def drift(self, name: str, who: Ints, at_s: Floats, period_s: float) -> Floats:
        """Return smooth noise of unit variance that forgets itself over `period_s`."""
        place = at_s / period_s
        slot = np.floor(place).astype(np.int64)
        part = place - slot
        part = part * part * (3 - 2 * part)
        before, after = self.normal(name, who, slot), self.normal(name, who, slot + 1)
        mixed: Floats = ((1 - part) * before + part * after) / np.hypot(1 - part, part)
        return mixed

    def _bits(self, name: str, who: Ints, slot: Ints | int) -> Bits:
        slots = np.atleast_1d(np.asarray(slot, dtype=np.int64)).astype(np.uint64)
        return _scramble(_scramble(self._keys[who] ^ _salt(name)) ^ slots)


@cache
def _salt(name: str) -> np.uint64:
    return np.uint64(int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big"))


def _scramble(numbers: Bits) -> Bits:
    """Mix 64-bit numbers with the finaliser of SplitMix64 (Steele and others, 2014)."""
    # Arrays wrap around silently, as wanted here; only NumPy scalars would warn.
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))

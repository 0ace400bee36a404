"""The publishers' own book: what was sent for the first time, and what was acknowledged.

One fact a line, in a text file beside the platform, never in it:

    reading DEVICE TS_MS        sent        reading-ok DEVICE TS_MS        acknowledged
    event DEVICE ID             sent        event-ok DEVICE ID             acknowledged

What a reading holds is a function of its device and time, so the book need not repeat it.
"""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

METRICS: Final = ("hr", "rr", "spo2", "temp", "sbp", "dbp", "movement")
MISDATED: Final = "chaosmisdated"
"""So begin the ids of devices whose clocks are ten years off."""
_MIX: Final = 0x9E3779B97F4A7C15


def values(device: str, ts_ms: int) -> dict[str, float]:
    """Return the seven values that `device` reports at `ts_ms`, all exact in 32 bits."""
    number = int(device.rpartition("-")[2])
    mixed = (number * 1_000_003 + ts_ms) * _MIX & 0xFFFFFFFFFFFFFFFF
    bits = [mixed >> shift & 7 for shift in range(24, 52, 4)]
    return {
        "hr": 66.0 + bits[0],
        "rr": 13 + bits[1] / 4,
        "spo2": 96 + bits[2] / 4,
        "temp": 36.25 + bits[3] / 16,
        "sbp": 118.0 + bits[4],
        "dbp": 70.0 + bits[5],
        "movement": bits[6] / 16,
    }


@dataclass(slots=True)
class Book:
    """What the lines of a ledger say, added up; readings by (device, time in microseconds)."""

    readings: Counter[tuple[str, int]] = field(default_factory=Counter)
    readings_acknowledged: set[tuple[str, int]] = field(default_factory=set)
    events: Counter[tuple[str, str]] = field(default_factory=Counter)
    events_acknowledged: set[tuple[str, str]] = field(default_factory=set)


def read(lines: Iterable[str]) -> Book:
    """Add up a ledger; an unfinished last line counts as never written."""
    book = Book()
    for line in lines:
        if not line.endswith("\n"):
            break
        word, device, mark = line.split()
        match word:
            case "reading":
                book.readings[device, int(mark) * 1000] += 1
            case "reading-ok":
                book.readings_acknowledged.add((device, int(mark) * 1000))
            case "event":
                book.events[device, mark] += 1
            case "event-ok":
                book.events_acknowledged.add((device, mark))
            case _:
                raise ValueError(f"{line!r} is not a line of a ledger.")
    return book


class Ledger:
    """Writes the book, and keeps the times between acknowledgements."""

    def __init__(self, path: Path) -> None:
        """Begin a new book at `path`."""
        self._file = path.open("w", encoding="ascii")
        self.messages_acknowledged = 0
        self.longest_silence_seconds = 0.0
        self._heard_at = time.monotonic()

    def sent(self, facts: Iterable[str]) -> None:
        """Write down what is about to be sent for the first time."""
        self._file.writelines(f"{fact}\n" for fact in facts)

    def acknowledged(self, facts: Iterable[str]) -> None:
        """Write down one acknowledged message."""
        for fact in facts:
            word, rest = fact.split(" ", 1)
            self._file.write(f"{word}-ok {rest}\n")
        now = time.monotonic()
        silence = now - self._heard_at
        self.longest_silence_seconds = max(self.longest_silence_seconds, silence)
        self._heard_at = now
        self.messages_acknowledged += 1

    def watch_silence(self) -> None:
        """Forget the longest silence so far and measure anew."""
        self.longest_silence_seconds = 0.0

    def __enter__(self) -> Self:
        """Hold the file open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._file.close()

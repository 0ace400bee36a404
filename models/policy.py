"""From what several layers say about a resident to at most one alarm; vectorised, pure.

The highest priority wins, rules first. Learned layers add or raise and never cancel: a rule passes
untouched, at once, whatever else is said. An alarm of a resident bundles what follows for BUNDLE_S
unless the priority rises. A learned layer that alarms more often than a station can bear must score
higher there; one that is right less often than NEWS2 there is switched off.

Where the learned layers are off or broken, NEWS2 and the rules go on: they need nothing of them.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from anxin.rules import HIGH, LOW, MEDIUM
from models.news2 import HIGH_FROM, MEDIUM_FROM, News2

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]
Bools = npt.NDArray[np.bool_]
_Number = TypeVar("_Number", bound=np.generic)

Layer = Literal["rules", "news2", "deterioration", "rhythm", "novelty"]
LAYERS: Final[tuple[Layer, ...]] = ("rules", "news2", "deterioration", "rhythm", "novelty")
"""Where two ask for the same priority the first speaks."""
KINDS: Final[Mapping[Layer, str]] = {
    "news2": "early_warning",
    "deterioration": "risk_rising",
    "rhythm": "unusual",
    "novelty": "unusual",
}
"""The kind of alarm that each layer raises; those of rules are their own."""
LEARNED: Final[tuple[Layer, ...]] = ("deterioration", "rhythm", "novelty")
RULES: Final = LAYERS.index("rules")
NEWS2: Final = LAYERS.index("news2")
MOST: Final = np.array([HIGH, HIGH, MEDIUM, LOW, LOW], np.int8)
"""The highest priority that each layer may ask for: no learned layer calls somebody out of bed."""
NOBODY: Final = -1
"""Instead of an index into LAYERS where nothing is asked for."""

Mode = Literal["off", "shadow", "alarming"]
MODES: Final[tuple[Mode, ...]] = ("off", "shadow", "alarming")
"""In the shadow a layer is scored and counted, and alarms nobody."""
_SHADOW: Final = MODES.index("shadow")
_ALARMING: Final = MODES.index("alarming")

BUNDLE_S: Final = 6 * 3600.0
RETURN_S: Final = 3600.0
"""A NEWS2 of 7 and more is told again when it had been less for so long."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the layers ask for: (layers, n) each. Priority 0 is nothing; a score may be NaN.

    The priority of rules is that of the resident's highest open alarm from a rule about the body.
    """

    priority: Codes
    score: Floats


@dataclass(slots=True)
class Told:
    """What residents' stations were told, by row; times are epoch seconds, -inf for never.

    `high_told_s`: when a high NEWS2 was last told; `high_seen_s`: when it was last seen since.
    `began_s` (layers, rows): when each layer by itself last began an alarm, told or not.
    """

    priority: Codes
    at_s: Floats
    high_told_s: Floats
    high_seen_s: Floats
    began_s: Floats

    @classmethod
    def nothing(cls, rows: int) -> "Told":
        """Return rows of residents of whom nothing was told."""
        at, high_told, high_seen = (np.full(rows, -np.inf) for _ in range(3))
        began = np.full((len(LAYERS), rows), -np.inf)
        return cls(np.zeros(rows, np.int8), at, high_told, high_seen, began)


@dataclass(frozen=True, slots=True)
class Decided:
    """What is to be done, by resident: (n,); `speaking`, `began`, `shadowed` (layers, n).

    `rules`: what the rules asked for, untouched. `priority`, `layer` (NOBODY for nothing): the one
    decision. `tell`: an alarm of `layer` is to be raised now; never for rules, whose alarms are
    raised already. `speaking`: the layers behind the decision. `began`: a layer by itself begins an
    alarm, told or not. `shadowed`: it asked and was not heard, being in the shadow or under its
    station's threshold.
    """

    rules: Codes
    priority: Codes
    layer: Codes
    tell: Bools
    speaking: Bools
    began: Bools
    shadowed: Bools


def decide(
    told: Told, rows: Ints, asked: Asked, modes: npt.ArrayLike, least: npt.ArrayLike, now_s: float
) -> Decided:
    """Return at most one decision for each resident, and remember in `told` what was told.

    `rows` (n,), each once. `modes`: indices into MODES; `least`: the score that a layer must reach
    at the resident's station; (layers,) or (layers, n) both.
    """
    shape = asked.priority.shape
    mode = _by_layer(np.asarray(modes, np.int64), shape)
    priority = np.minimum(asked.priority, MOST[:, None])
    heard = (mode == _ALARMING) & ~(asked.score < _by_layer(np.asarray(least, np.float64), shape))
    # Rules have no mode, and neither they nor NEWS2 a threshold that a budget could raise.
    heard[NEWS2] = mode[NEWS2] == _ALARMING
    heard[RULES] = True
    effective: Codes = np.where(heard, priority, 0).astype(np.int8)
    layer: Ints = effective.argmax(axis=0)  # of equals the first
    highest: Codes = effective.max(axis=0)

    fresh = (highest > told.priority[rows]) | (now_s - told.at_s[rows] >= BUNDLE_S)
    fresh &= highest > 0
    # A bundle that something else began keeps no NEWS2 of 7 silent, nor one that has come back.
    urgent = (layer == NEWS2) & (highest == HIGH)
    same_bout = now_s - told.high_seen_s[rows] <= RETURN_S
    fresh |= urgent & (~same_bout | (now_s - told.high_told_s[rows] >= BUNDLE_S))
    still = (effective[NEWS2] == HIGH) & same_bout
    told.priority[rows] = np.where(fresh, highest, told.priority[rows])
    told.at_s[rows] = np.where(fresh, now_s, told.at_s[rows])
    told.high_told_s[rows] = np.where(fresh & urgent, now_s, told.high_told_s[rows])
    told.high_seen_s[rows] = np.where(fresh & urgent | still, now_s, told.high_seen_s[rows])

    asks = (priority > 0) & (mode >= _SHADOW)
    asks[RULES] = priority[RULES] > 0
    began = asks & (now_s - told.began_s[:, rows] >= BUNDLE_S)
    told.began_s[:, rows] = np.where(began, now_s, told.began_s[:, rows])
    return Decided(
        rules=asked.priority[RULES].copy(),
        priority=highest,
        layer=np.where(highest > 0, layer, NOBODY).astype(np.int8),
        tell=fresh & (layer != RULES),
        speaking=effective > 0,
        began=began,
        shadowed=asks & ~heard,
    )


def news2_asks(scores: News2) -> Codes:
    """Return the priority that NEWS2 asks for, from what is certain of it."""
    medium = (scores.score >= MEDIUM_FROM) | scores.any_three
    asks = np.where(scores.score >= HIGH_FROM, HIGH, np.where(medium, MEDIUM, 0))
    return asks.astype(np.int8)


def learned_asks(layer: Layer, score: Floats, threshold: float) -> Codes:
    """Return the priority that a learned layer asks for; without a score (NaN) nothing."""
    return np.where(score >= threshold, MOST[LAYERS.index(layer)], 0).astype(np.int8)


def without(modes: Ints, broken: Collection[Layer]) -> Ints:
    """Return the modes with broken learned layers off: NEWS2 and the rules are what is left."""
    left = modes.copy()
    left[[LAYERS.index(layer) for layer in broken if layer in LEARNED]] = MODES.index("off")
    return left


def _by_layer(values: npt.NDArray[_Number], shape: tuple[int, ...]) -> npt.NDArray[_Number]:
    return np.broadcast_to(values[:, None] if values.ndim == 1 else values, shape)


# How often a learned layer alarms, and how high it must score to keep to a budget.

BLOCKS: Final = 28
"""A week in bundles of six hours: within one a resident's layer alarms once."""
LEAST_DAYS: Final = 20.0
"""Below so many resident-days at a station its threshold is not raised: chance would do it."""


@dataclass(slots=True)
class Peaks:
    """The highest score of one layer in each bundle of the last week, and the alarms told in it.

    `score`, `alarms` (BLOCKS, rows); a score is NaN where a resident was not scored at all.
    """

    score: Floats
    alarms: Ints
    block: int = -1

    @classmethod
    def of_nobody(cls, rows: int) -> "Peaks":
        """Return rows of residents who were never scored."""
        return cls(np.full((BLOCKS, rows), np.nan), np.zeros((BLOCKS, rows), np.int64))

    def see(self, rows: Ints, score: Floats, tell: Bools, now_s: float) -> None:
        """Take the scores (n,) of some residents, each once, and for whom an alarm was told."""
        block = int(now_s // BUNDLE_S)
        if block > self.block:
            gone = np.arange(max(self.block + 1, block - BLOCKS + 1), block + 1) % BLOCKS
            self.score[gone], self.alarms[gone] = np.nan, 0
            self.block = block
        place = block % BLOCKS
        self.score[place, rows] = np.fmax(self.score[place, rows], score)
        self.alarms[place, rows] += tell


@dataclass(frozen=True, slots=True)
class Budget:
    """How a layer does at each station: (stations,) each; rates are alarms per resident-day.

    `least`: the score that it must reach; `predicted` rate at the model's own threshold, `planned`
    at `least`, `achieved`: what was told. NaN without a single day.
    """

    least: Floats
    predicted: Floats
    planned: Floats
    achieved: Floats
    resident_days: Floats


def keep_budget(
    peaks: Peaks, station: Ints, stations: int, threshold: float, budget: float
) -> Budget:
    """Return the least score by station with which a layer keeps to `budget`.

    `station` (rows,): each resident's, 0 to `stations` - 1. Where the model's own `threshold` keeps
    it, that stays; one alarm in the week is always left.
    """
    days = np.zeros(stations)
    np.add.at(days, station, (~np.isnan(peaks.score)).sum(axis=0) * BUNDLE_S / 86_400)
    told = np.zeros(stations)
    np.add.at(told, station, peaks.alarms.sum(axis=0))
    # Every bundle in which the model's own threshold was reached, highest first in each station.
    block, row = np.nonzero(peaks.score >= threshold)
    score, where = peaks.score[block, row], station[row]
    order = np.lexsort((-score, where))
    score, where = score[order], where[order]
    reached = np.bincount(where, minlength=stations)
    first = np.cumsum(reached) - reached
    allowed = np.maximum(np.floor(budget * days + 1e-9), 1).astype(np.int64)
    over = (reached > allowed) & (days >= LEAST_DAYS)
    least = np.full(stations, threshold)
    least[over] = np.nextafter(score[(first + allowed)[over]], np.inf)
    planned = np.bincount(where[score >= least[where]], minlength=stations)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Budget(least, reached / days, planned / days, told / days, days)


# Whether a layer is right less often than NEWS2 at a site, by what people found.

LEAST_LABELS: Final = 20
LEAST_RESIDENTS: Final = 8
ROUNDS: Final = 2000
LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True)
class Verdict:
    """How often alarms of a layer and of NEWS2 were real at a site, and the difference.

    `low`, `high`: its interval at LEVEL, by bootstrap of residents; NaN with too few labels.
    """

    model: float
    news2: float
    low: float
    high: float
    switch_off: bool


def judge_site(resident: Ints, of_model: Bools, real: Bools, seed: int = 0) -> Verdict:
    """Return whether a layer is to be switched off at a site: (alarms,) closed as real or false.

    `of_model`: alarms of the layer, the others are of NEWS2. Only a difference whose whole interval
    is against the layer counts. Residents are drawn, not alarms: ten false alarms of one resident
    are one experience, not ten.
    """
    who, index = np.unique(resident, return_inverse=True)
    table = np.zeros((4, len(who)))  # real and all of the layer, real and all of NEWS2
    for place, chosen in enumerate((of_model & real, of_model, ~of_model & real, ~of_model)):
        np.add.at(table[place], index[chosen], 1.0)
    total = table.sum(axis=1)
    model, news2 = (float(total[n] / total[n + 1]) if total[n + 1] else np.nan for n in (0, 2))
    enough = all(
        total[n] >= LEAST_LABELS and np.count_nonzero(table[n]) >= LEAST_RESIDENTS for n in (1, 3)
    )
    if not enough:
        return Verdict(model, news2, np.nan, np.nan, switch_off=False)
    drawn = np.random.default_rng(seed).multinomial(
        len(who), np.full(len(who), 1 / len(who)), size=ROUNDS
    )
    sums = drawn @ table.T
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3]
    low, high = np.nanquantile(difference, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Verdict(model, news2, float(low), float(high), switch_off=bool(high < 0))

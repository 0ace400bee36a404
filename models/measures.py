"""How good a score is: discrimination with intervals by person, and alarms against their cost.

**An alarm** is raised in the first hour in which the score reaches the threshold, and again only
when BUNDLE_HOURS have passed since the last one and it is (still, or again) reached. **Caught** is
an event for which an alarm is raised between CAUGHT_BEFORE hours before its onset and CAUGHT_AFTER
after it; **lead** is the time from the first of these alarms to the onset. **False** is every other
alarm; their rate is per day of hours outside those windows. Hours later than the window of an event
belong to somebody being treated and count nowhere.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

BUNDLE_HOURS: Final = 6
CAUGHT_BEFORE: Final = 12
CAUGHT_AFTER: Final = 3
BUDGETS: Final = (0.25, 0.5, 1.0, 2.0)
"""False alarms per person and day."""
ROUNDS: Final = 200
LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the interval in which it lies with LEVEL confidence, by bootstrap of people."""

    value: float
    low: float
    high: float


class Ranking:
    """Scores sorted once, so that every bootstrap round is a few sums."""

    def __init__(self, score: Floats, answer: Ints, person: Ints) -> None:
        """Take scores and answers (0 or 1), by row, and whose each row is."""
        order = np.argsort(-score, kind="stable")
        ranked = score[order]
        self._person = person[order]
        self._positive = answer[order].astype(np.float64)
        self._ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))

    def auroc(self, weight: Floats) -> float:
        """Return the area under the ROC curve where person p counts `weight[p]` times."""
        positive, negative = self._sums(weight)
        gained = np.diff(negative, prepend=0.0)
        half = positive - np.diff(positive, prepend=0.0) / 2
        area = positive[-1] * negative[-1]
        return float((gained * half).sum() / area) if area else float("nan")

    def auprc(self, weight: Floats) -> float:
        """Return the average precision where person p counts `weight[p]` times."""
        positive, negative = self._sums(weight)
        if not positive[-1]:
            return float("nan")
        with np.errstate(invalid="ignore"):
            precision = np.nan_to_num(positive / (positive + negative))
        return float((np.diff(positive, prepend=0.0) * precision).sum() / positive[-1])

    def caught(self, budget: float, weight: Floats) -> tuple[float, float]:
        """Return the part of the positive rows caught at `budget` false ones a row, and the score's
        place: the number of alarms a row."""
        positive, negative = self._sums(weight)
        rows = positive[-1] + negative[-1]
        kept = int(np.searchsorted(negative / rows, budget, side="right"))
        if not kept or not positive[-1]:
            return 0.0, 0.0
        return (
            float(positive[kept - 1] / positive[-1]),
            float((positive[kept - 1] + negative[kept - 1]) / rows),
        )

    def cost(self, part: float, weight: Floats) -> float:
        """Return the false ones a row at which this part of the positive rows is caught."""
        positive, negative = self._sums(weight)
        if not positive[-1]:
            return float("nan")
        at = int(np.searchsorted(positive / positive[-1], part - 1e-12))
        return float(negative[at] / (positive[-1] + negative[-1]))

    def _sums(self, weight: Floats) -> tuple[Floats, Floats]:
        each = weight[self._person]
        positive = np.cumsum(each * self._positive)[self._ends]
        return positive, np.cumsum(each)[self._ends] - positive


def resamples(people: int, rounds: int = ROUNDS, seed: int = 1) -> Floats:
    """Return how often each person is drawn in each round, (rounds, people)."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(people, np.full(people, 1 / people), size=rounds)
    return drawn.astype(np.float64)


def interval(value: float, rounds: Floats) -> Interval:
    """Return a figure with the middle LEVEL of what it was in the rounds."""
    known = rounds[~np.isnan(rounds)]
    if not len(known):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))


@dataclass(frozen=True, slots=True)
class Watch:
    """What an alarm at each threshold would have done, by person: enough for every figure.

    `caught`, `early`, `false` are (thresholds, people); `lead` in hours, NaN where not caught;
    `early`: caught before the onset itself. `quiet_days` (people,) are the days in which an alarm
    is false, `event` (people,) those who had one.
    """

    thresholds: Floats
    caught: Bools
    early: Bools
    lead: Floats
    false: Floats
    quiet_days: Floats
    event: Bools

    def false_rate(self, weight: Floats) -> Floats:
        """Return false alarms per person-day, by threshold."""
        rate: Floats = self.false @ weight / (self.quiet_days @ weight)
        return rate

    def sensitivity(self, weight: Floats, *, early: bool = False) -> Floats:
        """Return the part of the events that is caught, by threshold."""
        counted = weight * self.event
        caught = self.early if early else self.caught
        part: Floats = caught @ counted / counted.sum()
        return part

    def at_budget(self, budget: float, weight: Floats) -> int:
        """Return the index of the lowest threshold whose rate keeps the budget, else the last."""
        rate = self.false_rate(weight)
        over = np.flatnonzero(rate > budget)
        return min(int(over[-1]) + 1 if len(over) else 0, len(rate) - 1)


def watch(score: Floats, person: Ints, hour: Ints, onset: Floats, thresholds: Floats) -> Watch:
    """Let every person be watched at every threshold (ascending).

    `score`, `person`, `hour` by row, sorted by person and hour; `onset` (people,) with NaN.
    """
    people, hours = len(onset), int(hour.max()) + 1
    grid = np.full((hours, people), -np.inf)
    grid[hour, person] = score
    there = np.zeros((hours, people), np.bool_)
    there[hour, person] = True
    shape = (len(thresholds), people)
    since = np.full(shape, BUNDLE_HOURS, np.int16)
    caught, early = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    lead, false = np.full(shape, np.nan), np.zeros(shape)
    quiet = np.zeros(people)
    for now in range(hours):
        here = np.flatnonzero(there[now])
        fresh = since[:, here] >= BUNDLE_HOURS
        raised = fresh & (grid[now, here] >= thresholds[:, None])
        since[:, here] = np.where(raised, 1, since[:, here] + 1)
        with np.errstate(invalid="ignore"):
            window = (now >= onset[here] - CAUGHT_BEFORE) & (now <= onset[here] + CAUGHT_AFTER)
            calm = ~window & ~(now > onset[here] + CAUGHT_AFTER)
        quiet[here] += calm / 24
        false[:, here] += raised & calm
        hit = raised & window
        if hit.any():
            ahead = onset[here] - now
            lead[:, here] = np.where(hit & ~caught[:, here], ahead, lead[:, here])
            caught[:, here] |= hit
            early[:, here] |= hit & (ahead >= 0)
    return Watch(thresholds, caught, early, lead, false, quiet, ~np.isnan(onset))


def steps(score: Floats, count: int = 200) -> Floats:
    """Return thresholds that lie close where alarms are rare; all of them if there are few."""
    values = np.unique(score)
    if len(values) > count:
        values = np.unique(np.quantile(score, 1 - np.geomspace(1e-5, 0.9, count)))
    return np.append(values, np.nextafter(values[-1], np.inf))

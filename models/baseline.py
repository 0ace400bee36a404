"""What is usual for each resident, by time of day, and how far from it they are; vectorised, pure.

The usual is the median of hourly means over two to four weeks, its spread the median distance from
it; both lean on the population until there is enough of one's own. It is learnt once a day
(`usual_of`, `learn`). With each reading `follow` tells the distance from the usual and keeps two
running sums of it: an average that fades (EWMA) and one-sided sums (CUSUM) for slow changes. All
per resident fits in NUMBERS numbers.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

VITALS: Final = ("hr", "rr", "spo2", "temp", "sbp", "dbp")
BINS: Final = 4
"""Night, morning, afternoon, evening: six hours each from local midnight."""
ALL_DAY: Final = BINS
"""The bin after the others: the whole day."""
WINDOW_DAYS: Final = 28
ESTABLISHED_HOURS: Final = np.array([72, 72, 72, 10, 10, 10])
"""From so many hours known on, the usual only drifts; a cuff tells of few hours a week."""
SHRINK_HOURS: Final = 20.0
"""One's own counts n / (n + 20), with n hours known."""

# (check) Means and spreads of older people at home, from no single source: they matter in the first
# days only. The least spread keeps a very steady person from alarming on a sensor's resolution. The
# drift is the most that the usual follows in a day, so that it does not learn a slow decline.
_POPULATION: Final = np.array([72.0, 16.0, 96.5, 36.5, 132.0, 74.0])
_POPULATION_SPREAD: Final = np.array([8.0, 2.0, 1.5, 0.3, 14.0, 9.0])
LEAST_SPREAD: Final = np.array([2.0, 1.0, 0.7, 0.12, 4.0, 3.0])
MOST_DRIFT_PER_DAY: Final = np.array([1.0, 0.3, 0.2, 0.03, 1.5, 1.0])

FADE_HOURS: Final = 6.0
"""How long ago a reading counts 1/e in the fading average."""
SLACK: Final = 0.5
"""CUSUM: so far from the usual is still nothing."""
MOST_SUM: Final = 24.0
MOST_Z: Final = 8.0
"""No reading counts for more than this in the running sums."""
READING_HOURS: Final = 1.0
"""The most hours that one reading speaks for; hours that none speaks for count as usual."""

_MAD_TO_SD: Final = 1.4826
_CHUNK: Final = 512


@dataclass(frozen=True, slots=True)
class Usual:
    """Median, spread (as a standard deviation) and hours known: (vitals, BINS + 1, n)."""

    centre: Floats
    spread: Floats
    hours: Floats


_USUAL: Final = len(VITALS) * (BINS + 1)
_RUNNING: Final = len(VITALS)
NUMBERS: Final = 3 * _USUAL + 4 * _RUNNING
"""How many numbers hold all that is known of a resident."""


class Baselines:
    """What is known of residents, by row: `numbers` (NUMBERS, rows), which may be stored as is."""

    def __init__(self, numbers: Floats) -> None:
        """Take numbers as they were stored."""
        self.numbers: Final = np.ascontiguousarray(numbers)
        rows = self.numbers.shape[1]
        by_bin = (len(VITALS), BINS + 1, rows)
        parts = np.split(
            self.numbers,
            np.cumsum([_USUAL, _USUAL, _USUAL, _RUNNING, _RUNNING, _RUNNING]),
        )
        self.usual: Final = Usual(*(part.reshape(by_bin) for part in parts[:3]))
        self.faded: Final = parts[3]
        self.above: Final = parts[4]
        self.below: Final = parts[5]
        self.at_s: Final = parts[6]

    @classmethod
    def of_nobody(cls, rows: int) -> "Baselines":
        """Return rows for residents never heard of."""
        fresh = cls(np.zeros((NUMBERS, rows)))
        fresh.at_s.fill(-np.inf)
        return fresh

    def grown(self, rows: int) -> "Baselines":
        """Return the same with so many more rows at the end."""
        return Baselines(np.hstack([self.numbers, Baselines.of_nobody(rows).numbers]))


@dataclass(frozen=True, slots=True)
class Distance:
    """How far residents are from their usual: (vitals, n) each; NaN where there is no value.

    `centre` and `spread` are the usual at this time of day. `z` = (value - centre) / spread;
    `faded` its fading average, `above` and `below` its one-sided sums, all in spreads (times hours
    for the sums); those are never NaN.
    """

    centre: Floats
    spread: Floats
    z: Floats
    faded: Floats
    above: Floats
    below: Floats


def bin_of(local_hour: npt.ArrayLike) -> Ints:
    """Return the bin of an hour of the local day (0 to 24)."""
    bins: Ints = (np.asarray(local_hour) % 24 // (24 // BINS)).astype(np.int64)
    return bins


def usual_of(hourly: Floats, local_hour: npt.ArrayLike, set_aside: Bools | None = None) -> Usual:
    """Return the usual of residents from their hourly means.

    `hourly` (n, hours, vitals), NaN for missing; `local_hour` (hours,) of the local day, the same
    for all. `set_aside` (n, hours): hours of an open alarm, which are not learnt from.
    """
    shape = (len(VITALS), BINS + 1, len(hourly))
    usual = Usual(np.empty(shape), np.empty(shape), np.empty(shape))
    bins = bin_of(local_hour)
    chosen = [*(np.flatnonzero(bins == one) for one in range(BINS)), np.arange(len(bins))]
    for first in range(0, len(hourly), _CHUNK):
        part = slice(first, first + _CHUNK)
        values = hourly[part].transpose(2, 0, 1).astype(np.float32)
        if set_aside is not None:
            values[:, set_aside[part]] = np.nan
        for one, hours in enumerate(chosen):
            centre, known = _median(values[:, :, hours])
            distance = np.abs(values[:, :, hours] - centre[:, :, None])
            usual.centre[:, one, part] = centre
            usual.spread[:, one, part] = _median(distance)[0] * _MAD_TO_SD
            usual.hours[:, one, part] = known
    return usual


def learn(
    baselines: Baselines, rows: Ints, found: Usual, days: npt.ArrayLike, frozen: Bools
) -> None:
    """Move the usual of `rows` towards what was found, at most by the drift of so many days.

    Where `frozen` (an alarm is open) nothing moves. In the first days it is taken as it is found.
    """
    own, rows = baselines.usual, rows[~frozen]
    span = np.asarray(days, np.float64)
    span = span if span.ndim == 0 else span[~frozen]
    new = Usual(*(one[:, :, ~frozen] for one in (found.centre, found.spread, found.hours)))
    known = new.hours > 0
    # Whether the usual is established is asked of the whole day: its bins must not wander either.
    settled = (own.hours[:, ALL_DAY, rows] >= ESTABLISHED_HOURS[:, None])[:, None] & (
        own.hours[:, :, rows] > 0
    )
    most = MOST_DRIFT_PER_DAY[:, None, None] * span
    for mine, theirs, step in (
        (own.centre, new.centre, most),
        (own.spread, new.spread, most / 2),
    ):
        now = mine[:, :, rows]
        drifted = now + np.clip(theirs - now, -step, step)
        mine[:, :, rows] = np.where(known, np.where(settled, drifted, theirs), now)
    # What is established stays so while somebody is away; only the weight of one's own changes.
    own.hours[:, :, rows] = np.where(known, new.hours, own.hours[:, :, rows])


def usual_at(
    baselines: Baselines,
    rows: Ints,
    bins: Ints,
    population: Floats = _POPULATION,
    population_spread: Floats = _POPULATION_SPREAD,
) -> tuple[Floats, Floats]:
    """Return centre and spread (vitals, n) at a time of day, leaning on all day and on everybody.

    `population` (vitals,) or (vitals, n), say by age.
    """
    own = baselines.usual
    people, people_spread = (
        one[:, None] if one.ndim == 1 else one for one in (population, population_spread)
    )
    all_day = own.hours[:, ALL_DAY, rows]
    weight = all_day / (all_day + SHRINK_HOURS)
    centre = people + weight * (own.centre[:, ALL_DAY, rows] - people)
    spread = people_spread + weight * (own.spread[:, ALL_DAY, rows] - people_spread)
    here = own.hours[:, bins, rows]
    weight = here / (here + SHRINK_HOURS)
    centre = centre + weight * (own.centre[:, bins, rows] - centre)
    spread = spread + weight * (own.spread[:, bins, rows] - spread)
    return centre, np.maximum(spread, LEAST_SPREAD[:, None])


def follow(
    baselines: Baselines, rows: Ints, at_s: Floats, values: Floats, local_hour: Floats
) -> Distance:
    """Return how far residents are from their usual, and remember it.

    Each row at most once: one reading of `values` (n, vitals), NaN for missing or not usable, at
    `at_s` (n,) epoch seconds. One that is not newer than the last is told of and not remembered.
    About a thousand rows at a time is quickest: they stay in the cache.
    """
    centre, spread = usual_at(baselines, rows, bin_of(local_hour))
    z = (values.T - centre) / spread
    counted = np.clip(np.nan_to_num(z), -MOST_Z, MOST_Z)
    hours = (at_s - baselines.at_s[:, rows]) / 3600
    new = ~np.isnan(z) & (hours > 0)
    spoken = np.minimum(hours, READING_HOURS)
    silent = np.where(new, hours - spoken, 0.0)
    spoken = np.where(new, spoken, 0.0)

    fading = -np.expm1(-spoken / FADE_HOURS)
    faded = baselines.faded[:, rows] * np.exp(-silent / FADE_HOURS)
    faded += fading * (counted - faded)
    above = _summed(baselines.above[:, rows], counted, spoken, silent)
    below = _summed(baselines.below[:, rows], -counted, spoken, silent)
    baselines.faded[:, rows], baselines.above[:, rows], baselines.below[:, rows] = (
        faded, above, below,
    )  # fmt: skip
    baselines.at_s[:, rows] = np.where(new, at_s, baselines.at_s[:, rows])
    return Distance(centre, spread, z, faded, above, below)


def _summed(before: Floats, z: Floats, spoken: Floats, silent: Floats) -> Floats:
    rested = np.maximum(before - SLACK * silent, 0.0)
    summed: Floats = np.clip(rested + (z - SLACK) * spoken, 0.0, MOST_SUM)
    return summed


def _median(values: npt.NDArray[np.float32]) -> tuple[Floats, Ints]:
    """Return the median of the last axis without its NaN (0 where nothing is left), and how many.

    Much faster than nanmedian: one sort, which puts NaN last.
    """
    ordered = np.sort(values, axis=-1)
    known = np.count_nonzero(~np.isnan(ordered), axis=-1)
    if not ordered.shape[-1]:
        return np.zeros(known.shape), known
    below, above = (
        np.take_along_axis(ordered, np.maximum(place, 0)[..., None], -1)[..., 0].astype(np.float64)
        for place in ((known - 1) // 2, known // 2)
    )
    median = (below + above) / 2
    return np.where(known > 0, median, 0.0), known

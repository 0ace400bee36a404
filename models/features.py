"""From a day of hourly vital signs to the numbers that a model looks at; vectorised, causal, pure.

The same function serves the worker's tick (a ring of hourly rollups of each resident) and training.
It is built so that it cannot tell how often somebody was measured or how long a stay has lasted: a
value holds until the next one or until it is too old, no count, no age of a value and no hour of a
stay is given out, and where the day is not yet full, windows are of what there is. A person whose
values do not change has the same features at the first hour and at the last, measured every hour or
every fourth. What remains: which vital signs are measured at all (missing stays missing), and that
somebody measured more often shows more of the ups and downs (`low`, `high`, `sd`): how much that
moves a score is measured in docs/risk.md.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.news2 import news2

Floats = NDArray[np.float64]

HOURS: Final = 24
"""The window: the last row is the hour that is judged, the ones before it are the past."""
VITALS: Final = ("hr", "rr", "spo2", "temp", "sbp", "dbp", "gcs", "oxygen")
HOLDS_HOURS: Final = np.array([6, 6, 6, 12, 6, 6, 12, 12])
"""So many hours a value holds where none follows it, by vital sign."""
BODY: Final = 6
"""The first six vital signs are measured by devices, the others entered by staff."""
USUAL_LAG: Final = 6
_CHUNK: Final = 1024
"""Residents at a time: what they need stays in the processor's cache."""

_WINDOWS: Final = (
    "last", "mean6", "mean24", "low24", "high24", "sd6", "sd24", "trend6", "trend24", "own",
    "jump", "turn",
)  # fmt: skip
"""`own`: mean of 6 h less the usual; `jump`: last less mean of 6 h; `turn`: 3 h less 9 before."""
FEATURES: Final = (
    *(f"{vital}_{window}" for window in _WINDOWS for vital in VITALS[:BODY]),
    "shock_index", "shock_index_mean6", "shock_index_own", "pulse_pressure", "pulse_pressure_mean6",
    "map_mean6", "map_low24", "rr_per_spo2", "hr_per_degree",
    "news2_rr", "news2_spo2", "news2_sbp", "news2_hr", "news2_temp", "news2", "news2_mean24",
    "age", "sex", "gcs", "gcs_low24", "gcs_mean24", "oxygen",
)  # fmt: skip
COLUMN: Final = {name: column for column, name in enumerate(FEATURES)}

# Deviations from a straight line are pulled to nought while a window holds few hours.
_RIDGE: Final = 3.0


def features(values: Floats, age: Floats, sex: Floats, usual: Floats) -> Floats:
    """Return (n, len(FEATURES)) from `values` (n, HOURS, len(VITALS)), NaN for missing.

    `age` in years and `sex` (1 male, 0 female) are (n,), NaN for unknown. `usual` (n, BODY) is what
    is usual for each one, from the own past up to `USUAL_LAG` hours ago; where it is NaN there is
    nothing to differ from, and the difference is nought.
    """
    out = np.empty((len(values), len(FEATURES)))
    for first in range(0, len(values), _CHUNK):
        part = slice(first, first + _CHUNK)
        _fill(out[part].T, values[part], age[part], sex[part], usual[part].T)
    return out


def _fill(out: Floats, values: Floats, age: Floats, sex: Floats, usual: Floats) -> None:
    day = held(values)
    body = day[:BODY]
    there = ~np.isnan(body)
    known = np.where(there, body, 0.0)
    last = body[:, -1]
    mean6, trend6 = _line(known[:, -6:], there[:, -6:])
    mean24, trend24 = _line(known, there)
    low, high = np.fmin.reduce(body, axis=1), np.fmax.reduce(body, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        square = np.einsum("vhn,vhn->vn", known, known) / there.sum(axis=1)
        sd24 = np.sqrt(np.maximum(square - mean24**2, 0.0))
        late, earlier = _mean(body[:, -3:]), _mean(body[:, -12:-3])
        turn = np.where(np.isnan(earlier), 0.0 * last, late - earlier)
        before = np.where(np.isnan(usual), mean6, usual)
        own = mean6 - before
        rows = iter(out)
        sd6 = _spread(values, mean6)
        windows = (
            last, mean6, mean24, low, high, sd6, sd24, trend6, trend24, own, last - mean6, turn,
        )  # fmt: skip
        for window in windows:
            for row in window:
                next(rows)[:] = row
        hr, rr, spo2, temp, sbp, dbp = last
        hr6, _, _, _, sbp6, dbp6 = mean6
        shock, shock6 = hr / sbp, hr6 / sbp6
        score = news2(hr=hr, rr=rr, spo2=spo2, temp=temp, sbp=sbp)
        day_long = news2(hr=mean24[0], rr=mean24[1], spo2=mean24[2], temp=mean24[3], sbp=mean24[4])
        gcs = day[6]
        for row in (
            shock,
            shock6,
            shock6 - before[0] / before[4],
            sbp - dbp,
            sbp6 - dbp6,
            (sbp6 + 2 * dbp6) / 3,
            (low[4] + 2 * low[5]) / 3,
            rr / spo2,
            hr - 10 * (temp - 37),
            *(
                np.where(score.present[place], score.points[place], np.nan)
                for place in (0, 1, 3, 4, 6)
            ),
            score.score,
            day_long.score,
            age,
            sex,
            gcs[-1],
            np.fmin.reduce(gcs, axis=0),
            _mean(gcs),
            day[7, -1],
        ):
            next(rows)[:] = row


def held(values: Floats) -> Floats:
    """Return (vitals, hours, n): each value holds until the next, or until it is too old."""
    day = np.ascontiguousarray(values.transpose(2, 1, 0))
    age = np.zeros(day.shape[::2])
    for hour in range(1, day.shape[1]):
        now = day[:, hour]
        missing = np.isnan(now)
        age = np.where(missing, age + 1, 0)
        np.copyto(now, day[:, hour - 1], where=missing & (age < HOLDS_HOURS[:, None]))
    return day


def _line(known: Floats, there: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return mean and slope per hour of a straight line, by vital and person."""
    at = np.arange(known.shape[1], dtype=float)
    weight = there.astype(float)
    count = weight.sum(axis=1)
    time = np.einsum("vhn,h->vn", weight, at)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = known.sum(axis=1) / count
        spread = np.einsum("vhn,h->vn", weight, at**2) - time**2 / count
        slope = (np.einsum("vhn,h->vn", known, at) - mean * time) / (spread + _RIDGE)
    return mean, slope


def _mean(rows: Floats) -> Floats:
    """Return the mean over the hours, (…, hours, n) -> (…, n), NaN where there is none."""
    there = ~np.isnan(rows)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: Floats = np.where(there, rows, 0.0).sum(axis=-2) / there.sum(axis=-2)
    return mean


def _spread(values: Floats, mean6: Floats) -> Floats:
    """Return how far what was measured in the last six hours lies apart; nought for one value."""
    six = values[:, -6:, :BODY].transpose(2, 1, 0)
    there = ~np.isnan(six)
    known = np.where(there, six, 0.0)
    count = there.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = known.sum(axis=1) / count
        square = np.maximum((known**2).sum(axis=1) / count - mean**2, 0.0)
        spread = np.sqrt(square * count / np.maximum(count - 1, 1))
    out: Floats = np.where(count > 0, spread, 0.0 * mean6)
    return out

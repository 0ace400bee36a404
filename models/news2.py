"""NEWS2: seven parameters in, points and bounds of the total out; vectorised, pure.

The table is the one of the Royal College of Physicians (National Early Warning Score 2, 2017).
Values are rounded first, then banded. A value that is missing, too old or outside what a device may
report gets no points: the total is then only bounded and is not called NEWS2 (`complete` is false).
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from anxin.vitals import COLUMN, CONSCIOUSNESS, HIGH, LOW

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Points = npt.NDArray[np.int8]
Bools = npt.NDArray[np.bool_]
_Number = TypeVar("_Number", bound=np.generic)

Parameter = Literal["rr", "spo2", "oxygen", "sbp", "hr", "consciousness", "temp"]
PARAMETERS: Final[tuple[Parameter, ...]] = (
    "rr", "spo2", "oxygen", "sbp", "hr", "consciousness", "temp",
)  # fmt: skip
MOST: Final = np.array([3, 3, 2, 3, 3, 3, 3], np.int8)
"""The most points that each parameter can give: 20 in all."""

STREAM_S: Final = 15 * 60.0
SPOT_S: Final = 12 * 3600.0
AGE_LIMIT_S: Final = np.array([STREAM_S, STREAM_S, SPOT_S, SPOT_S, STREAM_S, SPOT_S, SPOT_S])
"""How old each parameter may be, in seconds: hr, rr and spo2 as from a stream.

What staff enter (oxygen, consciousness) holds for as long as a cuff's or a thermometer's reading.
"""

Band = Literal["low", "low-medium", "medium", "high"]
BANDS: Final[tuple[Band, ...]] = ("low", "low-medium", "medium", "high")
"""Total 0 to 4; 0 to 4 with a single parameter of 3; 5 to 6; 7 and more."""
MEDIUM_FROM: Final = 5
HIGH_FROM: Final = 7

# First value of each band and its points, in the rounded value's unit (temperature in tenths).
_RR: Final = ((0, 3), (9, 1), (12, 0), (21, 2), (25, 3))
_SPO2: Final = ((0, 3), (92, 2), (94, 1), (96, 0))
_SPO2_SCALE_2_AIR: Final = ((0, 3), (84, 2), (86, 1), (88, 0))
_SPO2_SCALE_2_OXYGEN: Final = ((0, 3), (84, 2), (86, 1), (88, 0), (93, 1), (95, 2), (97, 3))
_SBP: Final = ((0, 3), (91, 2), (101, 1), (111, 0), (220, 3))
_HR: Final = ((0, 3), (41, 1), (51, 0), (91, 1), (111, 2), (131, 3))
_TEMP: Final = ((0, 3), (351, 1), (361, 0), (381, 1), (391, 2))
_BANDS: Final = {"rr": _RR, "spo2": _SPO2, "sbp": _SBP, "hr": _HR, "temp": _TEMP}


@dataclass(frozen=True, slots=True)
class News2:
    """The scores of some residents; the axes after the first are those of the values given.

    `points`, `present` (7, …) in the order of PARAMETERS: `points` are those that are certain (0
    where missing). `score` = `possible_min` = their sum; only with `complete` is it NEWS2.
    `any_three`: one parameter certainly gives 3. `band` is an index into BANDS, from `score`.
    """

    points: Points
    present: Bools
    score: Points
    possible_min: Points
    possible_max: Points
    any_three: Bools
    complete: Bools
    band: Points


def news2(
    *,
    hr: npt.ArrayLike,
    rr: npt.ArrayLike,
    spo2: npt.ArrayLike,
    temp: npt.ArrayLike,
    sbp: npt.ArrayLike,
    oxygen: npt.ArrayLike = np.nan,
    consciousness: npt.ArrayLike = -1,
    scale2: npt.ArrayLike = False,
    age_s: npt.ArrayLike = 0.0,
    age_limit_s: npt.ArrayLike = AGE_LIMIT_S,
) -> News2:
    """Return the scores of residents, from arrays that broadcast against each other.

    NaN is missing. `oxygen` is 1 (on supplementary oxygen), 0 (air) or NaN; `consciousness` an
    index into vitals.CONSCIOUSNESS or -1; `scale2`: prescribed the SpO2 scale for a target of 88 to
    92 %. `age_s` and `age_limit_s` (7,) or (7, …) in the order of PARAMETERS, or one for all; an
    unknown age is too old.
    """
    values = np.broadcast_arrays(
        *(np.asarray(one, np.float64) for one in (rr, spo2, oxygen, sbp, hr, consciousness, temp)),
        np.asarray(scale2, np.bool_),
    )
    rr_, spo2_, oxygen_, sbp_, hr_, consciousness_, temp_, scale2_ = values
    shape = rr_.shape
    points = np.zeros((len(PARAMETERS), *shape), np.int8)
    most = np.zeros_like(points)
    present = np.zeros(points.shape, np.bool_)
    for row, (parameter, value, table) in enumerate((
        ("rr", rr_, _RR_POINTS),
        ("spo2", spo2_, _SPO2_POINTS),
        ("oxygen", oxygen_, None),
        ("sbp", sbp_, _SBP_POINTS),
        ("hr", hr_, _HR_POINTS),
        ("consciousness", consciousness_, None),
        ("temp", temp_, _TEMP_POINTS),
    )):  # fmt: skip
        if table is not None:
            column = COLUMN[parameter]
            present[row] = (value >= LOW[column]) & (value <= HIGH[column])
            points[row] = most[row] = table[_rounded(value, present[row], parameter)]
    present[_OXYGEN] = (oxygen_ == 0) | (oxygen_ == 1)
    present[_CONSCIOUSNESS] = (consciousness_ >= 0) & (consciousness_ < len(CONSCIOUSNESS))
    present &= _fresh(age_s, age_limit_s, shape)

    points[_OXYGEN] = most[_OXYGEN] = np.where(oxygen_ == 1, 2, 0)
    points[_CONSCIOUSNESS] = most[_CONSCIOUSNESS] = np.where(consciousness_ == _ALERT, 0, 3)
    if scale2_.any():
        saturation = _rounded(spo2_, present[_SPO2_ROW], "spo2")
        air, with_oxygen = _SPO2_AIR_POINTS[saturation], _SPO2_OXYGEN_POINTS[saturation]
        on_oxygen = present[_OXYGEN] & (oxygen_ == 1)
        on_air = present[_OXYGEN] & (oxygen_ == 0)
        # On oxygen never fewer points than on air: with oxygen unknown these two are the bounds.
        least = np.where(on_oxygen, with_oxygen, air)
        points[_SPO2_ROW] = np.where(scale2_, least, points[_SPO2_ROW])
        most[_SPO2_ROW] = np.where(scale2_, np.where(on_air, air, with_oxygen), most[_SPO2_ROW])
    points *= present
    most = np.where(present, most, _column(MOST, shape))

    score = points.sum(axis=0, dtype=np.int8)
    any_three: Bools = np.asarray((points == 3).any(axis=0))
    return News2(
        points=points,
        present=present,
        score=score,
        possible_min=score.copy(),
        possible_max=most.sum(axis=0, dtype=np.int8),
        any_three=any_three,
        complete=np.asarray(present.all(axis=0)),
        band=band_of(score, any_three),
    )


def band_of(score: npt.ArrayLike, any_three: npt.ArrayLike) -> Points:
    """Return the index into BANDS of each total, given whether one parameter alone gives 3."""
    total = np.asarray(score)
    steps = (total >= MEDIUM_FROM).astype(np.int8) * 2 + (total >= HIGH_FROM)
    band: Points = np.maximum(steps, np.asarray(any_three, np.bool_)).astype(np.int8)
    return band


def without_points(
    parameter: Parameter, *, scale2: bool = False, on_oxygen: bool = False
) -> tuple[float, float]:
    """Return the lowest and highest value that gives no points; infinite where none is too high.

    Only for what is measured: neither oxygen nor consciousness has a range.
    """
    bands = _BANDS[parameter]
    if parameter == "spo2" and scale2:
        bands = _SPO2_SCALE_2_OXYGEN if on_oxygen else _SPO2_SCALE_2_AIR
    none = next(place for place, (_, points) in enumerate(bands) if not points)
    step = 10 if parameter == "temp" else 1
    high = bands[none + 1][0] - 1 if none + 1 < len(bands) else np.inf
    return bands[none][0] / step, high / step


# A value so little below a half is the half: 35.05 is 35.1 also where it was kept in four bytes.
_NEARLY: Final = 1e-4
_OXYGEN: Final = PARAMETERS.index("oxygen")
_CONSCIOUSNESS: Final = PARAMETERS.index("consciousness")
_SPO2_ROW: Final = PARAMETERS.index("spo2")
_ALERT: Final = CONSCIOUSNESS.index("A")


def _rounded(value: Floats, present: Bools, parameter: str) -> Ints:
    """Round half up: to integers, temperature to tenths (in which it is returned)."""
    scale = 10.0 if parameter == "temp" else 1.0
    known = np.where(present, value, 0.0)
    rounded: Ints = np.floor(known * scale + (0.5 + _NEARLY)).astype(np.int64)
    return rounded


def _fresh(age_s: npt.ArrayLike, age_limit_s: npt.ArrayLike, shape: tuple[int, ...]) -> Bools:
    age = np.asarray(age_s, np.float64)
    limit = np.asarray(age_limit_s, np.float64)
    age = _column(age, shape) if age.ndim == 1 else age
    limit = _column(limit, shape) if limit.ndim == 1 else limit
    fresh: Bools = age <= limit
    return fresh


def _column(per_parameter: npt.NDArray[_Number], shape: tuple[int, ...]) -> npt.NDArray[_Number]:
    """Put the one axis of parameters before the axes of the residents."""
    return per_parameter.reshape(-1, *(1 for _ in shape))


def _table(bands: tuple[tuple[int, int], ...], metric: str, scale: int = 1) -> Points:
    """Return the points of every rounded value up to the highest that a device may report."""
    rounded = np.arange(int(HIGH[COLUMN[metric]]) * scale + 1)
    first, points = np.array(bands).T
    table: Points = points[np.searchsorted(first, rounded, side="right") - 1].astype(np.int8)
    return table


_RR_POINTS: Final = _table(_RR, "rr")
_SPO2_POINTS: Final = _table(_SPO2, "spo2")
_SPO2_AIR_POINTS: Final = _table(_SPO2_SCALE_2_AIR, "spo2")
_SPO2_OXYGEN_POINTS: Final = _table(_SPO2_SCALE_2_OXYGEN, "spo2")
_SBP_POINTS: Final = _table(_SBP, "sbp")
_HR_POINTS: Final = _table(_HR, "hr")
_TEMP_POINTS: Final = _table(_TEMP, "temp", scale=10)

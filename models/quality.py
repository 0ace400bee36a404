"""Quality of readings: which values a score may look at, and what is wrong with the others; pure.

What is found here is about the sensor, never about the body: a technical finding. The live rules
do not ask this layer; a value that it sets aside still raises whatever alarm a rule finds in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from anxin.rules import ABSENT, PRESENT
from anxin.vitals import COLUMN, HIGH, LOW, METRICS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]
Bools = npt.NDArray[np.bool_]

Reason = Literal["no_value", "out_of_range", "absent", "pressure_reversed", "too_fast", "flat"]
REASONS: Final[tuple[Reason, ...]] = (
    "no_value", "out_of_range", "absent", "pressure_reversed", "too_fast", "flat",
)  # fmt: skip
WORDS: Final[Mapping[Reason, tuple[str, str]]] = {
    "no_value": ("设备报告无数值", "the device says that it has no value"),
    "out_of_range": ("超出可测范围", "outside what can be measured"),
    "absent": ("无人时仍有数值", "a value although nobody is there"),
    "pressure_reversed": ("舒张压不低于收缩压", "diastolic pressure not below systolic"),
    "too_fast": ("变化快于人体可能", "changed faster than a body can"),
    "flat": ("数值长时间完全不变", "exactly the same value for too long"),
}
"""What staff read, in Chinese and English."""
USABLE: Final = -1
"""The code of a value without any objection; the others are indices into REASONS."""


class NoValue(msgspec.Struct, frozen=True):
    """Numbers with which devices say that they have none.

    -1, 255 and 6553.5 are all bits set in one byte or two (with a tenth as unit). `zero`: 0 is one
    too; `zero_unless_present`: only while nobody is known to be there, since a heart or a breath
    that stops is a value.
    """

    codes: tuple[float, ...]
    zero: bool = False
    zero_unless_present: bool = False


NO_VALUE: Final[Mapping[str, NoValue]] = {
    "hr": NoValue((-1, 255, 511, 65535), zero_unless_present=True),
    "rr": NoValue((-1, 255, 65535), zero_unless_present=True),
    "spo2": NoValue((-1, 127, 255, 65535), zero=True),
    "temp": NoValue((-1, 255, 655.35, 6553.5, 65535), zero=True),
    "sbp": NoValue((-1, 2047, 65535), zero=True),  # 255 is a pressure that people have had
    "dbp": NoValue((-1, 2047, 65535), zero=True),
    "glucose": NoValue((-1, 255, 6553.5, 65535), zero=True),
    "weight": NoValue((-1, 6553.5, 65535), zero=True),
}


class Pace(msgspec.Struct, frozen=True):
    """How far a value may be from one before it: `jump` at once, and `per_hour` more with time.

    All (check): wide enough for a sudden arrhythmia or a rigor; no standard gives such limits.
    """

    jump: float
    per_hour: float


PACE: Final[Mapping[str, Pace]] = {
    "hr": Pace(60, 3600),
    "rr": Pace(20, 1800),
    "spo2": Pace(8, 3600),  # a long apnea: about 1 % a second
    "temp": Pace(1.0, 2.0),
    "sbp": Pace(60, 1200),
    "dbp": Pace(40, 800),
    "glucose": Pace(3.0, 15.0),
    "weight": Pace(3.0, 0.2),
}


class Stillness(msgspec.Struct, frozen=True):
    """From how many equal readings over how many seconds on a sensor counts as stuck (check)."""

    seconds: float
    readings: int


STILLNESS: Final[Mapping[str, Stillness]] = {
    "hr": Stillness(1800, 60),
    "rr": Stillness(7200, 60),
    "spo2": Stillness(6 * 3600, 60),  # a whole number near its ceiling is often steady
    "temp": Stillness(24 * 3600, 24),
}
OF_THE_BODY: Final = ("hr", "rr", "spo2")
"""Metrics that mean nothing while the bed or the wrist is empty, as for the live rules."""


@dataclass(slots=True)
class Memory:
    """What is remembered of each device, by row: the two newest believable values, the run of one.

    `value`, `at_s` (2, metrics, rows): [0] is the newest. `run_since_s`, `run_count` (metrics,
    rows) tell since when and how often the newest value came unchanged.
    """

    rows: int
    value: Floats = field(init=False)
    at_s: Floats = field(init=False)
    run_since_s: Floats = field(init=False)
    run_count: Ints = field(init=False)

    def __post_init__(self) -> None:
        """Start with devices never heard from."""
        shape = (len(METRICS), self.rows)
        self.value = np.full((2, *shape), np.nan)
        self.at_s = np.full((2, *shape), -np.inf)
        self.run_since_s = np.zeros(shape)
        self.run_count = np.zeros(shape, np.int64)


@dataclass(frozen=True, slots=True)
class Finding:
    """A technical finding: what is wrong with a metric of a device, how often, and when."""

    row: int
    metric: str
    reason: Reason
    count: int
    first_s: float
    last_s: float


@dataclass(frozen=True, slots=True)
class Checked:
    """The verdict on a batch: `usable` (n, metrics), `reason` (n, metrics) with USABLE or a code.

    A value that is absent is neither usable nor objected to.
    """

    usable: Bools
    reason: Codes
    findings: tuple[Finding, ...]


def check(memory: Memory, rows: Ints, at_s: Floats, values: Floats, presence: Ints) -> Checked:
    """Return what may be used of a batch of readings, and update `memory`.

    `rows`, `at_s` (n,) sorted by row, then time (epoch seconds): one device's series, or the newest
    of many; `values` (n, metrics) in the order of vitals.METRICS, NaN for absent; `presence` (n,)
    coded as in vitals.PRESENCE. A reading older than what is remembered is not judged by its pace.
    """
    reason = np.full(values.shape, USABLE, np.int8)
    told = ~np.isnan(values)
    _alone(reason, values, presence)
    for metric in PACE:
        column = COLUMN[metric]
        chosen = np.flatnonzero(
            told[:, column] & (reason[:, column] == USABLE) & (at_s > memory.at_s[0, column, rows])
        )
        if len(chosen):
            series = _Series(rows[chosen], at_s[chosen], values[chosen, column])
            reason[chosen, column] = _beside_others(memory, metric, series)
    reason[~told] = USABLE
    usable = told & (reason == USABLE)
    return Checked(usable, reason, _findings(rows, at_s, reason))


def _alone(reason: Codes, values: Floats, presence: Ints) -> None:
    """Judge each reading by itself; the objection that says most comes last and stays."""
    sbp, dbp = COLUMN["sbp"], COLUMN["dbp"]
    reversed_ = values[:, dbp] >= values[:, sbp]
    for column in (sbp, dbp):
        reason[reversed_, column] = REASONS.index("pressure_reversed")
    for metric in OF_THE_BODY:
        reason[presence == ABSENT, COLUMN[metric]] = REASONS.index("absent")
    reason[(values < LOW) | (values > HIGH)] = REASONS.index("out_of_range")
    for metric, no_value in NO_VALUE.items():
        column = COLUMN[metric]
        value = values[:, column]
        is_code = np.isin(value, no_value.codes)
        if no_value.zero:
            is_code |= value == 0
        elif no_value.zero_unless_present:
            is_code |= (value == 0) & (presence != PRESENT)
        reason[is_code, column] = REASONS.index("no_value")


@dataclass(frozen=True, slots=True)
class _Series:
    """New readings of one metric, sorted by row and time."""

    rows: Ints
    at_s: Floats
    value: Floats


def _beside_others(memory: Memory, metric: str, new: _Series) -> Codes:
    """Judge readings of one metric by those before them, and remember the newest."""
    column = COLUMN[metric]
    first = np.empty(len(new.rows), np.bool_)
    first[0] = True
    np.not_equal(new.rows[1:], new.rows[:-1], out=first[1:])
    second = np.zeros_like(first)
    second[1:] = first[:-1] & ~first[1:]
    before: list[tuple[Floats, Floats]] = []
    for back in (1, 2):
        value, at = np.empty_like(new.value), np.empty_like(new.at_s)
        value[back:], at[back:] = new.value[:-back], new.at_s[:-back]
        # The first reading of a row in the batch comes after both that are remembered, its second
        # after the first and one of them.
        outside = ((first, back - 1),) if back == 1 else ((first, 1), (second, 0))
        for place, slot in outside:
            value[place] = memory.value[slot, column, new.rows[place]]
            at[place] = memory.at_s[slot, column, new.rows[place]]
        before.append((value, at))

    pace = PACE[metric]
    near = np.isnan(before[0][0])  # nothing before: it must be believed
    for value, at in before:
        # Believed beside either of the two before: a single spike is set aside, and neither the
        # reading after it nor a new level that stays.
        hours = (new.at_s - at) / 3600
        near |= np.abs(new.value - value) <= pace.jump + pace.per_hour * hours
    reason = np.where(near, USABLE, REASONS.index("too_fast")).astype(np.int8)
    stuck = _run(memory, column, new, first, before[0], STILLNESS.get(metric))
    reason[stuck & near] = REASONS.index("flat")

    last = np.append(first[1:], True)
    newest = new.rows[last]
    memory.value[1, column, newest], memory.at_s[1, column, newest] = (
        before[0][0][last], before[0][1][last],
    )  # fmt: skip
    memory.value[0, column, newest], memory.at_s[0, column, newest] = (
        new.value[last], new.at_s[last],
    )  # fmt: skip
    return reason


def _run(
    memory: Memory,
    column: int,
    new: _Series,
    first: Bools,
    before: tuple[Floats, Floats],
    stillness: Stillness | None,
) -> Bools:
    """Tell where a value has come unchanged for too long, and remember the runs."""
    if stillness is None:
        return np.zeros(len(new.rows), np.bool_)
    value, at_s = before
    here = np.arange(len(new.rows))
    # Also where there is none before. A long pause ends a run: nobody saw what came between.
    begins = (new.value != value) | (new.at_s - at_s > stillness.seconds / 2)
    anchor = np.maximum.accumulate(np.where(begins | first, here, 0))
    continues = ~begins[anchor]  # the run began before the batch
    rows = new.rows
    since = np.where(continues, memory.run_since_s[column, rows], new.at_s[anchor])
    count = here - anchor + 1 + np.where(continues, memory.run_count[column, rows], 0)
    last = np.append(first[1:], True)
    memory.run_since_s[column, rows[last]] = since[last]
    memory.run_count[column, rows[last]] = count[last]
    stuck: Bools = (new.at_s - since >= stillness.seconds) & (count >= stillness.readings)
    return stuck


def _findings(rows: Ints, at_s: Floats, reason: Codes) -> tuple[Finding, ...]:
    """Gather objections by device, metric and reason."""
    place, column = np.nonzero(reason != USABLE)
    if not len(place):
        return ()
    keys = np.stack([rows[place], column, reason[place, column]])
    found, group, count = np.unique(keys, axis=1, return_inverse=True, return_counts=True)
    first, last = np.full(len(count), np.inf), np.full(len(count), -np.inf)
    np.minimum.at(first, group.ravel(), at_s[place])
    np.maximum.at(last, group.ravel(), at_s[place])
    return tuple(
        Finding(
            row=int(found[0, n]),
            metric=METRICS[int(found[1, n])].name,
            reason=REASONS[int(found[2, n])],
            count=int(count[n]),
            first_s=float(first[n]),
            last_s=float(last[n]),
        )
        for n in range(len(count))
    )

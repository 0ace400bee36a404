"""Live rules: readings and limits in, triggers out; vectorised over a batch, pure.

Numbers follow the default table of the platform's clinical settings (`docs/rules.md`); each
resident's limits may differ inside the bounds below. Rules see only live readings, in order.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from anxin.vitals import COLUMN, METRICS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

HIGH, MEDIUM, LOW = 3, 2, 1
PRIORITIES: Final = {LOW: "low", MEDIUM: "medium", HIGH: "high"}
Class = Literal["emergency", "physiological", "behavioural", "safety", "technical"]

SECOND_US: Final = 1_000_000
UNKNOWN, ABSENT, PRESENT = 0, 1, 2  # as in vitals.PRESENCE

# While a condition lasts it triggers again so often: an alarm closed too early comes back.
REMIND_US: Final = 600 * SECOND_US


class Limit(msgspec.Struct, frozen=True):
    """A default limit and the bounds inside which it may be set for a resident."""

    default: float
    low: float
    high: float
    unit: str


LIMITS: Final[Mapping[str, Limit]] = {
    "hr_low_critical": Limit(40, 25, 50, "/min"),
    "hr_low": Limit(50, 30, 60, "/min"),
    "hr_high": Limit(120, 90, 150, "/min"),
    "hr_high_critical": Limit(130, 100, 180, "/min"),
    "rr_low_critical": Limit(8, 4, 10, "/min"),
    "rr_low": Limit(10, 5, 12, "/min"),
    "rr_high": Limit(24, 18, 35, "/min"),
    "rr_high_critical": Limit(30, 20, 45, "/min"),
    "spo2_low_critical": Limit(85, 70, 92, "%"),
    "spo2_low": Limit(90, 75, 95, "%"),
    "temp_low": Limit(35.0, 33.0, 36.0, "°C"),
    "temp_raised": Limit(37.8, 37.2, 38.5, "°C"),
    "temp_high": Limit(38.0, 37.5, 39.0, "°C"),
    "temp_high_critical": Limit(39.1, 38.0, 40.5, "°C"),
    "sbp_low_critical": Limit(90, 70, 110, "mmHg"),
    "sbp_high": Limit(180, 140, 200, "mmHg"),
    "sbp_high_critical": Limit(220, 160, 240, "mmHg"),
    "battery_low": Limit(15, 5, 50, "%"),
    "battery_critical": Limit(5, 1, 20, "%"),
}
LIMIT_ROW: Final = {name: row for row, name in enumerate(LIMITS)}
SPO2_SCALE_2: Final = {"spo2_low_critical": 80.0, "spo2_low": 85.0}


def limits_of(own: Mapping[str, float], *, spo2_scale: int = 1) -> Floats:
    """Return a resident's limits as a column in the order of LIMITS; unknown names are ignored."""
    values = {name: limit.default for name, limit in LIMITS.items()}
    if spo2_scale == 2:
        values |= SPO2_SCALE_2
    values |= {name: value for name, value in own.items() if name in LIMITS}
    return np.array(list(values.values()))


class Level(msgspec.Struct, frozen=True):
    """One condition of a kind: a comparison that must hold for `seconds`."""

    compare: Literal["<", ">", "<=", ">=", "zero"]
    limit: str
    seconds: float
    priority: int


class Rule(msgspec.Struct, frozen=True):
    """One kind of alarm on one metric.

    `margin` is the hysteresis: how far back inside the outermost limit a value must be before the
    condition counts as recovered. `gap_seconds` is the longest pause between two readings that
    still belong to one condition.
    """

    kind: str
    metric: str
    levels: tuple[Level, ...]
    margin: float = 0.0
    gap_seconds: float = 300.0
    class_: Class = "physiological"


RULES: Final = (
    Rule("heart_rate_low", "hr", (
        Level("<", "hr_low_critical", 30, HIGH),
        Level("<", "hr_low", 60, MEDIUM),
        Level("zero", "", 10, HIGH),
    ), margin=3),
    Rule("heart_rate_high", "hr", (
        Level(">", "hr_high_critical", 30, HIGH),
        Level(">", "hr_high", 60, MEDIUM),
    ), margin=3),
    Rule("respiration_low", "rr", (
        Level("<", "rr_low_critical", 30, HIGH),
        Level("<", "rr_low", 120, MEDIUM),
        Level("zero", "", 20, HIGH),
    ), margin=1),
    Rule("respiration_high", "rr", (
        Level(">", "rr_high_critical", 30, HIGH),
        Level(">", "rr_high", 120, MEDIUM),
    ), margin=1),
    Rule("apnea", "rr", (Level("zero", "", 20, HIGH),)),
    Rule("spo2_low", "spo2", (
        Level("<", "spo2_low_critical", 15, HIGH),
        Level("<", "spo2_low", 30, MEDIUM),
    ), margin=1),
    Rule("temperature_high", "temp", (
        Level(">=", "temp_high_critical", 0, HIGH),
        Level(">=", "temp_high", 0, MEDIUM),
        Level(">=", "temp_raised", 0, LOW),
    ), margin=0.2, gap_seconds=43_200),
    Rule("temperature_low", "temp", (Level("<=", "temp_low", 0, MEDIUM),),
         margin=0.2, gap_seconds=43_200),
    Rule("blood_pressure_high", "sbp", (
        Level(">=", "sbp_high_critical", 0, HIGH),
        Level(">=", "sbp_high", 300, MEDIUM),
    ), margin=5, gap_seconds=43_200),
    Rule("blood_pressure_low", "sbp", (Level("<", "sbp_low_critical", 0, HIGH),),
         gap_seconds=43_200),
    Rule("battery_low", "battery", (
        Level("<=", "battery_critical", 0, MEDIUM),
        Level("<=", "battery_low", 0, LOW),
    ), margin=2, gap_seconds=90_000, class_="technical"),
)  # fmt: skip
RULE_ROW: Final = {rule.kind: row for row, rule in enumerate(RULES)}
_LEVELS: Final = sum(len(rule.levels) for rule in RULES)
_OF_THE_BODY: Final = frozenset({"hr", "rr", "spo2"})
"""Metrics that mean nothing while the bed or the wrist is empty."""

APNEA_FALL_SECONDS: Final = 10
APNEA_SPO2_FALL: Final = 3.0

SPOT_KINDS: Final = frozenset({"cuff", "thermometer", "scale"})
"""Devices whose single readings stand alone: no persistence, they trigger at once."""


_BY_METRIC: Final = {
    metric: tuple(rule for rule in RULES if rule.metric == metric)
    for metric in ("spo2", "hr", "rr", "temp", "sbp", "battery")  # SpO2 first: apnea looks at it
}
JUDGED: Final = tuple(_BY_METRIC)
_JUDGED_COLUMNS: Final = np.array([COLUMN[metric] for metric in JUDGED])
_SPO2, _RR = JUDGED.index("spo2"), JUDGED.index("rr")


class EventAlarm(msgspec.Struct, frozen=True):
    """The alarm that an event raises at once."""

    class_: Class
    priority: int
    kind: str


EVENT_ALARMS: Final[Mapping[str, EventAlarm]] = {
    "sos": EventAlarm("emergency", HIGH, "sos"),
    "fall": EventAlarm("emergency", HIGH, "fall"),
    "apnea": EventAlarm("physiological", HIGH, "apnea"),
    "smoke": EventAlarm("safety", HIGH, "smoke"),
    "gas": EventAlarm("safety", HIGH, "gas"),
    "co": EventAlarm("safety", HIGH, "co"),
    "water_leak": EventAlarm("safety", MEDIUM, "water_leak"),
    "tamper": EventAlarm("safety", MEDIUM, "tamper"),
    "geofence_exit": EventAlarm("behavioural", LOW, "geofence_exit"),
    "low_battery": EventAlarm("technical", LOW, "battery_low"),
}
EVENT_RECOVERS: Final[Mapping[str, tuple[str, ...]]] = {
    "help_cancelled": ("sos", "fall"),
    "bed_return": ("bed_exit_long",),
    "geofence_return": ("geofence_exit",),
}


def event_alarm(
    type_: str, *, wander_risk: bool, fall_risk: bool, night: bool
) -> EventAlarm | None:
    """Return the alarm that an event raises at once, or None."""
    if type_ == "geofence_exit" and wander_risk:
        return EventAlarm("behavioural", HIGH, "geofence_exit")
    if type_ == "bed_exit" and fall_risk and night:
        return EventAlarm("behavioural", MEDIUM, "bed_exit_long")
    return EVENT_ALARMS.get(type_)


@dataclass(frozen=True, slots=True)
class Trigger:
    """A condition that has come (`priority` > 0) or gone (`priority` 0) at a row of the batch."""

    index: int
    row: int
    kind: str
    class_: Class
    priority: int
    at_us: int
    detail: dict[str, Any]


@dataclass(slots=True)
class Live:
    """What the rules remember, by device row: arrays whose last axis is the row."""

    size: int = 0
    limits: Floats = field(default_factory=lambda: np.empty((len(LIMITS), 0)))
    last_us: Ints = field(default_factory=lambda: np.zeros((len(METRICS), 0), np.int64))
    onset_us: Ints = field(default_factory=lambda: np.zeros((_LEVELS, 0), np.int64))
    fired: Ints = field(default_factory=lambda: np.zeros((len(RULES), 0), np.int64))
    fired_us: Ints = field(default_factory=lambda: np.zeros((len(RULES), 0), np.int64))
    presence: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    spo2_before: Floats = field(default_factory=lambda: np.empty(0))
    spo2_now: Floats = field(default_factory=lambda: np.empty(0))
    spot: Bools = field(default_factory=lambda: np.zeros(0, np.bool_))
    calm_low: Floats = field(default_factory=lambda: np.empty((len(JUDGED), 0)))
    calm_high: Floats = field(default_factory=lambda: np.empty((len(JUDGED), 0)))
    busy: Bools = field(default_factory=lambda: np.zeros(0, np.bool_))

    def add(self) -> int:
        """Make room for one more device and return its row."""
        row = self.size
        if row == self.presence.shape[0]:
            more = max(64, row)
            for name in self.__slots__[1:]:
                old = getattr(self, name)
                filler = np.zeros((*old.shape[:-1], more), old.dtype)
                setattr(self, name, np.concatenate([old, filler], axis=-1))
        self.size = row + 1
        self.forget(row)
        return row

    def forget(self, row: int) -> None:
        """Start the device at `row` afresh, as one never heard from."""
        self.set_limits(row, limits_of({}))
        self.busy[row] = False
        for array in (self.last_us, self.onset_us, self.fired, self.fired_us):
            array[:, row] = 0
        self.presence[row] = UNKNOWN
        self.spo2_before[row] = self.spo2_now[row] = np.nan

    def set_limits(self, row: int, limits: Floats) -> None:
        """Set a device's limits (in the order of LIMITS) and the band in which all is calm."""
        self.limits[:, row] = limits
        for place, metric in enumerate(JUDGED):
            levels = [level for rule in _BY_METRIC[metric] for level in rule.levels if level.limit]
            low = [limits[LIMIT_ROW[one.limit]] for one in levels if one.compare in {"<", "<="}]
            high = [limits[LIMIT_ROW[one.limit]] for one in levels if one.compare in {">", ">="}]
            self.calm_low[place, row] = max(low, default=-np.inf)
            self.calm_high[place, row] = min(high, default=np.inf)


def judge(
    live: Live, rows: Ints, ts_us: Ints, values: Floats, presence: Ints, usable: Bools
) -> list[Trigger]:
    """Return what a batch triggers and update `live`.

    `rows`, `ts_us` (n,) sorted by row, then time; `values` (n, metrics) with NaN for absent;
    `presence` (n,) with -1 for absent; `usable` (n,): live readings, neither late nor misdated.
    """
    triggers: list[Trigger] = []
    if not len(rows):
        return triggers
    at = _presence_at(live, rows, presence, usable)
    judged = values[:, _JUDGED_COLUMNS].T
    told: Bools = usable & ~np.isnan(judged)
    # Most readings are calm: inside every limit, of a device about which nothing is pending.
    # Only the others, usually none, go through the rules one by one.
    with np.errstate(invalid="ignore"):
        outside: Bools = (judged <= live.calm_low[:, rows]) | (judged >= live.calm_high[:, rows])
    outside &= told
    if outside.any() or live.busy[rows].any():
        live.busy[rows[outside.any(axis=0)]] = True
        busy = live.busy[rows]
        for place, metric in enumerate(JUDGED):
            chosen = np.flatnonzero(told[place] & busy)
            if len(chosen):
                _judge_metric(live, metric, chosen, rows, ts_us, values, at, triggers)
        pending = live.fired[:, rows].any(axis=0) | live.onset_us[:, rows].any(axis=0)
        live.busy[rows] = pending
        triggers.sort(key=lambda trigger: trigger.index)
    _remember(live, rows, ts_us, judged, told)
    return triggers


def _remember(live: Live, rows: Ints, ts_us: Ints, judged: Floats, told: Bools) -> None:
    for place, column in enumerate(_JUDGED_COLUMNS):
        there = told[place]
        if not there.any():
            continue
        chosen, times = (rows, ts_us) if there.all() else (rows[there], ts_us[there])
        last = live.last_us[column]
        last[chosen] = np.maximum(last[chosen], times)  # sorted by time: the newest is last
        if place == _SPO2:
            live.spo2_now[chosen] = judged[place][there]
        elif place == _RR:
            breathing = rows[there & (judged[place] > 0)]
            live.spo2_before[breathing] = live.spo2_now[breathing]


_FIRST_LEVEL: Final = {
    rule.kind: sum(len(before.levels) for before in RULES[:row]) for row, rule in enumerate(RULES)
}
_COMPARE: Final[Mapping[str, Callable[..., Any]]] = {
    "<": np.less, ">": np.greater, "<=": np.less_equal, ">=": np.greater_equal,
}  # fmt: skip


def _presence_at(live: Live, rows: Ints, presence: Ints, usable: Bools) -> Ints:
    """Return the presence that holds at each row of the batch, and remember the last."""
    known = usable & (presence >= 0)
    if not known.any():
        return live.presence[rows]
    first = _starts(rows)
    here = np.arange(len(rows))
    # The last row at or before this one, in the same device, at which presence was told.
    told = np.maximum.accumulate(np.where(known | first, here, 0))
    at = np.where(known[told], presence[told], live.presence[rows])
    live.presence[rows] = at  # rows repeat; NumPy keeps the last, which is the newest
    return at


def _starts(rows: Ints) -> Bools:
    first = np.empty(len(rows), np.bool_)
    first[0] = True
    np.not_equal(rows[1:], rows[:-1], out=first[1:])
    return first


def _judge_metric(
    live: Live,
    metric: str,
    chosen: Ints,
    all_rows: Ints,
    all_ts: Ints,
    all_values: Floats,
    all_presence: Ints,
    triggers: list[Trigger],
) -> None:
    column = COLUMN[metric]
    last = live.last_us[column]
    spot = live.spot[all_rows[chosen]]
    # Out of order or sent again: no persistence can be judged. A spot reading stands alone.
    new = all_ts[chosen] > last[all_rows[chosen]]
    if not new.all():
        chosen = chosen[new | (spot & (all_ts[chosen] != last[all_rows[chosen]]))]
        if not len(chosen):
            return
    rows, ts, value = all_rows[chosen], all_ts[chosen], all_values[chosen, column]
    presence = all_presence[chosen]
    first = _starts(rows)
    previous = np.empty_like(ts)
    previous[1:] = ts[:-1]
    previous[first] = last[rows[first]]
    view = _View(rows, ts, value, presence, first, ts - previous, chosen)
    for rule in _BY_METRIC[metric]:
        _judge_rule(live, rule, view, triggers)
    if metric == "spo2":
        live.spo2_now[rows] = value


@dataclass(frozen=True, slots=True)
class _View:
    """The readings of one metric, by device and time; `pause` is the time since the one before."""

    rows: Ints
    ts: Ints
    value: Floats
    presence: Ints
    first: Bools
    pause: Ints
    index: Ints


def _judge_rule(live: Live, rule: Rule, view: _View, triggers: list[Trigger]) -> None:
    number = RULE_ROW[rule.kind]
    there = view.presence != ABSENT if rule.metric in _OF_THE_BODY else None
    reached: Ints | None = None
    for step, level in enumerate(rule.levels, _FIRST_LEVEL[rule.kind]):
        holds = _holds(live, level, view, there)
        onset = live.onset_us[step]
        if not holds.any():
            onset[view.rows] = 0
            continue
        since = _since(onset, holds, view, rule.gap_seconds)
        long_enough = holds & (
            (view.ts - since >= level.seconds * SECOND_US) | live.spot[view.rows]
        )
        if rule.kind == "apnea":
            long_enough |= _apnea_with_fall(live, holds, since, view)
        if long_enough.any():
            scores = np.where(long_enough, level.priority, 0)
            reached = scores if reached is None else np.maximum(reached, scores)
    fired = live.fired[number]
    busy = fired[view.rows] > 0
    if reached is not None:
        # From here to the end of the batch: what begins in it may also recover in it.
        busy |= np.isin(view.rows, view.rows[reached > 0])
    if busy.any():
        usual = _usual(live, rule, view, there)
        for position in np.flatnonzero(busy):
            priority = int(reached[position]) if reached is not None else 0
            _step(live, rule, number, view, int(position), priority, usual, triggers)


def _holds(live: Live, level: Level, view: _View, there: Bools | None) -> Bools:
    if level.compare == "zero":
        zero: Bools = (view.value == 0) & (view.presence == PRESENT)
        return zero
    limit = live.limits[LIMIT_ROW[level.limit]][view.rows]
    holds: Bools = _COMPARE[level.compare](view.value, limit)
    return holds if there is None else holds & there


def _since(onset: Ints, holds: Bools, view: _View, gap_seconds: float) -> Ints:
    """Return when the condition that holds at each reading began, and remember the newest."""
    broken = view.pause > gap_seconds * SECOND_US
    before = np.empty_like(holds)
    before[1:] = holds[:-1]
    before[view.first] = onset[view.rows[view.first]] > 0
    begins = holds & (~before | broken)
    here = np.arange(len(holds))
    anchor = np.maximum.accumulate(np.where(begins | view.first, here, 0))
    start = np.where(begins, view.ts, onset[view.rows])
    since = start[anchor]
    onset[view.rows] = np.where(holds, since, 0)
    return since


def _apnea_with_fall(live: Live, holds: Bools, since: Ints, view: _View) -> Bools:
    """No breathing for a shorter time counts when the oxygen saturation fell with it."""
    fall = live.spo2_before[view.rows] - live.spo2_now[view.rows]
    result: Bools = (
        holds & (view.ts - since >= APNEA_FALL_SECONDS * SECOND_US) & (fall >= APNEA_SPO2_FALL)
    )
    return result


def _usual(live: Live, rule: Rule, view: _View, there: Bools | None) -> Bools:
    """Tell where the value is back inside every limit, by the margin."""
    usual: Bools = np.ones(len(view.value), np.bool_) if there is None else there
    for level in rule.levels:
        if level.compare == "zero":
            usual = usual & (view.value > 0)
            continue
        limit = live.limits[LIMIT_ROW[level.limit]][view.rows]
        margin = 0.0 if level.priority == HIGH else rule.margin
        outward = -margin if level.compare in {">", ">="} else margin
        usual = usual & ~_COMPARE[level.compare](view.value, limit + outward)
    return usual


def _step(
    live: Live,
    rule: Rule,
    number: int,
    view: _View,
    position: int,
    priority: int,
    usual: Bools,
    triggers: list[Trigger],
) -> None:
    """Move one device's condition by one reading."""
    row, at_us = int(view.rows[position]), int(view.ts[position])
    was = int(live.fired[number, row])
    if priority > was or (priority and at_us - live.fired_us[number, row] >= REMIND_US):
        live.fired[number, row] = max(priority, was)
        live.fired_us[number, row] = at_us
    elif was and not priority and usual[position]:
        live.fired[number, row] = 0
    else:
        return
    triggers.append(
        Trigger(
            index=int(view.index[position]),
            row=row,
            kind=rule.kind,
            class_=rule.class_,
            priority=priority,
            at_us=at_us,
            detail={
                "metric": rule.metric,
                "value": round(float(view.value[position]), 3),
                "limit": _limit_passed(live, rule, row, priority),
                "at": at_us // 1000,
            },
        )
    )


def _limit_passed(live: Live, rule: Rule, row: int, priority: int) -> float | None:
    for level in rule.levels:
        if level.priority == priority and level.limit:
            return float(live.limits[LIMIT_ROW[level.limit], row])
    return None

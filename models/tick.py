"""One look at many residents at once: newest values in, scores and what to do about them out; pure.

A `Ward` holds what the worker remembers of its residents as arrays, one row each. `take` merges
what devices measured, `observe` what staff saw, `judge` scores some rows. Time is an argument
everywhere, epoch seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from anxin.rules import HIGH, MEDIUM
from anxin.vitals import COLUMN, METRICS
from models import policy, quality
from models.baseline import ALL_DAY, Baselines, Distance, bin_of, follow, usual_at
from models.explain import Explanation, explain
from models.news2 import AGE_LIMIT_S, PARAMETERS, News2, news2
from models.policy import (
    KINDS,
    LAYERS,
    LEARNED,
    Asked,
    Decided,
    Layer,
    Peaks,
    Told,
    learned_asks,
    news2_asks,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

VITALS: Final = ("hr", "rr", "spo2", "temp", "sbp", "dbp")
"""Measured by devices and by hand; the order of `baseline.VITALS` and `features.VITALS`."""
SIGNS: Final = (*VITALS, "consciousness", "oxygen")
"""All that is judged; consciousness as an index into CONSCIOUSNESS, oxygen 0 or 1."""
_CONSCIOUSNESS: Final = SIGNS.index("consciousness")
_OXYGEN: Final = SIGNS.index("oxygen")
LATE_S: Final = 600.0
"""What comes later than this is history: it raises nothing."""
AHEAD_S: Final = 120.0
HOUR_S: Final = 3600
HOURS: Final = 24
CURRENT_S: Final = 3600.0
"""A value this young stands for the present hour."""
BY_HAND_S: Final = 3600.0
"""(check) Pulse, breathing and oxygen that a nurse has measured stand for an hour."""
SEEN_S: Final = 12 * 3600.0
"""What staff saw holds for so long."""
GCS: Final = np.array([15.0, 14.0, 13.0, 8.0, 3.0])
"""(check) What ACVPU comes to on the Glasgow Coma Scale."""
CHANGE_HOURS: Final = 6
"""So far back a change is told of."""
USUAL_SPREADS: Final = 2.0
"""The band of the usual that people are shown: so many spreads to either side."""
_ROWS_MORE: Final = 256


@dataclass(frozen=True, slots=True)
class Heard:
    """What some devices measured last: arrays of one length; `value`, `at_s` (signs, n).

    `since_s`: since when the device is with the resident; NaN for what there is not.
    """

    device: Ints
    resident: Ints
    ts_s: Floats
    received_s: Floats
    since_s: Floats
    presence: Ints
    value: Floats
    at_s: Floats


@dataclass(slots=True)
class Ward:
    """Residents by row, in order of id; every array's last axis is the row."""

    id: Ints
    place: Ints
    station: Ints
    scale2: Bools
    age: Floats
    sex: Floats
    value: Floats = field(init=False)
    at_s: Floats = field(init=False)
    seen: Floats = field(init=False)
    seen_s: Floats = field(init=False)
    ring: Floats = field(init=False)
    """(hours, signs, rows): means of the hours before `ring_hour`, and its own."""
    ring_hour: int = 0
    baselines: Baselines = field(init=False)
    learned_s: Floats = field(init=False)
    points: Ints = field(init=False)
    """(7, rows): what each parameter gave when it was last there."""
    level_since_s: Floats = field(init=False)
    """(2, rows): since when the points reach medium, and high; NaN: they do not."""
    calm_since_s: Floats = field(init=False)
    """(layers, rows): since when a layer asks for nothing; NaN: it does."""
    again: Bools = field(init=False)
    """Rows to be judged again although nothing new has come."""
    told: Told = field(init=False)
    peaks: dict[Layer, Peaks] = field(init=False)
    novelty: Floats = field(init=False)
    novelty_s: Floats = field(init=False)
    """How strange the day was when it was last looked at, and when; NaN and -inf for never."""
    least: Floats = field(init=False)
    """(layers, rows): the score that a layer must reach at the resident's station."""
    devices: "Devices" = field(init=False)

    def __post_init__(self) -> None:
        """Start with residents of whom nothing is known."""
        rows = len(self.id)
        for name in ("value", "at_s", "seen", "seen_s"):
            setattr(self, name, np.full((len(SIGNS), rows), np.nan))
        self.ring = np.full((HOURS, len(SIGNS), rows), np.nan)
        self.baselines = Baselines.of_nobody(rows)
        self.learned_s = np.full(rows, -np.inf)
        self.points = np.zeros((len(PARAMETERS), rows), np.int64)
        self.level_since_s = np.full((2, rows), np.nan)
        self.calm_since_s = np.full((len(LAYERS), rows), np.nan)
        self.again = np.zeros(rows, np.bool_)
        self.told = Told.nothing(rows)
        self.peaks = {layer: Peaks.of_nobody(rows) for layer in LEARNED}
        self.novelty = np.full(rows, np.nan)
        self.novelty_s = np.full(rows, -np.inf)
        self.least = np.full((len(LAYERS), rows), -np.inf)
        self.devices = Devices()

    def __len__(self) -> int:
        """Return how many residents there are."""
        return len(self.id)

    def rows_of(self, residents: Ints) -> Ints:
        """Return the row of each resident, -1 for those who are not here."""
        if not len(self.id):
            return np.full(len(residents), -1, np.int64)
        place = np.minimum(np.searchsorted(self.id, residents), len(self.id) - 1)
        rows: Ints = np.where(self.id[place] == residents, place, -1)
        return rows

    def follow_members(self, now: "Ward") -> "Ward":
        """Return `now`, with all that was remembered of those who are in both."""
        rows = self.rows_of(now.id)
        there = rows >= 0
        kept = rows[there]
        pairs: list[tuple[Any, Any]] = [
            (getattr(now, name), getattr(self, name)) for name in _REMEMBERED
        ]
        pairs += [(getattr(now.told, name), getattr(self.told, name)) for name in Told.__slots__]
        for layer, peaks in self.peaks.items():
            now.peaks[layer].block = peaks.block
            pairs += [
                (now.peaks[layer].score, peaks.score), (now.peaks[layer].alarms, peaks.alarms)
            ]  # fmt: skip
        for mine, before in pairs:
            mine[..., there] = before[..., kept]
        now.baselines.numbers[:, there] = self.baselines.numbers[:, kept]
        now.ring_hour = self.ring_hour
        now.devices = self.devices
        return now

    def turn(self, now_s: float) -> bool:
        """Move the ring on to the hour of `now_s`; return whether another hour has begun."""
        hour = int(now_s // HOUR_S)
        ahead = hour - self.ring_hour
        if ahead <= 0:
            return False
        self.ring[: max(HOURS - ahead, 0)] = self.ring[min(ahead, HOURS) :].copy()
        self.ring[max(HOURS - ahead, 0) :] = np.nan
        self.ring_hour = hour
        return True

    def fill(self, residents: Ints, hours: Ints, means: Floats) -> None:
        """Take means of past hours: `hours` since the epoch, `means` (vitals, n)."""
        rows, places = self.rows_of(residents), hours - self.ring_hour + HOURS - 1
        there = (rows >= 0) & (places >= 0) & (places < HOURS - 1)
        for vital in range(len(VITALS)):
            self.ring[places[there], vital, rows[there]] = means[vital, there]


class Devices:
    """What the quality layer remembers, by device; rows are made as devices are heard of."""

    def __init__(self) -> None:
        """Know no device yet."""
        self._row: dict[int, int] = {}
        self.memory = quality.Memory(_ROWS_MORE)

    def rows_of(self, devices: Ints) -> Ints:
        """Return the row of each device."""
        rows = np.array(
            [self._row.setdefault(device, len(self._row)) for device in devices.tolist()], np.int64
        )
        while len(self._row) > self.memory.rows:
            self.memory = _grown(self.memory)
        return rows


@dataclass(frozen=True, slots=True)
class Judged:
    """Scores of some rows of a ward: arrays of one length; `value`, `at_s` (signs, n)."""

    rows: Ints
    now_s: float
    value: Floats
    at_s: Floats
    age_s: Floats
    news2: News2
    distance: Distance


def take(ward: Ward, heard: Heard, *, loading: bool) -> tuple[Ints, tuple[quality.Finding, ...]]:
    """Merge what devices measured; return the rows about whom there is news, and what was odd.

    While `loading` after a start it is not known what was late, except for a device's last reading.
    """
    rows = ward.rows_of(heard.resident)
    if not (rows >= 0).any():
        return np.empty(0, np.int64), ()
    place = np.maximum(rows, 0)
    at_s = heard.at_s
    new = (rows >= 0) & (at_s >= heard.since_s) & ~(at_s <= ward.at_s[:, place])
    late = at_s < heard.received_s - LATE_S
    if loading:
        late &= at_s >= heard.ts_s - 0.001
    new &= ~late & (at_s <= heard.received_s + AHEAD_S) & ~np.isnan(heard.value)
    # A device's values of one moment are one reading to the quality layer.
    sign, one = np.nonzero(new)
    if not len(sign):
        return np.empty(0, np.int64), ()
    times = at_s[sign, one]
    device = ward.devices.rows_of(heard.device)
    order = np.lexsort((times, device[one]))
    sign, one, times = sign[order], one[order], times[order]
    keys = np.stack([device[one].astype(float), times])
    first = np.r_[True, (keys[:, 1:] != keys[:, :-1]).any(axis=0)]
    reading = np.cumsum(first) - 1
    starts = np.flatnonzero(first)
    values = np.full((len(starts), len(METRICS)), np.nan)
    vital = sign < len(VITALS)
    values[reading[vital], _VITAL_COLUMNS[sign[vital]]] = heard.value[sign[vital], one[vital]]
    checked = quality.check(
        ward.devices.memory,
        device[one[starts]],
        times[starts],
        values,
        heard.presence[one[starts]],
    )
    usable = np.ones(len(sign), np.bool_)
    usable[vital] = checked.usable[reading[vital], _VITAL_COLUMNS[sign[vital]]]
    sign, one, times = sign[usable], one[usable], times[usable]
    # Several devices of one resident may tell the same: the newest stays, so it comes last.
    order = np.argsort(times, kind="stable")
    sign, one, times = sign[order], one[order], times[order]
    row = rows[one]
    newer = ~(times < ward.at_s[sign, row])
    sign, one, times, row = sign[newer], one[newer], times[newer], row[newer]
    ward.value[sign, row] = heard.value[sign, one]
    ward.at_s[sign, row] = times
    return np.unique(row), checked.findings


def observe(ward: Ward, lines: Sequence[Mapping[str, Any]]) -> Ints:
    """Take what staff observed, all that counts of each resident named, oldest first.

    Returns the rows about whom it is news.
    """
    residents = np.array([one["resident_id"] for one in lines], np.int64)
    rows = ward.rows_of(residents)
    touched = np.unique(rows[rows >= 0])
    before = ward.seen[:, touched].copy(), ward.seen_s[:, touched].copy()
    ward.seen[:, touched] = ward.seen_s[:, touched] = np.nan
    for line, row in zip(lines, rows.tolist(), strict=True):
        if row < 0 or line["at"] is None:
            continue
        for sign, name in enumerate(SIGNS):
            value = line[name]
            if value is not None and not (name == "consciousness" and value < 0):
                ward.seen[sign, row] = float(value)
                ward.seen_s[sign, row] = line["at"]
    same = (
        np.isclose(ward.seen[:, touched], before[0], equal_nan=True)
        & np.isclose(ward.seen_s[:, touched], before[1], equal_nan=True)
    ).all(axis=0)
    changed: Ints = touched[~same]
    return changed


def judge(ward: Ward, rows: Ints, now_s: float, local_hour: float) -> Judged:
    """Score these rows, each once; the running sums of the baseline go on."""
    device_s, seen_s = ward.at_s[:, rows], ward.seen_s[:, rows]
    by_hand = ~np.isnan(seen_s) & ~(device_s > seen_s)
    value = np.where(by_hand, ward.seen[:, rows], ward.value[:, rows])
    at_s = np.where(by_hand, seen_s, device_s)
    age_s = now_s - at_s
    hr, rr, spo2, temp, sbp, _, consciousness, oxygen = value
    order = [SIGNS.index(parameter) for parameter in PARAMETERS]
    ages = np.where(np.isnan(age_s), np.inf, np.maximum(age_s, 0.0))
    scores = news2(
        hr=hr,
        rr=rr,
        spo2=spo2,
        temp=temp,
        sbp=sbp,
        oxygen=oxygen,
        consciousness=np.where(np.isnan(consciousness), -1, consciousness),
        scale2=ward.scale2[rows],
        age_s=ages[order],
        age_limit_s=_limits(by_hand[order]),
    )
    ward.points[:, rows] = np.where(scores.present, scores.points, ward.points[:, rows])
    # Each reading counts once in the running sums.
    untold = at_s[: len(VITALS)] > ward.baselines.at_s[:, rows]
    vitals = np.where(untold & (age_s[: len(VITALS)] <= LATE_S), value[: len(VITALS)], np.nan)
    distance = follow(
        ward.baselines,
        rows,
        np.full(len(rows), now_s),
        vitals.T,
        np.full(len(rows), local_hour),
    )
    return Judged(rows, now_s, value, at_s, age_s, scores, distance)


HOLD_S: Final = {HIGH: 30.0, MEDIUM: 60.0}
"""So long a score must stand before it is told: two looks, or four."""
CALM_S: Final = 600.0
"""And so long it must have fallen before it counts as recovered."""
CALM_SCORE: Final = 3
"""Two below the least that is told: a score on the edge is one alarm, not many."""
CALM_SHARE: Final = 0.8
"""A learned score has fallen once it is below this part of what alarms."""


@dataclass(frozen=True, slots=True)
class LayerScore:
    """Scores of a learned layer for some rows, NaN where there is none, and what it asks for."""

    layer: Layer
    score: Floats
    threshold: float


def decide(
    ward: Ward,
    judged: Judged,
    learned: Sequence[LayerScore],
    rules: NDArray[np.int8],
    modes: NDArray[np.int8],
) -> Decided:
    """Return the one decision on each row, and follow for how long its scores have stood.

    `rules` (n,): the priority of the highest open alarm of a rule about the body; `modes` (layers,
    n): what each layer may do. Each layer's peaks go on, so that it keeps to its budget.
    """
    rows, now_s = judged.rows, judged.now_s
    shape = len(LAYERS), len(rows)
    asked = Asked(np.zeros(shape, np.int8), np.full(shape, np.nan))
    asked.priority[policy.RULES] = rules
    asked.priority[policy.NEWS2] = _held(ward, judged)
    asked.score[policy.NEWS2] = judged.news2.score
    least = np.full(shape, -np.inf)
    for one in learned:
        place = LAYERS.index(one.layer)
        asked.priority[place] = learned_asks(one.layer, one.score, one.threshold)
        asked.score[place] = one.score
        least[place] = ward.least[place, rows]
        since = ward.calm_since_s[place]
        with np.errstate(invalid="ignore"):
            calm = ~(one.score >= CALM_SHARE * one.threshold)
        since[rows] = np.where(calm, np.fmin(since[rows], now_s), np.nan)
    decided = policy.decide(ward.told, rows, asked, modes, least, now_s)
    for one in learned:
        told = decided.tell & (decided.layer == LAYERS.index(one.layer))
        ward.peaks[one.layer].see(rows, one.score, told, now_s)
    return decided


def _held(ward: Ward, judged: Judged) -> NDArray[np.int8]:
    """Return what the certain points ask for, once they have stood for long enough."""
    rows, now_s = judged.rows, judged.now_s
    asks = news2_asks(judged.news2)
    priority = np.zeros(len(rows), np.int8)
    for since, level in zip(ward.level_since_s, (MEDIUM, HIGH), strict=True):
        since[rows] = np.where(asks >= level, np.fmin(since[rows], now_s), np.nan)
        priority[now_s - since[rows] >= HOLD_S[level]] = level
    ward.again[rows] = asks > priority
    # What is no longer known has not got better: a parameter that is missing counts as it was.
    points = ward.points[:, rows]
    calm = (points.sum(axis=0) <= CALM_SCORE) & ~(points == 3).any(axis=0)
    since = ward.calm_since_s[policy.NEWS2]
    since[rows] = np.where(calm, np.fmin(since[rows], now_s), np.nan)
    return priority


def pending(ward: Ward, episodes: Ints) -> Ints:
    """Return the rows to judge although nothing new came: what stands must come to be told.

    `episodes`: the rows with alarms of the model that are open, which may come to recover.
    """
    return np.union1d(np.flatnonzero(ward.again), episodes)


def recovered(ward: Ward, layer: int, row: int, now_s: float) -> bool:
    """Tell whether a layer has asked for nothing for long enough."""
    return bool(now_s - ward.calm_since_s[layer, row] >= CALM_S)


def remember(ward: Ward, episodes: Sequence[Mapping[str, Any]]) -> None:
    """Take from the alarms that there are what was told, as after a restart."""
    rows = ward.rows_of(np.array([one["resident_id"] for one in episodes], np.int64))
    for row, one in zip(rows.tolist(), episodes, strict=True):
        if row < 0:
            continue
        told_s = float(one["last_at"])
        if told_s > ward.told.at_s[row]:
            ward.told.at_s[row] = told_s
            ward.told.priority[row] = one["priority"]
        if one["kind"] == KINDS["news2"] and one["priority"] == HIGH:
            ward.told.high_told_s[row] = ward.told.high_seen_s[row] = told_s


def day(ward: Ward, judged: Judged) -> tuple[Floats, Floats]:
    """Return (n, HOURS, signs) for `features`, and (n, vitals) of what is usual, NaN for unknown.

    The last hour is the present one as it is now; its mean comes when it is over.
    """
    rows, age_s = judged.rows, judged.age_s
    now = np.where(age_s <= CURRENT_S, judged.value, np.nan)
    seen = age_s[_CONSCIOUSNESS] <= SEEN_S
    code = np.where(seen, judged.value[_CONSCIOUSNESS], 0.0).astype(np.int64)
    now[_CONSCIOUSNESS] = np.where(seen, GCS[code], np.nan)
    now[_OXYGEN] = np.where(age_s[_OXYGEN] <= SEEN_S, judged.value[_OXYGEN], np.nan)
    present = ward.ring[-1]
    present[:, rows] = np.where(np.isnan(now), present[:, rows], now)
    known = ward.baselines.usual.hours[:, ALL_DAY, rows] > 0
    usual = np.where(known, judged.distance.centre, np.nan)
    return ward.ring[:, :, rows].transpose(2, 0, 1), usual.T


def untell(ward: Ward, rows: Ints) -> None:
    """Forget what was told of these rows: they are judged again, whether anything comes or not."""
    nothing = Told.nothing(len(rows))
    for name in Told.__slots__:
        getattr(ward.told, name)[..., rows] = getattr(nothing, name)
    ward.again[rows] = True


def _limits(by_hand: Bools) -> Floats:
    """Return how old each parameter may be."""
    limits: Floats = np.maximum(AGE_LIMIT_S[:, None], np.where(by_hand, BY_HAND_S, 0.0))
    return limits


def _grown(memory: quality.Memory) -> quality.Memory:
    """Return the same memory with room for as many devices again."""
    more = quality.Memory(2 * memory.rows)
    for name in ("value", "at_s", "run_since_s", "run_count"):
        getattr(more, name)[..., : memory.rows] = getattr(memory, name)
    return more


_REMEMBERED: Final = (
    "value", "at_s", "seen", "seen_s", "ring", "learned_s", "points", "level_since_s",
    "calm_since_s", "least", "novelty", "novelty_s",
    "again",
)  # fmt: skip
_VITAL_COLUMNS: Final = np.array([COLUMN[name] for name in VITALS])


def explained(
    ward: Ward,
    judged: Judged,
    place: int,
    *,
    model: str,
    layer: Layer | None = None,
    priority: int = 0,
    risk: float | None = None,
    shares: Mapping[str, float] | None = None,
) -> Explanation:
    """Return of what the scores of one row were made; `risk`, `shares` of the learned model."""
    row = int(judged.rows[place])
    value, age_s = judged.value[:, place].tolist(), judged.age_s[:, place].tolist()
    known = ward.baselines.usual.hours[:, ALL_DAY, row] > 0
    centre, spread = judged.distance.centre[:, place], judged.distance.spread[:, place]
    before = ward.ring[HOURS - 1 - CHANGE_HOURS, :, row]
    return explain(
        judged.news2,
        place,
        values=dict(zip(VITALS, value, strict=False)),
        ages_s=dict(zip(SIGNS, age_s, strict=True)),
        usual=dict(zip(VITALS, np.where(known, centre, np.nan).tolist(), strict=True)),
        z=dict(
            zip(
                VITALS,
                np.where(
                    known, (judged.value[: len(VITALS), place] - centre) / spread, np.nan
                ).tolist(),
                strict=True,
            )
        ),
        change=dict(
            zip(VITALS, (judged.value[:, place] - before)[: len(VITALS)].tolist(), strict=True)
        ),
        change_hours=CHANGE_HOURS,
        shares=shares,
        model=model,
        layer=layer,
        priority=priority,
        risk=risk,
        scale2=bool(ward.scale2[row]),
    )


def usual_words(ward: Ward, rows: Ints, local_hour: int) -> list[str]:
    """Return as JSON what is usual for each at this time of day: low, middle, high by vital."""
    centre, spread = usual_at(ward.baselines, rows, np.full(len(rows), int(bin_of(local_hour))))
    known = ward.baselines.usual.hours[:, ALL_DAY, rows] > 0
    return [
        msgspec.json.encode(
            {
                name: {
                    "low": round(
                        float(centre[vital, place] - USUAL_SPREADS * spread[vital, place]), 1
                    ),
                    "middle": round(float(centre[vital, place]), 1),
                    "high": round(
                        float(centre[vital, place] + USUAL_SPREADS * spread[vital, place]), 1
                    ),
                }
                for vital, name in enumerate(VITALS)
                if known[vital, place]
            }
        ).decode()
        for place in range(len(rows))
    ]

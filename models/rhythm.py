"""The rhythm of a resident's days, from motion, door and bed events; vectorised over all, pure.

Times are seconds on the local clock (epoch seconds plus the offset), so that a day is 86,400 of
them. What differs from one's own usual is a finding of low priority, in plain words; an emergency
is for the live rules.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from anxin.rules import LOW

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

Room = Literal["other", "bedroom", "bathroom", "kitchen", "entrance"]
Kind = Literal["motion", "door", "bed_exit", "bed_return"]
ROOMS: Final[tuple[Room, ...]] = ("other", "bedroom", "bathroom", "kitchen", "entrance")
KINDS: Final[tuple[Kind, ...]] = ("motion", "door", "bed_exit", "bed_return")

Code = Literal["night_wandering", "long_in_bed", "days_in_bed", "no_kitchen_visit", "quiet"]
WORDS: Final[Mapping[Code, tuple[str, str]]] = {
    "night_wandering": (
        "昨夜走动 {value:.0f} 次，平时 {usual:.0f} 次",
        "moved about {value:.0f} times last night, usually {usual:.0f}",
    ),
    "long_in_bed": (
        "一天卧床 {value:.0f} 小时，平时 {usual:.0f} 小时",
        "{value:.0f} hours in bed in a day, usually {usual:.0f}",
    ),
    "days_in_bed": (
        "连续 {value:.0f} 天几乎未下床，平时每天卧床 {usual:.0f} 小时",
        "hardly out of bed for {value:.0f} days, usually {usual:.0f} hours a day in it",
    ),
    "no_kitchen_visit": (
        "今天到 {value:.0f} 点还没进过厨房，平时最晚 {usual:.0f} 点",
        "not in the kitchen today by {value:.0f}:00, usually by {usual:.0f}:00 at the latest",
    ),
    "quiet": (
        "已 {value:.1f} 小时没有动静，平时白天最长 {usual:.1f} 小时",
        "no sign of life for {value:.1f} hours, usually at most {usual:.1f} by day",
    ),
}
"""What staff read, in Chinese and English."""
PRIORITY: Final = LOW

DAY_S: Final = 86_400
HOUR_S: Final = 3_600
SLOT_S: Final = 600
"""Signs of life count once in ten minutes: a chattering sensor is not a busy resident."""
NIGHT: Final = (-1.0, 5.0)
"""From 23:00 of the day before, in hours of the day in which the night ends."""
AWAKE: Final = (7.0, 21.0)
BED_DAY: Final = -12.0
"""Time in bed is counted from noon to noon."""
LEAST_DAYS: Final = 7
"""So many days must be known before anything is unusual."""

# (check) How far from one's own usual counts, beside three times the own spread.
WANDERING_LEAST, WANDERING_MORE = 4.0, 3.0
IN_BED_LEAST_H, IN_BED_MORE_H = 12.0, 3.0
BEDRIDDEN_DAY_H, BEDRIDDEN_USUAL_H, BEDRIDDEN_DAYS = 20.0, 16.0, 2
KITCHEN_SHARE, KITCHEN_GRACE_H = 0.9, 1.0
KITCHEN_SIGNS: Final = 3
"""With fewer signs of life in a day somebody is away, or the sensors are: that is no finding."""
QUIET_LEAST_H, QUIET_PERCENTILE = 2.0, 95.0
_MAD_TO_SD: Final = 1.4826


@dataclass(frozen=True, slots=True)
class Events:
    """Events of residents, sorted by row, then time: (n,) each; codes as in KINDS and ROOMS."""

    rows: Ints
    at_s: Floats
    kind: Ints
    room: Ints


@dataclass(frozen=True, slots=True)
class Sensors:
    """Which sensors a resident has that were not silent in these days: (residents,) each.

    `in_bed`: whether they were in bed at the start of the first day. Silence has its own alarm; a
    bed sensor that is gone must not make somebody bedridden.
    """

    motion: Bools
    kitchen: Bools
    bed: Bools
    in_bed: Bools


@dataclass(frozen=True, slots=True)
class Days:
    """What residents did, by day: (residents, days), NaN where nothing could be told.

    `night_moves`: slots with movement outside the bedroom in the night that ends on the day;
    `hours_in_bed` from noon of the day before to noon; `first_kitchen_h`: hour of the day of the
    first visit; `signs`: slots with any sign of life; `quiet_h`: the longest time without one in
    waking hours. `last_sign_s`, `in_bed` (residents,): at the end; -inf for no sign at all.
    """

    night_moves: Floats
    hours_in_bed: Floats
    first_kitchen_h: Floats
    signs: Floats
    quiet_h: Floats
    last_sign_s: Floats
    in_bed: Bools


@dataclass(frozen=True, slots=True)
class Finding:
    """Something unusual about a resident's days: the value beside their own usual."""

    row: int
    code: Code
    value: float
    usual: float
    priority: int = PRIORITY

    def words(self) -> tuple[str, str]:
        """Return it as a plain sentence in Chinese and English."""
        zh, en = WORDS[self.code]
        return zh.format(value=self.value, usual=self.usual), en.format(
            value=self.value, usual=self.usual
        )


def days_of(events: Events, sensors: Sensors, first_day: int, now_s: float) -> Days:
    """Return the days from `first_day` (number of local days since the epoch) to that of `now_s`.

    Events outside are ignored. The last day is as far as it has come.
    """
    count = int(now_s // DAY_S) - first_day + 1
    size = (len(sensors.motion), count)
    inside = (events.at_s >= first_day * DAY_S) & (events.at_s <= now_s)
    rows, at_s = events.rows[inside], events.at_s[inside] - first_day * DAY_S
    kind, room = events.kind[inside], events.room[inside]
    seen = (sensors.motion | sensors.bed)[:, None]
    until_s = now_s - first_day * DAY_S

    moved = kind <= KINDS.index("door")
    outside = moved & (room != ROOMS.index("bedroom"))
    hour = (at_s - NIGHT[0] * HOUR_S) % DAY_S / HOUR_S
    at_night = outside & (hour < NIGHT[1] - NIGHT[0])
    night = _slots(rows[at_night], at_s[at_night], size, shift_s=-NIGHT[0] * HOUR_S)
    cooking = (kind == KINDS.index("motion")) & (room == ROOMS.index("kitchen"))
    first_kitchen = np.full(size, np.inf)
    np.minimum.at(
        first_kitchen,
        (rows[cooking], (at_s[cooking] // DAY_S).astype(np.int64)),
        at_s[cooking] % DAY_S / HOUR_S,
    )
    last = np.full(len(sensors.motion), -np.inf)
    np.maximum.at(last, rows, at_s + first_day * DAY_S)
    bed = ~moved
    returns = kind[bed] == KINDS.index("bed_return")
    in_bed, lies = _in_bed(rows[bed], at_s[bed], returns, sensors.in_bed, count, until_s)
    in_bed[:, 0] = np.nan  # half of it lies before the first day
    signs = _slots(rows, at_s, size)
    return Days(
        night_moves=np.where(sensors.motion[:, None] & (signs > 0), night, np.nan),
        hours_in_bed=np.where(sensors.bed[:, None], in_bed, np.nan),
        first_kitchen_h=np.where(
            sensors.kitchen[:, None] & np.isfinite(first_kitchen), first_kitchen, np.nan
        ),
        signs=np.where(seen, signs, np.nan),
        quiet_h=np.where(seen, _quiet(rows, at_s, size, until_s), np.nan),
        last_sign_s=last,
        in_bed=sensors.bed & lies,
    )


def unusual(days: Days, now_s: float) -> list[Finding]:
    """Return what is unusual about the last day of each resident beside the days before it."""
    hour = now_s % DAY_S / HOUR_S
    found = []
    if hour >= NIGHT[1]:
        moves = days.night_moves
        usual, spread = _usual(moves[:, :-1])
        more = np.maximum(usual + np.maximum(WANDERING_MORE, 3 * spread), WANDERING_LEAST)
        found += _told("night_wandering", moves[:, -1] >= more, moves[:, -1], usual)
    if AWAKE[0] <= hour <= AWAKE[1]:
        found += _kitchen(days, hour)
        found += _still(days, now_s, hour)
    return sorted(found + _bed(days, complete=hour >= 12), key=lambda finding: finding.row)


def _bed(days: Days, *, complete: bool) -> list[Finding]:
    """Judge time in bed by the last noon to noon that has ended."""
    hours = days.hours_in_bed if complete else days.hours_in_bed[:, :-1]
    if hours.shape[1] < 2:
        return []
    usual, spread = _usual(hours[:, :-1])
    bedridden = hours >= BEDRIDDEN_DAY_H
    # So many of the last days without a break.
    run = np.logical_and.accumulate(bedridden[:, ::-1], axis=1).sum(axis=1)
    for_days = (run >= BEDRIDDEN_DAYS) & (usual < BEDRIDDEN_USUAL_H)
    today = hours[:, -1]
    more = np.maximum(usual + np.maximum(IN_BED_MORE_H, 3 * spread), IN_BED_LEAST_H)
    return _told("days_in_bed", for_days, run.astype(np.float64), usual) + _told(
        "long_in_bed", (today >= more) & ~for_days, today, usual
    )


def _kitchen(days: Days, hour: float) -> list[Finding]:
    first, signs = days.first_kitchen_h, days.signs
    seen = signs[:, :-1] >= KITCHEN_SIGNS
    visited = ~np.isnan(first[:, :-1]) & seen
    known = seen.sum(axis=1)
    latest = np.where(visited, first[:, :-1], -np.inf).max(axis=1, initial=-np.inf)
    missed = (
        (known >= LEAST_DAYS)
        & (visited.sum(axis=1) >= KITCHEN_SHARE * known)
        & np.isnan(first[:, -1])
        & (signs[:, -1] >= KITCHEN_SIGNS)
        & (hour >= latest + KITCHEN_GRACE_H)
    )
    return _told("no_kitchen_visit", missed, np.full(len(known), np.floor(hour)), np.ceil(latest))


def _still(days: Days, now_s: float, hour: float) -> list[Finding]:
    """Judge how long nothing has been seen, counted from the start of the waking day."""
    earlier = np.where(days.signs[:, :-1] > 0, days.quiet_h[:, :-1], np.nan)
    known = ~np.isnan(earlier)
    # NaN sorts last, so a percentile of what is known is a place in the sorted days.
    place = np.ceil(known.sum(axis=1) * QUIET_PERCENTILE / 100).astype(np.int64) - 1
    usual = np.sort(earlier, axis=1)
    usual = np.take_along_axis(usual, np.maximum(place, 0)[:, None], axis=1)[:, 0]
    now = np.minimum((now_s - days.last_sign_s) / HOUR_S, hour - AWAKE[0])
    still = (known.sum(axis=1) >= LEAST_DAYS) & (now > np.maximum(usual, QUIET_LEAST_H))
    return _told("quiet", still & ~days.in_bed, now, usual)  # in bed the bed sensor sees them


def _told(code: Code, where: Bools, value: Floats, usual: Floats) -> list[Finding]:
    return [
        Finding(int(row), code, float(value[row]), float(usual[row]))
        for row in np.flatnonzero(where)
    ]


def _usual(before: Floats) -> tuple[Floats, Floats]:
    """Return median and spread of each row; NaN, which nothing exceeds, with too few days known."""
    known = ~np.isnan(before)
    enough = known.sum(axis=1) >= LEAST_DAYS
    filled = np.where(enough[:, None], before, 0.0)
    if not filled.shape[1]:
        return np.full(len(before), np.nan), np.full(len(before), np.nan)
    centre = np.nanmedian(filled, axis=1)
    spread = np.nanmedian(np.abs(filled - centre[:, None]), axis=1) * _MAD_TO_SD
    return np.where(enough, centre, np.nan), np.where(enough, spread, np.nan)


def _slots(rows: Ints, at_s: Floats, size: tuple[int, int], shift_s: float = 0.0) -> Floats:
    """Count the different ten minutes of each day in which something was told."""
    slots = size[1] * DAY_S // SLOT_S
    slot = ((at_s + shift_s) // SLOT_S).astype(np.int64)
    there = slot < slots
    row, slot = np.divmod(np.unique(rows[there] * slots + slot[there]), slots)
    counted = np.zeros(size)
    np.add.at(counted, (row, slot * SLOT_S // DAY_S), 1.0)
    return counted


def _in_bed(
    rows: Ints, at_s: Floats, returns: Bools, before: Bools, days: int, until_s: float
) -> tuple[Floats, Bools]:
    """Return hours in bed from noon to noon, by resident and day, and who lies in it at the end.

    Between two events somebody is where the first one put them. The time spent in bed up to any
    moment is then known, and a day is the difference between two noons.
    """
    people = len(before)
    who = np.arange(people)
    # What held at the start is an event of each resident at the start.
    rows = np.concatenate([who, rows])
    at_s = np.concatenate([np.zeros(people), at_s])
    lies = np.concatenate([before, returns])
    order = np.lexsort((np.arange(len(rows)), at_s, rows))
    rows, at_s, lies = rows[order], at_s[order], lies[order]
    pause = np.zeros(len(rows))
    pause[:-1] = np.where(rows[1:] == rows[:-1], np.diff(at_s), 0.0)
    spent = np.concatenate([[0.0], np.cumsum(pause * lies)[:-1]])  # before each event, over all

    span = days * DAY_S + 1.0
    noons = np.clip(np.arange(days + 1) * DAY_S + BED_DAY * HOUR_S, 0.0, until_s)
    asked = (who[:, None] * span + noons).ravel()
    place = np.searchsorted(rows * span + at_s, asked, side="right") - 1
    at_noon = spent[place] + lies[place] * (np.tile(noons, people) - at_s[place])
    hours: Floats = np.diff(at_noon.reshape(people, days + 1), axis=1) / HOUR_S
    last = np.searchsorted(rows, who, side="right") - 1
    return hours, lies[last]


def _quiet(rows: Ints, at_s: Floats, size: tuple[int, int], until_s: float) -> Floats:
    """Return the longest time without a sign of life in the waking hours of each day, in hours."""
    people, days = size
    dawn = np.arange(days) * DAY_S + AWAKE[0] * HOUR_S
    dusk = np.arange(days) * DAY_S + AWAKE[1] * HOUR_S
    dawn, dusk = np.minimum(dawn, until_s), np.minimum(dusk, until_s)
    hour = at_s % DAY_S / HOUR_S
    awake = (hour >= AWAKE[0]) & (hour <= AWAKE[1])
    edges = np.concatenate([dawn, dusk])
    who = np.concatenate([rows[awake], np.repeat(np.arange(people), len(edges))])
    when = np.concatenate([at_s[awake], np.tile(edges, people)])
    order = np.lexsort((when, who))
    who, when = who[order], when[order]
    day = np.minimum(when // DAY_S, days - 1).astype(np.int64)
    same = (who[1:] == who[:-1]) & (day[1:] == day[:-1])
    longest = np.zeros(size)
    np.maximum.at(longest, (who[1:][same], day[1:][same]), np.diff(when)[same] / HOUR_S)
    return longest

"""What is usual for a resident: today beside the same hours of earlier days, and the nights.

A request reaches readings only through functions of the database that ask whom its session may see.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from statistics import median
from typing import Any, Final
from zoneinfo import ZoneInfo

from anxin.db.pool import Database, blocks
from anxin.db.scope import Scope
from anxin.db.vitals import count_series

METRICS: Final = ("hr", "rr", "spo2", "temp", "steps")
DAYS: Final = 28
"""So far back it is looked for what is usual."""
FEWEST_DAYS: Final = 7
"""Of fewer days nothing is said to be usual."""
NIGHTS: Final = 14
MOST_READINGS: Final = 400_000
"""So many readings at most are looked at for the nights; beyond, they are not told."""
_MOST_POINTS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Band:
    """The middle of a number of days, and what eight days of ten lie between."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True)
class OfHour:
    """What is usual in one hour of the day (0 to 23, local time)."""

    hour: int
    low: float
    median: float
    high: float
    days: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric: the mean of today so far (of steps the count) beside earlier days to this hour.

    `usual` is None while fewer than seven days are known; `days` says how many are.
    """

    today: float | None
    usual: Band | None
    days: int
    hours: list[OfHour]


@dataclass(frozen=True, slots=True)
class Night:
    """A night as the bed saw it; a time is None where the night began or ended in bed."""

    date: date
    in_bed_at: datetime | None
    up_at: datetime | None
    minutes_in_bed: int
    exits: int


@dataclass(frozen=True, slots=True)
class UsualNight:
    """The middle of earlier nights; times of the day are minutes since midnight, local time."""

    nights: int
    minutes_in_bed: int
    exits: int
    in_bed_minute: int | None
    up_minute: int | None


@dataclass(frozen=True, slots=True)
class Nights:
    """The night that ended, or is, today, and what is usual; both None where no bed tells."""

    last: Night | None
    usual: UsualNight | None


@dataclass(frozen=True, slots=True)
class Usual:
    """Today beside what is usual; a metric that was not measured is missing.

    Days, hours and nights are those of `zone`.
    """

    until: datetime
    zone: str
    metrics: dict[str, Measured]
    nights: Nights


async def usual(
    database: Database, scope: Scope, resident_id: int, *, now: datetime, zone: ZoneInfo
) -> Usual:
    """Return today beside what is usual; raise NotFound."""
    today = now.astimezone(zone).date()
    start = datetime.combine(today - timedelta(days=DAYS), time(), zone).astimezone(UTC)
    # It also says whether there is such a resident for the caller.
    if not await count_series(database, scope, resident_id, start=start, end=now):
        return Usual(now, zone.key, {}, Nights(None, None))
    rows = await database.fetch(
        blocks("usual")["hours"],
        {
            "id": resident_id,
            "start": start,
            "end": now,
            "zone": zone.key,
            "metrics": list(METRICS),
            "most": _MOST_POINTS,
            "most_readings": MOST_READINGS,
        },
    )
    metrics = {row["metric"]: _measured(row) for row in rows}
    return Usual(now, zone.key, metrics, await _nights(database, resident_id, now, zone))


def _measured(row: dict[str, Any]) -> Measured:
    known = row["band"] is not None and row["days"] >= FEWEST_DAYS
    hours = [
        OfHour(int(hour), low, median, high, int(days))
        for hour, low, median, high, days in row["hours"]
    ]
    return Measured(
        today=row["today"],
        usual=Band(*row["band"]) if known else None,
        days=row["days"],
        hours=[one for one in hours if one.days >= FEWEST_DAYS],
    )


async def _nights(database: Database, resident_id: int, now: datetime, zone: ZoneInfo) -> Nights:
    today = now.astimezone(zone).date()
    rows = await database.fetch(
        blocks("usual")["nights"],
        {
            "id": resident_id,
            "first": today - timedelta(days=NIGHTS),
            "last": today,
            "end": now,
            "zone": zone.key,
            "most_readings": MOST_READINGS,
        },
    )
    if not rows or rows[0]["readings"] >= MOST_READINGS:
        return Nights(None, None)
    nights = [
        Night(row["night"], row["in_bed_at"], row["up_at"], row["minutes"], row["exits"])
        for row in rows
    ]
    last = next((one for one in nights if one.date == today), None)
    return Nights(last, _usual_night([one for one in nights if one.date < today], zone))


def _usual_night(nights: list[Night], zone: ZoneInfo) -> UsualNight | None:
    if len(nights) < FEWEST_DAYS:
        return None
    return UsualNight(
        nights=len(nights),
        minutes_in_bed=round(median(one.minutes_in_bed for one in nights)),
        exits=round(median(one.exits for one in nights)),
        in_bed_minute=_middle_minute([one.in_bed_at for one in nights], zone),
        up_minute=_middle_minute([one.up_at for one in nights], zone),
    )


def _middle_minute(moments: list[datetime | None], zone: ZoneInfo) -> int | None:
    """Return the middle of these times of the day, of evenings and mornings around midnight."""
    local = [one.astimezone(zone) for one in moments if one is not None]
    if len(local) < FEWEST_DAYS:
        return None
    since_noon = [(one.hour * 60 + one.minute - 720) % 1440 for one in local]
    return (round(median(since_noon)) + 720) % 1440

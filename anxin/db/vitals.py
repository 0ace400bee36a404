"""Series of vital signs: buckets of readings, put together by the database."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

from anxin.db.pool import Database, blocks
from anxin.db.residents import missing
from anxin.db.scope import Scope

MOST_READINGS = 300_000
"""So many readings at most are put into buckets one by one for one answer."""


@dataclass(frozen=True, slots=True)
class Series:
    """One metric: `json` is `[t, mean, min, max, n], …` in order of t (epoch milliseconds)."""

    metric: str
    points: int
    readings: int
    json: str


async def count_series(
    database: Database, scope: Scope, resident_id: int, *, start: datetime, end: datetime
) -> int:
    """Return how many series the resident can have in that time; raise NotFound."""
    row = await database.fetch_one(
        blocks("vitals")["plan"],
        {**scope.parameters(), "id": resident_id, "start": start, "end": end},
    )
    if row is None:
        raise missing(resident_id)
    return int(row["series"])


async def series(
    database: Database,
    resident_id: int,
    *,
    start: datetime,
    end: datetime,
    step: timedelta,
    most: int,
) -> list[Series]:
    """Return the buckets of a resident's readings in [start, end), by metric.

    At most `most` + 1 points come back, and at most MOST_READINGS + 1 readings are looked at one by
    one: more than either means that the answer is cut and must not be used.
    """
    rows = await database.fetch(
        _query(step),
        {
            "id": resident_id,
            "start": start,
            "end": end,
            "step": step,
            "most": most + 1,
            "most_readings": MOST_READINGS + 1,
        },
    )
    return [Series(row["metric"], row["points"], row["readings"], row["series"]) for row in rows]


def uses_rollup(step: timedelta) -> bool:
    """Tell whether a series of this step is put together from whole minutes or hours."""
    return step % timedelta(minutes=1) == timedelta(0)


def _query(step: timedelta) -> bytes:
    if step % timedelta(hours=1) == timedelta(0):
        return _rolled(b"vitals_hour", b"1 hour")
    return _rolled(b"vitals_minute", b"1 minute") if uses_rollup(step) else blocks("vitals")["raw"]


@cache
def _rolled(rollup: bytes, unit: bytes) -> bytes:
    return blocks("vitals")["rolled"].replace(b"{rollup}", rollup).replace(b"{unit}", unit)

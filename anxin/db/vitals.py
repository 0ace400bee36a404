"""Series of vital signs: buckets of readings, put together by the database."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

from anxin.db.pool import Database, blocks
from anxin.db.residents import missing
from anxin.db.scope import Scope
from anxin.vitals import NAMES

MOST_READINGS = 100_000
"""So many telemetry objects at most are put into buckets one by one for one answer."""

ROLLED_UP = tuple(name for name in NAMES if name not in ("lat", "lon"))
"""The metrics of which series are kept; a mean of places would be a place where nobody was."""


@dataclass(frozen=True, slots=True)
class Series:
    """One metric: `json` is `[t, mean, min, max, n], …` in order of t (epoch milliseconds).

    `readings` counts the telemetry objects looked at one by one, for all metrics together.
    """

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
    rolled = step % timedelta(minutes=1) == timedelta(0)
    hourly = step % timedelta(hours=1) == timedelta(0)
    rows = await database.fetch(
        _query(rolled=rolled, hourly=hourly),
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


@cache
def _query(*, rolled: bool, hourly: bool) -> bytes:
    """Return the query for a kind of step, with what it says of each metric written out."""
    sql = blocks("vitals")
    query = sql["rolled"] if rolled else sql["raw"]
    query = query.replace(b"{series}", sql["series"])
    query = query.replace(b"{rollup}", b"hour_rollup" if hourly else b"minute_rollup")
    query = query.replace(b"{unit}", b"1 hour" if hourly else b"1 minute")
    for part in (b"of_rollup", b"of_readings", b"of_parts", b"rows"):
        each = sql[part.decode()]
        written = b", ".join(each.replace(b"{m}", name.encode()) for name in ROLLED_UP)
        query = query.replace(b"{" + part + b"}", written)
    return query

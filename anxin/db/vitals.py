"""Series of vital signs: buckets of readings, put together by functions of the database.

A request reaches readings through these functions only; they ask whom the session may see.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from anxin.db.pool import Database, blocks
from anxin.db.residents import missing
from anxin.db.scope import Scope

MOST_READINGS = 100_000
"""So many telemetry objects at most are put into buckets one by one for one answer."""


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
    form = "of_readings"
    if step % timedelta(minutes=1) == timedelta(0):
        form = "of_minutes"
    if step % timedelta(hours=1) == timedelta(0):
        form = "of_hours"
    rows = await database.fetch(
        blocks("vitals")[form],
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

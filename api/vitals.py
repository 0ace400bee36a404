"""Series of vital signs of one resident."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response
from pydantic import Field

from anxin.db.vitals import MOST_READINGS, Series, count_series, series
from api.auth import Grant, may
from api.fields import Id, Moment
from api.problems import Unusable
from api.services import Db

MOST_POINTS: Final = 10_000
POINTS_CHOSEN: Final = 2_000
LONGEST: Final = timedelta(days=366 * 5)
_STEPS_S: Final = (
    1, 2, 5, 10, 15, 30,
    60, 120, 300, 600, 900, 1800,
    3600, 7200, 14_400, 21_600, 43_200, 86_400, 7 * 86_400, 28 * 86_400,
)  # fmt: skip

router = APIRouter(prefix="/residents", tags=["residents"])

Bucket = Annotated[list[float], Field(min_length=5, max_length=5, title="[t, mean, min, max, n]")]


@router.get("/{resident_id}/vitals", response_model=dict[str, list[Bucket]])
async def get_vitals(
    resident_id: Id,
    grant: Annotated[Grant, may("vitals.read")],
    database: Db,
    from_: Annotated[
        Moment | None, Query(alias="from", description="Default: 24 hours before `to`.")
    ] = None,
    to: Annotated[Moment | None, Query(description="Default: now.")] = None,
    step: Annotated[
        int | None,
        Query(ge=1, le=28 * 86_400, description="Seconds; default: at most 2,000 points."),
    ] = None,
) -> Response:
    """Return `[t, mean, min, max, n]` by metric: buckets of `step` seconds that start at t ms."""
    end = to or datetime.now(UTC)
    start = from_ or end - timedelta(hours=24)
    if not start < end:
        raise Unusable("`from` must lie before `to`.")
    if end - start > LONGEST:
        raise Unusable(f"At most {LONGEST.days} days in one answer.")
    count = await count_series(database, grant.scope, int(resident_id), start=start, end=end)
    chosen = step or _fitting(end - start, count)
    most = MOST_POINTS if step else POINTS_CHOSEN
    while True:
        found = await series(
            database,
            int(resident_id),
            start=start,
            end=end,
            step=timedelta(seconds=chosen),
            most=most,
        )
        if not _is_cut(found, most):
            return _written(found, chosen)
        coarser = [one for one in _STEPS_S if one > chosen]
        if step or not coarser:
            raise Unusable(
                f"More than {MOST_POINTS} points, or too many single readings. "
                "Choose a larger step, best a multiple of 60, or a shorter time."
            )
        chosen = coarser[0]


def _fitting(span: timedelta, series_count: int) -> int:
    """Return the finest step in seconds that cannot give more points than we choose to give."""
    for step_s in _STEPS_S:
        buckets = span // timedelta(seconds=step_s) + 2
        if buckets * max(series_count, 1) <= POINTS_CHOSEN:
            return step_s
    return _STEPS_S[-1]


def _is_cut(found: list[Series], most: int) -> bool:
    return sum(one.points for one in found) > most or any(
        one.readings > MOST_READINGS for one in found
    )


def _written(found: list[Series], step_s: int) -> Response:
    """Return the answer that the database has written already, metric by metric."""
    members = ",".join(f'"{one.metric}":[{one.json}]' for one in found)
    return Response(
        f"{{{members}}}", media_type="application/json", headers={"anxin-step": str(step_s)}
    )

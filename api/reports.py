"""Reports: how soon alarms were answered, how often for nothing, and how devices are."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from anxin.db.places import place
from anxin.db.reports import Answering, By, answering, device_health
from api.answers import answer
from api.auth import Grant, may
from api.fields import Id, Moment, number
from api.problems import Unusable
from api.services import Db, Shared
from api.sheets import MARK, TYPE, as_file, csv_text

router = APIRouter(prefix="/reports", tags=["reports"])
LONGEST: Final = timedelta(days=366)


class SeenAnswering(BaseModel):
    """One station, shift or day. Shares are 0 to 1; the goal: 97.5 % in 60 s, 99 % in 180 s."""

    place_id: str | None
    station: str | None
    from_: datetime | None
    to: datetime | None
    alarms: int
    calls: int
    answered_60_s: float | None
    answered_180_s: float | None
    goal_met: bool | None
    unanswered: int
    arrival_median_s: float | None
    arrival_p90_s: float | None
    outcomes: dict[str, int]
    alarms_per_bed_day: float | None
    needed_action: float | None
    burden: int
    burden_line: str

    model_config = {"alias_generator": lambda name: name.rstrip("_")}


class AnsweringReport(BaseModel):
    """The groups in order of time and place."""

    items: list[SeenAnswering]
    next: None


@router.get(
    "/answering",
    response_model=AnsweringReport,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def answering_report(
    request: Request,
    grant: Annotated[Grant, may("reports.read")],
    shared: Shared,
    database: Db,
    from_: Annotated[Moment | None, Query(alias="from")] = None,
    to: Moment | None = None,
    place_id: Id | None = None,
    by: By = "station",
) -> Response:
    """Return how alarms were answered, by station, shift or day; as CSV with Accept: text/csv.

    Without `from` and `to` the last seven days. Alarms closed as tests are left out.
    """
    ends = to or datetime.now(UTC)
    begins = from_ or ends - timedelta(days=7)
    if not begins < ends <= begins + LONGEST:
        raise Unusable("`from` must lie before `to`, at most 366 days.")
    if place_id is not None:
        await place(database, grant.scope, int(place_id))
    groups = await answering(
        database,
        grant.scope,
        place_id=number(place_id),
        begins=begins,
        ends=ends,
        by=by,
        zone=shared.settings.timezone,
    )
    rows = [_row(group) for group in groups]
    if "text/csv" in request.headers.get("accept", ""):
        return _csv(rows)
    return answer({"items": rows, "next": None})


def _row(group: Answering) -> dict[str, Any]:
    return {name.rstrip("_"): getattr(group, name) for name in group.__slots__}


def _csv(rows: list[dict[str, Any]]) -> Response:
    names = [name.rstrip("_") for name in Answering.__slots__ if name != "outcomes"]
    outcomes = ("real", "false", "unknown", "open")
    table = [
        [*names, *(f"outcome_{name}" for name in outcomes)],
        *(
            [*(row[name] for name in names), *(row["outcomes"][name] for name in outcomes)]
            for row in rows
        ),
    ]
    return Response(MARK + csv_text(table), media_type=TYPE, headers=as_file("answering.csv"))


class SeenHealth(BaseModel):
    """The devices of one station that are not revoked: how many of them are how.

    `silent`: assigned, and not heard for longer than usual; `never_heard` since it was assigned.
    `firmware` counts versions by kind; one that a device never told is the empty text.
    """

    place_id: str | None
    station: str | None
    devices: int
    assigned: int
    online: int
    silent: int
    never_heard: int
    sensor_error: int
    battery_low: int
    battery_critical: int
    battery_unknown: int
    quarantined: int
    firmware: dict[str, dict[str, int]]


class HealthReport(BaseModel):
    """The stations in order of their place."""

    items: list[SeenHealth]
    next: None


@router.get("/devices", response_model=HealthReport)
async def device_report(
    grant: Annotated[Grant, may("reports.read")], database: Db, place_id: Id | None = None
) -> Response:
    """Return how devices are now, by station: silent, never heard, battery, firmware."""
    if place_id is not None:
        await place(database, grant.scope, int(place_id))
    found = await device_health(database, grant.scope, place_id=number(place_id))
    return answer({"items": found, "next": None})

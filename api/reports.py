"""Reports: how soon alarms were answered, and how often for nothing."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from anxin.db.places import place
from anxin.db.reports import Answering, By, answering
from api.answers import answer
from api.auth import Grant, may
from api.fields import Id, Moment, number
from api.problems import Unusable
from api.services import Db, Shared

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
    text = io.StringIO()
    names = [name.rstrip("_") for name in Answering.__slots__ if name != "outcomes"]
    outcomes = ("real", "false", "unknown", "open")
    writer = csv.writer(text)
    writer.writerow([*names, *(f"outcome_{name}" for name in outcomes)])
    for row in rows:
        cells = [row[name] for name in names]
        writer.writerow(
            [
                *(
                    one.isoformat() if isinstance(one, datetime) else _harmless(one)
                    for one in cells
                ),
                *(row["outcomes"][name] for name in outcomes),
            ]
        )
    # The mark at the beginning lets spreadsheets read Chinese names as what they are.
    return Response(
        "\ufeff" + text.getvalue(),
        media_type="text/csv; charset=utf-8",
        headers={"content-disposition": 'attachment; filename="answering.csv"'},
    )


def _harmless(cell: object) -> object:
    """Keep a spreadsheet from taking a name for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in "=+-@\t\r" and cell else cell

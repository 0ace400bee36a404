"""Visits and services to a resident: staff writes them down, the family reads them."""

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Response
from pydantic import Field, Strict, StringConstraints

from anxin.db import visits as stored
from anxin.db.visits import Visit, VisitKind
from api.answers import After, Limit, Page, answer, page, place_after
from api.auth import Grant, may
from api.fields import Body, Id, Moment, Text
from api.problems import Unusable
from api.services import Db

FURTHEST_PLAN: Final = timedelta(days=92)
FURTHEST_PAST: Final = timedelta(days=31)

router = APIRouter(prefix="/residents/{resident_id}/visits", tags=["visits"])

_Place = tuple[datetime, Annotated[int, msgspec.Meta(ge=0, le=2**62)]]


class NewVisit(Body):
    """A visit that was or will be; the family reads the note."""

    kind: VisitKind
    at: Moment
    minutes: Annotated[int | None, Strict(), Field(ge=1, le=1440)] = None
    note: Annotated[Text, StringConstraints(max_length=500)] = ""


@router.get("", response_model=Page[Visit])
async def list_visits(
    resident_id: Id,
    grant: Annotated[Grant, may("visits.read")],
    database: Db,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return visits and services, planned ones first, then the latest."""
    found = await stored.visits(
        database,
        grant.scope,
        int(resident_id),
        before=None if after is None else place_after(after, _Place),
        limit=limit + 1,
    )
    return page(found, [(one.at, int(one.id)) for one in found], limit)


@router.post("", response_model=Visit, status_code=HTTPStatus.CREATED)
async def record_visit(
    resident_id: Id, body: NewVisit, grant: Annotated[Grant, may("visits.write")], database: Db
) -> Response:
    """Write down a visit; what lies in the future is planned."""
    now = datetime.now(UTC)
    if not now - FURTHEST_PAST < body.at < now + FURTHEST_PLAN:
        raise Unusable(
            f"`at` lies at most {FURTHEST_PAST.days} days back and {FURTHEST_PLAN.days} ahead."
        )
    made = await stored.record_visit(
        database,
        grant.scope,
        int(resident_id),
        kind=body.kind,
        at=body.at,
        minutes=body.minutes,
        note=body.note,
        by=grant.user.user_id,
    )
    return answer(made, HTTPStatus.CREATED)


@router.delete("/{visit_id}", status_code=HTTPStatus.NO_CONTENT)
async def remove_visit(
    resident_id: Id, visit_id: Id, grant: Annotated[Grant, may("visits.write")], database: Db
) -> Response:
    """Take away what was written down by mistake; that it was done is recorded."""
    await stored.remove_visit(database, grant.scope, int(resident_id), int(visit_id))
    return Response(status_code=HTTPStatus.NO_CONTENT)

"""The duty roster: who is on which post of which place, and when."""

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field, model_validator

from anxin.db import roster as stored
from anxin.db.roster import NewShift, StoredShift
from anxin.escalation import Post
from api.answers import After, Limit, Page, answer, page, serial_after
from api.auth import Grant, may
from api.fields import Body, Id, Moment, Text, number
from api.services import Db

router = APIRouter(prefix="/shifts", tags=["roster"])
_LONGEST = timedelta(days=31)

AcceptGaps = Annotated[
    bool, Query(description="Go on although a post would stand empty in the coming week.")
]


class Shift(Body):
    """Somebody on a post; `stands_in_for` is whom they replace for that time."""

    place_id: Id
    user_id: Id
    post: Post
    begins_at: Moment
    ends_at: Moment
    stands_in_for: Id | None = None
    note: Text = ""

    @model_validator(mode="after")
    def _in_order(self) -> "Shift":
        if not timedelta(0) < self.ends_at - self.begins_at <= _LONGEST:
            raise ValueError("A shift ends after it begins, at most 31 days later.")
        return self


class Shifts(Body):
    """Shifts to add, all or none."""

    items: Annotated[list[Shift], Field(min_length=1, max_length=500)]


@router.get("", response_model=Page[StoredShift])
async def list_shifts(
    grant: Annotated[Grant, may("roster.read")],
    database: Db,
    place_id: Id | None = None,
    since: Annotated[Moment | None, Query(alias="from")] = None,
    until: Annotated[Moment | None, Query(alias="to")] = None,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return shifts of a time, by default from a day ago to a month ahead."""
    now = datetime.now(UTC)
    since = since or now - timedelta(days=1)
    found = await stored.shifts(
        database,
        grant.scope,
        place_id=number(place_id),
        since=since,
        until=max(since, until or now + _LONGEST),
        after=serial_after(after) or 0,
        limit=limit + 1,
    )
    return page(found, [int(one.id) for one in found], limit)


@router.post("", response_model=list[StoredShift], status_code=HTTPStatus.CREATED)
async def add_shifts(
    body: Shifts,
    grant: Annotated[Grant, may("roster.write")],
    database: Db,
    *,
    accept_gaps: AcceptGaps = False,
) -> Response:
    """Add shifts, all or none; refused when a duty post of the coming week would stand empty."""
    made = await stored.add_shifts(
        database,
        grant.scope,
        [
            NewShift(
                int(one.place_id),
                int(one.user_id),
                one.post,
                one.begins_at,
                one.ends_at,
                number(one.stands_in_for),
                one.note,
            )
            for one in body.items
        ],
        now=datetime.now(UTC),
        accept_gaps=accept_gaps,
    )
    return answer(made, HTTPStatus.CREATED)


@router.delete("/{shift_id}", status_code=HTTPStatus.NO_CONTENT)
async def drop_shift(
    shift_id: Id,
    grant: Annotated[Grant, may("roster.write")],
    database: Db,
    *,
    accept_gaps: AcceptGaps = False,
) -> Response:
    """Remove a shift; refused when its post would stand empty in the coming week."""
    await stored.drop_shift(
        database,
        grant.scope,
        int(shift_id),
        now=datetime.now(UTC),
        accept_gaps=accept_gaps,
    )
    return Response(status_code=HTTPStatus.NO_CONTENT)

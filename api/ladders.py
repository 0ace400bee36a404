"""Ladders: in which order people are told of an alarm, and whether every step reaches somebody."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field, StringConstraints

from anxin.alarms import PRIORITY_NUMBER, Priority
from anxin.db import roster as stored
from anxin.db.roster import StoredLadder
from anxin.escalation import Fault, Ladder, Step
from api.answers import After, Limit, Page, answer, page, serial_after
from api.auth import Grant, may
from api.fields import Body, Id, number
from api.services import Db

router = APIRouter(prefix="/ladders", tags=["roster"])
_NAMES: dict[int, Priority] = {number_: name for name, number_ in PRIORITY_NUMBER.items()}
_Word = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,32}$")]


class LadderStep(Body):
    """So long after the alarm, these people, by these ways."""

    after_seconds: Annotated[int, Field(ge=0, le=86_400)]
    audience: _Word
    channels: Annotated[list[_Word], Field(max_length=10)]


class NewLadder(Body):
    """The ladder of a place for a priority and a time of day, in minutes of the local day."""

    place_id: Id
    priority: Priority
    from_minute: Annotated[int, Field(ge=0, le=1439)] = 0
    to_minute: Annotated[int, Field(ge=1, le=1440)] = 1440
    lease_seconds: Annotated[int, Field(ge=60, le=86_400)] = 600
    steps: Annotated[list[LadderStep], Field(max_length=50)]


class SeenLadder(BaseModel):
    """A ladder that a place has of its own."""

    id: str
    place_id: str
    priority: Priority
    from_minute: int
    to_minute: int
    lease_seconds: int
    steps: list[LadderStep]


class Verdict(BaseModel):
    """A ladder in force at a place, and what is wrong with it; `place_id` null is the default."""

    place_id: str | None
    priority: Priority
    from_minute: int
    to_minute: int
    lease_seconds: int
    steps: list[LadderStep]
    faults: list[Fault]


@router.get("", response_model=Page[SeenLadder])
async def list_ladders(
    grant: Annotated[Grant, may("roster.read")],
    database: Db,
    place_id: Id | None = None,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return the ladders that places have of their own."""
    found = await stored.ladders(
        database,
        grant.scope,
        place_id=number(place_id),
        after=serial_after(after) or 0,
        limit=limit + 1,
    )
    return page([_seen(one) for one in found], [int(one.id) for one in found], limit)


@router.get("/verdict", response_model=list[Verdict])
async def judge_ladders(
    place_id: Id, grant: Annotated[Grant, may("roster.read")], database: Db
) -> Response:
    """Return the ladders in force at a place, with every step that would reach nobody."""
    found = await stored.verdict(database, grant.scope, int(place_id), now=datetime.now(UTC))
    return answer([_judged(ladder, faults) for ladder, faults in found])


@router.post("/verdict", response_model=list[Fault])
async def judge_draft(
    body: NewLadder, grant: Annotated[Grant, may("roster.read")], database: Db
) -> Response:
    """Return what is wrong with a ladder as it is written, without storing it."""
    found = await stored.faults_of(database, grant.scope, _ladder(body), now=datetime.now(UTC))
    return answer(found)


@router.put("", response_model=SeenLadder)
async def put_ladder(
    body: NewLadder, grant: Annotated[Grant, may("roster.write")], database: Db
) -> Response:
    """Set the ladder of a place; refused, with the reasons, when a step reaches nobody."""
    made = await stored.put_ladder(database, grant.scope, _ladder(body), now=datetime.now(UTC))
    return answer(_seen(made))


def _ladder(body: NewLadder) -> Ladder:
    return Ladder(
        PRIORITY_NUMBER[body.priority],
        body.lease_seconds,
        tuple(Step(one.after_seconds, one.audience, tuple(one.channels)) for one in body.steps),
        body.from_minute,
        body.to_minute,
        int(body.place_id),
    )


@router.delete("/{ladder_id}", status_code=HTTPStatus.NO_CONTENT)
async def drop_ladder(
    ladder_id: Id, grant: Annotated[Grant, may("roster.write")], database: Db
) -> Response:
    """Remove a ladder: that of a place above, or the default, stands again."""
    await stored.drop_ladder(database, grant.scope, int(ladder_id))
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _seen(ladder: StoredLadder) -> dict[str, Any]:
    return {
        "id": ladder.id,
        "place_id": ladder.place_id,
        "priority": _NAMES[ladder.priority],
        "from_minute": ladder.from_minute,
        "to_minute": ladder.to_minute,
        "lease_seconds": ladder.lease_seconds,
        "steps": ladder.steps,
    }


def _judged(ladder: Ladder, faults: list[Fault]) -> dict[str, Any]:
    return {
        "place_id": None if ladder.place_id is None else str(ladder.place_id),
        "priority": _NAMES[ladder.priority],
        "from_minute": ladder.from_minute,
        "to_minute": ladder.to_minute,
        "lease_seconds": ladder.lease_seconds,
        "steps": ladder.steps,
        "faults": faults,
    }

"""Alarms: seen, taken, attended to, closed."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, BaseModel

from anxin.alarms import LONGEST_SNOOZE, TRANSITIONS, Action, Handling, Outcome, Priority
from anxin.db import alarms as stored
from anxin.db.alarms import Act, TimelineLine
from api.alarm_view import seen_alarm, view_of
from api.answers import After, Limit, Page, answer, page, serial_after
from api.auth import Grant, may
from api.fields import Body, Id, Moment, Text, number
from api.problems import Unusable
from api.services import Db

router = APIRouter(prefix="/alarms", tags=["alarms"])
_MOST_KINDS = 50


class SeenAlarm(BaseModel):
    """An alarm, with what the caller may do about it now."""

    id: str
    resident_id: str | None
    place_id: str | None
    device_id: str | None
    kind: str
    class_: str
    priority: Priority
    condition: str
    handling: Handling
    outcome: Outcome | None
    count: int
    raised_at: datetime
    last_at: datetime
    event_at: datetime
    late: bool
    owner: str | None
    snoozed_until: datetime | None
    condition_delay_s: float
    signal_delay_s: float | None
    detail: dict[str, Any]
    actions: list[Action]

    model_config = {"alias_generator": lambda name: name.rstrip("_")}


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("Say something.")
    return text


class Close(Body):
    """How it ended."""

    outcome: Outcome
    note: Text | None = None


class Snooze(Body):
    """Until when the alarm may rest: at most 12 hours."""

    until: Moment


class Note(Body):
    """A line for the timeline."""

    text: Annotated[Text, AfterValidator(_said)]


Several = Annotated[
    list[str] | None, Query(description="Several values: repeat it, or separate with commas.")
]


@router.get("", response_model=Page[SeenAlarm])
async def list_alarms(
    grant: Annotated[Grant, may("alarms.read")],
    database: Db,
    handling: Several = None,
    priority: Several = None,
    kind: Several = None,
    resident_id: Id | None = None,
    place_id: Id | None = None,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return alarms, newest first; `place_id` takes in everything below it."""
    found = await stored.alarms(
        database,
        grant.scope,
        handling=_chosen("handling", handling, get_args(Handling)),
        priority=_chosen("priority", priority, get_args(Priority)),
        kind=_kinds(kind),
        resident_id=number(resident_id),
        place_id=number(place_id),
        before=serial_after(after),
        limit=limit + 1,
    )
    return page([_seen(one, grant) for _, one in found], [key for key, _ in found], limit)


@router.get("/{alarm_id}", response_model=SeenAlarm)
async def get_alarm(
    alarm_id: Id, grant: Annotated[Grant, may("alarms.read")], database: Db
) -> Response:
    """Return one alarm."""
    return answer(_seen(await stored.alarm(database, grant.scope, int(alarm_id)), grant))


@router.get("/{alarm_id}/timeline", response_model=Page[TimelineLine])
async def get_timeline(
    alarm_id: Id,
    grant: Annotated[Grant, may("timeline.read")],
    database: Db,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return every change of an alarm, oldest first: when, what, who, through which channel."""
    found = await stored.timeline(
        database, grant.scope, int(alarm_id), after=serial_after(after) or 0, limit=limit + 1
    )
    return page(found, [int(one.id) for one in found], limit)


@router.post("/{alarm_id}/acknowledge", response_model=SeenAlarm)
async def acknowledge(
    alarm_id: Id, grant: Annotated[Grant, may("alarms.acknowledge")], database: Db
) -> Response:
    """Take an alarm: it is yours from now on."""
    return await _act(database, grant, alarm_id, "acknowledge")


@router.post("/{alarm_id}/arrive", response_model=SeenAlarm)
async def arrive(
    alarm_id: Id, grant: Annotated[Grant, may("alarms.acknowledge")], database: Db
) -> Response:
    """Say that somebody is there."""
    return await _act(database, grant, alarm_id, "arrive")


@router.post("/{alarm_id}/close", response_model=SeenAlarm)
async def close(
    alarm_id: Id, body: Close, grant: Annotated[Grant, may("alarms.close")], database: Db
) -> Response:
    """End an alarm with its outcome."""
    return await _act(
        database, grant, alarm_id, "close", outcome=body.outcome, note=body.note or None
    )


@router.post("/{alarm_id}/snooze", response_model=SeenAlarm)
async def snooze(
    alarm_id: Id, body: Snooze, grant: Annotated[Grant, may("alarms.snooze")], database: Db
) -> Response:
    """Let an alarm rest; never one of an emergency or of safety."""
    now = datetime.now(UTC)
    if not now < body.until <= now + LONGEST_SNOOZE:
        raise Unusable("`until` must lie in the next 12 hours.")
    return await _act(database, grant, alarm_id, "snooze", until=body.until)


@router.post("/{alarm_id}/note", response_model=SeenAlarm)
async def note(
    alarm_id: Id, body: Note, grant: Annotated[Grant, may("alarms.acknowledge")], database: Db
) -> Response:
    """Write a line into the timeline."""
    return await _act(database, grant, alarm_id, "note", note=body.text)


async def _act(
    database: Db,
    grant: Grant,
    alarm_id: str,
    action: Action,
    *,
    note: str | None = None,
    outcome: Outcome | None = None,
    until: datetime | None = None,
) -> Response:
    act = Act(action, grant.user.user_id, grant.user.username, grant.channel, note, outcome, until)
    try:
        after = await stored.act(database, grant.scope, int(alarm_id), TRANSITIONS[action], act)
    except stored.WrongState as error:
        error.alarm = _seen(error.alarm, grant)
        raise
    return answer(_seen(after, grant), HTTPStatus.OK)


def _seen(alarm: dict[str, Any], grant: Grant) -> dict[str, Any]:
    resident_id = alarm["resident_id"]
    return seen_alarm(alarm, view_of(grant.user, int(resident_id) if resident_id else None))


def _chosen(field: str, given: list[str] | None, known: tuple[Any, ...]) -> list[Any] | None:
    """Return the values of a filter; raise Unusable for one that is not known."""
    if given is None:
        return None
    values = [value for part in given for value in part.split(",")]
    if not set(values) <= set(known):
        raise Unusable(f"`{field}` takes {', '.join(known)}.")
    return sorted(set(values))


def _kinds(given: list[str] | None) -> list[str] | None:
    if given is None:
        return None
    kinds = sorted({value for part in given for value in part.split(",")})
    if len(kinds) > _MOST_KINDS or not all(one.replace("_", "").isalnum() for one in kinds):
        raise Unusable("`kind` takes the kinds of alarms.")
    return kinds

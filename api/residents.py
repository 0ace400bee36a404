"""Residents: who lives where, how they are, and who of their family may know."""

from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any, Self

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field, Strict, model_validator

from anxin.db import consents
from anxin.db import residents as stored
from anxin.db.residents import CareEvent, FamilyLink, Resident, Sex, missing
from anxin.db.sessions import Authority
from anxin.rules import LIMITS
from api.alarm_view import view_of
from api.answers import After, Limit, Page, answer, page, place_after, serial_after
from api.auth import Grant, may
from api.consents import Circumstances, Scopes, given
from api.fields import Body, Id, Name, Text, number
from api.permissions import scope_of
from api.services import Db, Shared
from api.status import Status, judge, seen_status

router = APIRouter(prefix="/residents", tags=["residents"])

_EventPlace = tuple[
    Annotated[int, msgspec.Meta(ge=0, le=7_000_000_000_000_000)],
    Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)],
    Annotated[str, msgspec.Meta(max_length=256, pattern="^[^\x00]*$")],
]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Flag = Annotated[bool, Strict()]
CareLevel = Annotated[int, Strict(), Field(ge=0, le=4)]
Scale = Annotated[int, Strict(), Field(ge=1, le=2)]
Limits = dict[str, Annotated[float, Field(allow_inf_nan=False)]]


def check_limits(limits: Limits) -> None:
    """Raise ValueError for a limit that there is not, or outside the bounds of a clinician."""
    for name, value in limits.items():
        limit = LIMITS.get(name)
        if limit is None:
            raise ValueError(f"limits: the names are {', '.join(LIMITS)}.")
        if not limit.low <= value <= limit.high:
            raise ValueError(
                f"limits: {name} lies between {limit.low} and {limit.high} {limit.unit}."
            )


class _WithLimits(Body):
    """Checks alarm limits against the names and bounds that a clinician set."""

    limits: Limits | None = None

    @model_validator(mode="after")
    def _inside_bounds(self) -> Self:
        check_limits(self.limits or {})
        return self


class NewResident(_WithLimits):
    """A resident; only name and place are needed."""

    name: Name
    place_id: Id
    sex: Sex = "unknown"
    born: date | None = None
    care_level: CareLevel | None = None
    fall_risk: Flag = False
    wander_risk: Flag = False
    spo2_scale: Scale = 1
    note: Text = ""


class ResidentChange(_WithLimits):
    """The fields to change; `born` and `care_level` may become null, `limits` is replaced."""

    name: Name | None = None
    place_id: Id | None = None
    sex: Sex | None = None
    born: date | None = None
    care_level: CareLevel | None = None
    fall_risk: Flag | None = None
    wander_risk: Flag | None = None
    spo2_scale: Scale | None = None
    note: Text | None = None


class SeenResident(BaseModel):
    """A resident; a family is shown the first six fields only."""

    id: str
    name: str
    sex: Sex
    born: date | None
    place_id: str
    care_level: int | None
    fall_risk: bool | None = None
    wander_risk: bool | None = None
    spo2_scale: int | None = None
    limits: dict[str, float] | None = None
    note: str | None = None
    created_at: datetime | None = None


class NewLink(Circumstances):
    """What a family user may see of a resident, by the resident's consent."""

    user_id: Id
    scopes: Scopes


@router.get("", response_model=Page[SeenResident])
async def list_residents(
    grant: Annotated[Grant, may("residents.read")],
    database: Db,
    place_id: Id | None = None,
    q: Annotated[Text | None, Query(max_length=100, description="Part of the name.")] = None,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return residents, those of one place and below if asked for."""
    found = await stored.residents(
        database,
        grant.scope,
        place_id=number(place_id),
        search=q,
        after=serial_after(after) or 0,
        limit=limit + 1,
    )
    seen = [_seen(one, grant.user) for one in found]
    return page(seen, [int(one.id) for one in found], limit)


@router.post("", response_model=SeenResident, status_code=HTTPStatus.CREATED)
async def create_resident(
    body: NewResident, grant: Annotated[Grant, may("residents.write")], database: Db
) -> Response:
    """Add a resident."""
    values = body.model_dump()
    if values["limits"]:
        scope_of(grant.user, "limits.write")
    values["limits"] = values["limits"] or {}
    values["place_id"] = int(body.place_id)
    made = await stored.create_resident(database, grant.scope, values)
    return answer(made, HTTPStatus.CREATED)


@router.get("/{resident_id}", response_model=SeenResident)
async def get_resident(
    resident_id: Id, grant: Annotated[Grant, may("residents.read")], database: Db
) -> Response:
    """Return one resident."""
    found = await stored.resident(database, grant.scope, int(resident_id))
    return answer(_seen(found, grant.user))


@router.patch("/{resident_id}", response_model=SeenResident)
async def change_resident(
    resident_id: Id,
    body: ResidentChange,
    grant: Annotated[Grant, may("residents.write")],
    database: Db,
) -> Response:
    """Change the given fields of a resident."""
    values: dict[str, Any] = body.model_dump(exclude_unset=True)
    if "limits" in values:
        scope_of(grant.user, "limits.write")
    if values.get("place_id") is not None:
        values["place_id"] = int(values["place_id"])
    return answer(await stored.change_resident(database, grant.scope, int(resident_id), values))


@router.get("/{resident_id}/status", response_model=Status)
async def get_status(
    resident_id: Id, grant: Annotated[Grant, may("status.read")], database: Db
) -> Response:
    """Return how a resident is: never "well" without a sign of life in the last 15 minutes."""
    found = await stored.signs(database, grant.scope, [int(resident_id)])
    if not found:
        raise missing(int(resident_id))
    view = view_of(grant.user, int(resident_id))
    return answer(seen_status(judge(found[0]), view))


@router.get("/{resident_id}/events", response_model=Page[CareEvent])
async def list_events(
    resident_id: Id,
    grant: Annotated[Grant, may("events.read")],
    database: Db,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return what the resident's devices reported, newest first."""
    before = None
    if after is not None:
        at_us, key, event = place_after(after, _EventPlace)
        before = (_EPOCH + timedelta(microseconds=at_us), key, event)
    found = await stored.resident_events(
        database, grant.scope, int(resident_id), before=before, limit=limit + 1
    )
    view = view_of(grant.user, int(resident_id))
    events = [one if view.sees_location else _unlocated(one) for _, one in found]
    places = [((one.ts - _EPOCH) // timedelta(microseconds=1), key, one.id) for key, one in found]
    return page(events, places, limit)


@router.get("/{resident_id}/family", response_model=Page[FamilyLink])
async def list_family(
    resident_id: Id, grant: Annotated[Grant, may("family.write")], database: Db
) -> Response:
    """Return who may see what of a resident."""
    found = await consents.family(database, grant.scope, int(resident_id))
    return answer({"items": found, "next": None})


@router.post("/{resident_id}/family", response_model=FamilyLink, status_code=HTTPStatus.CREATED)
async def link_family(
    resident_id: Id,
    body: NewLink,
    grant: Annotated[Grant, may("family.write")],
    shared: Shared,
    database: Db,
) -> Response:
    """Let a family user see these sides of a resident, and no others; it is recorded as consent."""
    link = await consents.link_family(
        database,
        grant.scope,
        int(resident_id),
        given(body, purpose="family", user_id=body.user_id, scopes=body.scopes),
        by=grant.user.user_id,
    )
    shared.hub.look_again()
    return answer(link, HTTPStatus.CREATED)


@router.delete("/{resident_id}/family/{user_id}", status_code=HTTPStatus.NO_CONTENT)
async def unlink_family(
    resident_id: Id,
    user_id: Id,
    grant: Annotated[Grant, may("family.write")],
    shared: Shared,
    database: Db,
) -> Response:
    """Withdraw all that a relative may see of a resident."""
    await consents.unlink_family(
        database, grant.scope, int(resident_id), user_id=int(user_id), by=grant.user.user_id
    )
    shared.hub.look_again()
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _seen(one: Resident, user: Authority) -> Resident | dict[str, Any]:
    if user.role != "family":
        return one
    return {
        "id": one.id,
        "name": one.name,
        "sex": one.sex,
        "born": one.born,
        "place_id": one.place_id,
        "care_level": one.care_level,
    }


def _unlocated(event: CareEvent) -> CareEvent:
    """Return an event without its detail, which may hold coordinates."""
    return CareEvent(event.id, event.device_id, event.type, event.ts, event.received_at, None)

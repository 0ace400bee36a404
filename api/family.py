"""A relative's own questions: whom to call, what was done, what one may see, when not to ring."""

from datetime import datetime, time
from typing import Annotated, Self

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field, Strict, StringConstraints, model_validator

from anxin.db import family as stored
from anxin.db.family import Answer, OwnConsent, QuietHours, Station
from api.answers import Page, answer
from api.auth import Current, Grant, may
from api.fields import Body, Id
from api.services import Db

router = APIRouter(tags=["family"])

TimeOfDay = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class Quiet(Body):
    """Local times (HH:MM) between which what can wait does; an emergency never does.

    `from` may be later than `until`: then the night lies between. With `only_urgent` what can wait
    is not sent at all.
    """

    from_: Annotated[TimeOfDay | None, Field(alias="from")] = None
    until: TimeOfDay | None = None
    only_urgent: Annotated[bool, Strict()] = False

    @model_validator(mode="after")
    def _is_a_span(self) -> Self:
        if (self.from_ is None) != (self.until is None):
            raise ValueError("Give `from` and `until`, or neither.")
        if self.from_ is not None and self.from_ == self.until:
            raise ValueError("`from` and `until` differ; to hear of nothing else, only_urgent.")
        return self


class SeenQuiet(BaseModel):
    """The same as it is stored."""

    from_: str | None
    until: str | None
    only_urgent: bool

    model_config = {"alias_generator": lambda name: name.rstrip("_")}


@router.get("/residents/{resident_id}/station", response_model=Station)
async def get_station(
    resident_id: Id, grant: Annotated[Grant, may("residents.read")], database: Db
) -> Response:
    """Return whom to call about a resident: the nearest place up the tree that has a telephone."""
    return answer(await stored.station(database, grant.scope, int(resident_id)))


@router.get("/alarms/{alarm_id}/answers", response_model=Page[Answer])
async def list_answers(
    alarm_id: Id, grant: Annotated[Grant, may("alarms.read")], database: Db
) -> Response:
    """Return what was done about an alarm, oldest first: by which role and when, without names."""
    found = await stored.answers(database, grant.scope, int(alarm_id))
    return answer({"items": found, "next": None})


@router.get("/me/consents", response_model=Page[OwnConsent])
async def list_own_consents(user: Current, database: Db) -> Response:
    """Return what residents allow, or allowed, oneself to see, the newest first."""
    found = await stored.own_consents(database, user.user_id)
    return answer({"items": found, "next": None})


@router.get("/me/quiet-hours", response_model=SeenQuiet)
async def get_quiet_hours(grant: Annotated[Grant, may("quiet.choose")], database: Db) -> Response:
    """Return when oneself is not to be disturbed with what can wait."""
    return answer(_seen(await stored.quiet_hours(database, grant.user.user_id)))


@router.put("/me/quiet-hours", response_model=SeenQuiet)
async def put_quiet_hours(
    body: Quiet, grant: Annotated[Grant, may("quiet.choose")], database: Db
) -> Response:
    """Choose when not to be disturbed; what is urgent comes at any time, whatever is chosen."""
    chosen = QuietHours(_time(body.from_), _time(body.until), only_urgent=body.only_urgent)
    await stored.choose_quiet_hours(database, grant.user.user_id, chosen)
    return answer(_seen(chosen))


def _time(text: str | None) -> time | None:
    return None if text is None else datetime.strptime(text, "%H:%M").time()  # noqa: DTZ007  local


def _seen(quiet: QuietHours) -> dict[str, object]:
    return {
        "from": quiet.from_ and quiet.from_.strftime("%H:%M"),
        "until": quiet.until and quiet.until.strftime("%H:%M"),
        "only_urgent": quiet.only_urgent,
    }

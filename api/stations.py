"""Stations: which screens keep watch, whether they can call anybody, and the self-tests."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from anxin.db import stations as stored
from anxin.stations import Fault, Sound, Station, fault_of
from api.answers import After, Limit, Page, answer, page, serial_after
from api.auth import Grant, may
from api.services import Db

router = APIRouter(tags=["stations"])


class SeenStation(BaseModel):
    """A screen as it last told of itself; `condition` says whether it can call anybody now."""

    id: str
    username: str
    screen: str
    place_id: str | None
    condition: Literal["well", "off_duty"] | Fault
    seen_at: datetime
    sound: Sound
    visible: bool
    proved_at: datetime | None
    on_duty: bool


class SeenSelfTest(BaseModel):
    """One run; `failed` is what did not come: not_acknowledged, no_alarm, not_displayed."""

    id: str
    place_id: str
    started_at: datetime
    alarm_id: str | None
    displayed_at: datetime | None
    failed: str | None


@router.get("/stations", response_model=Page[SeenStation])
async def list_stations(
    grant: Annotated[Grant, may("stations.read")],
    database: Db,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return the screens of the caller's places, newest first."""
    found, now = await stored.stations(
        database, grant.scope, before=serial_after(after), limit=limit + 1
    )
    if now is None:
        return answer({"items": [], "next": None})
    return page([_seen(one, now) for one in found], [one.id for one in found], limit)


@router.get("/self-tests", response_model=Page[SeenSelfTest])
async def list_self_tests(
    grant: Annotated[Grant, may("stations.read")],
    database: Db,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return runs of the self-test at the caller's places, newest first."""
    found = await stored.self_tests(
        database, grant.scope, before=serial_after(after), limit=limit + 1
    )
    return page(found, [int(one.id) for one in found], limit)


def _seen(one: Station, now: datetime) -> dict[str, Any]:
    return {
        "id": str(one.id),
        "username": one.username,
        "screen": one.screen,
        "place_id": None if one.place_id is None else str(one.place_id),
        "condition": (fault_of(one, now) or "well") if one.on_duty else "off_duty",
        "seen_at": one.seen_at,
        "sound": one.sound,
        "visible": one.visible,
        "proved_at": one.proved_at,
        "on_duty": one.on_duty,
    }

"""Today of one resident beside what is usual for the same person."""

from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Response

from anxin.db import usual as stored
from anxin.db.usual import Usual
from api.answers import answer
from api.auth import Grant, may
from api.fields import Id
from api.services import Db, Shared

router = APIRouter(prefix="/residents", tags=["residents"])


@router.get("/{resident_id}/usual", response_model=Usual)
async def get_usual(
    resident_id: Id, grant: Annotated[Grant, may("vitals.read")], shared: Shared, database: Db
) -> Response:
    """Return today so far beside the same hours of the last 28 days, and the nights in bed.

    What eight days of ten lie between is usual; of fewer than seven days nothing is said.
    """
    found = await stored.usual(
        database,
        grant.scope,
        int(resident_id),
        now=datetime.now(UTC),
        zone=ZoneInfo(shared.settings.timezone),
    )
    return answer(found)

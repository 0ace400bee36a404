"""Erasure of a resident: one administrator asks, another one approves, the worker does it."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Response

from anxin.db import erasure as stored
from anxin.db.erasure import Erasure
from api.answers import After, Limit, Page, answer, page, serial_after
from api.auth import Grant, may
from api.fields import Id
from api.people import disclosing
from api.services import Db

router = APIRouter(tags=["erasures"])


@router.post(
    "/residents/{resident_id}/erase", response_model=Erasure, status_code=HTTPStatus.ACCEPTED
)
async def erase_resident(
    resident_id: Id, grant: Annotated[Grant, disclosing("administer")], database: Db
) -> Response:
    """Ask for the erasure of a resident; nothing happens before another administrator approves."""
    asked = await stored.request_erasure(
        database, grant.scope, int(resident_id), by=grant.user.user_id
    )
    return answer(asked, HTTPStatus.ACCEPTED)


@router.get("/erasures", response_model=Page[Erasure])
async def list_erasures(
    grant: Annotated[Grant, may("administer")],
    database: Db,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return what was asked for, decided and done, newest first."""
    found = await stored.erasures(
        database, grant.scope, before=serial_after(after), limit=limit + 1
    )
    return page(found, [int(one.id) for one in found], limit)


@router.post("/erasures/{erasure_id}/approve", response_model=Erasure)
async def approve_erasure(
    erasure_id: Id, grant: Annotated[Grant, disclosing("administer")], database: Db
) -> Response:
    """Approve what another administrator has asked for; it begins within seconds, for good."""
    return answer(
        await stored.approve(database, grant.scope, int(erasure_id), by=grant.user.user_id)
    )


@router.post("/erasures/{erasure_id}/refuse", response_model=Erasure)
async def refuse_erasure(
    erasure_id: Id, grant: Annotated[Grant, may("administer")], database: Db
) -> Response:
    """Refuse an erasure, or take back one's own."""
    return answer(await stored.refuse(database, grant.scope, int(erasure_id)))

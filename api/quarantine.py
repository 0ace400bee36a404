"""Quarantine: what devices sent that could not be used, for staff to read."""

import base64
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel

from anxin.db.quarantine import Rejected, rejected, rejected_one
from api.answers import After, Limit, Page, answer, page, serial_after
from api.auth import Grant, may
from api.fields import DeviceId, Id
from api.services import Db

router = APIRouter(prefix="/quarantine", tags=["quarantine"])


class SeenRejected(BaseModel):
    """A refused payload: as text where it is text, and exactly as `payload_base64`.

    `size` counts the bytes received; the list shows the first KiB, one alone at most 64 KiB.
    """

    id: str
    received_at: datetime
    device_id: str
    kind: str
    reason: str
    size: int
    payload: str
    payload_base64: str


@router.get("", response_model=Page[SeenRejected])
async def list_rejected(
    grant: Annotated[Grant, may("quarantine.read")],
    database: Db,
    device_id: DeviceId | None = None,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return refused payloads with their reasons, newest first."""
    found = await rejected(
        database,
        grant.scope,
        device_id=device_id,
        before=serial_after(after),
        limit=limit + 1,
    )
    return page([_seen(one) for one in found], [int(one.id) for one in found], limit)


@router.get("/{rejected_id}", response_model=SeenRejected)
async def get_rejected(
    rejected_id: Id, grant: Annotated[Grant, may("quarantine.read")], database: Db
) -> Response:
    """Return one refused payload whole."""
    return answer(_seen(await rejected_one(database, grant.scope, int(rejected_id))))


def _seen(one: Rejected) -> dict[str, Any]:
    return {
        "id": one.id,
        "received_at": one.received_at,
        "device_id": one.device_id,
        "kind": one.kind,
        "reason": one.reason,
        "size": one.size,
        "payload": one.payload.decode("utf-8", "replace"),
        "payload_base64": base64.b64encode(one.payload).decode(),
    }

"""Channels: which there are, what became of each notice, and what SMS providers report."""

import hmac
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from anxin.db import deliveries as stored
from anxin.db.deliveries import SeenDelivery
from anxin.errors import NotFound
from anxin.notify import aliyun_sms, tencent_sms
from anxin.notify.channel import Contact, Receipt
from anxin.notify.channels import open_channels
from anxin.notify.web_push import application_server_key
from api.answers import After, Limit, Page, answer, page, serial_after
from api.auth import Current, Grant, may
from api.fields import Id
from api.problems import Unusable
from api.services import Db, Shared

router = APIRouter(tags=["channels"])

Reporter = Literal["aliyun_sms", "tencent_sms"]
_READ: Final[dict[Reporter, Callable[[Any], list[tuple[str, bool]]]]] = {
    "aliyun_sms": aliyun_sms.read_reports,
    "tencent_sms": tencent_sms.read_reports,
}
_THANKS: Final[dict[Reporter, dict[str, object]]] = {
    "aliyun_sms": {"code": 0, "msg": "OK"},
    "tencent_sms": {"result": 0, "errmsg": "OK"},
}


class SeenChannel(BaseModel):
    """A channel; `missing` says which settings it still needs."""

    name: str
    receipts: list[Receipt]
    most_per_minute: int | None
    missing: str | None


class PushKey(BaseModel):
    """The `applicationServerKey` of Web Push, base64url; null where Web Push is not set up."""

    key: str | None


@router.get("/channels", response_model=list[SeenChannel])
async def list_channels(_: Current, shared: Shared) -> Response:
    """Return every channel, what it can tell of a notice, and what is missing to use it."""
    async with open_channels(shared.settings) as channels:
        seen = []
        for channel in channels.values():
            fault = channel.fault(Contact("")) or ""
            seen.append(
                {
                    "name": channel.name,
                    "receipts": sorted(channel.receipts),
                    "most_per_minute": channel.most_per_minute,
                    "missing": fault if fault.startswith("Set ANXIN_") else None,
                }
            )
    return answer(seen)


@router.get("/channels/web_push/key", response_model=PushKey)
async def get_push_key(_: Current, shared: Shared) -> Response:
    """Return the key with which a page subscribes its browser to notices."""
    settings = shared.settings
    key = application_server_key(settings.vapid_private_key) if settings.vapid_subject else None
    return answer({"key": key})


@router.get("/alarms/{alarm_id}/deliveries", response_model=Page[SeenDelivery])
async def list_deliveries(
    alarm_id: Id,
    grant: Annotated[Grant, may("timeline.read")],
    database: Db,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return every notice of an alarm, oldest first: to whom, by which way, and how far it came."""
    found = await stored.deliveries_of(
        database, grant.scope, int(alarm_id), after=serial_after(after) or 0, limit=limit + 1
    )
    return page(found, [int(one.id) for one in found], limit)


@router.post("/channels/{channel}/reports/{token}", status_code=HTTPStatus.OK)
async def take_reports(channel: Reporter, token: str, request: Request, shared: Shared) -> Response:
    """Take a provider's report of which messages arrived; the token is ANXIN_RECEIPT_TOKEN."""
    wanted = shared.settings.receipt_token
    if not wanted or not hmac.compare_digest(token.encode(), wanted.encode()):
        raise NotFound("There is no such route; /api/docs lists them.")
    try:
        body = msgspec.json.decode(await request.body())
    except msgspec.DecodeError as error:
        raise Unusable("The report is not JSON.") from error
    if reports := _READ[channel](body):
        await stored.note_reported(shared.door, channel, reports)
    return answer(_THANKS[channel])

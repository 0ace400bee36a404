"""Enrolment: staff makes a code, the device that shows it gets its id and secret, once."""

import secrets
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from time import monotonic
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, StringConstraints

from anxin import qr
from anxin.bucket import Buckets
from anxin.config import Address, Settings
from anxin.db import enrolments as stored
from anxin.db.devices import DeviceKind
from anxin.db.enrolments import Enrolment
from anxin.device_secret import new_secret
from anxin.enrolment import hash_code, label, new_code, read_code
from api.answers import After, Limit, Page, answer, page, serial_after
from api.auth import Grant, may
from api.devices import DeviceName
from api.fields import Body, DeviceId, Id, Text, number
from api.problems import TooMany, Unusable
from api.services import Db, Shared

router = APIRouter(tags=["devices"])

LIFETIME: Final = timedelta(hours=24)
ATTEMPTS: Final = Buckets(rate=1 / 6, burst=20)
"""Of one address: ten a minute, twenty at once. A box of new devices behind one router passes."""
ATTEMPTS_OF_ALL: Final = Buckets(rate=10, burst=200)


class NewEnrolment(Body):
    """What the device that shows the code will be; without `device_id` it may choose its id."""

    kind: DeviceKind
    name: DeviceName = ""
    place_id: Id | None = None
    resident_id: Id | None = None
    gateway_id: DeviceId | None = None
    device_id: DeviceId | None = None


class Code(BaseModel):
    """A code, shown this once: as text, as what its label says, and as a QR code (SVG)."""

    id: str
    code: str
    expires_at: datetime
    label: str
    svg: str


class Redemption(Body):
    """A code as it was typed or scanned, and how the device would like to be called."""

    code: Annotated[Text, StringConstraints(min_length=1, max_length=40)]
    id: DeviceId | None = None


class Enrolled(BaseModel):
    """What a new device needs, shown this once."""

    id: str
    secret: str
    mqtt: str


@router.post("/enrolments", response_model=Code, status_code=HTTPStatus.CREATED)
async def create_enrolment(
    body: NewEnrolment,
    request: Request,
    grant: Annotated[Grant, may("devices.write")],
    database: Db,
    shared: Shared,
) -> Response:
    """Make a code that lets one device in, once, within a day; it is shown this once."""
    code = new_code()
    values: dict[str, Any] = {
        **body.model_dump(),
        "place_id": number(body.place_id) or grant.user.place_id,
        "resident_id": number(body.resident_id),
        "code_hash": hash_code(read_code(code) or ""),
        "created_by": grant.user.user_id,
        "expires_at": datetime.now(UTC) + LIFETIME,
    }
    made = await stored.create_enrolment(database, grant.scope, values)
    address = shared.settings.public_url or f"{request.url.scheme}://{request.url.netloc}"
    says = label(f"{address.rstrip('/')}/api/v1/enrol", code)
    shown = {
        "id": made.id,
        "code": code,
        "expires_at": made.expires_at,
        "label": says,
        "svg": qr.svg(says),
    }
    return answer(shown, HTTPStatus.CREATED, {"cache-control": "no-store"})


@router.get("/enrolments", response_model=Page[Enrolment])
async def list_enrolments(
    grant: Annotated[Grant, may("devices.read")],
    database: Db,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return enrolments and what became of them, newest first; never their codes."""
    found = await stored.enrolments(
        database, grant.scope, before=serial_after(after), limit=limit + 1
    )
    return page(found, [int(one.id) for one in found], limit)


@router.delete("/enrolments/{enrolment_id}", status_code=HTTPStatus.NO_CONTENT)
async def withdraw_enrolment(
    enrolment_id: Id, grant: Annotated[Grant, may("devices.write")], database: Db
) -> Response:
    """Make a code worthless that was not used yet."""
    await stored.withdraw(database, grant.scope, int(enrolment_id))
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post("/enrol", response_model=Enrolled, status_code=HTTPStatus.CREATED)
async def enrol(body: Redemption, request: Request, shared: Shared) -> Response:
    """Give a device that shows a code its id, its secret and where to connect; needs no session."""
    now = monotonic()
    here = request.client.host if request.client else ""
    if not (ATTEMPTS.allows(here, now) and ATTEMPTS_OF_ALL.allows("", now)):
        raise TooMany
    plain = read_code(body.code)
    if plain is None:
        raise Unusable("The code has a typing error. It looks like 7K3M-9QXD-A2VT.")
    secret, salt, secret_hash = new_secret()
    device_id = await stored.redeem(
        shared.door,
        hash_code(plain),
        device_id=body.id,
        fallback_id=secrets.token_hex(6),
        salt=salt,
        secret_hash=secret_hash,
    )
    given = {
        "id": device_id,
        "secret": secret,
        "mqtt": mqtt_address(shared.settings, request.url.hostname or "localhost"),
    }
    return answer(given, HTTPStatus.CREATED, {"cache-control": "no-store"})


def mqtt_address(settings: Settings, host: str) -> str:
    """Return where devices connect: as it was set, else at the host by which we were reached."""
    if settings.public_mqtt:
        return settings.public_mqtt
    scheme, text = ("mqtts", settings.mqtts) if settings.mqtts else ("mqtt", settings.mqtt)
    port = Address.parse(text).port
    host = urlsplit(settings.public_url).hostname or host
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

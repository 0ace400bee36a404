"""Devices: enrolled with a secret, assigned to residents, sent commands, revoked."""

import secrets
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field, StringConstraints

from anxin.db import devices as stored
from anxin.db.assignments import assign
from anxin.db.commands import Command, commands, send_command
from anxin.db.devices import Device, DeviceKind
from anxin.device_secret import new_secret
from api.answers import After, Limit, Page, answer, page, serial_after
from api.auth import Grant, confirmed, may
from api.fields import Body, DeviceId, Id, JsonObject, Moment, Text, number
from api.problems import Unusable
from api.services import Db

router = APIRouter(prefix="/devices", tags=["devices"])

AHEAD = timedelta(minutes=2)
"""So far may the clock of a caller be ahead of ours."""

DeviceName = Annotated[Text, StringConstraints(strip_whitespace=True, max_length=200)]


class NewDevice(Body):
    """A device; without an id it is given one."""

    id: DeviceId | None = None
    kind: DeviceKind
    name: DeviceName = ""
    place_id: Id | None = None


class DeviceChange(Body):
    """The fields to change; `place_id` may become null for who sees everything.

    `gateway_id` names the gateway that the device speaks through, and that may speak for it.
    """

    kind: DeviceKind | None = None
    name: DeviceName | None = None
    place_id: Id | None = None
    gateway_id: DeviceId | None = None


class Secret(BaseModel):
    """The secret of a device, shown this once."""

    id: str
    secret: str


class Renewal(Body):
    """How long the old secret works beside the new one: until that is used, at most so long."""

    overlap_seconds: Annotated[int, Field(ge=0, le=7 * 86_400)] = 0


class NewAssignment(Body):
    """Who has the device from `since` on; null takes it from everybody."""

    resident_id: Id | None
    since: Moment | None = None


class NewCommand(Body):
    """A command in the device's own words."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    args: JsonObject = Field(default_factory=dict)


@router.get("", response_model=Page[Device])
async def list_devices(
    grant: Annotated[Grant, may("devices.read")],
    database: Db,
    resident_id: Id | None = None,
    place_id: Id | None = None,
    gateway_id: DeviceId | None = None,
    revoked: Annotated[bool, Query(description="Also the revoked ones.")] = False,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return devices with their assignment, last sign of life, and how they were last connected.

    `network` is loopback, private, public or other; `tls` the version, empty without; `quarantined`
    counts what was sent and could not be used, up to 100.
    """
    found = await stored.devices(
        database,
        grant.scope,
        resident_id=number(resident_id),
        place_id=number(place_id),
        gateway_id=gateway_id,
        revoked=revoked,
        after=serial_after(after) or 0,
        limit=limit + 1,
    )
    return page([one for _, one in found], [key for key, _ in found], limit)


@router.post("", response_model=Secret, status_code=HTTPStatus.CREATED)
async def create_device(
    body: NewDevice, grant: Annotated[Grant, may("devices.write")], database: Db
) -> Response:
    """Enrol a device, or a revoked one anew, and return its secret this once."""
    device_id = body.id or f"{body.kind}-{secrets.token_hex(6)}"
    secret, salt, secret_hash = new_secret()
    values: dict[str, Any] = {
        "id": device_id,
        "kind": body.kind,
        "name": body.name,
        "place_id": number(body.place_id) or grant.user.place_id,
        "salt": salt,
        "secret_hash": secret_hash,
    }
    await stored.enrol(database, grant.scope, values)
    return _secret(device_id, secret, HTTPStatus.CREATED)


@router.get("/{device_id}", response_model=Device)
async def get_device(
    device_id: DeviceId, grant: Annotated[Grant, may("devices.read")], database: Db
) -> Response:
    """Return one device."""
    return answer(await stored.device(database, grant.scope, device_id))


@router.patch("/{device_id}", response_model=Device)
async def change_device(
    device_id: DeviceId,
    body: DeviceChange,
    grant: Annotated[Grant, may("devices.write")],
    database: Db,
) -> Response:
    """Change kind, name, place or gateway of a device."""
    values: dict[str, Any] = body.model_dump(exclude_unset=True)
    if "place_id" in values:
        values["place_id"] = number(values["place_id"])
    await stored.change_device(database, grant.scope, device_id, values)
    return answer(await stored.device(database, grant.scope, device_id))


@router.delete("/{device_id}", status_code=HTTPStatus.NO_CONTENT)
async def revoke_device(
    device_id: DeviceId, grant: Annotated[Grant, may("devices.write")], database: Db
) -> Response:
    """Shut a device out and end its assignment; what it sent stays."""
    await stored.revoke(database, grant.scope, device_id)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post("/{device_id}/secret", response_model=Secret)
async def renew_secret(
    device_id: DeviceId,
    grant: Annotated[Grant, confirmed("devices.secrets")],
    database: Db,
    body: Renewal | None = None,
) -> Response:
    """Replace the secret and return the new one this once; the old one stops working.

    At once, or with `overlap_seconds` when the new one is used, at the latest after that time.
    """
    secret, salt, secret_hash = new_secret()
    await stored.renew_secret(
        database,
        grant.scope,
        device_id,
        salt=salt,
        secret_hash=secret_hash,
        overlap_seconds=body.overlap_seconds if body else 0,
    )
    return _secret(device_id, secret, HTTPStatus.OK)


@router.put("/{device_id}/assignment", response_model=Device)
async def assign_device(
    device_id: DeviceId,
    body: NewAssignment,
    grant: Annotated[Grant, may("devices.write")],
    database: Db,
) -> Response:
    """Give a device to a resident; with `since` in the past, stored readings change hands too."""
    now = datetime.now(UTC)
    since = min(body.since or now, now)
    if body.since is not None and body.since > now + AHEAD:
        raise Unusable("`since` lies in the future.")
    await assign(database, grant.scope, device_id, number(body.resident_id), since)
    return answer(await stored.device(database, grant.scope, device_id))


@router.post("/{device_id}/commands", response_model=Command, status_code=HTTPStatus.CREATED)
async def create_command(
    device_id: DeviceId,
    body: NewCommand,
    grant: Annotated[Grant, may("devices.write")],
    database: Db,
) -> Response:
    """Queue a command; it is delivered when the device is connected."""
    made = await send_command(
        database,
        grant.scope,
        device_id,
        name=body.name,
        args=body.args,
        user_id=grant.user.user_id,
    )
    return answer(made, HTTPStatus.CREATED)


@router.get("/{device_id}/commands", response_model=Page[Command])
async def list_commands(
    device_id: DeviceId,
    grant: Annotated[Grant, may("devices.read")],
    database: Db,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return the commands of a device and what became of them, newest first."""
    found = await commands(
        database, grant.scope, device_id, before=serial_after(after), limit=limit + 1
    )
    return page(found, [int(one.id) for one in found], limit)


def _secret(device_id: str, secret: str, status: HTTPStatus) -> Response:
    return answer({"id": device_id, "secret": secret}, status, {"cache-control": "no-store"})

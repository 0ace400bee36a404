"""Devices: enrolled with a secret, changed, revoked. History outlives the device."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from anxin.db.pool import Connection, Database, blocks
from anxin.db.scope import Scope
from anxin.db.silence import Monitoring
from anxin.errors import Conflict, NotFound

DeviceKind = Literal[
    "bed_sensor", "wearable", "call_button", "cuff", "thermometer", "scale", "oximeter", "radar",
    "smoke", "door", "gateway", "other",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Device:
    """One device, with whom it is assigned to now and when it was last heard."""

    id: str
    kind: DeviceKind
    name: str
    place_id: str | None
    resident_id: str | None
    assigned_since: datetime | None
    online: bool | None
    heard_at: datetime | None
    battery: float | None
    rssi: float | None
    firmware: str | None
    connected_at: datetime | None
    network: str | None
    tls: str | None
    certificate_until: datetime | None
    quarantined: int
    overlap_until: datetime | None
    gateway_id: str | None
    monitoring: Monitoring
    revoked_at: datetime | None
    created_at: datetime


async def devices(
    database: Database,
    scope: Scope,
    *,
    resident_id: int | None,
    place_id: int | None,
    gateway_id: str | None,
    revoked: bool,
    after: int,
    limit: int,
) -> list[tuple[int, Device]]:
    """Return devices with their keys, by key; revoked ones only when asked for."""
    rows = await database.fetch(
        blocks("devices")["list"],
        {
            **scope.parameters(),
            "resident_id": resident_id,
            "place_id": place_id,
            "gateway_id": gateway_id,
            "revoked": revoked,
            "after": after,
            "limit": limit,
        },
    )
    return [(row.pop("key"), Device(**row)) for row in rows]


async def device(database: Database, scope: Scope, device_id: str) -> Device:
    """Return one device; raise NotFound."""
    row = await database.fetch_one(
        blocks("devices")["get"], {**scope.parameters(), "id": device_id}
    )
    if row is None:
        raise missing(device_id)
    del row["key"]
    return Device(**row)


async def enrol(database: Database, scope: Scope, values: dict[str, Any]) -> None:
    """Add a device, or enrol a revoked one anew.

    Raise Conflict when the id is taken, NotFound when the place is not there.
    """
    sql = blocks("devices")
    place_id = values["place_id"]
    parameters = {**scope.parameters(), **values}
    async with database.transaction() as connection:
        await check_place(connection, scope, place_id)
        for way in ("enrol", "enrol_anew"):
            if (await connection.execute(sql[way], parameters)).rowcount:
                return
    raise Conflict(f"The device id {values['id']} is taken. Choose another one.")


async def change_device(
    database: Database, scope: Scope, device_id: str, values: dict[str, Any]
) -> None:
    """Change kind, name, place or gateway; raise NotFound for a device or place, or Conflict."""
    async with database.transaction() as connection:
        key = await lock(connection, scope, device_id)
        gateway_key = await gateway(connection, scope, device_id, values.get("gateway_id"))
        if "place_id" in values:
            await check_place(connection, scope, values["place_id"])
        parameters = dict.fromkeys(("kind", "name", "place_id")) | values
        await connection.execute(
            blocks("devices")["change"],
            {**parameters, "gateway_key": gateway_key, "given": list(values), "key": key},
        )


async def check_place(connection: Connection, scope: Scope, place_id: int | None) -> None:
    """Raise NotFound when a device may not be put there: only who sees all needs no place."""
    if place_id is None:
        if scope.path != "/":
            raise NotFound("A device of yours needs a place_id.")
        return
    place = await connection.execute(
        blocks("places")["get"], {**scope.parameters(), "id": place_id}
    )
    if await place.fetchone() is None:
        raise NotFound(f"There is no place {place_id}, or you may not see it.")


async def gateway(
    connection: Connection, scope: Scope, device_id: str | None, gateway_id: str | None
) -> int | None:
    """Return the key of a gateway; raise NotFound, or Conflict when it cannot be one."""
    if gateway_id is None:
        return None
    found = await connection.execute(
        blocks("devices")["get"], {**scope.parameters(), "id": gateway_id}
    )
    row = await found.fetchone()
    if row is None:
        raise missing(gateway_id)
    if row["kind"] != "gateway" or gateway_id == device_id:
        raise Conflict(f"Device {gateway_id} is no gateway that others can stand behind.")
    key: int = row["key"]
    return key


async def renew_secret(
    database: Database,
    scope: Scope,
    device_id: str,
    *,
    salt: bytes,
    secret_hash: bytes,
    overlap_seconds: int,
) -> None:
    """Replace the secret; raise NotFound, or Conflict when revoked.

    The old one works until the new one is used, at most so many seconds.
    """
    async with database.transaction() as connection:
        key = await lock(connection, scope, device_id)
        renewed = await connection.execute(
            blocks("devices")["renew"],
            {
                "key": key,
                "salt": salt,
                "secret_hash": secret_hash,
                "overlap_seconds": overlap_seconds,
            },
        )
        if renewed.rowcount == 0:
            raise Conflict(f"Device {device_id} was revoked. Enrol it anew with POST /devices.")


async def revoke(database: Database, scope: Scope, device_id: str) -> None:
    """Shut the device out and end its assignment; its history stays. Raise NotFound."""
    async with database.transaction() as connection:
        key = await lock(connection, scope, device_id)
        await connection.execute(blocks("devices")["revoke"], {"key": key})
        await connection.execute(blocks("assignments")["end"], {"key": key})


async def lock(connection: Connection, scope: Scope, device_id: str) -> int:
    """Return the key of a device and keep others from changing it; raise NotFound."""
    locked = await connection.execute(blocks("devices")["lock"], {"id": device_id})
    # Looked at after the lock: who may see it can have changed while we waited.
    seen = await connection.execute(
        blocks("devices")["get"], {**scope.parameters(), "id": device_id}
    )
    row = await locked.fetchone()
    if row is None or await seen.fetchone() is None:
        raise missing(device_id)
    key: int = row["key"]
    return key


def missing(device_id: str) -> NotFound:
    """Return the answer for a device that does not exist or may not be seen."""
    return NotFound(f"There is no device {device_id}, or you may not see it.")

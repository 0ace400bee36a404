"""Enrolments: codes with which a device makes itself known, once."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from anxin.db import devices
from anxin.db.devices import DeviceKind
from anxin.db.pool import Database, blocks
from anxin.db.residents import missing as no_resident
from anxin.db.scope import Scope
from anxin.errors import Conflict, NotFound


@dataclass(frozen=True, slots=True)
class Enrolment:
    """For what a code was made, and what became of it; the code itself is not kept."""

    id: str
    kind: DeviceKind
    name: str
    place_id: str | None
    resident_id: str | None
    device_id: str | None
    gateway_id: str | None
    created_at: datetime
    expires_at: datetime
    withdrawn_at: datetime | None
    used_at: datetime | None


async def create_enrolment(database: Database, scope: Scope, values: dict[str, Any]) -> Enrolment:
    """Keep a code that lets one device in; raise NotFound, or Conflict for a taken device id."""
    sql = blocks("enrolments")
    async with database.transaction() as connection:
        await devices.check_place(connection, scope, values["place_id"])
        gateway_key = await devices.gateway(connection, scope, None, values.pop("gateway_id"))
        if values["resident_id"] is not None:
            seen = await connection.execute(
                blocks("residents")["get"], {**scope.parameters(), "id": values["resident_id"]}
            )
            if await seen.fetchone() is None:
                raise no_resident(values["resident_id"])
        made = await connection.execute(sql["create"], {**values, "gateway_key": gateway_key})
        row = await made.fetchone()
        assert row is not None  # noqa: S101  an INSERT without a condition returns its row
        found = await connection.execute(sql["get"], {**scope.parameters(), "id": row["id"]})
        return _enrolment(await found.fetchone() or {})


async def enrolments(
    database: Database, scope: Scope, *, before: int | None, limit: int
) -> list[Enrolment]:
    """Return enrolments, newest first."""
    rows = await database.fetch(
        blocks("enrolments")["list"], {**scope.parameters(), "before": before, "limit": limit}
    )
    return [_enrolment(row) for row in rows]


async def withdraw(database: Database, scope: Scope, enrolment_id: int) -> None:
    """Make a code worthless; raise NotFound when there is none that could still be used."""
    done = await database.execute(
        blocks("enrolments")["withdraw"], {**scope.parameters(), "id": enrolment_id}
    )
    if not done:
        raise NotFound(f"There is no enrolment {enrolment_id} that could still be used.")


async def redeem(
    database: Database,
    code_hash: bytes,
    *,
    device_id: str | None,
    fallback_id: str,
    salt: bytes,
    secret_hash: bytes,
) -> str:
    """Use a code up and return the id of the device it made; raise NotFound, or Conflict."""
    row = await database.fetch_one(
        blocks("enrolments")["redeem"],
        {
            "code_hash": code_hash,
            "device_id": device_id,
            "fallback_id": fallback_id,
            "salt": salt,
            "secret_hash": secret_hash,
        },
    )
    made = row and row["device_id"]
    if made is None:
        raise NotFound("This code is not known, or was used, or its time is over. Ask for another.")
    if not made:
        raise Conflict("This device id is taken. The code can still be used with another id.")
    return str(made)


def _enrolment(row: dict[str, Any]) -> Enrolment:
    return Enrolment(**{**row, "id": str(row["id"])})

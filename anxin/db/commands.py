"""Commands to devices: queued here, delivered and answered through ingest."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from anxin.db import devices
from anxin.db.pool import Database, blocks
from anxin.db.scope import Scope
from anxin.errors import Conflict


@dataclass(frozen=True, slots=True)
class Command:
    """One command and what became of it; `ok` is the device's own answer."""

    id: str
    name: str
    args: dict[str, Any]
    created_at: datetime
    delivered_at: datetime | None
    ok: bool | None
    result: Any
    finished_at: datetime | None


async def send_command(
    database: Database,
    scope: Scope,
    device_id: str,
    *,
    name: str,
    args: dict[str, Any],
    user_id: int,
) -> Command:
    """Queue a command for a device; raise NotFound, or Conflict when the device was revoked."""
    async with database.transaction() as connection:
        key = await devices.lock(connection, scope, device_id)
        seen = await connection.execute(
            blocks("devices")["get"], {**scope.parameters(), "id": device_id}
        )
        row = await seen.fetchone()
        if row is None or row["revoked_at"] is not None:
            raise Conflict(f"Device {device_id} was revoked. It takes no more commands.")
        parameters = {"key": key, "name": name, "args": Jsonb(args), "user_id": user_id}
        created = await connection.execute(blocks("commands")["create"], parameters)
        command = await created.fetchone()
        if command is None:
            raise devices.missing(device_id)
    return Command(**command)


async def commands(
    database: Database, scope: Scope, device_id: str, *, before: int | None, limit: int
) -> list[Command]:
    """Return the commands of a device, newest first; raise NotFound."""
    await devices.device(database, scope, device_id)
    rows = await database.fetch(
        blocks("commands")["list"], {"device_id": device_id, "before": before, "limit": limit}
    )
    return [Command(**row) for row in rows]

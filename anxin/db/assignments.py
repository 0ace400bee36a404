"""Who had which device when: a reading belongs to whoever had the device at its time."""

from datetime import datetime

from anxin.db import devices
from anxin.db.pool import Database, blocks
from anxin.db.residents import missing
from anxin.db.scope import Scope


async def assign(
    database: Database,
    scope: Scope,
    device_id: str,
    resident_id: int | None,
    since: datetime,
) -> None:
    """Give the device to a resident (None: to nobody) from `since` on.

    What was assigned after `since` is replaced, so readings already stored since then change hands
    too. To give it again to whoever has it changes nothing. Raise NotFound.
    """
    sql = blocks("assignments")
    async with database.transaction() as connection:
        key = await devices.lock(connection, scope, device_id)
        parameters = {"key": key, "resident_id": resident_id, "since": since}
        if resident_id is not None:
            seen = await connection.execute(
                blocks("residents")["get"], {**scope.parameters(), "id": resident_id}
            )
            if await seen.fetchone() is None:
                raise missing(resident_id)
            same = await connection.execute(sql["unchanged"], parameters)
            if await same.fetchone() is not None:
                return
        await connection.execute(sql["replace"], parameters)
        await connection.execute(sql["cut"], parameters)
        if resident_id is not None:
            await connection.execute(sql["begin"], parameters)

"""Erasure of a person: asked for by one, approved by another, carried out in steps that can stop.

begin    the key is destroyed, devices, consents and relatives are taken away, alarms end
person   some seconds later, when no service writes about this person any more, the rows go
slice    readings go week by week, then everything else that the person's devices left
sweep    for a month, what a device or a spool hands in late goes the same way
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from anxin.db.pool import Database, blocks
from anxin.db.scope import Scope
from anxin.errors import Conflict, NotFound

PAUSE_SECONDS: Final = 10
SWEEP_DAYS: Final = 30
"""Longer than a device may keep a reading that is still taken as its own, and than any spool."""
_SQL: Final = blocks("erasure")


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erasure as it is asked for, decided and done; `swept` counts rows by table."""

    id: str
    resident_id: str
    requested_at: datetime
    approved_at: datetime | None
    refused_at: datetime | None
    began_at: datetime | None
    finished_at: datetime | None
    swept: dict[str, int]
    requested_by: str | None
    approved_by: str | None


async def erasures(
    database: Database, scope: Scope, *, before: int | None, limit: int
) -> list[Erasure]:
    """Return erasures of the scope, newest first."""
    rows = await database.fetch(
        _SQL["list"], {"path": scope.path, "id": None, "before": before, "limit": limit}
    )
    return [Erasure(**row) for row in rows]


async def erasure(database: Database, scope: Scope, erasure_id: int) -> Erasure:
    """Return one erasure; raise NotFound."""
    row = await database.fetch_one(
        _SQL["list"], {"path": scope.path, "id": erasure_id, "before": None, "limit": 1}
    )
    if row is None:
        raise NotFound(f"There is no erasure {erasure_id}, or you may not see it.")
    return Erasure(**row)


async def request_erasure(
    database: Database, scope: Scope, resident_id: int, *, by: int
) -> Erasure:
    """Ask for a resident's erasure; raise NotFound, or Conflict when it was asked for before."""
    row = await database.fetch_one(
        _SQL["request"], {"path": scope.path, "resident_id": resident_id, "by": by}
    )
    if row is None:
        raise NotFound(f"There is no resident {resident_id}, or you may not see it.")
    return await erasure(database, scope, row["id"])


async def approve(database: Database, scope: Scope, erasure_id: int, *, by: int) -> Erasure:
    """Approve what somebody else has asked for; raise NotFound or Conflict."""
    await erasure(database, scope, erasure_id)
    if not await database.execute(_SQL["approve"], {"id": erasure_id, "by": by}):
        raise Conflict("It is decided already, or you asked for it: another one must approve it.")
    return await erasure(database, scope, erasure_id)


async def refuse(database: Database, scope: Scope, erasure_id: int) -> Erasure:
    """Refuse or take back what was asked for; raise NotFound or Conflict."""
    await erasure(database, scope, erasure_id)
    if not await database.execute(_SQL["refuse"], {"id": erasure_id}):
        raise Conflict("It is decided already.")
    return await erasure(database, scope, erasure_id)


async def decide(database: Database, resident_id: int) -> int:
    """Decide on an erasure as the operator of the machine; return its id; raise NotFound."""
    row = await database.fetch_one(_SQL["decide"], {"resident_id": resident_id})
    if row is None:
        raise NotFound(f"There is no resident {resident_id}.")
    return int(row["id"])


async def unfinished(database: Database, resident_id: int) -> int | None:
    """Return the id of an erasure that is decided and under way, if there is one."""
    row = await database.fetch_one(_SQL["unfinished"], {"resident_id": resident_id})
    return None if row is None else int(row["id"])


async def carry_on(
    database: Database, erasure_id: int | None = None, *, pause_seconds: float = PAUSE_SECONDS
) -> AsyncIterator[int]:
    """Take every step that is due, of one erasure or of all; yield how many rows each removed."""
    while True:
        due = await database.fetch(_SQL["due"], {"id": erasure_id, "pause": pause_seconds})
        if not due:
            return
        for one in due:
            row = await database.fetch_one(_SQL[one["step"]], {"id": one["id"]})
            yield int(row["done"]) if row else 0


async def finished(database: Database, erasure_id: int) -> dict[str, int] | None:
    """Return how many rows went by table, or None while it is not finished."""
    row = await database.fetch_one(_SQL["finished"], {"id": erasure_id})
    return row["swept"] if row and row["finished"] else None


async def sweep(database: Database) -> int:
    """Remove what came in late of people erased in the last month; return how many rows."""
    total = 0
    for one in await database.fetch(_SQL["lately"], {"days": SWEEP_DAYS}):
        while True:
            row = await database.fetch_one(_SQL["slice"], {"id": one["id"]})
            if not row or not row["done"]:
                break
            total += row["done"]
    return total

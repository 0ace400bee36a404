"""Quarantine: payloads that could not be used, each with its reason."""

from dataclasses import dataclass
from datetime import datetime

from anxin.db.pool import Database, blocks
from anxin.db.scope import Scope
from anxin.errors import NotFound

EXCERPT_BYTES = 1024
WHOLE_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Rejected:
    """A payload that was refused, as it came; `size` counts bytes before any shortening."""

    id: str
    received_at: datetime
    device_id: str
    kind: str
    reason: str
    size: int
    payload: bytes


async def rejected(
    database: Database, scope: Scope, *, device_id: str | None, before: int | None, limit: int
) -> list[Rejected]:
    """Return refused payloads, newest first, each shortened to its first KiB."""
    rows = await database.fetch(
        blocks("quarantine")["list"],
        {
            **scope.parameters(),
            "device_id": device_id,
            "before": before,
            "limit": limit,
            "id": None,
            "most": EXCERPT_BYTES,
        },
    )
    return [Rejected(**row) for row in rows]


async def rejected_one(database: Database, scope: Scope, rejected_id: int) -> Rejected:
    """Return one refused payload with all that was kept of it; raise NotFound."""
    row = await database.fetch_one(
        blocks("quarantine")["list"],
        {
            **scope.parameters(),
            "device_id": None,
            "before": None,
            "limit": 1,
            "id": rejected_id,
            "most": WHOLE_BYTES,
        },
    )
    if row is None:
        raise NotFound(f"There is no rejected payload {rejected_id}, or you may not see it.")
    return Rejected(**row)

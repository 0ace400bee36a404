"""Lists that are taken out, in slices: people and devices with the names of their places."""

from collections.abc import AsyncIterator
from typing import Any, Final

from anxin.db.pool import Database, blocks
from anxin.db.scope import Scope
from anxin.imports import Kind

_SQL: Final = blocks("exports")
_NUMBER: Final[dict[Kind, str]] = {"residents": "id", "devices": "key"}
SLICE: Final = 2_000


async def listed(
    database: Database, scope: Scope, kind: Kind, *, place_id: int | None
) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the people or devices of a scope by number, some thousand at a time."""
    after = 0
    while True:
        rows = await database.fetch(
            _SQL[kind],
            {**scope.parameters(), "place_id": place_id, "after": after, "limit": SLICE},
        )
        if rows:
            yield rows
        if len(rows) < SLICE:
            return
        after = rows[-1][_NUMBER[kind]]

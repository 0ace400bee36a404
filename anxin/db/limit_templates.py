"""Templates of limits, and setting them for many residents at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from psycopg.types.json import Jsonb

from anxin.db.places import place
from anxin.db.pool import Database, blocks
from anxin.db.residents import missing
from anxin.db.scope import Scope
from anxin.errors import NotFound

_SQL: Final = blocks("limit_templates")


@dataclass(frozen=True, slots=True)
class LimitTemplate:
    """Limits by a name; `place_id` None: for everywhere."""

    id: str
    place_id: str | None
    name: str
    limits: dict[str, float]


async def templates(
    database: Database, scope: Scope, *, after: int, limit: int
) -> list[LimitTemplate]:
    """Return the templates that hold for a scope, by id."""
    rows = await database.fetch(
        _SQL["list"], {**scope.parameters(), "after": after, "limit": limit}
    )
    return [LimitTemplate(**row) for row in rows]


async def create_template(
    database: Database, scope: Scope, *, place_id: int | None, name: str, limits: dict[str, float]
) -> LimitTemplate:
    """Add a template; raise NotFound for the place, Conflict for a name that is taken there."""
    if place_id is not None:
        await place(database, scope, place_id)
    row = await database.fetch_one(
        _SQL["create"], {"place_id": place_id, "name": name, "limits": Jsonb(limits)}
    )
    if row is None:
        raise _missing(0)
    return LimitTemplate(**row)


async def drop_template(database: Database, scope: Scope, template_id: int) -> None:
    """Remove a template of the own places; raise NotFound."""
    parameters = {**scope.parameters(), "id": template_id}
    if not await database.execute(_SQL["drop"], parameters):
        raise _missing(template_id)


async def apply_template(
    database: Database,
    scope: Scope,
    template_id: int,
    *,
    resident_ids: Sequence[int] | None,
    place_id: int | None,
) -> int:
    """Set a template's limits for residents, or for all of a place, and return of how many.

    All or none; raise NotFound for template, place or one of the residents.
    """
    if place_id is not None:
        await place(database, scope, place_id)
    parameters = {
        **scope.parameters(),
        "id": template_id,
        "ids": None if resident_ids is None else list(resident_ids),
        "place_id": place_id,
    }
    async with database.transaction() as connection:
        if await (await connection.execute(_SQL["get"], parameters)).fetchone() is None:
            raise _missing(template_id)
        rows = await (await connection.execute(_SQL["apply"], parameters)).fetchall()
        reached = {row["id"] for row in rows}
        if absent := set(resident_ids or ()) - reached:
            raise missing(min(absent))
    return sum(row["changed"] for row in rows)


def _missing(template_id: int) -> NotFound:
    return NotFound(f"There is no template {template_id}, or you may not see it.")

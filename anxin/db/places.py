"""Places: the tree from district to bed."""

from dataclasses import dataclass
from typing import Any, Literal

from anxin.db.pool import Database, blocks
from anxin.db.scope import Scope
from anxin.errors import NotFound

PlaceKind = Literal["district", "town", "village", "facility", "home", "room", "bed"]


@dataclass(frozen=True, slots=True)
class Place:
    """One place; a root has no parent. Relatives of who lives there or below call `phone`."""

    id: str
    parent_id: str | None
    kind: PlaceKind
    name: str
    phone: str | None


async def places(database: Database, scope: Scope, *, after: int, limit: int) -> list[Place]:
    """Return the places of a scope by id, from the one after `after`."""
    rows = await database.fetch(
        blocks("places")["list"], {**scope.parameters(), "after": after, "limit": limit}
    )
    return [Place(**row) for row in rows]


async def place(database: Database, scope: Scope, place_id: int) -> Place:
    """Return one place; raise NotFound."""
    row = await database.fetch_one(blocks("places")["get"], {**scope.parameters(), "id": place_id})
    if row is None:
        raise NotFound(f"There is no place {place_id}, or you may not see it.")
    return Place(**row)


async def create_place(
    database: Database,
    scope: Scope,
    *,
    parent_id: int | None,
    kind: PlaceKind,
    name: str,
    phone: str | None = None,
) -> Place:
    """Add a place below one of the scope (or a root, for who sees everything); raise NotFound."""
    row = await database.fetch_one(
        blocks("places")["create"],
        {
            **scope.parameters(),
            "parent_id": parent_id,
            "kind": kind,
            "name": name,
            "phone": phone,
        },
    )
    if row is None:
        raise NotFound(
            "You may add places only below your own: give parent_id."
            if parent_id is None
            else f"There is no place {parent_id}, or you may not see it."
        )
    return Place(**row)


async def change_place(
    database: Database, scope: Scope, place_id: int, values: dict[str, Any]
) -> Place:
    """Change the given fields of a place; raise NotFound."""
    row = await database.fetch_one(
        blocks("places")["change"],
        {**scope.parameters(), "name": None, "phone": None}
        | values
        | {
            "given": list(values),
            "id": place_id,
        },
    )
    if row is None:
        raise NotFound(f"There is no place {place_id}, or you may not see it.")
    return Place(**row)

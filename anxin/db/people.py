"""Who residents and their relatives are: numbers and names that only the data keys open."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID, uuid4

from anxin.db.pool import Connection, Database, blocks
from anxin.db.residents import missing, resident
from anxin.db.scope import Scope
from anxin.errors import NotFound
from anxin.seal import DataKeys, PersonKey, Place

_SQL: Final = blocks("people")
PURPOSES: Final = {
    ("identities", "id_card"): "resident.id_card",
    ("identities", "phone"): "resident.phone",
    ("relatives", "phone"): "relative.phone",
}
"""What each blind index is made for: equal values of two purposes cannot be told to be equal."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A resident's numbers, normalised, in full: for nobody's log."""

    id_card: str | None
    phone: str | None


@dataclass(frozen=True, slots=True)
class Relative:
    """Somebody who answers for a resident, in full: for nobody's log."""

    id: UUID
    relation: str
    guardian: bool
    name: str
    phone: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Found:
    """A resident who was found by a number, and whose number it is."""

    id: str
    name: str
    whose: Literal["resident", "relative"]


@dataclass(frozen=True, slots=True)
class KeyUse:
    """How many people's keys are wrapped and indexed with these keys."""

    master_id: str
    index_id: str
    people: int


async def identity(database: Database, scope: Scope, keys: DataKeys, resident_id: int) -> Identity:
    """Return a resident's numbers; raise NotFound, KeyUnknown or SealBroken."""
    await resident(database, scope, resident_id)
    async with database.transaction() as connection:
        row = await _row(connection, "identity", scope, resident_id)
        if row is None:
            return Identity(None, None)
        key = await _key(connection, scope, keys, resident_id)
    return Identity(
        *(_opened(key, row[column], "identities", column, str(resident_id))
          for column in ("id_card", "phone"))
    )  # fmt: skip


async def set_identity(
    database: Database,
    scope: Scope,
    keys: DataKeys,
    resident_id: int,
    values: Mapping[str, str | None],
) -> None:
    """Store `id_card` and `phone` as far as given (None removes one); raise NotFound."""
    await resident(database, scope, resident_id)
    async with database.transaction() as connection:
        key = await _key_for_writing(connection, scope, keys, resident_id)
        parameters: dict[str, Any] = {"id": resident_id, "given": list(values)}
        for column in ("id_card", "phone"):
            sealed, index = _sealed(
                key, keys, values.get(column), Place("identities", column, str(resident_id))
            )
            parameters |= {column: sealed, f"{column}_index": index}
        await connection.execute(_SQL["set_identity"], parameters)


async def relatives(
    database: Database, scope: Scope, keys: DataKeys, resident_id: int
) -> list[Relative]:
    """Return a resident's relatives; raise NotFound, KeyUnknown or SealBroken."""
    await resident(database, scope, resident_id)
    async with database.transaction() as connection:
        found = await connection.execute(
            _SQL["relatives"], {**scope.parameters(), "id": resident_id}
        )
        rows = await found.fetchall()
        key = await _key(connection, scope, keys, resident_id) if rows else None
    return [
        Relative(
            row["id"],
            row["relation"],
            row["guardian"],
            _opened(key, row["name"], "relatives", "name", str(row["id"])) or "",
            _opened(key, row["phone"], "relatives", "phone", str(row["id"])),
            row["created_at"],
        )
        for row in rows
    ]


async def add_relative(
    database: Database,
    scope: Scope,
    keys: DataKeys,
    resident_id: int,
    *,
    name: str,
    relation: str,
    phone: str | None,
    guardian: bool,
) -> Relative:
    """Add a relative; `phone` is normalised. Raise NotFound."""
    await resident(database, scope, resident_id)
    id_ = uuid4()
    async with database.transaction() as connection:
        key = await _key_for_writing(connection, scope, keys, resident_id)
        sealed, index = _sealed(key, keys, phone, Place("relatives", "phone", str(id_)))
        added = await connection.execute(
            _SQL["add_relative"],
            {
                "relative_id": id_,
                "id": resident_id,
                "relation": relation,
                "guardian": guardian,
                "name": key.seal(name, Place("relatives", "name", str(id_))),
                "phone": sealed,
                "phone_index": index,
            },
        )
        row = await added.fetchone()
    if row is None:
        raise missing(resident_id)
    return Relative(id_, relation, guardian, name, phone, row["created_at"])


async def remove_relative(
    database: Database, scope: Scope, resident_id: int, relative_id: UUID
) -> None:
    """Remove a relative; raise NotFound."""
    await resident(database, scope, resident_id)
    parameters = {"id": resident_id, "relative_id": relative_id}
    if not await database.execute(_SQL["remove_relative"], parameters):
        raise NotFound(f"There is no relative {relative_id} of this resident.")


async def find(
    database: Database,
    scope: Scope,
    keys: DataKeys,
    *,
    id_card: str | None,
    phone: str | None,
    limit: int,
) -> list[Found]:
    """Return the residents of a scope to whom or to whose relatives a normalised number belongs."""

    def indexes(table: str, column: str, value: str | None) -> list[bytes]:
        return keys.candidates(PURPOSES[table, column], value) if value else []

    rows = await database.fetch(
        _SQL["find"],
        {
            **scope.parameters(),
            "id_cards": indexes("identities", "id_card", id_card),
            "phones": indexes("identities", "phone", phone),
            "relative_phones": indexes("relatives", "phone", phone),
            "limit": limit,
        },
    )
    return [Found(**row) for row in rows]


async def key_uses(database: Database) -> list[KeyUse]:
    """Return how many people's keys depend on which data keys."""
    return [KeyUse(**row) for row in await database.fetch(_SQL["uses"])]


async def stale(database: Database, keys: DataKeys, *, after: int, limit: int) -> list[int]:
    """Return residents after an id whose key or indexes were not made with the newest keys."""
    rows = await database.fetch(
        _SQL["stale"],
        {
            "master_id": keys.newest_master,
            "index_id": keys.newest_index,
            "after": after,
            "limit": limit,
        },
    )
    return [row["resident_id"] for row in rows]


async def rewrap(database: Database, keys: DataKeys, resident_ids: Sequence[int]) -> int:
    """Wrap these people's keys, and make their indexes, with the newest keys; return how many.

    One transaction; raise KeyUnknown or SealBroken.
    """
    done = 0
    async with database.transaction() as connection:
        for resident_id in resident_ids:
            held = await connection.execute(_SQL["hold_key"], {"id": resident_id})
            row = await held.fetchone()
            if row is None:
                continue
            key = keys.unwrap(row["master_id"], row["id"], bytes(row["wrapped"]), resident_id)
            if row["index_id"] != keys.newest_index:
                await _index_anew(connection, keys, key, resident_id)
            master_id, wrapped = keys.wrap(key, resident_id)
            parameters = {
                "id": resident_id,
                "master_id": master_id,
                "index_id": keys.newest_index,
                "wrapped": wrapped,
            }
            done += (await connection.execute(_SQL["rewrap"], parameters)).rowcount
    return done


async def _index_anew(
    connection: Connection, keys: DataKeys, key: PersonKey, resident_id: int
) -> None:
    sealed = await connection.execute(_SQL["sealed"], {"id": resident_id})
    for row in await sealed.fetchall():
        place = Place(row["table_"], row["column_"], row["row_"])
        value = key.open(bytes(row["sealed"]), place)
        index = keys.index(PURPOSES[place.table, place.column], value)
        await connection.execute(
            _SQL[f"index_{place.table}_{place.column}"], {"index": index, "row": place.row}
        )


async def _row(
    connection: Connection, name: str, scope: Scope, resident_id: int
) -> dict[str, Any] | None:
    found = await connection.execute(_SQL[name], {**scope.parameters(), "id": resident_id})
    return await found.fetchone()


async def _key(
    connection: Connection, scope: Scope, keys: DataKeys, resident_id: int
) -> PersonKey | None:
    row = await _row(connection, "key", scope, resident_id)
    if row is None:
        return None
    return keys.unwrap(row["master_id"], row["id"], bytes(row["wrapped"]), resident_id)


async def _key_for_writing(
    connection: Connection, scope: Scope, keys: DataKeys, resident_id: int
) -> PersonKey:
    """Return the person's key, a fresh one if there is none yet."""
    known = await _key(connection, scope, keys, resident_id)
    if known is not None:
        return known
    fresh = PersonKey.new()
    master_id, wrapped = keys.wrap(fresh, resident_id)
    parameters = {
        "id": resident_id,
        "key_id": fresh.id,
        "master_id": master_id,
        "index_id": keys.newest_index,
        "wrapped": wrapped,
    }
    await connection.execute(_SQL["add_key"], parameters)
    key = await _key(connection, scope, keys, resident_id)
    if key is None:
        raise missing(resident_id)
    return key


def _sealed(
    key: PersonKey, keys: DataKeys, value: str | None, place: Place
) -> tuple[bytes | None, bytes | None]:
    """Return a value sealed for its place, and its blind index."""
    if value is None:
        return None, None
    return key.seal(value, place), keys.index(PURPOSES[place.table, place.column], value)


def _opened(
    key: PersonKey | None, sealed: bytes | None, table: str, column: str, row: str
) -> str | None:
    if sealed is None or key is None:
        return None
    return key.open(bytes(sealed), Place(table, column, row))

"""Users: who may log in, in which role, for which place."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import psycopg

from anxin.db.pool import Database, blocks
from anxin.db.scope import Scope
from anxin.errors import DatabaseUnavailable, NotFound
from anxin.passwords import hash_password

Role = Literal["admin", "supervisor", "nurse", "family", "integrator"]


@dataclass(frozen=True, slots=True)
class User:
    """A user, without anything secret."""

    id: str
    username: str
    role: Role
    place_id: str | None
    disabled_at: datetime | None = None


def ensure_user(
    dsn: str, username: str, password: str, role: Role, place_id: int | None = None
) -> bool:
    """Create the user unless the name is taken; return whether it was created. For first starts."""
    sql = blocks("users")
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as connection:
            # Hashing costs more than the look, and every start but the first finds the user.
            if connection.execute(sql["exists"], {"username": username}).fetchone():
                return False
            parameters = {
                "username": username,
                "password_hash": hash_password(password),
                "role": role,
                "place_id": place_id,
            }
            return connection.execute(sql["ensure"], parameters).rowcount == 1
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable from error


async def users(
    database: Database, scope: Scope, roles: Collection[Role], *, after: int, limit: int
) -> list[User]:
    """Return the users of these roles at the places of a scope, by id."""
    rows = await database.fetch(
        blocks("users")["list"],
        {**scope.parameters(), "roles": list(roles), "after": after, "limit": limit},
    )
    return [User(**row) for row in rows]


async def user(database: Database, scope: Scope, roles: Collection[Role], user_id: int) -> User:
    """Return a user of these roles at the places of a scope; raise NotFound."""
    row = await database.fetch_one(
        blocks("users")["get"], {**scope.parameters(), "roles": list(roles), "id": user_id}
    )
    if row is None:
        raise NotFound(f"There is no user {user_id}, or you may not see it.")
    return User(**row)


async def create_user(
    database: Database,
    scope: Scope,
    *,
    username: str,
    password_hash: str,
    role: Role,
    place_id: int | None,
) -> User:
    """Add a user at a place of the scope; raise Conflict for the name, NotFound for the place."""
    row = await database.fetch_one(
        blocks("users")["create"],
        {
            **scope.parameters(),
            "username": username,
            "password_hash": password_hash,
            "role": role,
            "place_id": place_id,
        },
    )
    if row is None:
        raise NotFound(f"There is no place {place_id}, or you may not see it.")
    return User(**row)


async def change_user(
    database: Database,
    scope: Scope,
    roles: Collection[Role],
    user_id: int,
    *,
    password_hash: str | None,
    disabled: bool | None,
) -> User:
    """Set a new password, disable or enable; either ends the user's sessions. Raise NotFound."""
    sql = blocks("users")
    parameters: dict[str, Any] = {**scope.parameters(), "roles": list(roles), "id": user_id}
    async with database.transaction() as connection:
        seen = await (await connection.execute(sql["get"], parameters)).fetchone()
        if seen is None:
            raise NotFound(f"There is no user {user_id}, or you may not see it.")
        if password_hash is not None:
            new = {"id": user_id, "password_hash": password_hash}
            await connection.execute(sql["set_password"], new)
        if disabled is not None:
            await connection.execute(sql["set_disabled"], {"id": user_id, "disabled": disabled})
        row = await (await connection.execute(sql["get"], parameters)).fetchone() or seen
        if password_hash is not None or disabled:
            await connection.execute(sql["end_sessions"], {"id": user_id})
    return User(**row)


async def reset_password(
    database: Database,
    scope: Scope,
    roles: Collection[Role],
    user_id: int,
    *,
    password_hash: str,
    expires_at: datetime,
) -> None:
    """Set a password that is good until then and only to set another; raise NotFound."""
    await user(database, scope, roles, user_id)
    new = {"id": user_id, "password_hash": password_hash, "expires_at": expires_at}
    async with database.transaction() as connection:
        await connection.execute(blocks("users")["set_one_time_password"], new)
        await connection.execute(blocks("users")["end_sessions"], {"id": user_id})


async def end_sessions(
    database: Database, scope: Scope, roles: Collection[Role], user_id: int
) -> None:
    """End every session of a user; raise NotFound."""
    await user(database, scope, roles, user_id)
    await database.execute(blocks("users")["end_sessions"], {"id": user_id})


async def end_factor(
    database: Database, scope: Scope, roles: Collection[Role], user_id: int
) -> None:
    """Take a second factor off a user and end the user's sessions; raise NotFound."""
    await user(database, scope, roles, user_id)
    async with database.transaction() as connection:
        gone = await connection.execute(blocks("users")["end_factor"], {"id": user_id})
        if not gone.rowcount:
            raise NotFound(f"The user {user_id} has no second factor.")
        await connection.execute(blocks("users")["end_sessions"], {"id": user_id})


async def rights(database: Database) -> list[str]:
    """Return every right that some role has."""
    return [row["right_"] for row in await database.fetch(blocks("users")["rights"])]

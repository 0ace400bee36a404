"""Identities at providers, whose they are, and logins that have gone to a provider."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from anxin.db.pool import Database, blocks
from anxin.db.scope import Scope
from anxin.db.users import Role
from anxin.errors import Conflict, NotFound

LIFETIME = timedelta(minutes=10)
MOST_PENDING = 100
"""So many logins may be away at a time that were begun from one address."""


@dataclass(frozen=True, slots=True)
class OutsideIdentity:
    """Who a user is at a provider."""

    id: str
    provider: str
    issuer: str
    subject: str
    linked_by: str | None
    linked_at: datetime
    used_at: datetime | None


@dataclass(frozen=True, slots=True)
class OutsideLogin:
    """A login that has come back from a provider, with what it left with."""

    browser_hash: bytes
    provider: str
    nonce: str
    verifier: str
    next: str
    session_id: int | None
    began_at: datetime
    valid: bool


async def begin_login(database: Database, **values: Any) -> bool:  # noqa: ANN401  # columns
    """Keep a login that goes to a provider; return False when too many from there are away."""
    made = await database.execute(
        blocks("identities")["begin"], {**values, "lifetime": LIFETIME, "most": MOST_PENDING}
    )
    return made == 1


async def take_login(database: Database, state_hash: bytes, now: datetime) -> OutsideLogin | None:
    """Use a login up and return it; None when there is none of this state any more."""
    row = await database.fetch_one(
        blocks("identities")["take"], {"state_hash": state_hash, "now": now}
    )
    return OutsideLogin(**row) if row else None


async def user_of(database: Database, issuer: str, subject: str) -> tuple[int, int] | None:
    """Return the ids of a linked identity and of its user, and note its use."""
    row = await database.fetch_one(
        blocks("identities")["find"], {"issuer": issuer, "subject": subject}
    )
    return (row["id"], row["user_id"]) if row else None


async def note_shown(database: Database, token_hash: bytes, shown_at: datetime) -> None:
    """Note when the user of a new session last proved who it is: at the provider, before it."""
    await database.execute(
        blocks("identities")["shown_at"], {"token_hash": token_hash, "shown_at": shown_at}
    )


async def session_hash(database: Database, session_id: int, user_id: int) -> bytes | None:
    """Return the token hash of a session if it is this user's and not over."""
    row = await database.fetch_one(
        blocks("identities")["session_hash"], {"session_id": session_id, "user_id": user_id}
    )
    return row["token_hash"] if row else None


async def identities_of(
    database: Database, scope: Scope, roles: Collection[Role], user_id: int
) -> list[OutsideIdentity]:
    """Return the identities of a user; raise NotFound."""
    async with database.transaction() as connection:
        await _check_user(connection, scope, roles, user_id)
        cursor = await connection.execute(blocks("identities")["list"], {"user_id": user_id})
        return [OutsideIdentity(**row) for row in await cursor.fetchall()]


async def link(
    database: Database,
    scope: Scope,
    roles: Collection[Role],
    values: dict[str, Any],
) -> OutsideIdentity:
    """Link an identity to a user; raise NotFound, or Conflict when it is somebody's already."""
    try:
        async with database.transaction() as connection:
            await _check_user(connection, scope, roles, values["user_id"])
            cursor = await connection.execute(blocks("identities")["link"], values)
            row = await cursor.fetchone()
    except Conflict as error:
        raise Conflict("This identity is linked already. Unlink it there first.") from error
    assert row is not None  # noqa: S101  an INSERT without a condition returns its row
    return OutsideIdentity(**row)


async def unlink(
    database: Database, scope: Scope, roles: Collection[Role], user_id: int, identity_id: int
) -> None:
    """Take an identity off a user, whose sessions end; raise NotFound."""
    async with database.transaction() as connection:
        await _check_user(connection, scope, roles, user_id)
        cursor = await connection.execute(
            blocks("identities")["unlink"], {"user_id": user_id, "id": identity_id}
        )
        row = await cursor.fetchone()
    if not row or not row["gone"]:
        raise NotFound(f"This user has no identity {identity_id}.")


async def _check_user(
    connection: Any,  # noqa: ANN401  # what a transaction lends
    scope: Scope,
    roles: Collection[Role],
    user_id: int,
) -> None:
    seen = await connection.execute(
        blocks("users")["get"], {**scope.parameters(), "roles": list(roles), "id": user_id}
    )
    if await seen.fetchone() is None:
        raise NotFound(f"There is no user {user_id}, or you may not see it.")

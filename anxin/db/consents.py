"""Consents: what an elder or the guardian allows, to whom, until when. History is only added to.

What a relative sees (`family_links`) follows from the consents in force, by a trigger.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from anxin.db.pool import Connection, Database, blocks
from anxin.db.residents import FamilyLink, resident
from anxin.db.scope import Scope
from anxin.errors import NotFound

Purpose = Literal["family", "care", "research"]
Giver = Literal["elder", "guardian", "unstated"]
How = Literal["paper", "in_person", "app", "unstated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A consent as somebody gave it; `relation` is what a guardian is to the elder."""

    purpose: Purpose
    user_id: int | None
    scopes: list[str]
    given_by: Giver = "unstated"
    relation: str | None = None
    how: How = "unstated"
    given_at: datetime | None = None
    until_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Consent:
    """A consent on record; `in_force` until its end or its withdrawal."""

    id: str
    purpose: Purpose
    user_id: str | None
    username: str | None
    scopes: list[str]
    given_by: Giver
    relation: str | None
    how: How
    given_at: datetime
    until_at: datetime | None
    withdrawn_at: datetime | None
    recorded_at: datetime
    recorded_by: str | None
    withdrawn_by: str | None
    in_force: bool


async def consents(
    database: Database, scope: Scope, resident_id: int, *, before: int | None, limit: int
) -> list[Consent]:
    """Return the consents of a resident, newest first; raise NotFound."""
    await resident(database, scope, resident_id)
    rows = await database.fetch(
        blocks("consents")["list"],
        {
            **scope.parameters(),
            "resident_id": resident_id,
            "id": None,
            "before": before,
            "limit": limit,
        },
    )
    return [Consent(**row) for row in rows]


async def record_consent(
    database: Database, scope: Scope, resident_id: int, given: Given, *, by: int
) -> Consent:
    """Add a consent beside those that there are; raise NotFound."""
    await resident(database, scope, resident_id)
    if given.user_id is not None:
        await _relative(database, scope, given.user_id)
    async with database.transaction() as connection:
        id_ = await _record(connection, resident_id, given, by)
        found = await connection.execute(
            blocks("consents")["list"],
            {
                **scope.parameters(),
                "resident_id": resident_id,
                "id": id_,
                "before": None,
                "limit": 1,
            },
        )
        row = await found.fetchone()
    assert row is not None  # noqa: S101  written in this transaction, by who sees the resident
    return Consent(**row)


async def withdraw_consent(
    database: Database, scope: Scope, resident_id: int, consent_id: int, *, by: int
) -> None:
    """Withdraw a consent at once; raise NotFound when there is none in force of this id."""
    await resident(database, scope, resident_id)
    parameters = {"resident_id": resident_id, "id": consent_id, "by": by}
    if not await database.execute(blocks("consents")["withdraw"], parameters):
        raise NotFound(f"There is no consent {consent_id} of this resident in force.")


async def link_family(
    database: Database, scope: Scope, resident_id: int, given: Given, *, by: int
) -> FamilyLink:
    """Let a family user see these sides of a resident and no others: what held before is withdrawn.

    Raise NotFound.
    """
    await resident(database, scope, resident_id)
    user_id = given.user_id or 0
    await _relative(database, scope, user_id)
    sql = blocks("consents")
    parameters = {"resident_id": resident_id, "user_id": user_id, "by": by}
    async with database.transaction() as connection:
        await connection.execute(sql["withdraw_family"], parameters)
        await _record(connection, resident_id, given, by)
        found = await connection.execute(sql["family"], parameters)
        row = await found.fetchone()
    assert row is not None  # noqa: S101  it follows from the consent written just now
    return FamilyLink(**row)


async def unlink_family(
    database: Database, scope: Scope, resident_id: int, *, user_id: int, by: int
) -> None:
    """Withdraw all that a relative may see; raise NotFound when that was nothing."""
    await resident(database, scope, resident_id)
    parameters = {"resident_id": resident_id, "user_id": user_id, "by": by}
    if not await database.execute(blocks("consents")["withdraw_family"], parameters):
        raise NotFound(f"User {user_id} is not linked to this resident.")


async def family(database: Database, scope: Scope, resident_id: int) -> list[FamilyLink]:
    """Return who may see what of a resident now; raise NotFound."""
    await resident(database, scope, resident_id)
    rows = await database.fetch(
        blocks("consents")["family"], {"resident_id": resident_id, "user_id": None}
    )
    return [FamilyLink(**row) for row in rows]


async def _relative(database: Database, scope: Scope, user_id: int) -> None:
    """Raise NotFound unless this is a family user of the scope."""
    user = await database.fetch_one(
        blocks("users")["get"], {**scope.parameters(), "id": user_id, "roles": ["family"]}
    )
    if user is None:
        raise NotFound(f"There is no user {user_id} of the role family, or you may not see it.")


async def _record(connection: Connection, resident_id: int, given: Given, by: int) -> int:
    recorded = await connection.execute(
        blocks("consents")["record"],
        {
            "resident_id": resident_id,
            "purpose": given.purpose,
            "user_id": given.user_id,
            "scopes": given.scopes,
            "given_by": given.given_by,
            "relation": given.relation,
            "how": given.how,
            "given_at": given.given_at,
            "until_at": given.until_at,
            "by": by,
        },
    )
    row = await recorded.fetchone()
    assert row is not None  # noqa: S101  INSERT ... RETURNING gives a row or raises
    return int(row["id"])

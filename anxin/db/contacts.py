"""Contacts: how people and offices are reached, and whether that works."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from anxin.alarms import fault_subject
from anxin.db.pool import Database, blocks
from anxin.db.scope import Scope
from anxin.errors import NotFound

Office = Literal["robot", "rescue_point", "rescue_centre", "supervisor"]
MOST_FAILURES: Final = 5
MOST_FAILING_SECONDS: Final = 300.0
"""A way that fails more often, or for longer, is dead: that is an alarm of its own."""


@dataclass(frozen=True, slots=True)
class SeenContact:
    """A contact as it is shown: whether it has a secret, never which."""

    id: str
    user_id: str | None
    username: str | None
    place_id: str | None
    office: Office | None
    channel: str
    address: str
    has_secret: bool
    enabled: bool
    failures: int
    failing_since: datetime | None
    last_ok_at: datetime | None
    last_error: str | None
    created_at: datetime


async def contacts(
    database: Database,
    scope: Scope,
    self_id: int,
    *,
    user_id: int | None,
    place_id: int | None,
    after: int,
    limit: int,
) -> list[SeenContact]:
    """Return a user's own contacts and those of the scope's places and people, by id."""
    rows = await database.fetch(
        blocks("contacts")["list"],
        {
            "path": scope.path,
            "self": self_id,
            "user_id": user_id,
            "place_id": place_id,
            "after": after,
            "limit": limit,
        },
    )
    return [SeenContact(**row) for row in rows]


async def contact(database: Database, scope: Scope, self_id: int, contact_id: int) -> SeenContact:
    """Return one contact; raise NotFound."""
    row = await database.fetch_one(
        blocks("contacts")["get"], {"path": scope.path, "self": self_id, "id": contact_id}
    )
    if row is None:
        raise NotFound(f"There is no contact {contact_id}, or you may not see it.")
    return SeenContact(**row)


async def secret_of(database: Database, contact_id: int) -> str:
    """Return the secret of a contact, for sending."""
    row = await database.fetch_one(blocks("contacts")["secret"], {"id": contact_id})
    return row["secret"] if row else ""


async def create_contact(
    database: Database,
    scope: Scope,
    self_id: int,
    *,
    user_id: int | None,
    place_id: int | None,
    office: Office | None,
    channel: str,
    address: str,
    secret: str,
    enabled: bool,
) -> SeenContact:
    """Add a contact of oneself, or of a place or person of the scope; raise NotFound."""
    row = await database.fetch_one(
        blocks("contacts")["create"],
        {
            "path": scope.path,
            "self": self_id,
            "user_id": user_id,
            "place_id": place_id,
            "office": office,
            "channel": channel,
            "address": address,
            "secret": secret,
            "enabled": enabled,
        },
    )
    if row is None:
        raise NotFound("There is no such user or place, or it is not yours to reach.")
    return await contact(database, scope, self_id, row["id"])


async def change_contact(
    database: Database,
    scope: Scope,
    self_id: int,
    contact_id: int,
    *,
    address: str | None,
    secret: str | None,
    enabled: bool | None,
) -> SeenContact:
    """Change a contact; another address or secret begins without failures. Raise NotFound."""
    await contact(database, scope, self_id, contact_id)
    await database.execute(
        blocks("contacts")["change"],
        {
            "id": contact_id,
            "address": address,
            "secret": secret,
            "enabled": enabled,
            "anew": address is not None or secret is not None,
        },
    )
    return await contact(database, scope, self_id, contact_id)


async def delete_contact(database: Database, scope: Scope, self_id: int, contact_id: int) -> None:
    """Remove a contact; raise NotFound."""
    await contact(database, scope, self_id, contact_id)
    await database.execute(blocks("contacts")["delete"], {"id": contact_id})


async def note_worked(database: Database, contact_id: int) -> None:
    """Note that a contact was reached; with the last dead one of its place and channel their alarm
    recovers.
    """
    sql = blocks("contacts")
    async with database.transaction() as connection:
        row = await (await connection.execute(sql["worked"], {"id": contact_id})).fetchone()
        if row is not None and row["place_id"] is not None:
            subject = fault_subject(row["place_id"], "channel_failing", row["channel"])
            await connection.execute(sql["recover"], {**row, "subject": subject})


async def note_broke(database: Database, contact_id: int, error: str) -> bool:
    """Note a failure; return whether the contact counts as dead from now on, which raises an alarm.

    A contact of somebody without a place is only shown as failing: no station answers for it.
    """
    sql = blocks("contacts")
    parameters = {
        "id": contact_id,
        "error": error,
        "most_failures": MOST_FAILURES,
        "most_seconds": MOST_FAILING_SECONDS,
    }
    async with database.transaction() as connection:
        row = await (await connection.execute(sql["broke"], parameters)).fetchone()
        if row is None or not row["dies"] or row["place_id"] is None:
            return False
        detail = {
            "reason": "channel_failing",
            "channel": row["channel"],
            "contact_ids": [*row["dead"], row["id"]],
        }
        await connection.execute(
            sql["alarm"],
            {
                "id": contact_id,
                "place_id": row["place_id"],
                "subject": fault_subject(row["place_id"], "channel_failing", row["channel"]),
                "since": row["failing_since"],
                "detail": json.dumps(detail),
            },
        )
    return True

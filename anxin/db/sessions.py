"""Sessions, single-use stream tickets, failed logins. Of a token only the hash is kept."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from anxin.db.pool import Database, blocks
from anxin.db.users import Role

TICKET_LIFETIME = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Authority:
    """On whose behalf a request acts, and what that user may reach now.

    `path` is the prefix of the places of staff; `links` what a family user may see of whom.
    """

    session_id: int
    confirmed_at: datetime = field(compare=False)
    """When its password was last shown."""
    token_hash: bytes
    expires_at: datetime = field(compare=False)
    """Moves on with use, so it makes nobody another."""
    user_id: int
    username: str
    role: Role
    place_id: int | None
    path: str | None
    links: dict[int, frozenset[str]]
    links_until: datetime | None
    """When the next consent among them runs out."""
    rights: frozenset[str]
    """What its role may do at all; the scope says on whom."""


def hash_token(token: str) -> bytes:
    """Return what is stored in place of a token: it has 256 random bits, so one round is enough."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


@dataclass(frozen=True, slots=True)
class OwnSession:
    """A session as its user sees it; `current` is the one that asks."""

    id: str
    created_at: datetime
    used_at: datetime
    expires_at: datetime
    address: str
    device: str
    current: bool


async def create_session(
    database: Database,
    user_id: int,
    token_hash: bytes,
    *,
    idle: timedelta,
    ends_at: datetime,
    address: str,
    device: str,
) -> None:
    """Start a session that ends unused, or at the latest then; forget those that have run out."""
    await database.execute(
        blocks("sessions")["create"],
        {
            "token_hash": token_hash,
            "user_id": user_id,
            "idle": idle,
            "ends_at": ends_at,
            "address": address,
            "device": device,
        },
    )


async def sessions_of(database: Database, user_id: int, current: int) -> list[OwnSession]:
    """Return the sessions of a user, the one used last first."""
    rows = await database.fetch(
        blocks("sessions")["list"], {"user_id": user_id, "current": current}
    )
    return [OwnSession(**row) for row in rows]


async def end_own(database: Database, user_id: int, current: int, one: int | None) -> int:
    """End one session of a user, or all but the current one; return how many ended."""
    row = await database.fetch_one(
        blocks("sessions")["end_own"], {"user_id": user_id, "current": current, "id": one}
    )
    return int(row["ended"]) if row else 0


async def confirm(database: Database, token_hash: bytes) -> None:
    """Note that the user of a session has shown its password again."""
    await database.execute(blocks("sessions")["confirm"], {"token_hash": token_hash})


async def authorities(database: Database, hashes: Sequence[bytes]) -> dict[bytes, Authority]:
    """Return what each session may do now; ended, expired and disabled ones are left out."""
    rows = await database.fetch(blocks("sessions")["authorities"], {"hashes": list(hashes)})
    for row in rows:
        row["links"] = {int(key): frozenset(scopes) for key, scopes in row["links"].items()}
        row["rights"] = frozenset(row["rights"])
    return {row["token_hash"]: Authority(**row) for row in rows}


async def end_session(database: Database, token_hash: bytes) -> None:
    """End a session at once; its tickets go with it."""
    await database.execute(blocks("sessions")["end"], {"token_hash": token_hash})


async def note_attempt(database: Database, username: str, address: str) -> tuple[int, int]:
    """Note a login that may fail; return how many did in 15 minutes: from here, from anywhere."""
    row = await database.fetch_one(
        blocks("sessions")["note_attempt"], {"username": username, "address": address}
    )
    return (row["from_here"], row["from_anywhere"]) if row else (0, 0)


async def forgive_attempts(database: Database, username: str, address: str) -> None:
    """Forget the failed logins of a user who has now shown the right password from here."""
    await database.execute(
        blocks("sessions")["forgive_attempts"], {"username": username, "address": address}
    )


async def create_ticket(database: Database, ticket_hash: bytes, session_hash: bytes) -> None:
    """Keep a ticket that opens one stream on behalf of a session."""
    await database.execute(
        blocks("sessions")["create_ticket"],
        {"token_hash": ticket_hash, "session_hash": session_hash, "lifetime": TICKET_LIFETIME},
    )


async def take_ticket(database: Database, ticket_hash: bytes) -> bytes | None:
    """Use a ticket up and return the session behind it; None when it is used, late or unknown."""
    row = await database.fetch_one(blocks("sessions")["take_ticket"], {"token_hash": ticket_hash})
    return row["session_hash"] if row and row["valid"] else None

"""Sessions, single-use stream tickets, failed logins. Of a token only the hash is kept."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from anxin.db.pool import Database, blocks
from anxin.db.users import Role

TICKET_LIFETIME = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Authority:
    """On whose behalf a request acts, and what that user may reach now.

    `path` is the prefix of the places of staff; `links` what a family user may see of whom.
    """

    token_hash: bytes
    expires_at: datetime
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


async def create_session(
    database: Database, user_id: int, token_hash: bytes, expires_at: datetime
) -> None:
    """Start a session, and forget those that have run out."""
    await database.execute(
        blocks("sessions")["create"],
        {"token_hash": token_hash, "user_id": user_id, "expires_at": expires_at},
    )


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

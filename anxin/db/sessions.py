"""Sessions and single-use stream tickets. Of a token only the hash is kept."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from anxin.db.pool import Database, blocks
from anxin.db.users import Role

Method = Literal["password", "oidc", "wecom"]
"""By what somebody has shown at the beginning of a session who it is."""
Lack = Literal["password", "second-factor"]
"""What is missing yet: a password of one's own choice, or a second factor."""

TICKET_LIFETIME = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Authority:
    """On whose behalf a request acts, and what that user may reach now.

    `path` is the prefix of the places of staff; `links` what a family user may see of whom.
    """

    session_id: int
    confirmed_at: datetime = field(compare=False)
    """When its user has last shown again who it is."""
    token_hash: bytes = field(compare=False)
    """Changes when its user shows again who it is, which makes nobody another."""
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
    method: Method
    limited: Lack | None
    """The only thing that this session may do, if something is missing yet."""
    second_factor: bool
    """Whether its user has one."""


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
    method: Method,
    needing: Collection[Role],
) -> None:
    """Start a session that ends unused, or at the latest then; forget those that have run out.

    `needing` are the roles that need a second factor.
    """
    await database.execute(
        blocks("sessions")["create"],
        {
            "token_hash": token_hash,
            "user_id": user_id,
            "idle": idle,
            "ends_at": ends_at,
            "address": address,
            "device": device,
            "method": method,
            "needing": list(needing),
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


async def renew(
    database: Database, token_hash: bytes, new: bytes, *, needing: Collection[Role]
) -> tuple[datetime, datetime] | None:
    """Give a session whose user has shown again who it is another token; the old one is void.

    What the session lacked is looked at anew. Return when it ends unused, and at the latest; None
    if it has ended.
    """
    parameters = {"token_hash": token_hash, "new": new, "needing": list(needing)}
    row = await database.fetch_one(blocks("sessions")["renew"], parameters)
    return (row["expires_at"], row["ends_at"] or row["expires_at"]) if row else None


async def limit(database: Database, user_id: int, *, needing: Collection[Role]) -> None:
    """Look anew at what the sessions of a user lack."""
    parameters = {"user_id": user_id, "needing": list(needing)}
    await database.execute(blocks("sessions")["limit"], parameters)


async def session(database: Database, token_hash: bytes) -> Authority | None:
    """Return a session, also one that lacks something yet; None if it is over."""
    return next(iter(await _authorities(database, [token_hash], [])), None)


async def authorities(database: Database, hashes: Sequence[bytes]) -> dict[bytes, Authority]:
    """Return what each session may do now; of those over or limited, nothing."""
    found = await _authorities(database, hashes, [])
    return {one.token_hash: one for one in found if one.limited is None}


async def authorities_again(database: Database, session_ids: Sequence[int]) -> dict[int, Authority]:
    """Return what each session may do now, whatever its token has become meanwhile."""
    found = await _authorities(database, [], session_ids)
    return {one.session_id: one for one in found if one.limited is None}


async def _authorities(
    database: Database, hashes: Sequence[bytes], ids: Sequence[int]
) -> list[Authority]:
    rows = await database.fetch(
        blocks("sessions")["authorities"], {"hashes": list(hashes), "ids": list(ids)}
    )
    for row in rows:
        row["links"] = {int(key): frozenset(scopes) for key, scopes in row["links"].items()}
        row["rights"] = frozenset(row["rights"])
    return [Authority(**row) for row in rows]


async def end_session(database: Database, token_hash: bytes) -> None:
    """End a session at once; its tickets go with it."""
    await database.execute(blocks("sessions")["end"], {"token_hash": token_hash})


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

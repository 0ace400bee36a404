"""The audit: entries noted, chained, verified, forgotten when they are old, and read."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
from psycopg.rows import DictRow

from anxin.audit import (
    START,
    Check,
    Checkpoint,
    Entry,
    Fault,
    Head,
    Link,
    Sealed,
    Signer,
    chain,
)
from anxin.db.migrate import connect
from anxin.db.pool import (
    STALLED_SECONDS,
    Connection,
    Database,
    as_role,
    blocks,
    broken_off,
    translated,
)
from anxin.db.pool import connect as connect_async
from anxin.db.scope import Scope
from anxin.errors import AnxinError, DatabaseUnavailable

AT_ONCE = 2000
PIECE = 500
"""Links that a patrol checks at a time."""
SHORTEST = timedelta(days=180)
"""The database lets nothing younger go, whatever the setting says."""

SEEING = frozenset({"read", "show"})
"""Actions that change nothing."""
READER = "anxin_worker"
"""Who reads the whole chain; an owner would be shown no row of it, and verify nothing."""
WRITER = "anxin_door"
RESTORE = ("restore", "audit")
"""Action and object of the entry that tells of a restore."""
_SQL = blocks("audit")


class ChainBroken(AnxinError):
    """The audit's chain does not end as it was left. Run `anxin audit verify`; nothing is added."""


class Noted(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody did or was shown, as it is handed in; the database adds number and time."""

    user_id: int | None = None
    role: str | None = None
    path: str | None = None
    action: str
    object: str
    object_id: str | None = None
    residents: tuple[int, ...] = ()
    fields: tuple[str, ...] = ()
    status: int | None = None
    channel: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class LogLine:
    """One entry as an administrator reads it; `place`: its number in the chain, or None before."""

    id: str
    at: datetime
    user_id: str | None
    username: str | None
    role: str | None
    action: str
    object: str
    object_id: str | None
    residents: list[str]
    fields: list[str]
    status: int | None
    channel: str | None
    address: str | None
    place: int | None


@dataclass(frozen=True, slots=True)
class AccessLine:
    """One entry about a resident: who, in what role, of what place, did or saw what."""

    id: int
    at: datetime
    name: str | None
    role: str | None
    place: str | None
    self: bool
    action: str
    object: str
    fields: list[str]
    channel: str | None


async def note(database: Database, entries: Sequence[Noted]) -> None:
    """Write entries, all or none; raise DatabaseUnavailable."""
    await database.fetch_one(_SQL["note"], {"entries": msgspec.json.encode(entries).decode()})


class Scribe:
    """A connection kept for writing entries, one way there and back each time; for one task."""

    def __init__(self, database: Database) -> None:
        """Write as the role of this handle; nothing connects yet."""
        self._dsn = database.dsn
        self._connection: Connection | None = None

    async def write(self, entries: Sequence[Noted]) -> None:
        """Commit entries, all or none; raise DatabaseUnavailable."""
        name = "note_seen" if all(one.action in SEEING for one in entries) else "note"
        query = _SQL[name], {"entries": msgspec.json.encode(entries).decode()}
        if self._connection is not None:
            try:
                await self._execute(*query)
            except DatabaseUnavailable:
                # It may only be that the server was restarted since. If it was written all the
                # same, it is told twice: better than not at all.
                await self.close()
            else:
                return
        self._connection = await connect_async(
            self._dsn, autocommit=True, application="anxin audit"
        )
        await self._execute(*query)

    async def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    async def _execute(self, query: bytes, parameters: dict[str, str]) -> None:
        assert self._connection is not None  # noqa: S101  just connected
        async with translated():
            with broken_off(self._connection, STALLED_SECONDS):
                await self._connection.execute(query, parameters)


class Chainer:
    """Chains what was committed; of several workers one at a time, each knows where it left off."""

    def __init__(self, signer: Signer, known: Sealed | None) -> None:
        """`known` is the last head that was kept outside the database."""
        self._signer = signer
        self._known = known

    @property
    def known(self) -> Sealed | None:
        """The last head that was sealed here, or kept outside the database."""
        return self._known

    async def chain(self, database: Database) -> Sealed | None:
        """Chain what waits; return the head, or None when another worker is at it.

        Raise ChainBroken when the chain is not as it was left: going on would cover that up.
        """
        while True:
            async with database.transaction() as connection:
                row = await _one(connection, "one_chainer")
                if not row or not row["mine"]:
                    return None
                head, seal = await self._head(connection)
                waiting = await _all(connection, "waiting", {"limit": AT_ONCE})
                links = chain(head, [_entry(one) for one in waiting], self._signer)
                if links:
                    await connection.execute(
                        _SQL["chain"],
                        {
                            "ids": [link.entry.id for link in links],
                            "places": [link.place for link in links],
                            "hashes": [link.hash for link in links],
                            "seal": links[-1].seal,
                        },
                    )
                    head, seal = Head(links[-1].place, links[-1].hash), links[-1].seal
                at = (await _one(connection, "clock"))["now"]
            if seal is not None:
                self._known = Sealed(at, head.place, head.hash, seal)
            if len(waiting) < AT_ONCE:
                return None if seal is None else self._known

    async def forget(self, database: Database, *, days: int) -> int:
        """Remove entries older than so many days, at least 180, and leave a sealed checkpoint."""
        async with database.transaction() as connection:
            row = await _one(connection, "one_chainer")
            if not row or not row["mine"]:
                return 0
            await self._head(connection)
            now = (await _one(connection, "clock"))["now"]
            until = now - max(timedelta(days=days), SHORTEST)
            found = await _all(connection, "oldest_head_until", {"until": until})
            if not found:
                return 0
            one = self._signer.seal_removal(Head(found[0]["place"], found[0]["hash"]), until)
            removed = await _one(
                connection, "forget", {"place": one.place, "until": until, "seal": one.seal}
            )
            return int(removed["removed"])

    async def _head(self, connection: Connection) -> tuple[Head, bytes | None]:
        """Return where the chain ends and its seal, having made sure that it is ours."""
        found = await _all(connection, "head", {})
        if found:
            row = found[0]
            head = Head(row["place"], bytes(row["hash"]))
            seal = row["seal"] and bytes(row["seal"])
            if seal is None or not self._signer.keys.vouch_for(head, seal):
                raise ChainBroken
        else:
            checkpoint = await _all(connection, "checkpoint", {})
            seal, head = None, START
            if checkpoint:
                one = _checkpoint(checkpoint[0])
                if not self._signer.keys.vouch_for_removal(one):
                    raise ChainBroken
                head = one.head
        known = self._known
        if known is not None and known.head != head:
            there = await _all(connection, "at_place", {"place": known.place})
            gone = known.place > head.place or (there and bytes(there[0]["hash"]) != known.hash)
            if gone:
                raise ChainBroken
        return head, seal


class Patrol:
    """Goes through the chain again and again, a piece at a time, for as long as a worker runs."""

    def __init__(self, signer: Signer) -> None:
        """Begin at the beginning."""
        self._keys = signer.keys
        self._check: Check | None = None

    async def go_on(self, database: Database, known: Sealed | None) -> bool | Fault:
        """Check the next piece; return the fault, or whether the whole chain was found good.

        `known` is the newest head that the chain must meet on its way.
        """
        async with database.transaction() as connection:
            if self._check is None:
                row = await _all(connection, "checkpoint", {})
                begin = _checkpoint(row[0]) if row else None
                self._check = Check(self._keys, begin, [known] if known else [])
            check, after = self._check, self._check.head.place
            rows = await _all(connection, "links", {"after": after, "upto": None, "limit": PIECE})
            # Asked after the links: what retention has taken before they were read shows here.
            row = await _all(connection, "checkpoint", {})
        if row and row[0]["place"] > after:
            self._check = None
            return False
        # Beside the loop: a carer who is to be called does not wait for this.
        await asyncio.to_thread(_take, check, rows)
        if check.fault is None and len(rows) == PIECE:
            return False
        self._check = None
        return check.finish() or True


def _take(check: Check, rows: Sequence[DictRow]) -> None:
    for one in rows:
        entry = _entry({name: one[name] for name in Entry.__struct_fields__})
        seal = one["seal"] and bytes(one["seal"])
        if not check.take(Link(one["place"], entry, bytes(one["hash"]), seal)):
            return


async def tell_broken(database: Database, fault: Fault | None) -> None:
    """Raise the alarm that the audit is not as it was left, at the top of every tree of places."""
    detail: dict[str, object] = {"reason": "audit_broken"}
    if fault is not None:
        detail |= {"deed": fault.deed, "place": fault.place}
    await database.fetch(_SQL["tell_broken"], {"detail": msgspec.json.encode(detail).decode()})


async def tell_whole(database: Database) -> None:
    """Recover that alarm."""
    await database.fetch(_SQL["tell_whole"])


def stored_checkpoint(dsn: str) -> Checkpoint | None:
    """Return the newest checkpoint, if anything was ever removed."""
    with closing(connect(as_role(dsn, READER))) as connection:
        row = connection.execute(_SQL["checkpoint"]).fetchone()
    if row is None:
        return None
    place, hash_, until, seal = row
    return msgspec.convert(
        {"place": place, "hash": hash_, "until": until, "seal": seal}, Checkpoint
    )


def note_restore(dsn: str, end: int, lost: int) -> None:
    """Write that the chain goes on after place `end`, and that all to place `lost` is lost."""
    action, object_ = RESTORE
    entry = Noted(action=action, object=object_, object_id=f"{end + 1}-{lost}", channel="database")
    with closing(connect(as_role(dsn, WRITER))) as connection:
        connection.execute(_SQL["note"], {"entries": msgspec.json.encode([entry]).decode()})


def stored_counts(dsn: str) -> tuple[int, int, datetime | None]:
    """Return how many entries are chained, how many wait since over five minutes, the newest."""
    with closing(connect(as_role(dsn, READER))) as connection:
        row = connection.execute(_SQL["counts"]).fetchone()
    assert row is not None  # noqa: S101  a query without FROM has one row
    links, stuck, newest = row
    return msgspec.convert((links, stuck, newest), tuple[int, int, datetime | None])


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the chain: what it follows, and its last place."""

    after: Head
    last: int


def stored_span(dsn: str, *, from_: datetime | None, to: datetime | None) -> Span:
    """Return the part of the chain that holds the entries of a time."""
    with closing(connect(as_role(dsn, READER))) as connection:
        row = connection.execute(_SQL["span"], {"from": from_, "to": to}).fetchone()
    assert row is not None  # noqa: S101  it has one row
    after, hash_, last = msgspec.convert(row, tuple[int, bytes | None, int | None])
    head = START if hash_ is None else Head(after, hash_)
    return Span(head, head.place if last is None else last)


def stored_links(dsn: str, *, after: int = 0, upto: int | None = None) -> Iterator[Link]:
    """Yield the chain in order, some thousand links in memory at a time."""
    with closing(connect(as_role(dsn, READER))) as connection:
        while True:
            cursor = connection.execute(
                _SQL["links"], {"after": after, "upto": upto, "limit": AT_ONCE}
            )
            rows = cursor.fetchall()
            for row in rows:
                place, hash_, seal, *content = row
                entry = msgspec.convert(
                    dict(zip(Entry.__struct_fields__, content, strict=True)), Entry
                )
                yield msgspec.convert(
                    {"place": place, "entry": entry, "hash": hash_, "seal": seal}, Link
                )
            if len(rows) < AT_ONCE:
                return
            after = msgspec.convert(rows[-1][0], int)


async def entries(
    database: Database,
    scope: Scope,
    *,
    user_id: int | None,
    resident_id: int | None,
    action: str | None,
    object_: str | None,
    begins: datetime | None,
    ends: datetime | None,
    before: int | None,
    limit: int,
) -> list[LogLine]:
    """Return entries by who works under the scope, newest first."""
    rows = await database.fetch(
        _SQL["log"],
        {
            **scope.parameters(),
            "user_id": user_id,
            "resident_id": resident_id,
            "action": action,
            "object": object_,
            "from": begins,
            "to": ends,
            "before": before,
            "limit": limit,
        },
    )
    for row in rows:
        row["id"] = str(row["id"])
        row["user_id"] = None if row["user_id"] is None else str(row["user_id"])
        row["residents"] = [str(one) for one in row["residents"]]
    return [LogLine(**row) for row in rows]


async def access_to(
    database: Database,
    resident_id: int,
    *,
    begins: datetime,
    ends: datetime,
    before: int | None,
    limit: int,
) -> list[AccessLine]:
    """Return who did or saw what of a resident, newest first; the database asks who may know."""
    rows = await database.fetch(
        _SQL["access"],
        {
            "resident_id": resident_id,
            "from": begins,
            "to": ends,
            "before": before,
            "limit": limit,
        },
    )
    return [AccessLine(**row) for row in rows]


def _entry(row: DictRow) -> Entry:
    return Entry(**row | {"residents": tuple(row["residents"]), "fields": tuple(row["fields"])})


def _checkpoint(row: DictRow) -> Checkpoint:
    return Checkpoint(row["place"], bytes(row["hash"]), row["until"], bytes(row["seal"]))


async def _all(connection: Connection, name: str, parameters: dict[str, Any]) -> list[DictRow]:
    return await (await connection.execute(_SQL[name], parameters)).fetchall()


async def _one(
    connection: Connection, name: str, parameters: dict[str, Any] | None = None
) -> DictRow:
    row = await (await connection.execute(_SQL[name], parameters)).fetchone()
    assert row is not None  # noqa: S101  these queries have one row each
    return row

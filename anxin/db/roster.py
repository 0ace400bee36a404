"""Shifts and ladders: who is on duty where, and in which order people are told."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from anxin.db.pool import Connection, Database, blocks
from anxin.db.scope import Scope
from anxin.errors import AnxinError, NotFound
from anxin.escalation import (
    Contact,
    Fault,
    Ladder,
    People,
    Post,
    Shift,
    Staff,
    Step,
    Where,
    ladder_for,
    lint,
)
from anxin.logs import log

_SQL = blocks("roster")
_log = log(__name__)


class Unreliable(AnxinError):
    """With this change some step of a ladder reaches nobody."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        """Keep what the linter found, so that the caller can be shown it."""
        super().__init__(" ".join(fault.en for fault in faults[:3]))
        self.faults = list(faults)


@dataclass(frozen=True, slots=True)
class StoredShift:
    """Somebody on a post of a place, from `begins_at` until `ends_at`."""

    id: str
    place_id: str
    user_id: str
    post: Post
    begins_at: datetime | None
    ends_at: datetime | None
    stands_in_for: str | None
    note: str


@dataclass(frozen=True, slots=True)
class NewShift:
    """A shift to add."""

    place_id: int
    user_id: int
    post: Post
    begins_at: datetime
    ends_at: datetime
    stands_in_for: int | None
    note: str


@dataclass(frozen=True, slots=True)
class StoredLadder:
    """The ladder of a place for a priority (1 low to 3 high) and a time of the local day."""

    id: str
    place_id: str
    priority: int
    from_minute: int
    to_minute: int
    lease_seconds: int
    steps: list[Any]


async def everybody(
    database: Database, places: Collection[int], residents: Collection[int], now: datetime
) -> tuple[list[Ladder], People, Mapping[int, tuple[int, ...]]]:
    """Return ladders and people of places, and the relatives of residents who may see alarms."""
    async with database.transaction() as connection:
        return await _everybody(connection, places, residents, now)


def path_places(path: str | None) -> tuple[int, ...]:
    """Return the places of a path from the last up to the root."""
    return tuple(int(part) for part in reversed((path or "").strip("/").split("/")) if part)


async def shifts(
    database: Database,
    scope: Scope,
    *,
    place_id: int | None,
    since: datetime,
    until: datetime,
    after: int,
    limit: int,
) -> list[StoredShift]:
    """Return shifts that lie in a time at least partly, by id."""
    rows = await database.fetch(
        _SQL["list_shifts"],
        {**scope.parameters(), "place_id": place_id, "since": since, "until": until,
         "after": after, "limit": limit},
    )  # fmt: skip
    return [StoredShift(**row) for row in rows]


async def add_shifts(
    database: Database,
    scope: Scope,
    added: Sequence[NewShift],
    *,
    now: datetime,
    accept_gaps: bool,
) -> list[StoredShift]:
    """Add shifts, all or none; raise NotFound, or Unreliable when a post would be left empty."""
    async with database.transaction() as connection:
        places = {one.place_id for one in added}
        before = await _gaps(connection, scope, places, now)
        made = []
        for one in added:
            cursor = await connection.execute(
                _SQL["add_shift"],
                {**scope.parameters(), **{f: getattr(one, f) for f in one.__slots__}},
            )
            row = await cursor.fetchone()
            if row is None:
                raise NotFound(
                    f"User {one.user_id} or place {one.place_id} does not exist, is not yours, or"
                    " this user may not work there."
                )
            made.append(StoredShift(**row))
        if not accept_gaps:
            _refuse_new(before, await _gaps(connection, scope, places, now))
        return made


async def drop_shift(
    database: Database, scope: Scope, shift_id: int, *, now: datetime, accept_gaps: bool
) -> None:
    """Remove a shift; raise NotFound, or Unreliable when its post would be left empty."""
    async with database.transaction() as connection:
        place = await _place_of_shift(connection, scope, shift_id)
        before = await _gaps(connection, scope, place, now)
        cursor = await connection.execute(
            _SQL["drop_shift"], {**scope.parameters(), "id": shift_id}
        )
        if await cursor.fetchone() is None:
            raise NotFound(f"There is no shift {shift_id}, or you may not see it.")
        if not accept_gaps:
            _refuse_new(before, await _gaps(connection, scope, place, now))


async def ladders(
    database: Database, scope: Scope, *, place_id: int | None, after: int, limit: int
) -> list[StoredLadder]:
    """Return the ladders that places have of their own, by id."""
    rows = await database.fetch(
        _SQL["list_ladders"],
        {**scope.parameters(), "place_id": place_id, "after": after, "limit": limit},
    )
    return [StoredLadder(**row) for row in rows]


async def put_ladder(
    database: Database, scope: Scope, ladder: Ladder, *, now: datetime
) -> StoredLadder:
    """Set the ladder of a place for a priority and a time; raise NotFound or Unreliable."""
    place_id = ladder.place_id or 0
    async with database.transaction() as connection:
        if faults := await _faults(connection, scope, ladder, now):
            raise Unreliable(faults)
        cursor = await connection.execute(
            _SQL["put_ladder"],
            {
                **scope.parameters(),
                "place_id": place_id,
                "priority": ladder.priority,
                "from_minute": ladder.from_minute,
                "to_minute": ladder.to_minute,
                "lease_seconds": ladder.lease_seconds,
                "steps": msgspec.json.encode(ladder.steps).decode(),
            },
        )
        row = await cursor.fetchone()
        if row is None:
            raise NotFound(f"There is no place {place_id}, or you may not see it.")
        return StoredLadder(**row)


async def faults_of(
    database: Database, scope: Scope, ladder: Ladder, *, now: datetime
) -> list[Fault]:
    """Return what is wrong with a ladder that is not stored; raise NotFound for its place."""
    async with database.transaction() as connection:
        return await _faults(connection, scope, ladder, now)


async def _faults(
    connection: Connection, scope: Scope, ladder: Ladder, now: datetime
) -> list[Fault]:
    where = await _where(connection, scope, ladder.place_id or 0)
    _, people, _ = await _everybody(connection, where.places, (), now)
    return lint(ladder, where, people, now)


async def drop_ladder(database: Database, scope: Scope, ladder_id: int) -> None:
    """Remove a ladder, so that the one above it or the default stands; raise NotFound."""
    row = await database.fetch_one(_SQL["drop_ladder"], {**scope.parameters(), "id": ladder_id})
    if row is None:
        raise NotFound(f"There is no ladder {ladder_id}, or you may not see it.")


async def verdict(
    database: Database, scope: Scope, place_id: int, *, now: datetime
) -> list[tuple[Ladder, list[Fault]]]:
    """Return the ladders in force at a place, each with what is wrong; raise NotFound."""
    async with database.transaction() as connection:
        return await _verdict(connection, scope, place_id, now)


async def _verdict(
    connection: Connection, scope: Scope, place_id: int, now: datetime
) -> list[tuple[Ladder, list[Fault]]]:
    where = await _where(connection, scope, place_id)
    own, people, _ = await _everybody(connection, where.places, (), now)
    in_force = dict.fromkeys(
        ladder_for(own, where.places, priority, minute)
        for priority in (3, 2, 1)
        for minute in sorted({0} | {m for one in own for m in (one.from_minute, one.to_minute)})
        if minute < 1440
    )
    return [(ladder, lint(ladder, where, people, now)) for ladder in in_force]


async def _gaps(
    connection: Connection, scope: Scope, places: Collection[int], now: datetime
) -> dict[tuple[object, ...], Fault]:
    """Return every time in the coming week at which a duty post of these places is empty."""
    found: dict[tuple[object, ...], Fault] = {}
    for place in sorted(places):
        for ladder, faults in await _verdict(connection, scope, place, now):
            for fault in faults:
                if fault.code == "nobody" and fault.audience in ("first", "second", "supervisor"):
                    found[place, ladder, fault.step, fault.since, fault.until] = fault
    return found


def _refuse_new(
    before: Mapping[tuple[object, ...], Fault], after: Mapping[tuple[object, ...], Fault]
) -> None:
    """Refuse a time without anybody on a post that was not, or not wholly, there before."""
    fresh = [
        fault
        for key, fault in after.items()
        if not any(old[:3] == key[:3] and _within(fault, known) for old, known in before.items())
    ]
    if fresh:
        raise Unreliable(fresh)


def _within(inner: Fault, outer: Fault) -> bool:
    return (
        inner.since is not None
        and inner.until is not None
        and outer.since is not None
        and outer.until is not None
        and outer.since <= inner.since
        and inner.until <= outer.until
    )


async def _place_of_shift(connection: Connection, scope: Scope, shift_id: int) -> set[int]:
    cursor = await connection.execute(
        _SQL["place_of_shift"], {**scope.parameters(), "id": shift_id}
    )
    row = await cursor.fetchone()
    return {row["place_id"]} if row else set()


async def _where(connection: Connection, scope: Scope, place_id: int) -> Where:
    cursor = await connection.execute(_SQL["chain"], {**scope.parameters(), "place_id": place_id})
    row = await cursor.fetchone()
    if row is None:
        raise NotFound(f"There is no place {place_id}, or you may not see it.")
    return Where(path_places(row["path"]), at_home=row["at_home"])


async def _everybody(
    connection: Connection, places: Collection[int], residents: Collection[int], now: datetime
) -> tuple[list[Ladder], People, Mapping[int, tuple[int, ...]]]:
    parameters: dict[str, Any] = {
        "places": sorted(places), "residents": sorted(residents), "now": now,
    }  # fmt: skip

    async def rows(name: str) -> list[dict[str, Any]]:
        return await (await connection.execute(_SQL[name], parameters)).fetchall()

    shifts_ = msgspec.convert(await rows("shifts_of"), tuple[Shift, ...])
    staff = msgspec.convert(await rows("staff_of"), tuple[Staff, ...])
    families: dict[int, tuple[int, ...]] = {}
    for row in await rows("family_of"):
        families[row["resident_id"]] = (*families.get(row["resident_id"], ()), row["user_id"])
    relatives = {user for users in families.values() for user in users}
    parameters["users"] = sorted(
        relatives | {one.user_id for one in shifts_} | {one.user_id for one in staff}
    )
    contacts = msgspec.convert(await rows("contacts_of"), tuple[Contact, ...])
    return _ladders(await rows("ladders_of")), People(shifts_, contacts, staff), families


def _ladders(rows: Sequence[Mapping[str, Any]]) -> list[Ladder]:
    """Return ladders; one that cannot be read is left out, so that the default stands."""
    found = []
    for row in rows:
        try:
            steps = msgspec.convert(row["steps"], tuple[Step, ...])
        except msgspec.ValidationError as error:
            _log.error("ladder_unreadable", ladder=row["id"], error=str(error))
            continue
        found.append(
            Ladder(row["priority"], row["lease_seconds"], steps, row["from_minute"],
                   row["to_minute"], row["place_id"])
        )  # fmt: skip
    return found

"""Stations: what each screen says of itself, which faults that makes, and the self-tests."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, get_args

import msgspec
from psycopg.rows import DictRow

from anxin.db.intake import Raise, Recover, Transaction
from anxin.db.pool import Connection, Database, blocks, connect, translated
from anxin.db.scope import Scope
from anxin.stations import SELF_TEST_BED, Fault, Sound, Station, self_test_device

_SQL = blocks("stations")


@dataclass(frozen=True, slots=True)
class Report:
    """What a screen says of itself now."""

    user_id: int
    screen: str
    sound: Sound
    visible: bool
    proved_at: datetime | None
    on_duty: bool


@dataclass(frozen=True, slots=True)
class SelfTest:
    """One run of the self-test: shown on a station on duty, or `failed` says where it ended."""

    id: str
    place_id: str
    started_at: datetime
    alarm_id: str | None
    displayed_at: datetime | None
    failed: str | None


@dataclass(frozen=True, slots=True)
class TestAlarm:
    """The alarm of a running self-test."""

    id: int
    displayed_at: datetime | None


async def keep_report(database: Database, report: Report) -> None:
    """Store what a screen says, in place of what it said before."""
    await database.execute(_SQL["keep"], {name: getattr(report, name) for name in Report.__slots__})


async def stations(
    database: Database, scope: Scope, *, before: int | None, limit: int
) -> tuple[list[Station], datetime | None]:
    """Return stations, newest first, and the database's time (None without any)."""
    rows = await database.fetch(
        _SQL["list"], {**scope.parameters(), "before": before, "limit": limit}
    )
    return [_station(row) for row in rows], rows[0]["now"] if rows else None


async def self_tests(
    database: Database, scope: Scope, *, before: int | None, limit: int
) -> list[SelfTest]:
    """Return runs of the self-test, newest first."""
    rows = await database.fetch(
        _SQL["self_tests"], {**scope.parameters(), "before": before, "limit": limit}
    )
    return [SelfTest(**row) for row in rows]


class Round:
    """One look of a worker at all stations, inside one transaction."""

    def __init__(self, connection: Connection) -> None:
        """Use a connection inside its transaction."""
        self._connection = connection

    async def mine(self) -> datetime | None:
        """Return the database's time when no other worker is looking now, else None."""
        row = await (await self._connection.execute(_SQL["one_worker"])).fetchone()
        return row["now"] if row and row["mine"] else None

    async def on_duty(self) -> list[Station]:
        """Return the stations on duty that were heard within a shift."""
        return [_station(row) for row in await self._rows("on_duty", {})]

    async def unmanned(self, patience: timedelta) -> list[DictRow]:
        """Return places that had a station on duty today and now have none: id, path, since."""
        return await self._rows("unmanned", {"patience": patience.total_seconds()})

    async def episodes(self, bundle: timedelta) -> list[DictRow]:
        """Return the faults of stations that are open, or were closed within `bundle`."""
        return await self._rows(
            "episodes", {"bundle": bundle.total_seconds(), "reasons": list(get_args(Fault))}
        )

    async def alarms(self, changes: Sequence[Raise | Recover]) -> None:
        """Raise and recover faults in this transaction."""
        await Transaction(self._connection).alarms(changes)

    async def hurry(self, *, deaf: Sequence[str], well: Sequence[str]) -> int:
        """Make the next step due for open alarms under `deaf` paths; return how many there were.

        What is under a `well` path is heard there and waits its time.
        """
        hurried = await self._connection.execute(
            _SQL["hurry"], {"deaf": list(deaf), "well": list(well)}
        )
        return hurried.rowcount

    async def _rows(self, name: str, parameters: Mapping[str, Any]) -> list[DictRow]:
        return await (await self._connection.execute(_SQL[name], parameters)).fetchall()


async def due_self_tests(database: Database, every: timedelta) -> list[int]:
    """Return the places with a station on duty whose last self-test began `every` ago or more."""
    rows = await database.fetch(_SQL["self_test_due"], {"every": every.total_seconds()})
    return [row["place_id"] for row in rows]


@asynccontextmanager
async def self_test_run(
    database: Database, place_id: int, every: timedelta
) -> AsyncIterator[int | None]:
    """Begin a run and give its number; None when another worker has begun it.

    A connection of its own shows that the run's worker lives: killed, it leaves the run to others.
    """
    connection = await connect(database.dsn, autocommit=True, application="anxin self-test")
    async with connection:
        async with translated(), connection.transaction():
            begun = await connection.execute(
                _SQL["begin_self_test"],
                {"place_id": place_id, "every": every.total_seconds()},
            )
            row = await begun.fetchone()
            if row:
                await connection.execute(_SQL["hold_self_test"], row)
        yield row["id"] if row else None


async def enrol_self_test(
    database: Database, place_id: int, *, salt: bytes, secret_hash: bytes
) -> int:
    """Give the test device of a place a new secret; return its bed, made where there is none."""
    parameters = {"place_id": place_id, "name": SELF_TEST_BED}
    async with database.transaction() as connection:
        found = await connection.execute(_SQL["self_test_bed"], parameters)
        row = await found.fetchone()
        assert row is not None  # noqa: S101  the query makes what it does not find
        bed_id: int = row["id"]
        await connection.execute(
            _SQL["self_test_device"],
            {
                "id": self_test_device(place_id),
                "name": SELF_TEST_BED,
                "bed_id": bed_id,
                "salt": salt,
                "secret_hash": secret_hash,
            },
        )
    return bed_id


async def self_test_alarm(database: Database, place_id: int) -> TestAlarm | None:
    """Return the open alarm of a place's test device, if it has been raised."""
    row = await database.fetch_one(
        _SQL["self_test_alarm"], {"place_id": place_id, "id": self_test_device(place_id)}
    )
    return TestAlarm(**row) if row else None


async def clear_self_tests(database: Database, longest: timedelta) -> int:
    """Give up runs whose worker is no more, or longer at it than `longest`; return how many.

    Every test alarm that is open beside no run is closed.
    """
    async with database.transaction() as connection:
        left = await connection.execute(
            _SQL["leave_self_tests"], {"longest": longest.total_seconds()}
        )
        await _close_self_tests(connection)
        await connection.execute(_SQL["forget_self_tests"])
    return left.rowcount


async def finish_self_test(
    database: Database,
    run_id: int,
    *,
    alarm: TestAlarm | None,
    failed: str | None,
    tells: Raise | Recover,
) -> bool:
    """Write down how a run ended, close its alarm and tell of its fault, all or nothing.

    False: the run was given up meanwhile, and somebody else's tells.
    """
    async with database.transaction() as connection:
        finished = await connection.execute(
            _SQL["finish_self_test"],
            {
                "id": run_id,
                "alarm_id": alarm.id if alarm else None,
                "displayed_at": alarm.displayed_at if alarm else None,
                "failed": failed,
            },
        )
        if finished.rowcount == 0:
            return False
        await _close_self_tests(connection)
        await Transaction(connection).alarms([tells])
    return True


async def _close_self_tests(connection: Connection) -> None:
    closed = await connection.execute(_SQL["close_self_tests"])
    ids = [row["id"] for row in await closed.fetchall()]
    if ids:
        await connection.execute(_SQL["record_closed"], {"ids": ids})


def _station(row: DictRow) -> Station:
    return msgspec.convert({name: row[name] for name in Station.__struct_fields__}, Station)

"""What one transaction of ingest writes: readings, events, states, alarms, refusals."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import msgspec
import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.pq import TransactionStatus

from anxin.db import arrays
from anxin.db.arrays import Texts
from anxin.db.pool import Connection, blocks, broken_off, connect, raise_cancellation
from anxin.errors import AnxinError, DatabaseUnavailable

Ints = NDArray[np.int64]
STALLED_SECONDS = 10.0
"""What ingest writes in one go is small: what takes longer hangs."""
_SQL = blocks("intake")


class RefusedByDatabase(AnxinError):
    """The database refuses this data, now and whenever it is tried again."""


class DuplicateReadings(AnxinError):
    """Some of these readings are stored already."""


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest of each device: int64 arrays of one length, 0 for "no such time"."""

    keys: Ints
    ts_us: Ints
    received_us: Ints
    active_us: Ints
    absent_us: Ints
    present_us: Ints
    metrics: Texts


@dataclass(frozen=True, slots=True)
class Due:
    """Minutes (since the epoch) of devices whose rollups are no longer right."""

    keys: Ints
    minutes: Ints


@dataclass(frozen=True, slots=True)
class Raise:
    """An alarm to raise, or to repeat where its episode is open."""

    subject: str
    resident_id: int | None
    place_id: int | None
    device_key: int | None
    kind: str
    class_: str
    priority: int
    event_us: int
    late: bool
    count: int
    detail: Mapping[str, Any]
    actor: str


@dataclass(frozen=True, slots=True)
class Recover:
    """A condition that is no longer there."""

    subject: str
    kind: str
    actor: str


class Intake:
    """The connection of one lane of the pipeline; reconnects when it is asked to `begin` again."""

    def __init__(self, dsn: str) -> None:
        """Prepare; nothing connects before the first transaction."""
        self._dsn = dsn
        self._connection: Connection | None = None

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def transaction(self, stalled_seconds: float = STALLED_SECONDS) -> "Transaction":
        """Return a transaction on a live connection; raise DatabaseUnavailable.

        One that takes longer than `stalled_seconds` is broken off: it fails in the same way.
        """
        if self._connection is None or self._connection.closed:
            self._connection = await connect(self._dsn, application="anxin ingest")
            arrays.register(self._connection)
        return Transaction(self._connection, stalled_seconds)


class Transaction:
    """One transaction: an async context manager that commits, or rolls back and translates."""

    def __init__(self, connection: Connection, stalled_seconds: float = STALLED_SECONDS) -> None:
        """Wrap an idle connection."""
        self._connection = connection
        self._stalled_seconds = stalled_seconds
        self._limit = ExitStack()

    async def __aenter__(self) -> Self:
        """Begin; the driver opens the transaction with the first statement."""
        self._limit.enter_context(broken_off(self._connection, self._stalled_seconds))
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Commit when nothing went wrong, else roll back; raise what the caller can act on."""
        with self._limit:
            await self._end(error)

    async def _end(self, error: BaseException | None) -> None:
        try:
            if error is None:
                await self._connection.commit()
                return
            if self._connection.info.transaction_status is not TransactionStatus.IDLE:
                await self._connection.rollback()
        except psycopg.Error as failure:
            await self._connection.close()
            raise_cancellation(failure)
            raise DatabaseUnavailable from failure
        if isinstance(error, psycopg.errors.UniqueViolation):
            raise DuplicateReadings from error
        refused = isinstance(
            error, psycopg.DataError | psycopg.IntegrityError | psycopg.ProgrammingError
        )
        # Only the server's own word counts: the driver uses the same classes for a lost connection.
        if refused and isinstance(error, psycopg.Error) and error.sqlstate is not None:
            raise RefusedByDatabase(type(error).__name__) from error
        if isinstance(error, psycopg.Error | OSError):
            await self._connection.close()
            raise_cancellation(error)
            raise DatabaseUnavailable from error

    async def copy(self, rows: bytes) -> None:
        """Store readings none of which is stored yet; DuplicateReadings at the end if one is."""
        async with (
            self._connection.cursor() as cursor,
            cursor.copy(_SQL["copy_telemetry"]) as copy,
        ):
            await copy.write(rows)

    async def merge(self, rows: bytes) -> set[tuple[int, int]]:
        """Store readings some of which may be stored; return (device key, ts µs) of the new."""
        async with self._connection.cursor() as cursor:
            await cursor.execute(_SQL["make_incoming"])
            async with cursor.copy(_SQL["copy_incoming"]) as copy:
                await copy.write(rows)
            await cursor.execute(_SQL["merge_incoming"])
            return {(row["device_key"], row["ts_us"]) for row in await cursor.fetchall()}

    async def latest(self, newest: Newest, due: Due) -> None:
        """Renew the newest values, and note the minutes whose rollups must be renewed."""
        await self._connection.execute(
            _SQL["upsert_latest"],
            {
                "keys": newest.keys,
                "ts": newest.ts_us,
                "received": newest.received_us,
                "active": newest.active_us,
                "absent": newest.absent_us,
                "present": newest.present_us,
                "metrics": newest.metrics,
                "due_keys": due.keys,
                "due_minutes": due.minutes,
            },
        )

    async def events(self, columns: Mapping[str, Sequence[Any]]) -> set[tuple[int, str]]:
        """Store events; return (device key, id) of those not seen before."""
        cursor = await self._connection.execute(_SQL["insert_events"], columns)
        return {(row["device_key"], row["id"]) for row in await cursor.fetchall()}

    async def states(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Renew what devices say of themselves; each device once."""
        await self._connection.execute(_SQL["upsert_states"], columns)

    async def results(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Note the outcome of commands."""
        await self._connection.execute(_SQL["finish_commands"], columns)

    async def quarantine(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Keep what could not be used, with the reason."""
        await self._connection.execute(_SQL["insert_quarantine"], columns)

    async def alarms(self, changes: Sequence[Raise | Recover]) -> None:
        """Raise and recover alarms, subject by subject, in the order given for each.

        All writers go through subjects in one order, so no two of them wait for each other.
        """
        ordered = sorted(changes, key=lambda change: (change.subject, change.kind))
        run: list[Raise | Recover] = []
        for change in ordered:
            if run and type(change) is not type(run[0]):
                await self._alarm_run(run)
                run = []
            run.append(change)
        if run:
            await self._alarm_run(run)

    async def _alarm_run(self, run: Sequence[Raise | Recover]) -> None:
        raises = [change for change in run if isinstance(change, Raise)]
        if raises:
            parameters = {
                "subjects": [one.subject for one in raises],
                "residents": [one.resident_id for one in raises],
                "places": [one.place_id for one in raises],
                "devices": [one.device_key for one in raises],
                "kinds": [one.kind for one in raises],
                "classes": [one.class_ for one in raises],
                "priorities": [one.priority for one in raises],
                "event_ats": [one.event_us for one in raises],
                "lates": [one.late for one in raises],
                "counts": [one.count for one in raises],
                "details": [msgspec.json.encode(one.detail).decode() for one in raises],
                "actors": [one.actor for one in raises],
            }
            await self._connection.execute(_SQL["raise_alarms"], parameters)
            return
        parameters = {
            "subjects": [one.subject for one in run],
            "kinds": [one.kind for one in run],
            "actors": [one.actor for one in run],
        }
        await self._connection.execute(_SQL["recover_alarms"], parameters)

    async def waiting_commands(self, keys: Sequence[int]) -> list[dict[str, Any]]:
        """Return commands not yet delivered to these devices, oldest first."""
        cursor = await self._connection.execute(_SQL["waiting_commands"], {"keys": keys})
        return await cursor.fetchall()

    async def command_delivered(self, command_id: int) -> None:
        """Note that the device acknowledged the command."""
        await self._connection.execute(_SQL["command_delivered"], {"id": command_id})

"""The spool: what devices sent while the database was away, on the disk of this machine.

One SQLite file per ingest process, in a thread of its own. What `put` has returned for survives
`kill -9` and a power cut; it stays until `remove`, which is called after it was committed.
"""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec

from anxin.errors import AnxinError, SettingError
from anxin.logs import log
from ingest.inbound import Kind

MOST_SLOTS: Final = 64
"""Ingest processes that may share one directory."""
MOST_BYTES: Final = 8 * 1024 * 1024
"""Payload bytes read back at once."""
RESERVE: Final = 20
"""One part in so many is kept for emergencies."""
ADOPTED_AT_ONCE: Final = 20_000
"""Runs taken over from another file in one go: bounds how long it holds up the thread."""
_ROW_BYTES: Final = 96
"""What a row costs beside its payloads, rounded up."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS spooled (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    urgent INTEGER NOT NULL,
    device_id TEXT NOT NULL,
    kind INTEGER NOT NULL,
    received_us INTEGER NOT NULL,
    count INTEGER NOT NULL,
    payloads BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS spooled_order ON spooled (urgent, id);
"""
_INSERT: Final = (
    "INSERT INTO spooled (urgent, device_id, kind, received_us, count, payloads)"
    " VALUES (?, ?, ?, ?, ?, ?)"
)
_TAKE: Final = (
    "SELECT id, device_id, kind, received_us, count, payloads FROM spooled"
    " WHERE urgent = ? ORDER BY id"
)
_ADOPT: Final = (
    "INSERT INTO spooled (urgent, device_id, kind, received_us, count, payloads)"
    " SELECT urgent, device_id, kind, received_us, count, payloads FROM other.spooled"
    " WHERE urgent = ? ORDER BY id LIMIT ?"
)
_ADOPTED: Final = (
    "DELETE FROM other.spooled WHERE urgent = ? AND id IN"
    " (SELECT id FROM other.spooled WHERE urgent = ? ORDER BY id LIMIT ?)"
)

Result = TypeVar("Result")
_log = log(__name__)


class SpoolFull(AnxinError):
    """The spool is full. Nothing is acknowledged until the database is back or there is room."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """A run of payloads of one kind from one device, as it came."""

    device_id: str
    kind: Kind
    received_us: int
    payloads: Sequence[bytes]


class Spool:
    """The spool of this process: an async context manager that holds its file alone."""

    def __init__(self, directory: Path, mebibytes: int) -> None:
        """Prepare; nothing is opened before `async with`."""
        self._directory = directory
        self._limit = mebibytes * 1024 * 1024
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._lock = self._slot = -1
        self._db: sqlite3.Connection
        self._waiting = {True: 0, False: 0}
        self.bytes = 0
        """Bytes in use on the disk, as of the last call."""

    async def __aenter__(self) -> Self:
        """Claim a file and take over what dead processes left; raise SettingError."""
        try:
            await self._call(self._open)
        except (OSError, sqlite3.Error) as error:
            await self.__aexit__(None, None, None)
            raise SettingError(
                f"The spool {self._directory} cannot be used: {error}. Set ANXIN_SPOOL_DIR to a "
                "directory that may be written to, or ANXIN_SPOOL_MEBIBYTES=0 to go without."
            ) from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish what is being written and let go of the file."""
        await self._call(self._close)
        self._thread.shutdown()

    def holds(self, *, urgent: bool) -> int:
        """Return how many payloads wait here."""
        return self._waiting[urgent]

    async def put(self, runs: Sequence[Spooled], *, urgent: bool) -> None:
        """Write these in one transaction, flushed to the disk; raise SpoolFull."""
        await self._call(lambda: self._put(runs, urgent=urgent))

    async def take(self, most: int, *, urgent: bool) -> list[tuple[int, Spooled]]:
        """Return the oldest with their numbers, up to `most` payloads; they stay where they are."""
        return await self._call(lambda: self._take(most, urgent=urgent))

    async def remove(self, numbers: Sequence[int], *, urgent: bool) -> None:
        """Forget what has been committed; raise SpoolFull when the disk cannot even do that."""
        await self._call(lambda: self._remove(numbers, urgent=urgent))

    async def adopt(self) -> int:
        """Take over some of what processes that are gone left here; return how many runs."""
        return await self._call(self._adopt_some)

    async def _call(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # --- in the thread

    def _open(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        slot, self._lock = self._claim()
        file = self._file(slot)
        # It holds what devices say of people; the log beside it takes over the mode.
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=0)
        # FULL: in WAL mode each commit is flushed, which is what an acknowledgement stands on.
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "auto_vacuum = INCREMENTAL"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_SCHEMA)
        self._slot = slot
        self._count()
        while self._adopt_some():
            pass

    def _count(self) -> None:
        for urgent in self._waiting:
            (self._waiting[urgent],) = self._db.execute(
                "SELECT coalesce(sum(count), 0) FROM spooled WHERE urgent = ?", [urgent]
            ).fetchone()
        self.bytes = self._used()

    def _claim(self) -> tuple[int, int]:
        for slot in range(MOST_SLOTS):
            if (lock := self._try_lock(slot)) is not None:
                return slot, lock
        raise OSError(f"all {MOST_SLOTS} places are taken")

    def _try_lock(self, slot: int) -> int | None:
        """Return the descriptor that holds a slot, or None when another process has it."""
        lock = os.open(self._directory / f"{slot}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def _adopt_some(self) -> int:
        found = 0
        for slot in range(MOST_SLOTS):
            if slot != self._slot and self._file(slot).exists():
                try:
                    found += self._adopt(slot)
                except sqlite3.Error as error:
                    _log.error("spool_not_adopted", slot=slot, error=str(error))
        if found:
            self._count()
        return found

    def _adopt(self, slot: int) -> int:
        """Take over some of what a process that is gone left in its file, emergencies first.

        A file that cannot be written is not taken from. Should the machine die between the commits
        of the two files, what was moved is there twice, which storing it bears.
        """
        lock = self._try_lock(slot)
        if lock is None:
            return 0
        try:
            self._db.execute("ATTACH ? AS other", [str(self._file(slot))])
            try:
                self._db.execute("BEGIN IMMEDIATE")
                for urgent in (True, False):
                    found = self._db.execute(_ADOPT, [urgent, ADOPTED_AT_ONCE]).rowcount
                    if found:
                        self._db.execute(_ADOPTED, [urgent, urgent, ADOPTED_AT_ONCE])
                        break
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                self._db.execute("DETACH other")
        finally:
            os.close(lock)
        if found:
            _log.info("spool_adopted", slot=slot, runs=found)
        return found

    def _file(self, slot: int) -> Path:
        return self._directory / f"{slot}.sqlite"

    def _close(self) -> None:
        if hasattr(self, "_db"):
            self._db.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _put(self, runs: Sequence[Spooled], *, urgent: bool) -> None:
        rows = [
            (urgent, one.device_id, int(one.kind), one.received_us, len(one.payloads),
             msgspec.msgpack.encode(one.payloads))
            for one in runs
        ]  # fmt: skip
        room = self._limit if urgent else self._limit - self._limit // RESERVE
        if self._used() + sum(len(row[-1]) + _ROW_BYTES for row in rows) > room:
            raise SpoolFull
        self._write(_INSERT, rows)
        self._waiting[urgent] += sum(row[4] for row in rows)

    def _take(self, most: int, *, urgent: bool) -> list[tuple[int, Spooled]]:
        found: list[tuple[int, Spooled]] = []
        count = size = 0
        rows = self._db.execute(_TAKE, [urgent])
        for number, device_id, kind, received_us, payload_count, blob in rows:
            if found and (count + payload_count > most or size + len(blob) > MOST_BYTES):
                break
            payloads = msgspec.msgpack.decode(blob, type=list[bytes])
            found.append((number, Spooled(device_id, Kind(kind), received_us, payloads)))
            count += payload_count
            size += len(blob)
        rows.close()
        return found

    def _remove(self, numbers: Sequence[int], *, urgent: bool) -> None:
        (gone,) = self._db.execute(
            "SELECT coalesce(sum(count), 0) FROM spooled WHERE urgent = ? AND id BETWEEN ? AND ?",
            [urgent, numbers[0], numbers[-1]],
        ).fetchone()
        # `take` returns all there is of one urgency in a row, so the ends say it all.
        self._write(
            "DELETE FROM spooled WHERE urgent = ? AND id BETWEEN ? AND ?",
            [(urgent, numbers[0], numbers[-1])],
        )
        self._waiting[urgent] -= gone
        if not any(self._waiting.values()):
            self._shrink()

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(statement, rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise SpoolFull(f"The spool cannot be written: {error}.") from error
        self.bytes = self._used()

    def _used(self) -> int:
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        (size,) = self._db.execute("PRAGMA page_size").fetchone()
        return int((pages - free) * size)

    def _shrink(self) -> None:
        """Give the disk back what an outage took."""
        try:
            self._db.execute("PRAGMA incremental_vacuum").fetchall()
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            _log.warning("spool_not_shrunk", error=str(error))
        self.bytes = self._used()

"""What the worker does in the database: rollups, partitions, retention, and looking for silence."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg.rows import DictRow

from anxin.db.intake import Raise, Recover, Transaction
from anxin.db.pool import Connection, Database, blocks, connect, translated
from anxin.db.silence import Silence, look_for_silence

_SQL = blocks("upkeep")
_TIMESCALE = blocks("rollups")


async def is_timescale(db: Database) -> bool:
    """Tell whether TimescaleDB keeps the rollups of this schema."""
    row = await db.fetch_one(_TIMESCALE["timescale_present"])
    return bool(row and row["present"])


async def roll_up(db: Database, *, settle_seconds: float, most: int) -> int:
    """Renew the rollups of up to `most` marked minutes; return how many."""
    row = await db.fetch_one(_SQL["roll_up"], {"settle": settle_seconds, "most": most})
    return int(row["rolled"]) if row else 0


async def roll_up_timescale(dsn: str, settled: datetime, *, most: int) -> int:
    """The same where continuous aggregates hold the rollups; return how many marks were settled."""
    connection = await connect(dsn, autocommit=True, application="anxin worker rollups")
    async with connection, translated():
        locked = await (await connection.execute(_TIMESCALE["timescale_lock"])).fetchone()
        if not locked or not locked["locked"]:
            return 0
        cursor = await connection.execute(
            _TIMESCALE["timescale_due"], {"settled": settled, "most": most}
        )
        windows = await cursor.fetchall()
        for window in windows:
            for step in ("refresh_minutes", "refresh_hour", "settled"):
                await connection.execute(_TIMESCALE[f"timescale_{step}"], window)
        await connection.execute(_TIMESCALE["timescale_unlock"])
        return sum(len(window["ids"]) for window in windows)


async def keep_partitions(db: Database, *, retention_days: int) -> int:
    """Make partitions ahead of time and drop what is too old; return how many were dropped.

    While a backup reads, it is left for the next time.
    """
    async with db.transaction() as connection:
        may = await (await connection.execute(_SQL["partitions_may_change"])).fetchone()
        if not may or not may["free"]:
            return 0
        await connection.execute(_SQL["add_partitions"])
        dropped = await connection.execute(_SQL["drop_partitions"], {"days": retention_days})
        row = await dropped.fetchone()
    return int(row["dropped"]) if row else 0


async def forget_old(db: Database, *, quarantine_days: int) -> None:
    """Delete what is kept for a time only: quarantine, expired sessions and the like."""
    await db.execute(_SQL["forget_old"], {"quarantine_days": quarantine_days})


async def forget(db: Database, name: str, *, days: int, most: int = 5_000) -> int:
    """Delete what a statement of `anxin.retention` finds too old, in slices; return how many."""
    total = 0
    while True:
        gone = await db.execute(_SQL[name], {"days": days, "most": most})
        total += gone
        if gone < most:
            return total


async def forget_rollups(db: Database, *, minute_days: int, hour_days: int) -> int:
    """Delete rollups that are too old; return how many rows (with TimescaleDB: chunks) went."""
    parameters = {"minute_days": minute_days, "hour_days": hour_days}
    row = await db.fetch_one(_SQL["forget_rollups"], parameters)
    return int(row["gone"]) if row else 0


class Look:
    """One look of the worker at the database, inside one transaction."""

    def __init__(self, connection: Connection) -> None:
        """Use a connection inside its transaction."""
        self._connection = connection

    async def mine(self) -> datetime | None:
        """Return the database's time when no other worker is looking now, else None."""
        row = await (await self._connection.execute(_SQL["one_worker"])).fetchone()
        if not row or not row["mine"]:
            return None
        return await self.clock()

    async def clock(self) -> datetime:
        """Return the database's time, by which everything stored is dated."""
        row = await (await self._connection.execute(_SQL["clock"])).fetchone()
        assert row is not None  # noqa: S101  a query without FROM has one row
        now: datetime = row["now"]
        return now

    async def silence(self) -> Silence:
        """Return who is not heard, and since when the platform itself was deaf."""
        return await look_for_silence(self._connection)

    async def beds(self) -> list[DictRow]:
        """Return empty beds: subject, ids, absent_since, present_since, fall_risk."""
        return await self._rows("beds", {})

    async def inactive(self, seconds: int) -> list[DictRow]:
        """Return residents seen but not active for `seconds`: subject, ids, active_at."""
        return await self._rows("inactive", {"seconds": seconds})

    async def episodes(self, kinds: Sequence[str], bundle_seconds: int) -> list[DictRow]:
        """Return the last episode of each subject and kind that is open or lately closed."""
        return await self._rows(
            "watched_episodes", {"kinds": list(kinds), "bundle": bundle_seconds}
        )

    async def alarms(self, changes: Sequence[Raise | Recover]) -> None:
        """Raise and recover alarms in this transaction."""
        await Transaction(self._connection).alarms(changes)

    async def _rows(self, name: str, parameters: Mapping[str, Any]) -> list[DictRow]:
        return await (await self._connection.execute(_SQL[name], parameters)).fetchall()

"""Connections: a pool, transactions, and the doorbell (LISTEN).

Driver errors leave this package as `DatabaseUnavailable` or `Conflict`: no caller sees psycopg.
"""

import asyncio
import copy
import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import cache
from importlib import resources
from typing import Any, Self

import psycopg
from psycopg import AsyncConnection, AsyncCursor, errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from anxin.errors import Conflict, DatabaseUnavailable, Refused
from anxin.logs import log

Connection = AsyncConnection[DictRow]
Parameters = Mapping[str, Any] | Sequence[Any] | None

# A statement that hangs, or a client stopped inside a transaction, must not hold up the others; and
# a backend that runs or waits for a lock notices that its client has broken off.
_OPTIONS = (
    "-c timezone=UTC -c idle_in_transaction_session_timeout=15s -c statement_timeout=30s"
    " -c client_connection_check_interval=2s"
)
# A peer that is gone without a word: idle it is found after 25 s, with something unsent after 15 s.
_WIRE: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
STALLED_SECONDS = 60.0
"""Longer than any transaction of ours takes: two statements at their limit."""
_ACT = b"SELECT set_config('anxin.session', %s, true)"
_log = log(__name__)


@cache
def blocks(noun: str) -> dict[str, bytes]:
    """Return the named SQL blocks (`-- name: x`) of `anxin/db/<noun>.sql`."""
    text = resources.files("anxin.db").joinpath(f"{noun}.sql").read_text(encoding="utf-8")
    parts = text.split("-- name: ")[1:]
    return {
        name.strip(): body.strip().encode()
        for name, _, body in (part.partition("\n") for part in parts)
    }


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Turn the driver's errors into ours: gone, or in conflict with what is stored."""
    try:
        yield
    except (errors.UniqueViolation, errors.ExclusionViolation) as error:
        raise Conflict(f"This exists already ({error.diag.constraint_name}).") from error
    except errors.ForeignKeyViolation as error:
        raise Conflict(
            f"What it refers to does not exist ({error.diag.constraint_name})."
        ) from error
    except errors.InsufficientPrivilege as error:
        raise Refused from error
    # InternalError: among others the server's "idle in transaction for too long".
    except (
        psycopg.OperationalError,
        psycopg.InterfaceError,
        psycopg.InternalError,
        PoolTimeout,
    ) as error:
        raise_cancellation(error)
        raise DatabaseUnavailable from error
    except psycopg.DatabaseError as error:
        # Without a class of its own and without the server's code: libpq lost the connection.
        if error.sqlstate is None and type(error) is psycopg.DatabaseError:
            raise_cancellation(error)
            raise DatabaseUnavailable from error
        raise


def raise_cancellation(error: BaseException | None) -> None:
    """Raise the cancellation in whose course this error came up, if there was one.

    Ending a transaction of a cancelled task may fail as well. Told as "the database is away" it
    would be tried again, and the task would never end.
    """
    while error is not None:
        if isinstance(error, asyncio.CancelledError):
            raise error
        error = error.__context__


@contextmanager
def broken_off(connection: Connection, after_seconds: float) -> Iterator[None]:
    """End the connection under a block that lasts longer: what waits in it fails at once.

    A stopped server or a swallowed packet closes nothing by itself, and cancelling would wait for
    an answer as well. Whether a transaction was committed is then not known.
    """
    timer = asyncio.get_running_loop().call_later(after_seconds, _shut, connection)
    try:
        yield
    finally:
        timer.cancel()


def _shut(connection: Connection) -> None:
    if connection.closed:
        return
    with (
        socket.socket(fileno=os.dup(connection.fileno())) as wire,
        suppress(OSError),  # the other end was quicker
    ):
        wire.shutdown(socket.SHUT_RDWR)


def as_role(dsn: str, role: str) -> str:
    """Return the DSN with which everything is done as a role of the database, and nothing more.

    Whoever the DSN names must be that role, be a member of it, or be a superuser.
    """
    return _with_options(dsn, f"-c role={role}")


def _with_options(dsn: str, options: str) -> str:
    known = conninfo_to_dict(dsn).get("options")
    return make_conninfo(dsn, options=f"{options} {known}" if known else options)


async def connect(dsn: str, *, autocommit: bool = False, application: str = "anxin") -> Connection:
    """Open one connection that its owner keeps; raise DatabaseUnavailable."""
    async with translated():
        return await AsyncConnection.connect(
            _with_options(dsn, _OPTIONS),
            autocommit=autocommit,
            row_factory=dict_row,
            application_name=application,
            **_WIRE,
        )


class Database:
    """A pool of connections for requests: an async context manager."""

    def __init__(
        self,
        dsn: str,
        *,
        role: str | None = None,
        size: int = 10,
        application: str = "anxin",
        patience_seconds: float = 5.0,
        stalled_seconds: float = STALLED_SECONDS,
    ) -> None:
        """Prepare a pool; nothing connects before `async with`. With `role` it acts as that role.

        A request waits `patience_seconds` for a connection before it says that the database is
        away. A transaction that lasts longer than `stalled_seconds` is broken off, and so is a
        connection of the pool that says nothing for so long; not sooner, because a server that
        was only stopped answers at once when it goes on.
        """
        self.dsn = as_role(dsn, role) if role else dsn
        self._session: str | None = None
        self._stalled_seconds = stalled_seconds
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            _with_options(self.dsn, _OPTIONS),
            connection_class=AsyncConnection[DictRow],
            kwargs={
                "row_factory": dict_row,
                "application_name": application,
                **_WIRE,
            },
            min_size=1,
            max_size=size,
            timeout=patience_seconds,
            # Waits between attempts double: give up soon and begin anew with the next request.
            reconnect_timeout=1.5,
            check=self._check,
            open=False,
        )

    async def __aenter__(self) -> Self:
        """Open the pool; the database may still be away."""
        await self._pool.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        await self._pool.close()

    async def _check(self, connection: Connection) -> None:
        """Ask a connection whether it still is one; raise when it is not."""
        with broken_off(connection, self._stalled_seconds):
            await AsyncConnectionPool.check_connection(connection)

    def on_behalf_of(self, token_hash: bytes) -> "Database":
        """Return this pool for one session: each transaction sees what that session's user may.

        The database is told which session it is, for one transaction at a time, and finds out the
        rest by itself; a connection goes back to the pool without any of it.
        """
        bound = copy.copy(self)
        bound._session = token_hash.hex()  # noqa: SLF001  # our own copy
        return bound

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection for one transaction: committed at the end, rolled back on an error."""
        async with self._lent() as connection:
            if self._session is not None:
                await connection.execute(_ACT, [self._session])
            yield connection

    async def fetch(self, query: bytes, parameters: Parameters = None) -> list[DictRow]:
        """Run one query and return its rows."""
        async with self._lent() as connection:
            return await (await self._run(connection, query, parameters)).fetchall()

    async def fetch_one(self, query: bytes, parameters: Parameters = None) -> DictRow | None:
        """Run one query and return its first row, if any."""
        async with self._lent() as connection:
            return await (await self._run(connection, query, parameters)).fetchone()

    async def execute(self, query: bytes, parameters: Parameters = None) -> int:
        """Run one statement and return how many rows it touched."""
        async with self._lent() as connection:
            return (await self._run(connection, query, parameters)).rowcount

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[Connection]:
        async with translated():
            with ExitStack() as until_committed:
                async with self._pool.connection() as connection:
                    until_committed.enter_context(broken_off(connection, self._stalled_seconds))
                    yield connection

    async def _run(
        self, connection: Connection, query: bytes, parameters: Parameters
    ) -> AsyncCursor[DictRow]:
        """Run one statement; who it is for travels with it, at no cost of a way there and back."""
        if self._session is None:
            return await connection.execute(query, parameters)
        async with connection.pipeline():
            await connection.execute(_ACT, [self._session])
            return await connection.execute(query, parameters)


async def doorbell(dsn: str, channels: Sequence[str], every: float) -> AsyncIterator[str]:
    """Yield a channel's name when it rings, and "" at least once in `every` seconds.

    A ring says only that it is worth looking. It may be lost, so the listener looks by the clock
    as well, and after each reconnection. This never ends and never raises for a lost database.
    """
    while True:
        try:
            connection = await connect(dsn, autocommit=True, application="anxin doorbell")
        except DatabaseUnavailable:
            yield ""
            await asyncio.sleep(min(every, 1.0))
            continue
        try:
            async with connection, translated():
                with broken_off(connection, STALLED_SECONDS):
                    for channel in channels:
                        listen = sql.SQL("LISTEN {}").format(sql.Identifier(channel))
                        await connection.execute(listen)
                yield ""
                while True:
                    rang = False
                    async for notice in connection.notifies(timeout=every, stop_after=1):
                        rang = True
                        yield notice.channel
                    if not rang:
                        yield ""
        except DatabaseUnavailable:
            _log.warning("doorbell_lost")

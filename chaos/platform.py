"""The platform under test, with a proxy on each of its three routes.

devices  --> proxy `devices`  --> ingest
viewers  --> proxy `viewers`  --> api
services --> proxy `database` --> Postgres, kept running as `anxin up` keeps its own
"""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from anxin.config import Address
from anxin.db.pool import connect
from anxin.embedded import EmbeddedPostgres, write_private
from anxin.errors import AnxinError, DatabaseUnavailable
from anxin.keeper import Keeper
from bench.stack import Stack
from chaos.clock import Clock
from chaos.proxy import Proxy

ROUTES: Final = ("devices", "database", "viewers")
SERVICES: Final = ("ingest", "worker", "api")
ROLES: Final = (*SERVICES, "postgres")

_ANY: Final = Address("127.0.0.1", 0)
_SPOOL_BYTES: Final = 24 << 20
_RECOVERY_SECONDS: Final = 90.0
_POLL_SECONDS: Final = 0.02
_PRESENT = b"""
    SELECT count(*) AS count FROM pg_stat_activity
    WHERE application_name = 'anxin worker' AND backend_start > %(since)s::timestamptz
"""


class NotRecovered(AnxinError):
    """The platform did not come back in time."""


class Platform:
    """A whole platform in processes of its own: an async context manager."""

    def __init__(self, http: str, mqtt: str) -> None:
        """Prepare; the given ports are the services' own. Raise PortTaken when one is in use."""
        self.directory = Path(tempfile.mkdtemp(prefix="anxin-chaos-"))
        # The server's user must be able to enter, so the directory is not as private as usual.
        self.directory.chmod(0o711)
        self.postgres = EmbeddedPostgres(self.directory / "database")
        self.routes: dict[str, Proxy] = {}
        self.spool = self.directory / "spool"
        self.spool_is_small = False
        self.clock = Clock(self.directory)
        self._keeper = Keeper("postgres", self.postgres)
        self._cleanup = AsyncExitStack()
        try:
            # Its ports are settled here: a busy one is refused before anything starts.
            self.stack = Stack(
                http,
                mqtt,
                {
                    **self.clock.environ,
                    "ANXIN_DATABASE_FILE": str(self._address_file),
                    "ANXIN_SPOOL_DIR": str(self.spool),
                    "ANXIN_ALLOW_PRIVATE_WEBHOOKS": "true",
                },
            )
        except BaseException:
            shutil.rmtree(self.directory, ignore_errors=True)
            raise

    @property
    def dsn(self) -> str:
        """The database's own address, past the proxy: for the verdict."""
        return self.postgres.dsn

    async def __aenter__(self) -> Self:
        """Start everything; every service reaches the database through its proxy only."""
        async with AsyncExitStack() as cleanup:
            cleanup.callback(shutil.rmtree, self.directory, ignore_errors=True)
            cleanup.callback(self._forget_cluster)
            self.spool_is_small = cleanup.enter_context(_small_disk(self.spool, _SPOOL_BYTES))
            cleanup.push_async_callback(asyncio.to_thread, self._keeper.stop)
            self._keeper.start()
            await asyncio.to_thread(self._keeper.await_ready)
            for name, target in (
                ("devices", self.stack.mqtt),
                ("viewers", self.stack.http),
                ("database", Address("127.0.0.1", self.postgres.port)),
            ):
                self.routes[name] = await cleanup.enter_async_context(Proxy(target, _ANY))
            self._write_proxied_address()
            cleanup.push_async_callback(asyncio.to_thread, self._end_stack)
            await asyncio.to_thread(self.stack.start)
            self._cleanup = cleanup.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End everything and forget its data."""
        await self._cleanup.aclose()

    def processes(self, role: str) -> list[psutil.Process]:
        """Return the running processes of a role, children included; `tree` is everything."""
        if role == "tree":
            return [*self.stack.tree(), *self.processes("postgres")]
        if role == "postgres":
            return _with_children([self.postgres.pid])
        return _with_children(process.pid for process in self.stack.processes(role))

    def signal(self, role: str, number: signal.Signals) -> list[int]:
        """Send a signal to every process of a role and return their ids, the leader first."""
        pids = []
        for process in self.processes(role):
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
            pids.append(process.pid)
        if not pids:
            raise NotRecovered(f"There is no {role} process.\n{self.stack.last_words()}")
        return pids

    def ask_postgres_to_restart(self) -> list[int]:
        """End the database in order; its keeper starts it again."""
        pid = self.postgres.pid
        os.kill(pid, signal.SIGINT)
        return [pid]

    async def kill_tree(self) -> list[int]:
        """Kill every process at once, Postgres included, and start again on the same data."""
        pids = self.signal("postgres", signal.SIGKILL)
        pids = [*await asyncio.to_thread(self.stack.kill_tree), *pids]
        await self.database_answers()
        await asyncio.to_thread(self.stack.start)
        return pids

    async def replaced(self, role: str, old: Iterable[int]) -> None:
        """Wait until new processes stand in the place of those that were killed."""
        gone = set(old)

        def there() -> bool:
            try:
                now = {process.pid for process in self.processes(role)}
            except psutil.NoSuchProcess:
                return False
            return bool(now) and not now & gone

        await self._until(there, f"No new {role} process came.")

    async def database_answers(self) -> None:
        """Wait until the database takes connections."""
        deadline = time.monotonic() + _RECOVERY_SECONDS
        while True:
            try:
                async with asyncio.timeout(5), await connect(self.dsn, application="anxin chaos"):
                    return
            except (DatabaseUnavailable, TimeoutError):
                if time.monotonic() > deadline:
                    raise NotRecovered("The database does not answer.") from None
                await asyncio.sleep(_POLL_SECONDS)

    async def worker_is_at_work(self, since: str) -> None:
        """Wait until a worker has opened a connection to the database after `since` (ISO 8601)."""
        deadline = time.monotonic() + _RECOVERY_SECONDS
        async with await connect(self.dsn, autocommit=True, application="anxin chaos") as database:
            while True:
                row = await (await database.execute(_PRESENT, {"since": since})).fetchone()
                if row is not None and row["count"]:
                    return
                if time.monotonic() > deadline:
                    raise NotRecovered(f"No worker is at work.\n{self.stack.last_words()}")
                await asyncio.sleep(_POLL_SECONDS)

    def end(self) -> int:
        """End the services in order and return their exit code."""
        return self.stack.end()

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _RECOVERY_SECONDS
        while not condition():
            self.stack.check()
            if time.monotonic() > deadline:
                raise NotRecovered(f"{what}\n{self.stack.last_words()}")
            await asyncio.sleep(_POLL_SECONDS)

    @property
    def _address_file(self) -> Path:
        return self.directory / "database.dsn"

    def _write_proxied_address(self) -> None:
        direct, proxied = self.postgres.port, self.routes["database"].listen.port
        address = self.dsn.replace(f"@127.0.0.1:{direct}/", f"@127.0.0.1:{proxied}/")
        write_private(self._address_file, address)

    def _end_stack(self) -> None:
        self.stack.end()
        shutil.rmtree(self.stack.directory, ignore_errors=True)

    def _forget_cluster(self) -> None:
        shutil.rmtree((self.postgres.directory / "postgres").resolve(), ignore_errors=True)


@contextmanager
def _small_disk(place: Path, size_bytes: int) -> Iterator[bool]:
    """Mount a memory disk of so many bytes at `place`, where this user may; tell whether."""
    place.mkdir(mode=0o711)
    mounted = False
    if os.geteuid() == 0 and shutil.which("mount"):
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "anxin-chaos", str(place)]
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(place)], check=True)


def _with_children(pids: Iterable[int]) -> list[psutil.Process]:
    found = []
    for pid in pids:
        try:
            leader = psutil.Process(pid)
            found += [leader, *leader.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    return found

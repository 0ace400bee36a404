"""Sockets cut at random under two API processes: every viewer sees each of its alarms once."""

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx
import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from anxin.embedded import free_port
from tests.integration.api_world import World, settle
from tests.waiting import eventually

CUTS = int(os.environ.get("STREAM_CUTS", "200"))
VIEWERS = ("admin", "supervisor", "nurse", "nurse-b", "integrator", "family", "guest", "ward-1",
           "ward-2", "nurse")  # fmt: skip


@dataclass
class Watcher:
    """A viewer that comes back from its last cursor whenever it is cut off."""

    user: str
    token: str
    seen: list[int] = field(default_factory=list)
    cursor: int | None = None
    cuts: int = 0

    async def watch(self, ports: list[int], dice: random.Random) -> None:
        """Follow the stream at one process after the other until cancelled."""
        async with httpx.AsyncClient(trust_env=False) as client:
            while True:
                port = dice.choice(ports)
                with suppress(OSError, ConnectionClosed, InvalidHandshake, EOFError):
                    await self._once(client, port, dice)

    async def _once(self, client: httpx.AsyncClient, port: int, dice: random.Random) -> None:
        headers = {"authorization": f"Bearer {self.token}"}
        answer = await client.post(
            f"http://127.0.0.1:{port}/api/v1/stream/tickets", headers=headers, timeout=20
        )
        hello = {"type": "hello", "ticket": answer.json()["ticket"], "cursor": self.cursor}
        async with connect(
            f"ws://127.0.0.1:{port}/api/v1/stream", proxy=None, close_timeout=0.1
        ) as socket:
            await socket.send(msgspec.json.encode(hello).decode())
            # Cut after so many frames, or so much time, whichever comes first: in the replay too.
            frames_left = dice.randrange(1, 12)
            with suppress(TimeoutError):
                async with asyncio.timeout(dice.uniform(0.02, 0.4)):
                    while frames_left:
                        self._take(msgspec.json.decode(await socket.recv()))
                        frames_left -= 1
            socket.transport.abort()
            self.cuts += 1

    def _take(self, frame: dict[str, object]) -> None:
        if frame["type"] == "ready" and self.cursor is None:
            self.cursor = int(str(frame["cursor"]))
        elif frame["type"] == "alarm":
            self.cursor = int(str(frame["cursor"]))
            self.seen.append(self.cursor)
        assert frame["type"] != "resync"


async def test_200_cuts_over_10_viewers_and_2_processes_lose_and_double_nothing(
    dsn: str,
) -> None:
    world = _houses(dsn)
    dice = random.Random(20260105)  # noqa: S311  the same cuts in every run
    async with AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(_api(dsn)) for _ in range(2)]
        watchers = [Watcher(user, world.tokens[user]) for user in VIEWERS]
        tasks = [asyncio.create_task(one.watch(ports, dice)) for one in watchers]
        await eventually(lambda: all(one.cursor is not None for one in watchers), 30)
        writers = [asyncio.create_task(asyncio.to_thread(_write, world, n)) for n in range(3)]
        await eventually(lambda: sum(one.cuts for one in watchers) >= CUTS, 120)
        _stop.add(dsn)
        await asyncio.gather(*writers)
        # The last lines get their place when an API process looks; then everybody catches up.
        await eventually(lambda: not world.ask("SELECT 1 FROM timeline WHERE cursor IS NULL"), 20)
        expected = {user: _visible(world, user) for user in VIEWERS}
        for one in watchers:
            last = expected[one.user][-1]
            await eventually(lambda one=one, last=last: bool(one.seen) and one.seen[-1] >= last, 30)
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends
    for one in watchers:
        assert one.seen == expected[one.user], one.user
    assert len({len(expected[user]) for user in VIEWERS}) > 3, "the scopes differ"


_stop: set[str] = set()


def _houses(dsn: str) -> World:
    """Return the world with two wards more and somebody for each."""
    world = settle(dsn)
    for number in (1, 2):
        world.place(f"ward {number}", "A", "room")
        world.resident(f"resident {number}", f"ward {number}")
        world.user(f"ward-{number}", "nurse", f"ward {number}")
    world.user("guest", "family")
    world.link("guest", "bela", "status", "alarms")
    return world


def _write(world: World, number: int) -> None:
    """Raise, repeat, and at times hold a transaction open, until told to stop."""
    dice = random.Random(number)  # noqa: S311
    residents = ("anna", "bela", "resident 1", "resident 2")
    count = 0
    while world.dsn not in _stop:
        kind = f"kind_{number}_{count % 7}"
        with world.sql(autocommit=False) as connection:
            world.alarm(dice.choice(residents), kind, connection=connection)
            connection.execute(b"SELECT pg_sleep(%s)", [dice.uniform(0, 0.05)])
        count += 1


def _visible(world: World, user: str) -> list[int]:
    """Return the places of the stream that this user may see, by plain arithmetic on the rows."""
    rows = world.ask(
        "SELECT t.cursor, p.path, a.resident_id FROM timeline t JOIN alarms a ON a.id = t.alarm_id"
        " JOIN residents r ON r.id = a.resident_id JOIN places p ON p.id = r.place_id"
        " ORDER BY t.cursor"
    )
    (who,) = world.ask(
        "SELECT role, (SELECT path FROM places WHERE id = place_id) AS path,"
        " ARRAY(SELECT resident_id FROM family_links f WHERE f.user_id = u.id) AS links"
        " FROM users u WHERE username = %s",
        user,
    )
    path = "/" if who["role"] == "admin" else who["path"]
    return [
        row["cursor"]
        for row in rows
        if (path is not None and row["path"].startswith(path)) or row["resident_id"] in who["links"]
    ]


@asynccontextmanager
async def _api(dsn: str) -> AsyncIterator[int]:
    """Run an API process of its own."""
    port = free_port("127.0.0.1")
    environ = os.environ | {"ANXIN_DATABASE": dsn, "ANXIN_HTTP": f"127.0.0.1:{port}"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "anxin.cli", "api"), env=environ, stderr=subprocess.DEVNULL
    )
    try:
        async with httpx.AsyncClient(trust_env=False) as client:

            async def ready() -> bool:
                with suppress(httpx.TransportError):
                    return (await client.get(f"http://127.0.0.1:{port}/readyz")).is_success
                return False

            await eventually(ready, 30)
        yield port
    finally:
        process.terminate()
        await process.wait()

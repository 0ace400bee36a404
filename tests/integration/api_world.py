"""A small world behind a real API: two facilities, their residents, and a user of every role."""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import httpx
import msgspec
import psycopg
import uvicorn
from psycopg.rows import dict_row
from websockets.asyncio.client import ClientConnection, connect

from anxin.config import Settings
from anxin.db.sessions import hash_token
from anxin.device_secret import new_secret
from anxin.passwords import hash_password
from api.app import create_app
from api.connection import Connection
from api.wire import Wire

PASSWORD = "a good password"
ONE_PROVIDER = {
    "oidc": '[{"name": "hospital", "zh": "市医院", "en": "City hospital", "client_id": "anxin",'
            ' "issuer": "https://id.example.cn"}]',
    "public_url": "https://care.example.cn",
}  # fmt: skip
"""Settings with a provider of identities that nobody asks anything."""


@dataclass
class World:
    """The rows that tests start from, and ways to make more; ids are as the API gives them."""

    dsn: str
    ids: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def sql(self, *, autocommit: bool = True) -> Iterator["psycopg.Connection[dict[str, Any]]"]:
        """Lend a connection of the test's own."""
        with psycopg.connect(self.dsn, autocommit=autocommit, row_factory=dict_row) as connection:
            yield connection

    def ask(self, query: str, *parameters: object) -> list[dict[str, Any]]:
        """Run one query and return its rows."""
        with self.sql() as connection:
            cursor = connection.execute(query.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def one(self, query: str, *parameters: object) -> Any:
        """Return the only value of the only row."""
        (row,) = self.ask(query, *parameters)
        (value,) = row.values()
        return value

    def place(self, name: str, parent: str | None, kind: str = "facility") -> None:
        """Add a place under the name of another."""
        parent_id = int(self.ids[parent]) if parent else None
        query = "INSERT INTO places (parent_id, kind, name) VALUES (%s, %s, %s) RETURNING id"
        self.ids[name] = str(self.one(query, parent_id, kind, name))

    def resident(self, name: str, place: str) -> None:
        """Add a resident at a place."""
        query = "INSERT INTO residents (name, place_id) VALUES (%s, %s) RETURNING id"
        self.ids[name] = str(self.one(query, name, int(self.ids[place])))

    def user(self, name: str, role: str, place: str | None = None) -> None:
        """Add a user and a session of it."""
        place_id = int(self.ids[place]) if place else None
        query = (
            "INSERT INTO users (username, password_hash, role, place_id)"
            " VALUES (%s, %s, %s, %s) RETURNING id"
        )
        self.ids[name] = str(self.one(query, name, _hashed(), role, place_id))
        self.log_in(name)

    def log_in(self, name: str) -> str:
        """Begin a session of a user and return its token."""
        self.tokens[name] = secrets.token_urlsafe(32)
        self.ask(
            "INSERT INTO sessions (token_hash, user_id, expires_at) VALUES (%s, %s, %s)",
            hash_token(self.tokens[name]),
            int(self.ids[name]),
            datetime.now(UTC) + timedelta(hours=1),
        )
        return self.tokens[name]

    def device(
        self, name: str, place: str | None, resident: str | None = None, since_days: float = 1
    ) -> int:
        """Add a device, assigned since some days if there is a resident; return its key."""
        _, salt, hashed = new_secret()
        key = self.one(
            "INSERT INTO devices (id, kind, place_id, salt, secret_hash)"
            " VALUES (%s, 'bed_sensor', %s, %s, %s) RETURNING key",
            name,
            int(self.ids[place]) if place else None,
            salt,
            hashed,
        )
        if resident:
            self.ask(
                "INSERT INTO assignments (device_key, resident_id, during)"
                " VALUES (%s, %s, tstzrange(now() - %s, NULL))",
                key,
                int(self.ids[resident]),
                timedelta(days=since_days),
            )
        return int(key)

    def link(self, user: str, resident: str, *scopes: str) -> None:
        """Let a relative see these sides of a resident, and no others."""
        pair = [int(self.ids[user]), int(self.ids[resident])]
        self.ask(
            "WITH ended AS (UPDATE consents SET withdrawn_at = now()"
            " WHERE user_id = %s AND resident_id = %s AND withdrawn_at IS NULL)"
            " INSERT INTO consents (user_id, resident_id, purpose, scopes, given_by, how)"
            " VALUES (%s, %s, 'family', %s, 'elder', 'paper')",
            *pair,
            *pair,
            list(scopes),
        )

    def alarm(
        self,
        resident: str,
        kind: str = "sos",
        class_: str = "emergency",
        priority: int = 3,
        connection: "psycopg.Connection[dict[str, Any]] | None" = None,
    ) -> str:
        """Raise an alarm, or repeat the one that is there; return its id."""
        subject = f"r{self.ids[resident]}"
        parameters = [
            subject, int(self.ids[resident]), None, None, kind, class_, priority,
            datetime.now(UTC), False, 1, '{"value": 1}', "test",
        ]  # fmt: skip
        query = b"SELECT raise_alarm(%s, %s, %s, %s, %s, %s, %s::smallint, %s, %s, %s, %s, %s)"
        found = b"SELECT max(id)::text AS id FROM alarms WHERE subject = %s AND kind = %s"
        with contextlib.ExitStack() as stack:
            lent = connection or stack.enter_context(self.sql())
            lent.execute(query, parameters)
            row = lent.execute(found, [subject, kind]).fetchone()
            assert row is not None
            return str(row["id"])


def settle(dsn: str) -> World:
    """Return a world with two facilities, A and B, of one district."""
    world = World(dsn)
    world.place("district", None, "district")
    world.place("A", "district")
    world.place("A bed", "A", "bed")
    world.place("B", "district")
    world.resident("anna", "A bed")
    world.resident("bela", "B")
    world.user("admin", "admin")
    world.user("supervisor", "supervisor", "A")
    world.user("nurse", "nurse", "A")
    world.user("nurse-b", "nurse", "B")
    world.user("integrator", "integrator", "A")
    world.user("family", "family")
    world.link("family", "anna", "status", "vitals", "alarms", "events")
    return world


@dataclass
class Api:
    """A running API and its world."""

    address: str
    world: World
    server: uvicorn.Server
    clients: dict[str, httpx.AsyncClient] = field(default_factory=dict)

    def __getitem__(self, user: str) -> httpx.AsyncClient:
        """Return the client of a user, by name; `nobody` has no session."""
        if user not in self.clients:
            token = self.world.tokens.get(user)
            headers = {"authorization": f"Bearer {token}"} if token else {}
            self.clients[user] = httpx.AsyncClient(
                base_url=f"{self.address}/api/v1", headers=headers, timeout=20, trust_env=False
            )
        return self.clients[user]

    @contextlib.asynccontextmanager
    async def stream(
        self, user: str, cursor: int | None = None, **options: Any
    ) -> AsyncIterator["Stream"]:
        """Open the alarm stream as a user and wait until it is ready."""
        ticket = (await self[user].post("/stream/tickets")).json()["ticket"]
        async with self.socket(**options) as socket:
            stream = Stream(socket)
            await stream.say(type="hello", ticket=ticket, cursor=cursor)
            yield stream

    def socket(self, **options: Any) -> connect:
        """Return a WebSocket to the stream that has said nothing yet."""
        # With a full queue the client would read no further, not even the end of the stream.
        options = {"max_queue": None, "close_timeout": 2} | options
        address = self.address.replace("http", "ws", 1)
        return connect(f"{address}/api/v1/stream", proxy=None, **options)


@dataclass
class Stream:
    """One open alarm stream, as a client sees it."""

    socket: ClientConnection

    async def say(self, **frame: object) -> None:
        """Send one frame."""
        await self.socket.send(msgspec.json.encode(frame).decode())

    async def next(self, kind: str) -> dict[str, Any]:
        """Return the next frame of a kind, skipping others; fail after some seconds."""
        async with asyncio.timeout(10):
            while True:
                frame: dict[str, Any] = msgspec.json.decode(await self.socket.recv())
                if frame["type"] == kind:
                    return frame

    async def alarms(self, count: int) -> list[dict[str, Any]]:
        """Return the next alarm frames."""
        return [await self.next("alarm") for _ in range(count)]


@contextlib.asynccontextmanager
async def running(
    world: World, *, environ: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Api]:
    """Serve the API of a world on a free port; `environ` are settings beside the database."""
    app = create_app(Settings(database=world.dsn, **environ or {}), **options)
    config = uvicorn.Config(
        app,
        http=Connection,
        ws=Wire,
        ws_per_message_deflate=False,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=3,
    )
    server = _Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            assert not task.done(), "the API did not start"
            await asyncio.sleep(0.01)
        host, port = listener.getsockname()
        api = Api(f"http://{host}:{port}", world, server)
        try:
            yield api
        finally:
            for client in api.clients.values():
                await client.aclose()
            server.should_exit = True
            await task


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to pytest."""
        yield


@cache
def _hashed() -> str:
    return hash_password(PASSWORD)

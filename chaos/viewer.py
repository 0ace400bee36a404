"""A viewer of the alarm stream, as the station page is one: it reconnects and resumes for ever.

Written against the contract alone; it shares no code with the platform that it tests.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from anxin.config import Address
from chaos.staff import PASSWORD, Person

_SILENCE_SECONDS = 12.0
"""The server pings every 5 s: after so long without a frame the connection is taken for dead."""

_HTTP_OK = frozenset({200, 201})


@dataclass(frozen=True, slots=True)
class Frame:
    """One alarm frame as it arrived."""

    cursor: int
    change: str
    alarm_id: str
    at: datetime
    device: str = ""


@dataclass(slots=True)
class Sight:
    """The viewer's own book."""

    person: Person
    begins_after: int | None = None
    """The cursor of the first `ready`; what came before was never promised."""
    frames: list[Frame] = field(default_factory=list)
    resyncs: int = 0
    connections: int = 0
    taken: dict[str, datetime] = field(default_factory=dict)
    """Alarms whose acknowledgement by this person was answered with OK, and when."""


class Viewer:
    """One person at one screen."""

    def __init__(
        self, person: Person, address: Callable[[], Address], *, takes: float, dice: random.Random
    ) -> None:
        """Prepare; `takes` is the share of new alarms that this person acknowledges."""
        self.sight = Sight(person)
        self.connected = False
        self._address = address
        self._takes = takes
        self._dice = dice
        self._token = ""
        self._cursor: int | None = None
        self._errands: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Watch until cancelled."""
        base = f"http://{self._address()}/api/v1"
        async with httpx.AsyncClient(base_url=base, timeout=5) as client:
            try:
                while True:
                    await self._again(lambda: self._watch(client))
                    await asyncio.sleep(self._dice.uniform(0.05, 0.25))
            finally:
                for errand in self._errands:
                    errand.cancel()
                await asyncio.gather(*self._errands, return_exceptions=True)

    async def _again(self, attempt: Callable[[], Awaitable[None]]) -> bool:
        """Tell whether an attempt succeeded; a broken network or service is no reason to stop."""
        try:
            await attempt()
        except (OSError, TimeoutError, httpx.HTTPError, WebSocketException):
            return False
        return True

    async def _watch(self, client: httpx.AsyncClient) -> None:
        if not self._token:
            await self._log_in(client)
        answer = await client.post("/stream/tickets", headers=self._headers())
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            self._token = ""
        answer.raise_for_status()
        hello = {"type": "hello", "ticket": answer.json()["ticket"], "cursor": self._cursor}
        url = f"ws://{self._address()}/api/v1/stream"
        async with connect(url, open_timeout=5, close_timeout=1, ping_interval=None) as socket:
            await socket.send(json.dumps(hello))
            self.sight.connections += 1
            try:
                while True:
                    await self._take(socket, client)
            finally:
                self.connected = False

    async def _take(self, socket: ClientConnection, client: httpx.AsyncClient) -> None:
        async with asyncio.timeout(_SILENCE_SECONDS):
            frame = json.loads(await socket.recv())
        match frame["type"]:
            case "ready":
                self.connected = True
                if self._cursor is None:
                    self.sight.begins_after = frame["cursor"]
                    self._cursor = frame["cursor"]
            case "resync":
                self.sight.resyncs += 1
            case "alarm":
                alarm = frame["alarm"]
                self._cursor = frame["cursor"]
                self.sight.frames.append(
                    Frame(
                        frame["cursor"],
                        frame["change"],
                        alarm["id"],
                        datetime.now(UTC),
                        alarm["device_id"] or "",
                    )
                )
                await socket.send(json.dumps({"type": "received", "cursor": frame["cursor"]}))
                await socket.send(json.dumps({"type": "displayed", "alarm_id": alarm["id"]}))
                if frame["change"] == "raised" and self._dice.random() < self._takes:
                    self._start(self._acknowledge(client, alarm["id"]))

    async def _acknowledge(self, client: httpx.AsyncClient, alarm_id: str) -> None:
        """Take an alarm; try until the platform has answered, whatever it says."""
        await asyncio.sleep(self._dice.uniform(0, 8))
        answers: list[httpx.Response] = []

        async def ask() -> None:
            answers.append(
                await client.post(f"/alarms/{alarm_id}/acknowledge", headers=self._headers())
            )

        while True:
            if (
                await self._again(ask)
                and answers[-1].status_code < httpx.codes.INTERNAL_SERVER_ERROR
            ):
                if answers[-1].status_code in _HTTP_OK:
                    self.sight.taken[alarm_id] = datetime.now(UTC)
                return
            await asyncio.sleep(self._dice.uniform(0.1, 0.4))

    def _start(self, errand: Awaitable[None]) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def _log_in(self, client: httpx.AsyncClient) -> None:
        answer = await client.post(
            "/auth/login", json={"username": self.sight.person.name, "password": PASSWORD}
        )
        answer.raise_for_status()
        self._token = answer.json()["access_token"]

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

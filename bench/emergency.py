"""From the press of a button to the frame on a nursing station's WebSocket, both on one clock."""

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from websockets.asyncio.client import ClientConnection, connect

from anxin.errors import AnxinError
from bench.generator import publish
from bench.population import Enrolled
from bench.stack import ADMIN_PASSWORD, Stack

_PATIENCE_SECONDS = 20.0
_PRESSES_A_SECOND = 10.0
_BACKGROUND_RATE = 5_000.0
_LEAD_SECONDS = 2.0
"""The background runs so long before the first press, and as long after the last."""


class FrameMissing(AnxinError):
    """An emergency did not reach the station's WebSocket."""


@dataclass(slots=True)
class Station:
    """What one viewer saw: by device, the moment of the first frame of its `sos` alarm."""

    seen_ns: dict[str, int] = field(default_factory=dict)

    async def watch(self, socket: ClientConnection) -> None:
        """Take frames until cancelled."""
        async for frame in socket:
            now_ns = time.monotonic_ns()
            message = json.loads(frame)
            if message["type"] == "alarm" and message["alarm"]["kind"] == "sos":
                self.seen_ns.setdefault(message["alarm"]["device_id"], now_ns)


async def press_to_frame_ms(
    stack: Stack, program: Path, crowd: Sequence[Enrolled], buttons: Sequence[Enrolled], tag: str
) -> list[float]:
    """Press every button once while the crowd publishes; return each one's way in milliseconds."""
    seconds = len(buttons) / _PRESSES_A_SECOND
    with tempfile.TemporaryDirectory(prefix="anxin-sos-") as directory:
        log = Path(directory) / "presses"
        async with watching(stack) as station, asyncio.TaskGroup() as tasks:
            background = tasks.create_task(
                publish(
                    program,
                    stack.mqtt,
                    crowd,
                    window=200,
                    rate=_BACKGROUND_RATE,
                    seconds=seconds + 2 * _LEAD_SECONDS,
                )
            )
            await asyncio.sleep(_LEAD_SECONDS)
            await publish(
                program, stack.mqtt, buttons, sos=str(log), rate=_PRESSES_A_SECOND, tag=tag
            )
            await background
            pressed_ns = _presses(log.read_text(encoding="ascii"))
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while missing := pressed_ns.keys() - station.seen_ns:
                if time.monotonic() > deadline:
                    raise FrameMissing(f"{len(missing)} of {len(pressed_ns)} SOS gave no frame.")
                await asyncio.sleep(0.05)
    return [(station.seen_ns[device] - at_ns) / 1e6 for device, at_ns in pressed_ns.items()]


async def token(client: httpx.AsyncClient) -> str:
    """Log in as `admin` and return the token."""
    answer = await client.post(
        "/auth/login", json={"username": "admin", "password": ADMIN_PASSWORD}
    )
    answer.raise_for_status()
    return str(answer.json()["access_token"])


def base_url(stack: Stack) -> str:
    """Return the root of the API."""
    return f"http://{stack.http}/api/v1"


@asynccontextmanager
async def watching(stack: Stack) -> AsyncIterator[Station]:
    """Hold a station's stream open during the block."""
    async with httpx.AsyncClient(base_url=base_url(stack)) as client:
        headers = {"Authorization": f"Bearer {await token(client)}"}
        answer = await client.post("/stream/tickets", headers=headers)
        answer.raise_for_status()
        ticket = answer.json()["ticket"]
    station = Station()
    async with connect(f"ws://{stack.http}/api/v1/stream") as socket:
        await socket.send(json.dumps({"type": "hello", "ticket": ticket, "cursor": None}))
        while json.loads(await socket.recv())["type"] != "ready":
            pass
        watcher = asyncio.create_task(station.watch(socket), name="station")
        try:
            yield station
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)


def _presses(log: str) -> dict[str, int]:
    rows = (line.split() for line in log.splitlines())
    return {device: int(sent_ns) for _, device, sent_ns, _ in rows}

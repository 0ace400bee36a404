"""A gate that keeps what it is given, and the raw client that talks to a listener."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

from anxin.config import Address
from anxin.errors import DatabaseUnavailable
from ingest.inbound import Device, Inbound, Kind, Outlet
from ingest.listener import Listener
from tests import mqtt_wire as wire
from tests.mqtt_wire import V5
from tests.waiting import eventually

SECRET = "secret"


class RecordingGate:
    """Knows every device by the same secret; commits at once, or when told."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.commits = True
        self.available = True
        self.room = True
        self.inbounds: list[Inbound] = []
        self.outlets: dict[str, Outlet] = {}
        self.left: list[tuple[str, bool]] = []
        self.subscriptions: list[str] = []
        self._held: list[Inbound] = []
        self._resume: list[Callable[[], None]] = []

    async def authenticate(
        self, device_id: str, secret: bytes | None, issued_at: datetime | None = None
    ) -> Device | None:
        """Let in whoever has the secret."""
        await asyncio.sleep(0)
        if not self.available:
            raise DatabaseUnavailable
        right = secret == SECRET.encode() or (secret is None and issued_at is not None)
        return Device(device_id, 1, 0) if right else None

    def recognise(
        self, device_id: str, secret: bytes | None, issued_at: datetime | None
    ) -> Device | None:
        """Know nobody without asking."""
        del device_id, secret, issued_at

    def submit(self, inbound: Inbound) -> None:
        """Keep a run; commit it soon unless commits are held."""
        self.inbounds.append(inbound)
        if self.commits:
            self.loop.call_soon(inbound.done, inbound)
        else:
            self._held.append(inbound)

    def commit(self) -> None:
        """Commit what is held, and everything from now on."""
        self.commits = True
        held, self._held = self._held, []
        for inbound in held:
            inbound.done(inbound)

    @property
    def has_room(self) -> bool:
        """What the test decided."""
        return self.room

    def call_when_room(self, resume: Callable[[], None]) -> None:
        """Keep the call until `make_room`."""
        self._resume.append(resume)

    def make_room(self) -> None:
        """Have room from now on."""
        self.room = True
        waiting, self._resume = self._resume, []
        for resume in waiting:
            resume()

    def connected(self, device: Device, outlet: Outlet) -> None:
        """Keep the way down."""
        self.outlets[device.id] = outlet

    def subscribed(self, device: Device) -> None:
        """Note that down messages can now be sent."""
        self.subscriptions.append(device.id)

    def disconnected(self, device: Device, outlet: Outlet, *, clean: bool) -> None:
        """Note the end, unless the device is already back another way."""
        self.left.append((device.id, clean))
        if self.outlets.get(device.id) is outlet:
            del self.outlets[device.id]

    def payloads(self, device_id: str, kind: Kind = Kind.TELEMETRY) -> list[bytes]:
        """Return everything of one kind from one device, in order."""
        return [
            payload
            for inbound in self.inbounds
            if inbound.device.id == device_id and inbound.kind is kind
            for payload in inbound.payloads
        ]


@contextlib.asynccontextmanager
async def listening(
    *, ssl_context: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[tuple[RecordingGate, Listener]]:
    """Run a listener on a free port of loopback in front of a recording gate."""
    gate = RecordingGate()
    address = Address("127.0.0.1", 0)
    options.setdefault("stop_within_s", 2)
    async with Listener(gate, address, ssl_context=ssl_context, **options) as listener:
        yield gate, listener


class RawClient:
    """A socket that sends what it is told and reads whole packets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int, data: bytes = b"") -> "RawClient":
        """Connect the socket and send the first bytes."""
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        client.send(data)
        return client

    @classmethod
    async def enter(cls, port: int, version: int = V5, **connect: object) -> "RawClient":
        """Connect as a device and read the CONNACK."""
        client = await cls.open(port, wire.connect(version, **connect))  # type: ignore[arg-type]
        answer = await client.packet()
        assert (answer[0], answer[3]) == (0x20, 0), answer.hex()
        return client

    def send(self, data: bytes) -> None:
        """Write bytes."""
        self.writer.write(data)

    async def packet(self, timeout_s: float = 5.0) -> bytes:
        """Read one packet; empty at the end of the stream."""
        async with asyncio.timeout(timeout_s):
            head = await self.reader.read(1)
            if not head:
                return b""
            length, shift = 0, 0
            while True:
                byte = (await self.reader.readexactly(1))[0]
                head += bytes((byte,))
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    return head + await self.reader.readexactly(length)

    async def silent(self) -> bool:
        """Tell whether the server has nothing to say before it answers a ping."""
        self.send(wire.PINGREQ)
        return await self.packet() == b"\xd0\x00"

    def abort(self) -> None:
        """Vanish without a farewell."""
        self.writer.transport.abort()

    async def close(self) -> None:
        """Close the socket and wait until that is done."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


async def stored(
    gate: RecordingGate, device_id: str, count: int, kind: Kind = Kind.TELEMETRY
) -> None:
    """Wait until the gate has this many payloads of a device."""
    await eventually(lambda: len(gate.payloads(device_id, kind)) >= count)

"""A stubborn MQTT 3.1.1 device: it sends again until it is told OK.

Written against the standard alone; it shares no code with the platform that it tests.
"""

import asyncio
import json
import random
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from anxin.errors import AnxinError
from chaos.ledger import Ledger, values

_IN_FLIGHT = 64
_ANSWER_SECONDS = 10.0
_CONNACK, _PUBACK = 0x20, 0x40


class Refused(ConnectionError):
    """The platform did not let the device in. It tries again."""


class UnknownPuback(AnxinError):
    """The platform acknowledged a packet that is not in flight."""


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """One publish, and the facts that it carries as lines of the ledger."""

    kind: str
    payload: bytes
    facts: tuple[str, ...]
    again: bool = False


def readings(device: str, times_ms: Sequence[int], *, again: bool = False) -> Message:
    """Return the telemetry of `device` at these times: an object, or an array of several."""
    objects = [{"ts": ts_ms, **values(device, ts_ms)} for ts_ms in times_ms]
    payload = json.dumps(objects if len(objects) > 1 else objects[0], separators=(",", ":"))
    facts = tuple(f"reading {device} {ts_ms}" for ts_ms in times_ms)
    return Message("telemetry", payload.encode(), facts, again)


def sos(device: str, event_id: str, ts_ms: int, *, again: bool = False) -> Message:
    """Return an emergency of `device`."""
    payload = json.dumps({"id": event_id, "type": "sos", "ts": ts_ms})
    return Message("event", payload.encode(), (f"event {device} {event_id}",), again)


class Publisher:
    """One device: takes messages, connects as often as it must, and keeps the ledger."""

    def __init__(self, device: str, secret: str, address: tuple[str, int], ledger: Ledger) -> None:
        """Prepare a device; nothing connects before `run`."""
        self.device = device
        self.connections = 0
        self.sent_again = 0
        self._secret = secret
        self._address = address
        self._ledger = ledger
        self._waiting: deque[Message] = deque()
        self._in_flight: dict[int, Message] = {}
        self._packet_id = 0
        self._wake = asyncio.Event()
        self._closing = False

    @property
    def pending(self) -> int:
        """How many messages are not acknowledged yet."""
        return len(self._waiting) + len(self._in_flight)

    def offer(self, message: Message) -> None:
        """Take a message; it is sent until it is acknowledged."""
        if not message.again:
            self._ledger.sent(message.facts)
        self._waiting.append(message)
        self._wake.set()

    def close(self) -> None:
        """Let `run` return once everything is acknowledged."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """Stay connected until closed and everything is acknowledged."""
        while not (self._closing and not self.pending):
            try:
                await self._converse()
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                self._take_back()
                await asyncio.sleep(random.uniform(0.05, 0.25))  # noqa: S311 - spreads reconnects

    async def _converse(self) -> None:
        """Hold one connection until it breaks or everything is done."""
        async with asyncio.timeout(_ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(*self._address)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                writer.write(_connect(self.device, self._secret))
                kind, body = await _read_packet(reader)
            if kind != _CONNACK or body[1] != 0:
                raise Refused
            self.connections += 1
            listening = asyncio.create_task(self._listen(reader), name=f"{self.device} acks")
            try:
                await self._talk(writer, listening)
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
        finally:
            writer.close()

    async def _talk(self, writer: asyncio.StreamWriter, listening: "asyncio.Task[None]") -> None:
        while not (self._closing and not self.pending):
            self._wake.clear()
            packets = []
            while self._waiting and len(self._in_flight) < _IN_FLIGHT:
                packets.append(self._next_packet())
            if packets:
                writer.write(b"".join(packets))
                await writer.drain()
                continue
            waking = asyncio.create_task(self._wake.wait())
            await asyncio.wait((waking, listening), return_when=asyncio.FIRST_COMPLETED)
            waking.cancel()
            if listening.done():
                listening.result()
        writer.write(b"\xe0\x00")

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while True:
            kind, body = await _read_packet(reader)
            if kind != _PUBACK:
                continue
            message = self._in_flight.pop(int.from_bytes(body[:2]), None)
            if message is None:
                raise UnknownPuback(self.device)
            self._ledger.acknowledged(message.facts)
            self._wake.set()

    def _next_packet(self) -> bytes:
        message = self._waiting.popleft()
        while True:
            self._packet_id = self._packet_id % 65535 + 1
            if self._packet_id not in self._in_flight:
                break
        self._in_flight[self._packet_id] = message
        return _publish(self.device, message, self._packet_id)

    def _take_back(self) -> None:
        """Put what was not acknowledged in front of the queue again, oldest first."""
        self.sent_again += len(self._in_flight)
        self._waiting.extendleft(reversed(self._in_flight.values()))
        self._in_flight.clear()


async def _read_packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    kind = (await reader.readexactly(1))[0]
    length = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return kind, await reader.readexactly(length)


def _packet(kind: int, body: bytes) -> bytes:
    length = len(body)
    digits = bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | 128 if length else digit)
        if not length:
            return bytes([kind]) + digits + body


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("!H", len(encoded)) + encoded


def _connect(device: str, secret: str) -> bytes:
    flags = 0xC2  # user name, password, clean session
    start = _text("MQTT") + bytes([4, flags]) + struct.pack("!H", 300)
    return _packet(0x10, start + _text(device) + _text(device) + _text(secret))


def _publish(device: str, message: Message, packet_id: int) -> bytes:
    topic = _text(f"anxin/v1/{device}/{message.kind}")
    return _packet(0x32, topic + struct.pack("!H", packet_id) + message.payload)

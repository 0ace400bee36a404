"""A thousand viewers in a process of their own, as cheap as Python makes them.

`python -m bench.crowd PORT COUNT [deflate]` reads one ticket a line, opens that many WebSockets,
prints `ready`, and from then on one line per alarm that has reached everybody: its cursor, and for
each viewer the nanoseconds of the epoch at which its frame arrived. With `deflate` it offers
compression, as every browser does; a server that takes it up compresses for each viewer anew.
"""

import asyncio
import base64
import json
import os
import re
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator
from typing import cast

import uvloop

_CURSOR = re.compile(rb'"type":"alarm","cursor":(\d+)')
_AT_ONCE = 50
_OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"


class Viewer(asyncio.Protocol):
    """One WebSocket: its handshake, its hello, and the moment of each alarm frame."""

    def __init__(self, crowd: "Crowd", ticket: str) -> None:
        """Belong to a crowd."""
        self._crowd = crowd
        self._hello = json.dumps({"type": "hello", "ticket": ticket, "cursor": None}).encode()
        self._rest = b""
        self._open = False
        self._inflate: zlib._Decompress | None = None
        self.ready = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the WebSocket."""
        self._transport = transport = cast("asyncio.Transport", transport)
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            "GET /api/v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            f"Sec-WebSocket-Version: 13\r\n{_OFFER if self._crowd.deflate else ''}\r\n".encode()
        )

    def connection_lost(self, _: Exception | None) -> None:
        """Nobody may leave while it is measured."""
        self._crowd.lost.set()

    def data_received(self, data: bytes) -> None:
        """Take frames; note when each alarm came."""
        at_ns = time.time_ns()
        self._rest += data
        if not self._open:
            head, found, rest = self._rest.partition(b"\r\n\r\n")
            if not found:
                return
            if b" 101 " not in head.split(b"\r\n")[0]:
                self.ready.set_exception(ConnectionError(head.decode("latin-1")))
                return
            self._open, self._rest = True, rest
            if b"permessage-deflate" in head:
                self._inflate = zlib.decompressobj(-15)
            mask = os.urandom(4)
            masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(self._hello))
            size = len(masked)
            length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
            self._transport.write(b"\x81" + length + mask + masked)
        for payload in self._frames():
            if cursor := _CURSOR.search(payload[:80]):
                self._crowd.note(int(cursor[1]), at_ns)
            elif b'"ready"' in payload[:40] and not self.ready.done():
                self.ready.set_result(None)

    def _frames(self) -> Iterator[bytes]:
        """Yield whole frames of a server: unmasked, in one piece."""
        while len(self._rest) >= 2:
            compressed = self._rest[0] & 0x40
            size, start = self._rest[1], 2
            if size >= 126:
                wide = 2 if size == 126 else 8
                size, start = int.from_bytes(self._rest[2 : 2 + wide], "big"), 2 + wide
            if len(self._rest) < start + size:
                return
            payload = self._rest[start : start + size]
            self._rest = self._rest[start + size :]
            if compressed and self._inflate is not None:
                payload = self._inflate.decompress(payload + b"\x00\x00\xff\xff")
            yield payload


class Crowd:
    """All viewers, and what has reached how many of them."""

    def __init__(self, count: int, *, deflate: bool) -> None:
        """Expect so many."""
        self.deflate = deflate
        self._count = count
        self._seen: defaultdict[int, list[int]] = defaultdict(list)
        self.lost = asyncio.Event()

    def note(self, cursor: int, at_ns: int) -> None:
        """An alarm has reached one more; print it when it has reached all."""
        seen = self._seen[cursor]
        seen.append(at_ns)
        if len(seen) == self._count:
            del self._seen[cursor]
            print(cursor, *seen, flush=True)


async def _watch(port: int, tickets: list[str], *, deflate: bool) -> None:
    loop = asyncio.get_running_loop()
    crowd = Crowd(len(tickets), deflate=deflate)
    for start in range(0, len(tickets), _AT_ONCE):
        waiting = []
        for ticket in tickets[start : start + _AT_ONCE]:
            _, viewer = await loop.create_connection(
                lambda ticket=ticket: Viewer(crowd, ticket),  # type: ignore[misc]
                "127.0.0.1",
                port,
            )
            waiting.append(viewer.ready)
        await asyncio.wait_for(asyncio.gather(*waiting), 30)
    print("ready", flush=True)
    await crowd.lost.wait()
    raise ConnectionError("A viewer was cut off.")


def main() -> None:
    """Watch until the process is ended."""
    port, count = int(sys.argv[1]), int(sys.argv[2])
    tickets = [sys.stdin.readline().strip() for _ in range(count)]
    uvloop.run(_watch(port, tickets, deflate="deflate" in sys.argv))


if __name__ == "__main__":
    main()

"""A TCP proxy that makes a route as bad as networks are: slow, cut, half gone, one way only.

It never alters or reorders bytes, as TCP never does: a fault delays them or ends the connection.
"""

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Final, Self

from anxin.config import Address

_CHUNK_BYTES: Final = 1 << 16


class Way(StrEnum):
    """A direction: `UP` from the client to the server, `DOWN` back."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Weather:
    """How a route treats every byte from now on; the default is calm."""

    delay_seconds: float = 0.0
    """What is read waits so long before it is passed on."""
    held: frozenset[Way] = frozenset()
    """In these directions nothing arrives; it does once the weather changes."""
    cut_after_bytes: int | None = None
    """Each connection is reset once so many bytes went up since the change."""
    refused: bool = False
    """New connections are reset at once."""


CALM: Final = Weather()


class Proxy:
    """Listens on loopback, connects each client to `target`; an async context manager."""

    def __init__(self, target: Address, listen: Address) -> None:
        """Prepare a route from `listen` to `target`; nothing is opened before `async with`."""
        self.target = target
        self.listen = listen
        self.accepted = 0
        self._server: asyncio.Server | None = None
        self._routes: set[_Route] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._weather = CALM
        self._changed = asyncio.Event()

    @property
    def open(self) -> int:
        """How many connections pass through now."""
        return len(self._routes)

    @property
    def weather(self) -> Weather:
        """How bytes are treated now."""
        return self._weather

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._take, self.listen.host, self.listen.port)
        port = self._server.sockets[0].getsockname()[1]
        self.listen = Address(self.listen.host, port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Reset every connection and stop listening."""
        if self._server is not None:
            self._server.close()
        self.set(CALM)
        self.reset()
        await asyncio.gather(*self._serving)

    def set(self, weather: Weather) -> None:
        """Treat every byte like this from now on, in open connections as well.

        A route that refuses ends the open ones, too.
        """
        self._weather = weather
        for route in self._routes:
            route.went_up = 0
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if weather.refused:
            self.reset()

    def reset(self) -> int:
        """Reset both legs of every connection and return how many there were."""
        for route in self._routes:
            route.break_off()
        return len(self._routes)

    def vanish(self, side: Way) -> int:
        """Let one end of every connection vanish: the other is not told until `bury`.

        `Way.UP`: the client's leg is reset while the server still sees an open connection.
        `Way.DOWN`: the server's leg is reset while the client still sees one. Returns how many.
        """
        for route in self._routes:
            route.vanish(side)
        return len(self._routes)

    def bury(self) -> None:
        """Reset what is left of the connections of which one end has vanished."""
        for route in self._routes:
            if route.half_open:
                route.break_off()

    async def passes(self, route: "_Route", way: Way, size: int) -> None:
        """Return when bytes that were just read may go on."""
        if delay := self._weather.delay_seconds:
            await asyncio.sleep(delay)
        while way in self._weather.held:
            await self._changed.wait()
        if way is Way.UP:
            route.went_up += size
            limit = self._weather.cut_after_bytes
            if limit is not None and route.went_up > limit:
                raise _Cut(route.went_up - limit)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.create_task(self._serve((reader, writer)), name=f"route to {self.target}")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, client: "_Leg") -> None:
        if self._weather.refused:
            client[1].transport.abort()
            return
        try:
            server = await asyncio.open_connection(self.target.host, self.target.port)
        except OSError:
            client[1].transport.abort()
            return
        route = _Route(self, client, server)
        self._routes.add(route)
        try:
            await route.run()
        finally:
            self._routes.discard(route)


class _Cut(ConnectionError):
    """The route breaks off here; `excess` bytes of the chunk no longer pass."""

    def __init__(self, excess: int) -> None:
        super().__init__()
        self.excess = excess


_Leg = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Route:
    """One connection through the proxy: a leg to the client, a leg to the server."""

    def __init__(self, proxy: Proxy, client: _Leg, server: _Leg) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._broken = asyncio.Event()
        self.went_up = 0
        self.half_open = False

    async def run(self) -> None:
        """Pass bytes both ways until either end closes or the route breaks."""
        pumps = [
            asyncio.create_task(self._pump(Way.UP, self._client[0], self._server[1])),
            asyncio.create_task(self._pump(Way.DOWN, self._server[0], self._client[1])),
        ]
        breaking = asyncio.create_task(self._broken.wait())
        try:
            flowing = set(pumps)
            while flowing and not breaking.done():
                done, _ = await asyncio.wait(
                    (*flowing, breaking), return_when=asyncio.FIRST_COMPLETED
                )
                flowing -= done
                if not self.half_open and any(pump.exception() for pump in done & set(pumps)):
                    break
            if self.half_open:
                await breaking
        finally:
            for task in (*pumps, breaking):
                task.cancel()
            await asyncio.gather(*pumps, breaking, return_exceptions=True)
            # In order after an end in order: what was written before still goes out.
            in_order = not flowing and not self._broken.is_set()
            for _, writer in (self._client, self._server):
                if in_order:
                    writer.close()
                else:
                    writer.transport.abort()

    def break_off(self) -> None:
        """Reset both legs."""
        self._broken.set()

    def vanish(self, side: Way) -> None:
        """Reset the leg of one end; the other leg stays open and silent."""
        self.half_open = True
        gone = self._client if side is Way.UP else self._server
        gone[1].transport.abort()

    async def _pump(
        self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while chunk := await reader.read(_CHUNK_BYTES):
            try:
                await self._proxy.passes(self, way, len(chunk))
            except _Cut as cut:
                writer.write(chunk[: len(chunk) - cut.excess])
                await writer.drain()
                self.break_off()
                return
            if self.half_open:
                # The other end has vanished: what still comes is swallowed.
                continue
            writer.write(chunk)
            await writer.drain()
        if not self.half_open and writer.can_write_eof():
            writer.write_eof()

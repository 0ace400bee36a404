"""The proxy's weather on real sockets."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from anxin.config import Address
from chaos.proxy import CALM, Proxy, Way, Weather
from tests.waiting import eventually

ANY = Address("127.0.0.1", 0)


class Echo:
    """Sends back what it hears and remembers how each conversation ended."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while chunk := await reader.read(4096):
                self.heard += chunk
                writer.write(chunk)
                await writer.drain()
        except ConnectionError:
            return
        finally:
            self.open -= 1
            writer.transport.abort()


@pytest.fixture
async def echo() -> AsyncIterator[tuple[Echo, Proxy]]:
    server = Echo()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        async with Proxy(Address("127.0.0.1", port), ANY) as proxy:
            yield server, proxy


async def connected(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(proxy.listen.host, proxy.listen.port)
    writer.write(b"hello")
    assert await asyncio.wait_for(reader.readexactly(5), 5) == b"hello"
    return reader, writer


async def ended(reader: asyncio.StreamReader) -> bool:
    """Tell whether the connection is over, in order or not."""
    try:
        return await asyncio.wait_for(reader.read(1), 5) == b""
    except ConnectionError:
        return True


async def silent(reader: asyncio.StreamReader, seconds: float = 0.2) -> bool:
    try:
        await asyncio.wait_for(reader.read(1), seconds)
    except TimeoutError:
        return True
    return False


async def test_in_calm_weather_bytes_and_the_end_pass(echo: tuple[Echo, Proxy]) -> None:
    server, proxy = echo
    reader, writer = await connected(proxy)
    writer.write(b"x" * 300_000)
    assert await asyncio.wait_for(reader.readexactly(300_000), 5) == b"x" * 300_000
    writer.close()
    await eventually(lambda: server.open == 0 and proxy.open == 0)


async def test_a_delay_is_added_in_each_direction(echo: tuple[Echo, Proxy]) -> None:
    _, proxy = echo
    reader, writer = await connected(proxy)
    proxy.set(Weather(delay_seconds=0.15))
    loop = asyncio.get_running_loop()
    began = loop.time()
    writer.write(b"a")
    await reader.readexactly(1)
    assert loop.time() - began >= 0.3
    writer.close()


async def test_what_is_held_in_one_direction_arrives_when_the_weather_clears(
    echo: tuple[Echo, Proxy],
) -> None:
    server, proxy = echo
    reader, writer = await connected(proxy)
    proxy.set(Weather(held=frozenset({Way.DOWN})))
    writer.write(b"abc")
    await eventually(lambda: bytes(server.heard) == b"helloabc")
    assert await silent(reader)
    proxy.set(CALM)
    assert await asyncio.wait_for(reader.readexactly(3), 5) == b"abc"
    proxy.set(Weather(held=frozenset({Way.UP})))
    writer.write(b"def")
    assert await silent(reader)
    assert bytes(server.heard) == b"helloabc"
    proxy.set(CALM)
    assert await asyncio.wait_for(reader.readexactly(3), 5) == b"def"
    writer.close()


async def test_a_reset_ends_both_legs(echo: tuple[Echo, Proxy]) -> None:
    server, proxy = echo
    reader, writer = await connected(proxy)
    assert proxy.reset() == 1
    assert await ended(reader)
    await eventually(lambda: server.open == 0)
    writer.close()


async def test_a_cut_lets_exactly_so_many_bytes_pass(echo: tuple[Echo, Proxy]) -> None:
    server, proxy = echo
    _, writer = await connected(proxy)
    proxy.set(Weather(cut_after_bytes=7))
    writer.write(b"0123456789")
    await eventually(lambda: server.open == 0)
    assert bytes(server.heard) == b"hello0123456"
    writer.close()
    _, writer = await connected(proxy)
    writer.write(b"6789")
    await eventually(lambda: server.open == 0)
    assert bytes(server.heard) == b"hello0123456hello67"
    writer.close()


async def test_a_route_that_refuses_ends_what_is_open_and_lets_nobody_in(
    echo: tuple[Echo, Proxy],
) -> None:
    server, proxy = echo
    reader, writer = await connected(proxy)
    proxy.set(Weather(refused=True))
    assert await ended(reader)
    await eventually(lambda: server.open == 0)
    second, second_writer = await asyncio.open_connection(proxy.listen.host, proxy.listen.port)
    assert await ended(second)
    proxy.set(CALM)
    _, third_writer = await connected(proxy)
    for one in (writer, second_writer, third_writer):
        one.close()


@pytest.mark.parametrize("side", Way)
async def test_half_open_means_that_one_end_is_not_told(
    echo: tuple[Echo, Proxy], side: Way
) -> None:
    server, proxy = echo
    reader, writer = await connected(proxy)
    assert proxy.vanish(side) == 1
    if side is Way.UP:
        assert await ended(reader)
        assert server.open == 1
    else:
        await eventually(lambda: server.open == 0)
        writer.write(b"into the void")
        assert await silent(reader)
    newer_reader, newer_writer = await connected(proxy)
    proxy.bury()
    await eventually(lambda: proxy.open == 1)
    newer_writer.write(b"still here")
    assert await asyncio.wait_for(newer_reader.readexactly(10), 5) == b"still here"
    newer_writer.close()
    writer.close()


async def test_a_server_that_is_away_ends_the_client_at_once() -> None:
    async with await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
    async with Proxy(Address("127.0.0.1", port), ANY) as proxy:
        reader, writer = await asyncio.open_connection(proxy.listen.host, proxy.listen.port)
        assert await ended(reader)
        writer.close()

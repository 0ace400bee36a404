"""The stubborn publisher against a server that breaks off in the middle of an answer."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from chaos.ledger import Ledger, read
from chaos.publisher import Publisher, readings, sos


class BreakingServer:
    """Takes publishes, acknowledges every one, and hangs up after `patience` of them."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.taken: list[object] = []
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._packet(reader)
            writer.write(b"\x20\x02\x00\x00")
            for number in range(10_000):
                kind, body = await self._packet(reader)
                if kind != 0x32:
                    return
                topic = int.from_bytes(body[:2])
                self.taken.append(json.loads(body[topic + 4 :]))
                if number < self.patience or self.connections > 3:
                    writer.write(b"\x40\x02" + body[topic + 2 : topic + 4])
                else:
                    return
        except asyncio.IncompleteReadError:
            return
        finally:
            writer.close()

    async def _packet(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        kind = (await reader.readexactly(1))[0]
        length = (await reader.readexactly(1))[0]
        if length > 127:
            length = length - 128 + 128 * (await reader.readexactly(1))[0]
        return kind, await reader.readexactly(length)


@asynccontextmanager
async def listening(server: BreakingServer) -> AsyncIterator[tuple[str, int]]:
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listener:
        yield listener.sockets[0].getsockname()[:2]


async def test_what_was_not_acknowledged_is_sent_again_until_it_is(tmp_path: Path) -> None:
    server = BreakingServer(patience=3)
    path = tmp_path / "ledger.txt"
    async with listening(server) as address:
        with Ledger(path) as ledger:
            publisher = Publisher("chaos-1", "secret", address, ledger)
            for number in range(20):
                publisher.offer(readings("chaos-1", [1000 + 2 * number, 1001 + 2 * number]))
            publisher.offer(sos("chaos-1", "sos-0", 5000))
            publisher.close()
            await asyncio.wait_for(publisher.run(), 10)
            assert ledger.messages_acknowledged == 21
    assert publisher.pending == 0
    assert server.connections == 4
    assert publisher.sent_again > 0
    book = read(path.read_text().splitlines(keepends=True))
    assert set(book.readings) == book.readings_acknowledged
    assert len(book.readings) == 40
    assert set(book.readings.values()) == {1}
    assert book.events_acknowledged == {("chaos-1", "sos-0")}
    sent = {json.dumps(one) for one in server.taken}
    assert len(sent) == 21
    assert len(server.taken) > 21

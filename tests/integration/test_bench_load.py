"""The load generator in C against a server that looks at every packet."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from anxin.config import Address
from anxin.vitals import COLUMN, HIGH, LOW
from bench.generator import LoadFailed, NoCompiler, compiled, publish
from bench.population import Enrolled

DEVICES = [Enrolled(f"bench-{number}", f"secret-{number}", number) for number in range(1, 5)]


@pytest.fixture(scope="module")
def program() -> Path:
    try:
        return compiled()
    except NoCompiler as reason:
        pytest.skip(str(reason))


class Broker:
    """Takes CONNECT and PUBLISH; acknowledges in the reverse order of each buffer it reads."""

    def __init__(self, *, accept: bool = True, patience: int = 1_000_000) -> None:
        self.accept = accept
        self.patience = patience
        self.logins: dict[str, str] = {}
        self.taken: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.most_in_flight = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        buffer = b""
        while chunk := await reader.read(1 << 16):
            buffer += chunk
            answers: list[bytes] = []
            while (end := _packet_end(buffer)) is not None:
                start, stop = end
                answers.insert(0, self._answer(buffer[0], buffer[start:stop]))
                buffer = buffer[stop:]
            self.most_in_flight = max(self.most_in_flight, len(answers))
            writer.write(b"".join(answers))
            if sum(map(len, self.taken.values())) > self.patience:
                break
        writer.close()

    def _answer(self, kind: int, body: bytes) -> bytes:
        if kind == 0x10:
            texts = _texts(body[10:])
            assert texts[0] == texts[1]
            self.logins[texts[1]] = texts[2]
            return b"\x20\x02\x00" + (b"\x00" if self.accept else b"\x05")
        assert kind == 0x32
        topic_end = 2 + int.from_bytes(body[:2])
        _, _, device, _ = (topic := body[2:topic_end].decode()).split("/")
        self.taken[device].append(json.loads(body[topic_end + 2 :]) | {"topic": topic})
        return b"\x40\x02" + body[topic_end : topic_end + 2]


def _packet_end(buffer: bytes) -> tuple[int, int] | None:
    length = shift = 0
    for at in range(1, min(len(buffer), 5)):
        length |= (buffer[at] & 127) << shift
        shift += 7
        if buffer[at] < 128:
            return (at + 1, at + 1 + length) if len(buffer) >= at + 1 + length else None
    return None


def _texts(body: bytes) -> list[str]:
    texts = []
    while body:
        end = 2 + int.from_bytes(body[:2])
        texts.append(body[2:end].decode())
        body = body[end:]
    return texts


@asynccontextmanager
async def listening(broker: Broker) -> AsyncIterator[Address]:
    async with await asyncio.start_server(broker.serve, "127.0.0.1", 0) as listener:
        yield Address(*listener.sockets[0].getsockname()[:2])


async def test_every_message_is_a_reading_of_the_contract_and_lies_in_the_live_window(
    program: Path,
) -> None:
    broker = Broker()
    async with listening(broker) as mqtt:
        load = await publish(program, mqtt, DEVICES, window=50, messages=2_000)
    assert load.sent == load.acked == 2_000
    assert broker.logins == {device.id: device.secret for device in DEVICES}
    assert sum(map(len, broker.taken.values())) == 2_000
    now_ms = time.time() * 1000
    for device, messages in broker.taken.items():
        times = [message.pop("ts") for message in messages]
        assert times == sorted(set(times))
        assert now_ms - 600_000 < times[0] <= times[-1] < now_ms + 120_000
        for message in messages:
            assert message.pop("topic") == f"anxin/v1/{device}/telemetry"
            assert len(message) == 7
            for metric, value in message.items():
                assert LOW[COLUMN[metric]] < value < HIGH[COLUMN[metric]]


async def test_a_window_of_one_has_one_message_in_flight(program: Path) -> None:
    broker = Broker()
    async with listening(broker) as mqtt:
        await publish(program, mqtt, DEVICES, window=1, messages=400)
    assert broker.most_in_flight == 1


async def test_a_rate_is_kept(program: Path) -> None:
    broker = Broker()
    async with listening(broker) as mqtt:
        load = await publish(program, mqtt, DEVICES, window=100, rate=500, seconds=1)
    assert load.acked == 500
    assert 0.9 < load.seconds < 1.3
    assert 0 < load.p50_ms <= load.p90_ms <= load.p99_ms <= load.max_ms


async def test_an_sos_of_every_button_is_sent_and_its_moment_written_down(
    program: Path, tmp_path: Path
) -> None:
    broker = Broker()
    log = tmp_path / "presses"
    before_ns = time.monotonic_ns()
    async with listening(broker) as mqtt:
        load = await publish(program, mqtt, DEVICES, rate=100, sos=str(log), tag="try")
    assert load.acked == len(DEVICES)
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [line[:2] for line in lines] == [
        [f"try-{number}", device.id] for number, device in enumerate(DEVICES)
    ]
    for event_id, device, sent_ns, acked_ns in lines:
        assert before_ns < int(sent_ns) < int(acked_ns) < time.monotonic_ns()
        (event,) = broker.taken[device]
        assert event["id"] == event_id
        assert event["type"] == "sos"
        assert abs(event["ts"] - time.time() * 1000) < 60_000
        assert event["topic"] == f"anxin/v1/{device}/event"


async def test_a_refused_device_ends_the_run_and_is_named(program: Path) -> None:
    async with listening(Broker(accept=False)) as mqtt:
        with pytest.raises(LoadFailed, match="bench-1: was refused"):
            await publish(program, mqtt, DEVICES)


async def test_a_connection_that_is_cut_ends_the_run(program: Path) -> None:
    async with listening(Broker(patience=100)) as mqtt:
        with pytest.raises(LoadFailed, match="bench-"):
            await publish(program, mqtt, DEVICES, window=10, seconds=5)

"""The listener towards raw sockets: promises, clocks, limits, sessions."""

import asyncio
import contextlib
import time
from typing import Any

import pytest
import uvloop
from structlog.testing import capture_logs

import ingest.listener
from anxin.config import Address
from anxin.errors import PortTaken
from ingest.inbound import Kind
from ingest.listener import Listener
from ingest.mqtt.session import WAITING_LIMIT, WINDOW
from tests import mqtt_wire as wire
from tests.integration.recording_gate import RawClient, RecordingGate, listening, stored
from tests.mqtt_wire import V3, V5
from tests.waiting import eventually

COMMAND = "anxin/v1/bed-1/command"
STATE = "anxin/v1/bed-1/state"
OFFLINE = b'{"online":false}'


@pytest.mark.parametrize("qos", [1, 2])
async def test_nothing_is_acknowledged_before_the_commit(qos: int) -> None:
    async with listening() as (gate, listener):
        gate.commits = False
        client = await RawClient.enter(listener.port)
        client.send(wire.publish(qos=qos, packet_id=1) + wire.publish(qos=qos, packet_id=2))
        await stored(gate, "bed-1", 2)
        assert await client.silent()
        gate.commit()
        first = {1: 0x40, 2: 0x50}[qos]
        assert await client.packet() == bytes((first, 2, 0, 1))
        assert await client.packet() == bytes((first, 2, 0, 2))
        await client.close()


async def test_event_is_acknowledged_before_telemetry_that_commits_later() -> None:
    async with listening() as (gate, listener):
        gate.commits = False
        client = await RawClient.enter(listener.port)
        client.send(wire.publish(packet_id=1))
        client.send(wire.publish(topic="anxin/v1/bed-1/event", packet_id=2))
        await stored(gate, "bed-1", 1, Kind.EVENT)
        telemetry, event = gate.inbounds
        event.done(event)
        assert await client.packet() == wire.puback(2)
        telemetry.done(telemetry)
        assert await client.packet() == wire.puback(1)
        await client.close()


async def test_acknowledgements_of_one_commit_leave_in_one_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with listening() as (gate, listener):
        gate.commits = False
        client = await RawClient.enter(listener.port)
        for number in range(1, 4):
            client.send(wire.publish(packet_id=number))
            await stored(gate, "bed-1", number)
        writes: list[bytes] = []
        link = next(iter(listener._links))
        assert link._transport is not None
        monkeypatch.setattr(link, "_transport", _Spy(link._transport, writes))
        gate.commit()
        await eventually(lambda: writes)
        assert writes == [b"".join(map(wire.puback, (1, 2, 3)))]
        await client.close()


class _Spy:
    """Stands before a transport and notes what is written."""

    def __init__(self, transport: asyncio.Transport, writes: list[bytes]) -> None:
        self._transport, self._writes = transport, writes

    def write(self, data: bytes) -> None:
        """Note and pass on."""
        self._writes.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> object:
        """Everything else is the transport's."""
        return getattr(self._transport, name)


async def test_silent_device_is_cut_off_after_one_and_a_half_keep_alives() -> None:
    async with listening() as (gate, listener):
        will = (STATE, OFFLINE)
        client = await RawClient.enter(listener.port, keep_alive_s=1, will=will)
        started = time.monotonic()
        assert (await client.packet())[:3:2] == b"\xe0\x8d"
        assert 1.4 < time.monotonic() - started < 3
        assert gate.payloads("bed-1", Kind.STATE) == [OFFLINE]
        assert gate.left == [("bed-1", False)]
        assert listener.protocol_errors == {"keep_alive_timeout": 1}
        assert await client.packet() == b""
        await client.close()


async def test_device_that_speaks_in_time_stays() -> None:
    async with listening() as (_, listener):
        client = await RawClient.enter(listener.port, keep_alive_s=1)
        started = time.monotonic()
        while time.monotonic() - started < 2.5:
            assert await client.silent()
            with contextlib.suppress(TimeoutError):
                await client.packet(timeout_s=0.5)
                pytest.fail("The server had something to say.")
        await client.close()


async def test_stranger_without_a_connect_is_cut_off() -> None:
    async with listening(connect_timeout_s=0.2) as (_, listener):
        client = await RawClient.open(listener.port, b"\x10")
        with contextlib.suppress(ConnectionResetError):
            assert await client.packet() == b""
        await eventually(lambda: listener.refused == {"connect_timeout": 1})
        await client.close()


@pytest.mark.parametrize(("version", "code"), [(V3, 3), (V5, 0x88)])
async def test_device_is_told_to_come_back_while_the_database_is_away(
    version: int, code: int
) -> None:
    async with listening() as (gate, listener):
        gate.available = False
        client = await RawClient.open(listener.port, wire.connect(version))
        assert (await client.packet())[3] == code
        assert await client.packet() == b""
        assert listener.refused == {"server_unavailable": 1}
        await client.close()


async def test_fault_behind_the_gate_refuses_one_device_and_harms_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with listening() as (gate, listener):
        neighbour = await RawClient.enter(listener.port, user="bed-2")

        async def fail(*_: object) -> None:
            await asyncio.sleep(0)
            raise ZeroDivisionError

        monkeypatch.setattr(gate, "authenticate", fail)
        with capture_logs() as logs:
            client = await RawClient.open(listener.port, wire.connect())
            assert (await client.packet())[3] == 0x80
        assert [(line["event"], line["device"]) for line in logs] == [("admission_failed", "bed-1")]
        assert await neighbour.silent()
        await client.close()
        await neighbour.close()


async def test_device_over_its_rate_is_slowed_down_and_loses_nothing() -> None:
    async with listening(device_rate=200, device_burst=50) as (gate, listener):
        slow = await RawClient.enter(listener.port)
        neighbour = await RawClient.enter(listener.port, user="bed-2")
        started = time.monotonic()
        for number in range(1, 201):
            slow.send(wire.publish(packet_id=number, payload=b"%d" % number))
            await slow.writer.drain()
            if number % 20 == 0:
                await eventually(lambda: gate.payloads("bed-1"))
        neighbour.send(wire.publish(topic="anxin/v1/bed-2/event"))
        assert await neighbour.packet() == wire.puback(1)
        acknowledged = [await slow.packet() for _ in range(200)]
        slow.send(wire.publish(packet_id=201))
        assert await slow.packet() == wire.puback(201)
        assert time.monotonic() - started > 0.7  # (201 - 50) / 200 per second
        assert acknowledged == [wire.puback(number) for number in range(1, 201)]
        assert gate.payloads("bed-1")[:200] == [b"%d" % number for number in range(1, 201)]
        await slow.close()
        await neighbour.close()


async def test_full_gate_stops_the_reading_and_a_quiet_device_still_gets_through() -> None:
    async with listening(device_rate=0) as (gate, listener):
        busy = await RawClient.enter(listener.port)
        quiet = await RawClient.enter(listener.port, user="button-1")
        gate.room = False
        busy.send(wire.publish(packet_id=1))
        assert await busy.packet() == wire.puback(1)
        busy.send(wire.publish(packet_id=2))
        quiet.send(wire.publish(topic="anxin/v1/button-1/event", packet_id=7))
        assert await quiet.packet() == wire.puback(7)
        assert len(gate.payloads("bed-1")) == 1
        gate.make_room()
        assert await busy.packet() == wire.puback(2)
        await busy.close()
        await quiet.close()


async def test_silence_does_not_count_while_the_device_is_not_read() -> None:
    async with listening() as (gate, listener):
        client = await RawClient.enter(listener.port, keep_alive_s=1)
        gate.room = False
        client.send(wire.publish(packet_id=1))
        assert await client.packet() == wire.puback(1)
        with pytest.raises(TimeoutError):
            await client.packet(timeout_s=2)
        gate.make_room()
        assert await client.silent()
        await client.close()


async def test_device_that_goes_on_sending_still_reads_why_it_was_cut_off() -> None:
    async with listening(device_rate=0) as (_, listener):
        client = await RawClient.enter(listener.port, V5)
        client.send(wire.publish(topic="anxin/v1/bed-2/event"))
        for _ in range(40):
            client.send(wire.publish(payload=bytes(100_000)))
        assert (await client.packet())[:3:2] == b"\xe0\x87"
        await client.close()


async def test_device_that_leaves_its_commands_unacknowledged_is_cut_off() -> None:
    async with listening() as (gate, listener):
        client = await RawClient.enter(listener.port)
        client.send(wire.subscribe(V5, 1, (COMMAND, 1)))
        await client.packet()
        outlet = gate.outlets["bed-1"]
        taken = 0
        while outlet.publish(COMMAND, b"x"):
            taken += 1
        assert taken == WINDOW + WAITING_LIMIT
        packets = [await client.packet() for _ in range(WINDOW + 1)]
        assert packets[-1][:3:2] == b"\xe0\x97"
        assert listener.connections == 0
        await client.close()


async def test_device_that_reads_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.listener, "UNREAD_TIMEOUT_S", 0.2)
    async with listening(device_rate=0) as (gate, listener):
        client = await RawClient.enter(listener.port)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(wire.subscribe(V5, 1, (COMMAND, 0)))
        await eventually(lambda: gate.outlets["bed-1"].publish(COMMAND, b"x"))
        outlet = gate.outlets["bed-1"]
        while outlet.publish(COMMAND, bytes(60_000), qos=0):
            assert listener.connections == 1
            await asyncio.sleep(0)  # lets the bytes go out
        await eventually(lambda: listener.protocol_errors == {"quota_exceeded": 1})
        await eventually(lambda: listener.connections == 0)
        client.abort()


# Sessions and wills


@pytest.mark.parametrize(("version", "last"), [(V3, b""), (V5, b"\xe0\x8e")])
async def test_same_client_connecting_again_takes_over(version: int, last: bytes) -> None:
    async with listening() as (gate, listener):
        old = await RawClient.enter(listener.port, version)
        new = await RawClient.enter(listener.port, version)
        assert (await old.packet())[:3:2] == last
        assert await new.silent()
        assert listener.connections == 1
        assert gate.left == [("bed-1", False)]
        assert "bed-1" in gate.outlets
        await old.close()
        await new.close()


async def test_other_client_identifier_of_the_same_device_is_no_takeover() -> None:
    async with listening() as (_, listener):
        one = await RawClient.enter(listener.port)
        two = await RawClient.enter(listener.port, client_id="c2")
        assert await one.silent()
        assert await two.silent()
        assert listener.connections == 2
        await one.close()
        await two.close()


@pytest.mark.parametrize("version", [V3, V5])
async def test_session_keeps_subscriptions_and_sends_again_what_was_not_acknowledged(
    version: int,
) -> None:
    minute = b"\x11\x00\x00\x00\x3c" if version == V5 else b""
    async with listening() as (gate, listener):
        keep = wire.connect(version, clean=False, properties=minute)
        client = await RawClient.open(listener.port, keep)
        assert (await client.packet())[2] == 0
        client.send(wire.subscribe(version, 1, (COMMAND, 1)))
        await client.packet()
        arrived: list[bool] = []
        gate.outlets["bed-1"].publish(COMMAND, b"go", delivered=lambda: arrived.append(True))
        sent = await client.packet()
        client.abort()
        await eventually(lambda: gate.left)
        client = await RawClient.open(listener.port, keep)
        assert (await client.packet())[2] == 1
        assert await client.packet() == bytes((sent[0] | 8,)) + sent[1:]
        assert not arrived
        client.send(wire.puback(1))
        await eventually(lambda: arrived)
        await client.close()


async def test_clean_start_ends_the_kept_session() -> None:
    async with listening() as (gate, listener):
        client = await RawClient.enter(
            listener.port, clean=False, properties=b"\x11\x00\x00\x00\x3c"
        )
        client.send(wire.subscribe(V5, 1, (COMMAND, 1)))
        await client.packet()
        await client.close()
        await eventually(lambda: gate.left)
        client = await RawClient.open(listener.port, wire.connect())
        assert (await client.packet())[2] == 0
        await eventually(lambda: "bed-1" in gate.outlets)
        assert not gate.outlets["bed-1"].publish(COMMAND, b"x")
        await client.close()


async def test_session_is_forgotten_when_its_time_is_over() -> None:
    async with listening() as (_, listener):
        second = b"\x11\x00\x00\x00\x01"
        client = await RawClient.enter(listener.port, clean=False, properties=second)
        await client.close()
        await eventually(lambda: listener.connections == 0)
        assert listener.clients
        await eventually(lambda: not listener.clients)


async def test_oldest_kept_session_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.listener, "KEPT_SESSIONS", 2)
    async with listening() as (_, listener):
        for number in range(4):
            client = await RawClient.enter(listener.port, V3, client_id=f"c{number}", clean=False)
            await client.close()
            await eventually(lambda: listener.connections == 0)
        assert [client_id for _, client_id in listener.clients] == ["c2", "c3"]


async def test_qos_2_goes_on_over_a_new_connection_of_its_session() -> None:
    async with listening() as (gate, listener):
        gate.commits = False
        client = await RawClient.enter(listener.port, V3, clean=False)
        client.send(wire.publish(V3, qos=2, packet_id=5))
        await stored(gate, "bed-1", 1)
        client.abort()
        await eventually(lambda: gate.left)
        client = await RawClient.enter(listener.port, V3, clean=False)
        client.send(wire.publish(V3, qos=2, packet_id=5, flags=8))
        assert await client.silent()
        gate.commit()
        assert await client.packet() == b"\x50\x02\x00\x05"
        client.send(wire.pubrel(5))
        assert await client.packet() == b"\x70\x02\x00\x05"
        assert len(gate.payloads("bed-1")) == 1
        await client.close()


@pytest.mark.parametrize("version", [V3, V5])
async def test_will_is_handed_up_when_the_device_vanishes_and_not_after_a_farewell(
    version: int,
) -> None:
    async with listening() as (gate, listener):
        polite = await RawClient.enter(
            listener.port,
            version,
            user="bed-2",
            will=(
                "anxin/v1/bed-2/state",
                OFFLINE,
            ),
        )
        polite.send(wire.DISCONNECT)
        assert await polite.packet() == b""
        lost = await RawClient.enter(listener.port, version, will=(STATE, OFFLINE))
        lost.abort()
        await stored(gate, "bed-1", 1, Kind.STATE)
        assert gate.payloads("bed-2", Kind.STATE) == []
        assert gate.left == [("bed-2", True), ("bed-1", False)]
        await polite.close()


DELAYED: dict[str, Any] = {
    "will": (STATE, OFFLINE),
    "will_properties": b"\x18\x00\x00\x00\x01",
    "properties": b"\x11\x00\x00\x00\x3c",
    "clean": False,
}


async def test_delayed_will_is_handed_up_late_and_void_when_the_device_is_back_in_time() -> None:
    async with listening() as (gate, listener):
        (await RawClient.enter(listener.port, **DELAYED)).abort()
        await eventually(lambda: gate.left)
        back = await RawClient.enter(listener.port, **DELAYED)
        lost_at = time.monotonic()
        (await RawClient.enter(listener.port, client_id="c2", **DELAYED)).abort()
        await stored(gate, "bed-1", 1, Kind.STATE)
        assert time.monotonic() - lost_at > 0.9
        assert await back.silent()
        assert gate.payloads("bed-1", Kind.STATE) == [OFFLINE]
        await back.close()


async def test_clean_start_hands_up_the_delayed_will_at_once() -> None:
    async with listening() as (gate, listener):
        (await RawClient.enter(listener.port, **DELAYED)).abort()
        await eventually(lambda: gate.left)
        client = await RawClient.enter(listener.port)
        assert gate.payloads("bed-1", Kind.STATE) == [OFFLINE]
        await client.close()


async def test_revoked_device_is_cut_off_at_once_and_leaves_no_will() -> None:
    async with listening() as (gate, listener):
        client = await RawClient.enter(listener.port, will=(STATE, OFFLINE))
        link = gate.outlets["bed-1"]
        link._device.revoked = True  # type: ignore[attr-defined]
        link.close("The secret was revoked.")
        answer = await client.packet()
        assert answer[:3:2] == b"\xe0\x87"
        assert b"revoked" in answer
        assert await client.packet() == b""
        assert gate.inbounds == []
        await client.close()


async def test_second_connection_of_a_revoked_device_hands_nothing_up() -> None:
    async with listening() as (gate, listener):
        client = await RawClient.enter(listener.port)
        gate.outlets["bed-1"]._device.revoked = True  # type: ignore[attr-defined]
        client.send(wire.publish())
        assert (await client.packet())[:3:2] == b"\xe0\x87"
        assert gate.inbounds == []
        await client.close()


async def test_gate_hears_of_a_granted_subscription_only() -> None:
    async with listening() as (gate, listener):
        client = await RawClient.enter(listener.port)
        client.send(wire.subscribe(V5, 1, ("anxin/v1/bed-2/command", 1)))
        assert (await client.packet())[-1] == 0x87
        assert gate.subscriptions == []
        client.send(wire.subscribe(V5, 2, (COMMAND, 1)))
        assert (await client.packet())[-1] == 1
        assert gate.subscriptions == ["bed-1"]
        await client.close()


# Starting and stopping


async def test_stop_waits_for_the_commit_then_takes_leave() -> None:
    async with contextlib.AsyncExitStack() as stack:
        gate, listener = await stack.enter_async_context(listening(stop_within_s=10))
        gate.commits = False
        client = await RawClient.enter(listener.port, will=(STATE, OFFLINE))
        client.send(wire.publish(packet_id=9))
        await stored(gate, "bed-1", 1)
        stop = asyncio.create_task(stack.aclose(), name="stop")
        await eventually(lambda: listener.stopping)
        assert not stop.done()
        gate.commit()
        assert await client.packet() == wire.puback(9)
        assert (await client.packet())[:3:2] == b"\xe0\x8b"
        assert await client.packet() == b""
        await client.close()
        await stop
        assert gate.payloads("bed-1", Kind.STATE) == []
        with pytest.raises(ConnectionRefusedError):
            await RawClient.open(listener.port)


async def test_stop_gives_up_on_a_commit_that_does_not_come_and_hands_up_waiting_wills() -> None:
    async with listening(stop_within_s=0.2) as (gate, listener):
        (await RawClient.enter(listener.port, **DELAYED)).abort()
        await eventually(lambda: gate.left)
        gate.commits = False
        client = await RawClient.enter(listener.port, user="bed-2")
        client.send(wire.publish(topic="anxin/v1/bed-2/telemetry"))
        await stored(gate, "bed-2", 1)
    assert gate.payloads("bed-1", Kind.STATE) == [OFFLINE]
    assert (await client.packet())[:3:2] == b"\xe0\x8b"
    await client.close()


async def test_port_in_use_is_named() -> None:
    async with listening() as (gate, listener):
        with pytest.raises(PortTaken, match=str(listener.port)):
            async with Listener(gate, Address("127.0.0.1", listener.port)):
                pass


async def test_two_listeners_share_a_port_when_asked() -> None:
    gate = RecordingGate()
    first = Listener(gate, Address("127.0.0.1", 0), reuse_port=True)
    async with first, contextlib.AsyncExitStack() as stack:
        second = Listener(gate, Address("127.0.0.1", first.port), reuse_port=True)
        await stack.enter_async_context(second)
        names = [f"c{number}" for number in range(8)]
        clients = [await RawClient.enter(first.port, client_id=name) for name in names]
        assert first.connections + second.connections == 8
        for client in clients:
            await client.close()
        await eventually(lambda: first.connections + second.connections == 0)


def test_front_door_works_on_uvloop() -> None:
    async def visit() -> None:
        async with listening() as (gate, listener):
            gate.commits = False
            client = await RawClient.enter(listener.port, will=(STATE, OFFLINE))
            client.send(wire.publish(packet_id=3))
            await stored(gate, "bed-1", 1)
            assert await client.silent()
            gate.commit()
            assert await client.packet() == wire.puback(3)
            gate.room = False
            client.send(wire.publish(packet_id=4))
            assert await client.packet() == wire.puback(4)
            gate.make_room()
            client.send(wire.publish(topic="anxin/v1/bed-2/event", packet_id=5))
            assert (await client.packet())[:3:2] == b"\xe0\x87"
            assert await client.packet() == b""
            await client.close()
            assert gate.payloads("bed-1", Kind.STATE) == [OFFLINE]

    uvloop.run(visit())

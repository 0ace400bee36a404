"""How a device is let in and sent away: secrets that are renewed or revoked, gateways, limits."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from time import monotonic

import pytest

from anxin.config import Address, Settings
from anxin.device_secret import new_secret
from ingest.door import FREE_FAILURES, MOST_WAITING_PER_ADDRESS
from ingest.listener import MOST_CONNECTIONS, Listener
from ingest.service import IngestService
from tests import mqtt_wire as wire
from tests.factories import Ward
from tests.integration.recording_gate import SECRET, RawClient, RecordingGate, listening, stored
from tests.mqtt_wire import V3, V5
from tests.waiting import eventually

NO_SECRET = "wrong"
NOT_AUTHORIZED, WRONG, TOO_MANY, TOO_OFTEN = 0x87, 0x86, 0x97, 0x9F


@pytest.fixture
def ward(dsn: str) -> Iterator[Ward]:
    made = Ward(dsn)
    yield made
    made.close()


class House:
    """Clients of one front door, which all hang up in the end."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.clients: list[RawClient] = []

    async def open(self, data: bytes, here: str = "127.0.0.1") -> RawClient:
        """Connect from an address and send the first bytes."""
        client = RawClient(
            *await asyncio.open_connection("127.0.0.1", self.listener.port, local_addr=(here, 0))
        )
        self.clients.append(client)
        client.send(data)
        return client

    async def enter(
        self, user: str, secret: str = SECRET, client_id: str = "c1", here: str = "127.0.0.1"
    ) -> RawClient:
        """Connect as a device and be let in."""
        client = await self.open(wire.connect(V5, user, secret.encode(), client_id=client_id), here)
        answer = await client.packet()
        assert (answer[0], answer[3]) == (0x20, 0), answer.hex()
        return client

    async def refused(self, user: str, secret: str = NO_SECRET, client_id: str = "c1") -> int:
        """Try to connect and return the reason of the refusal."""
        client = await self.open(wire.connect(V5, user, secret.encode(), client_id=client_id))
        return (await client.packet(15))[3]

    def hang_up(self) -> None:
        """Close everything without a farewell."""
        for client in self.clients:
            client.abort()


@contextlib.asynccontextmanager
async def serving(dsn: str) -> AsyncIterator[House]:
    """Run the real front door, as the role that it has in production."""
    async with (
        IngestService(Settings(database=dsn, spool_mebibytes=0)) as service,
        Listener(service, Address("127.0.0.1", 0), stop_within_s=2) as listener,
    ):
        house = House(listener)
        try:
            yield house
        finally:
            house.hang_up()


@contextlib.asynccontextmanager
async def recording(**options: float) -> AsyncIterator[tuple[RecordingGate, House]]:
    """Run the front door alone."""
    async with listening(ssl_context=None, **options) as (gate, listener):
        house = House(listener)
        try:
            yield gate, house
        finally:
            house.hang_up()


def renew(ward: Ward, device_id: str, overlap_s: float) -> str:
    """Renew a secret as the API does; return the new one."""
    secret, salt, hashed = new_secret()
    ward.rows(
        "UPDATE devices SET salt = %s, secret_hash = %s,"
        " old_until = now() + %s * interval '1 second' WHERE id = %s RETURNING key",
        salt, hashed, overlap_s, device_id,
    )  # fmt: skip
    return secret


async def ended(client: RawClient) -> int:
    """Wait for the server's farewell and return its reason."""
    while True:
        packet = await client.packet()
        assert packet, "closed without a reason"
        if packet[0] == 0xE0:
            return packet[2]


# secrets


async def test_during_the_overlap_both_secrets_open_until_the_new_one_is_used(
    dsn: str, ward: Ward
) -> None:
    old = ward.device("mat")
    async with serving(dsn) as house:
        first = await house.enter("mat", old)
        new = renew(ward, "mat", 600)
        second = await house.enter("mat", old, "c2")
        assert await first.silent()
        third = await house.enter("mat", new, "c3")
        assert await ended(first) == NOT_AUTHORIZED
        assert await ended(second) == NOT_AUTHORIZED
        assert await third.silent()
        assert await house.refused("mat", old) == WRONG
        assert ward.value("SELECT old_until FROM devices") is None
        assert ward.value("SELECT old_secret_hash FROM devices") is None


async def test_the_old_secret_ends_with_its_time_also_where_it_is_connected(
    dsn: str, ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.service.LOOK_AGAIN_SECONDS", 0.2)
    old = ward.device("mat")
    async with serving(dsn) as house:
        client = await house.enter("mat", old)
        renew(ward, "mat", 1)
        assert await client.silent()
        assert await ended(client) == NOT_AUTHORIZED
        assert await house.refused("mat", old) == WRONG


async def test_renewed_twice_before_its_first_use_the_secret_in_use_goes_on(
    dsn: str, ward: Ward
) -> None:
    old = ward.device("mat")
    async with serving(dsn) as house:
        never_used = renew(ward, "mat", 600)
        new = renew(ward, "mat", 600)
        await house.enter("mat", old)
        assert await house.refused("mat", never_used) == WRONG
        await house.enter("mat", new, "c2")


@pytest.mark.parametrize("how", ["revoked", "renewed without overlap", "deleted"])
async def test_an_open_connection_is_cut_within_a_second(dsn: str, ward: Ward, how: str) -> None:
    old = ward.device("mat")
    async with serving(dsn) as house:
        clients = [await house.enter("mat", old, f"c{number}") for number in range(3)]
        begun = monotonic()
        if how == "revoked":
            ward.rows("UPDATE devices SET revoked_at = now() RETURNING key")
        elif how == "deleted":
            ward.rows("DELETE FROM devices RETURNING key")
        else:
            renew(ward, "mat", 0)
        for client in clients:
            assert await ended(client) == NOT_AUTHORIZED
        assert monotonic() - begun < 1


# gateways


async def test_a_gateway_speaks_for_its_children_and_hears_for_them(dsn: str, ward: Ward) -> None:
    secret = ward.device("gate", "gateway", place=ward.place)
    for number in range(3):
        ward.device(f"child{number}", resident=ward.resident())
    ward.rows(
        "UPDATE devices SET gateway_key = (SELECT key FROM devices WHERE id = 'gate')"
        " WHERE starts_with(id, 'child') RETURNING key"
    )
    async with serving(dsn) as house:
        gate = await house.enter("gate", secret)
        gate.send(wire.subscribe(V5, 1, ("anxin/v1/child1/receipt", 1), ("anxin/v1/child1/+", 1)))
        assert (await gate.packet())[5:] == b"\x01\x01"
        gate.send(
            wire.publish(V5, "anxin/v1/child0/telemetry", b'{"hr":61}', packet_id=1)
            + wire.publish(V5, "anxin/v1/child1/telemetry", b'{"hr":62}', packet_id=2)
            + wire.publish(V5, "anxin/v1/child1/event", b'{"id":"e1","type":"sos"}', packet_id=3)
            + wire.publish(V5, "anxin/v1/gate/state", b'{"battery":50}', packet_id=4)
        )
        told: list[bytes] = []
        while not any(one[0] & 0xF0 == 0x30 for one in told) or len(told) < 5:
            told.append(await gate.packet())
        (receipt,) = [one for one in told if one[0] & 0xF0 == 0x30]
        assert b"anxin/v1/child1/receipt" in receipt
        assert b'{"id":"e1"}' in receipt
        readings = ward.rows(
            "SELECT d.id, t.hr FROM telemetry t JOIN devices d ON d.key = t.device_key ORDER BY 1"
        )
        assert [tuple(row.values()) for row in readings] == [("child0", 61), ("child1", 62)]
        (alarm,) = ward.alarms()
        assert alarm["subject"] == f"r{ward.value(_RESIDENT_OF, 'child1')}"
        ward.rows(
            "INSERT INTO commands (device_key, name) SELECT key, 'blink' FROM devices"
            " WHERE id = 'child1' RETURNING id"
        )
        command = await gate.packet()
        assert b"anxin/v1/child1/command" in command


_RESIDENT_OF = (
    "SELECT resident_id FROM assignments a JOIN devices d ON d.key = a.device_key WHERE d.id = %s"
)


@pytest.mark.parametrize("change", ["gateway_key = NULL", "revoked_at = now()"])
async def test_a_child_taken_from_a_gateway_ends_its_connection_at_the_next_word(
    dsn: str, ward: Ward, change: str
) -> None:
    secret = ward.device("gate", "gateway")
    ward.device("child")
    ward.rows(
        "UPDATE devices SET gateway_key = (SELECT key FROM devices WHERE id = 'gate')"
        " WHERE id = 'child' RETURNING key"
    )
    alias = b"\x23\x00\x01"
    async with serving(dsn) as house:
        gate = await house.enter("gate", secret)
        gate.send(wire.publish(V5, "anxin/v1/child/telemetry", b'{"hr":61}', properties=alias))
        assert (await gate.packet())[0] == 0x40
        ward.rows(f"UPDATE devices SET {change} WHERE id = 'child' RETURNING key")
        registry = house.listener.gate.registry  # type: ignore[attr-defined]  # of the real service
        await eventually(lambda: not registry.devices["gate"].children)
        gate.send(wire.publish(V5, "", b'{"hr":62}', properties=alias, packet_id=2))
        assert await ended(gate) == NOT_AUTHORIZED
    assert ward.value("SELECT count(*) FROM telemetry") == 1


async def test_a_child_given_to_a_gateway_is_heard_without_a_new_connection(
    dsn: str, ward: Ward
) -> None:
    secret = ward.device("gate", "gateway")
    async with serving(dsn) as house:
        gate = await house.enter("gate", secret)
        ward.device("child")
        ward.rows(
            "UPDATE devices SET gateway_key = (SELECT key FROM devices WHERE id = 'gate')"
            " WHERE id = 'child' RETURNING key"
        )
        registry = house.listener.gate.registry  # type: ignore[attr-defined]
        await eventually(lambda: "child" in registry.devices["gate"].children)
        gate.send(wire.publish(V5, "anxin/v1/child/telemetry", b'{"hr":61}'))
        assert (await gate.packet())[0] == 0x40
    assert ward.value("SELECT count(*) FROM telemetry") == 1


# inventory and limits


async def test_it_is_kept_how_a_device_was_last_connected(dsn: str, ward: Ward) -> None:
    secret = ward.device("mat")
    async with serving(dsn) as house:
        await house.enter("mat", secret)
        query = "SELECT network, tls, certificate_until FROM device_states WHERE network <> ''"
        await eventually(lambda: ward.rows(query))
        assert ward.rows(query) == [{"network": "loopback", "tls": "", "certificate_until": None}]


async def test_failed_log_ins_wait_and_a_known_device_behind_the_same_address_does_not(
    dsn: str, ward: Ward
) -> None:
    mat, watch = ward.device("mat"), ward.device("watch")
    async with serving(dsn) as house:
        await house.enter("mat", mat)
        await house.enter("watch", watch)
        for _ in range(FREE_FAILURES + 1):
            assert await house.refused("mat") == WRONG
        begun = monotonic()
        slow = asyncio.create_task(house.refused("mat"))
        await house.enter("mat", mat, "c2")
        await house.enter("watch", watch, "c2")
        assert monotonic() - begun < 1
        assert not slow.done()
        slow.cancel()


async def test_when_too_many_wait_the_next_is_refused_at_once() -> None:
    async with recording() as (_, house):
        door = house.listener.door
        for _ in range(60):
            door.failed("127.0.0.1", "bed-1", asyncio.get_running_loop().time())
        for _ in range(MOST_WAITING_PER_ADDRESS):
            assert door.begin_wait("127.0.0.1")
        assert await house.refused("bed-1") == TOO_OFTEN


async def test_too_many_new_connections_from_one_address_are_closed_and_others_are_not() -> None:
    async with recording(connect_rate=1, connect_burst=3) as (_, house):
        kept = [await house.enter("bed-1", client_id=f"c{number}") for number in range(4)]
        more = await house.open(wire.connect(V3))
        with contextlib.suppress(ConnectionError):  # or an end without a word, as the race goes
            assert await more.packet() == b""
        assert house.listener.refused["connect_rate"] == 1
        await house.enter("bed-1", client_id="elsewhere", here="127.0.0.9")
        assert all([await one.silent() for one in kept])


async def test_a_device_has_so_many_connections_and_no_more() -> None:
    async with recording() as (_, house):
        for number in range(MOST_CONNECTIONS):
            await house.enter("bed-1", client_id=f"c{number}")
        assert await house.refused("bed-1", SECRET, "one more") == TOO_MANY
        await house.enter("bed-1", client_id="c3")  # takes its older one over
        house.clients[5].abort()
        await eventually(lambda: house.listener.connections < MOST_CONNECTIONS)
        await house.enter("bed-1", client_id="one more")


async def test_all_devices_of_one_address_share_what_the_address_may_send() -> None:
    async with recording(address_rate=10) as (gate, house):
        for name in ("a", "b"):
            client = await house.enter(name)
            client.send(wire.publish(V5, f"anxin/v1/{name}/telemetry", qos=0) * 60)
            await stored(gate, name, 60)
        begun = monotonic()
        client.send(wire.publish(V5, "anxin/v1/b/event", packet_id=7))
        assert (await client.packet(10))[0] == 0x40
        assert monotonic() - begun > 1

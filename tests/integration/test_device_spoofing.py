"""Devices that pretend: every way we know to speak as somebody else, against the real front door.

The attackers have a device of their own (`mallory`), a gateway of their own (`gate`, in front of
`child`), a revoked one, and know the ids of everybody. The victim (`victim`) is connected all the
time. An attempt is accepted when anything of it is stored, acknowledged, granted or let in.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from paho.mqtt.client import MQTTv5, MQTTv311

from anxin.config import Address, Settings
from ingest.listener import Listener
from ingest.service import IngestService
from tests import mqtt_wire as wire
from tests.factories import Ward
from tests.integration.recording_gate import RawClient
from tests.integration.test_listener_clients import Paho
from tests.mqtt_wire import V3, V5
from tests.waiting import eventually

MARK = 211
"""A heart rate, and part of an event's id, that nobody but an attacker sends."""
FORGED = {
    "telemetry": b'{"hr":%d}' % MARK,
    "event": b'{"id":"%d","type":"sos"}' % MARK,
    "state": b'{"online":false,"firmware":"%d"}' % MARK,
    "result": b'{"id":"1","ok":true,"mark":%d}' % MARK,
}
KINDS = tuple(FORGED)
AT_ONCE = 25

# What is in the place of a topic's device, or in all of a topic, when somebody tries it on.
STRANGE_NAMES = (
    "+", "#", "$SYS", "$share", "", " victim", "victim ", "Victim", "victim\t", "victim\n",
    "victim\x7f", "vict\u00edm", "\ufeffvictim", "victim\u200b", "../victim", "mallory/../victim",
    "victim+", "+victim", "victim#", "a" * 65, "victim\u0000", "mallory\u0000victim", "%76ictim",
)  # fmt: skip
STRANGE_TOPICS = (
    "#", "+", "+/+/+/+", "anxin/#", "anxin/v1/#", "anxin/v1/+/telemetry", "anxin/v1/mallory/+",
    "anxin/v1/mallory/#", "$SYS/broker", "$share/g/anxin/v1/victim/telemetry", "/", "//",
    "/anxin/v1/victim/telemetry", "anxin/v1/victim/telemetry/", "anxin//v1/victim/telemetry",
    "ANXIN/v1/victim/telemetry", "anxin/v2/victim/telemetry", "anxin/v1/victim",
    "anxin/v1/victim/receipt", "anxin/v1/victim/command", "anxin/v1/mallory/command",
    "anxin/v1/mallory/receipt", "anxin/v1/mallory/telemetry/x", "anxin/v1/mallory//telemetry",
    "anxin/v1/mallory/Telemetry", "x" * 60_000,
)  # fmt: skip
FILTERS = (
    "#", "+/#", "anxin/#", "anxin/v1/#", "anxin/v1/+/command", "anxin/v1/+/receipt", "anxin/v1/+/#",
    "anxin/v1/+/+", "+/v1/victim/command", "anxin/+/victim/command", "anxin/v1/victim/command",
    "anxin/v1/victim/receipt", "anxin/v1/victim/#", "anxin/v1/victim/+",
    "anxin/v1/victim/telemetry",
    "anxin/v1/mallory/telemetry", "anxin/v1/mallory/state", "anxin/v1/mallory/command/#",
    "anxin/v1/mallory/../victim/command", "$share/g/anxin/v1/victim/command", "$share/g/#",
    "$SYS/#", "/anxin/v1/victim/command", "anxin/v1/victim\u0000/command", "anxin/v1/stray/command",
    "",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Attempt:
    """One connection: as whom, with what, and what it sends once it is let in.

    `let_in`: whether the log-in itself is honest and only what follows is not.
    """

    name: str
    version: int
    connect: bytes
    then: bytes = b""
    let_in: bool = True


def attempts(secrets: dict[str, str]) -> Iterator[Attempt]:
    """Yield every attempt there is."""
    for version in (V3, V5):
        yield from publishes(version, secrets)
        yield from aliases(version, secrets)
        yield from subscriptions(version, secrets)
        yield from wills(version, secrets)
        yield from log_ins(version, secrets)


def enter(version: int, user: str, secrets: dict[str, str], client_id: str = "x") -> bytes:
    """Write the honest CONNECT of a device."""
    return wire.connect(version, user, secrets[user].encode(), client_id=client_id)


def publishes(version: int, secrets: dict[str, str]) -> Iterator[Attempt]:
    """Messages under what is not one's own."""
    as_whom = (("mallory", "victim"), ("mallory", "child"), ("gate", "victim"), ("gate", "stray"))
    for (user, whose), kind, qos, retain in itertools.product(as_whom, KINDS, (0, 1, 2), (0, 1)):
        yield Attempt(
            f"{user} publishes as {whose}", version, enter(version, user, secrets),
            wire.publish(version, f"anxin/v1/{whose}/{kind}", FORGED[kind], qos=qos, flags=retain),
        )  # fmt: skip
    for name, qos in itertools.product(STRANGE_NAMES, (0, 1)):
        yield Attempt(
            "a strange name in a topic", version, enter(version, "mallory", secrets),
            wire.publish(version, f"anxin/v1/{name}/telemetry", FORGED["telemetry"], qos=qos),
        )  # fmt: skip
    for topic, qos in itertools.product(STRANGE_TOPICS, (0, 1)):
        yield Attempt(
            "a strange topic", version, enter(version, "mallory", secrets),
            wire.publish(version, topic, FORGED["telemetry"], qos=qos),
        )  # fmt: skip
    for user, whose in as_whom:
        yield Attempt(
            "oversize", version, enter(version, user, secrets),
            wire.publish(version, f"anxin/v1/{whose}/event", FORGED["event"] + b" " * 1_100_000),
        )  # fmt: skip
        yield Attempt(
            "a topic that is not UTF-8", version, enter(version, user, secrets),
            wire.publish(version, b"anxin/v1/" + whose.encode() + b"\xff/event", FORGED["event"]),
        )  # fmt: skip
        yield Attempt(
            "a foreign topic in the middle of many of one's own", version,
            enter(version, user, secrets),
            wire.publish(version, f"anxin/v1/{user}/result", b"{}", qos=0) * 3
            + wire.publish(version, f"anxin/v1/{whose}/event", FORGED["event"], packet_id=9),
        )  # fmt: skip


def aliases(version: int, secrets: dict[str, str]) -> Iterator[Attempt]:
    """Topic aliases that stand for what they were never given for."""
    if version != V5:
        return
    for user, whose in (("mallory", "victim"), ("gate", "stray"), ("gate", "victim")):
        login = enter(version, user, secrets)
        topic, payload = f"anxin/v1/{whose}/telemetry", FORGED["telemetry"]
        for number in (0, 1, 16, 17, 65_535):
            alias = b"\x23" + number.to_bytes(2, "big")
            named = wire.publish(version, topic, payload, properties=alias)
            used = wire.publish(version, "", payload, properties=alias, packet_id=2)
            yield Attempt("an alias for a foreign topic", version, login, named)
            yield Attempt("an alias never given", version, login, used)
            yield Attempt("a foreign alias, then its use", version, login, named + used)
            twice = wire.publish(version, topic, payload, properties=alias + alias)
            yield Attempt("two aliases in one message", version, login, twice)


def subscriptions(version: int, secrets: dict[str, str]) -> Iterator[Attempt]:
    """Listening to others."""
    for user, topic_filter, qos in itertools.product(("mallory", "gate"), FILTERS, (0, 1)):
        if user == "gate" and "mallory" in topic_filter:
            continue
        yield Attempt("a foreign subscription", version, enter(version, user, secrets),
                      wire.subscribe(version, 7, (topic_filter, qos)))  # fmt: skip


def wills(version: int, secrets: dict[str, str]) -> Iterator[Attempt]:
    """A last will under what is not one's own, or under one's own where none may be."""
    topics = [
        f"anxin/v1/{whose}/{kind}" for whose in ("victim", "child", "stray") for kind in KINDS
    ]
    topics += ["anxin/v1/+/state", "#", "anxin/v1/mallory/telemetry", "anxin/v1/mallory/result",
               "anxin/v1/mallory/command", "$SYS/x"]  # fmt: skip
    for user, topic, qos in itertools.product(("mallory", "gate"), topics, (0, 1, 2)):
        yield Attempt(
            "a foreign will", version,
            wire.connect(version, user, secrets[user].encode(), client_id="w", flags=qos << 3,
                         will=(topic, FORGED["event"])),
            wire.publish(version, f"anxin/v1/{user}/event", FORGED["event"]), let_in=False,
        )  # fmt: skip


def log_ins(version: int, secrets: dict[str, str]) -> Iterator[Attempt]:
    """Log-ins as somebody else, and takeovers of the victim's session."""
    wrong: list[bytes | None] = [
        None, b"", b"wrong", b"\x00", secrets["mallory"].encode(), secrets["victim"].encode()[:-1],
        secrets["victim"].encode() + b"\x00", secrets["victim"].upper().encode(),
        secrets["victim"].encode() + b" ", secrets["victim"].encode()[::-1], b"victim",
        b"\xff" * 99,
        b"' OR '1'='1", secrets["revoked"].encode(), b"x" * 65_000,
    ]  # fmt: skip
    # The victim's own client identifier: a right secret would take its session over.
    for user, secret, client_id in itertools.product(
        ("victim", "gate", "child"), wrong, ("victim-client", "new")
    ):
        if user in {"gate", "child"} and secret and secret == secrets.get(user, "").encode():
            continue
        yield Attempt(
            "a wrong secret", version,
            wire.connect(version, user, secret, client_id=client_id),
            wire.publish(version, f"anxin/v1/{user}/event", FORGED["event"]), let_in=False,
        )  # fmt: skip
    for other in (*STRANGE_NAMES, "revoked", "nobody", None):
        own = secrets.get(other or "mallory", secrets["mallory"])
        for known in (own.encode(), secrets["victim"].encode()):
            yield Attempt(
                "a strange or revoked user", version,
                wire.connect(version, other, known, client_id="victim-client"),
                wire.publish(version, "anxin/v1/victim/event", FORGED["event"]), let_in=False,
            )  # fmt: skip
    yield Attempt(
        "no log-in at all", version,
        wire.publish(version, "anxin/v1/victim/event", FORGED["event"]), let_in=False,
    )  # fmt: skip


@dataclass(slots=True)
class Outcome:
    """What became of an attempt; the kinds of packets that the server sent, in order."""

    attempt: Attempt
    packets: list[bytes]
    closed: bool

    @property
    def entered(self) -> bool:
        """Whether the log-in was accepted."""
        return bool(self.packets) and self.packets[0][0] == 0x20 and self.packets[0][3] == 0

    @property
    def accepted(self) -> bool:
        """Whether anything was acknowledged, granted, sent down, or let in that should not be."""
        if self.entered and not self.attempt.let_in:
            return True
        # The honest part of a mixed attempt is under QoS 0 and not acknowledged.
        return any(
            one[0] & 0xF0 in (0x30, 0x40, 0x50, 0x70)
            or (one[0] == 0x90 and min(one[4 if self.attempt.version == V3 else 5 :]) < 0x80)
            for one in self.packets
        )

    @property
    def lies(self) -> bool:
        """Whether the attempt failed for another reason than it should: its own log-in."""
        return self.attempt.let_in and not self.entered


async def play(attempt: Attempt, port: int, number: int) -> Outcome:
    """Make one attempt from an address of its own, and read until the door is shut or silent."""
    here = f"127.{1 + number // 60_000}.{number // 250 % 240}.{1 + number % 250}"
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(here, 0))
    client = RawClient(reader, writer)
    client.send(attempt.connect)
    packets: list[bytes] = []
    closed = False
    try:
        if attempt.let_in:
            packets.append(await client.packet())
        client.send(attempt.then)
        client.send(wire.PINGREQ)
        while True:
            packet = await client.packet()
            if not packet:
                closed = True
                break
            packets.append(packet)
            if packet[0] == 0xD0:
                break
    except (ConnectionError, asyncio.IncompleteReadError):
        closed = True
    client.abort()
    return Outcome(attempt, packets, closed)


@asynccontextmanager
async def serving(dsn: str) -> AsyncIterator[Listener]:
    """Run the real front door."""
    async with (
        IngestService(Settings(database=dsn, spool_mebibytes=0)) as service,
        Listener(service, Address("127.0.0.1", 0), stop_within_s=2) as listener,
    ):
        yield listener


@pytest.fixture
def secrets(dsn: str) -> Iterator[dict[str, str]]:
    """Return the secrets of everybody in a ward."""
    ward = Ward(dsn)
    anna, bela = ward.resident("anna"), ward.resident("bela")
    made = {
        "victim": ward.device("victim", resident=anna),
        "child": ward.device("child", resident=bela),
        "stray": ward.device("stray", resident=bela),
        "gate": ward.device("gate", "gateway", place=ward.place),
        "mallory": ward.device("mallory", "wearable"),
        "revoked": ward.device("revoked"),
    }
    ward.rows(
        "UPDATE devices SET gateway_key = (SELECT key FROM devices WHERE id = 'gate')"
        " WHERE id = 'child' RETURNING key"
    )
    ward.rows("UPDATE devices SET revoked_at = now() WHERE id = 'revoked' RETURNING key")
    yield made
    ward.close()


async def test_nobody_speaks_as_somebody_else(
    dsn: str, secrets: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    ward = Ward(dsn)
    begun = datetime.now(UTC)
    async with serving(dsn) as listener:
        victim = await RawClient.enter(
            listener.port, V5, user="victim", password=secrets["victim"].encode(),
            client_id="victim-client",
        )  # fmt: skip
        told = [one for one in attempts(secrets) if one.name != "oversize" or one.version == V5]
        outcomes: list[Outcome] = []
        for batch in _batches(told):
            outcomes += await asyncio.gather(
                *(play(one, listener.port, number) for number, one in batch)
            )
            # The honest one is served between any two of them, on its one connection.
            victim.send(wire.publish(V5, "anxin/v1/victim/telemetry", b'{"hr":61}', packet_id=5))
            assert await victim.packet() == b"\x40\x02\x00\x05"
        pahos = await with_paho(listener.port, secrets)
        assert await victim.silent()
        victim.abort()
    lies = [one for one in outcomes if one.lies]
    assert not lies, (lies[0].attempt.name, lies[0].packets)
    accepted = Counter(one.attempt.name for one in outcomes if one.accepted)
    assert not accepted
    stored = {
        "telemetry": "SELECT count(*) FROM telemetry WHERE hr = 211",
        "events": "SELECT count(*) FROM events",
        "alarms": "SELECT count(*) FROM alarms",
        "quarantine": "SELECT count(*) FROM quarantine WHERE device_id NOT IN ('mallory', 'gate')",
        "forged": "SELECT count(*) FROM quarantine"
        " WHERE position('211' in encode(payload, 'escape')) > 0",
        "states": "SELECT count(*) FROM device_states WHERE firmware IS NOT NULL",
        "others": "SELECT count(*) FROM device_states s JOIN devices d ON d.key = s.device_key"
        " WHERE d.id IN ('child', 'stray', 'revoked')",
    }
    found = {name: ward.value(query) for name, query in stored.items()}
    ward.close()
    assert found == dict.fromkeys(stored, 0)
    count = len(outcomes) + pahos
    assert count >= 500
    seconds = (datetime.now(UTC) - begun).total_seconds()
    with capsys.disabled():
        print(f"\nspoofing: {count} attempts, 0 accepted, {seconds:.1f} s")


def _batches(told: list[Attempt]) -> Iterator[list[tuple[int, Attempt]]]:
    numbered = list(enumerate(told))
    for at in range(0, len(numbered), AT_ONCE):
        yield numbered[at : at + AT_ONCE]


async def with_paho(port: int, secrets: dict[str, str]) -> int:
    """Try the plainest of it with the client that devices use; return how many attempts."""
    attempts_made = list(itertools.product((MQTTv311, MQTTv5), KINDS))
    for version, kind in attempts_made:
        device = await Paho(version, "mallory", secrets["mallory"]).enter(port)
        told = device.publish(FORGED[kind], topic=f"anxin/v1/victim/{kind}")
        await cut_off(device)
        assert not told.is_published()
        await device.leave()
    return len(attempts_made)


async def cut_off(device: Paho) -> None:
    """Wait until the connection of a device was ended."""
    await eventually(lambda: device.gone)

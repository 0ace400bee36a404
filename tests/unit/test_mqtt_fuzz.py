"""Whatever the bytes and however they are cut: no exception, the same meaning, good answers.

ANXIN_FUZZ_EXAMPLES raises the number of generated examples per test.
"""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.mqtt.codec import Reader
from ingest.mqtt.connection import Closed, Connect, Connection, Event, Publishes
from ingest.mqtt.reasons import Reason
from ingest.mqtt.session import Session
from tests import mqtt_wire as wire
from tests.mqtt_wire import V3, V5

COMMAND = "anxin/v1/bed-1/command"
VERSIONS = st.sampled_from([V3, V5])
thorough = settings(
    max_examples=int(os.environ.get("ANXIN_FUZZ_EXAMPLES", "1000")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


class Device:
    """Plays the caller of a connection, and checks what is always true.

    With `commits` off nothing is acknowledged, so that answers do not depend on the cuts.
    """

    def __init__(self, *, commits: bool = True) -> None:
        self.commits = commits
        self.connection = Connection()
        self.events: list[Event] = []
        self.sent = b""

    def feed(self, data: bytes) -> None:
        """Hand bytes to the server as its caller would."""
        events = self.connection.receive(data)
        if self.closed:
            assert events == []
        self.events += events
        for event in events:
            if isinstance(event, Connect):
                self.connection.accept(Session(), present=False, client_id="c1")
                self.feed(b"")
            elif isinstance(event, Publishes):
                assert event.payloads
                assert len(event.packet_ids) == (len(event.payloads) if event.qos else 0)
                if self.commits:
                    self.connection.acknowledge(event.packet_ids, event.qos)
        self.sent += self.connection.data_to_send()

    @property
    def closed(self) -> bool:
        """True after the last event."""
        return any(isinstance(event, Closed) for event in self.events)

    def check(self) -> None:
        """Check that `Closed` is last and comes once, and that every answer is a whole packet."""
        closed = [isinstance(event, Closed) for event in self.events]
        assert not any(closed[:-1])
        at = 0
        while at < len(self.sent):
            reader = Reader(self.sent, at + 1, len(self.sent))
            length = reader.varint()
            reader.take(length)
            assert self.sent[at] >> 4 in (2, 3, 4, 5, 7, 9, 11, 13, 14)
            at = reader.at

    def meaning(self) -> list[object]:
        """Return what was handed up, however it was cut into runs."""
        flat: list[object] = []
        for event in self.events:
            if isinstance(event, Publishes):
                packet_ids = event.packet_ids or [0] * len(event.payloads)
                flat += [
                    (event.kind, event.qos, packet_id, payload)
                    for packet_id, payload in zip(packet_ids, event.payloads, strict=True)
                ]
            else:
                flat.append(event)
        return flat


def conversation(version: int) -> list[bytes]:
    """Return one of everything that a device may say, in an order that makes sense."""
    properties = b"\x01\x01\x26\x00\x01a\x00\x01b\x23\x00\x03" if version == V5 else b""
    up = [
        wire.publish(version, payload=b'{"hr":%d}' % number, packet_id=number)
        for number in (1, 2, 3)
    ]
    return [
        wire.connect(version, will=("anxin/v1/bed-1/state", b"{}")),
        wire.subscribe(version, 1, (COMMAND, 1), ("anxin/v1/bed-2/#", 0)),
        *up,
        wire.publish(version, payload=b"y" * 200, packet_id=4),
        wire.publish(version, "anxin/v1/bed-1/event", b"{}", qos=2, packet_id=5),
        wire.publish(version, "anxin/v1/bed-1/event", b"{}", qos=2, packet_id=5, flags=8),
        wire.pubrel(50),
        wire.publish(version, payload=b"z", packet_id=6, properties=properties),
        *([wire.publish(topic="", packet_id=7, properties=b"\x23\x00\x03")] * (version == V5)),
        wire.publish(version, "anxin/v1/bed-1/state", qos=0),
        wire.PINGREQ,
        wire.puback(9),
        wire.unsubscribe(version, 2, COMMAND),
        wire.DISCONNECT,
    ]


CORPUS = [
    b"",
    b"\x00",
    b"\xff" * 64,
    b"\x10",
    b"\x10\xff",
    b"\x10\x80\x80\x80\x80\x80",
    b"\x10\xff\xff\xff\x7f",
    b"\x10\x00",
    b"\x10\x02\x00\x04",
    b"\x10\x06\x00\x04MQTT",
    b"\x10\x0a\x00\x04MQTT\x05\xff\xff\xff",
    wire.connect(V5, properties=b"\xff" * 20),
    wire.connect(V5, properties=b"\x26\x00\x01\xff\x00\x00"),
    wire.connect(V5, properties=b"\x11\x00\x00\x00\x01" * 2),
    wire.connect(V5, will=("\0", b"")),
    wire.connect(V5, client_id="\ufeff"),
    wire.connect(V3, user="\0"),
    *(
        wire.connect(version) + bad
        for version in (V3, V5)
        for bad in (
            wire.publish(version, b"\xff\xfe"),
            wire.publish(version, b"a\0b"),
            wire.publish(version, b"\xed\xa0\x80"),
            wire.publish(version, "anxin/v1/bed-1/#"),
            wire.publish(version, "+"),
            wire.publish(version, "x" * 65_535),
            wire.frame(0x32, b""),
            wire.frame(0x32, b"\xff\xff"),
            wire.frame(0x32, wire.sized(b"anxin/v1/bed-1/telemetry")),
            wire.frame(0x32, wire.sized(b"anxin/v1/bed-1/telemetry") + b"\0"),
            wire.publish(version) + wire.frame(0x32, wire.sized(b"anxin/v1/bed-1/telemetry")),
            wire.publish(version)
            + wire.frame(0x32, wire.sized(b"anxin/v1/bed-1/telemetry") + b"\0"),
            wire.publish(version, properties=b"\x23"),
            wire.frame(0x36, b"\x00\x01a\x00\x01\x00"),
            wire.frame(0x82, b"\x00\x01\xff\xff\xff\xff\x7f"),
            wire.frame(0x82, b"\x00\x01\x00\x00\x00\x01"),
            wire.frame(0x40, b""),
            wire.frame(0x40, b"\x00\x01\x00\xff\x00"),
            wire.frame(0x62, b"\x00\x00"),
            wire.frame(0xE0, b"\x00\x05\x11\x00\x00\x00"),
            wire.frame(0xF0, b"\x00\x00"),
            b"\x00\x00",
            b"\x32\xff\xff\xff\xff\xff",
            b"\x32\x80\x80\x80\x00",
        )
    ),
]


@pytest.mark.parametrize("data", CORPUS)
def test_corpus_raises_nothing_whole_or_in_single_bytes(data: bytes) -> None:
    whole, single = Device(commits=False), Device(commits=False)
    whole.feed(data)
    for at in range(len(data)):
        single.feed(data[at : at + 1])
    whole.check()
    single.check()
    assert single.meaning() == whole.meaning()


@pytest.mark.parametrize("version", [V3, V5])
def test_conversation_means_the_same_wherever_it_is_cut(version: int) -> None:
    data = b"".join(conversation(version))
    whole = Device(commits=False)
    whole.feed(data)
    whole.check()
    assert whole.events[-1] == Closed(Reason.SUCCESS, "The device said farewell.", clean=True)
    for at in range(len(data) + 1):
        cut = Device(commits=False)
        cut.feed(data[:at])
        cut.feed(data[at:])
        assert cut.meaning() == whole.meaning()
        assert cut.sent == whole.sent
    single = Device(commits=False)
    for at in range(len(data)):
        single.feed(data[at : at + 1])
    assert single.meaning() == whole.meaning()
    assert single.sent == whole.sent


@thorough
@given(st.lists(st.binary(max_size=60), max_size=8))
def test_stranger_that_sends_anything_raises_nothing(pieces: list[bytes]) -> None:
    device = Device()
    for piece in pieces:
        device.feed(piece)
    device.check()


PACKETS = st.builds(
    wire.frame,
    st.integers(0, 255),
    st.one_of(
        st.binary(max_size=40),
        st.builds(
            lambda topic, rest: wire.sized(topic) + rest,
            st.sampled_from([b"anxin/v1/bed-1/telemetry", b"anxin/v1/bed-1/event", b"", b"#"]),
            st.binary(max_size=30),
        ),
        st.builds(
            lambda packet_id, rest: packet_id.to_bytes(2, "big") + rest,
            st.integers(0, 3),
            st.binary(max_size=30),
        ),
    ),
)


@thorough
@given(VERSIONS, st.lists(st.one_of(PACKETS, st.binary(max_size=20)), max_size=8))
def test_device_that_sends_any_packets_raises_nothing(version: int, pieces: list[bytes]) -> None:
    device = Device()
    device.feed(wire.connect(version))
    for piece in pieces:
        device.feed(piece)
    device.check()


@thorough
@given(VERSIONS, st.data())
def test_mutated_conversation_raises_nothing(version: int, data: st.DataObject) -> None:
    said = bytearray(b"".join(conversation(version)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(said) - 1))
        match data.draw(st.sampled_from(["set", "insert", "cut", "repeat"])):
            case "set":
                said[at] = data.draw(st.integers(0, 255))
            case "insert":
                said[at:at] = data.draw(st.binary(min_size=1, max_size=4))
            case "cut":
                del said[at : at + data.draw(st.integers(1, 10))]
            case "repeat":
                said[at:at] = said[at : at + 30]
        said = said or bytearray(b"\0")
    size = data.draw(st.integers(1, 200))
    whole, cut, committed = Device(commits=False), Device(commits=False), Device()
    whole.feed(bytes(said))
    for at in range(0, len(said), size):
        cut.feed(bytes(said[at : at + size]))
        committed.feed(bytes(said[at : at + size]))
    for device in (whole, cut, committed):
        device.check()
    assert cut.meaning() == whole.meaning()
    assert cut.sent == whole.sent


@thorough
@given(
    VERSIONS,
    st.lists(
        st.tuples(
            st.sampled_from(["telemetry", "event", "state", "result"]),
            st.binary(max_size=300),
            st.sampled_from([0, 1, 2]),
        ),
        max_size=20,
    ),
    st.integers(1, 500),
)
def test_every_message_comes_out_as_it_went_in(
    version: int, messages: list[tuple[str, bytes, int]], size: int
) -> None:
    device = Device()
    device.feed(wire.connect(version))
    said = b"".join(
        wire.publish(version, f"anxin/v1/bed-1/{kind}", payload, qos=qos, packet_id=number)
        for number, (kind, payload, qos) in enumerate(messages, start=1)
    )
    for at in range(0, len(said), size):
        device.feed(said[at : at + size])
    assert device.meaning()[1:] == [
        (["telemetry", "event", "state", "result"].index(kind), qos, number if qos else 0, payload)
        for number, (kind, payload, qos) in enumerate(messages, start=1)
    ]

"""The state machine, fed with literal bytes: no event loop, no socket, no clock."""

import pytest

from ingest.inbound import Kind
from ingest.mqtt import session as session_module
from ingest.mqtt.connection import (
    PACKET_LIMIT,
    RECEIVE_MAXIMUM,
    SESSION_LIMIT_S,
    Closed,
    Connect,
    Connection,
    Delivered,
    Event,
    LastWill,
    Publishes,
    Subscribed,
)
from ingest.mqtt.reasons import Reason
from ingest.mqtt.session import Session
from tests import mqtt_wire as wire
from tests.mqtt_wire import V3, V5

COMMAND = "anxin/v1/bed-1/command"
BOTH = pytest.mark.parametrize("version", [V3, V5])


def opened(version: int, session: Session | None = None, **connect: object) -> Connection:
    """Return a connection that has just been accepted, its CONNACK already sent."""
    connection = Connection()
    (event,) = connection.receive(wire.connect(version, **connect))  # type: ignore[arg-type]
    assert isinstance(event, Connect)
    connection.accept(session or Session(), present=session is not None, client_id="c1")
    connection.data_to_send()
    return connection


def closed_by(connection: Connection, data: bytes) -> tuple[Reason, bytes]:
    """Send something that ends the connection; return the reason and the last bytes."""
    *_, event = connection.receive(data)
    assert isinstance(event, Closed)
    assert connection.receive(wire.PINGREQ) == []
    return event.reason, connection.data_to_send()


def leave(reason: Reason) -> bytes:
    """Return how a DISCONNECT of MQTT 5.0 with this reason begins, after its length."""
    return bytes((reason,))


# CONNECT


def test_connect_of_3_1_1_byte_by_byte_asks_for_a_decision() -> None:
    data = bytes.fromhex(
        "10 1e 0004 4d515454 04 c2 003c"  # MQTT, level 4, user and password, clean, 60 s
        "0002 6331  0005 6265642d31  0007 73656372657437"  # c1, bed-1, secret7
    )
    assert Connection().receive(data) == [
        Connect(
            device_id="bed-1",
            secret=b"secret7",
            client_id="c1",
            clean_start=True,
            keep_alive_s=60,
            session_expiry_s=0,
            will=None,
            version=4,
        )
    ]


def test_connect_of_5_with_everything_asks_for_a_decision() -> None:
    properties = bytes.fromhex(
        "11000000782100142700010000220005190017002600016100016 2".replace(" ", "")
    )
    data = wire.connect(
        V5,
        clean=False,
        keep_alive_s=0,
        properties=properties,
        will=("anxin/v1/bed-1/state", b'{"online":false}'),
        will_properties=bytes.fromhex("18 00000005  01 01  03 0001 74  08 0001 74  09 0001 01"),
        flags=0x08,
    )
    (event,) = Connection().receive(data)
    assert event == Connect(
        device_id="bed-1",
        secret=b"secret",
        client_id="c1",
        clean_start=False,
        keep_alive_s=3600,
        session_expiry_s=120,
        will=LastWill(Kind.STATE, b'{"online":false}', 1, 5),
        version=5,
    )


@BOTH
def test_session_without_end_is_cut_to_a_day(version: int) -> None:
    forever = b"\x11\xff\xff\xff\xff" if version == V5 else b""
    (event,) = Connection().receive(wire.connect(version, clean=False, properties=forever))
    assert isinstance(event, Connect)
    assert event.session_expiry_s == SESSION_LIMIT_S


def test_accepted_3_1_1_gets_the_short_connack() -> None:
    for present, expected in ((False, b"\x20\x02\x00\x00"), (True, b"\x20\x02\x01\x00")):
        connection = Connection()
        connection.receive(wire.connect(V3, clean=False))
        connection.accept(Session(), present=present, client_id="c1")
        assert connection.data_to_send() == expected


def test_accepted_5_is_told_the_limits() -> None:
    connection = Connection()
    connection.receive(wire.connect(V5, client_id="", keep_alive_s=0))
    connection.accept(Session(), present=False, client_id="new")
    assert connection.data_to_send() == bytes.fromhex(
        "20 1d 00 00 1a"
        " 21 1000"  # Receive Maximum 4096
        " 25 00"  # no retained messages
        " 27 00100000"  # Maximum Packet Size 1 MiB
        " 22 0010"  # Topic Alias Maximum 16
        " 29 00 2a 00"  # no subscription identifiers, no shared subscriptions
        " 13 0e10"  # Server Keep Alive 3600
        " 12 0003 6e6577"  # Assigned Client Identifier
    )


@pytest.mark.parametrize(
    ("data", "reason", "answer"),
    [
        (wire.PINGREQ, Reason.PROTOCOL_ERROR, ""),
        (b"GET / HTTP/1.1\r\n", Reason.PROTOCOL_ERROR, ""),
        (b"\x16\x03\x01", Reason.PROTOCOL_ERROR, ""),  # a TLS greeting at the plain port
        (b"\x11\x02ab", Reason.PROTOCOL_ERROR, ""),
        (wire.frame(0x10, wire.sized(b"MQIsdp") + b"\x03"), Reason.PROTOCOL_ERROR, ""),
        (wire.connect(3), Reason.UNSUPPORTED_PROTOCOL_VERSION, "20020001"),
        (
            wire.connect(V3, client_id="", clean=False),
            Reason.CLIENT_IDENTIFIER_NOT_VALID,
            "20020002",
        ),
        (wire.connect(V3, user=None, password=None), Reason.BAD_USER_NAME_OR_PASSWORD, "20020004"),
        (wire.connect(V3, user="bed/1"), Reason.BAD_USER_NAME_OR_PASSWORD, "20020004"),
        (wire.connect(V3, will=("anxin/v1/bed-2/state", b"")), Reason.NOT_AUTHORIZED, "20020005"),
        (
            wire.connect(V3, will=("anxin/v1/bed-1/telemetry", b"")),
            Reason.NOT_AUTHORIZED,
            "20020005",
        ),
        (wire.connect(V3, flags=0x01), Reason.MALFORMED_PACKET, ""),
        (wire.connect(V3, flags=0x08), Reason.MALFORMED_PACKET, ""),
        (wire.connect(V3, will=("a", b""), flags=0x18), Reason.MALFORMED_PACKET, ""),
        (wire.connect(V3, user=None, flags=0x40), Reason.MALFORMED_PACKET, ""),
        (wire.frame(0x10, wire.connect(V3)[2:] + b"x"), Reason.MALFORMED_PACKET, ""),
        (wire.frame(0x10, b"\x00\x04MQTT"), Reason.MALFORMED_PACKET, ""),
        (b"\x10\xff\xff\xff\xff\x01", Reason.MALFORMED_PACKET, ""),
        (b"\x10\xff\xff\x7f", Reason.PACKET_TOO_LARGE, ""),
    ],
)
def test_bad_greeting_of_3_1_1_is_answered_as_far_as_the_version_has_words(
    data: bytes, reason: Reason, answer: str
) -> None:
    connection = Connection()
    (event,) = connection.receive(data)
    assert isinstance(event, Closed)
    assert (event.reason, connection.data_to_send().hex()) == (reason, answer)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (wire.connect(6), Reason.UNSUPPORTED_PROTOCOL_VERSION),
        (wire.connect(V5, user=None), Reason.BAD_USER_NAME_OR_PASSWORD),
        (wire.connect(V5, password=None), Reason.BAD_USER_NAME_OR_PASSWORD),
        (wire.connect(V5, user="x" * 65), Reason.BAD_USER_NAME_OR_PASSWORD),
        (wire.connect(V5, client_id="x" * 257), Reason.CLIENT_IDENTIFIER_NOT_VALID),
        (wire.connect(V5, properties=b"\x15\x00\x01x"), Reason.BAD_AUTHENTICATION_METHOD),
        (wire.connect(V5, properties=b"\x16\x00\x01x"), Reason.PROTOCOL_ERROR),
        (wire.connect(V5, properties=b"\x21\x00\x00"), Reason.PROTOCOL_ERROR),
        (wire.connect(V5, properties=b"\x27\x00\x00\x00\x0a"), Reason.PACKET_TOO_LARGE),
        (wire.connect(V5, properties=b"\x17\x02"), Reason.PROTOCOL_ERROR),
        (wire.connect(V5, properties=b"\x23\x00\x01"), Reason.MALFORMED_PACKET),
        (
            wire.connect(V5, will=("anxin/v1/bed-1/state", b""), flags=0x20),
            Reason.RETAIN_NOT_SUPPORTED,
        ),
        (wire.connect(V5, will=("anxin/v1/bed-2/event", b"")), Reason.NOT_AUTHORIZED),
        (
            wire.connect(V5, will=("anxin/v1/bed-1/state", b""), will_properties=b"\x08\x00\x01#"),
            Reason.PROTOCOL_ERROR,
        ),
    ],
)
def test_bad_greeting_of_5_is_refused_with_its_reason(data: bytes, reason: Reason) -> None:
    connection = Connection()
    (event,) = connection.receive(data)
    answer = connection.data_to_send()
    assert isinstance(event, Closed)
    assert event.reason is reason
    assert (answer[0], answer[2:4]) == (0x20, bytes((0, reason)))


def test_client_that_wants_no_reason_strings_gets_none() -> None:
    connection = Connection()
    connection.receive(wire.connect(V5, properties=b"\x17\x00"))
    connection.disconnect(Reason.BAD_USER_NAME_OR_PASSWORD, "Check it.")
    assert connection.data_to_send().hex() == "2003008600"


def test_reason_string_that_does_not_fit_the_client_is_left_out() -> None:
    connection = opened(V5, properties=b"\x27\x00\x00\x00\x80")
    connection.disconnect(Reason.SERVER_SHUTTING_DOWN, "x" * 200)
    assert connection.data_to_send().hex() == "e0028b00"


def test_stop_while_deciding_is_told_as_unavailable() -> None:
    connection = Connection()
    connection.receive(wire.connect(V5))
    connection.disconnect(Reason.SERVER_SHUTTING_DOWN)
    assert connection.data_to_send().hex() == "2003008800"


def test_packets_behind_the_connect_wait_for_the_decision() -> None:
    connection = Connection()
    events = connection.receive(wire.connect(V5) + wire.publish()[:5])
    assert len(events) == 1
    assert connection.receive(wire.publish()[5:]) == []
    connection.accept(Session(), present=False, client_id="c1")
    assert connection.receive(b"") == [Publishes(Kind.TELEMETRY, [b"{}"], [1], 1)]


@BOTH
def test_second_connect_is_a_protocol_error(version: int) -> None:
    reason, answer = closed_by(opened(version), wire.connect(version))
    assert reason is Reason.PROTOCOL_ERROR
    assert answer[2:3] == (b"" if version == V3 else leave(reason))


# PUBLISH


@BOTH
def test_messages_to_one_topic_in_a_row_come_as_one_run(version: int) -> None:
    data = b"".join(
        wire.publish(version, payload=b"x" * size, packet_id=number)
        for number, size in enumerate((0, 1, 80, 127, 128, 200, 20_000), start=1)
    )
    (event,) = opened(version).receive(data)
    assert isinstance(event, Publishes)
    assert [len(payload) for payload in event.payloads] == [0, 1, 80, 127, 128, 200, 20_000]
    assert event.packet_ids == [1, 2, 3, 4, 5, 6, 7]


@BOTH
def test_run_ends_where_topic_or_quality_changes_and_order_stays(version: int) -> None:
    def one(kind: str, qos: int, packet_id: int) -> bytes:
        topic = f"anxin/v1/bed-1/{kind}"
        return wire.publish(version, topic, b"%d" % packet_id, qos=qos, packet_id=packet_id)

    data = one("telemetry", 1, 1) + one("telemetry", 1, 2) + one("event", 1, 3)
    data += one("telemetry", 1, 4) + one("telemetry", 0, 5) + one("telemetry", 0, 6)
    data += one("state", 2, 7) + one("result", 1, 8)
    assert opened(version).receive(data) == [
        Publishes(Kind.TELEMETRY, [b"1", b"2"], [1, 2], 1),
        Publishes(Kind.EVENT, [b"3"], [3], 1),
        Publishes(Kind.TELEMETRY, [b"4"], [4], 1),
        Publishes(Kind.TELEMETRY, [b"5", b"6"], [], 0),
        Publishes(Kind.STATE, [b"7"], [7], 2),
        Publishes(Kind.RESULT, [b"8"], [8], 1),
    ]


def test_properties_and_aliases_do_not_break_a_run() -> None:
    data = wire.publish(packet_id=1, properties=b"\x23\x00\x10")
    data += wire.publish(packet_id=2, topic="", properties=b"\x23\x00\x10")
    data += wire.publish(packet_id=3) + wire.publish(packet_id=4, properties=b"\x01\x01")
    data += wire.publish(packet_id=5, flags=0x08)
    (event,) = opened(V5).receive(data)
    assert isinstance(event, Publishes)
    assert event.packet_ids == [1, 2, 3, 4, 5]
    assert event.payloads == [b"{}"] * 5


def test_alias_means_what_it_was_last_given() -> None:
    event_topic = "anxin/v1/bed-1/event"
    data = wire.publish(packet_id=1, properties=b"\x23\x00\x01")
    data += wire.publish(packet_id=2, topic=event_topic, properties=b"\x23\x00\x01")
    data += wire.publish(packet_id=3, topic="", properties=b"\x23\x00\x01")
    events = opened(V5).receive(data)
    assert [event.kind for event in events if isinstance(event, Publishes)] == [
        Kind.TELEMETRY,
        Kind.EVENT,
    ]


@BOTH
def test_acknowledgements_of_a_run_are_written_in_one_piece(version: int) -> None:
    connection = opened(version)
    connection.receive(wire.publish(version, packet_id=258) + wire.publish(version, packet_id=3))
    assert connection.data_to_send() == b""
    connection.acknowledge([258, 3], 1)
    assert connection.data_to_send().hex() == "40020102" + "40020003"


def test_retain_flag_is_ignored_by_3_1_1_and_refused_by_5() -> None:
    (event,) = opened(V3).receive(wire.publish(V3, flags=1))
    assert isinstance(event, Publishes)
    reason, answer = closed_by(opened(V5), wire.publish(V5, flags=1))
    assert reason is Reason.RETAIN_NOT_SUPPORTED
    assert answer[2:3] == leave(reason)


@BOTH
@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("anxin/v1/bed-2/telemetry", Reason.NOT_AUTHORIZED),
        ("anxin/v1/bed-1/command", Reason.NOT_AUTHORIZED),
        ("anxin/v1/bed-1/telemetry/", Reason.NOT_AUTHORIZED),
        ("anxin/v1/bed-1", Reason.NOT_AUTHORIZED),
        ("$SYS/x", Reason.NOT_AUTHORIZED),
        ("anxin/v1/+/telemetry", Reason.TOPIC_NAME_INVALID),
        ("#", Reason.TOPIC_NAME_INVALID),
        (b"anxin/\xff", Reason.MALFORMED_PACKET),
        (b"anxin/v1/bed-1/tele\0metry", Reason.MALFORMED_PACKET),
        ("", Reason.PROTOCOL_ERROR),
    ],
)
def test_foreign_topic_ends_the_connection_after_what_came_before(
    version: int, topic: str | bytes, reason: Reason
) -> None:
    connection = opened(version)
    data = wire.publish(version) + wire.publish(version, topic, packet_id=2) + wire.publish(version)
    good, closed = connection.receive(data)
    assert good == Publishes(Kind.TELEMETRY, [b"{}"], [1], 1)
    assert isinstance(closed, Closed)
    assert closed.reason is reason
    assert not closed.clean
    assert connection.data_to_send()[2:3] == (leave(reason) if version == V5 else b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (wire.publish(packet_id=0), Reason.MALFORMED_PACKET),
        (wire.publish() + wire.publish(packet_id=0), Reason.MALFORMED_PACKET),
        (wire.publish(qos=3), Reason.MALFORMED_PACKET),
        (wire.publish(qos=0, flags=8), Reason.MALFORMED_PACKET),
        (wire.publish(properties=b"\x23\x00\x11"), Reason.TOPIC_ALIAS_INVALID),
        (wire.publish(topic="", properties=b"\x23\x00\x01"), Reason.PROTOCOL_ERROR),
        (wire.publish(properties=b"\x0b\x01"), Reason.PROTOCOL_ERROR),
        (wire.publish(properties=b"\x08\x00\x01+"), Reason.PROTOCOL_ERROR),
        (wire.publish(properties=b"\x08\x00\x01a"), None),
        (wire.frame(0x32, b"\x00\xffx"), Reason.MALFORMED_PACKET),
        (wire.publish() + wire.frame(0x32, wire.publish()[2:28]), Reason.MALFORMED_PACKET),
        (b"\x00\x00", Reason.MALFORMED_PACKET),
        (b"\xf0\x00", Reason.PROTOCOL_ERROR),
        (b"\x20\x02\x00\x00", Reason.PROTOCOL_ERROR),
        (b"\x50\x02\x00\x01", Reason.PROTOCOL_ERROR),
        (b"\x60\x02\x00\x01", Reason.MALFORMED_PACKET),
        (b"\xc1\x00", Reason.MALFORMED_PACKET),
        (b"\xc0\x01x", Reason.MALFORMED_PACKET),
        (b"\x32\xff\xff\xff\xff", Reason.MALFORMED_PACKET),
        (b"\x32\xff\xff\xff\x7f", Reason.PACKET_TOO_LARGE),
    ],
)
def test_bad_packet_of_5_is_named_in_the_disconnect(data: bytes, reason: Reason | None) -> None:
    connection = opened(V5)
    if reason is None:
        (event,) = connection.receive(data)
        assert isinstance(event, Publishes)
        return
    seen, answer = closed_by(connection, data)
    assert seen is reason
    assert (answer[0], answer[2:3]) == (0xE0, leave(reason))


@BOTH
def test_packet_of_a_mebibyte_is_taken_and_a_larger_one_is_not(version: int) -> None:
    over = len(wire.publish(version, payload=b"x" * 100_000)) - 100_000
    fits = wire.publish(version, payload=b"x" * (PACKET_LIMIT - over))
    assert len(fits) == PACKET_LIMIT
    (event,) = opened(version).receive(fits)
    assert isinstance(event, Publishes)
    reason, _ = closed_by(
        opened(version), wire.publish(version, payload=b"x" * (PACKET_LIMIT - over + 1))[:10]
    )
    assert reason is Reason.PACKET_TOO_LARGE


def test_client_of_5_may_have_4096_messages_under_way_and_not_one_more() -> None:
    connection = opened(V5)
    full = b"".join(wire.publish(packet_id=number) for number in range(1, RECEIVE_MAXIMUM + 1))
    (run,) = connection.receive(full)
    assert isinstance(run, Publishes)
    connection.acknowledge(run.packet_ids[:1], 1)
    (one,) = connection.receive(wire.publish(packet_id=1))
    assert isinstance(one, Publishes)
    reason, _ = closed_by(connection, wire.publish(packet_id=5000))
    assert reason is Reason.RECEIVE_MAXIMUM_EXCEEDED


def test_run_over_the_receive_maximum_is_handed_up_as_far_as_it_was_allowed() -> None:
    data = b"".join(wire.publish(packet_id=number) for number in range(1, RECEIVE_MAXIMUM + 10))
    run, closed = opened(V5).receive(data)
    assert isinstance(run, Publishes)
    assert len(run.payloads) == len(run.packet_ids) == RECEIVE_MAXIMUM
    assert isinstance(closed, Closed)
    assert closed.reason is Reason.RECEIVE_MAXIMUM_EXCEEDED


def test_qos_2_counts_against_the_receive_maximum_until_its_pubrel() -> None:
    connection = opened(V5)
    for number in range(1, RECEIVE_MAXIMUM + 1):
        connection.receive(wire.publish(qos=2, packet_id=number))
        connection.acknowledge([number], 2)
    connection.receive(wire.pubrel(7))
    (event,) = connection.receive(wire.publish(packet_id=60_000))
    assert isinstance(event, Publishes)
    run, closed = connection.receive(wire.publish(qos=0) + wire.publish(qos=2, packet_id=60_001))
    assert isinstance(run, Publishes)
    assert isinstance(closed, Closed)
    assert closed.reason is Reason.RECEIVE_MAXIMUM_EXCEEDED


def test_client_of_3_1_1_knows_no_receive_maximum() -> None:
    data = b"".join(wire.publish(V3, packet_id=number) for number in range(1, 10_001))
    (run,) = opened(V3).receive(data)
    assert isinstance(run, Publishes)
    assert len(run.payloads) == 10_000


# QoS 2


@BOTH
def test_qos_2_goes_through_its_four_packets(version: int) -> None:
    connection = opened(version)
    assert connection.receive(wire.publish(version, qos=2, packet_id=9)) == [
        Publishes(Kind.TELEMETRY, [b"{}"], [9], 2)
    ]
    assert connection.data_to_send() == b""
    connection.acknowledge([9], 2)
    assert connection.data_to_send().hex() == "50020009"
    assert connection.receive(wire.pubrel(9)) == []
    assert connection.data_to_send().hex() == "70020009"
    (again,) = connection.receive(wire.publish(version, qos=2, packet_id=9))
    assert isinstance(again, Publishes)


@BOTH
def test_qos_2_sent_again_before_its_pubrel_is_not_handed_up_twice(version: int) -> None:
    session = Session()
    first = opened(version, session, clean=False)
    first.receive(wire.publish(version, qos=2, packet_id=9))
    second = opened(version, session, clean=False)
    again = wire.publish(version, qos=2, packet_id=9, flags=8)
    assert second.receive(again) == []
    assert second.data_to_send() == b""  # not committed yet, so nothing is promised
    first.disconnect(Reason.SESSION_TAKEN_OVER)
    first.acknowledge([9], 2)
    assert second.receive(again) == []
    assert second.data_to_send().hex() == "50020009"


@BOTH
def test_pubrel_before_the_commit_is_not_completed(version: int) -> None:
    connection = opened(version)
    connection.receive(wire.publish(version, qos=2, packet_id=9))
    reason, answer = closed_by(connection, wire.pubrel(9))
    assert reason is Reason.PROTOCOL_ERROR
    assert b"\x70\x02" not in answer


def test_pubrel_of_an_unknown_packet_is_completed() -> None:
    for version, answer in ((V3, "70020009"), (V5, "7003000992")):
        connection = opened(version)
        assert connection.receive(wire.pubrel(9)) == []
        assert connection.data_to_send().hex() == answer


# SUBSCRIBE and the way down


def test_subscriptions_are_granted_one_by_one() -> None:
    wanted = [
        (COMMAND, 2),
        ("anxin/v1/bed-1/receipt", 0),
        ("anxin/v1/bed-1/#", 1),
        ("anxin/v1/bed-2/command", 1),
        ("a/#/b", 1),
        ("$share/g/anxin/v1/bed-1/command", 1),
    ]
    for version, answer in (
        (V3, "9008 0007 01 00 01 80 80 80"),
        (V5, "9009 0007 00 01 00 01 87 8f 9e"),
    ):
        connection = opened(version)
        assert connection.receive(wire.subscribe(version, 7, *wanted)) == [Subscribed()]
        assert connection.data_to_send() == bytes.fromhex(answer)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (wire.subscribe(V5, 1), Reason.PROTOCOL_ERROR),
        (wire.subscribe(V5, 0, (COMMAND, 1)), Reason.MALFORMED_PACKET),
        (wire.subscribe(V5, 1, (COMMAND, 3)), Reason.MALFORMED_PACKET),
        (wire.subscribe(V5, 1, (COMMAND, 0x31)), Reason.MALFORMED_PACKET),
        (wire.subscribe(V5, 1, (COMMAND, 0x41)), Reason.MALFORMED_PACKET),
        (wire.subscribe(V5, 1, ("$share/g/a", 0x05)), Reason.PROTOCOL_ERROR),
        (
            wire.frame(0x82, b"\x00\x01\x02\x0b\x05" + wire.sized(COMMAND.encode()) + b"\x01"),
            Reason.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
        ),
        (wire.unsubscribe(V5, 1), Reason.PROTOCOL_ERROR),
        (wire.unsubscribe(V5, 1, "a/#/b"), Reason.MALFORMED_PACKET),
        (b"\x80" + wire.subscribe(V5, 1, (COMMAND, 1))[1:], Reason.MALFORMED_PACKET),
    ],
)
def test_bad_subscription_of_5_ends_the_connection(data: bytes, reason: Reason) -> None:
    seen, answer = closed_by(opened(V5), data)
    assert seen is reason
    assert answer[2:3] == leave(reason)


def test_unsubscribe_is_answered_and_stops_the_messages() -> None:
    for version, answer in ((V3, "b0020008"), (V5, "b0050008000011")):
        connection = opened(version)
        connection.receive(wire.subscribe(version, 7, (COMMAND, 1)))
        assert connection.publish(COMMAND, b"x")
        connection.data_to_send()
        connection.receive(wire.unsubscribe(version, 8, COMMAND, "anxin/v1/bed-1/receipt"))
        assert connection.data_to_send().hex() == answer
        assert not connection.publish(COMMAND, b"x")


def test_down_messages_have_the_lower_quality_of_the_two() -> None:
    for version, nothing in ((V3, ""), (V5, "00")):
        for granted, qos, head in ((1, 1, "0001"), (0, 1, ""), (1, 0, "")):
            connection = opened(version)
            connection.receive(wire.subscribe(version, 7, (COMMAND, granted)))
            connection.data_to_send()
            assert connection.publish(COMMAND, b"hi", qos=qos)
            body = wire.sized(COMMAND.encode()) + bytes.fromhex(head + nothing) + b"hi"
            first = 0x32 if head else 0x30
            assert connection.data_to_send() == wire.frame(first, body)


@BOTH
def test_puback_says_that_a_down_message_arrived(version: int) -> None:
    connection = opened(version)
    connection.receive(wire.subscribe(version, 7, ("anxin/v1/bed-1/+", 1)))
    connection.publish(COMMAND, b"one", token="first")
    connection.publish(COMMAND, b"two")
    assert connection.receive(wire.puback(2)) == []
    assert connection.receive(wire.puback(1)) == [Delivered("first")]
    assert connection.receive(wire.puback(1)) == []


def test_puback_of_5_that_refuses_is_no_delivery() -> None:
    connection = opened(V5)
    connection.receive(wire.subscribe(V5, 7, (COMMAND, 1)))
    connection.publish(COMMAND, b"one", token="first")
    assert connection.receive(b"\x40\x03\x00\x01\x80") == []


@BOTH
def test_down_message_without_puback_is_sent_again_on_resume(version: int) -> None:
    session = Session()
    first = opened(version, session, clean=False)
    first.receive(wire.subscribe(version, 7, (COMMAND, 1)))
    first.data_to_send()
    first.publish(COMMAND, b"one", token="first")
    sent = first.data_to_send()
    second = Connection()
    second.receive(wire.connect(version, clean=False))
    second.accept(session, present=True, client_id="c1")
    assert second.data_to_send().endswith(bytes((sent[0] | 8,)) + sent[1:])
    assert second.receive(wire.puback(1)) == [Delivered("first")]


def test_puback_of_a_message_that_was_about_to_be_sent_again_spares_it() -> None:
    session = Session()
    first = opened(V5, session, clean=False)
    first.receive(wire.subscribe(V5, 7, (COMMAND, 1)))
    for number in range(3):
        first.publish(COMMAND, b"%d" % number)
    second = Connection()
    second.receive(wire.connect(V5, clean=False, properties=b"\x21\x00\x01"))
    second.accept(session, present=True, client_id="c1")
    assert second.data_to_send().count(COMMAND.encode()) == 1
    assert second.receive(wire.puback(2)) == []
    assert second.receive(wire.puback(1)) == []
    (sent,) = second.data_to_send().split(b"\x3a")[1:]
    assert sent.endswith(b"\x00\x03\x002")


def test_receive_maximum_of_the_client_is_kept() -> None:
    connection = opened(V5, properties=b"\x21\x00\x02")
    connection.receive(wire.subscribe(V5, 7, (COMMAND, 1)))
    connection.data_to_send()
    for number in range(5):
        assert connection.publish(COMMAND, b"%d" % number)
    assert connection.data_to_send().count(COMMAND.encode()) == 2
    connection.receive(wire.puback(1))
    assert connection.data_to_send().count(COMMAND.encode()) == 1


def test_device_that_acknowledges_nothing_becomes_congested() -> None:
    connection = opened(V3)
    connection.receive(wire.subscribe(V3, 7, (COMMAND, 1)))
    for _ in range(session_module.WINDOW + session_module.WAITING_LIMIT):
        assert not connection.congested
        assert connection.publish(COMMAND, b"x")
    assert connection.congested


def test_message_larger_than_the_client_allows_is_not_sent() -> None:
    connection = opened(V5, properties=b"\x27\x00\x00\x00\x80")
    connection.receive(wire.subscribe(V5, 7, (COMMAND, 1)))
    connection.data_to_send()
    assert not connection.publish(COMMAND, b"x" * 128)
    assert connection.data_to_send() == b""


# PINGREQ and DISCONNECT


@BOTH
def test_ping_is_answered(version: int) -> None:
    connection = opened(version)
    assert connection.receive(wire.PINGREQ + wire.PINGREQ) == []
    assert connection.data_to_send().hex() == "d000d000"


@pytest.mark.parametrize(
    ("data", "clean", "expiry_s"),
    [
        ("e000", True, None),
        ("e00100", True, None),
        ("e0020000", True, None),
        ("e00104", False, None),
        ("e00180", False, None),
        ("e00700051100000000", True, 0),
        ("e007000511ffffffff", True, SESSION_LIMIT_S),
    ],
)
def test_farewell_of_5_voids_the_will_only_when_normal(
    data: str, *, clean: bool, expiry_s: int | None
) -> None:
    connection = opened(V5, properties=b"\x11\x00\x00\x00\x78")
    (event,) = connection.receive(bytes.fromhex(data) + wire.publish())
    assert isinstance(event, Closed)
    assert (event.reason, event.clean, event.session_expiry_s) == (Reason.SUCCESS, clean, expiry_s)
    assert connection.data_to_send() == b""


def test_session_that_ends_with_its_connection_cannot_be_prolonged_by_the_farewell() -> None:
    reason, _ = closed_by(opened(V5), bytes.fromhex("e00700051100000001"))
    assert reason is Reason.PROTOCOL_ERROR


@BOTH
def test_nothing_is_acknowledged_after_the_end(version: int) -> None:
    connection = opened(version)
    connection.receive(wire.publish(version) + wire.DISCONNECT)
    connection.acknowledge([1], 1)
    assert connection.data_to_send() == b""
    assert not connection.publish(COMMAND, b"x")


def events_in(connection: Connection, data: bytes, size: int) -> list[Event]:
    """Feed data in pieces of `size` bytes."""
    events: list[Event] = []
    for at in range(0, len(data), size):
        events += connection.receive(data[at : at + size])
    return events


def test_large_packet_in_single_bytes_costs_no_more_than_its_bytes() -> None:
    connection = opened(V5)
    data = wire.publish(payload=bytes(65_536))
    (event,) = events_in(connection, data, 1)
    assert isinstance(event, Publishes)
    # A copy of everything so far for each byte would be 2 GiB and take many seconds.
    assert len(event.payloads[0]) == 65_536

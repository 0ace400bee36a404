"""The packets: those of a client are read into frozen values, those of a server written."""

from collections.abc import Iterable, Mapping
from itertools import chain

import msgspec

from ingest.mqtt import properties as props
from ingest.mqtt.codec import Reader, packet, text
from ingest.mqtt.properties import Properties, Property, Value, number, read_properties
from ingest.mqtt.reasons import Reason, Violation
from ingest.mqtt.topics import is_filter

V3 = 4
V5 = 5
"""The protocol levels of MQTT 3.1.1 and 5.0."""

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = range(1, 8)
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(8, 16)

PINGRESP_BYTES = b"\xd0\x00"
CLIENT_ID_LIMIT = 256
"""Characters of a client identifier that are accepted."""

# MQTT 3.1.1 knows five ways to refuse a connection; for anything else it just closes.
_RETURN_CODES = {
    Reason.SUCCESS: 0,
    Reason.UNSUPPORTED_PROTOCOL_VERSION: 1,
    Reason.CLIENT_IDENTIFIER_NOT_VALID: 2,
    Reason.SERVER_UNAVAILABLE: 3,
    Reason.CONNECTION_RATE_EXCEEDED: 3,
    Reason.BAD_USER_NAME_OR_PASSWORD: 4,
    Reason.NOT_AUTHORIZED: 5,
}

# All 65,536 of them: an acknowledged run is then one join, without arithmetic per packet.
_PUBACKS = [b"\x40\x02" + packet_id.to_bytes(2, "big") for packet_id in range(65_536)]


class Will(msgspec.Struct, frozen=True):
    """What the device wants published when its connection ends without a farewell."""

    topic: str
    payload: bytes
    qos: int
    delay_s: int


class ConnectPacket(msgspec.Struct, frozen=True):
    """A CONNECT as it was sent."""

    client_id: str
    clean_start: bool
    keep_alive_s: int
    session_expiry_s: int
    user: str | None
    password: bytes | None
    will: Will | None
    receive_maximum: int
    packet_limit: int
    wants_reasons: bool


def read_version(reader: Reader) -> int:
    """Read the protocol name and level; return V3 or V5."""
    if reader.binary() != b"MQTT":
        raise Violation(Reason.PROTOCOL_ERROR, "The protocol name is not MQTT.")
    version = reader.byte()
    if version not in (V3, V5):
        raise Violation(
            Reason.UNSUPPORTED_PROTOCOL_VERSION, "Use MQTT 3.1.1 (level 4) or 5.0 (level 5)."
        )
    return version


def read_connect(reader: Reader, version: int) -> ConnectPacket:
    """Read what follows the protocol level of a CONNECT."""
    flags = reader.byte()
    _check_connect_flags(flags, version)
    keep_alive_s = reader.u16()
    found = read_properties(reader, props.IN_CONNECT) if version == V5 else {}
    if Property.AUTHENTICATION_METHOD in found:
        raise Violation(
            Reason.BAD_AUTHENTICATION_METHOD, "Use a user name and password, no other method."
        )
    if Property.AUTHENTICATION_DATA in found:
        raise Violation(Reason.PROTOCOL_ERROR, "Authentication data stands without its method.")
    clean_start = bool(flags & 0x02)
    client_id = reader.text()
    if len(client_id) > CLIENT_ID_LIMIT or (version == V3 and not client_id and not clean_start):
        raise Violation(
            Reason.CLIENT_IDENTIFIER_NOT_VALID,
            f"A client identifier has 1 to {CLIENT_ID_LIMIT} characters; "
            "without one, MQTT 3.1.1 needs a clean session.",
        )
    will = _read_will(reader, flags, version) if flags & 0x04 else None
    user = reader.text() if flags & 0x80 else None
    password = reader.binary() if flags & 0x40 else None
    reader.finish()
    forever = 0xFFFFFFFF
    return ConnectPacket(
        client_id=client_id,
        clean_start=clean_start,
        keep_alive_s=keep_alive_s,
        session_expiry_s=(
            number(found, Property.SESSION_EXPIRY, 0)
            if version == V5
            else (0 if clean_start else forever)
        ),
        user=user,
        password=password,
        will=will,
        receive_maximum=number(found, Property.RECEIVE_MAXIMUM, 65_535),
        packet_limit=number(found, Property.MAXIMUM_PACKET_SIZE, forever),
        wants_reasons=bool(number(found, Property.REQUEST_PROBLEM, 1)),
    )


def _check_connect_flags(flags: int, version: int) -> None:
    """Raise a Violation when the connect flags contradict each other."""
    will, will_qos, will_retain = flags & 0x04, flags >> 3 & 3, flags & 0x20
    if flags & 0x01 or will_qos == 3 or (not will and (will_qos or will_retain)):
        raise Violation(Reason.MALFORMED_PACKET, "The connect flags contradict each other.")
    if version == V3 and flags & 0x40 and not flags & 0x80:
        raise Violation(Reason.MALFORMED_PACKET, "A password stands without a user name.")
    if version == V5 and will_retain:
        raise Violation(Reason.RETAIN_NOT_SUPPORTED, "A will is not retained here.")


def _read_will(reader: Reader, flags: int, version: int) -> Will:
    """Read the will of a CONNECT."""
    found = read_properties(reader, props.IN_WILL) if version == V5 else {}
    _check_response_topic(found)
    topic = reader.text()
    payload = reader.binary()
    return Will(topic, payload, flags >> 3 & 3, number(found, Property.WILL_DELAY, 0))


def read_publish_properties(reader: Reader) -> int:
    """Read the properties of a PUBLISH of MQTT 5.0; return its topic alias, 0 for none."""
    found = read_properties(reader, props.IN_PUBLISH)
    _check_response_topic(found)
    return number(found, Property.TOPIC_ALIAS, 0)


def _check_response_topic(found: Properties) -> None:
    """Raise a Violation when an answer is asked for under a topic that cannot be one."""
    topic = found.get(Property.RESPONSE_TOPIC, "-")
    if not isinstance(topic, str) or not topic or "+" in topic or "#" in topic:
        raise Violation(Reason.PROTOCOL_ERROR, "A response topic must be a topic name.")


def read_acknowledgement(reader: Reader, version: int) -> tuple[int, int]:
    """Read PUBACK, PUBREL and their like: the packet identifier and the reason code."""
    packet_id = reader.packet_id()
    reason = 0
    if version == V5 and reader.left:
        reason = reader.byte()
        if reader.left:
            read_properties(reader, props.IN_ACKNOWLEDGEMENT)
    reader.finish()
    return packet_id, reason


def read_subscribe(reader: Reader, version: int) -> tuple[int, list[tuple[str, int]]]:
    """Read a SUBSCRIBE: its packet identifier and, filter by filter, the quality asked for."""
    packet_id = reader.packet_id()
    if version == V5 and Property.SUBSCRIPTION_ID in read_properties(reader, props.IN_SUBSCRIBE):
        raise Violation(
            Reason.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
            "Subscription identifiers are not available here.",
        )
    wanted = []
    while reader.left:
        topic_filter = reader.text()
        options = reader.byte()
        qos = options & 3
        reserved = options & 0xC0 if version == V5 else options & 0xFC
        if reserved or qos == 3 or options & 0x30 == 0x30:
            raise Violation(Reason.MALFORMED_PACKET, "A subscription option does not exist.")
        if topic_filter.startswith("$share/") and options & 0x04:
            raise Violation(Reason.PROTOCOL_ERROR, "A shared subscription cannot be 'no local'.")
        wanted.append((topic_filter, qos))
    _check_some(wanted)
    return packet_id, wanted


def read_unsubscribe(reader: Reader, version: int) -> tuple[int, list[str]]:
    """Read an UNSUBSCRIBE: its packet identifier and its filters."""
    packet_id = reader.packet_id()
    if version == V5:
        read_properties(reader, props.IN_UNSUBSCRIBE)
    filters = []
    while reader.left:
        topic_filter = reader.text()
        if not is_filter(topic_filter):
            raise Violation(Reason.MALFORMED_PACKET, "A topic filter is not well formed.")
        filters.append(topic_filter)
    _check_some(filters)
    return packet_id, filters


def _check_some(filters: list[str] | list[tuple[str, int]]) -> None:
    """Raise a Violation when a request names no topic filter."""
    if not filters:
        raise Violation(Reason.PROTOCOL_ERROR, "The packet names no topic filter.")


def read_disconnect(reader: Reader, version: int) -> tuple[int, Properties]:
    """Read a DISCONNECT: its reason code and its properties."""
    reason, found = 0, Properties()
    if version == V5 and reader.left:
        reason = reader.byte()
        if reader.left:
            found = read_properties(reader, props.IN_DISCONNECT)
    reader.finish()
    return reason, found


def write_connack(
    version: int, reason: Reason, *, present: bool = False, found: Mapping[Property, Value]
) -> bytes:
    """Write a CONNACK; empty when MQTT 3.1.1 has no return code for the reason."""
    if version == V5:
        return packet(CONNACK << 4, bytes((present, reason)), props.write_properties(found))
    if reason not in _RETURN_CODES:
        return b""
    return packet(CONNACK << 4, bytes((present, _RETURN_CODES[reason])))


def write_publish(
    version: int, topic: str, payload: bytes, *, packet_id: int = 0, again: bool = False
) -> bytes:
    """Write a PUBLISH of QoS 1, or of QoS 0 when `packet_id` is 0."""
    first = PUBLISH << 4 | again << 3 | (packet_id > 0) << 1
    number_bytes = packet_id.to_bytes(2, "big") if packet_id else b""
    no_properties = b"\0" if version == V5 else b""
    return packet(first, text(topic), number_bytes, no_properties, payload)


def write_pubacks(packet_ids: Iterable[int]) -> bytes:
    """Write one PUBACK after the other; the shortest form is the same in both versions."""
    return b"".join(map(_PUBACKS.__getitem__, packet_ids))


def write_pubrecs(packet_ids: Iterable[int]) -> bytes:
    """Write one PUBREC after the other."""
    return b"".join(
        chain.from_iterable((b"\x50\x02", number.to_bytes(2, "big")) for number in packet_ids)
    )


def write_pubcomp(version: int, packet_id: int, reason: Reason) -> bytes:
    """Write a PUBCOMP; MQTT 3.1.1 has no place for a reason."""
    code = bytes((reason,)) if version == V5 and reason else b""
    return packet(PUBCOMP << 4, packet_id.to_bytes(2, "big"), code)


def write_suback(version: int, packet_id: int, codes: Iterable[int]) -> bytes:
    """Write a SUBACK; MQTT 3.1.1 has one code for every refusal."""
    if version == V5:
        return packet(SUBACK << 4, packet_id.to_bytes(2, "big"), b"\0", bytes(codes))
    return packet(
        SUBACK << 4, packet_id.to_bytes(2, "big"), bytes(min(code, 0x80) for code in codes)
    )


def write_unsuback(version: int, packet_id: int, codes: Iterable[int]) -> bytes:
    """Write an UNSUBACK; MQTT 3.1.1 has no codes in it."""
    if version == V5:
        return packet(UNSUBACK << 4, packet_id.to_bytes(2, "big"), b"\0", bytes(codes))
    return packet(UNSUBACK << 4, packet_id.to_bytes(2, "big"))


def write_disconnect(reason: Reason, found: Mapping[Property, Value]) -> bytes:
    """Write the DISCONNECT with which a server of MQTT 5.0 takes its leave."""
    return packet(DISCONNECT << 4, bytes((reason,)), props.write_properties(found))

"""One MQTT connection seen from the server: bytes in, events and bytes out.

    connection = Connection()
    for event in connection.receive(data):   # Connect, Publishes, Subscribed, ...
        ...
    transport.write(connection.data_to_send())

After `Connect` the caller decides: `accept` or `disconnect`. Bytes that come before the decision
wait; call `receive(b"")` after it. `receive` never raises, whatever the bytes are.
"""

from collections import deque
from collections.abc import Container
from enum import Enum, auto

import msgspec

from ingest.inbound import Kind
from ingest.mqtt import packets, session
from ingest.mqtt.codec import Reader, decode_text
from ingest.mqtt.packets import V5, ConnectPacket
from ingest.mqtt.properties import Property, Value, number
from ingest.mqtt.reasons import Reason, Violation
from ingest.mqtt.session import Down, Session
from ingest.mqtt.topics import DEVICE_ID, WILL_KINDS, Topics, covers, is_filter

PACKET_LIMIT = 1024 * 1024
"""Bytes of the largest packet that is accepted, and announced to MQTT 5.0 clients."""
GREETING_LIMIT = 70_000
"""Bytes of the largest CONNECT: memory that a stranger may occupy."""
RECEIVE_MAXIMUM = 4096
"""Unacknowledged QoS 1 and 2 messages that an MQTT 5.0 client may have on their way."""
TOPIC_ALIAS_MAXIMUM = 16
KEEP_ALIVE_LIMIT_S = 3600
SESSION_LIMIT_S = 86_400

_NO_LIMIT = 1 << 62
_QOS_1 = 0x32
_DUP = 0x08


class LastWill(msgspec.Struct, frozen=True):
    """What to hand up when the connection ends without a farewell, `delay_s` later."""

    kind: Kind
    payload: bytes
    qos: int
    delay_s: int


class Connect(msgspec.Struct, frozen=True):
    """A device wants in: check its secret, then `accept` or `disconnect`.

    Times are already cut to this server's limits. An empty `client_id` means: choose one. Without
    a secret it is the device that its certificate names.
    """

    device_id: str
    secret: bytes | None
    client_id: str
    clean_start: bool
    keep_alive_s: int
    session_expiry_s: int
    will: LastWill | None
    version: int


class Publishes(msgspec.Struct, frozen=True):
    """Messages of one kind and quality of service in a row; no packet identifiers at QoS 0.

    `child` is the device for which a gateway speaks, as it was allowed to when it named the topic.
    """

    kind: Kind
    payloads: list[bytes]
    packet_ids: list[int]
    qos: int
    child: str = ""


class Subscribed(msgspec.Struct, frozen=True):
    """The device may now be reached under at least one more down topic."""


class Delivered(msgspec.Struct, frozen=True):
    """The device acknowledged the down message that was given this token."""

    token: object


class Closed(msgspec.Struct, frozen=True):
    """The connection is over: send what is to be sent, then close. Always the last event.

    `clean` = the device said farewell and its will is void. `session_expiry_s` is set when the
    farewell changed how long its session is kept.
    """

    reason: Reason
    text: str
    clean: bool = False
    session_expiry_s: int | None = None


Event = Connect | Publishes | Subscribed | Delivered | Closed


class _Stage(Enum):
    """How far the connection has come."""

    GREETING = auto()
    DECIDING = auto()
    OPEN = auto()
    CLOSED = auto()


class Connection:
    """The protocol state of one connection; it does no I/O and knows no clock."""

    def __init__(self, names: frozenset[str] = frozenset()) -> None:
        """Wait for a CONNECT, from one of the devices that a certificate names if there is one."""
        self._names = names
        self._children: Container[str] = ()
        self._stage = _Stage.GREETING
        self._version = 0
        self._events: list[Event] = []
        self._out: list[bytes] = []
        # The beginning of a packet whose end has not come, and its length as far as known.
        self._tail = bytearray()
        self._tail_need = 0
        # The run of messages that is being gathered.
        self._run_of = ("", Kind.TELEMETRY)
        self._run_qos = 1
        self._payloads: list[bytes] = []
        self._packet_ids: list[int] = []
        # The last topic that was spelled out, with its length in front, and what it means.
        self._topic = b""
        self._topic_of = ("", Kind.TELEMETRY)
        self._aliases: dict[int, tuple[str, Kind]] = {}
        # What the client has under way: QoS 1 as a number, QoS 2 by packet identifier.
        self._open_qos_1 = 0
        self._open_qos_2: set[int] = set()
        self._open_limit = _NO_LIMIT
        # What we have under way to the client.
        self._resend: deque[int] = deque()
        self._unacknowledged: set[int] = set()
        self._connect: ConnectPacket | None = None
        self._topics = Topics.of("")
        self._session = Session()

    def receive(self, data: bytes) -> list[Event]:
        """Take what came from the client and return what it means; never raises."""
        if self._tail:
            self._tail += data
            if self._stage is _Stage.DECIDING or len(self._tail) < self._tail_need:
                return []
            data = bytes(self._tail)
            self._tail.clear()
        try:
            at = self._read(data)
        except Violation as violation:
            self._hand_up_run()
            self._events.append(Closed(violation.reason, str(violation)))
            self.disconnect(violation.reason, str(violation))
        else:
            self._hand_up_run()
            if at < len(data) and self._stage is not _Stage.CLOSED:
                self._tail += data[at:]
        events, self._events = self._events, []
        return events

    def data_to_send(self) -> bytes:
        """Return what is to be written to the client now."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def accept(
        self, kept: Session, *, present: bool, client_id: str, children: Container[str] = ()
    ) -> None:
        """Let the client in, resume its session, send again what it has not acknowledged.

        `children` are the devices that it may speak for; they may change while it is connected.
        """
        connect = self._connect
        if self._stage is not _Stage.DECIDING or connect is None:
            return
        self._stage = _Stage.OPEN
        self._session = kept
        self._children = children
        announced: dict[Property, Value] = {}
        if self._version == V5:
            self._open_limit = RECEIVE_MAXIMUM
            announced = _announce(connect, client_id)
        self._out.append(
            packets.write_connack(self._version, Reason.SUCCESS, present=present, found=announced)
        )
        self._resend.extend(kept.sent)
        self._send_waiting()

    def acknowledge(self, packet_ids: list[int], qos: int) -> None:
        """Tell the client that these messages are in the database."""
        if qos == 2:
            self._session.commit(packet_ids)
        if self._stage is not _Stage.OPEN:
            return
        if qos == 1:
            self._open_qos_1 -= len(packet_ids)
            self._out.append(packets.write_pubacks(packet_ids))
        elif qos == 2:
            self._out.append(packets.write_pubrecs(packet_ids))

    @property
    def congested(self) -> bool:
        """True when the device leaves so many down messages unacknowledged that no more fit."""
        return len(self._session.waiting) >= session.WAITING_LIMIT

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, token: object = None) -> bool:
        """Send a message down; False when the device has not subscribed or cannot take its size.

        A QoS 1 message comes back as `Delivered(token)`, possibly on a later connection of the
        same session; one that the subscription lowers to QoS 0 never does.
        """
        subscriptions = self._session.subscriptions
        granted = [subscriptions[name] for name in subscriptions if covers(name, topic)]
        limit = self._connect.packet_limit if self._connect else 0
        overhead = 10  # first byte, remaining length, two lengths or numbers of two bytes, one of 1
        if (
            self._stage is not _Stage.OPEN
            or not granted
            or overhead + len(topic) + len(payload) > limit
        ):
            return False
        if min(qos, max(granted)):
            self._session.waiting.append(Down(topic, payload, token))
            self._send_waiting()
        else:
            self._out.append(packets.write_publish(self._version, topic, payload))
        return True

    def disconnect(self, reason: Reason, text: str = "") -> None:
        """End the connection: refuse it while it is being decided, else take leave."""
        stage, self._stage = self._stage, _Stage.CLOSED
        self._tail.clear()
        limit = self._connect.packet_limit if self._connect else _NO_LIMIT
        wants_reasons = self._connect is None or self._connect.wants_reasons
        for found in ({Property.REASON_STRING: text} if text and wants_reasons else {}, {}):
            if stage is _Stage.OPEN and self._version == V5:
                data = packets.write_disconnect(reason, found)
            elif stage in (_Stage.GREETING, _Stage.DECIDING) and self._version:
                # A CONNACK has no code for a server that is just stopping.
                stopping = reason is Reason.SERVER_SHUTTING_DOWN
                code = Reason.SERVER_UNAVAILABLE if stopping else reason
                data = packets.write_connack(self._version, code, found=found)
            else:
                return
            if len(data) <= limit:
                self._out.append(data)
                return

    # Reading

    def _read(self, data: bytes) -> int:
        """Read every whole packet; return where the first incomplete one begins."""
        at, size = 0, len(data)
        while at < size:
            if self._stage is _Stage.OPEN:
                at = self._read_run(data, at)
                if at == size:
                    break
            elif self._stage is not _Stage.GREETING:
                self._tail_need = 0  # the caller decides first; what follows the CONNECT waits
                break
            elif data[at] != packets.CONNECT << 4:
                raise Violation(Reason.PROTOCOL_ERROR, "The first packet is not a CONNECT.")
            body = self._find_body(data, at)
            if body is None:
                break
            self._read_packet(data[at], Reader(data, *body))
            at = body[1]
        return at

    def _read_run(self, data: bytes, at: int) -> int:
        """Gather QoS 1 messages to the last topic as long as they follow each other.

        This loop is the hot path. It leaves everything else, every oddity and every incomplete
        packet to `_read_packet`, and returns where it stopped.
        """
        topic = self._topic
        payloads, packet_ids = self._payloads, self._packet_ids
        if not topic or (payloads and (self._run_qos != 1 or self._run_of != self._topic_of)):
            return at
        self._run_qos, self._run_of = 1, self._topic_of
        add_payload, add_packet_id = payloads.append, packet_ids.append
        v5 = self._version == V5
        size = len(data)
        last = size - 1
        to_id = len(topic)
        to_payload = to_id + (3 if v5 else 2)
        while at < last and data[at] == _QOS_1:
            start = at + 2
            length = data[at + 1]
            if length > 127:
                if start > last or (high := data[start]) > 127:
                    break
                length += (high << 7) - 128
                start += 1
            stop = start + length
            payload = start + to_payload
            if stop > size or payload > stop or not data.startswith(topic, start):
                break
            if v5 and data[payload - 1]:
                break
            packet_id = data[start + to_id] << 8 | data[start + to_id + 1]
            if not packet_id:
                break
            add_packet_id(packet_id)
            add_payload(data[payload:stop])
            at = stop
        self._check_window()
        return at

    def _find_body(self, data: bytes, at: int) -> tuple[int, int] | None:
        """Return where the body of the packet at `at` begins and ends, None when it is not whole.

        The remaining length is read by hand: its bytes may not all be there yet.
        """
        size = len(data)
        length, start = 0, at + 1
        for shift in (0, 7, 14, 21):
            if start >= size:
                self._tail_need = size - at + 1
                return None
            byte = data[start]
            start += 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        else:
            raise Violation(Reason.MALFORMED_PACKET, "The remaining length is too long.")
        stop = start + length
        limit = GREETING_LIMIT if self._stage is _Stage.GREETING else PACKET_LIMIT
        if stop - at > limit:
            raise Violation(Reason.PACKET_TOO_LARGE, f"A packet has at most {limit} bytes here.")
        if stop > size:
            self._tail_need = stop - at
            return None
        return start, stop

    def _read_packet(self, first: int, reader: Reader) -> None:
        """Read one packet of any type."""
        kind, flags = first >> 4, first & 0x0F
        if kind == packets.PUBLISH:
            self._read_publish(flags, reader)
            return
        if flags != (2 if kind in (packets.PUBREL, packets.SUBSCRIBE, packets.UNSUBSCRIBE) else 0):
            raise Violation(Reason.MALFORMED_PACKET, "The flags of the first byte are wrong.")
        match kind:
            case packets.PUBACK:
                self._read_puback(reader)
            case packets.PINGREQ:
                reader.finish()
                self._out.append(packets.PINGRESP_BYTES)
            case packets.PUBREL:
                self._read_pubrel(reader)
            case packets.SUBSCRIBE:
                self._read_subscribe(reader)
            case packets.UNSUBSCRIBE:
                self._read_unsubscribe(reader)
            case packets.DISCONNECT:
                self._read_disconnect(reader)
            case packets.CONNECT if self._stage is _Stage.GREETING:
                self._read_connect(reader)
            case 0:
                raise Violation(Reason.MALFORMED_PACKET, "Packet type 0 does not exist.")
            case _:
                raise Violation(Reason.PROTOCOL_ERROR, f"Packet type {kind} is not expected here.")

    def _read_connect(self, reader: Reader) -> None:
        """Read the CONNECT and ask the caller for a decision."""
        try:
            self._version = packets.read_version(reader)
        except Violation as violation:
            # Answer in the dialect that the stranger most likely understands.
            if violation.reason is Reason.UNSUPPORTED_PROTOCOL_VERSION:
                self._version = V5 if reader.data[reader.at - 1] > V5 else packets.V3
            raise
        connect = packets.read_connect(reader, self._version)
        self._connect = connect
        if connect.packet_limit < 128:
            raise Violation(Reason.PACKET_TOO_LARGE, "Allow packets of at least 128 bytes.")
        device_id = connect.user or (next(iter(self._names)) if len(self._names) == 1 else "")
        if not DEVICE_ID.fullmatch(device_id) or not (connect.password or self._names):
            raise Violation(
                Reason.BAD_USER_NAME_OR_PASSWORD, "Send the device id and its secret as password."
            )
        if self._names and device_id not in self._names:
            raise Violation(
                Reason.BAD_USER_NAME_OR_PASSWORD, "The certificate is that of another device."
            )
        self._topics = Topics.of(device_id)
        keep_alive_s, session_expiry_s = _limit_times(connect, self._version)
        self._stage = _Stage.DECIDING
        self._emit(
            Connect(
                device_id=device_id,
                secret=connect.password or None,
                client_id=connect.client_id,
                clean_start=connect.clean_start,
                keep_alive_s=keep_alive_s,
                session_expiry_s=session_expiry_s,
                will=self._last_will(connect.will),
                version=self._version,
            )
        )

    def _last_will(self, will: packets.Will | None) -> LastWill | None:
        """Return the will, if the device may have one of this topic."""
        if will is None:
            return None
        kind = self._topics.kind(will.topic.encode())
        if kind not in WILL_KINDS:
            raise Violation(
                Reason.NOT_AUTHORIZED, "A will goes to the device's own topic state or event."
            )
        return LastWill(kind, will.payload, will.qos, will.delay_s)

    def _read_publish(self, flags: int, reader: Reader) -> None:
        """Read a PUBLISH of any quality of service, with or without properties."""
        qos = flags >> 1 & 3
        if qos == 3 or (not qos and flags & _DUP):
            raise Violation(
                Reason.MALFORMED_PACKET, "The flags of a PUBLISH contradict each other."
            )
        raw_topic = reader.binary()
        packet_id = reader.packet_id() if qos else 0
        alias = packets.read_publish_properties(reader) if self._version == V5 else 0
        if self._version == V5 and flags & 1:
            raise Violation(Reason.RETAIN_NOT_SUPPORTED, "Messages are not retained here.")
        target = self._resolve(raw_topic, alias)
        if qos == 2 and not self._is_new(packet_id):
            return
        if qos != self._run_qos or target != self._run_of:
            self._hand_up_run()
            self._run_qos, self._run_of = qos, target
        self._payloads.append(reader.take(reader.left))
        if qos:
            self._packet_ids.append(packet_id)
        self._check_window()

    def _resolve(self, raw_topic: bytes, alias: int) -> tuple[str, Kind]:
        """Return for which child, if any, and what is published under a topic or its alias."""
        if alias > TOPIC_ALIAS_MAXIMUM:
            raise Violation(
                Reason.TOPIC_ALIAS_INVALID, f"Topic aliases go up to {TOPIC_ALIAS_MAXIMUM}."
            )
        if raw_topic:
            kind = self._topics.kind(raw_topic)
            target = (
                ("", kind) if kind is not None else self._topics.kind_for(raw_topic, self._children)
            )
            if target is None:
                raise _judge_topic(raw_topic)
            self._topic, self._topic_of = len(raw_topic).to_bytes(2, "big") + raw_topic, target
            if alias:
                self._aliases[alias] = target
            return target
        if alias not in self._aliases:
            raise Violation(Reason.PROTOCOL_ERROR, "A message has neither a topic nor an alias.")
        return self._aliases[alias]

    def _is_new(self, packet_id: int) -> bool:
        """Tell whether a QoS 2 message is to be handed up, or came before its PUBREL again."""
        self._open_qos_2.add(packet_id)
        self._check_window()
        received = self._session.received
        if packet_id not in received:
            received[packet_id] = False
            return True
        if received[packet_id]:
            self._out.append(packets.write_pubrecs((packet_id,)))
        return False

    def _check_window(self) -> None:
        """Cut the run where the client exceeded our Receive Maximum, and say so."""
        gathered = len(self._packet_ids) if self._run_qos == 1 else 0
        excess = self._open_qos_1 + len(self._open_qos_2) + gathered - self._open_limit
        if excess > 0:
            if gathered:
                del self._payloads[-excess:], self._packet_ids[-excess:]
            raise Violation(
                Reason.RECEIVE_MAXIMUM_EXCEEDED,
                f"Wait for acknowledgements: at most {self._open_limit} messages under way.",
            )

    def _hand_up_run(self) -> None:
        """Turn the gathered run into an event."""
        if self._payloads:
            if self._run_qos == 1:
                self._open_qos_1 += len(self._packet_ids)
            child, kind = self._run_of
            self._events.append(
                Publishes(kind, self._payloads, self._packet_ids, self._run_qos, child)
            )
            self._payloads, self._packet_ids = [], []

    def _emit(self, event: Event) -> None:
        """Hand up an event behind the messages that came before it."""
        self._hand_up_run()
        self._events.append(event)

    def _read_pubrel(self, reader: Reader) -> None:
        """Complete a QoS 2 message."""
        packet_id, _ = packets.read_acknowledgement(reader, self._version)
        committed = self._session.received.get(packet_id)
        if committed is False:
            # A PUBCOMP now would say "stored" before it is true.
            raise Violation(Reason.PROTOCOL_ERROR, "A PUBREL came before its PUBREC.")
        self._session.received.pop(packet_id, None)
        self._open_qos_2.discard(packet_id)
        reason = Reason.SUCCESS if committed else Reason.PACKET_IDENTIFIER_NOT_FOUND
        self._out.append(packets.write_pubcomp(self._version, packet_id, reason))

    def _read_puback(self, reader: Reader) -> None:
        """Take a down message off the list and fill its place in the window."""
        packet_id, reason = packets.read_acknowledgement(reader, self._version)
        down = self._session.sent.pop(packet_id, None)
        self._unacknowledged.discard(packet_id)
        if down is not None and down.token is not None and reason < Reason.UNSPECIFIED_ERROR:
            self._emit(Delivered(down.token))
        self._send_waiting()

    def _send_waiting(self) -> None:
        """Send down messages as far as the window of the client allows."""
        kept = self._session
        allowed = self._connect.receive_maximum if self._connect else 0
        while len(self._unacknowledged) < min(session.WINDOW, allowed):
            if self._resend:
                packet_id, again = self._resend.popleft(), True
                if packet_id not in kept.sent:
                    continue
            elif kept.waiting:
                packet_id, again = kept.new_packet_id(), False
                kept.sent[packet_id] = kept.waiting.popleft()
            else:
                return
            down = kept.sent[packet_id]
            self._unacknowledged.add(packet_id)
            self._out.append(
                packets.write_publish(
                    self._version, down.topic, down.payload, packet_id=packet_id, again=again
                )
            )

    def _read_subscribe(self, reader: Reader) -> None:
        """Grant the device its own down topics, at QoS 1 at most."""
        packet_id, wanted = packets.read_subscribe(reader, self._version)
        codes: list[int] = []
        for topic_filter, qos in wanted:
            if self._topics.grants(topic_filter, self._children):
                self._session.subscriptions[topic_filter] = min(qos, 1)
                codes.append(min(qos, 1))
            elif topic_filter.startswith("$share/"):
                codes.append(Reason.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED)
            elif is_filter(topic_filter):
                codes.append(Reason.NOT_AUTHORIZED)
            else:
                codes.append(Reason.TOPIC_FILTER_INVALID)
        self._out.append(packets.write_suback(self._version, packet_id, codes))
        if any(code <= 1 for code in codes):
            self._emit(Subscribed())

    def _read_unsubscribe(self, reader: Reader) -> None:
        """Take subscriptions back."""
        packet_id, filters = packets.read_unsubscribe(reader, self._version)
        codes = [
            Reason.NO_SUBSCRIPTION_EXISTED
            if self._session.subscriptions.pop(topic_filter, None) is None
            else Reason.SUCCESS
            for topic_filter in filters
        ]
        self._out.append(packets.write_unsuback(self._version, packet_id, codes))

    def _read_disconnect(self, reader: Reader) -> None:
        """Take the client's farewell."""
        reason, found = packets.read_disconnect(reader, self._version)
        expiry: int | None = None
        if Property.SESSION_EXPIRY in found:
            expiry = min(number(found, Property.SESSION_EXPIRY, 0), SESSION_LIMIT_S)
            if expiry and self._connect and not self._connect.session_expiry_s:
                raise Violation(Reason.PROTOCOL_ERROR, "A session that ends cannot be prolonged.")
        self._stage = _Stage.CLOSED
        self._emit(
            Closed(
                Reason.SUCCESS,
                "The device said farewell.",
                clean=reason == Reason.SUCCESS,
                session_expiry_s=expiry,
            )
        )


def _limit_times(connect: ConnectPacket, version: int) -> tuple[int, int]:
    """Return keep-alive and session expiry in seconds, as this server grants them.

    MQTT 3.1.1 has no word for a shorter keep-alive than the client's, so it stays.
    """
    keep_alive_s = connect.keep_alive_s
    if version == V5:
        keep_alive_s = min(keep_alive_s or KEEP_ALIVE_LIMIT_S, KEEP_ALIVE_LIMIT_S)
    return keep_alive_s, min(connect.session_expiry_s, SESSION_LIMIT_S)


def _announce(connect: ConnectPacket, client_id: str) -> dict[Property, Value]:
    """Return the properties of the CONNACK: our limits, and what differs from the request."""
    announced: dict[Property, Value] = {
        Property.RECEIVE_MAXIMUM: RECEIVE_MAXIMUM,
        Property.RETAIN_AVAILABLE: 0,
        Property.MAXIMUM_PACKET_SIZE: PACKET_LIMIT,
        Property.TOPIC_ALIAS_MAXIMUM: TOPIC_ALIAS_MAXIMUM,
        Property.SUBSCRIPTION_ID_AVAILABLE: 0,
        Property.SHARED_AVAILABLE: 0,
    }
    keep_alive_s, session_expiry_s = _limit_times(connect, V5)
    if keep_alive_s != connect.keep_alive_s:
        announced[Property.SERVER_KEEP_ALIVE] = keep_alive_s
    if session_expiry_s != connect.session_expiry_s:
        announced[Property.SESSION_EXPIRY] = session_expiry_s
    if client_id != connect.client_id:
        announced[Property.ASSIGNED_CLIENT_ID] = client_id
    return announced


def _judge_topic(raw_topic: bytes) -> Violation:
    """Return what is wrong with a topic under which the device may not publish."""
    topic = decode_text(raw_topic)
    if "+" in topic or "#" in topic:
        return Violation(Reason.TOPIC_NAME_INVALID, "A message's topic has no wildcards.")
    return Violation(
        Reason.NOT_AUTHORIZED,
        "A device publishes under anxin/v1/ and its own id: telemetry, event, state or result.",
    )

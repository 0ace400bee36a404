"""The properties of MQTT 5.0: which there are, where each may stand, how each is written."""

from collections.abc import Mapping
from enum import Enum, IntEnum, auto

from ingest.mqtt.codec import Reader, binary, text, varint
from ingest.mqtt.reasons import Reason, Violation

Value = int | str | bytes


class Property(IntEnum):
    """The identifier of a property."""

    PAYLOAD_FORMAT = 1
    MESSAGE_EXPIRY = 2
    CONTENT_TYPE = 3
    RESPONSE_TOPIC = 8
    CORRELATION_DATA = 9
    SUBSCRIPTION_ID = 11
    SESSION_EXPIRY = 17
    ASSIGNED_CLIENT_ID = 18
    SERVER_KEEP_ALIVE = 19
    AUTHENTICATION_METHOD = 21
    AUTHENTICATION_DATA = 22
    REQUEST_PROBLEM = 23
    WILL_DELAY = 24
    REQUEST_RESPONSE = 25
    RESPONSE_INFORMATION = 26
    SERVER_REFERENCE = 28
    REASON_STRING = 31
    RECEIVE_MAXIMUM = 33
    TOPIC_ALIAS_MAXIMUM = 34
    TOPIC_ALIAS = 35
    MAXIMUM_QOS = 36
    RETAIN_AVAILABLE = 37
    USER_PROPERTY = 38
    MAXIMUM_PACKET_SIZE = 39
    WILDCARD_AVAILABLE = 40
    SUBSCRIPTION_ID_AVAILABLE = 41
    SHARED_AVAILABLE = 42


Properties = dict[Property, Value]


class Form(Enum):
    """How the value of a property is written."""

    BIT = auto()
    U16 = auto()
    U32 = auto()
    VARINT = auto()
    TEXT = auto()
    BINARY = auto()
    PAIR = auto()


FORMS: Mapping[Property, Form] = {
    Property.PAYLOAD_FORMAT: Form.BIT,
    Property.MESSAGE_EXPIRY: Form.U32,
    Property.CONTENT_TYPE: Form.TEXT,
    Property.RESPONSE_TOPIC: Form.TEXT,
    Property.CORRELATION_DATA: Form.BINARY,
    Property.SUBSCRIPTION_ID: Form.VARINT,
    Property.SESSION_EXPIRY: Form.U32,
    Property.ASSIGNED_CLIENT_ID: Form.TEXT,
    Property.SERVER_KEEP_ALIVE: Form.U16,
    Property.AUTHENTICATION_METHOD: Form.TEXT,
    Property.AUTHENTICATION_DATA: Form.BINARY,
    Property.REQUEST_PROBLEM: Form.BIT,
    Property.WILL_DELAY: Form.U32,
    Property.REQUEST_RESPONSE: Form.BIT,
    Property.RESPONSE_INFORMATION: Form.TEXT,
    Property.SERVER_REFERENCE: Form.TEXT,
    Property.REASON_STRING: Form.TEXT,
    Property.RECEIVE_MAXIMUM: Form.U16,
    Property.TOPIC_ALIAS_MAXIMUM: Form.U16,
    Property.TOPIC_ALIAS: Form.U16,
    Property.MAXIMUM_QOS: Form.BIT,
    Property.RETAIN_AVAILABLE: Form.BIT,
    Property.USER_PROPERTY: Form.PAIR,
    Property.MAXIMUM_PACKET_SIZE: Form.U32,
    Property.WILDCARD_AVAILABLE: Form.BIT,
    Property.SUBSCRIPTION_ID_AVAILABLE: Form.BIT,
    Property.SHARED_AVAILABLE: Form.BIT,
}

# What a client may put into each of its packets.
IN_PUBLISH = frozenset(
    {
        Property.PAYLOAD_FORMAT,
        Property.MESSAGE_EXPIRY,
        Property.CONTENT_TYPE,
        Property.RESPONSE_TOPIC,
        Property.CORRELATION_DATA,
        Property.TOPIC_ALIAS,
        Property.USER_PROPERTY,
    }
)
IN_WILL = IN_PUBLISH - {Property.TOPIC_ALIAS} | {Property.WILL_DELAY}
IN_CONNECT = frozenset(
    {
        Property.SESSION_EXPIRY,
        Property.AUTHENTICATION_METHOD,
        Property.AUTHENTICATION_DATA,
        Property.REQUEST_PROBLEM,
        Property.REQUEST_RESPONSE,
        Property.RECEIVE_MAXIMUM,
        Property.TOPIC_ALIAS_MAXIMUM,
        Property.USER_PROPERTY,
        Property.MAXIMUM_PACKET_SIZE,
    }
)
IN_SUBSCRIBE = frozenset({Property.SUBSCRIPTION_ID, Property.USER_PROPERTY})
IN_UNSUBSCRIBE = frozenset({Property.USER_PROPERTY})
IN_ACKNOWLEDGEMENT = frozenset({Property.REASON_STRING, Property.USER_PROPERTY})
IN_DISCONNECT = frozenset({Property.SESSION_EXPIRY, Property.REASON_STRING, Property.USER_PROPERTY})

_ZERO_IS_WRONG = {
    Property.RECEIVE_MAXIMUM: Reason.PROTOCOL_ERROR,
    Property.MAXIMUM_PACKET_SIZE: Reason.PROTOCOL_ERROR,
    Property.SUBSCRIPTION_ID: Reason.PROTOCOL_ERROR,
    Property.TOPIC_ALIAS: Reason.TOPIC_ALIAS_INVALID,
}


def read_properties(reader: Reader, allowed: frozenset[Property]) -> Properties:
    """Read the properties of one packet; user properties are checked and left out."""
    length = reader.varint()
    if length > reader.left:
        raise Violation(Reason.MALFORMED_PACKET, "The properties are longer than the packet.")
    inner = Reader(reader.data, reader.at, reader.at + length)
    reader.at = inner.stop
    found: Properties = {}
    while inner.left:
        number = inner.varint()
        if number not in allowed:
            if number == Property.SUBSCRIPTION_ID and Property.TOPIC_ALIAS in allowed:
                text = "A client must not send a subscription identifier with a message."
                raise Violation(Reason.PROTOCOL_ERROR, text)
            raise Violation(
                Reason.MALFORMED_PACKET, f"Property {number} does not belong in this packet."
            )
        name = Property(number)
        value = _read_value(inner, FORMS[name])
        if name is Property.USER_PROPERTY:
            continue
        if name in found:
            raise Violation(Reason.PROTOCOL_ERROR, f"Property {number} stands twice.")
        if not value and name in _ZERO_IS_WRONG:
            raise Violation(_ZERO_IS_WRONG[name], f"Property {number} must not be 0.")
        found[name] = value
    return found


def _read_value(reader: Reader, form: Form) -> Value:
    """Read one value of this form."""
    match form:
        case Form.BIT:
            bit = reader.byte()
            if bit > 1:
                raise Violation(Reason.PROTOCOL_ERROR, "A property must be 0 or 1.")
            return bit
        case Form.U16:
            return reader.u16()
        case Form.U32:
            return reader.u32()
        case Form.VARINT:
            return reader.varint()
        case Form.TEXT:
            return reader.text()
        case Form.BINARY:
            return reader.binary()
        case Form.PAIR:
            reader.text()
            return reader.text()


def write_properties(properties: Mapping[Property, Value]) -> bytes:
    """Write properties behind their length; user properties cannot be written."""
    body = b"".join(
        varint(name) + _write_value(FORMS[name], value) for name, value in properties.items()
    )
    return varint(len(body)) + body


def _write_value(form: Form, value: Value) -> bytes:
    """Write one value of this form."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, bytes):
        return binary(value)
    if form is Form.VARINT:
        return varint(value)
    return value.to_bytes({Form.BIT: 1, Form.U16: 2, Form.U32: 4}[form], "big")


def number(properties: Properties, name: Property, default: int) -> int:
    """Return a numeric property, or `default` when the client did not send it."""
    value = properties.get(name, default)
    return value if isinstance(value, int) else default

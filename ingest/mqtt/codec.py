"""The data types that MQTT packets are made of: integers, strings, byte strings."""

from ingest.mqtt.reasons import Reason, Violation

VARINT_MAX = 268_435_455
"""The largest value that four bytes of seven bits hold."""


class Reader:
    """Reads one packet's body from front to back; every read past its end is a Violation."""

    __slots__ = ("at", "data", "stop")

    def __init__(self, data: bytes, at: int, stop: int) -> None:
        """Read `data[at:stop]` without copying it."""
        self.data = data
        self.at = at
        self.stop = stop

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        start = self.at
        self.at = start + count
        if self.at > self.stop:
            raise Violation(Reason.MALFORMED_PACKET, "The packet ends in the middle of a field.")
        return self.data[start : self.at]

    def byte(self) -> int:
        """Return an unsigned 8-bit integer."""
        return self.take(1)[0]

    def u16(self) -> int:
        """Return an unsigned 16-bit integer."""
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        """Return an unsigned 32-bit integer."""
        return int.from_bytes(self.take(4), "big")

    def varint(self) -> int:
        """Return a variable byte integer, which must not be longer than it needs to be."""
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if shift and not byte:
                    break
                return value
        raise Violation(Reason.MALFORMED_PACKET, "A variable byte integer is too long.")

    def binary(self) -> bytes:
        """Return a byte string that its 16-bit length precedes."""
        return self.take(self.u16())

    def text(self) -> str:
        """Return a UTF-8 string; NUL and surrogates are not allowed in it."""
        return decode_text(self.binary())

    def packet_id(self) -> int:
        """Return a packet identifier, which is never 0."""
        packet_id = self.u16()
        if not packet_id:
            raise Violation(Reason.MALFORMED_PACKET, "Packet identifier 0 does not exist.")
        return packet_id

    @property
    def left(self) -> int:
        """How many bytes are still to be read."""
        return self.stop - self.at

    def finish(self) -> None:
        """Raise a Violation when something follows the last field."""
        if self.left:
            raise Violation(Reason.MALFORMED_PACKET, "Bytes follow the last field of the packet.")


def decode_text(raw: bytes) -> str:
    """Return the string that MQTT allows these bytes to be; raise a Violation otherwise."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise Violation(Reason.MALFORMED_PACKET, "A string is not UTF-8.") from error
    if "\0" in text:
        raise Violation(Reason.MALFORMED_PACKET, "A string contains NUL.")
    return text


def varint(value: int) -> bytes:
    """Write a variable byte integer of 0 to VARINT_MAX."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        if not value:
            out.append(low)
            return bytes(out)
        out.append(low | 0x80)


def binary(value: bytes) -> bytes:
    """Write a byte string of at most 65,535 bytes behind its 16-bit length."""
    return len(value).to_bytes(2, "big") + value


def text(value: str) -> bytes:
    """Write a UTF-8 string of at most 65,535 bytes behind its 16-bit length."""
    return binary(value.encode())


def packet(first: int, *parts: bytes) -> bytes:
    """Write a whole packet: first byte, remaining length, then the parts of its body."""
    body = b"".join(parts)
    return bytes((first,)) + varint(len(body)) + body

"""Client packets written by hand, so that a test does not trust the code it checks."""

V3, V5 = 4, 5


def sized(raw: bytes) -> bytes:
    """Put the 16-bit length in front."""
    return len(raw).to_bytes(2, "big") + raw


def frame(first: int, body: bytes) -> bytes:
    """Put first byte and remaining length in front."""
    size, length = len(body), b""
    while True:
        size, low = divmod(size, 128)
        length += bytes((low | (0x80 if size else 0),))
        if not size:
            return bytes((first,)) + length + body


def connect(
    version: int = V5,
    user: str | None = "bed-1",
    password: bytes | None = b"secret",
    *,
    client_id: str = "c1",
    clean: bool = True,
    keep_alive_s: int = 60,
    properties: bytes = b"",
    will: tuple[str, bytes] | None = None,
    will_properties: bytes = b"",
    flags: int = 0,
) -> bytes:
    """Write a CONNECT; `flags` are added to those that the arguments ask for."""
    flags |= clean << 1 | (will is not None) << 2
    flags |= (password is not None) << 6 | (user is not None) << 7
    body = sized(b"MQTT") + bytes((version, flags)) + keep_alive_s.to_bytes(2, "big")
    if version == V5:
        body += bytes((len(properties),)) + properties
    body += sized(client_id.encode())
    if will is not None:
        if version == V5:
            body += bytes((len(will_properties),)) + will_properties
        body += sized(will[0].encode()) + sized(will[1])
    if user is not None:
        body += sized(user.encode())
    if password is not None:
        body += sized(password)
    return frame(0x10, body)


def publish(
    version: int = V5,
    topic: str | bytes = "anxin/v1/bed-1/telemetry",
    payload: bytes = b"{}",
    *,
    qos: int = 1,
    packet_id: int = 1,
    flags: int = 0,
    properties: bytes = b"",
) -> bytes:
    """Write a PUBLISH."""
    body = sized(topic.encode() if isinstance(topic, str) else topic)
    if qos:
        body += packet_id.to_bytes(2, "big")
    if version == V5:
        body += bytes((len(properties),)) + properties
    return frame(0x30 | qos << 1 | flags, body + payload)


def subscribe(version: int, packet_id: int, *wanted: tuple[str, int]) -> bytes:
    """Write a SUBSCRIBE of (filter, options)."""
    body = packet_id.to_bytes(2, "big") + (b"\0" if version == V5 else b"")
    for topic_filter, options in wanted:
        body += sized(topic_filter.encode()) + bytes((options,))
    return frame(0x82, body)


def unsubscribe(version: int, packet_id: int, *filters: str) -> bytes:
    """Write an UNSUBSCRIBE."""
    body = packet_id.to_bytes(2, "big") + (b"\0" if version == V5 else b"")
    return frame(0xA2, body + b"".join(sized(text.encode()) for text in filters))


def puback(packet_id: int) -> bytes:
    """Write the shortest PUBACK."""
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def pubrel(packet_id: int) -> bytes:
    """Write the shortest PUBREL."""
    return b"\x62\x02" + packet_id.to_bytes(2, "big")


PINGREQ = b"\xc0\x00"
DISCONNECT = b"\xe0\x00"

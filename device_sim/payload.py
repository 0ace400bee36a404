"""What simulated devices put on the wire. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

TELEMETRY: Final = "telemetry"
EVENT: Final = "event"
STATE: Final = "state"
RESULT: Final = "result"

MAX_OBJECTS: Final = 1_000
"""A telemetry array may hold so many objects."""
MAX_BYTES: Final = 60_000
"""A payload stays under 64 KiB with some room to spare."""

Fields = Mapping[str, object]

encode: Final = msgspec.json.Encoder().encode


class Outgoing(msgspec.Struct, frozen=True):
    """One payload of one device: `topic` is the last part of `anxin/v1/{device}/{topic}`."""

    device_id: str
    topic: str
    payload: bytes

    @property
    def urgent(self) -> bool:
        """True for what overtakes everything that waits in the device."""
        return self.topic == EVENT


def pack(readings: Iterable[Fields]) -> Iterator[tuple[bytes, int]]:
    """Put telemetry objects into arrays as large as allowed; yield (payload, objects in it)."""
    parts: list[bytes] = []
    size = 2
    for reading in readings:
        part = encode(reading)
        if parts and (len(parts) == MAX_OBJECTS or size + len(part) + 1 > MAX_BYTES):
            yield b"[" + b",".join(parts) + b"]", len(parts)
            parts, size = [], 2
        parts.append(part)
        size += len(part) + 1
    if parts:
        yield b"[" + b",".join(parts) + b"]", len(parts)

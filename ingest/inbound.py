"""What a source of messages (a connection, the bridge) hands to the pipeline."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Final, Protocol

import msgspec


class Kind(IntEnum):
    """The last part of an upward topic `anxin/v1/{device}/{kind}`."""

    TELEMETRY = 0
    EVENT = 1
    STATE = 2
    RESULT = 3


KINDS = {kind.name.lower(): kind for kind in Kind}


NOT_LOADED: Final = -1
"""The row of a device that was let in from memory and that no rule knows yet."""


class Device(msgspec.Struct, eq=False):
    """A device as the registry knows it; one object per device and process.

    `row` is its place in the arrays of the live rules, or NOT_LOADED; `key` its number in the
    database, 0 for a device that is unknown there. `children` are the devices that a gateway may
    speak for now, by id.
    """

    id: str
    key: int
    row: int
    revoked: bool = False
    children: "dict[str, Device]" = {}


@dataclass(slots=True, eq=False)
class Inbound:
    """A run of payloads of one kind from one device, in the order they came.

    `done` is called once, on the event loop, after the transaction with all of them committed.
    `packet_ids` and `qos` are the source's own business; the pipeline does not look at them.
    """

    device: Device
    kind: Kind
    payloads: list[bytes]
    received_us: int
    done: "Callable[[Inbound], None]"
    packet_ids: list[int] | None = None
    qos: int = 1


class Gate(Protocol):
    """What a listener needs of the service behind it."""

    async def authenticate(
        self, device_id: str, secret: bytes | None, issued_at: datetime | None = None
    ) -> Device | None:
        """Return the device when this opens it; raise DatabaseUnavailable when unknowable.

        `issued_at`: when its certificate was issued, if it came with one that names it.
        """

    def recognise(
        self, device_id: str, secret: bytes | None, issued_at: datetime | None
    ) -> Device | None:
        """Return the device when that can be told at once, without asking anybody."""

    def submit(self, inbound: Inbound) -> None:
        """Take the payloads; every one is committed or quarantined before `done` is called."""

    @property
    def has_room(self) -> bool:
        """False while a source should stop reading from its devices."""

    def call_when_room(self, resume: Callable[[], None]) -> None:
        """Call `resume` once, as soon as there is room again."""

    def connected(self, device: Device, outlet: "Line") -> None:
        """Note that the device can now be reached through `outlet`."""

    def subscribed(self, device: Device) -> None:
        """Note that the device asked for down messages: what waits for it can be sent now."""

    def disconnected(self, device: Device, outlet: "Line", *, clean: bool) -> None:
        """Note that this way to the device has closed."""


class Outlet(Protocol):
    """The way down to one connected device."""

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        delivered: Callable[[], None] | None = None,
    ) -> bool:
        """Send to a subscribed topic, else return False; `delivered` is called at its PUBACK."""

    def close(self, reason: str) -> None:
        """End the connection, for example because the secret was revoked."""


class Peer(msgspec.Struct, frozen=True):
    """The other end of a connection, as far as the network tells.

    `network` is loopback, private, public or other; `tls` its version or empty. `names` are those
    of its certificate that could be device ids, `issued_at` and `until` the time it is good for.
    """

    address: str = ""
    network: str = "other"
    tls: str = ""
    names: frozenset[str] = frozenset()
    issued_at: datetime | None = None
    until: datetime | None = None


class Line(Outlet, Protocol):
    """The connection of a device that let itself in here."""

    peer: Peer
    secret: bytes | None
    """What it was opened with, so that it can be looked at again when that changes."""

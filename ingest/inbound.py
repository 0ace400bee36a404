"""What a source of messages (a connection, the bridge) hands to the pipeline."""

from collections.abc import Callable
from dataclasses import dataclass
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
    database, 0 for a device that is unknown there.
    """

    id: str
    key: int
    row: int
    revoked: bool = False


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

    async def authenticate(self, device_id: str, secret: bytes) -> Device | None:
        """Return the device when the secret is right; raise DatabaseUnavailable when unknowable."""

    def submit(self, inbound: Inbound) -> None:
        """Take the payloads; every one is committed or quarantined before `done` is called."""

    @property
    def has_room(self) -> bool:
        """False while a source should stop reading from its devices."""

    def call_when_room(self, resume: Callable[[], None]) -> None:
        """Call `resume` once, as soon as there is room again."""

    def connected(self, device: Device, outlet: "Outlet") -> None:
        """Note that the device can now be reached through `outlet`."""

    def subscribed(self, device: Device) -> None:
        """Note that the device asked for down messages: what waits for it can be sent now."""

    def disconnected(self, device: Device, outlet: "Outlet", *, clean: bool) -> None:
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

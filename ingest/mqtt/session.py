"""What outlives a connection: subscriptions, unfinished deliveries in both directions."""

from collections import deque
from typing import NamedTuple

WINDOW = 64
"""Down messages that may be on their way to one device at a time."""
WAITING_LIMIT = 1000
"""Down messages that may wait for a place in the window."""


class Down(NamedTuple):
    """One QoS 1 message on its way to the device; `token` comes back when it has arrived."""

    topic: str
    payload: bytes
    token: object


class Session:
    """The state that MQTT keeps for one client identifier of one device."""

    __slots__ = ("_last_id", "received", "sent", "subscriptions", "waiting")

    def __init__(self) -> None:
        """Start with nothing."""
        self.subscriptions: dict[str, int] = {}
        """Granted topic filters with their quality of service."""
        self.received: dict[int, bool] = {}
        """QoS 2 packet identifiers whose PUBREL has not come, and whether each is committed."""
        self.sent: dict[int, Down] = {}
        """QoS 1 messages without a PUBACK, oldest first."""
        self.waiting: deque[Down] = deque()
        """QoS 1 messages that were never sent."""
        self._last_id = 0

    def new_packet_id(self) -> int:
        """Return a packet identifier that no unfinished down message uses."""
        while True:
            self._last_id = self._last_id % 65_535 + 1
            if self._last_id not in self.sent:
                return self._last_id

    def commit(self, packet_ids: list[int]) -> None:
        """Note that these QoS 2 messages are in the database."""
        for packet_id in packet_ids:
            if packet_id in self.received:
                self.received[packet_id] = True

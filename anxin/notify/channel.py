"""What every way to a person has in common, and the two ways in which sending can fail."""

from typing import Literal, Protocol

import msgspec

from anxin.errors import AnxinError
from anxin.notify.notice import Notice

Receipt = Literal["sent", "delivered", "displayed"]


class Contact(msgspec.Struct, frozen=True):
    """Where a channel sends to: a number, a URL, a mailbox; `secret` is the robot's own key."""

    address: str
    secret: str = ""


class Sent(msgspec.Struct, frozen=True):
    """The provider took it; `provider_id` is its name for the message, where it gives one."""

    provider_id: str | None = None


class DeliveryError(AnxinError):
    """The notice could not be sent."""

    def __init__(
        self,
        message: str,
        *,
        permanent: bool,
        retry_after_seconds: float | None = None,
        status: int | None = None,
    ) -> None:
        """Keep whether another attempt is in vain, how long to rest, and the HTTP status."""
        super().__init__(message)
        self.permanent = permanent
        self.retry_after_seconds = retry_after_seconds
        self.status = status


class Channel(Protocol):
    """One way to a person."""

    @property
    def name(self) -> str:
        """What `contacts.channel` and `deliveries.channel` call it."""

    @property
    def receipts(self) -> frozenset[Receipt]:
        """Which of sent, delivered and displayed it can tell."""

    @property
    def most_per_minute(self) -> int | None:
        """How many messages one address takes in a minute; None for any number."""

    def fault(self, contact: Contact) -> str | None:
        """Say what is wrong with this address, or with the settings the channel needs; or None."""

    async def send(self, notice: Notice, contact: Contact, *, key: str) -> Sent:
        """Send once; the same `key` is the same notice. Raise DeliveryError."""

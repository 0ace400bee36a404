"""The wall: it reads the alarm stream by itself, so a notice to it is sent by being due.

What tells that it arrived are the receipts of the stream (`received`, `displayed`).
"""

from typing import Final

from anxin.notify.channel import Contact, Receipt, Sent
from anxin.notify.notice import Notice


class Station:
    """The screens of a place, or those on which a person is logged in."""

    name: Final = "station"
    receipts: Final[frozenset[Receipt]] = frozenset({"sent", "delivered", "displayed"})
    most_per_minute: Final = None

    def fault(self, contact: Contact) -> str | None:  # noqa: ARG002  # every channel's form
        """Nothing can be wrong: there is no address."""
        return None

    async def send(self, notice: Notice, contact: Contact, *, key: str) -> Sent:  # noqa: ARG002
        """Nothing to do: the stream has carried the alarm since it was committed."""
        return Sent()

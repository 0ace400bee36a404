"""A signed call to any system: the generic webhook, and the voice gateway that reads out a notice.

The signature is hex(HMAC-SHA256(secret, timestamp + "." + body)); a receiver refuses a timestamp
more than five minutes old. `Idempotency-Key` is the same whenever the same notice comes again.
"""

import hashlib
import hmac
import time
from typing import Any, Final

import msgspec

from anxin.notify.channel import Contact, Receipt, Sent
from anxin.notify.notice import Notice
from anxin.notify.web import Web


class Webhook:
    """Posts the notice to the address of the contact, signed with the contact's secret."""

    name: Final = "webhook"
    receipts: Final[frozenset[Receipt]] = frozenset({"sent"})
    most_per_minute: Final = None

    def __init__(self, web: Web) -> None:
        """Send through this client."""
        self._web = web

    def fault(self, contact: Contact) -> str | None:
        """Say what is wrong with the URL."""
        return self._web.fault(contact.address)

    async def send(self, notice: Notice, contact: Contact, *, key: str) -> Sent:
        """Post the notice; any 2xx is taken for it."""
        body = msgspec.json.encode({"key": key, **msgspec.to_builtins(notice)})
        headers = {"idempotency-key": key, **sign(contact.secret, body, int(time.time()))}
        return Sent(named(await self._web.post(contact.address, body, headers)))


def sign(secret: str, body: bytes, now_s: int) -> dict[str, str]:
    """Return the headers that prove who sent a body, and when; none without a secret."""
    if not secret:
        return {}
    text = str(now_s).encode() + b"." + body
    digest = hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()
    return {"x-anxin-timestamp": str(now_s), "x-anxin-signature": f"v1={digest}"}


def named(answer: Any) -> str | None:  # noqa: ANN401  # any JSON
    """Return the id that a receiver gave the notice, if it did."""
    given = answer.get("id") if isinstance(answer, dict) else None
    return str(given)[:200] if given is not None else None

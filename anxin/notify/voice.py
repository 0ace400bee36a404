"""A telephone call that reads the notice out, through a voice gateway of the operator's choice.

There is no common protocol: the gateway takes {"to", "text", "key"}, signed as a webhook is, and
answers 2xx, with {"id": …} if it likes. The address is a telephone number.
"""

import time
from typing import Final

import msgspec

from anxin.notify.channel import Contact, Receipt, Sent
from anxin.notify.notice import Notice
from anxin.notify.phone import number_fault, plain_number
from anxin.notify.web import Web
from anxin.notify.webhook import named, sign


class Voice:
    """Calls through one gateway."""

    name: Final = "voice"
    receipts: Final[frozenset[Receipt]] = frozenset({"sent"})
    most_per_minute: Final = None

    def __init__(self, web: Web, *, url: str, secret: str) -> None:
        """Ask this gateway."""
        self._web = web
        self._url = url
        self._secret = secret

    def fault(self, contact: Contact) -> str | None:
        """Say what is missing."""
        if not self._url:
            return "Set ANXIN_VOICE_URL. 尚未配置语音网关。"
        return self._web.fault(self._url) or number_fault(contact.address)

    async def send(self, notice: Notice, contact: Contact, *, key: str) -> Sent:
        """Ask for one call."""
        to = plain_number(contact.address) or contact.address
        body = msgspec.json.encode({"to": to, "text": notice.spoken(), "key": key})
        headers = {"idempotency-key": key, **sign(self._secret, body, int(time.time()))}
        return Sent(named(await self._web.post(self._url, body, headers)))

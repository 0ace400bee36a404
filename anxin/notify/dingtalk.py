"""DingTalk 钉钉 group robot, signed.

Source: https://open.dingtalk.com/document/robots/custom-robot-access (加签). The address is the
robot's URL with its access_token, the secret begins with SEC. Codes: 130101 and 410100 are 20 a
minute exceeded, which DingTalk punishes with ten minutes of silence.
"""

import base64
import hashlib
import hmac
import time
from typing import Final
from urllib.parse import urlencode

from anxin.notify.channel import Contact, Receipt, Sent
from anxin.notify.notice import Notice
from anxin.notify.robot import MOST_PER_MINUTE, ask_robot, cut
from anxin.notify.web import Web

HOSTS: Final = frozenset({"oapi.dingtalk.com"})
MOST_BYTES: Final = 18_000


class Dingtalk:
    """A robot of a DingTalk group."""

    name: Final = "dingtalk"
    receipts: Final[frozenset[Receipt]] = frozenset({"sent"})
    most_per_minute: Final = MOST_PER_MINUTE

    def __init__(self, web: Web) -> None:
        """Send through this client."""
        self._web = web

    def fault(self, contact: Contact) -> str | None:
        """Say what is wrong with the robot's URL."""
        return self._web.fault(contact.address, HOSTS)

    async def send(self, notice: Notice, contact: Contact, *, key: str) -> Sent:  # noqa: ARG002
        """Post a text; the robot knows no idempotency key and gives no id."""
        url = contact.address
        if contact.secret:
            query = urlencode(sign(contact.secret, round(time.time() * 1000)))
            url = f"{url}{'&' if '?' in url else '?'}{query}"
        body = {"msgtype": "text", "text": {"content": cut(notice.text(), MOST_BYTES)}}
        await ask_robot(
            self._web, url, body, code="errcode", rest_seconds={130101: 600.0, 410100: 600.0}
        )
        return Sent()


def sign(secret: str, now_ms: int) -> dict[str, str]:
    """Return the parameters that prove the secret: the text is signed with the secret as key."""
    text = f"{now_ms}\n{secret}".encode()
    digest = hmac.new(secret.encode(), text, hashlib.sha256).digest()
    return {"timestamp": str(now_ms), "sign": base64.b64encode(digest).decode()}

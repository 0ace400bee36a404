"""Feishu 飞书 (and Lark) group robot, signed.

Source: https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot (签名校验). Unlike
DingTalk the text to sign is the key and what is signed is empty. Code 11232: too many at once.
"""

import base64
import hashlib
import hmac
import time
from typing import Any, Final

from anxin.notify.channel import Contact, Receipt, Sent
from anxin.notify.notice import Notice
from anxin.notify.robot import MOST_PER_MINUTE, ask_robot, cut
from anxin.notify.web import Web

HOSTS: Final = frozenset({"open.feishu.cn", "open.larksuite.com"})
MOST_BYTES: Final = 18_000


class Feishu:
    """A robot of a Feishu group."""

    name: Final = "feishu"
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
        content = {"text": cut(notice.text(), MOST_BYTES)}
        body: dict[str, Any] = {"msg_type": "text", "content": content}
        if contact.secret:
            body |= sign(contact.secret, round(time.time()))
        await ask_robot(self._web, contact.address, body, code="code", rest_seconds={11232: 10.0})
        return Sent()


def sign(secret: str, now_s: int) -> dict[str, str]:
    """Return the fields that prove the secret."""
    digest = hmac.new(f"{now_s}\n{secret}".encode(), b"", hashlib.sha256).digest()
    return {"timestamp": str(now_s), "sign": base64.b64encode(digest).decode()}

"""WeCom 企业微信 group robot. Source: https://developer.work.weixin.qq.com/document/path/91770

The address is the robot's URL, whose key is its only secret. Codes: 45009 is 20 a minute exceeded.
"""

from typing import Final

from anxin.notify.channel import Contact, Receipt, Sent
from anxin.notify.notice import Notice
from anxin.notify.robot import MOST_PER_MINUTE, ask_robot, cut
from anxin.notify.web import Web

HOSTS: Final = frozenset({"qyapi.weixin.qq.com"})
MOST_BYTES: Final = 2048


class Wecom:
    """A robot of a WeCom group."""

    name: Final = "wecom"
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
        body = {"msgtype": "text", "text": {"content": cut(notice.text(), MOST_BYTES)}}
        await ask_robot(
            self._web, contact.address, body, code="errcode", rest_seconds={45009: 60.0}
        )
        return Sent()

"""WeChat 微信 official account, template message.

Sources: https://developers.weixin.qq.com/doc/service/api/notify/template/api_sendtemplatemessage
and …/base/api_getstableaccesstoken. The address is the follower's openid. Several processes may
hold the stable token at once; it lives two hours. Codes: 40001, 40014, 42001 are a token that is no
longer valid, 45009 and 45011 quotas, 43004 a person who does not follow the account.
"""

import asyncio
import time
from typing import Any, Final

import msgspec

from anxin.notify.channel import Contact, DeliveryError, Receipt, Sent
from anxin.notify.notice import Notice
from anxin.notify.web import Web

ENDPOINT: Final = "https://api.weixin.qq.com"
MOST_CHARACTERS: Final = 20
"""The bound of a `thing` field."""
_STALE: Final = frozenset({40001, 40014, 42001})
_REST_SECONDS: Final = {-1: 1.0, 45009: 600.0, 45011: 60.0}
_RENEW_BEFORE_SECONDS: Final = 300.0


class Wechat:
    """Template messages to the followers of one official account."""

    name: Final = "wechat"
    receipts: Final[frozenset[Receipt]] = frozenset({"sent"})
    most_per_minute: Final = None

    def __init__(
        self, web: Web, *, app_id: str, secret: str, template: str, fields: str,
        endpoint: str = ENDPOINT,
    ) -> None:  # fmt: skip
        """`fields` says which field of the template shows what: thing1=what,thing2=place."""
        self._web = web
        self._app_id = app_id
        self._secret = secret
        self._template = template
        self._fields = dict(pair.split("=", 1) for pair in fields.split(",") if "=" in pair)
        self._endpoint = endpoint
        self._token = ""
        self._token_until = 0.0
        self._renewing = asyncio.Lock()

    def fault(self, contact: Contact) -> str | None:
        """Say what is missing."""
        if not (self._app_id and self._secret and self._template):
            return "Set ANXIN_WECHAT_APP_ID, _SECRET and _TEMPLATE. 尚未配置公众号。"
        if not contact.address.isascii() or len(contact.address) > 64:
            return "The address must be an openid. 地址应为 openid。"
        return None

    async def send(self, notice: Notice, contact: Contact, *, key: str) -> Sent:
        """Send one template message; `client_msg_id` keeps a repeat from showing twice."""
        said = {
            "what": notice.what_zh, "place": notice.place, "who": notice.who, "time": notice.at,
        }  # fmt: skip
        body = {
            "touser": contact.address,
            "template_id": self._template,
            "url": notice.link,
            "client_msg_id": key[:32],
            "data": {
                field: {"value": said.get(what, "")[:MOST_CHARACTERS] or "-"}
                for field, what in self._fields.items()
            },
        }
        answer = await self._ask(body)
        if answer.get("errcode") in _STALE:
            self._token = ""
            answer = await self._ask(body)
        if answer.get("errcode", 0) != 0:
            raise _refused(answer)
        return Sent(str(answer["msgid"]) if "msgid" in answer else None)

    async def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        token = await self._fresh_token()
        url = f"{self._endpoint}/cgi-bin/message/template/send?access_token={token}"
        return _object(await self._web.post(url, msgspec.json.encode(body), coded=True))

    async def _fresh_token(self) -> str:
        async with self._renewing:
            if not self._token or time.monotonic() > self._token_until:
                ask = {
                    "grant_type": "client_credential",
                    "appid": self._app_id,
                    "secret": self._secret,
                }
                url = f"{self._endpoint}/cgi-bin/stable_token"
                answer = _object(await self._web.post(url, msgspec.json.encode(ask), coded=True))
                token, lives = answer.get("access_token"), answer.get("expires_in", 7200)
                if not isinstance(token, str) or not isinstance(lives, int):
                    raise _refused(answer)
                self._token = token
                self._token_until = time.monotonic() + lives - _RENEW_BEFORE_SECONDS
            return self._token


def _object(answer: object) -> dict[str, Any]:
    if not isinstance(answer, dict) or not isinstance(answer.get("errcode", 0), int):
        raise DeliveryError("WeChat's answer cannot be read.", permanent=False)
    return answer


def _refused(answer: dict[str, Any]) -> DeliveryError:
    code: int | None = answer.get("errcode")
    rest = 1.0 if code is None else _REST_SECONDS.get(code)
    return DeliveryError(
        f"WeChat refused it (errcode {code}).", permanent=rest is None, retry_after_seconds=rest
    )

"""Aliyun 阿里云短信, SendSms with signature V3.

Sources: https://help.aliyun.com/zh/sdk/product-overview/v3-request-structure-and-signature and
https://help.aliyun.com/zh/sms/developer-reference/api-dysmsapi-2017-05-25-sendsms. The template
must name the variables what, place, who and time. `OutId` carries the key into the receipt.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlsplit

import msgspec

from anxin.notify.channel import Contact, DeliveryError, Receipt, Sent
from anxin.notify.notice import Notice
from anxin.notify.phone import number_fault, plain_number
from anxin.notify.web import Web

TELLS: Final[frozenset[Receipt]] = frozenset({"sent", "delivered"})
ENDPOINT: Final = "https://dysmsapi.aliyuncs.com"
VERSION: Final = "2017-05-25"
MOST_CHARACTERS: Final = 35
"""The bound of a template variable."""


class AliyunSms:
    """Text messages through Aliyun."""

    name: Final = "aliyun_sms"
    most_per_minute: Final = None

    def __init__(
        self, web: Web, *, key_id: str, key_secret: str, sign_name: str, template: str,
        reports: bool, endpoint: str = ENDPOINT,
    ) -> None:  # fmt: skip
        """`reports` says that Aliyun reports deliveries back to us."""
        self._web = web
        self._key_id = key_id
        self._key_secret = key_secret
        self._sign_name = sign_name
        self._template = template
        self._endpoint = endpoint
        self.receipts: frozenset[Receipt] = TELLS if reports else TELLS - {"delivered"}

    def fault(self, contact: Contact) -> str | None:
        """Say what is missing."""
        if not (self._key_id and self._key_secret and self._sign_name and self._template):
            return "Set ANXIN_ALIYUN_KEY_ID, _KEY_SECRET, _SIGN and _TEMPLATE. 尚未配置阿里云短信。"
        return number_fault(contact.address)

    async def send(self, notice: Notice, contact: Contact, *, key: str) -> Sent:
        """Send one text message."""
        number = (plain_number(contact.address) or contact.address).removeprefix("+")
        variables = {
            "what": notice.what_zh, "place": notice.place, "who": notice.who, "time": notice.at,
        }  # fmt: skip
        query = {
            "PhoneNumbers": number.removeprefix("86") if number.startswith("86") else number,
            "SignName": self._sign_name,
            "TemplateCode": self._template,
            "TemplateParam": msgspec.json.encode(
                {name: value[:MOST_CHARACTERS] or "-" for name, value in variables.items()}
            ).decode(),
            "OutId": key,
        }
        headers, text = sign(
            key_id=self._key_id,
            key_secret=self._key_secret,
            host=urlsplit(self._endpoint).netloc,
            action="SendSms",
            version=VERSION,
            query=query,
            now=datetime.now(UTC),
            nonce=secrets.token_hex(16),
        )
        answer = await self._web.post(f"{self._endpoint}/?{text}", b"", headers, coded=True)
        if not isinstance(answer, dict) or "Code" not in answer:
            raise DeliveryError("Aliyun's answer cannot be read.", permanent=False)
        if answer["Code"] != "OK":
            raise _refused(str(answer["Code"]))
        given = answer.get("BizId")
        return Sent(given if isinstance(given, str) else None)


def sign(
    *, key_id: str, key_secret: str, host: str, action: str, version: str,
    query: Mapping[str, str], now: datetime, nonce: str,
) -> tuple[dict[str, str], str]:  # fmt: skip
    """Return the headers (ACS3-HMAC-SHA256) and the query string of a request without a body."""
    text = "&".join(
        f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(query.items())
    )
    nothing = hashlib.sha256(b"").hexdigest()
    signed = {
        "host": host,
        "x-acs-action": action,
        "x-acs-content-sha256": nothing,
        "x-acs-date": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x-acs-signature-nonce": nonce,
        "x-acs-version": version,
    }
    names = ";".join(signed)
    lines = "".join(f"{name}:{value}\n" for name, value in signed.items())
    request = "\n".join(("POST", "/", text, lines, names, nothing))
    to_sign = f"ACS3-HMAC-SHA256\n{hashlib.sha256(request.encode()).hexdigest()}"
    signature = hmac.new(key_secret.encode(), to_sign.encode(), hashlib.sha256).hexdigest()
    authorization = (
        f"ACS3-HMAC-SHA256 Credential={key_id},SignedHeaders={names},Signature={signature}"
    )
    return {**signed, "authorization": authorization}, text


def _refused(code: str) -> DeliveryError:
    passing = code == "isv.BUSINESS_LIMIT_CONTROL" or code.startswith(
        ("isp.", "Throttling", "InternalError", "ServiceUnavailable")
    )
    return DeliveryError(
        f"Aliyun refused it ({code}).",
        permanent=not passing,
        retry_after_seconds=60.0 if code == "isv.BUSINESS_LIMIT_CONTROL" else None,
    )


def read_reports(body: Any) -> list[tuple[str, bool]]:  # noqa: ANN401  # any JSON
    """Return (our provider_id, whether it arrived) for each line of a pushed SmsReport.

    Source: https://help.aliyun.com/zh/sms/developer-reference/smsreport-2
    """
    return [
        (str(one["biz_id"]), bool(one.get("success")))
        for one in (body if isinstance(body, list) else [])
        if isinstance(one, dict) and "biz_id" in one
    ]

"""Tencent Cloud 腾讯云短信, SendSms with signature TC3-HMAC-SHA256.

Sources: https://cloud.tencent.com/document/api/382/55981 (SendSms 2021-01-11) and
https://cloud.tencent.com/document/api/382/52072 (签名方法 v3). The template's parameters are, in
this order: what, place, who, time. `SessionContext` carries the key into the receipt.
"""

import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from anxin.notify.channel import Contact, DeliveryError, Receipt, Sent
from anxin.notify.notice import Notice
from anxin.notify.phone import number_fault, plain_number
from anxin.notify.web import Web

TELLS: Final[frozenset[Receipt]] = frozenset({"sent", "delivered"})
ENDPOINT: Final = "https://sms.tencentcloudapi.com"
VERSION: Final = "2021-01-11"
REGION: Final = "ap-guangzhou"
CONTENT_TYPE: Final = "application/json; charset=utf-8"
MOST_CHARACTERS: Final = 12
"""The bound of a template parameter for accounts of the ordinary kind."""


class TencentSms:
    """Text messages through Tencent Cloud."""

    name: Final = "tencent_sms"
    most_per_minute: Final = None

    def __init__(
        self, web: Web, *, secret_id: str, secret_key: str, app_id: str, sign_name: str,
        template: str, reports: bool, endpoint: str = ENDPOINT,
    ) -> None:  # fmt: skip
        """`reports` says that Tencent reports deliveries back to us."""
        self._web = web
        self._secret_id = secret_id
        self._secret_key = secret_key
        self._app_id = app_id
        self._sign_name = sign_name
        self._template = template
        self._endpoint = endpoint
        self.receipts: frozenset[Receipt] = TELLS if reports else TELLS - {"delivered"}

    def fault(self, contact: Contact) -> str | None:
        """Say what is missing."""
        if not (self._secret_id and self._secret_key and self._app_id and self._template):
            return (
                "Set ANXIN_TENCENT_SECRET_ID, _SECRET_KEY, _SMS_APP_ID, _SIGN and _TEMPLATE."
                " 尚未配置腾讯云短信。"
            )
        return number_fault(contact.address)

    async def send(self, notice: Notice, contact: Contact, *, key: str) -> Sent:
        """Send one text message."""
        said = (notice.what_zh, notice.place, notice.who, notice.at)
        body = msgspec.json.encode(
            {
                "PhoneNumberSet": [plain_number(contact.address) or contact.address],
                "SmsSdkAppId": self._app_id,
                "SignName": self._sign_name,
                "TemplateId": self._template,
                "TemplateParamSet": [shortened(text) for text in said],
                "SessionContext": key,
            }
        )
        now = datetime.now(UTC)
        host = urlsplit(self._endpoint).netloc
        headers = {
            "content-type": CONTENT_TYPE,
            "x-tc-action": "SendSms",
            "x-tc-version": VERSION,
            "x-tc-region": REGION,
            "x-tc-timestamp": str(int(now.timestamp())),
            "authorization": sign(
                secret_id=self._secret_id,
                secret_key=self._secret_key,
                service="sms",
                host=host,
                body=body,
                now=now,
            ),
        }
        answer = await self._web.post(f"{self._endpoint}/", body, headers, coded=True)
        return _read(answer)


def shortened(text: str) -> str:
    """Return what fits into a parameter, from the end: the bed says more than the town."""
    return text[-MOST_CHARACTERS:].strip(" ·") or "-"


def sign(
    *, secret_id: str, secret_key: str, service: str, host: str, body: bytes, now: datetime
) -> str:
    """Return the Authorization header of a POST of JSON."""
    now = now.astimezone(UTC)
    day = now.strftime("%Y-%m-%d")
    names = "content-type;host"
    request = "\n".join(
        (
            "POST", "/", "", f"content-type:{CONTENT_TYPE}\nhost:{host}\n", names,
            hashlib.sha256(body).hexdigest(),
        )
    )  # fmt: skip
    scope = f"{day}/{service}/tc3_request"
    hashed = hashlib.sha256(request.encode()).hexdigest()
    to_sign = f"TC3-HMAC-SHA256\n{int(now.timestamp())}\n{scope}\n{hashed}"
    signing_key = f"TC3{secret_key}".encode()
    for part in (day, service, "tc3_request"):
        signing_key = hmac.new(signing_key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(signing_key, to_sign.encode(), hashlib.sha256).hexdigest()
    return (
        f"TC3-HMAC-SHA256 Credential={secret_id}/{scope}, SignedHeaders={names},"
        f" Signature={signature}"
    )


def _read(answer: Any) -> Sent:  # noqa: ANN401  # any JSON
    response = _object(_object(answer).get("Response"))
    if error := response.get("Error"):
        raise _refused(str(_object(error).get("Code")))
    statuses = response.get("SendStatusSet")
    status = _object(statuses[0] if isinstance(statuses, list) and statuses else None)
    if status.get("Code") != "Ok":
        raise _refused(str(status.get("Code")))
    number = status.get("SerialNo")
    return Sent(number if isinstance(number, str) else None)


def _object(part: object) -> dict[str, Any]:
    if not isinstance(part, dict):
        raise DeliveryError("Tencent's answer cannot be read.", permanent=False)
    return part


def _refused(code: str) -> DeliveryError:
    limited = code.startswith(("LimitExceeded", "RequestLimitExceeded"))
    passing = limited or code.startswith("InternalError")
    return DeliveryError(
        f"Tencent refused it ({code}).",
        permanent=not passing,
        retry_after_seconds=30.0 if limited else None,
    )


def read_reports(body: Any) -> list[tuple[str, bool]]:  # noqa: ANN401  # any JSON
    """Return (our provider_id, whether it arrived) for each line of a pushed status report.

    Source: https://cloud.tencent.com/document/product/382/52077
    """
    return [
        (str(one["sid"]), one.get("report_status") == "SUCCESS")
        for one in (body if isinstance(body, list) else [])
        if isinstance(one, dict) and "sid" in one
    ]

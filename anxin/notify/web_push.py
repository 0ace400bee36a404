"""Web Push: a notice in a browser that need not be open. A bonus only, and no way to rely on.

Push services belong to the makers of browsers; telephones in mainland China do not hear them.

Sources: https://www.rfc-editor.org/rfc/rfc8030 (the request), …/rfc8291 and …/rfc8188 (encryption
to the browser's key), …/rfc8292 (VAPID: who sends). The address is the browser's subscription as
JSON. The message has the shape of declarative Web Push, https://www.w3.org/TR/push-api/: a browser
that knows it shows the notice by itself, any other hands it to the page's service worker.
"""

import base64
import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from anxin.notify.channel import Contact, DeliveryError, Receipt, Sent
from anxin.notify.notice import Notice
from anxin.notify.robot import cut
from anxin.notify.web import Web

MOST_BYTES: Final = 3993
"""What every push service takes: 4096 less header (86), tag (16) and delimiter (1)."""
MOST_TITLE_BYTES: Final = 500
TOKEN_LIVES: Final = timedelta(hours=12)
"""Half of what is allowed: a clock that is wrong by hours, here or there, does no harm."""
# A push service lets "normal" wait until a sleeping telephone wakes by itself, and an alarm of
# medium priority wants an answer within minutes. The seconds say how long a notice that finds no
# browser is kept.
_URGENCY_AND_SECONDS: Final = {
    "high": ("high", 3600), "medium": ("high", 3600), "low": ("normal", 86_400),
}  # fmt: skip
_GONE: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
_CURVE: Final = ec.SECP256R1()
_RECORD_BYTES: Final = 4096
_SALT_BYTES: Final = 16
_SECRET_BYTES: Final = 16
_PRIVATE_BYTES: Final = 32


class Subscription(msgspec.Struct, frozen=True):
    """Where a browser is reached, and the keys that only it can read with."""

    endpoint: str
    public_key: ec.EllipticCurvePublicKey
    secret: bytes


class WebPush:
    """Messages to browsers that have subscribed."""

    name: Final = "web_push"
    receipts: Final[frozenset[Receipt]] = frozenset({"sent"})
    most_per_minute: Final = None

    def __init__(self, web: Web, *, private_key: str, subject: str) -> None:
        """`private_key` is a P-256 key, PEM or 32 bytes in base64url; `subject` says whose."""
        self._web = web
        self._given = bool(private_key)
        self._key = read_private_key(private_key)
        self._subject = subject

    def fault(self, contact: Contact) -> str | None:
        """Say what is missing, or wrong with the subscription."""
        if not (self._given and self._subject):
            return "Set ANXIN_VAPID_PRIVATE_KEY and ANXIN_VAPID_SUBJECT. 尚未配置 Web Push。"
        if self._key is None:
            return (
                "Set ANXIN_VAPID_PRIVATE_KEY to a P-256 key, as PEM or as 32 bytes in base64url."
                " VAPID 私钥无法使用。"
            )
        if not self._subject.startswith(("mailto:", "https://")):
            return (
                "Set ANXIN_VAPID_SUBJECT to mailto:… or https://…, where push services find you."
                " VAPID 联系方式格式不对。"
            )
        subscription = read_subscription(contact.address)
        if subscription is None:
            return (
                "The address must be the browser's subscription as JSON, with endpoint, keys.p256dh"
                " and keys.auth. 地址应为浏览器推送订阅的 JSON。"
            )
        return self._web.fault(subscription.endpoint)

    async def send(self, notice: Notice, contact: Contact, *, key: str) -> Sent:
        """Push the notice; one key shows once, for a repeat replaces what is still there."""
        subscription = read_subscription(contact.address)
        if subscription is None or self._key is None:
            raise DeliveryError(self.fault(contact) or "", permanent=True)
        name = topic(key)
        urgency, seconds = _URGENCY_AND_SECONDS[notice.priority]
        headers = {
            "content-type": "application/octet-stream",
            "content-encoding": "aes128gcm",
            "ttl": str(seconds),
            "urgency": urgency,
            "topic": name,
            "authorization": authorize(
                self._key, self._subject, subscription.endpoint, datetime.now(UTC)
            ),
        }
        body = encrypt(
            message(notice, name),
            subscription,
            sender=ec.generate_private_key(_CURVE),
            salt=secrets.token_bytes(_SALT_BYTES),
        )
        try:
            await self._web.post(subscription.endpoint, body, headers)
        except DeliveryError as error:
            if error.status in _GONE:
                raise DeliveryError(
                    f"The browser has ended this subscription (HTTP {error.status}). Subscribe"
                    " again and store the new one. 推送订阅已失效，请重新订阅。",
                    permanent=True,
                    status=error.status,
                ) from error
            raise
        return Sent()


def message(notice: Notice, tag: str) -> bytes:
    """Return what the browser gets to read, at most MOST_BYTES of JSON."""
    _, _, body = msgspec.structs.replace(notice, link="").text().partition("\n")

    def written(body: str) -> bytes:
        return msgspec.json.encode(
            {
                "web_push": 8030,
                "notification": {
                    "title": cut(notice.title(), MOST_TITLE_BYTES),
                    "lang": "zh-CN",
                    "body": body,
                    "tag": tag,
                    "navigate": notice.link,
                    "requireInteraction": notice.priority == "high",
                },
            }
        )

    while body and len(written(body)) > MOST_BYTES:
        body = cut(body, len(body.encode()) * 9 // 10)
    return written(body)


def application_server_key(private_key: str) -> str | None:
    """Return the public half as a page gives it to the browser; None without a usable key."""
    key = read_private_key(private_key)
    return None if key is None else _encoded(_point(key.public_key()))


def topic(key: str) -> str:
    """Return a name for a key of ours that push services take: 32 characters of base64url."""
    return _encoded(hashlib.sha256(key.encode()).digest()[:24])


def encrypt(
    plain: bytes, subscription: Subscription, *, sender: ec.EllipticCurvePrivateKey, salt: bytes
) -> bytes:
    """Return a message of at most MOST_BYTES as one record that only the browser can read.

    `sender` is a key for this message alone, `salt` 16 random bytes.
    """
    theirs, ours = _point(subscription.public_key), _point(sender.public_key())
    shared = sender.exchange(ec.ECDH(), subscription.public_key)
    secret = _derived(shared, subscription.secret, b"WebPush: info\0" + theirs + ours, 32)
    content_key = _derived(secret, salt, b"Content-Encoding: aes128gcm\0", 16)
    nonce = _derived(secret, salt, b"Content-Encoding: nonce\0", 12)
    header = salt + _RECORD_BYTES.to_bytes(4, "big") + bytes([len(ours)]) + ours
    return header + AESGCM(content_key).encrypt(nonce, plain + b"\x02", None)


def authorize(key: ec.EllipticCurvePrivateKey, subject: str, endpoint: str, now: datetime) -> str:
    """Return the header that says who sends: a token for this push service, and our public key."""
    parts = urlsplit(endpoint)
    usual_port = ":443" if parts.scheme == "https" else ":80"
    claims = {
        "aud": f"{parts.scheme}://{parts.netloc.lower().removesuffix(usual_port)}",
        "exp": int((now + TOKEN_LIVES).timestamp()),
        "sub": subject,
    }
    text = ".".join(
        _encoded(msgspec.json.encode(part)) for part in ({"typ": "JWT", "alg": "ES256"}, claims)
    )
    r, s = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(SHA256())))
    signature = _encoded(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    return f"vapid t={text}.{signature}, k={_encoded(_point(key.public_key()))}"


def read_private_key(text: str) -> ec.EllipticCurvePrivateKey | None:
    """Return a P-256 key from PEM or from 32 bytes in base64url; None when it is neither."""
    try:
        if text.lstrip().startswith("-----"):
            key = load_pem_private_key(text.encode(), password=None)
            if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == _CURVE.name:
                return key
            return None
        raw = _decoded(text.strip())
        if len(raw) != _PRIVATE_BYTES:
            return None
        return ec.derive_private_key(int.from_bytes(raw, "big"), _CURVE)
    # TypeError: the key is locked with a password.
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def read_subscription(text: str) -> Subscription | None:
    """Return what a browser's PushSubscription says as JSON; None when it cannot be used."""
    try:
        raw = msgspec.json.decode(text, type=_RawSubscription)
        secret = _decoded(raw.keys.auth)
        if len(secret) != _SECRET_BYTES:
            return None
        point = _decoded(raw.keys.p256dh)
        public_key = ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, point)
    except (msgspec.DecodeError, ValueError):
        return None
    return Subscription(raw.endpoint, public_key, secret)


class _Keys(msgspec.Struct, frozen=True):
    p256dh: str
    auth: str


class _RawSubscription(msgspec.Struct, frozen=True):
    endpoint: str
    keys: _Keys


def _derived(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length=length, salt=salt, info=info).derive(secret)


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    """Read base64url with or without its padding; raise ValueError on anything else."""
    bare = text.rstrip("=")
    padded = bare + "=" * (-len(bare) % 4)
    return base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True)

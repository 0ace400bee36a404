"""A browser with a subscription, and the push service that checks who pushes and hands it over."""

import base64
import hmac
from dataclasses import dataclass, field
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.recording import Heard, Reply


@dataclass(frozen=True)
class Browser:
    """Holds the private key of a subscription and reads as RFC 8291 and RFC 8188 tell it."""

    key: ec.EllipticCurvePrivateKey
    secret: bytes

    def subscription(self, endpoint: str) -> str:
        """Return what the browser tells its page, as JSON."""
        keys = {"p256dh": to_text(_point(self.key.public_key())), "auth": to_text(self.secret)}
        told = {"endpoint": endpoint, "expirationTime": None, "keys": keys}
        return msgspec.json.encode(told).decode()

    def read(self, body: bytes) -> bytes:
        """Return what one record says."""
        salt, record, length = body[:16], int.from_bytes(body[16:20], "big"), body[20]
        point, sealed = body[21 : 21 + length], body[21 + length :]
        assert len(sealed) <= record
        sender = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        shared = self.key.exchange(ec.ECDH(), sender)
        info = b"WebPush: info\x00" + _point(self.key.public_key()) + point
        secret = _expand(hmac.digest(self.secret, shared, "sha256"), info)
        root = hmac.digest(salt, secret, "sha256")
        content_key = _expand(root, b"Content-Encoding: aes128gcm\x00")[:16]
        nonce = _expand(root, b"Content-Encoding: nonce\x00")[:12]
        padded = AESGCM(content_key).decrypt(nonce, sealed, None).rstrip(b"\x00")
        assert padded.endswith(b"\x02"), "the delimiter of the last record is missing"
        return padded[:-1]


@dataclass(frozen=True)
class Token:
    """What a VAPID header says, and which key signed it."""

    head: dict[str, Any]
    claims: dict[str, Any]
    key: bytes


def verify_vapid(header: str) -> Token:
    """Return the token of an Authorization header; raise InvalidSignature when it is another's."""
    scheme, _, rest = header.partition(" ")
    assert scheme == "vapid"
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    signed, _, signature = parts["t"].rpartition(".")
    both = to_bytes(signature)
    assert len(both) == 64
    point = to_bytes(parts["k"])
    ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point).verify(
        encode_dss_signature(int.from_bytes(both[:32], "big"), int.from_bytes(both[32:], "big")),
        signed.encode(),
        ec.ECDSA(SHA256()),
    )
    head, claims = (msgspec.json.decode(to_bytes(part)) for part in signed.split("."))
    return Token(head, claims, point)


@dataclass
class PushService:
    """Takes messages for one browser from the application server that it subscribed with."""

    browser: Browser
    application_server_key: str
    ended: int = 0
    """The status with which it says that the subscription is no more; 0 while it is."""
    shown: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, heard: Heard) -> Reply:
        """Answer as RFC 8030 and RFC 8292 tell it."""
        if self.ended:
            return Reply({"reason": "unsubscribed"}, self.ended)
        try:
            token = verify_vapid(heard.headers["authorization"])
        except (InvalidSignature, KeyError, ValueError):
            return Reply({"reason": "no valid VAPID token"}, 401)
        if token.claims["aud"] != f"http://{heard.headers['host']}":
            return Reply({"reason": "a token for another service"}, 403)
        if to_text(token.key) != self.application_server_key:
            return Reply({"reason": "another key than that of the subscription"}, 403)
        if not heard.headers["ttl"].isdigit() or heard.headers["content-encoding"] != "aes128gcm":
            return Reply({"reason": "ttl or content-encoding"}, 400)
        if len(heard.body) > 4096:
            return Reply({"reason": "too long"}, 413)
        self.shown.append(msgspec.json.decode(self.browser.read(heard.body)))
        return Reply(None, 201, {"location": "/message/1"})


def to_text(raw: bytes) -> str:
    """Return bytes in base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def to_bytes(text: str) -> bytes:
    """Return what base64url without padding says."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _expand(root: bytes, info: bytes) -> bytes:
    return hmac.digest(root, info + b"\x01", "sha256")

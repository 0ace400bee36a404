"""The secret of a device: made once, shown once, kept only as a salted hash.

A secret carries 256 random bits, so one round of SHA-256 cannot be searched, and thousands of
devices that reconnect at the same moment cost the processor next to nothing.
"""

import hashlib
import hmac
import secrets
from datetime import datetime
from typing import Literal, Protocol

SALT_BYTES = 16

Proof = Literal["secret", "old secret", "certificate"]
"""With what a device has shown who it is."""


class Lock(Protocol):
    """What is known of a device to let it in."""

    @property
    def salt(self) -> bytes:
        """Salt of the present secret."""

    @property
    def secret_hash(self) -> bytes:
        """Hash of the present secret."""

    @property
    def old_salt(self) -> bytes | None:
        """Salt of the secret before, while that still opens."""

    @property
    def old_secret_hash(self) -> bytes | None:
        """Hash of the secret before, while that still opens."""

    @property
    def old_until(self) -> datetime | None:
        """So long the secret before opens."""

    @property
    def certificates_from(self) -> datetime | None:
        """Certificates issued before do not open."""


def new_secret() -> tuple[str, bytes, bytes]:
    """Return a new secret as text, with the salt and the hash that are stored in its place."""
    secret = secrets.token_urlsafe(32)
    salt = secrets.token_bytes(SALT_BYTES)
    return secret, salt, _digest(salt, secret.encode())


def proof_of(
    lock: Lock, secret: bytes | None, issued_at: datetime | None, now: datetime
) -> Proof | None:
    """Return what opens the lock, or None.

    `issued_at` is when the certificate was issued that names this device, None without one. A
    secret that is sent must be right, also beside a certificate.
    """
    if issued_at is not None:
        if lock.certificates_from is not None and issued_at < lock.certificates_from:
            return None
        if secret is None:
            return "certificate"
    if secret is None:
        return None
    if matches(secret, lock.salt, lock.secret_hash):
        return "secret"
    if (
        lock.old_salt is not None
        and lock.old_secret_hash is not None
        and lock.old_until is not None
        and now < lock.old_until
        and matches(secret, lock.old_salt, lock.old_secret_hash)
    ):
        return "old secret"
    return None


def matches(secret: bytes, salt: bytes, hashed: bytes) -> bool:
    """Tell whether this is the secret behind `hashed`, in a time that does not depend on it."""
    return hmac.compare_digest(_digest(salt, secret), hashed)


def _digest(salt: bytes, secret: bytes) -> bytes:
    return hashlib.sha256(salt + secret).digest()

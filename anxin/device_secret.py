"""The secret of a device: made once, shown once, kept only as a salted hash.

A secret carries 256 random bits, so one round of SHA-256 cannot be searched, and thousands of
devices that reconnect at the same moment cost the processor next to nothing.
"""

import hashlib
import hmac
import secrets

SALT_BYTES = 16


def new_secret() -> tuple[str, bytes, bytes]:
    """Return a new secret as text, with the salt and the hash that are stored in its place."""
    secret = secrets.token_urlsafe(32)
    salt = secrets.token_bytes(SALT_BYTES)
    return secret, salt, _digest(salt, secret.encode())


def matches(secret: bytes, salt: bytes, hashed: bytes) -> bool:
    """Tell whether this is the secret behind `hashed`, in a time that does not depend on it."""
    return hmac.compare_digest(_digest(salt, secret), hashed)


def _digest(salt: bytes, secret: bytes) -> bytes:
    return hashlib.sha256(salt + secret).digest()

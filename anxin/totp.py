"""Time-based one-time codes (RFC 6238 over RFC 4226), and the codes for a lost telephone. Pure."""

import base64
import hmac
import secrets
from datetime import datetime
from hashlib import sha256
from typing import Final
from urllib.parse import quote, urlencode

STEP_SECONDS: Final = 30
DIGITS: Final = 6
SECRET_BYTES: Final = 20
"""As long as a hash of SHA-1, as RFC 4226 asks for."""
DRIFT: Final = 1
"""So many steps may a telephone's clock be off, either way."""
RECOVERY_CODES: Final = 10
_RECOVERY_BYTES: Final = 10
_ISSUER: Final = "Anxin"
_LONGEST_LABEL: Final = 120


def new_secret() -> bytes:
    """Return a fresh secret."""
    return secrets.token_bytes(SECRET_BYTES)


def code_of(secret: bytes, counter: int, *, digits: int = DIGITS, digest: str = "sha1") -> str:
    """Return the code of a counter (RFC 4226); of a time step it is that of RFC 6238."""
    hashed = hmac.digest(secret, counter.to_bytes(8, "big"), digest)
    offset = hashed[-1] & 0x0F
    number = int.from_bytes(hashed[offset : offset + 4], "big") & 0x7FFF_FFFF
    return str(number % 10**digits).zfill(digits)


def step_at(now: datetime) -> int:
    """Return the time step of a moment."""
    return int(now.timestamp()) // STEP_SECONDS


def matching_step(secret: bytes, code: str, now: datetime, *, after: int) -> int | None:
    """Return the step whose code this is, near `now` and later than the step used last; or None."""
    found = None
    for step in range(step_at(now) - DRIFT, step_at(now) + DRIFT + 1):
        # Every one is compared, so that the time taken tells nothing.
        same = hmac.compare_digest(code_of(secret, step).encode(), code.encode())
        if same and step > after:
            found = step
    return found


def secret_text(secret: bytes) -> str:
    """Return a secret as people type it into an authenticator."""
    return base64.b32encode(secret).decode().rstrip("=")


def otpauth_uri(secret: bytes, username: str) -> str:
    """Return what the QR code of an enrolment says; a long name is cut so that it fits into one.

    Algorithm, digits and period are those that every authenticator takes when none are named.
    """
    values = urlencode({"secret": secret_text(secret), "issuer": _ISSUER})
    label = quote(f"{_ISSUER}:{username}", safe="")
    while len(label) > _LONGEST_LABEL:
        username = username[:-1]
        label = quote(f"{_ISSUER}:{username}", safe="")
    return f"otpauth://totp/{label}?{values}"


def new_recovery_codes() -> list[str]:
    """Return codes of 80 random bits in groups of four, each good once."""
    texts = (
        base64.b32encode(secrets.token_bytes(_RECOVERY_BYTES)).decode().lower()
        for _ in range(RECOVERY_CODES)
    )
    return ["-".join(text[start : start + 4] for start in range(0, 16, 4)) for text in texts]


def hash_recovery_code(code: str) -> bytes:
    """Return what is stored of a recovery code, however typed: random enough for one round."""
    plain = "".join(letter for letter in code.lower() if letter.isalnum())
    return sha256(b"recovery\0" + plain.encode()).digest()

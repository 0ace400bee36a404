"""Passwords of people: hashed with argon2, never stored, never logged."""

from functools import cache

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher


def hash_password(password: str) -> str:
    """Return the argon2 hash to store; takes tens of milliseconds of one core."""
    return _hasher().hash(password)


def password_matches(password: str, hashed: str | None) -> bool:
    """Tell whether it is the right password; without a stored hash, false after the same time."""
    if hashed is None:
        _hasher().verify(password, _of_nobody())
        return False
    return _hasher().verify(password, hashed)


@cache
def _hasher() -> PasswordHash:
    return PasswordHash((Argon2Hasher(),))


@cache
def _of_nobody() -> str:
    return _hasher().hash("nobody has this password")

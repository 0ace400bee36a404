"""Passwords of people: hashed with argon2, never stored, never logged; and which are too weak."""

import secrets
import unicodedata
from functools import cache
from typing import Final, Literal

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

Weakness = Literal["short", "name", "common", "old"]
WORDS: Final[dict[Weakness, str]] = {
    "short": "A password has at least 10 characters: several words do well.",
    "name": "A password does not contain the user name.",
    "common": "This password is one of the first that are tried. Choose several words, or another.",
    "old": "The new password is the old one. Choose another.",
}
"""What to do about a password that may not be chosen."""
SHORTEST: Final = 10
LONGEST: Final = 256
_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"
"""Without letters that look like others when somebody reads them out."""

# Ours, made for this check: words, names of this platform, and lines of keys that people in China
# and elsewhere build passwords from. A password that is such words and digits only is too easy.
_COMMON: Final = (
    "password", "passw0rd", "passwort", "mima", "woaini", "iloveyou", "welcome", "letmein", "admin",
    "administrator", "root", "user", "test", "guest", "login", "master", "secret", "changeme",
    "default", "qwerty", "qwertyuiop", "asdfghjkl", "zxcvbnm", "qazwsx", "1qaz2wsx", "1q2w3e4r5t",
    "anxin", "nurse", "hospital", "huli", "yanglao", "yanglaoyuan", "station", "dragon", "monkey",
    "sunshine", "princess", "football", "abc", "aaa", "qq", "wang", "zhang", "china", "zhongguo",
    "beijing", "shanghai", "xiaoming", "laoren", "hushi", "yisheng", "love",
)  # fmt: skip
_LINES: Final = ("01234567890123456789", "abcdefghijklmnopqrstuvwxyz", "qwertyuiop", "asdfghjkl",
                 "zxcvbnm", "1qaz2wsx3edc4rfv5tgb", "1q2w3e4r5t6y7u8i9o0p")  # fmt: skip
_FEWEST_SIGNS: Final = 5
_SHORTEST_NAME: Final = 3
_TELEPHONE: Final = 11


def weakness(password: str, username: str) -> Weakness | None:
    """Return why a password may not be chosen; None when it may."""
    if len(password) < SHORTEST:
        return "short"
    plain = unicodedata.normalize("NFKC", password).lower()
    name = unicodedata.normalize("NFKC", username).lower()
    if len(name) >= _SHORTEST_NAME and (name in plain or name[::-1] in plain):
        return "name"
    if len(set(plain)) < _FEWEST_SIGNS or _is_line(plain) or _is_number(plain) or _is_common(plain):
        return "common"
    return None


def one_time_password() -> str:
    """Return a password of 79 random bits that can be read out over the telephone."""
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(16))
    return "-".join(letters[start : start + 4] for start in range(0, 16, 4))


def hash_password(password: str) -> str:
    """Return the argon2 hash to store; takes tens of milliseconds of one core."""
    return _hasher().hash(password)


def password_matches(password: str, hashed: str | None) -> bool:
    """Tell whether it is the right password; without a stored hash, false after the same time."""
    return check_password(password, hashed)[0]


def check_password(password: str, hashed: str | None) -> tuple[bool, str | None]:
    """Tell whether it is the right password, and return a hash made as strongly as is usual now.

    The new hash is None when the stored one is as strong, or the password wrong.
    """
    if hashed is None:
        _hasher().verify(password, _of_nobody())
        return False, None
    return _hasher().verify_and_update(password, hashed)


def _is_line(plain: str) -> bool:
    """Tell whether it runs along a line of keys, letters or digits, there or back."""
    return any(plain in run for line in _LINES for run in (line * 3, line[::-1] * 3))


def _is_common(plain: str) -> bool:
    """Tell whether nothing is left of it but digits and signs, once common words are gone."""
    rest = plain
    for word in sorted(_COMMON, key=len, reverse=True):
        rest = rest.replace(word, "")
    return rest != plain and sum(letter.isalpha() for letter in rest) < 3


def _is_number(plain: str) -> bool:
    """Tell whether it is a date or a telephone number, by its length."""
    return plain.isdigit() and len(plain) <= _TELEPHONE


@cache
def _hasher() -> PasswordHash:
    return PasswordHash((Argon2Hasher(),))


@cache
def _of_nobody() -> str:
    return _hasher().hash("nobody has this password")

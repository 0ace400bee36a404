"""The code that lets one device enrol itself, and the label that carries it.

Eleven random symbols and one that checks them, in an alphabet without I, L, O and U (Crockford's
base 32), shown in groups of four: `7K3M-9QXD-A2VT`. A slip of the hand in one symbol, or two
neighbours swapped, is always noticed.
"""

import hashlib
import secrets
from typing import Final
from urllib.parse import quote

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
RANDOM_SYMBOLS: Final = 11
_READ: Final = {symbol: value for value, symbol in enumerate(ALPHABET)} | {"I": 1, "L": 1, "O": 0}
_POLYNOMIAL: Final = 0b100101
"""x⁵ + x² + 1: its root runs through all 31 numbers but zero before it comes back."""


def new_code() -> str:
    """Return a new code as people read it."""
    values = [secrets.randbelow(32) for _ in range(RANDOM_SYMBOLS)]
    text = "".join(ALPHABET[value] for value in [*values, _rest([*values, 0])])
    return "-".join(text[at : at + 4] for at in range(0, len(text), 4))


def read_code(text: str) -> str | None:
    """Return the plain form of a code that somebody typed, None when it cannot be one."""
    values = [_READ.get(symbol) for symbol in text.upper() if symbol not in "- "]
    known = [value for value in values if value is not None]
    if len(known) != len(values) or len(known) != RANDOM_SYMBOLS + 1 or _rest(known):
        return None
    return "".join(ALPHABET[value] for value in known)


def hash_code(plain: str) -> bytes:
    """Return what is stored in place of a code in its plain form."""
    return hashlib.sha256(plain.encode()).digest()


def label(address: str, code: str) -> str:
    """Return what the QR code on a label says: where to enrol, and with which code."""
    return f"anxin:enrol?at={quote(address, safe='')}&code={code.replace('-', '')}"


def _rest(values: list[int]) -> int:
    """Return the remainder of the code as a polynomial over GF(32): 0 for a right one."""
    rest = 0
    for value in values:
        rest = rest << 1 ^ (_POLYNOMIAL if rest & 16 else 0) ^ value
    return rest

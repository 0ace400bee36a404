"""Numbers of Chinese identity cards: GB 11643-1999. Pure.

Eighteen places: six of the region, eight of the day of birth, three of a serial number whose last
digit is odd for men, and a check character by ISO 7064 MOD 11-2.
"""

import re
import unicodedata
from dataclasses import dataclass
from datetime import date
from typing import Final, Literal

WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
CHECKS: Final = "10X98765432"
"""The check character by the weighted sum modulo 11."""
OLDEST: Final = 130
"""Years: nobody has lived longer, so an earlier day of birth is a slip of the pen."""
PROVINCES: Final = frozenset(
    (*range(11, 16), *range(21, 24), *range(31, 38), *range(41, 47), *range(50, 55),
     *range(61, 66), 71, 81, 82, 83, 91)
)  # fmt: skip
"""First two digits, GB/T 2260; 81 to 83 also stand on residence permits."""


@dataclass(frozen=True, slots=True)
class IdCard:
    """A number that can be one, and what it says of its bearer."""

    number: str
    region: str
    born: date
    sex: Literal["female", "male"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a text is no such number, in Chinese and English; it never holds the text."""

    zh: str
    en: str


def read_id_card(text: str, today: date) -> IdCard | Fault:
    """Return the card of a number as people write it, or what is wrong with it."""
    number = re.sub(r"[\s-]", "", unicodedata.normalize("NFKC", text)).upper()
    if not re.fullmatch(r"[0-9]{17}[0-9X]", number):
        return Fault("身份证号应为 18 位。", "An ID-card number has 18 digits, the last may be X.")
    if int(number[:2]) not in PROVINCES or number[2:6] == "0000":
        return Fault(
            "身份证号的地区码不存在。", "The region of this ID-card number does not exist."
        )
    try:
        born = date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return Fault("身份证号中的出生日期不存在。", "The day of birth in it does not exist.")
    if born > today or today.year - born.year > OLDEST:
        return Fault("身份证号中的出生日期不合理。", "The day of birth in it is not plausible.")
    if number[17] != check_character(number[:17]):
        return Fault(
            "身份证号校验码不符，请核对。", "The check character is wrong: a typing error?"
        )
    return IdCard(number, number[:6], born, "male" if int(number[16]) % 2 else "female")


def check_character(first: str) -> str:
    """Return the eighteenth character that belongs to the first seventeen digits."""
    return CHECKS[sum(w * int(digit) for w, digit in zip(WEIGHTS, first, strict=True)) % 11]


def masked_id_card(number: str) -> str:
    """Return a number with its day of birth and serial hidden: 500************12X."""
    return f"{number[:3]}{'*' * 12}{number[15:]}"


def masked_phone(number: str) -> str:
    """Return a telephone number (E.164) with its middle hidden: 138****5678."""
    digits = number.removeprefix("+86")
    return f"{digits[:3]}****{digits[-4:]}" if len(digits) > 7 else "****"

"""Telephone numbers as people write them, and as providers want them. Pure."""

import re
import unicodedata

FAULT = "This is not a telephone number, for example 13800138000. 电话号码格式不对。"


def plain_number(text: str) -> str | None:
    """Return a number in E.164 (+8613800138000); None when it is none. Without + it is Chinese."""
    digits = re.sub(r"[\s()-]", "", unicodedata.normalize("NFKC", text))
    digits = re.sub(r"^(?:00|(?=861\d{10}$))", "+", digits)
    if re.fullmatch(r"\+[1-9]\d{6,14}", digits, re.ASCII):
        return digits
    if re.fullmatch(r"1\d{10}|0\d{9,11}", digits, re.ASCII):
        return f"+86{digits.lstrip('0')}"
    return None


def number_fault(text: str) -> str | None:
    """Say that a text is no telephone number."""
    return None if plain_number(text) else FAULT

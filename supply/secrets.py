"""Secrets that must not be in the repository: shapes of keys, and values beside telling names.

A line that shows an example carries the words `not a secret`, or stands in ALLOWED with its reason.
"""

import math
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from supply.locks import ROOT

_SHAPES: Final = {
    "private key": re.compile(r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----(?:\s*$|\\n[A-Za-z0-9+/])"),
    "Aliyun access key": re.compile(r"\bLTAI[A-Za-z0-9]{12,30}\b"),
    "Tencent secret id": re.compile(r"\bAKID[A-Za-z0-9]{28,40}\b"),
    "AWS access key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "GitHub token": re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36,}\b"),
    "Slack token": re.compile(r"\bxox[baprs]-[A-Za-z0-9-]{10,}"),
    "JSON web token": re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"),
    "password in an address": re.compile(r"\b[a-z]+://[^\s:/@'\"{}$<]+:([^\s:/@'\"{}$<%]{6,})@"),
    "value of a secret": re.compile(
        r"(?i)(?:password|passwd|secret|token|api_?key|private_?key)\w*['\"]?\s*[:=]\s*"
        r"['\"]([A-Za-z0-9+/=_-]{16,})['\"]"
    ),
}  # fmt: skip
_MEASURED: Final = {"value of a secret"}
"""Shapes that only count when the value is as irregular as a generated one."""
_BITS_A_CHARACTER: Final = 3.5
_MARK: Final = "not a secret"
_SKIPPED: Final = (".lock", "package-lock.json", ".png", ".ico", ".woff2", ".pdf", ".parquet")

_PLACEHOLDERS: Final = {"password", "secret", "postgres"}

ALLOWED: Final[dict[tuple[str, str], str]] = {
    ("tests/unit/test_notify_wire.py", "Tencent secret id"): "the example of its documentation",
    ("tests/unit/test_notify_wire.py", "value of a secret"): "the example of its documentation",
}
"""(file, kind) -> why it is there."""


def tracked(root: Path = ROOT) -> list[Path]:
    """Return the files of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True
    ).stdout.decode()
    return [root / name for name in listed.split("\0") if name]


def found_in(text: str) -> Iterator[tuple[int, str]]:
    """Yield line number and kind of everything that looks like a secret; never the value."""
    for number, line in enumerate(text.splitlines(), 1):
        if _MARK in line:
            continue
        for kind, shape in _SHAPES.items():
            for match in shape.finditer(line):
                value = match[match.lastindex or 0]
                generated = kind not in _MEASURED or irregular(value)
                if generated and value not in _PLACEHOLDERS:
                    yield number, kind


def irregular(value: str) -> bool:
    """Tell whether a value is as irregular as a generated one: bits a character, and digits."""
    counts = Counter(value)
    bits = -sum(n / len(value) * math.log2(n / len(value)) for n in counts.values())
    return bits >= _BITS_A_CHARACTER and any(c.isdigit() for c in value)


def leaks(root: Path = ROOT) -> Iterator[str]:
    """Yield a line for each finding in the repository."""
    for file in tracked(root):
        if file.name.endswith(_SKIPPED) or not file.is_file():
            continue
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        name = str(file.relative_to(root))
        for number, kind in found_in(text):
            if (name, kind) not in ALLOWED:
                yield f"{name}:{number}: {kind}"

"""Known vulnerabilities of the locked packages, asked of PyPI and the npm registry.

Where neither can be reached nothing is known, and that is said: it is no fault of the code.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from supply.locks import ROOT


class Answer(NamedTuple):
    """What came of asking one registry."""

    whom: str
    asked: int
    """Packages about which there was an answer; 0: nobody could be asked."""
    findings: tuple[str, ...]


def of_python(lock: Path) -> Answer:
    """Ask PyPI about every package of a lock."""
    words = ["pip_audit", "--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off"]
    said = subprocess.run(
        [sys.executable, "-m", *words, f"--requirement={lock}"],
        capture_output=True, check=False, timeout=600,
    ).stdout  # fmt: skip
    return read_python(lock.name, said)


def read_python(name: str, said: bytes) -> Answer:
    """Read the report of pip-audit; anything else means that nobody could be asked."""
    try:
        listed: list[dict[str, Any]] = json.loads(said)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return Answer(name, 0, ())
    known = [one for one in listed if "skip_reason" not in one]
    return Answer(
        name,
        len(known),
        tuple(
            f"{one['name']} {one['version']}: {found['id']},"
            f" mended in {', '.join(found['fix_versions']) or 'no version yet'}"
            for one in known
            for found in one["vulns"]
        ),
    )


def of_npm(folder: str) -> Answer:
    """Ask the npm registry about the packages of one folder's lock."""
    try:
        said = subprocess.run(
            ["npm", "audit", "--json"],
            cwd=ROOT / folder, capture_output=True, check=False, timeout=600,
        ).stdout  # fmt: skip
    except FileNotFoundError:
        return Answer(folder, 0, ())
    return read_npm(folder, said)


def read_npm(name: str, said: bytes) -> Answer:
    """Read the report of npm audit; anything else means that nobody could be asked."""
    try:
        report: dict[str, Any] = json.loads(said)
        total = int(report["metadata"]["dependencies"]["total"])
        found: dict[str, dict[str, Any]] = report["vulnerabilities"]
    except (ValueError, KeyError, TypeError):
        return Answer(name, 0, ())
    return Answer(
        name,
        total,
        tuple(f"{one} {about['range']}: {about['severity']}" for one, about in found.items()),
    )

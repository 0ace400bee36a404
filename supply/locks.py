"""The locked packages, as the files of the repository name them; pure but for reading them."""

import base64
import json
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final, Literal, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent

Use = Literal["product", "tool"]
"""A tool builds or tests; nothing of it is there when Anxin runs."""

_PYTHON: Final[tuple[tuple[str, Use], ...]] = (
    ("requirements.lock", "product"),
    ("requirements-node.lock", "tool"),
    ("requirements-dev.lock", "tool"),
)
_NPM: Final = ("web", "tests/compose", "tests/timescale")


class Package(NamedTuple):
    """One package of one version."""

    ecosystem: Literal["pypi", "npm"]
    name: str
    version: str
    use: Use
    hashes: tuple[tuple[str, str], ...]
    """Algorithm and hex digits: of every file of this version (PyPI), or of the one (npm)."""
    licence: str
    """SPDX expression or words of its own; empty where nobody says."""


def packages(root: Path = ROOT) -> tuple[Package, ...]:
    """Return every locked package once; a package that the product needs is no tool."""
    found: dict[tuple[str, str, str], Package] = {}
    for file, use in _PYTHON:
        for one in _python(root / file, use):
            found.setdefault(one[:3], one)
    for folder in _NPM:
        for one in _npm(root / folder / "package-lock.json", product=folder == "web"):
            kept = found.setdefault(one[:3], one)
            if one.use == "product" and kept.use == "tool":
                found[one[:3]] = one
    return tuple(sorted(found.values()))


def _python(lock: Path, use: Use) -> Iterator[Package]:
    text = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)", line):
            digests = re.findall(r"--hash=sha256:([0-9a-f]{64})", line)
            name = re.sub(r"[-_.]+", "-", match[1]).lower()
            hashes = tuple(("SHA-256", digest) for digest in digests)
            yield Package("pypi", name, match[2], use, hashes, _installed_licence(name))


def _npm(lock: Path, *, product: bool) -> Iterator[Package]:
    for path, one in json.loads(lock.read_text(encoding="utf-8"))["packages"].items():
        if not path or one.get("link"):
            continue
        name = one.get("name") or path.rpartition("node_modules/")[2]
        use: Use = "product" if product and not one.get("dev") else "tool"
        yield Package(
            "npm", name, one["version"], use,
            tuple(_digests(one.get("integrity", ""))), _words(one.get("license")),
        )  # fmt: skip


def _digests(integrity: str) -> Iterator[tuple[str, str]]:
    for one in integrity.split():
        algorithm, _, digest = one.partition("-")
        yield algorithm.upper().replace("SHA", "SHA-"), base64.b64decode(digest).hex()


def _words(licence: object) -> str:
    if isinstance(licence, dict):
        return str(licence.get("type", ""))
    return str(licence or "")


def _installed_licence(name: str) -> str:
    """Return what the installed package says of its licence; "" where it is not installed."""
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return ""
    for field in ("License-Expression", "License"):
        # Some put the whole text of the licence there.
        if (words := " ".join(about.get_all(field) or ())) and len(words) < 100:
            return words
    return " AND ".join(
        line.rpartition(" :: ")[2]
        for line in about.get_all("Classifier") or ()
        if line.startswith("License :: ") and line != "License :: OSI Approved"
    )

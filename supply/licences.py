"""Which licences the product may be made of; pure."""

from collections.abc import Iterable, Iterator
from typing import Final

from supply.locks import Package

_STRONG: Final = ("AGPL", "AFFERO", "GPL", "GENERAL PUBLIC", "SSPL", "BUSL", "COMMONS CLAUSE")
_WEAK: Final = ("LGPL", "LESSER GENERAL PUBLIC")
_SAID_ELSEWHERE: Final = {
    ("pypi", "colorama"): "BSD-3-Clause",
    ("pypi", "skops"): "MIT",  # as its LICENSE file has it
    ("pypi", "tzdata"): "Apache-2.0",
}
"""Packages whose data do not say it, or that are for other systems and cannot be asked here."""


def objections(packages: Iterable[Package]) -> Iterator[str]:
    """Yield a line for each package of the product whose licence would bind the product itself.

    LGPL is accepted for what is used as a library of its own and can be exchanged: psycopg.
    """
    for one in packages:
        if one.use != "product":
            continue
        licence = one.licence or _SAID_ELSEWHERE.get((one.ecosystem, one.name), "")
        if not licence:
            yield f"{one.name} {one.version} does not say its licence; look it up"
        elif not any(_free(choice) for choice in licence.upper().split(" OR ")):
            yield f"{one.name} {one.version} is under {licence}"


def _free(licence: str) -> bool:
    for weak in _WEAK:
        licence = licence.replace(weak, "")
    return not any(word in licence for word in _STRONG)

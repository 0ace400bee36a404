"""The pages about security name tests that exist, and every item of the standards once."""

import re
from collections import Counter
from pathlib import Path

import pytest

from supply.locks import ROOT

MODEL = ROOT / "docs" / "threat-model.md"
ASVS = ROOT / "docs" / "checklists" / "owasp-asvs-5.md"
ETSI = ROOT / "docs" / "checklists" / "etsi-en-303-645.md"
PAGES = (MODEL, ASVS, ETSI, ROOT / "SECURITY.md", ROOT / "docs" / "backup.md")
VERDICTS = {"yes", "partly", "no", "n/a", "operator"}

SECTIONS = {
    1: (2, 10, 12, 3, 3), 2: (3, 3, 5, 2), 3: (1, 3, 5, 8, 8, 1, 5), 4: (5, 5, 2, 4),
    5: (1, 6, 3, 3), 6: (3, 12, 8, 6, 8, 4, 2, 4), 7: (3, 4, 2, 5, 3, 2), 8: (4, 4, 3, 2),
    9: (3, 4), 10: (2, 3, 5, 16, 5, 2, 3), 11: (4, 5, 5, 4, 2, 2, 2), 12: (5, 2, 5),
    13: (4, 6, 4, 7), 14: (2, 8, 3), 15: (5, 5, 7, 4), 16: (1, 5, 4, 3, 4), 17: (2, 8, 2),
}  # fmt: skip
"""How many requirements each section of ASVS 5.0.0 has, by chapter."""
LEVEL_3 = """
1.2.10 1.3.12 1.5.3 2.3.5 2.4.2 3.1.1 3.2.3 3.3.5 3.4.7-8 3.5.6-8 3.6.1 3.7.3-5 4.1.4-5 4.2.2-5
5.2.4-6 5.3.3 6.3.5-8 6.4.5-6 6.5.6-8 6.6.4 6.7.1-2 7.5.3 8.1.3-4 8.2.4 8.3.2-3 8.4.2 10.2.3
10.3.5 10.4.12-16 11.1.3-4 11.2.4-5 11.3.4-5 11.5.2 11.6.2 11.7.1-2 12.1.4-5 12.3.5 13.1.2-4
13.2.6 13.3.3-4 13.4.6-7 14.2.5-8 15.1.4-5 15.2.4-5 15.4.1-4 16.5.4 17.1.2 17.2.5-8
"""
ETSI_COUNTS = {
    "5.0": 1, "5.1": 5, "5.2": 3, "5.3": 16, "5.4": 4, "5.5": 8, "5.6": 9, "5.7": 2, "5.8": 3,
    "5.9": 3, "5.10": 1, "5.11": 4, "5.12": 3, "5.13": 1, "6": 8,
}  # fmt: skip
"""How many provisions each clause of EN 303 645 V3.1.3 has; some come in parts, as 5.3-4A."""


def rows(page: Path) -> list[list[str]]:
    lines = page.read_text(encoding="utf-8").splitlines()
    return [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in lines
        if re.match(r"\| \d", line)
    ]


def spread(item: str) -> list[str]:
    """Return every number of `1.2.6–1.2.8` or `3.4.7-8`."""
    first, dash, last = re.split(r"([–-])", item) if re.search("[–-]", item) else (item, "", "")
    section, _, number = first.rpartition(".")
    end = int(last.rpartition(".")[2]) if dash else int(number)
    return [f"{section}.{n}" for n in range(int(number), end + 1)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    files = list((ROOT / "tests").rglob("test_*.py"))
    there = {
        name
        for file in files
        for name in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))
    }
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", text))
    assert named <= there, sorted(named - there)
    for path in re.findall(r"`((?:tests|anxin|api|ingest)/[\w/.]+\.py)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_every_requirement_of_asvs_levels_1_and_2_stands_there_once() -> None:
    all_of_it = {
        f"{chapter}.{section}.{number}"
        for chapter, sizes in SECTIONS.items()
        for section, size in enumerate(sizes, 1)
        for number in range(1, size + 1)
    }
    third = {one for item in LEVEL_3.split() for one in spread(item)}
    assert third < all_of_it
    found = Counter(one for row in rows(ASVS) for one in spread(row[0]))
    assert [one for one, times in found.items() if times > 1] == []
    assert set(found) == all_of_it - third
    assert {row[2] for row in rows(ASVS)} <= VERDICTS


def test_every_provision_of_etsi_stands_there_once() -> None:
    found = Counter(row[0] for row in rows(ETSI))
    assert [one for one, times in found.items() if times > 1] == []
    numbers: dict[str, set[int]] = {}
    for one in found:
        clause, _, number = one.partition("-")
        numbers.setdefault(clause, set()).add(int(number.rstrip("AB")))
    assert numbers == {clause: set(range(1, count + 1)) for clause, count in ETSI_COUNTS.items()}
    assert {row[2] for row in rows(ETSI)} <= VERDICTS | {"device"}


def test_no_page_claims_conformity() -> None:
    for page in (ASVS, ETSI):
        assert "no claim of conformity" in page.read_text(encoding="utf-8")


def test_each_threat_has_something_in_its_way_or_is_called_open() -> None:
    lines = MODEL.read_text(encoding="utf-8").splitlines()
    threats = [line for line in lines if re.match(r"\| [STRIDE] \|", line)]
    assert len(threats) > 70
    for line in threats:
        _, _, _, holds, shown, _ = line.split("|")
        honest = "open**" in holds.lower() or "cannot be prevented" in holds
        assert holds.strip(), line
        assert shown.strip() or honest or "outside of Anxin" in holds, line


def test_each_border_is_looked_at_from_all_six_sides() -> None:
    for border in MODEL.read_text(encoding="utf-8").split("\n## ")[2:]:
        sides = set(re.findall(r"^\| ([STRIDE]) \|", border, re.MULTILINE))
        assert sides == set("STRIDE"), border.splitlines()[0]

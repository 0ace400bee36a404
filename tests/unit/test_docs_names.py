"""Docs name what there is: settings, commands, alarm kinds, events, roles; links lead somewhere."""

import re
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import get_args

import pytest

from anxin import rules
from anxin.cli import COMMANDS
from anxin.config import SECRETS, Settings
from anxin.db.pool import Database
from anxin.db.users import Role
from api import metrics as api_metrics
from ingest import columns
from ingest.metrics import IngestCollector
from ingest.service import IngestService
from models import risk, watch, worker
from tests import docs

ROOT = docs.DOCS.parent
PAGES = sorted([*docs.DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])
FAULTS = {"device_fault"}
"""Raised for the platform itself, by several duties."""
EVENT_TYPES = {
    "sos", "fall", "apnea", "bed_exit", "bed_return", "smoke", "gas", "co", "water_leak",
    "door_open", "door_closed", "motion", "geofence_exit", "geofence_return", "tamper",
    "low_battery", "help_cancelled",
}  # fmt: skip


def page(name: str) -> str:
    return (docs.DOCS / name).read_text(encoding="utf-8")


def section(name: str, title: str) -> str:
    """Return what stands below a heading up to the next one of its level."""
    level, found, rest = page(name).partition(f"## {title}\n")
    assert found, f"{name} has no section {title!r} after {level[-40:]!r}"
    return rest.split("\n## ")[0]


def first_column(text: str) -> list[str]:
    """Return every word in backticks of the first column of the tables in a text."""
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| ")]
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row)]


def test_operations_names_every_setting_with_its_default() -> None:
    rows = {}
    for line in section("operations.md", "Settings").splitlines():
        if match := re.match(r"\| `(ANXIN_\w+)`( \(`_FILE`\))? \| (?:`([^`]*)`|empty) \|", line):
            rows[match[1]] = (match[3] or "", bool(match[2]))
    defaults = Settings()
    expected = {}
    for field in Settings.__struct_fields__:
        value = getattr(defaults, field)
        text = str(value).lower() if isinstance(value, bool) else str(value)
        expected[f"ANXIN_{field.upper()}"] = (text, field in SECRETS)
    assert rows == expected


def test_operations_names_every_command_that_there_is() -> None:
    named = {word.split()[1] for word in first_column(section("operations.md", "Commands"))}
    there = {name for name, one in COMMANDS.items() if util.find_spec(one.module)}
    assert named == there


def test_the_glossary_names_every_alarm_kind_with_its_class() -> None:
    named: dict[str, str] = {}
    for line in section("glossary.md", "Alarm kinds").splitlines():
        if line.startswith("| `"):
            _, kinds, _, class_, _ = line.split("|")
            named |= dict.fromkeys(re.findall(r"`(\w+)`", kinds), class_.split(",")[0].strip())
    raised = {rule.kind: rule.class_ for rule in rules.RULES}
    raised |= {one.kind: one.class_ for one in rules.EVENT_ALARMS.values()}
    raised |= risk.CLASSES
    everything = set(raised) | set(watch.KINDS) | FAULTS
    assert set(named) == everything
    assert {kind: named[kind] for kind in raised} == raised
    assert set(named.values()) <= set(get_args(rules.Class))


def test_the_glossary_names_every_event_type_and_what_it_raises() -> None:
    text = section("glossary.md", "Event types")
    assert set(first_column(text)) == EVENT_TYPES
    assert rules.EVENT_ALARMS.keys() | rules.EVENT_RECOVERS.keys() <= EVENT_TYPES
    for type_, alarm in rules.EVENT_ALARMS.items():
        [line] = [one for one in text.splitlines() if f"`{type_}`" in one[: one.find("|", 1)]]
        assert alarm.kind in line or "the same" in line, type_
        assert rules.PRIORITIES[alarm.priority] in line, type_


def test_the_schema_page_names_the_flags_of_a_reading() -> None:
    flags = re.search(r"`flags` of a reading.*", page("schema.md"))
    assert flags is not None
    numbers = [int(number) for number in re.findall(r"[:,] (\d) ", flags[0])]
    assert numbers == [columns.LATE, columns.AHEAD, columns.BEHIND]


@pytest.mark.parametrize(
    ("name", "draw"), [("metrics", docs.metrics_table), ("routes", docs.routes_table)]
)
def test_what_is_drawn_from_the_code_is_as_the_code_is(name: str, draw: Callable[[], str]) -> None:
    text = page(f"{name}.md")
    assert docs.replace_part(text, name, draw()) == text, "run `python -m tests.docs`"


async def test_operations_names_every_metric_of_every_process() -> None:
    service = IngestService(Settings(database="postgresql://nowhere"))
    registries = (
        IngestCollector.registry(service, []),
        worker.Worker(Database("postgresql://nowhere"), Settings()).metrics.registry,
        api_metrics.Metrics().registry,
    )
    there = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for registry in registries
        for family in registry.collect()
    }
    named = re.findall(r"`(anxin_[a-z_]+)[`{]", section("operations.md", "Monitoring"))
    assert sorted(named) == sorted(there)


def test_the_glossary_names_every_role() -> None:
    assert set(first_column(section("glossary.md", "Roles"))) == set(get_args(Role))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


def anchors(path: Path) -> set[str]:
    """Return the anchors that a page's headings make, the way GitHub and GitLab do."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

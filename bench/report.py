"""The figures of a run, against their goals, as `docs/benchmarks.md`."""

import math
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Final

import psutil

VERSIONS_OF: Final = ("numpy", "psycopg", "msgspec", "uvloop", "fastapi", "uvicorn", "websockets")
PAGE: Final = Path(__file__).parent.parent / "docs" / "benchmarks.md"
VIEWERS: Final = "\n## One alarm to a thousand viewers\n"


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit that the median of a figure must keep."""

    limit: float
    at_least: bool = False

    def met_by(self, value: float) -> bool:
        """Tell whether `value` is good enough."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        """Write it with its sign."""
        return f"{'≥' if self.at_least else '≤'} {number(self.limit)}"


@dataclass(slots=True)
class Figure:
    """One line of the table: a value of every round."""

    what: str
    unit: str
    goal: Goal | None = None
    values: list[float] = field(default_factory=list)

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return median(self.values)


class Table:
    """The figures, in the order in which they were first noted."""

    def __init__(self) -> None:
        """Begin an empty table."""
        self.figures: dict[str, Figure] = {}
        self.remarks: list[str] = []

    def note(self, what: str, unit: str, value: float, goal: Goal | None = None) -> None:
        """Add the value of one round."""
        figure = self.figures.setdefault(what, Figure(what, unit, goal))
        figure.values.append(value)

    def remark(self, text: str) -> None:
        """Add a sentence under the table, once."""
        if text not in self.remarks:
            self.remarks.append(text)

    def missed(self) -> list[Figure]:
        """Return the figures that fall short of their goals."""
        return [
            figure
            for figure in self.figures.values()
            if figure.goal and not figure.goal.met_by(figure.value)
        ]

    def __str__(self) -> str:
        """Write it as Markdown."""
        lines = ["| what | goal | median | lowest to highest | |", "|---|---:|---:|---:|---|"]
        lines += [_line(figure) for figure in self.figures.values()]
        return "\n".join([*lines, "", *(f"- {text}" for text in self.remarks)])


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def number(value: float) -> str:
    """Write a figure with three significant digits, thousands apart."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = 0 if value == int(value) else 3
    return f"{value:.{digits}g}" if digits else f"{value:.0f}"


def report(table: Table, command: str, rounds: int, server: str, now: datetime) -> str:
    """Return the page."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in VERSIONS_OF)
    missed = table.missed()
    verdict = (
        "Every goal is met."
        if not missed
        else f"{len(missed)} of the figures fall short of their goals; they stand as measured."
    )
    return f"""# Benchmarks

Written by `{command}` on {now:%Y-%m-%d %H:%M} UTC; medians of {rounds} rounds. {verdict}

{table}

## How it was measured

- Machine: {os.cpu_count()} cores, {_processor()}, {psutil.virtual_memory().total / 2**30:.0f} GiB,
  Linux {platform.release()}. The load generator, Postgres, ingest, API, worker and the measuring
  program shared these cores; nothing else was started.
- {server}
- Python {platform.python_version()}, {versions}.
- A message is one JSON object with a time stamp and seven vitals over MQTT 3.1.1, QoS 1. Its time
  stamp is less than 10 minutes old, so the live rules judge every one. Validation, rules and
  duplicate protection are on; the limit of messages per device is off. Rows are counted afterwards:
  a run with fewer rows than acknowledgements is an error, not a figure.
- Latency runs from the moment a message was due to its PUBACK, so waiting for room counts.
- A reading is one stored value, so a message has seven.
- Processor time is that of the process (Postgres: of all its processes) over the run, divided by
  the messages.
"""


def publish_platform(page: str) -> None:
    """Write the page; what it says of viewers is measured by itself and stays."""
    before = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    _, heading, section = before.partition(VIEWERS)
    PAGE.write_text(page + heading + section, encoding="utf-8")


def publish_viewers(section: str) -> None:
    """Write what the page says of viewers; all else stays."""
    page, _, _ = PAGE.read_text(encoding="utf-8").partition(VIEWERS)
    PAGE.write_text(page + VIEWERS + section, encoding="utf-8")


def _line(figure: Figure) -> str:
    mark = "" if figure.goal is None else ("met" if figure.goal.met_by(figure.value) else "NOT met")
    goal = "" if figure.goal is None else f"{figure.goal} {figure.unit}"
    spread = f"{number(min(figure.values))} to {number(max(figure.values))}"
    return (
        f"| {figure.what} | {goal} | {number(figure.value)} {figure.unit} "
        f"| {spread if len(figure.values) > 1 else ''} | {mark} |"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()

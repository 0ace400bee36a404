"""The report of an evaluation: figures with their intervals, as JSON and as one HTML page."""

import hashlib
import platform
from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import sklearn

from models.measures import Interval

CODE: Final = (
    "calibration", "datasets", "deterioration", "evaluate", "examples", "features", "home",
    "measures", "news2", "novelty",
)  # fmt: skip


class Calibrated(msgspec.Struct, frozen=True):
    """How far risks mean what they say: 1 and 0 are the ideal slope and intercept.

    `curve`: (mean risk, part that came true, rows) in groups of equal size.
    """

    slope: float
    intercept: float
    brier: float
    curve: list[tuple[float, float, int]]


class Group(msgspec.Struct, frozen=True):
    """Discrimination in a part of the people; none where the events are too few."""

    name: str
    people: int
    events: int
    auroc: Interval | None


class Budget(msgspec.Struct, frozen=True):
    """What a budget of false alarms buys at the threshold that just keeps it on these people.

    `before_onset` is the sensitivity counting only alarms before the onset itself; `lead_hours`
    the quartiles; `fixed`: (false alarms per person-day, sensitivity) on these people at the
    threshold that was fixed while learning; `promised` the same at the one with a conformal bound.
    """

    budget: float
    false_rate: float
    sensitivity: Interval
    threshold: float | None = None
    before_onset: float | None = None
    lead_hours: list[float] | None = None
    alarms_per_caught: float | None = None
    people_without_alarm: float | None = None
    fixed: tuple[float, float] | None = None
    promised: tuple[float, float] | None = None


class Result(msgspec.Struct, frozen=True):
    """One score on one question."""

    name: str
    role: str
    auroc: Interval
    auprc: Interval
    calibrated: Calibrated | None = None
    budgets: list[Budget] = []
    groups: list[Group] = []
    false_rate_at_95: Interval | None = None


class Difference(msgspec.Struct, frozen=True):
    """How much better one is than the other, on the same resampled people."""

    what: str
    one: str
    other: str
    gap: Interval

    @property
    def verdict(self) -> str:
        """Return better, worse, or that there is no difference to be seen."""
        if self.gap.low > 0:
            return "better"
        return "worse" if self.gap.high < 0 else "no better"


class Section(msgspec.Struct, frozen=True):
    """One question on one data set, one way of judging."""

    data: str
    question: str
    how: str
    taught_by: str
    note: str
    people: int
    events: int
    rows: int
    positive_rows: int
    results: list[Result]
    differences: list[Difference]
    per: str = "person-day"


class Report(msgspec.Struct, frozen=True):
    """Everything; `data` and `train_data` are the hashes of the files by folder."""

    made_at: datetime
    versions: dict[str, str]
    seed: int
    data: dict[str, dict[str, str]]
    train_data: dict[str, dict[str, str]] | None
    sections: list[Section]
    left_out: list[str] = []
    format: int = 1

    def summary(self) -> Iterator[str]:
        """Yield a line for each question and score."""
        for section in self.sections:
            yield f"{section.data} | {section.question} | {section.how}"
            for one in section.results:
                words = [f"AUROC {_span(one.auroc)}", f"AUPRC {_span(one.auprc)}"]
                words += [
                    f"{budget.sensitivity.value:.2f} at {budget.budget:g}" for budget in one.budgets
                ]
                if one.false_rate_at_95 is not None:
                    words.append(f".95 at {_span(one.false_rate_at_95)}")
                yield f"  {one.name:38} {'  '.join(words)}"
        yield from (f"left out: {line}" for line in self.left_out)


def versions() -> dict[str, str]:
    """Return the versions of what computes."""
    return {
        "models": code_version(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
    }


def code_version() -> str:
    """Return a hash of the modules that learn and judge: it changes when one of them does."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for name in CODE:
        digest.update((folder / f"{name}.py").read_bytes())
    return digest.hexdigest()[:12]


def write(report: Report, folder: Path) -> None:
    """Write report.json and report.html into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    encoded = msgspec.json.format(msgspec.json.encode(report), indent=1)
    (folder / "report.json").write_bytes(encoded)
    (folder / "report.html").write_text(html(report), encoding="utf-8")


def html(report: Report) -> str:
    """Return the report as a page that needs nothing else: no script, no other file."""
    body = "".join(_section(section) for section in report.sections)
    left_out = "".join(f"<li>{escape(line)}</li>" for line in report.left_out)
    files = "".join(
        f"<tr><td>{escape(kind)}</td><td>{escape(folder)}/{escape(name)}</td>"
        f"<td><code>{digest}</code></td></tr>"
        for kind, folders in (("judged by", report.data), ("learned from", report.train_data or {}))
        for folder, names in folders.items()
        for name, digest in names.items()
    )
    contents = "".join(
        f'<li><a href="#{_anchor(section)}">{escape(section.data)}: {escape(section.question)}'
        f"</a> ({escape(section.how)})</li>"
        for section in report.sections
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Anxin risk report</title><style>{_STYLE}</style></head><body>"
        "<h1>风险模型评估 · Risk model report</h1>"
        f"<p>{report.made_at:%Y-%m-%d %H:%M} UTC · "
        + escape(", ".join(f"{name} {version}" for name, version in report.versions.items()))
        + f" · seed {report.seed}</p>{_PREFACE}<ul>{contents}</ul>"
        + (f"<h2>Left out</h2><ul>{left_out}</ul>" if left_out else "")
        + f"{body}<h2>Files</h2><table>{files}</table></body></html>\n"
    )


_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem;"
    "color:#1a2327}table{border-collapse:collapse;margin:.8rem 0}td,th{border:1px solid #c6d0d5;"
    "padding:.25rem .6rem;text-align:left}th{background:#eef3f5}td.n{text-align:right;"
    "font-variant-numeric:tabular-nums}.worse{background:#fbe3e0}.no{background:#fdf4d8}"
    ".better{background:#e0f2e5}svg{max-width:100%;height:auto;margin-right:1rem}h2{"
    "margin-top:2.5rem;border-top:2px solid #c6d0d5;padding-top:1rem}code{font-size:.75rem}"
)
_PREFACE: Final = (
    "<p>Brackets are 95 % intervals: people, not rows, are drawn anew. <b>An alarm</b> is raised "
    "in the first hour that reaches the threshold, then at most once in 6 h. <b>Caught</b>: an "
    "alarm is raised between 12 h before the onset and 3 h after it; <b>lead</b>: from the first "
    "of these to the onset. <b>False</b>: every other alarm, per 24 h outside such windows; hours "
    "later than the window count nowhere. At home one alarm a day is counted "
    "against that day. No recording here has continuous vital signs at home with outcomes: "
    "stays in intensive care test the method, days at home the setting.</p>"
)


def _section(section: Section) -> str:
    head = "".join(
        f"<th>{word}</th>"
        for word in ("score", "AUROC", "AUPRC", "calibration slope", "Brier score")
    )
    rows = "".join(
        f"<tr><td>{escape(one.name)}</td><td class=n>{_span(one.auroc)}</td>"
        f"<td class=n>{_span(one.auprc)}</td>"
        + (
            f"<td class=n>{one.calibrated.slope:.2f}</td>"
            f"<td class=n>{one.calibrated.brier:.4f}</td>"
            if one.calibrated
            else "<td></td><td></td>"
        )
        + "</tr>"
        for one in section.results
    )
    return (
        f'<h2 id="{_anchor(section)}">{escape(section.data)}: {escape(section.question)}</h2>'
        f"<p><b>{escape(section.how)}</b>; learned from {escape(section.taught_by)}. "
        f"{section.people} people, {section.events} events, {section.rows} rows of which "
        f"{section.positive_rows} positive. {escape(section.note)}</p>"
        f"<table><tr>{head}</tr>{rows}</table>"
        + _differences(section.differences)
        + _budgets(section)
        + _plots(section)
        + _groups(section)
    )


def _differences(differences: Sequence[Difference]) -> str:
    rows = "".join(
        f'<tr class="{one.verdict.split()[0]}">'
        f"<td>{escape(one.one)} against {escape(one.other)}</td>"
        f"<td>{escape(one.what)}</td><td class=n>{_span(one.gap, sign=True)}</td>"
        f"<td>{one.verdict}</td></tr>"
        for one in differences
    )
    return (
        f"<table><tr><th>paired</th><th>figure</th><th>difference</th><th>verdict</th></tr>{rows}"
        "</table>"
    )


def _budgets(section: Section) -> str:
    words = (
        f"false alarms per {section.per}", "score", "sensitivity", "before onset",
        "lead, hours (quartiles)", "alarms per caught", "people never alarmed for nothing",
        "with the threshold fixed while learning: false, sensitivity",
        "with the conformal one: false, sensitivity",
    )  # fmt: skip
    rows = []
    for one in section.results:
        for budget in one.budgets:
            lead = " / ".join(f"{x:.0f}" for x in budget.lead_hours or ())
            rows.append(
                f"<tr><td class=n>{budget.budget:g} ({budget.false_rate:.2f})</td>"
                f"<td>{escape(one.name)}</td><td class=n>{_span(budget.sensitivity)}</td>"
                f"<td class=n>{_number(budget.before_onset)}</td><td class=n>{lead}</td>"
                f"<td class=n>{_number(budget.alarms_per_caught, 1)}</td>"
                f"<td class=n>{_number(budget.people_without_alarm)}</td>"
                f"<td class=n>{_pair(budget.fixed)}</td>"
                f"<td class=n>{_pair(budget.promised)}</td></tr>"
            )
    if not rows:
        return ""
    head = "".join(f"<th>{word}</th>" for word in words)
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _groups(section: Section) -> str:
    named = [one for one in section.results if one.groups]
    if not named:
        return ""
    head = "".join(f"<th>{escape(one.name)}</th>" for one in named)
    rows = ""
    for at, group in enumerate(named[0].groups):
        cells = "".join(
            f"<td class=n>{_span(area) if (area := one.groups[at].auroc) else 'too few'}</td>"
            for one in named
        )
        rows += (
            f"<tr><td>{escape(group.name)}</td><td class=n>{group.people}</td>"
            f"<td class=n>{group.events}</td>{cells}</tr>"
        )
    return f"<table><tr><th>AUROC of</th><th>people</th><th>events</th>{head}</tr>{rows}</table>"


_COLOURS: Final = ("#0b6e4f", "#c8553d", "#3d5a80", "#8d6a9f", "#9a8c2c", "#6c757d")


def _plots(section: Section) -> str:
    out = []
    lines = [
        (one.name, [(budget.false_rate, budget.sensitivity.value) for budget in one.budgets])
        for one in section.results
        if one.budgets
    ]
    if lines:
        most = max(x for _, points in lines for x, _ in points) or 1.0
        out.append(
            _chart(
                lines, most, 1.0, f"false alarms per {section.per}", "sensitivity", diagonal=False
            )
        )
    curves = [
        (one.name, [(risk, true) for risk, true, _ in one.calibrated.curve])
        for one in section.results
        if one.calibrated
    ]
    if curves:
        most = max(max(point) for _, points in curves for point in points) or 1.0
        out.append(_chart(curves, most, most, "risk said", "came true", diagonal=True))
    return f"<p>{''.join(out)}</p>" if out else ""


def _chart(
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    width: float,
    height: float,
    x_word: str,
    y_word: str,
    *,
    diagonal: bool,
) -> str:
    def place(x: float, y: float) -> str:
        return f"{50 + 300 * x / width:.1f},{270 - 250 * y / height:.1f}"

    axes = (
        '<svg viewBox="0 0 560 310" width="560" role="img" font-size="12">'
        f"<title>{escape(y_word)} by {escape(x_word)}</title>"
        '<path d="M50 20V270H350" fill="none" stroke="#444"/>'
        f'<text x="200" y="302" text-anchor="middle">{escape(x_word)}</text>'
        '<text x="14" y="145" transform="rotate(-90 14 145)" text-anchor="middle">'
        f"{escape(y_word)}</text>"
    )
    parts = [axes]
    for tick in range(5):
        x, y = 50 + 75 * tick, 270 - 62.5 * tick
        parts.append(
            f'<text x="{x}" y="285" text-anchor="middle">{width * tick / 4:.3g}</text>'
            f'<text x="45" y="{y + 4}" text-anchor="end">{height * tick / 4:.3g}</text>'
        )
    if diagonal:
        parts.append(f'<path d="M{place(0, 0)}L{place(width, width)}" stroke="#bbb"/>')
    for number, (name, points) in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(place(x, y) for x, y in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
            + "".join(
                f'<circle cx="{place(x, y).split(",")[0]}" cy="{place(x, y).split(",")[1]}" r="3" '
                f'fill="{colour}"/>'
                for x, y in points
            )
            + f'<text x="362" y="{34 + 18 * number}" fill="{colour}">{escape(name)}</text>'
        )
    return "".join(parts) + "</svg>"


def _anchor(section: Section) -> str:
    words = f"{section.data} {section.question} {section.how.split(':')[0]}"
    return "-".join("".join(c if c.isalnum() else " " for c in words).split())


def _span(one: Interval, *, sign: bool = False) -> str:
    form = "+.3f" if sign else ".3f"
    return f"{one.value:{form}} [{one.low:{form}}, {one.high:{form}}]"


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _pair(pair: tuple[float, float] | None) -> str:
    return "" if pair is None else f"{pair[0]:.2f}, {pair[1]:.2f}"

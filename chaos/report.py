"""What a run did and found, as the section of `docs/reliability.md` that `make chaos` writes."""

import os
import platform
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median, quantiles
from typing import Final

import psutil

from chaos.faults import Injected
from chaos.verdict import Line

SHOWN: Final = 20
"""So many faults of one kind are printed in full; the table counts them all."""

BEGIN: Final = "<!-- chaos: written by `make chaos` -->"
END: Final = "<!-- /chaos -->"


@dataclass(slots=True)
class Run:
    """What was done, and what was found."""

    devices: int
    rate: float
    seed: int
    hold_seconds: float
    injected: list[Injected] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """What was not run, and why, one plain line each."""
    seconds: float = 0.0
    messages: int = 0
    sent_again: int = 0
    alarms: int = 0
    frames: int = 0
    reconnections: int = 0
    notices: int = 0
    exit_code: int = 0
    silenced: int | None = None
    """Emergencies that raised no alarm because the services' clock was an hour behind."""
    lateness_seconds: list[float] = field(default_factory=list)
    verdict: list[Line] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """True when nothing was lost, doubled or left over, and the tree ended in order."""
        return self.exit_code == 0 and not any(line.faults for line in self.verdict)


def report(run: Run, now: datetime) -> str:
    """Return the section."""
    claims = [f"| {one.claim} | {one.among:,} | {len(one.faults):,} |" for one in run.verdict]
    claims.append(f"| the process tree ended in order | 1 | {int(run.exit_code != 0)} |")
    faults = [f"- {one.claim}: {fault}" for one in run.verdict for fault in one.faults[:SHOWN]]
    verdict = "Nothing was lost, doubled or left over." if run.kept else "The promise was broken."
    return f"""{BEGIN}
- {now:%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB,
  Python {platform.python_version()}, Linux {platform.release()}, seed {run.seed}
- {len(run.injected)} faults in {run.seconds:.0f} s, those that last held for {run.hold_seconds:g} s
- {run.devices} devices offered {run.rate:.0f} messages/s; {run.messages:,} were acknowledged
  ({run.messages / run.seconds:,.0f}/s, outages included), {run.sent_again:,} sent again after a
  broken connection
- {run.alarms:,} alarms were raised, {run.notices:,} notices came over HTTP, {run.frames:,} frames
  over {run.reconnections:,} WebSocket connections
- steps of the ladder, after their due time or the end of a fault: {_lateness(run)}

| fault | hits | times | no acknowledgement: median s | longest s | until it works: longest s |
|---|---|---:|---:|---:|---:|
{_silences(run)}

| claim | among | faults |
|---|---:|---:|
{chr(10).join(claims)}

**{verdict}**
{chr(10).join([*_limits(run), *faults])}
{END}
"""


def placed(page: str, section: str) -> str:
    """Return the page with this section in the place of its older one."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(f"{END}\n")
    if not (begin and end):
        return f"{page.rstrip()}\n\n{section}"
    return before + section + after


def _limits(run: Run) -> list[str]:
    lines = [f"- not run: {what}" for what in run.left_out]
    if run.silenced is not None:
        lines.append(
            f"- while the services' clock stood an hour behind, {run.silenced} emergencies seemed "
            "to come from the future: they are kept and flagged, and raised no alarm, which is the "
            "rule for time stamps more than 2 minutes ahead of the platform's clock. Keep the "
            "clocks of servers in step (`anxin doctor` compares them)"
        )
    return lines


def _lateness(run: Run) -> str:
    late = run.lateness_seconds
    if len(late) < 2:
        return "none was due"
    p99 = quantiles(late, n=100)[98]
    return f"{len(late):,}, p50 {median(late):.2f} s, p99 {p99:.2f} s, longest {max(late):.2f} s"


def _silences(run: Run) -> str:
    by_fault: defaultdict[tuple[str, str], list[Injected]] = defaultdict(list)
    for one in run.injected:
        by_fault[one.fault.kind, one.fault.target].append(one)
    rows = []
    for (kind, target), made in sorted(by_fault.items()):
        silences = [one.silence_seconds for one in made]
        took = max((one.recovered_at - one.began_at).total_seconds() for one in made)
        rows.append(
            f"| {kind} | {target} | {len(made)} | {median(silences):.2f} | {max(silences):.2f} "
            f"| {took:.2f} |"
        )
    return "\n".join(rows)

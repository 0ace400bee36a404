"""What a run did and found, as `docs/reliability.md`."""

import os
import platform
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import Final

import psutil

from chaos.verdict import Line

TARGETS: Final = {
    "ingest": "the ingest process",
    "postgres": "the Postgres server",
    "tree": "every process at once",
}
"""What can be killed."""

SHOWN: Final = 20
"""So many faults of one kind are printed in full; the table counts them all."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One injected death."""

    target: str
    pids: tuple[int, ...]
    silence_seconds: float
    """The longest time without any acknowledgement, over all devices, that followed."""


@dataclass(slots=True)
class Run:
    """What was done, and what was found."""

    devices: int
    rate: float
    seed: int
    kills: list[Kill] = field(default_factory=list)
    seconds: float = 0.0
    messages: int = 0
    sent_again: int = 0
    exit_code: int = 0
    verdict: list[Line] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """True when nothing was lost, doubled or left over, and the tree ended in order."""
        return self.exit_code == 0 and not any(line.faults for line in self.verdict)


def report(run: Run, now: datetime) -> str:
    """Return the page."""
    claims = [f"| {one.claim} | {one.among:,} | {len(one.faults):,} |" for one in run.verdict]
    claims.append(f"| the process tree ended in order | 1 | {int(run.exit_code != 0)} |")
    faults = [f"- {one.claim}: {fault}" for one in run.verdict for fault in one.faults[:SHOWN]]
    verdict = "Nothing was lost, doubled or left over." if run.kept else "The promise was broken."
    return f"""# Reliability

Written by `make chaos`. Devices publish and write down every acknowledgement, while the processes
of the platform are killed with `kill -9`. Afterwards their book is compared with the database, row
by row, values included. A killed process leaves the operating system's cache behind, so this is no
test of a power cut: against that stand `fsync`, `full_page_writes` and `synchronous_commit`, which
are on.

- {now:%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB,
  Python {platform.python_version()}, Linux {platform.release()}
- {run.devices} devices offered {run.rate:.0f} messages/s for {run.seconds:.0f} s; {run.messages:,}
  were acknowledged ({run.messages / run.seconds:,.0f}/s, outages included) and {run.sent_again:,}
  sent again after a broken connection
- one message in 20 is an array of five readings, one in 100 repeats a reading on purpose; somebody
  presses for help about twice a second and four more people at the moment of each kill, one in
  three of them twice; one device in five repeats itself
- seed {run.seed}

| killed | times | without an acknowledgement: median s | longest s |
|---|---:|---:|---:|
{_silences(run)}

| claim | among | faults |
|---|---:|---:|
{chr(10).join(claims)}

**{verdict}**
{chr(10).join(faults)}"""


def _silences(run: Run) -> str:
    lines = []
    for target, what in TARGETS.items():
        silences = [kill.silence_seconds for kill in run.kills if kill.target == target]
        if silences:
            lines.append(
                f"| {what} | {len(silences)} | {median(silences):.2f} | {max(silences):.2f} |"
            )
    return "\n".join(lines)

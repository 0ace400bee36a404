"""`make bench` itself, in its short form: every figure of the goals is there."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FIGURES = (
    "messages/s over 8 connections",
    "ingest processor time per message, 8 connections",
    "bytes on disk per reading, indexes in",
    "ingest processor time per message, 100 connections, window 1",
    "publish → PUBACK at 1,000/s, p99",
    "publish → PUBACK at 10,000/s, p99",
    "SOS publish → WebSocket frame, 5,000/s behind it, p50",
    "SOS publish → WebSocket frame, 5,000/s behind it, p99",
    "latest status of one resident, HTTP",
    "24 h × 7 metrics of one resident, HTTP",
)


def test_a_short_run_measures_every_figure() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split(" | ")[0].removeprefix("| ") for line in done.stdout.splitlines()]
    for figure in FIGURES:
        assert figure in rows

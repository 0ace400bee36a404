"""`make chaos` itself, in its short form, on a real process tree."""

import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def chaos(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chaos", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_one_kill_of_each_kind_loses_nothing(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.txt"
    done = chaos(
        *("--quick", "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--ledger", str(ledger))
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing was lost, doubled or left over." in done.stdout
    for target in ("ingest", "postgres", "tree"):
        assert f"kill -9 {target}" in done.stdout
    assert ledger.read_text().count("reading-ok ") > 3_000
    assert ledger.read_text().count("event-ok ") >= 12


def test_a_busy_port_is_refused_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = chaos("--quick", "--mqtt", f"127.0.0.1:{port}", "--http", "127.0.0.1:0")
    assert done.returncode == 1
    assert f"127.0.0.1:{port} is in use" in done.stderr
    assert "kill" not in done.stdout

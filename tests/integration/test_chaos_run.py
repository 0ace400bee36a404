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


def test_a_short_run_meets_faults_of_every_family_and_keeps_every_promise(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.txt"
    done = chaos(
        *("--seconds", "20", "--hold", "1", "--rate", "300", "--ledger", str(ledger)),
        *("--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing was lost, doubled or left over." in done.stdout
    for family in ("kill -9", "SIGSTOP", "restart"):
        assert family in done.stdout
    assert any(route in done.stdout for route in ("· devices", "· viewers", "· database"))
    assert ledger.read_text().count("reading-ok ") > 3_000
    assert ledger.read_text().count("event-ok ") >= 12


def test_a_busy_port_is_refused_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = chaos("--quick", "--mqtt", f"127.0.0.1:{port}", "--http", "127.0.0.1:0")
    assert done.returncode == 1
    assert f"127.0.0.1:{port} is in use" in done.stderr
    assert done.stdout == ""

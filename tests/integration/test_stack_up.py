"""`anxin up` as a whole: started, hurt in every way, ended, started again."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import psycopg

from tests.conftest import ADMIN_PASSWORD, Running
from tests.waiting import wait_until

Start = Callable[..., Running]
CHILDREN = ("postgres", "ingest", "api", "worker")


def _family(running: Running, expected: tuple[str, ...] = CHILDREN) -> dict[str, psutil.Process]:
    """Return the direct children by name, once the expected ones are there."""

    def look() -> dict[str, psutil.Process] | None:
        found = {}
        for child in psutil.Process(running.pid).children():
            try:
                words = child.cmdline()
            except psutil.Error:
                continue
            # A child on its way through the leash is not yet what it will be.
            if words and not any(word.endswith("leash.py") for word in words):
                found["postgres" if words[0].endswith("postgres") else words[-1]] = child
        return found if set(expected) == set(found) else None

    return wait_until(look, 30, f"the children are {expected}")


def _kill(running: Running, name: str) -> None:
    """Kill one child and wait until another one serves in its place."""
    victim = _family(running)[name]
    victim.kill()
    wait_until(lambda: _family(running)[name] != victim, 30, f"{name} is there again")
    wait_until(lambda: _is_ready(running) and _listens(running.mqtt), 30, "all is served again")


def _tree(running: Running) -> list[psutil.Process]:
    return [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]


def _gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _is_ready(running: Running) -> bool:
    try:
        return httpx.get(f"{running.url}/readyz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def _logs_in(running: Running, password: str = ADMIN_PASSWORD) -> bool:
    login = {"username": "admin", "password": password}
    answer = httpx.post(f"{running.url}/api/v1/auth/login", json=login, timeout=10)
    return answer.status_code == 200


def test_whole_life_ready_served_secretive_stopped_and_nothing_left(
    start_anxin: Start, data_dir: Path
) -> None:
    running = start_anxin()
    assert running.output.read_text("utf-8") == f"ready http={running.http} mqtt={running.mqtt}\n"
    assert _is_ready(running)
    assert _listens(running.mqtt)
    assert _logs_in(running)
    _family(running)
    tree = _tree(running)
    database_password = (data_dir / "postgres.password").read_text("ascii").strip()
    for process in tree:
        words = " ".join(process.cmdline())
        assert database_password not in words
        assert ADMIN_PASSWORD not in words
    assert running.stop(signal.SIGINT) == 0
    assert all(_gone(process) for process in tree)


def test_killed_children_are_started_again_and_killed_supervisor_leaves_no_orphan(
    start_anxin: Start,
) -> None:
    running = start_anxin()
    for name in CHILDREN:
        _kill(running, name)
        assert f'"service": "{name}"' in running.errors.read_text("utf-8")
    tree = _tree(running)
    running.process.kill()
    assert running.process.wait(10) == -signal.SIGKILL
    wait_until(lambda: all(_gone(process) for process in tree), 15, "no orphan is left")

    again = start_anxin()
    assert _logs_in(again)


def test_everything_survives_a_restart(start_anxin: Start) -> None:
    first = start_anxin(environ={"ANXIN_ADMIN_PASSWORD": ""})
    told = re.search(r"user admin, password (\S+) ", first.errors.read_text("utf-8"))
    assert told is not None
    assert _logs_in(first, told[1])
    first.stop()
    second = start_anxin(environ={"ANXIN_ADMIN_PASSWORD": ""})
    assert "password" not in second.errors.read_text("utf-8")
    assert _logs_in(second, told[1])


def test_second_stack_on_one_directory_is_refused(start_anxin: Start, data_dir: Path) -> None:
    running = start_anxin()
    second = subprocess.run(
        [sys.executable, "-m", "anxin.cli", "up", "--data-dir", str(data_dir)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert second.returncode == 1
    assert second.stdout == ""
    assert second.stderr == (
        f"anxin: {data_dir} is in use by another running Anxin (process {running.pid}). "
        "Stop it or choose another directory with --data-dir.\n"
    )
    assert _is_ready(running)


def test_busy_port_is_refused_before_anything_starts(data_dir: Path) -> None:
    for option in ("--http", "--mqtt"):
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = f"127.0.0.1:{other.getsockname()[1]}"
            addresses = {"--http": "127.0.0.1:0", "--mqtt": "127.0.0.1:0", option: address}
            refused = subprocess.run(
                [sys.executable, "-m", "anxin.cli", "up", "--data-dir", str(data_dir)]
                + [word for pair in addresses.items() for word in pair],
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )
        assert refused.returncode == 1
        assert refused.stderr == (
            f"anxin: {option[2:].upper()}: {address} is in use. Stop the other program, or choose "
            f"another address with {option}.\n"
        )
        assert [file.name for file in data_dir.iterdir()] == ["lock"]


def test_external_database_is_used_and_left_running(
    start_anxin: Start, empty_dsn: str, data_dir: Path
) -> None:
    running = start_anxin("--database", empty_dsn)
    assert _logs_in(running)
    _family(running, ("ingest", "api", "worker"))
    assert running.stop() == 0
    assert not (data_dir / "postgres").exists()
    with psycopg.connect(empty_dsn) as connection:
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (1,)


def test_second_signal_ends_everything_at_once(start_anxin: Start) -> None:
    running = start_anxin()
    tree = _tree(running)
    # A deaf service: without the second signal the end would take until it is killed.
    worker = _family(running)["worker"]
    worker.suspend()
    os.kill(running.pid, signal.SIGINT)
    wait_until(lambda: not _listens(running.http), 15)
    os.kill(running.pid, signal.SIGINT)
    assert running.process.wait(10) == 0
    assert all(_gone(process) for process in tree)

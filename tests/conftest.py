"""What tests share: a real Postgres, fresh databases, free ports, a whole running platform.

Import `wait_until` and `eventually` from `tests.waiting`.
"""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import psycopg
import pytest
from psycopg import sql

from anxin import embedded
from anxin.db.migrate import migrate
from anxin.embedded import EmbeddedPostgres
from tests.waiting import wait_until

_FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "min_wal_size": "80MB",
    "max_wal_size": "1GB",
    "autovacuum_naptime": "1h",
}
_numbers = itertools.count(1)

# How long an example takes says more about what else the machine does than about the code.
hypothesis.settings.register_profile("anxin", deadline=None)
hypothesis.settings.load_profile("anxin")


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Return a fresh data directory that the user of Postgres can reach, unlike `tmp_path`."""
    directory = Path(tempfile.mkdtemp(prefix="anxin-test-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """Return one real Postgres for the whole session, fast instead of durable."""
    directory = Path(tempfile.mkdtemp(prefix="anxin-tests-"))
    directory.chmod(0o711)
    with EmbeddedPostgres(directory, options=_FAST) as server:
        yield server
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def template(postgres: EmbeddedPostgres) -> str:
    """Return the name of a migrated database that `dsn` clones."""
    name = "template_anxin"
    _execute(postgres, "CREATE DATABASE {}", name)
    migrate(_dsn_of(postgres, name))
    return name


@pytest.fixture
def empty_dsn(postgres: EmbeddedPostgres) -> Iterator[str]:
    """Return the DSN of a fresh database without a schema."""
    name = f"test_{next(_numbers)}"
    _execute(postgres, "CREATE DATABASE {}", name)
    yield _dsn_of(postgres, name)
    _execute(postgres, "DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture
def dsn(postgres: EmbeddedPostgres, template: str) -> Iterator[str]:
    """Return the DSN of a fresh, migrated database, dropped after the test."""
    with database_of(postgres, template) as dsn:
        yield dsn


@pytest.fixture
def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody uses now; `embedded.free_port` gives more."""
    return embedded.free_port("127.0.0.1")


@dataclass(frozen=True, slots=True)
class Running:
    """A whole platform in its own process tree: `anxin up`, or another command that says ready."""

    process: subprocess.Popen[bytes]
    http: str
    mqtt: str
    output: Path
    errors: Path

    @property
    def pid(self) -> int:
        """The process id of the supervisor."""
        return self.process.pid

    @property
    def url(self) -> str:
        """The address of the API and the pages."""
        return f"http://{self.http}"

    def said(self) -> str:
        """Return everything printed so far, both streams."""
        return self.output.read_text("utf-8") + self.errors.read_text("utf-8")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, as Ctrl-C or an init system would, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


ADMIN_PASSWORD = "test-admin-password"


@pytest.fixture
def start_anxin(data_dir: Path) -> Iterator[Callable[..., Running]]:
    """Return a function that starts `anxin up` on free ports and waits until it is ready.

    `start_anxin("--database", dsn, command="up", environ={"ANXIN_X": "1"}, directory=other)`; all
    of it optional. The user `admin` has ADMIN_PASSWORD. What still runs is ended after the test,
    which fails when a traceback was printed.
    """
    with starter(data_dir) as start:
        yield start


@pytest.fixture(scope="module")
def anxin() -> Iterator[Running]:
    """Return one whole platform for all tests of a module, each of which brings its own place."""
    directory = Path(tempfile.mkdtemp(prefix="anxin-module-"))
    directory.chmod(0o711)
    with starter(directory) as start:
        yield start()
    shutil.rmtree(directory)


@contextmanager
def database_of(postgres: EmbeddedPostgres, template: str) -> Iterator[str]:
    """Lend the DSN of a fresh, migrated database."""
    name = f"test_{next(_numbers)}"
    _execute(postgres, "CREATE DATABASE {} TEMPLATE {}", name, template)
    yield _dsn_of(postgres, name)
    _execute(postgres, "DROP DATABASE {} WITH (FORCE)", name)


@contextmanager
def starter(data_dir: Path) -> Iterator[Callable[..., Running]]:
    """Lend what `start_anxin` gives; at the end everything started is stopped."""
    started: list[Running] = []

    def start(
        *options: str,
        command: str = "up",
        environ: dict[str, str] | None = None,
        directory: Path = data_dir,
        ready_seconds: float = 90.0,
    ) -> Running:
        number = len(started)
        output = data_dir / f"stdout-{number}"
        errors = data_dir / f"stderr-{number}"
        arguments = ["--data-dir", str(directory), *options]
        for option in ("--http", "--mqtt"):
            if option not in options:
                arguments += [option, "127.0.0.1:0"]
        with output.open("wb") as standard_output, errors.open("wb") as standard_error:
            process = subprocess.Popen(
                [sys.executable, "-m", "anxin.cli", command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=standard_output,
                stderr=standard_error,
                env=os.environ | {"ANXIN_ADMIN_PASSWORD": ADMIN_PASSWORD} | (environ or {}),
            )

        def ready() -> re.Match[str] | None:
            text = output.read_text("utf-8")
            line = re.search(r"^ready http=(\S+) mqtt=(\S+)$", text, re.MULTILINE)
            if line is None and process.poll() is not None:
                raise AssertionError(f"exit code {process.returncode}")
            return line

        try:
            line = wait_until(ready, ready_seconds, "the platform is ready")
        except AssertionError as fault:
            process.kill()
            process.wait()
            raise AssertionError(f"{fault}\n{errors.read_text('utf-8')}") from fault
        assert line is not None
        running = Running(process, line[1], line[2], output, errors)
        started.append(running)
        return running

    yield start
    for running in started:
        if running.process.poll() is None:
            try:
                running.stop()
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()
                raise
    for running in started:
        assert "Traceback (most recent call last)" not in running.said(), running.said()


def _dsn_of(server: EmbeddedPostgres, database: str) -> str:
    return f"{server.dsn.rpartition('/')[0]}/{database}"


def _execute(server: EmbeddedPostgres, statement: str, *names: str) -> None:
    with psycopg.connect(_dsn_of(server, "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

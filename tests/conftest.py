"""What tests share: a real Postgres, fresh databases, free ports, a whole running platform.

Import `wait_until` and `eventually` from `tests.waiting`.
"""

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from anxin import embedded
from anxin.db.migrate import migrate
from anxin.embedded import EmbeddedPostgres

_FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "min_wal_size": "80MB",
    "max_wal_size": "1GB",
    "autovacuum_naptime": "1h",
}
_numbers = itertools.count(1)


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
    name = f"test_{next(_numbers)}"
    _execute(postgres, "CREATE DATABASE {} TEMPLATE {}", name, template)
    yield _dsn_of(postgres, name)
    _execute(postgres, "DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture
def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody uses now; `embedded.free_port` gives more."""
    return embedded.free_port("127.0.0.1")


def _dsn_of(server: EmbeddedPostgres, database: str) -> str:
    return f"{server.dsn.rpartition('/')[0]}/{database}"


def _execute(server: EmbeddedPostgres, statement: str, *names: str) -> None:
    with psycopg.connect(_dsn_of(server, "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

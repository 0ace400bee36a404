"""The steps of docs/backup.md back to a point in time, with the programs of the embedded server."""

import os
import shutil
import subprocess
from pathlib import Path

import psycopg

from anxin.db import dump
from anxin.embedded import Account, EmbeddedPostgres, binaries_directory
from tests.waiting import wait_until


def test_the_database_comes_back_as_it_was_before_the_accident(data_dir: Path) -> None:
    archive = data_dir / "archive"
    archive.mkdir()
    account = Account.for_directory(data_dir)
    account.give(archive)
    options = {
        "wal_level": "replica",
        "archive_mode": "on",
        "archive_command": f"test ! -f {archive}/%f && cp %p {archive}/%f",
    }
    with (
        EmbeddedPostgres(data_dir / "one", options=options) as server,
        psycopg.connect(server.dsn, autocommit=True) as connection,
    ):
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept VALUES (1)")
        base = data_dir / "base"
        tool("pg_basebackup", server.dsn, f"--pgdata={base}", "--checkpoint=fast",
             "--wal-method=stream")  # fmt: skip
        tool("pg_verifybackup", server.dsn, str(base))
        connection.execute("INSERT INTO kept VALUES (2)")
        row = connection.execute("SELECT clock_timestamp()::text").fetchone()
        assert row is not None
        connection.execute("SELECT pg_sleep(0.01)")
        connection.execute("DELETE FROM kept")
        connection.execute("SELECT pg_switch_wal()")
        wait_until(lambda: archived(connection), what="the last segment is in the archive")
        cluster = data_dir / "one" / "postgres"
    shutil.rmtree(cluster)
    base.rename(cluster)
    for part in (cluster, *cluster.rglob("*")):
        account.give(part)
    shutil.rmtree(cluster / "pg_wal")
    (cluster / "pg_wal").mkdir(mode=0o700)
    account.give(cluster / "pg_wal")
    (cluster / "recovery.signal").touch()
    account.give(cluster / "recovery.signal")
    back = {
        "restore_command": f"cp {archive}/%f %p",
        "recovery_target_time": str(row[0]),
        "recovery_target_action": "promote",
    }
    with (
        EmbeddedPostgres(data_dir / "one", options=back) as server,
        psycopg.connect(server.dsn, autocommit=True) as connection,
    ):
        wait_until(lambda: promoted(connection), what="the server has promoted itself")
        rows = connection.execute("SELECT n FROM kept ORDER BY n").fetchall()
    assert rows == [(1,), (2,)]


def archived(connection: "psycopg.Connection[tuple[object, ...]]") -> bool:
    row = connection.execute(
        "SELECT archived_count > 0 AND last_archived_wal >="
        " pg_walfile_name(pg_current_wal_lsn() - 1) FROM pg_stat_archiver"
    ).fetchone()
    return row == (True,)


def promoted(connection: "psycopg.Connection[tuple[object, ...]]") -> bool:
    return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)


def tool(name: str, dsn: str, *arguments: str) -> None:
    subprocess.run(
        [str(binaries_directory() / name), *arguments],
        env=os.environ | dump.environment(dsn),
        check=True,
        capture_output=True,
    )

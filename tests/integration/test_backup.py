"""Backup and restore against real servers: everything comes back, nothing else is accepted."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg
import pytest
from psycopg import sql

from anxin import archive
from anxin.backup import DATABASE, back_up, checked, put_back, verify
from anxin.db import dump, upkeep
from anxin.db import migrate as migrations
from anxin.db.migrate import migrate
from anxin.db.pool import Database
from anxin.embedded import EmbeddedPostgres, binaries_directory
from anxin.errors import AnxinError
from anxin.restore import restore_database, restore_directory
from tests.conftest import ADMIN_PASSWORD, Running
from tests.integration.api_world import World, settle
from tests.waiting import wait_until

AT = datetime(2026, 11, 23, 23, 45, tzinfo=UTC)
PASSPHRASE = "a passphrase of a test"


@pytest.fixture(autouse=True)
def _cheap_derivation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_SCRYPT_LOG2_N", 10)


def filled(dsn: str) -> World:
    """Fill a database: people, devices, readings of several weeks, events, alarms, ladders."""
    world = settle(dsn)
    world.device("mat", "A", "anna")
    world.alarm("anna")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO telemetry (ts, received_at, device_key, hr, temp, extra)"
            " SELECT t, t, d.key, 60 + random() * 20, 36.6::real, jsonb_build_object('x', random())"
            " FROM devices d, generate_series(now() - interval '6 weeks', now(),"
            " interval '1 hour') AS t"
        )
        connection.execute(
            "INSERT INTO minute_rollup (device_key, bucket, hr_n, hr_mean, hr_min, hr_max)"
            " SELECT device_key, date_trunc('minute', ts), 1, hr, hr, hr FROM telemetry"
        )
        connection.execute(
            "INSERT INTO events (device_key, id, type, ts, received_at, detail)"
            " SELECT key, 'e' || n, 'sos', now(), now(), '{\"字\": \"安心\"}'"
            " FROM devices, generate_series(1, 50) AS n"
        )
        connection.execute(
            "INSERT INTO quarantine (received_at, device_id, kind, reason, size, payload)"
            " VALUES (now(), 'mat', 'telemetry', 'bad', 4, '\\x00ff0a5c')"
        )
        connection.execute(
            "INSERT INTO ladders (place_id, priority, steps)"
            " SELECT id, 3, '[{\"after_seconds\": 0}]' FROM places WHERE kind = 'facility'"
        )
    return world


def contents(dsn: str) -> dict[str, list[bytes]]:
    """Return every row of every table, sorted."""
    with dump.snapshot(dsn) as moment:
        names = moment.tables()
    found = {}
    with psycopg.connect(dsn) as connection:
        connection.execute("SET timezone = 'UTC'")
        for schema, name in names:
            query = f'COPY (SELECT * FROM "{schema}"."{name}") TO STDOUT'
            with connection.cursor().copy(query.encode()) as copy:
                found[name] = sorted(bytes(row) for row in copy)
    return found


def schema_of(dsn: str) -> str:
    """Return the definition of everything: tables, functions, policies, grants, owners."""
    return subprocess.run(
        [str(binaries_directory() / "pg_dump"), "--schema-only", "--restrict-key=same"],
        env=dump.environment(dsn), capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def grants_of(dsn: str) -> set[archive.Grant]:
    """Return who was given what on the database itself."""
    with dump.snapshot(dsn) as moment:
        return set(moment.grants())


def without_sessions(tables: dict[str, list[bytes]]) -> dict[str, list[bytes]]:
    return {name: rows for name, rows in tables.items() if name not in ("sessions", "tickets")}


def test_everything_comes_back_into_a_new_directory(dsn: str, data_dir: Path) -> None:
    filled(dsn)
    before = contents(dsn)
    assert len(before["telemetry"]) > 1000
    assert before["ladders"]
    assert before["alarms"]
    assert before["timeline"]
    assert before["minute_rollup"]
    file = data_dir / "one.backup"
    manifest = back_up(dsn, file, AT)
    assert {name: len(rows) for name, rows in before.items()} == {
        name.removeprefix("public."): table.rows for name, table in manifest.tables.items()
    }
    assert "whole" in verify(file)
    restored = data_dir / "restored"
    restore_directory(file, restored)
    with EmbeddedPostgres(restored) as server:
        after = contents(server.dsn)
        assert without_sessions(after) == without_sessions(before)
        assert after["sessions"] == []
        assert schema_of(server.dsn) == schema_of(dsn)
        assert grants_of(server.dsn) == grants_of(dsn)
        with psycopg.connect(server.dsn) as connection:
            # The next identity is free.
            connection.execute("INSERT INTO places (kind, name) VALUES ('facility', 'new')")
    assert sorted(one.name for one in data_dir.iterdir()) == ["one.backup", "restored"]


def test_everything_comes_back_into_an_empty_database(
    dsn: str, empty_dsn: str, data_dir: Path
) -> None:
    filled(dsn)
    file = data_dir / "one.backup"
    back_up(dsn, file, AT, PASSPHRASE)
    restore_database(file, empty_dsn, PASSPHRASE)
    assert without_sessions(contents(empty_dsn)) == without_sessions(contents(dsn))
    with pytest.raises(AnxinError, match="not empty"):
        restore_database(file, empty_dsn, PASSPHRASE)


@contextmanager
def writing(dsn: str) -> Iterator[Callable[[], int]]:
    """Write a reading and an event in each transaction, from several sides, until the end."""
    stop = threading.Event()
    done = [0, 0, 0]

    def write(side: int) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not stop.is_set():
                with connection.transaction():
                    connection.execute(
                        "INSERT INTO telemetry (ts, received_at, device_key, hr, seq)"
                        " SELECT clock_timestamp() + %s * interval '1 day', now(), key, 70, 1"
                        " FROM devices LIMIT 1",
                        [side],
                    )
                    connection.execute(
                        "INSERT INTO events (device_key, id, type, ts, received_at)"
                        " SELECT key, %s, 'pair', now(), now() FROM devices LIMIT 1",
                        [f"pair-{side}-{done[side]}"],
                    )
                done[side] += 1

    sides = [threading.Thread(target=write, args=[side]) for side in range(len(done))]
    for side in sides:
        side.start()
    try:
        yield lambda: sum(done)
    finally:
        stop.set()
        for side in sides:
            side.join()


def test_a_backup_under_load_is_one_moment(dsn: str, empty_dsn: str, data_dir: Path) -> None:
    filled(dsn)
    file = data_dir / "one.backup"
    with writing(dsn) as written:
        wait_until(lambda: written() > 100)
        before = written()
        back_up(dsn, file, AT)
        during = written() - before
    assert during > 10
    restore_database(file, empty_dsn)
    with psycopg.connect(empty_dsn) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM telemetry WHERE seq = 1),"
            " (SELECT count(*) FROM events WHERE type = 'pair')"
        ).fetchone()
    assert row is not None
    assert row[0] == row[1] >= 100


def test_ingest_does_not_wait_for_a_backup(dsn: str) -> None:
    filled(dsn)
    with dump.snapshot(dsn) as moment:
        for name in moment.tables():
            moment.content(name)
        with psycopg.connect(dsn, options="-c lock_timeout=100ms") as connection:
            connection.execute("DELETE FROM telemetry")
            connection.execute("UPDATE alarms SET count = count + 1")


async def test_partitions_wait_for_a_backup_and_writers_do_not(dsn: str) -> None:
    filled(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT add_partition('2020-01-01')")
        async with Database(dsn, role="anxin_worker") as db:
            with dump.snapshot(dsn) as moment:
                moment.content(("public", "telemetry"))
                assert await upkeep.keep_partitions(db, retention_days=730) == 0
                connection.execute("SET lock_timeout = '100ms'")
                connection.execute("DELETE FROM telemetry")
            assert await upkeep.keep_partitions(db, retention_days=730) == 1


def test_a_backup_of_a_newer_schema_is_refused_with_words(
    dsn: str, empty_dsn: str, data_dir: Path
) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO schema_migrations VALUES ('9999_from_the_future')")
    file = data_dir / "one.backup"
    back_up(dsn, file, AT)
    with pytest.raises(AnxinError, match=r"newer Anxin.*9999_from_the_future.*Install"):
        restore_database(file, empty_dsn)
    with pytest.raises(AnxinError, match="newer Anxin"):
        restore_directory(file, data_dir / "restored")
    assert dump.is_empty(empty_dsn)
    assert not (data_dir / "restored").exists()


def test_an_older_backup_is_brought_up_to_date(
    empty_dsn: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = migrations.scripts(timescale=False)
    with monkeypatch.context() as patch:
        older = dict(list(every.items())[:4])
        patch.setattr(migrations, "scripts", lambda **_: older)
        migrate(empty_dsn)
    with psycopg.connect(empty_dsn) as connection:
        connection.execute("INSERT INTO places (kind, name) VALUES ('facility', 'old')")
    file = data_dir / "one.backup"
    back_up(empty_dsn, file, AT)
    restore_directory(file, data_dir / "restored")
    with EmbeddedPostgres(data_dir / "restored") as server:
        assert migrations.pending(server.dsn) == []
        assert len(contents(server.dsn)["places"]) == 1


def test_a_role_that_does_not_see_everything_is_refused(dsn: str, data_dir: Path) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS half_blind")
        connection.execute("CREATE ROLE half_blind LOGIN PASSWORD 'half-blind'")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO half_blind")
        connection.execute("ALTER TABLE residents ENABLE ROW LEVEL SECURITY")
        connection.execute("CREATE POLICY none ON residents TO half_blind USING (false)")
        parts = psycopg.conninfo.conninfo_to_dict(dsn)
        poor = psycopg.conninfo.make_conninfo(
            **{**parts, "user": "half_blind", "password": "half-blind"}
        )
        try:
            with pytest.raises(AnxinError):
                back_up(poor, data_dir / "one.backup", AT)
            assert list(data_dir.iterdir()) == []
        finally:
            connection.execute("DROP OWNED BY half_blind")
            connection.execute("DROP ROLE half_blind")


def test_owners_and_policies_come_back_with_their_roles(dsn: str, data_dir: Path) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for role in ("backup_owner", "backup_group"):
            connection.execute(f"DROP ROLE IF EXISTS {role}".encode())
            connection.execute(f"CREATE ROLE {role} NOLOGIN".encode())
        connection.execute("GRANT backup_group TO backup_owner")
        name = sql.Identifier(connection.info.dbname)
        connection.execute(
            sql.SQL("GRANT CONNECT, TEMPORARY ON DATABASE {} TO backup_group").format(name)
        )
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
        connection.execute("CREATE TABLE owned (id int)")
        connection.execute("ALTER TABLE owned OWNER TO backup_owner")
        connection.execute("ALTER TABLE owned ENABLE ROW LEVEL SECURITY")
        connection.execute("CREATE POLICY mine ON owned TO backup_owner USING (true)")
        try:
            file = data_dir / "one.backup"
            back_up(dsn, file, AT)
            # A new directory is a new cluster, which has none of these roles.
            restore_directory(file, data_dir / "restored")
            with EmbeddedPostgres(data_dir / "restored") as server:
                assert schema_of(server.dsn) == schema_of(dsn)
                with psycopg.connect(server.dsn) as other:
                    row = other.execute(
                        "SELECT rolcanlogin, pg_has_role('backup_owner', 'backup_group', 'member')"
                        " FROM pg_roles WHERE rolname = 'backup_owner'"
                    ).fetchone()
                    assert row == (False, True)
                given = grants_of(server.dsn)
                assert archive.Grant("backup_group", "CONNECT") in given
                assert not any(one.role == "" for one in given)
                assert given == grants_of(dsn)
        finally:
            connection.execute("DROP OWNED BY backup_owner, backup_group")
            connection.execute("DROP ROLE backup_owner, backup_group")


def test_a_restore_that_differs_is_refused(dsn: str, empty_dsn: str, data_dir: Path) -> None:
    filled(dsn)
    file = data_dir / "one.backup"
    back_up(dsn, file, AT)
    with checked(file) as backup:
        table = backup.manifest.tables["public.alarms"]
        tables = backup.manifest.tables | {
            "public.alarms": archive.Table(table.rows, table.fingerprint + "1")
        }
        forged = archive.Reader(
            backup._archive, msgspec.structs.replace(backup.manifest, tables=tables)
        )
        with pytest.raises(AnxinError, match=r"not what was backed up: public\.alarms\."):
            put_back(empty_dsn, forged)


def test_a_restore_that_fails_leaves_no_directory(dsn: str, data_dir: Path) -> None:
    file = data_dir / "one.backup"
    back_up(dsn, file, AT)
    with checked(file) as backup, archive.create(data_dir / "two.backup", AT) as writer:
        whole = b"".join(backup.parts(DATABASE))
        writer.add(DATABASE, [whole[: len(whole) // 2]])
        writer.finish(msgspec.structs.replace(backup.manifest, members=writer.members))
    with pytest.raises(AnxinError):
        verify(data_dir / "two.backup")
    with pytest.raises(AnxinError):
        restore_directory(data_dir / "two.backup", data_dir / "restored")
    assert sorted(one.name for one in data_dir.iterdir()) == ["one.backup", "two.backup"]


def test_nothing_is_restored_over_anything(dsn: str, data_dir: Path) -> None:
    file = data_dir / "one.backup"
    back_up(dsn, file, AT)
    with pytest.raises(AnxinError, match="not empty"):
        restore_directory(file, data_dir)
    with pytest.raises(AnxinError, match="not empty"):
        restore_database(file, dsn)


def test_a_foreign_database_is_refused(empty_dsn: str, data_dir: Path) -> None:
    with pytest.raises(AnxinError, match="no schema of Anxin"):
        back_up(empty_dsn, data_dir / "one.backup", AT)


def command(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "anxin.cli", *map(str, words)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_running_platform_is_backed_up_and_serves_again_from_the_restore(
    start_anxin: Callable[..., Running], data_dir: Path
) -> None:
    running = start_anxin()
    token = _logged_in(running)
    place = _post(running, token, "/places", {"kind": "facility", "name": "松柏"})
    _post(running, token, "/residents", {"name": "王秀兰", "place_id": place["id"]})
    (data_dir / "passphrase").write_text(PASSPHRASE, encoding="utf-8")
    (data_dir / "data-keys").write_text("1:secret\n", encoding="utf-8")
    (data_dir / "backups").mkdir()
    secret = ["--passphrase-file", data_dir / "passphrase"]
    made = command(
        "backup", data_dir / "backups", "--data-dir", data_dir, *secret,
        "--with-keys", data_dir / "data-keys",
    )  # fmt: skip
    assert (made.returncode, made.stderr) == (0, "")
    (file,) = (data_dir / "backups").iterdir()
    assert file.name in made.stdout
    running.stop()

    checked_ = command("backup", "--verify", file, *secret)
    assert checked_.returncode == 0
    assert "whole" in checked_.stdout
    assert "with data keys" in checked_.stdout
    refused = command("backup", "--verify", file)
    assert refused.returncode == 1
    assert "is encrypted" in refused.stderr

    new = data_dir / "new"
    done = command("restore", file, "--data-dir", new, *secret)
    assert (done.returncode, done.stderr) == (0, "")
    assert (new / "data-keys").read_text(encoding="utf-8") == "1:secret\n"
    assert (new / "data-keys").stat().st_mode & 0o777 == 0o600
    again = start_anxin(directory=new)
    answer = httpx.get(f"{again.url}/api/v1/me", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401  # a session of the time before
    residents = httpx.get(
        f"{again.url}/api/v1/residents",
        headers={"Authorization": f"Bearer {_logged_in(again)}"},
    ).json()
    assert [one["name"] for one in residents["items"]] == ["王秀兰"]


def test_a_resting_platform_is_woken_for_its_backup(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir / "resting") as server:
        migrate(server.dsn)
    made = command("backup", data_dir / "one.backup", "--data-dir", data_dir / "resting")
    assert (made.returncode, made.stderr) == (0, "")
    nothing = command("backup", data_dir / "two.backup", "--data-dir", data_dir / "elsewhere")
    assert nothing.returncode == 2
    assert "There is no database" in nothing.stderr
    assert not (data_dir / "elsewhere").exists()
    unencrypted = command(
        "backup", data_dir / "two.backup", "--data-dir", data_dir / "resting",
        "--with-keys", data_dir / "one.backup",
    )  # fmt: skip
    assert unencrypted.returncode == 2
    where = command("restore", data_dir / "one.backup")
    assert where.returncode == 2
    assert "--data-dir" in where.stderr


def _logged_in(running: Running) -> str:
    login = {"username": "admin", "password": ADMIN_PASSWORD}
    answer = httpx.post(f"{running.url}/api/v1/auth/login", json=login)
    return str(answer.json()["access_token"])


def _post(running: Running, token: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = httpx.post(
        f"{running.url}/api/v1{path}", json=body, headers={"Authorization": f"Bearer {token}"}
    )
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found

"""Each service has a login of its own, which can be its role and nothing else."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from anxin.config import SECRETS
from anxin.db.logins import LoginsImpossible, make_logins
from anxin.db.migrate import migrate
from anxin.stack import LOGINS, SECRETS_OF
from tests.conftest import Running

ROLES = ("anxin_api", "anxin_door", "anxin_ingest", "anxin_worker")
BEYOND = {
    "anxin_api": "SELECT count(*) FROM telemetry",
    "anxin_door": "SELECT secret_hash FROM devices",
    "anxin_ingest": "SELECT count(*) FROM users",
    "anxin_worker": "SELECT password_hash FROM users",
}
"""What belongs to the work of others."""
_KEY = "A" * 43


def _children(running: Running) -> dict[str, psutil.Process]:
    found = {}
    for child in psutil.Process(running.pid).children():
        words = child.cmdline()
        found["postgres" if words[0].endswith("postgres") else words[-1]] = child
    return found


def _try(dsn: str, statement: str, *before: str) -> type[psycopg.Error] | None:
    """Return how a statement fails on a connection of its own, or None."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        try:
            for one in (*before, statement):
                connection.execute(one.encode())
        except psycopg.Error as error:
            return type(error)
    return None


@contextmanager
def _user(dsn: str, name: str, attributes: str = "") -> Iterator[str]:
    """Lend the DSN of a user who owns the database."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        database = sql.Identifier(connection.info.dbname)
        who = sql.Identifier(name)
        create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'only-here' {}")
        connection.execute(create.format(who, sql.SQL(attributes)))
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, who))
        connection.execute(sql.SQL("GRANT ALL ON SCHEMA public TO {}").format(who))
        yield make_conninfo(dsn, user=name, password="only-here")
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO CURRENT_USER").format(database))
        connection.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(who))
        connection.execute(sql.SQL("DROP OWNED BY {}").format(who))
        for role in ROLES:
            connection.execute(f"DROP ROLE IF EXISTS {role}_login_{name}".encode())
        connection.execute(sql.SQL("DROP ROLE {}").format(who))


@pytest.fixture
def logins(dsn: str) -> Iterator[dict[str, str]]:
    """Return the DSN of a login for each role."""
    yield make_logins(dsn, ROLES, "test")
    with psycopg.connect(dsn, autocommit=True) as connection:
        for role in ROLES:
            connection.execute(f"DROP ROLE IF EXISTS {role}_login_test".encode())


@pytest.mark.parametrize("role", ROLES)
def test_a_login_cannot_become_anything_but_its_role(logins: dict[str, str], role: str) -> None:
    own = logins[role]
    assert _try(own, f"SET ROLE {role}") is None
    others = {"anxin", "anxin_owner", "anxin_gate", *ROLES} - {role}
    for other in others:
        assert _try(own, f"SET ROLE {other}") is errors.InsufficientPrivilege
        put_on = f"SET SESSION AUTHORIZATION {other}"
        assert _try(own, put_on) is errors.InsufficientPrivilege
    for off in ("RESET ROLE", "SET ROLE NONE", "RESET SESSION AUTHORIZATION", "DISCARD ALL"):
        as_service = (f"SET ROLE {role}", off)
        assert _try(own, BEYOND[role], *as_service) is errors.InsufficientPrivilege
    for deed in (
        "ALTER TABLE residents DISABLE ROW LEVEL SECURITY",
        "ALTER POLICY api_select ON residents USING (true)",
        "CREATE ROLE friend SUPERUSER",
        f"ALTER ROLE {role} SUPERUSER",
        f"GRANT anxin_owner TO {role}",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "CREATE TABLE own (x int)",
        "DROP TABLE audit",
        "SELECT rolpassword FROM pg_authid",
    ):
        assert _try(own, deed) is errors.InsufficientPrivilege, deed


def test_a_service_may_ask_whether_the_schema_is_up_to_date(logins: dict[str, str]) -> None:
    for own in logins.values():
        assert migrate(own) == []


def test_passwords_are_new_each_time_and_old_ones_let_nobody_in(
    dsn: str, logins: dict[str, str]
) -> None:
    again = make_logins(dsn, ROLES, "test")
    for role in ROLES:
        assert _try(again[role], "SELECT 1") is None
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            _try(logins[role], "SELECT 1")


@pytest.mark.usefixtures("logins")
def test_a_login_that_reaches_more_is_not_used(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("GRANT anxin_owner TO anxin_ingest_login_test")
    with pytest.raises(LoginsImpossible, match="anxin_ingest_login_test reaches more than"):
        make_logins(dsn, ROLES, "test")


def test_a_server_that_does_not_let_a_login_in_is_told_in_one_line(
    dsn: str, logins: dict[str, str]
) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER ROLE anxin_door_login_test CONNECTION LIMIT 0")
    with pytest.raises(LoginsImpossible, match=r"made for anxin_door: .*pg_hba\.conf") as told:
        make_logins(dsn, ROLES, "test")
    assert "\n" not in str(told.value)
    assert str(conninfo_to_dict(logins["anxin_door"])["password"]) not in str(told.value)


@pytest.mark.usefixtures("template")
def test_an_owner_of_the_database_who_may_make_roles_is_enough(empty_dsn: str) -> None:
    with _user(empty_dsn, "landlord", "CREATEROLE") as own:
        # Roles belong to the server: other databases on it have made them before.
        with psycopg.connect(empty_dsn, autocommit=True) as connection:
            for role in (*ROLES, "anxin_owner", "anxin_gate"):
                connection.execute(f"GRANT {role} TO landlord WITH ADMIN OPTION".encode())
        assert migrate(own)
        made = make_logins(own, ROLES, "landlord")
        assert _try(made["anxin_worker"], "SELECT count(*) FROM telemetry") is None
        refused = _try(made["anxin_worker"], "SET ROLE anxin_owner")
        assert refused is errors.InsufficientPrivilege


def _up(dsn: str, directory: Path) -> subprocess.CompletedProcess[str]:
    options = ["--data-dir", str(directory), "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]
    return subprocess.run(
        [sys.executable, "-m", "anxin.cli", "up", "--database", dsn, *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_user_who_may_not_make_roles_is_told_what_to_do(
    dsn: str, empty_dsn: str, data_dir: Path
) -> None:
    with _user(empty_dsn, "tenant") as own:
        told = _up(own, data_dir)
    assert told.returncode == 1
    assert told.stdout == ""
    assert told.stderr.splitlines()[-1] == (
        "anxin: The database user tenant may not bring the schema up to date (permission denied to "
        'grant role "anxin_owner"). Run `anxin migrate` as a superuser, or as a user who owns the '
        "database and everything in it and may make roles (CREATEROLE)."
    )
    with _user(dsn, "lodger") as own:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("GRANT anxin_owner TO lodger")
        told = _up(own, data_dir)
    assert told.returncode == 1
    assert told.stderr.splitlines()[-1] == (
        "anxin: The database user lodger may not make logins for the services. Let a superuser "
        "say: ALTER ROLE lodger CREATEROLE; GRANT anxin_ingest, anxin_api, anxin_door, "
        "anxin_worker TO lodger WITH ADMIN OPTION; or run the services one by one, each with a "
        "login that you made (docs/operations.md)."
    )


def test_a_service_is_given_only_the_secrets_that_it_needs(
    start_anxin: Callable[..., Running], data_dir: Path
) -> None:
    keys = data_dir / "keys"
    keys.write_text(f"master 1 {_KEY}=\nindex 1 {_KEY}=\n", "ascii")
    given = {
        "ANXIN_AUDIT_KEY": _KEY,
        "ANXIN_DATA_KEYS_FILE": str(keys),
        "ANXIN_SMTP_PASSWORD": "mail-secret",
        "ANXIN_RECEIPT_TOKEN": "receipt-secret",
        "PGPASSWORD": "of-somebody-mighty",
    }
    running = start_anxin(environ=given)
    seen = {
        service: {name for name in given if name in _children(running)[service].environ()}
        for service in LOGINS
    }
    assert seen == {
        "ingest": set(),
        "api": {"ANXIN_DATA_KEYS_FILE", "ANXIN_RECEIPT_TOKEN"},
        "worker": {"ANXIN_AUDIT_KEY", "ANXIN_SMTP_PASSWORD", "ANXIN_RECEIPT_TOKEN"},
    }
    assert not (data_dir / "audit" / "key").exists()


def test_every_secret_setting_has_a_service_that_needs_it() -> None:
    given = frozenset[str]().union(*SECRETS_OF.values())
    # The supervisor's own, the bridge's, and the login that each service has instead.
    assert given == set(SECRETS) - {"admin_password", "broker", "database", "database_door"}


def test_services_of_anxin_up_are_given_their_own_login_and_no_other(
    start_anxin: Callable[..., Running], data_dir: Path
) -> None:
    running = start_anxin()
    mighty = (data_dir / "postgres.password").read_text("ascii").strip()
    said = running.said() + (data_dir / "postgres.log").read_text("utf-8", "replace")
    tree = [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]
    words = " ".join(word for process in tree for word in process.cmdline())
    for service, logins in LOGINS.items():
        environ = _children(running)[service].environ()
        assert mighty not in "".join(environ.values())
        for variable, role in logins.items():
            own = environ[variable]
            facts = conninfo_to_dict(own)
            assert str(facts["user"]).startswith(f"{role}_login_")
            assert str(facts["password"]) not in said
            assert str(facts["password"]) not in words
            assert _try(own, "SET ROLE anxin_owner") is errors.InsufficientPrivilege
            assert _try(own, BEYOND[role], "RESET ROLE") is errors.InsufficientPrivilege
    with psycopg.connect(
        f"postgresql://anxin:{mighty}@127.0.0.1:{(data_dir / 'postgres.port').read_text().strip()}"
        "/anxin"
    ) as connection:
        ours = connection.execute(
            "SELECT count(*) FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid"
            " WHERE r.rolsuper AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend'"
        ).fetchone()
    assert ours == (0,)

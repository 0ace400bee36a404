"""Migrations: numbered SQL files, each applied once, in order, in a transaction of its own.

`NNNN_name.sql` serves every Postgres. `NNNN_name.plain.sql` and `NNNN_name.timescale.sql` are two
forms of one step: the second where the timescaledb extension can be had, else the first.
"""

from importlib import resources

import psycopg
from psycopg import errors

from anxin.errors import AnxinError, DatabaseUnavailable

OLDEST_POSTGRES = 15
_LOCK = 4155020


class SchemaNewer(AnxinError):
    """The database was migrated by a newer Anxin than this one. Install that version."""


class PostgresTooOld(AnxinError):
    """Anxin needs PostgreSQL 15 or newer. Point ANXIN_DATABASE at one."""


class MayNotMigrate(AnxinError):
    """This database user may not bring the schema up to date."""


def migrate(dsn: str) -> list[str]:
    """Bring the schema up to date and return the versions applied now; raise MayNotMigrate."""
    with connect(dsn) as connection:
        try:
            return _migrate(connection)
        except errors.InsufficientPrivilege as error:
            user = connection.info.user
            raise MayNotMigrate(
                f"The database user {user} may not bring the schema up to date "
                f"({error.diag.message_primary}). Run `anxin migrate` as a superuser, or as a user "
                "who owns the database and everything in it and may make roles (CREATEROLE)."
            ) from error


def _migrate(connection: "psycopg.Connection[tuple[object, ...]]") -> list[str]:
    if not _waiting(connection):
        # A service that may do nothing else to the schema can ask this much.
        return []
    # Several services may start at once: one migrates, the others wait and find nothing to do.
    connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations ("
        " version text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    steps = _waiting(connection)
    for version, script in steps:
        with connection.transaction():
            connection.execute(script)
            connection.execute("INSERT INTO schema_migrations VALUES (%s)", [version])
    return [version for version, _ in steps]


def pending(dsn: str) -> list[str]:
    """Return the versions that `migrate` would apply."""
    with connect(dsn) as connection:
        return [version for version, _ in _waiting(connection)]


def has_timescale(connection: "psycopg.Connection[tuple[object, ...]]") -> bool:
    """Tell whether this server offers the timescaledb extension."""
    query = "SELECT 1 FROM pg_available_extensions WHERE name = 'timescaledb'"
    return connection.execute(query).fetchone() is not None


def scripts(*, timescale: bool) -> dict[str, bytes]:
    """Return every migration by version, in order, in the form for this kind of server."""
    other = "plain" if timescale else "timescale"
    found = {}
    for file in resources.files("anxin.db.migrations").iterdir():
        name = file.name
        if name.endswith(".sql") and not name.endswith(f".{other}.sql"):
            found[name.split(".")[0]] = file.read_bytes()
    return dict(sorted(found.items()))


def _waiting(connection: "psycopg.Connection[tuple[object, ...]]") -> list[tuple[str, bytes]]:
    known = scripts(timescale=has_timescale(connection))
    exists = connection.execute("SELECT to_regclass('schema_migrations')").fetchone()
    applied: set[str] = set()
    if exists and exists[0] is not None:
        rows = connection.execute("SELECT version FROM schema_migrations").fetchall()
        applied = {str(row[0]) for row in rows}
    if applied - known.keys():
        raise SchemaNewer
    return [(version, script) for version, script in known.items() if version not in applied]


def connect(dsn: str) -> "psycopg.Connection[tuple[object, ...]]":
    """Open a plain connection; raise DatabaseUnavailable or PostgresTooOld."""
    try:
        connection = psycopg.connect(
            dsn, autocommit=True, connect_timeout=5, application_name="anxin migrate"
        )
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(
            "The database does not answer. Check that it runs and that ANXIN_DATABASE is right."
        ) from error
    if connection.info.server_version < OLDEST_POSTGRES * 10_000:
        connection.close()
        raise PostgresTooOld
    return connection

"""What `anxin doctor` asks a database server about itself."""

import time

import msgspec

from anxin.db.migrate import connect, has_timescale, pending

_UNFENCED = """
    SELECT c.relname FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
      AND NOT (c.relrowsecurity AND c.relforcerowsecurity) AND c.relname !~ '^telemetry'
      AND c.relname NOT IN ('minute_rollup', 'hour_rollup', 'rollup_due')
      AND to_regclass('role_rights') IS NOT NULL
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
    ORDER BY 1
"""

_MIGHTY = """
    SELECT DISTINCT a.application_name FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
    WHERE (r.rolsuper OR r.rolbypassrls) AND a.datname = current_database()
      AND a.application_name ~ '^anxin (api|ingest|worker)' ORDER BY 1
"""


class Server(msgspec.Struct, frozen=True):
    """The facts about a server that decide whether Anxin can work on it."""

    version: str
    timescale: bool
    pending: tuple[str, ...]
    unfenced: tuple[str, ...]
    """Tables without row security in force; readings and their rollups cannot have it."""
    mighty: tuple[str, ...]
    """Services at work whose login passes row security by: a superuser, or with BYPASSRLS."""
    clock_ahead_seconds: float
    """How far the server's clock is ahead of this machine's, half the round trip allowed for."""


def describe(dsn: str) -> Server:
    """Ask the server; raise DatabaseUnavailable, PostgresTooOld or SchemaNewer."""
    with connect(dsn) as connection:
        before = time.time()
        row = connection.execute(
            "SELECT extract(epoch FROM clock_timestamp())::float8,"
            " current_setting('server_version')"
        ).fetchone()
        after = time.time()
        timescale = has_timescale(connection)
        unfenced = connection.execute(_UNFENCED).fetchall()
        mighty = connection.execute(_MIGHTY).fetchall()
    if row is None:
        raise AssertionError("a SELECT without FROM always has a row")
    clock, version = row
    return Server(
        version=str(version),
        timescale=timescale,
        pending=tuple(pending(dsn)),
        unfenced=tuple(str(name) for (name,) in unfenced),
        mighty=tuple(str(name) for (name,) in mighty),
        clock_ahead_seconds=float(str(clock)) - (before + after) / 2,
    )

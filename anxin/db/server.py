"""What `anxin doctor` asks a database server about itself."""

import time

import msgspec

from anxin.db.migrate import connect, has_timescale, pending


class Server(msgspec.Struct, frozen=True):
    """The facts about a server that decide whether Anxin can work on it."""

    version: str
    timescale: bool
    pending: tuple[str, ...]
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
    if row is None:
        raise AssertionError("a SELECT without FROM always has a row")
    clock, version = row
    return Server(
        version=str(version),
        timescale=timescale,
        pending=tuple(pending(dsn)),
        clock_ahead_seconds=float(str(clock)) - (before + after) / 2,
    )

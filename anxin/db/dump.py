"""What a backup asks of a database: one snapshot, what is in it, and who owns it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict

from anxin.archive import Grant, Role, Table
from anxin.db.migrate import connect, scripts
from anxin.db.pool import blocks
from anxin.errors import AnxinError, DatabaseUnavailable

_SQL = blocks("dump")
_VARIABLES = {
    "host": "PGHOST", "hostaddr": "PGHOSTADDR", "port": "PGPORT", "dbname": "PGDATABASE",
    "user": "PGUSER", "password": "PGPASSWORD", "passfile": "PGPASSFILE", "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT", "sslcert": "PGSSLCERT", "sslkey": "PGSSLKEY",
}  # fmt: skip

_DATABASE_RIGHTS: dict[str, LiteralString] = {
    "CONNECT": "CONNECT", "CREATE": "CREATE", "TEMPORARY": "TEMPORARY",
}  # fmt: skip


class NotAllSeen(AnxinError):
    """This database role does not see everything. Use a superuser, or one with BYPASSRLS that may
    read every table.
    """


class Snapshot:
    """The database as it was at one moment, however long one looks at it."""

    def __init__(self, connection: "psycopg.Connection[Any]") -> None:
        """Use a connection that sees everything, in its transaction."""
        self._connection = connection
        self.id: str = self._one("export")[0]
        self.postgres: str = self._one("version")[0]
        self.timescale: bool = self._one("timescale")[0]
        self.bytes: int = self._one("size")[0]

    def schema(self) -> tuple[str, ...]:
        """Return the migrations that were applied; raise AnxinError for a foreign database."""
        if not self._one("migrated")[0]:
            raise AnxinError(
                "This database has no schema of Anxin, so there is nothing to back up."
            )
        return tuple(row[0] for row in self._rows("schema"))

    def roles(self) -> tuple[Role, ...]:
        """Return the roles that own something here, or are granted something, or could be."""
        return tuple(
            Role(name, inherits, bypasses, tuple(member_of))
            for name, inherits, bypasses, member_of in self._rows("roles")
        )

    def grants(self) -> tuple[Grant, ...]:
        """Return the rights on the database itself; of nobody in particular: role ""."""
        return tuple(Grant(role, right) for role, right in self._rows("grants"))

    def tables(self) -> tuple[tuple[str, str], ...]:
        """Return schema and name of every table; partitions belong to their table."""
        return tuple((row[0], row[1]) for row in self._rows("tables"))

    def content(self, table: tuple[str, str]) -> Table:
        """Count a table's rows and add up their digests; the order does not matter."""
        query = sql.SQL(_SQL["content"].decode()).format(sql.Identifier(*table))
        row = self._connection.execute(query).fetchone()
        assert row is not None  # noqa: S101  an aggregate has one row
        return Table(int(row[0]), str(row[1]))

    def _one(self, name: str) -> tuple[Any, ...]:
        (row,) = self._rows(name)
        return row

    def _rows(self, name: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(_SQL[name]).fetchall()


@contextmanager
def snapshot(dsn: str) -> Iterator[Snapshot]:
    """Hold one moment of the database; raise DatabaseUnavailable, NotAllSeen."""
    with connect(dsn) as connection:
        try:
            connection.execute(_SQL["patience"])
            connection.execute(_SQL["no_other_partitions"])
            with connection.transaction():
                connection.execute(_SQL["one_moment"])
                yield Snapshot(connection)
        except errors.InsufficientPrivilege as error:
            raise NotAllSeen from error
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable("The database went away. Begin again.") from error


def known_schema() -> frozenset[str]:
    """Return the migrations that this Anxin knows."""
    return frozenset(scripts(timescale=False))


def is_empty(dsn: str) -> bool:
    """Tell whether a database has no table."""
    with connect(dsn) as connection:
        return not connection.execute(_SQL["tables"]).fetchall()


def ensure_roles(dsn: str, roles: Sequence[Role], grants: Sequence[Grant]) -> None:
    """Make the roles that are missing, without login, and give the rights on the database."""
    with connect(dsn) as connection, connection.transaction():
        there = {row[0] for row in connection.execute(_SQL["role_names"])}
        missing = [role for role in roles if role.name not in there]
        for role in missing:
            statement = sql.SQL("CREATE ROLE {} NOLOGIN {} {}").format(
                sql.Identifier(role.name),
                sql.SQL("INHERIT" if role.inherits else "NOINHERIT"),
                sql.SQL("BYPASSRLS" if role.bypasses_row_security else "NOBYPASSRLS"),
            )
            connection.execute(statement)
        known = there | {role.name for role in missing}
        pairs = [(group, role.name) for role in missing for group in role.member_of]
        for group, member in pairs:
            if group in known:
                grant = sql.SQL("GRANT {} TO {}")
                connection.execute(grant.format(sql.Identifier(group), sql.Identifier(member)))
        for role in roles:
            # Who restores without being a superuser must be able to give things to their owners.
            row = connection.execute(_SQL["may_act_as"], [role.name]).fetchone()
            if row and not row[0]:
                grant = sql.SQL("GRANT {} TO CURRENT_USER")
                connection.execute(grant.format(sql.Identifier(role.name)))
        database = sql.Identifier(connection.info.dbname)
        if grants:
            revoke = sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC")
            connection.execute(revoke.format(database))
        for one in grants:
            give = sql.SQL("GRANT {} ON DATABASE {} TO {}").format(
                sql.SQL(_DATABASE_RIGHTS[one.right]),
                database,
                sql.Identifier(one.role) if one.role else sql.SQL("PUBLIC"),
            )
            connection.execute(give)


def settle(dsn: str) -> None:
    """End every session of the time before, and let the planner know what there is."""
    with connect(dsn) as connection:
        connection.execute(_SQL["end_sessions"])
        connection.execute("ANALYZE")


def environment(dsn: str) -> dict[str, str]:
    """Return how the tools of Postgres are told where to connect: others can read options."""
    parts = conninfo_to_dict(dsn)
    return {
        variable: str(parts[name]) for name, variable in _VARIABLES.items() if parts.get(name)
    } | {"PGAPPNAME": "anxin backup", "PGCONNECT_TIMEOUT": "5", "LC_ALL": "C"}

"""Logins of the services: each can be the role of its service, and nothing else.

A service that acts as its role over a connection of somebody mightier could put the role off again.
"""

import secrets
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from anxin.db.migrate import connect
from anxin.db.pool import blocks
from anxin.errors import AnxinError

_SQL = blocks("logins")


class LoginsImpossible(AnxinError):
    """The database cannot give each service a login of its own."""


def make_logins(dsn: str, roles: Sequence[str], instance: str) -> dict[str, str]:
    """Return by role the DSN of a login of its own, with a new password; raise LoginsImpossible.

    `instance` tells the logins of several installations on one server apart.
    """
    made = {}
    with closing(connect(dsn)) as connection:
        try:
            with connection.transaction():
                for role in roles:
                    made[role] = _login(connection, dsn, role, f"{role}_login_{instance}")
        except errors.InsufficientPrivilege as error:
            user = connection.info.user
            raise LoginsImpossible(
                f"The database user {user} may not make logins for the services. Let a superuser "
                f"say: ALTER ROLE {user} CREATEROLE; GRANT {', '.join(roles)} TO {user} WITH ADMIN "
                "OPTION; or run the services one by one, each with a login that you made "
                "(docs/operations.md)."
            ) from error
    for role, its in made.items():
        _prove(its, role)
    return made


def _login(connection: psycopg.Connection[Any], dsn: str, role: str, name: str) -> str:
    password = secrets.token_urlsafe(32)
    # The server is given what it compares with: the password itself is in no log of statements.
    verifier = connection.pgconn.encrypt_password(
        password.encode(), name.encode(), b"scram-sha-256"
    ).decode()
    exists = connection.execute(_SQL["exists"], [name]).fetchone()
    statement = sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}" if exists else
                        "CREATE ROLE {} LOGIN PASSWORD {}")  # fmt: skip
    connection.execute(statement.format(sql.Identifier(name), sql.Literal(verifier)))
    if not connection.execute(_SQL["belongs"], [role, name]).fetchone():
        grant = sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(name))
        connection.execute(grant)
    return make_conninfo(dsn, user=name, password=password)


def _prove(dsn: str, role: str) -> None:
    """Connect, and see that it is this role only."""
    try:
        connection = psycopg.connect(dsn, connect_timeout=5, application_name="anxin login")
    except psycopg.OperationalError as error:
        raise LoginsImpossible(
            f"The database server does not let in the login that was made for {role}: "
            f"{str(error).strip().splitlines()[-1]}. Allow it in pg_hba.conf (scram-sha-256), or "
            "run the services one by one, each with a login that you made (docs/operations.md)."
        ) from error
    with closing(connection):
        mighty, groups = connection.execute(_SQL["reach"]).fetchone() or (True, [])
        if mighty or groups != [role]:
            name = connection.info.user
            raise LoginsImpossible(
                f"The login {name} reaches more than {role} ({', '.join(groups)}). Let a superuser "
                f"say: DROP ROLE {name}; and start again."
            )

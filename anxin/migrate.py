"""`anxin migrate`: bring the schema of the database up to date, and let somebody in."""

import argparse
from pathlib import Path

from anxin.config import Settings
from anxin.db.migrate import migrate
from anxin.db.users import ensure_user
from anxin.embedded import EmbeddedPostgres


def run(args: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001 - every command's form
    """Apply what is missing and say what it was; an embedded server that rests is woken for it."""
    if settings.database:
        lines = _bring_up(settings.database, settings.admin_password)
    else:
        with EmbeddedPostgres(Path(settings.data_dir), settings.postgres_port) as server:
            lines = _bring_up(server.dsn, settings.admin_password)
    print("\n".join(lines))
    return 0


def _bring_up(dsn: str, admin_password: str) -> list[str]:
    """Migrate, and where services run one by one this is also what makes the first user."""
    lines = [f"applied {version}" for version in migrate(dsn)] or ["the schema is up to date"]
    if admin_password and ensure_user(dsn, "admin", admin_password, "admin"):
        lines.append("created the user admin with the password of ANXIN_ADMIN_PASSWORD")
    return lines

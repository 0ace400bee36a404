"""`anxin migrate`: bring the schema of the database up to date."""

import argparse
from pathlib import Path

from anxin.config import Settings
from anxin.db.migrate import migrate
from anxin.embedded import EmbeddedPostgres


def run(args: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001 - every command's form
    """Apply what is missing and say what it was; an embedded server that rests is woken for it."""
    if settings.database:
        applied = migrate(settings.database)
    else:
        with EmbeddedPostgres(Path(settings.data_dir), settings.postgres_port) as server:
            applied = migrate(server.dsn)
    lines = [f"applied {version}" for version in applied] or ["the schema is up to date"]
    print("\n".join(lines))
    return 0

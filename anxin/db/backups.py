"""That backups were made, and found whole."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from anxin.db.pool import Database, blocks, connect, translated

_SQL: Final = blocks("backups")


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup; `verified_at`: when every byte of it was read again."""

    id: str
    made_at: datetime
    file: str
    bytes: int
    rows: int
    tables: int
    encrypted: bool
    version: str
    verified_at: datetime


async def backups(database: Database, *, limit: int) -> list[Backup]:
    """Return the newest backups, newest first."""
    return [Backup(**row) for row in await database.fetch(_SQL["list"], {"limit": limit})]


async def note_backup(dsn: str, values: dict[str, Any]) -> None:
    """Write down that a backup was made and verified; raise Refused for who may not write it."""
    async with translated(), await connect(dsn, application="anxin backup") as connection:
        await connection.execute(_SQL["note"], values)

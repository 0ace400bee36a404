"""`anxin erase`: one resident goes for good, by decision of whoever operates this machine."""

import argparse
import asyncio
import sys
from typing import Final

from tqdm import tqdm

from anxin.config import Settings
from anxin.db import erasure
from anxin.db.pool import Database
from anxin.db.residents import resident
from anxin.db.scope import EVERYTHING
from anxin.errors import AnxinError, SettingError

_LOOK_SECONDS: Final = 0.5


class NotConfirmed(AnxinError):
    """Nothing was erased."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take whom, and whether to ask."""
    parser.description = (
        "Destroys the resident's key and every row: record, consents, alarms with their timeline, "
        "readings, rollups, events, rejected payloads, relatives' accounts of no further use. "
        "What stays says only that it was done. It can be stopped and goes on when called again. "
        "Backups and the write-ahead log keep what they hold until they expire: see "
        "docs/privacy.md. Over the API two administrators decide; here it is you alone."
    )
    parser.add_argument("--resident", required=True, type=int, metavar="ID")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Ask, erase and say what went."""
    if not settings.database:
        raise SettingError("Set ANXIN_DATABASE, or name the data directory with --data-dir.")
    if not args.yes:
        if not sys.stdin.isatty():
            raise NotConfirmed("Nothing was erased: nobody is there to confirm it. Add --yes.")
        typed = input(f"Type the number {args.resident} again to erase this resident for good: ")
        if typed.strip() != str(args.resident):
            raise NotConfirmed
    for table, count in sorted(asyncio.run(erase(settings.database, args.resident)).items()):
        print(f"{table:<12} {count}")
    print(f"resident {args.resident} is erased")
    return 0


async def erase(dsn: str, resident_id: int) -> dict[str, int]:
    """Erase a resident and return how many rows went by table; raise NotFound."""
    async with Database(dsn, size=1, application="anxin erase") as database:
        erasure_id = await _decided(database, resident_id)
        with tqdm(unit=" rows", disable=not sys.stderr.isatty()) as bar:
            while (swept := await erasure.finished(database, erasure_id)) is None:
                async for rows in erasure.carry_on(database, erasure_id):
                    bar.update(rows)
                # Some seconds lie between the first step and the second.
                await asyncio.sleep(_LOOK_SECONDS)
        return swept


async def _decided(database: Database, resident_id: int) -> int:
    """Return the erasure that is under way already, or a new one."""
    under_way = await erasure.unfinished(database, resident_id)
    if under_way is not None:
        return under_way
    await resident(database, EVERYTHING, resident_id)
    return await erasure.decide(database, resident_id)

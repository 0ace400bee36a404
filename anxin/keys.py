"""`anxin keys`: the data keys of this installation, and their rotation.

The keys lie in one file beside the database, never in it: `data.keys` under the data directory,
made at the first start, or the file that ANXIN_DATA_KEYS_FILE names. Whoever has only one of the
two, the file or a copy of the database, can read no sealed field.
"""

import argparse
import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, get_args

from tqdm import tqdm

from anxin.config import Settings
from anxin.db import accounts, people
from anxin.db.pool import Database
from anxin.errors import SettingError
from anxin.seal import DataKeys, KeyKind, KeysMissing, key_line

FILE: Final = "data.keys"
_HEADER: Final = (
    "# Data keys of Anxin. Without them no ID-card or telephone number can be read again, and no\n"
    "# second factor be used. Keep a copy, not beside the backups of the database. The last one\n"
    "# of each kind is in use.\n"
)
_AT_ONCE: Final = 100
"""People whose keys are wrapped anew in one transaction."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take what is to be done, and what it is done to."""
    parser.description = (
        "list: which keys there are, and how many people depend on each. new: make a key and write "
        "it to the file; restart the API, then rotate. rotate: let the newest keys take over; it "
        "may be stopped and called again. drop: take a key that nobody depends on out of the file."
    )
    parser.add_argument("action", choices=("list", "new", "rotate", "drop"))
    parser.add_argument(
        "kind", nargs="?", choices=get_args(KeyKind), help="of the key; for new all"
    )
    parser.add_argument("id", nargs="?", help="of the key to drop")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do it and say what was done."""
    if args.action == "new":
        path = _path(settings)
        for line in make_keys(path, kinds=(args.kind,) if args.kind else get_args(KeyKind)):
            print(f"{path}: new {line}")
    elif not settings.database:
        raise SettingError("Set ANXIN_DATABASE, or name the data directory with --data-dir.")
    elif args.action == "rotate":
        print(f"{asyncio.run(rotate(settings))} people's keys wrapped anew")
    elif args.action == "list":
        print("\n".join(asyncio.run(_listed(settings))))
    elif args.kind is None or args.id is None:
        raise SettingError("Say which key: anxin keys drop master|index ID.")
    else:
        asyncio.run(_drop(settings, args.kind, args.id))
    return 0


def read_keys(settings: Settings) -> DataKeys:
    """Return the data keys of this installation; raise KeysMissing or SettingError."""
    if settings.data_keys:
        return DataKeys.parse(settings.data_keys)
    try:
        return DataKeys.parse((Path(settings.data_dir) / FILE).read_text("utf-8"))
    except FileNotFoundError as error:
        raise KeysMissing from error
    except OSError as error:
        raise KeysMissing(f"The data keys cannot be read: {error.strerror}.") from error


def ensure_keys(settings: Settings) -> None:
    """Make the file of keys at a first start, unless keys are given some other way."""
    path = Path(settings.data_dir) / FILE
    if not settings.data_keys and not path.exists():
        make_keys(path)


def make_keys(path: Path, kinds: tuple[KeyKind, ...] = get_args(KeyKind)) -> list[str]:
    """Add a fresh key of each kind to a file, made if it is not there; return `kind id` of each.

    Only the owner can read the file, and it is whole at any moment.
    """
    text = path.read_text("utf-8") if path.exists() else _HEADER
    there = [line.split()[1] for line in text.splitlines() if line and not line.startswith("#")]
    lines = [key_line(kind, datetime.now(UTC), there) for kind in kinds]
    _write(path, text + "".join(f"{line}\n" for line in lines))
    return [line.rpartition(" ")[0] for line in lines]


async def rotate(settings: Settings) -> int:
    """Wrap every person's key with the newest master key; return how many were behind.

    The secrets of second factors are sealed anew as well. In small transactions, in order of the
    residents and of the users, so that it goes on where it was stopped.
    """
    keys = read_keys(settings)
    async with Database(settings.database, size=1, application="anxin keys") as database:
        total = sum(
            use.people
            for use in await people.key_uses(database)
            if (use.master_id, use.index_id) != (keys.newest_master, keys.newest_index)
        ) + sum(
            use.people
            for use in await accounts.key_uses(database)
            if use.master_id != keys.newest_master
        )
        done = 0
        with tqdm(total=total, unit=" people", disable=not sys.stderr.isatty()) as bar:
            for stale, anew in (
                (people.stale, people.rewrap),
                (accounts.stale, accounts.reseal),
            ):
                last = 0
                while behind := await stale(database, keys, after=last, limit=_AT_ONCE):
                    renewed = await anew(database, keys, behind)
                    done, last = done + renewed, behind[-1]
                    bar.update(renewed)
    return done


async def missing(settings: Settings) -> list[str]:
    """Return `kind id` of keys that people depend on and that are not there; raise KeysMissing."""
    keys = read_keys(settings)
    there = {*(("master", id_) for id_ in keys.masters), *(("index", id_) for id_ in keys.indexes)}
    return [f"{kind} {id_}" for kind, id_ in sorted((await _uses(settings)).keys() - there)]


async def _uses(settings: Settings) -> dict[tuple[str, str], int]:
    """Return by kind and id how many people depend on a key."""
    found: dict[tuple[str, str], int] = {}
    async with Database(settings.database, size=1, application="anxin keys") as database:
        for use in await people.key_uses(database):
            for key in (("master", use.master_id), ("index", use.index_id)):
                found[key] = found.get(key, 0) + use.people
        for secrets in await accounts.key_uses(database):
            key = ("master", secrets.master_id)
            found[key] = found.get(key, 0) + secrets.people
    return found


async def _listed(settings: Settings) -> list[str]:
    keys, uses = read_keys(settings), await _uses(settings)
    there = [*(("master", id_) for id_ in keys.masters), *(("index", id_) for id_ in keys.indexes)]
    newest = {("master", keys.newest_master), ("index", keys.newest_index)}
    lines = [
        f"{kind:<7} {id_:<12} {uses.get((kind, id_), 0):>7} people"
        f"{'  in use for what is written now' if (kind, id_) in newest else ''}"
        for kind, id_ in there
    ]
    lines += [
        f"{kind:<7} {id_:<12} {count:>7} people  MISSING from the file: add it again"
        for (kind, id_), count in sorted(uses.items())
        if (kind, id_) not in there
    ]
    return lines


async def _drop(settings: Settings, kind: KeyKind, id_: str) -> None:
    path = _path(settings)
    keys = read_keys(settings)
    if id_ == {"master": keys.newest_master, "index": keys.newest_index}[kind]:
        raise SettingError(f"The {kind} key {id_} is in use. First: anxin keys new, rotate.")
    if count := (await _uses(settings)).get((kind, id_)):
        raise SettingError(
            f"{count} people depend on the {kind} key {id_}. First: anxin keys rotate."
        )
    text = path.read_text("utf-8")
    kept = [line for line in text.splitlines() if line.split()[:2] != [kind, id_]]
    if len(kept) == len(text.splitlines()):
        raise SettingError(f"There is no {kind} key {id_} in {path}.")
    _write(path, "".join(f"{line}\n" for line in kept))
    print(f"{path}: without {kind} {id_}")


def _path(settings: Settings) -> Path:
    """Return the file of keys; raise SettingError where they are given as text."""
    if named := os.environ.get("ANXIN_DATA_KEYS_FILE"):
        return Path(named)
    if settings.data_keys:
        raise SettingError("The keys stand in ANXIN_DATA_KEYS: put them into a file, and its name "
                           "into ANXIN_DATA_KEYS_FILE.")  # fmt: skip
    return Path(settings.data_dir) / FILE


def _write(path: Path, text: str) -> None:
    """Replace a private file in one step, on the disk when this returns."""
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

"""`anxin backup`: the whole database in one file, as it was at one moment, while everything runs.

`pg_dump` of the embedded Postgres writes it from a snapshot; from the same snapshot every table's
rows are counted and fingerprinted, so that `anxin restore` can show that nothing is missing.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from signal import SIGTERM
from typing import IO, Final

from tqdm import tqdm

from anxin import archive
from anxin.config import Settings
from anxin.db import dump
from anxin.db.backups import note_backup
from anxin.embedded import EmbeddedPostgres, binaries_directory, leashed
from anxin.errors import AnxinError, SettingError

DATABASE: Final = "database.dump"
KEYS: Final = "keys/"


class ToolFailed(AnxinError):
    """A tool of Postgres failed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `anxin backup` takes beside the settings."""
    parser.add_argument(
        "target", metavar="DIR|FILE", type=Path,
        help="a directory, in which the file is named after the time, or the new file itself",
    )  # fmt: skip
    parser.add_argument(
        "--verify", action="store_true",
        help="make nothing: check every byte of the backup FILE and say what is in it",
    )  # fmt: skip
    parser.add_argument(
        "--passphrase-file", metavar="FILE", type=Path,
        help="encrypt with the first line of this file (AES-256-GCM, scrypt)",
    )  # fmt: skip
    parser.add_argument(
        "--with-keys", metavar="FILE", type=Path,
        help="also take this file of data keys; only into an encrypted backup. Without it a "
        "backup holds encrypted fields that nobody can read who has not kept the keys",
    )  # fmt: skip


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Make a backup, or verify one."""
    passphrase = archive.read_passphrase(args.passphrase_file) if args.passphrase_file else ""
    if args.verify:
        print(verify(args.target, passphrase))
        return 0
    if args.with_keys and not passphrase:
        raise SettingError("Keys go only into an encrypted backup: give a --passphrase-file too.")
    made_at = datetime.now(UTC)
    file = args.target
    if file.is_dir():
        file /= f"anxin-{made_at:%Y%m%dT%H%M%SZ}.backup"
    with ExitStack() as resources:
        dsn = settings.database or _wake(Path(settings.data_dir), settings, resources)
        manifest = back_up(dsn, file, made_at, passphrase, args.with_keys)
        verify(file, passphrase)
        rows = sum(table.rows for table in manifest.tables.values())
        _note(dsn, file, manifest, rows, encrypted=bool(passphrase))
    print(f"{file}: {rows} rows of {len(manifest.tables)} tables, {file.stat().st_size} bytes")
    return 0


def _note(dsn: str, file: Path, manifest: archive.Manifest, rows: int, *, encrypted: bool) -> None:
    """Tell the platform of a backup that is whole, so that its pages can say how old it is."""
    noted = {
        "made_at": manifest.made_at,
        "file": file.name,
        "bytes": file.stat().st_size,
        "rows": rows,
        "tables": len(manifest.tables),
        "encrypted": encrypted,
        "version": manifest.anxin,
        "verified_at": datetime.now(UTC),
    }
    try:
        asyncio.run(note_backup(dsn, noted))
    except AnxinError as error:
        print(f"The backup is whole; that it was made is not noted: {error}", file=sys.stderr)


def back_up(
    dsn: str, file: Path, made_at: datetime, passphrase: str = "", keys: Path | None = None
) -> archive.Manifest:
    """Write the database as it is now to a new file and return what is in it.

    Raises AnxinError when the file is there, and NotAllSeen when this role does not see all rows.
    """
    with dump.snapshot(dsn) as moment:
        if moment.timescale:
            raise AnxinError(
                "This database uses TimescaleDB, of which this command makes no backup. Use "
                "continuous archiving: docs/backup.md says how."
            )
        schema, roles, grants = moment.schema(), moment.roles(), moment.grants()
        try:
            with archive.create(file, made_at, passphrase) as writer:
                if keys:
                    writer.add(KEYS + keys.name, [keys.read_bytes()])
                with _bar("Writing", moment.bytes) as advance:
                    writer.add(DATABASE, _counted(_dumped(dsn, moment.id), advance))
                names = moment.tables()
                tables = {
                    ".".join(name): moment.content(name)
                    for name in tqdm(names, "Counting", unit=" tables", disable=None, leave=False)
                }
                manifest = archive.Manifest(
                    format=archive.FORMAT,
                    made_at=made_at,
                    anxin=_version(),
                    postgres=moment.postgres,
                    schema=schema,
                    roles=roles,
                    grants=grants,
                    tables=tables,
                    members=writer.members,
                )
                writer.finish(manifest)
        except OSError as error:
            raise AnxinError(f"{error.filename or file}: {error.strerror}.") from error
    return manifest


def verify(file: Path, passphrase: str = "") -> str:
    """Check every byte of a backup and return one line about it; raise Damaged or AnxinError."""
    with checked(file, passphrase) as backup:
        manifest = backup.manifest
        # As far as one can go without a server: every statement and row is read and unpacked.
        _feed("pg_restore", ["--file=/dev/null"], {}, backup.parts(DATABASE))
    rows = sum(table.rows for table in manifest.tables.values())
    keys = ", with data keys" if any(name.startswith(KEYS) for name in manifest.members) else ""
    return (
        f"{file}: whole. Made {manifest.made_at:%Y-%m-%d %H:%M:%S} UTC by Anxin {manifest.anxin} "
        f"from PostgreSQL {manifest.postgres}, schema {manifest.schema[-1]}, {rows} rows{keys}"
    )


@contextmanager
def checked(file: Path, passphrase: str = "") -> Iterator[archive.Reader]:
    """Open a backup whose every byte was checked and whose schema this Anxin knows."""
    size = file.stat().st_size if file.exists() else 0
    with ExitStack() as resources:
        with _bar("Checking", size) as advance:
            backup = resources.enter_context(archive.read(file, passphrase, advance))
        newer = sorted(set(backup.manifest.schema) - dump.known_schema())
        if newer:
            raise AnxinError(
                f"This backup was made by a newer Anxin ({backup.manifest.anxin}, schema "
                f"{newer[-1]}) than this one. Install that version."
            )
        yield backup


def put_back(dsn: str, backup: archive.Reader) -> None:
    """Write a backup into an empty database in one transaction, and compare every table.

    Raises AnxinError when the database is not empty, or holds something else afterwards.
    """
    if not dump.is_empty(dsn):
        raise AnxinError("The database is not empty. A backup is never restored over anything.")
    manifest = backup.manifest
    dump.ensure_roles(dsn, manifest.roles, manifest.grants)
    where = dump.environment(dsn)
    options = ["--single-transaction", "--exit-on-error", f"--dbname={where['PGDATABASE']}"]
    with _bar("Restoring", manifest.members[DATABASE].bytes) as advance:
        _feed("pg_restore", options, where, _counted(backup.parts(DATABASE), advance))
    with dump.snapshot(dsn) as moment:
        found = {
            ".".join(name): moment.content(name)
            for name in tqdm(
                moment.tables(), "Comparing", unit=" tables", disable=None, leave=False
            )
        }
    different = sorted(
        name
        for name in found.keys() | manifest.tables.keys()
        if found.get(name) != manifest.tables.get(name)
    )
    if different:
        raise AnxinError(f"What was restored is not what was backed up: {', '.join(different)}.")


def _wake(directory: Path, settings: Settings, resources: ExitStack) -> str:
    """Start the embedded server of a platform that rests, for as long as it takes."""
    if not (directory / "postgres").exists():
        raise SettingError(f"There is no database in {directory}. Name one with --data-dir.")
    return resources.enter_context(EmbeddedPostgres(directory, settings.postgres_port)).dsn


def _dumped(dsn: str, snapshot: str) -> Iterator[bytes]:
    """Yield what pg_dump writes."""
    command = ["--format=custom", "--compress=gzip:4", f"--snapshot={snapshot}"]
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(  # noqa: S603  our own program, no shell
            leashed([str(binaries_directory() / "pg_dump"), *command], SIGTERM),
            env=dump.environment(dsn),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=words,
        )
        with process:
            assert process.stdout is not None  # noqa: S101  it is a pipe
            try:
                while part := process.stdout.read(archive.CHUNK_BYTES):
                    yield part
            except BaseException:
                process.terminate()
                raise
        if process.returncode != 0:
            raise _failed("pg_dump", words)


def _feed(
    name: str, options: list[str], environment: Mapping[str, str], content: Iterable[bytes]
) -> None:
    """Run a program on a content; raise ToolFailed with its first complaint."""
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(  # noqa: S603  our own program, no shell
            leashed([str(binaries_directory() / name), *options], SIGTERM),
            env={"LC_ALL": "C", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=words,
        )
        assert process.stdin is not None  # noqa: S101  it is a pipe
        with process:
            try:
                for part in content:
                    process.stdin.write(part)
                process.stdin.close()
            except BrokenPipeError:
                # It has failed already; its exit code and its words say why.
                process.wait()
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            raise _failed(name, words)


def _failed(name: str, words: IO[bytes]) -> ToolFailed:
    """Return the first complaint only: what follows may quote rows."""
    words.seek(0)
    lines = words.read().decode(errors="replace").splitlines()
    return ToolFailed(next((line for line in lines if "error:" in line), f"{name} failed."))


def _counted(parts: Iterable[bytes], advance: archive.Progress) -> Iterator[bytes]:
    for part in parts:
        advance(len(part))
        yield part


@contextmanager
def _bar(what: str, total_bytes: int) -> Iterator[archive.Progress]:
    """Show progress where a person is watching."""
    with tqdm(
        desc=what, total=total_bytes, unit="B", unit_scale=True, disable=None, leave=False,
        file=sys.stderr,
    ) as bar:  # fmt: skip
        yield bar.update


def _version() -> str:
    try:
        return metadata.version("anxin")
    except metadata.PackageNotFoundError:
        # Run from a clone, which is put on the path and not installed.
        return "0.1.0"

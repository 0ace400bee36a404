"""`anxin restore`: a backup into a new data directory, or into an empty database of your own."""

import argparse
import shutil
import tempfile
from pathlib import Path

from anxin import archive
from anxin.backup import KEYS, checked, put_back
from anxin.config import Settings
from anxin.db import dump
from anxin.db.migrate import migrate
from anxin.embedded import EmbeddedPostgres, write_private
from anxin.errors import AnxinError, SettingError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `anxin restore` takes beside the settings."""
    parser.add_argument("file", metavar="FILE", type=Path, help="what `anxin backup` wrote")
    parser.add_argument(
        "--passphrase-file", metavar="FILE", type=Path, help="the passphrase it was encrypted with"
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Restore into --data-dir when it is given, else into the database of the settings."""
    passphrase = archive.read_passphrase(args.passphrase_file) if args.passphrase_file else ""
    if args.data_dir is not None:
        restore_directory(args.file, Path(args.data_dir), passphrase)
        print(f"restored into {args.data_dir}; `anxin up --data-dir {args.data_dir}` serves it")
    elif settings.database:
        restore_database(args.file, settings.database, passphrase)
        print("restored into the database")
    else:
        raise SettingError("Say where: a new --data-dir, or an empty ANXIN_DATABASE.")
    print(
        "Everybody logs in anew. Repeat by hand what was revoked, withdrawn or erased since the "
        "backup was made: devices, users, consents, residents."
    )
    return 0


def restore_directory(file: Path, directory: Path, passphrase: str = "") -> None:
    """Make a data directory from a backup; it appears only when every table was compared.

    Raises AnxinError when the directory holds anything.
    """
    directory = directory.absolute()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise AnxinError(f"{directory} is not empty. A backup is never restored over anything.")
    with checked(file, passphrase) as backup:
        directory.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
        building.chmod(0o711)
        try:
            with EmbeddedPostgres(building) as server:
                put_back(server.dsn, backup)
                migrate(server.dsn)
                dump.settle(server.dsn)
            for name in backup.manifest.members:
                if name.startswith(KEYS):
                    content = b"".join(backup.parts(name))
                    write_private(building / Path(name).name, content.decode().rstrip("\n"))
            building.rename(directory)
        except BaseException:
            cluster = building / "postgres"
            if cluster.is_symlink():
                # It stands where the server's user can reach it.
                shutil.rmtree(cluster.resolve().parent)
            shutil.rmtree(building)
            raise


def restore_database(file: Path, dsn: str, passphrase: str = "") -> None:
    """Write a backup into an empty database; in one transaction, so all of it or nothing."""
    with checked(file, passphrase) as backup:
        put_back(dsn, backup)
        migrate(dsn)
        dump.settle(dsn)

"""The console command `anxin`: each command by name, its module loaded only when it is called.

A module offers `run(args, settings) -> int`, and `add_arguments(parser)` where it has options of
its own. A command whose module is not installed is not offered.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module, util
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import structs

from anxin.config import read_settings
from anxin.embedded import served_dsn
from anxin.errors import AnxinError, SettingError
from anxin.logs import set_up_logs

OPTIONS: Final = {
    "data_dir": ("DIR", "where everything is kept (ANXIN_DATA_DIR, default data)"),
    "http": ("HOST:PORT", "address of pages and API (ANXIN_HTTP, default 127.0.0.1:8080)"),
    "mqtt": ("HOST:PORT", "address for devices (ANXIN_MQTT, default 127.0.0.1:1883)"),
    "database": (
        "DSN",
        "an external Postgres (better in ANXIN_DATABASE_FILE: others can read options)",
    ),
}
"""Options that override a setting of the same name."""


class Command(NamedTuple):
    """One command: the module that runs it, one line, a few lines, the settings it overrides."""

    module: str
    summary: str
    text: str
    options: tuple[str, ...] = ()


COMMANDS: Final = {
    "up": Command(
        "anxin.stack",
        "run every service on this machine",
        "Starts the database (embedded, unless a DSN is given), the MQTT listener, the API with "
        "its pages and the worker as one supervised process tree, and prints one line "
        "`ready http=... mqtt=...` when it serves. A service that dies is started again. Ctrl-C "
        "ends everything cleanly, a second Ctrl-C at once. The first start creates the user "
        "admin, with the password of ANXIN_ADMIN_PASSWORD or a generated one, shown once.",
        ("data_dir", "http", "mqtt", "database"),
    ),
    "demo": Command(
        "anxin.demo",
        "run everything with simulated residents",
        "Like `anxin up`, with a demonstration facility, demo users and simulated devices. Prints "
        "the addresses and the logins; later starts on the same data directory show the same.",
        ("data_dir", "http", "mqtt", "database"),
    ),
    "ingest": Command(
        "ingest.main",
        "take readings and emergencies from devices over MQTT",
        "One MQTT listener: commits what devices send, judges it, and only then acknowledges. "
        "Several may run behind one port.",
        ("data_dir", "mqtt", "database"),
    ),
    "bridge": Command(
        "ingest.bridge",
        "take the same topics from an existing MQTT broker",
        "Subscribes to a broker of yours and commits what arrives, acknowledged after the commit.",
        ("data_dir", "database"),
    ),
    "api": Command(
        "api.main",
        "serve the API, the live stream and the pages",
        "One HTTP server. Several may run behind one reverse proxy.",
        ("data_dir", "http", "database"),
    ),
    "worker": Command(
        "models.worker",
        "score, notice silence, escalate, deliver, keep the database tidy",
        "The part that works by the clock. Several may run; they share the work.",
        ("data_dir", "database"),
    ),
    "migrate": Command(
        "anxin.migrate",
        "bring the database schema up to date",
        "Applies what is missing, each step in a transaction of its own. Safe to repeat, and safe "
        "while services run.",
        ("data_dir", "database"),
    ),
    "doctor": Command(
        "anxin.doctor",
        "check dependencies, settings, database and clocks",
        "Says in plain words what is wrong and what to do about it. Exit code 1 with any fault.",
        ("data_dir", "http", "mqtt", "database"),
    ),
    "backup": Command(
        "anxin.backup",
        "write the whole database into one file, while everything runs",
        "Writes one file with everything that the database holds at this moment, encrypted where "
        "a passphrase is given, and reads it back. It appears only when it is whole, and never "
        "over another one. Needs a database role that sees every row.",
        ("data_dir", "database"),
    ),
    "restore": Command(
        "anxin.restore",
        "make a data directory, or fill an empty database, from a backup",
        "Checks every byte of the backup, restores it into a new --data-dir (or into the empty "
        "database of the settings) and compares every table with what was backed up. Nothing is "
        "ever restored over anything.",
        ("data_dir", "database"),
    ),
    "audit": Command(
        "anxin.audit_command",
        "verify or export who did and saw what",
        "`anxin audit verify` finds what was changed, removed, added or moved in the audit since "
        "it was written; `anxin audit export` writes it to a file that can be verified elsewhere.",
        ("data_dir", "database"),
    ),
    "keys": Command(
        "anxin.keys",
        "list, make and rotate the keys that seal ID-card and telephone numbers",
        "The data keys of this installation.",
        ("data_dir", "database"),
    ),
    "export": Command(
        "anxin.export",
        "write everything that is stored about one resident into a ZIP file",
        "JSON, readings as CSV and a FHIR R4 Bundle, for the person or for another system.",
        ("data_dir", "database"),
    ),
    "erase": Command(
        "anxin.erase",
        "erase one resident for good",
        "Destroys the person's key and every row about this resident. It cannot be undone.",
        ("data_dir", "database"),
    ),
    "simulate": Command(
        "device_sim.main",
        "simulated devices over MQTT",
        "People with a daily rhythm, and the devices around them, as real MQTT clients.",
    ),
    "replay": Command(
        "device_sim.replay",
        "send a recording as devices over MQTT",
        "Sends the rows of a CSV or Parquet file as readings of devices.",
    ),
    "train": Command(
        "models.train",
        "fit the risk models",
        "Fits the risk models and writes them with their version and their score.",
        ("data_dir", "database"),
    ),
    "evaluate": Command(
        "models.evaluate",
        "score the risk models",
        "Scores the risk models on data that they have not seen and reports.",
        ("data_dir", "database"),
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong call or setting."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    args = parser_for(words).parse_args(words)
    try:
        return _run(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of a pipe has seen enough; keep the interpreter from complaining at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except AnxinError as error:
        sys.stderr.write(f"anxin: {error}\n")
        return 2 if isinstance(error, SettingError) else 1


def parser_for(words: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of these words; only the command that they name is loaded."""
    parser = argparse.ArgumentParser(
        prog="anxin",
        description="Anxin 安心: an open smart elder-care platform.",
        epilog="`anxin COMMAND --help` explains each. Settings: ANXIN_* variables, see "
        "docs/operations.md.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    named = next((word for word in words if not word.startswith("-")), None)
    for name, command in COMMANDS.items():
        if util.find_spec(command.module) is None:
            continue
        child = commands.add_parser(name, help=command.summary, description=command.text)
        for option in command.options:
            metavar, text = OPTIONS[option]
            child.add_argument(f"--{option.replace('_', '-')}", metavar=metavar, help=text)
        if name == named:
            add_arguments = getattr(import_module(command.module), "add_arguments", None)
            if add_arguments is not None:
                add_arguments(child)
    return parser


def _run(args: argparse.Namespace) -> int:
    command = COMMANDS[args.command]
    settings = read_settings(**{option: getattr(args, option) for option in command.options})
    set_up_logs(settings.log_level, service=args.command)
    if not settings.database and args.command not in ("up", "demo", "restore"):
        # Beside a running `anxin up`, the other commands work on its database.
        settings = structs.replace(settings, database=served_dsn(Path(settings.data_dir)))
    return int(import_module(command.module).run(args, settings))


if __name__ == "__main__":
    sys.exit(main())

"""`anxin audit`: verify the chain, or write it to a file that can be verified elsewhere.

An export is JSON Lines: first where it begins and the public keys, then one link a line.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from tqdm import tqdm

from anxin.audit import Check, Head, Keys, Link
from anxin.audit_files import (
    heads_before_restores,
    heads_path,
    kept_heads,
    keys,
    parsed,
    set_heads_aside,
    signer,
    written_public,
)
from anxin.config import Settings
from anxin.db.audit import (
    RESTORE,
    note_restore,
    stored_checkpoint,
    stored_counts,
    stored_links,
    stored_span,
)
from anxin.errors import AnxinError


class Tampered(AnxinError):
    """The audit was tampered with."""


class NoExport(AnxinError):
    """This file is not an export of the audit."""


class Opening(msgspec.Struct, tag_field="type", tag="anxin audit 1"):
    """The first line of an export: what its first link follows, and who vouches for it."""

    exported_at: datetime
    public_keys: str
    after: int
    hash: bytes


_opening = msgspec.json.Decoder(Opening)
_link = msgspec.json.Decoder(Link)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`verify` and `export`, with what each needs."""
    actions = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    verify = actions.add_parser(
        "verify",
        help="find what was changed, removed, added or moved; exit code 1 if anything was",
        description="Goes through the whole chain and names the first entry that is not as it was "
        "written. The heads that the worker keeps outside the database prove a cut end.",
    )
    verify.add_argument(
        "--file", type=Path, metavar="FILE", help="an export instead of the database"
    )
    verify.add_argument(
        "--heads", type=Path, metavar="FILE",
        help="heads kept outside the database (default: audit/heads.jsonl in the data directory)",
    )  # fmt: skip
    verify.add_argument(
        "--public-key", metavar="KEYS",
        help="what seals are checked with (default: our own key; needed with --file elsewhere)",
    )  # fmt: skip
    actions.add_parser(
        "restored",
        help="say that a backup was restored: the chain goes on from where it ends now",
        description="Verifies what is there, writes into the audit what was lost with the restore, "
        "and puts the heads that were kept before aside. The worker then goes on.",
    )
    export = actions.add_parser(
        "export", help="write the chain to a file", description="Writes the chain as JSON Lines."
    )
    export.add_argument("file", type=Path, metavar="FILE", help="a new file; - is standard output")
    for name, text in (("--from", "first day or time"), ("--to", "day or time after the last")):
        export.add_argument(name, type=_moment, metavar="TIME", help=f"{text}, ISO 8601, UTC")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do it; raise Tampered, SettingError, DatabaseUnavailable."""
    if args.what == "export":
        return _export(args, settings)
    if args.what == "restored":
        return _restored(settings)
    if args.file is not None:
        return _verify_file(args)
    return _verify_database(args, settings)


def _verify_database(args: argparse.Namespace, settings: Settings) -> int:
    ours = keys(settings, args.public_key)
    path = args.heads or heads_path(settings)
    # Before the chain is read: what is chained meanwhile is no fault.
    known = [*kept_heads(path), *(() if args.heads else heads_before_restores(settings))]
    count, stuck, newest = stored_counts(settings.database)
    check = Check(ours, stored_checkpoint(settings.database), known)
    restores = Restores(stored_links(settings.database))
    _go_through(check, restores, count)
    lines = [_told(check, newest), *restores.told]
    if not known:
        lines.append(f"No heads at {path}: a cut end could not be noticed. Give --heads.")
    if stuck:
        lines.append(
            f"{stuck} entries wait since over five minutes to be chained: does the worker run?"
        )
    print("\n".join(lines))
    return 1 if stuck else 0


def _verify_file(args: argparse.Namespace) -> int:
    with args.file.open("rb") as lines:
        try:
            opening = _opening.decode(next(lines, b""))
        except msgspec.MsgspecError as error:
            raise NoExport(f"{args.file} is not an export of the audit: {error}.") from error
        given = args.public_key or opening.public_keys
        known = [] if args.heads is None else list(kept_heads(args.heads))
        after = Head(opening.after, opening.hash)
        check = Check(Keys(parsed(given, "--public-key")), None, known, after=after)
        restores = Restores(_lines(args.file, lines))
        _go_through(check, restores, None)
    print("\n".join([_told(check, None), *restores.told]))
    if args.public_key is None:
        print("The keys are those that the file itself names: compare them with --public-key.")
    return 0


def _restored(settings: Settings) -> int:
    """Let the chain go on after a restore; raise Tampered where more than its end is missing."""
    ours = keys(settings)
    count, _, _ = stored_counts(settings.database)
    end = stored_span(settings.database, from_=None, to=None).last
    known = list(kept_heads(heads_path(settings)))
    lost = max((one.place for one in known), default=0)
    check = Check(
        ours, stored_checkpoint(settings.database), [one for one in known if one.place <= end]
    )
    _go_through(check, stored_links(settings.database, upto=end), count)
    if lost <= end:
        print(f"Nothing is lost: the heads that were kept end at place {lost}, the audit at {end}.")
        return 0
    note_restore(settings.database, end, lost)
    aside = set_heads_aside(settings, end, lost)
    print(
        f"The audit goes on after place {end}. Places {end + 1} to {lost} were lost; the heads "
        f"that prove it stand in {aside}. 审计从第 {end} 条后继续，其后至第 {lost} 条已丢失。"
    )
    return 0


class Restores:
    """Passes links on, and keeps what they tell of restores."""

    def __init__(self, links: Iterable[Link]) -> None:
        """Take links in order."""
        self._links = links
        self.told: list[str] = []

    def __iter__(self) -> Iterator[Link]:
        """Yield each link."""
        for link in self._links:
            entry = link.entry
            if (entry.action, entry.object) == RESTORE:
                self.told.append(
                    f"{entry.at:%Y-%m-%d %H:%M:%S} UTC: a backup was restored, and places "
                    f"{entry.object_id} of before were lost. 恢复备份，此前的这些条目已丢失。"
                )
            yield link


def _export(args: argparse.Namespace, settings: Settings) -> int:
    span = stored_span(settings.database, from_=getattr(args, "from"), to=args.to)
    opening = Opening(
        datetime.now(UTC), written_public(signer(settings)), span.after.place, span.after.hash
    )
    with ExitStack() as stack:
        if str(args.file) == "-":
            out = sys.stdout.buffer
        else:
            try:
                out = stack.enter_context(args.file.open("xb"))
            except OSError as error:
                raise NoExport(f"{args.file} cannot be written: {error.strerror}.") from error
        out.write(msgspec.json.encode(opening) + b"\n")
        links = stored_links(settings.database, after=span.after.place, upto=span.last)
        for link in _watched(links, span.last - span.after.place):
            out.write(msgspec.json.encode(link) + b"\n")
    sys.stderr.write(f"{span.last - span.after.place} entries written.\n")
    return 0


def _go_through(check: Check, links: Iterable[Link], count: int | None) -> None:
    for link in _watched(links, count):
        if not check.take(link):
            break
    fault = check.finish()
    if fault is not None:
        number = "" if fault.entry_id is None else f", entry {fault.entry_id}"
        raise Tampered(
            f"the audit is not as it was written: first at place {fault.place}{number}: "
            f"{fault.en}. 审计记录被改动：{fault.zh}。"
        )


def _watched(links: Iterable[Link], count: int | None) -> Iterator[Link]:
    """Yield the links, with a progress bar when a person is watching."""
    bar: Iterable[Link] = tqdm(
        links, total=count, unit=" entries", unit_scale=True, disable=not sys.stderr.isatty()
    )
    yield from bar


def _lines(path: Path, lines: Iterable[bytes]) -> Iterator[Link]:
    for number, line in enumerate(lines, start=2):
        try:
            yield _link.decode(line)
        except msgspec.MsgspecError as error:
            raise Tampered(f"line {number} of {path} is not an entry: {error}.") from error


def _told(check: Check, newest: datetime | None) -> str:
    until = "" if newest is None else f", the newest of {newest:%Y-%m-%d %H:%M:%S} UTC"
    return (
        f"The audit is as it was written: {check.entries} entries up to place {check.head.place}"
        f"{until}. 审计记录完整。"
    )


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

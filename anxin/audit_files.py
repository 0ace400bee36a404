"""What the audit keeps outside the database: the key that seals, and the heads sealed so far.

Under `data_dir`/audit, readable by the services' user only:

    key             the key, made at the first start where ANXIN_AUDIT_KEY is empty
    trusted         public keys of those that sealed before it, one a line; nobody needs to make it
    heads.jsonl     one head a line, one a minute: what proves a cut end
    heads-….jsonl   those before a restore, named after where it ended and how far they had come
"""

import base64
import binascii
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from anxin.audit import Keys, Sealed, Signer
from anxin.config import Settings
from anxin.errors import SettingError

KEY_BYTES: Final = 32
_line = msgspec.json.Decoder(Sealed)


def signer(settings: Settings) -> Signer:
    """Return the key that seals, made now if there is none; raise SettingError."""
    text = settings.audit_key
    if not text:
        path = _directory(settings) / "key"
        if not path.exists():
            with suppress(FileExistsError):
                # Written beside and linked: nobody ever reads half a key, and the first one stays.
                _write_once(path, _written(secrets.token_bytes(KEY_BYTES)))
        text = _read(path)
    trusted = _path(settings) / "trusted"
    before = _read(trusted).split() if trusted.exists() else []
    return Signer(_key(text, "ANXIN_AUDIT_KEY"), [_key(one, str(trusted)) for one in before])


def keys(settings: Settings, given: str | None = None) -> Keys:
    """Return the public keys to check with: those given, or those of our own key."""
    if given:
        return Keys(parsed(given, "--public-key"))
    if not settings.audit_key and not (_path(settings) / "key").exists():
        raise SettingError(
            "There is no key to check the audit with. Set ANXIN_AUDIT_KEY_FILE, point --data-dir "
            "at the worker's directory, or give --public-key."
        )
    return signer(settings).keys


def parsed(text: str, name: str) -> list[bytes]:
    """Return the keys of a text, 32 bytes each; raise SettingError with the name of the text."""
    return [_key(part, name) for part in text.split(",")]


def written_public(one: Signer) -> str:
    """Return the public keys the way `--public-key` takes them."""
    return ",".join(_written(key) for key in one.public)


def keep_head(settings: Settings, sealed: Sealed) -> None:
    """Add a head to the file, and see it to the disk."""
    path = _directory(settings) / "heads.jsonl"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        # A crash may have cut the last line short: what follows begins a line of its own.
        cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, b"\n" * cut + msgspec.json.encode(sealed) + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def kept_heads(path: Path) -> Iterator[Sealed]:
    """Yield the heads of a file; a line that a crash cut short is passed over.

    Somebody who cuts lines on purpose only takes away what could have told on them; that the file
    goes far enough back is for its reader to see.
    """
    if not path.exists():
        return
    with path.open("rb") as lines:
        for line in lines:
            with suppress(msgspec.MsgspecError):
                yield _line.decode(line)


def heads_path(settings: Settings) -> Path:
    """Return where heads are kept."""
    return _path(settings) / "heads.jsonl"


def last_head(settings: Settings) -> Sealed | None:
    """Return the last head that was kept, if any."""
    return max(kept_heads(heads_path(settings)), key=lambda one: one.place, default=None)


def set_heads_aside(settings: Settings, end: int, lost: int) -> Path:
    """Put the heads aside that a restore to place `end` has left behind; return where they are."""
    aside = _path(settings) / f"heads-{end}-{lost}.jsonl"
    heads_path(settings).rename(aside)
    return aside


def heads_before_restores(settings: Settings) -> Iterator[Sealed]:
    """Yield the heads put aside that stand for what is still there."""
    for path in sorted(_path(settings).glob("heads-*-*.jsonl")):
        end = path.stem.split("-")[1]
        if end.isdigit():
            yield from (one for one in kept_heads(path) if one.place <= int(end))


def _path(settings: Settings) -> Path:
    return Path(settings.data_dir) / "audit"


def _directory(settings: Settings) -> Path:
    directory = _path(settings)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError(
            f"{directory} cannot be made: {error.strerror}. Choose another --data-dir."
        ) from error
    return directory


def _write_once(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, text.encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(draft, path)
    finally:
        draft.unlink()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} cannot be read: {error}.") from error


def _key(text: str, name: str) -> bytes:
    try:
        key = base64.urlsafe_b64decode(text.strip() + "=" * (-len(text.strip()) % 4))
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise SettingError(f"{name} is not 32 bytes in base64url; make one with: openssl rand "
                           "-base64 32 | tr '+/' '-_'.")  # fmt: skip
    return key


def _written(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).decode().rstrip("=")

"""The file of a backup: a ZIP that seals itself, in an encrypted envelope where that is wanted.

A ZIP, so that it can be opened without Anxin on the day when nothing else is left. Its comment is
`sha256:` and the digest of every byte before those 64 digits, so no bit of the file can change
unnoticed. The envelope (docs/backup.md gives it byte by byte) is AES-256-GCM in chunks: a changed,
missing, added or exchanged chunk is noticed, and any place can be read without the rest.
"""

import hashlib
import io
import os
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final, Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from anxin.errors import AnxinError

FORMAT: Final = 1
CHUNK_BYTES: Final = 1 << 16
SHORTEST_PASSPHRASE: Final = 12

_MANIFEST: Final = "manifest.json"
_MAGIC: Final = b"anxin-backup-1\n"
_HEADER: Final = struct.Struct(">15s B B B 16s 7s")
"""Magic, log2 of scrypt's N, its r and p, salt, first seven bytes of every nonce."""
_SCRYPT_LOG2_N, _SCRYPT_R, _SCRYPT_P = 17, 8, 1
_TAG_BYTES: Final = 16
_END_OF_ZIP_BYTES: Final = 22
_SEAL: Final = b"sha256:"
_DIGEST_DIGITS: Final = 64


class Damaged(AnxinError):
    """The backup is damaged. Use another one."""


class WrongPassphrase(AnxinError):
    """The passphrase does not fit this backup."""


class Member(msgspec.Struct, frozen=True):
    """One file inside a backup."""

    bytes: int
    sha256: str


class Table(msgspec.Struct, frozen=True):
    """What a table held: its rows, and a sum over the digests of all of them, in any order."""

    rows: int
    fingerprint: str


class Role(msgspec.Struct, frozen=True):
    """A database role that the backup's owners, grants and policies name; never a password."""

    name: str
    inherits: bool
    bypasses_row_security: bool
    member_of: tuple[str, ...]


class Grant(msgspec.Struct, frozen=True):
    """A right on the database itself, which a dump of its content does not carry."""

    role: str
    right: str


class Manifest(msgspec.Struct, frozen=True):
    """What is in a backup, and what a restored database must be compared with."""

    format: int
    made_at: datetime
    anxin: str
    postgres: str
    schema: tuple[str, ...]
    """The migrations that had been applied."""
    roles: tuple[Role, ...]
    grants: tuple[Grant, ...]
    """On the database; none means that everybody may connect, as it is by default."""
    tables: dict[str, Table]
    members: dict[str, Member]


Progress = Callable[[int], object]
"""Told how many bytes were just read or written."""


class Writer:
    """An open backup that is being written: add files, then finish with the manifest."""

    def __init__(self, archive: zipfile.ZipFile, made_at: datetime) -> None:
        """Write into `archive`."""
        self._archive = archive
        self._time = made_at.astimezone(UTC).timetuple()[:6]
        self.members: dict[str, Member] = {}

    def add(self, name: str, parts: Iterable[bytes]) -> None:
        """Add one file from its parts, as they come."""
        digest, size = hashlib.sha256(), 0
        with self._archive.open(zipfile.ZipInfo(name, self._time), "w", force_zip64=True) as file:
            for part in parts:
                digest.update(part)
                size += len(part)
                file.write(part)
        self.members[name] = Member(size, digest.hexdigest())

    def finish(self, manifest: Manifest) -> None:
        """Add the manifest, which comes last because it names the digests of the others."""
        text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
        self._archive.writestr(zipfile.ZipInfo(_MANIFEST, self._time), text)


@contextmanager
def create(file: Path, made_at: datetime, passphrase: str = "") -> Iterator[Writer]:
    """Write a backup at `file`, which appears only when all of it is on the disk.

    Raises AnxinError when something of this name is there already.
    """
    if file.exists():
        raise AnxinError(f"{file} exists already. A backup is never written over another one.")
    building = file.with_name(f".{file.name}.{os.getpid()}.partial")
    descriptor = os.open(building, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as output:
            envelope = _Envelope(output, passphrase) if passphrase else None
            seal = _Seal(envelope or output)
            with zipfile.ZipFile(seal, "w") as archive:
                yield Writer(archive, made_at)
            seal.finish()
            if envelope is not None:
                envelope.finish()
            output.flush()
            os.fsync(descriptor)
        try:
            # Of two backups of this name at the same time one finds the other here.
            file.touch(mode=0o600, exist_ok=False)
        except FileExistsError as error:
            raise AnxinError(f"{file} has come up in the meantime. Choose another name.") from error
        building.replace(file)
        _sync_directory(file.parent)
    finally:
        building.unlink(missing_ok=True)


class Reader:
    """An open backup, its whole content checked: its manifest and the files in it."""

    def __init__(self, archive: zipfile.ZipFile, manifest: Manifest) -> None:
        """Read from `archive`."""
        self._archive = archive
        self.manifest = manifest

    def parts(self, name: str) -> Iterator[bytes]:
        """Yield a file's content; raise Damaged when it is not what the manifest says."""
        digest = hashlib.sha256()
        with self._archive.open(name) as file:
            while part := file.read(CHUNK_BYTES):
                digest.update(part)
                yield part
        if digest.hexdigest() != self.manifest.members[name].sha256:
            raise Damaged


@contextmanager
def read(file: Path, passphrase: str = "", progress: Progress = lambda _: None) -> Iterator[Reader]:
    """Open a backup and check every byte of it before anything else is done with it.

    Raises Damaged, WrongPassphrase, or AnxinError when it is encrypted and there is no passphrase,
    or the other way round: whoever expects an encrypted file must not be given a plain one.
    """
    try:
        raw = file.open("rb")
    except OSError as error:
        raise AnxinError(f"{file} cannot be read: {error.strerror}.") from error
    with raw:
        encrypted = raw.read(len(_MAGIC)) == _MAGIC
        raw.seek(0)
        if encrypted and not passphrase:
            raise AnxinError(f"{file} is encrypted. Name its passphrase with --passphrase-file.")
        if passphrase and not encrypted:
            raise AnxinError(
                f"{file} is not encrypted, so nobody knows who wrote it. Leave out "
                "--passphrase-file only if you trust where it comes from."
            )
        with (
            io.BufferedReader(_Opened(raw, passphrase), CHUNK_BYTES) if encrypted else raw as plain
        ):
            _check_seal(plain, progress)
            plain.seek(0)
            try:
                with zipfile.ZipFile(plain) as archive:
                    manifest = _manifest(archive)
                    reader = Reader(archive, manifest)
                    for name in manifest.members:
                        for _ in reader.parts(name):
                            pass
                    yield reader
            except (zipfile.BadZipFile, KeyError) as error:
                raise Damaged from error


def read_passphrase(file: Path) -> str:
    """Return the first line of a file; raise AnxinError when it is missing or too short."""
    try:
        passphrase = file.read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AnxinError(f"The passphrase file {file} cannot be read: {error}.") from error
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise AnxinError(
            f"The passphrase in {file} is shorter than {SHORTEST_PASSPHRASE} characters. "
            "`openssl rand -base64 24` makes a good one."
        )
    return passphrase


def _manifest(archive: zipfile.ZipFile) -> Manifest:
    try:
        content = archive.read(_MANIFEST)
        head = msgspec.json.decode(content, type=dict[str, object])
        if head.get("format") != FORMAT:
            raise AnxinError(
                "This backup was made by a newer Anxin than this one. Install that version."
            )
        return msgspec.json.decode(content, type=Manifest)
    except msgspec.DecodeError as error:
        raise Damaged from error


def _check_seal(plain: IO[bytes], progress: Progress) -> None:
    """Read everything and compare the digest at the end."""
    size = plain.seek(0, os.SEEK_END)
    if size < _END_OF_ZIP_BYTES + len(_SEAL) + _DIGEST_DIGITS:
        raise Damaged("This is no backup, or only the beginning of one. Use another one.")
    plain.seek(0)
    digest, left = hashlib.sha256(), size - _DIGEST_DIGITS
    part = b""
    tail = b""
    while left:
        part = plain.read(min(left, CHUNK_BYTES))
        if not part:
            raise Damaged
        tail = (tail + part)[-len(_SEAL) :]
        digest.update(part)
        left -= len(part)
        progress(len(part))
    if tail != _SEAL:
        raise Damaged("This is no backup of Anxin, or its end is missing. Use another one.")
    if plain.read() != digest.hexdigest().encode():
        raise Damaged


class _Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


class _Seal:
    """Passes a ZIP on, and puts the digest of all of it into its comment.

    The end of a ZIP without comment is a record of fixed length, held back until it is known.
    """

    def __init__(self, output: _Sink) -> None:
        self._output = output
        self._digest = hashlib.sha256()
        self._held = b""

    def write(self, data: bytes) -> int:
        held = self._held + bytes(data)
        self._pass(held[:-_END_OF_ZIP_BYTES])
        self._held = held[-_END_OF_ZIP_BYTES:]
        return len(data)

    def flush(self) -> None:
        """Nothing can be hurried: the end is held back on purpose."""

    def close(self) -> None:
        """The output below is closed by whoever opened it."""

    def finish(self) -> None:
        comment_bytes = len(_SEAL) + _DIGEST_DIGITS
        self._pass(self._held[:-2] + struct.pack("<H", comment_bytes) + _SEAL)
        self._output.write(self._digest.hexdigest().encode())

    def _pass(self, data: bytes) -> None:
        self._digest.update(data)
        self._output.write(data)


class _Envelope:
    """Encrypts what is written, chunk by chunk; `finish` marks the last one as the last."""

    def __init__(self, output: _Sink, passphrase: str) -> None:
        self._output = output
        self._prefix = os.urandom(7)
        salt = os.urandom(16)
        cost = (_SCRYPT_LOG2_N, _SCRYPT_R, _SCRYPT_P)
        self._header = _HEADER.pack(_MAGIC, *cost, salt, self._prefix)
        self._cipher = AESGCM(_derive(passphrase, salt, *cost))
        self._held = bytearray()
        self._number = 0
        output.write(self._header)

    def write(self, data: bytes) -> int:
        self._held += data
        # One full chunk stays: only a later one shows that it is not the last.
        while len(self._held) > CHUNK_BYTES:
            self._encrypt(bytes(self._held[:CHUNK_BYTES]), last=False)
            del self._held[:CHUNK_BYTES]
        return len(data)

    def finish(self) -> None:
        self._encrypt(bytes(self._held), last=True)

    def _encrypt(self, chunk: bytes, *, last: bool) -> None:
        nonce = _nonce(self._prefix, self._number, last=last)
        self._output.write(self._cipher.encrypt(nonce, chunk, self._header))
        self._number += 1


class _Opened(io.RawIOBase):
    """An envelope read as if it were plain, at any place; raises Damaged or WrongPassphrase."""

    def __init__(self, file: IO[bytes], passphrase: str) -> None:
        super().__init__()
        self._file = file
        self._header = file.read(_HEADER.size)
        if len(self._header) < _HEADER.size:
            raise Damaged
        _, log2_n, r, p, salt, self._prefix = _HEADER.unpack(self._header)
        if not (10 <= log2_n <= 20 and 1 <= r <= 16 and 1 <= p <= 4):
            # More would let a forged header take all memory.
            raise Damaged
        self._cipher = AESGCM(_derive(passphrase, salt, log2_n, r, p))
        body = file.seek(0, os.SEEK_END) - _HEADER.size
        self._chunks = -(-body // (CHUNK_BYTES + _TAG_BYTES))
        self._size = body - self._chunks * _TAG_BYTES
        self._position = 0
        self._number = -1
        self._chunk = b""
        self._load(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # any buffer does
        if self._position >= self._size:
            return 0
        number, begin = divmod(self._position, CHUNK_BYTES)
        self._load(number)
        part = self._chunk[begin : begin + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def _load(self, number: int) -> None:
        if number == self._number:
            return
        self._file.seek(_HEADER.size + number * (CHUNK_BYTES + _TAG_BYTES))
        sealed = self._file.read(CHUNK_BYTES + _TAG_BYTES)
        nonce = _nonce(self._prefix, number, last=number == self._chunks - 1)
        try:
            self._chunk = self._cipher.decrypt(nonce, sealed, self._header)
        except (InvalidTag, ValueError) as error:
            if number == 0:
                raise WrongPassphrase(
                    "The passphrase does not fit this backup, or the beginning of the file is "
                    "damaged."
                ) from error
            raise Damaged from error
        self._number = number


def _nonce(prefix: bytes, number: int, *, last: bool) -> bytes:
    return prefix + struct.pack(">IB", number, last)


def _derive(passphrase: str, salt: bytes, log2_n: int, r: int, p: int) -> bytes:
    return Scrypt(salt=salt, length=32, n=1 << log2_n, r=r, p=p).derive(passphrase.encode())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

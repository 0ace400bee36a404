"""Sealed fields: single values that only who has the keys can read, and find. Pure.

    master key  --wraps-->  a person's own key  --seals-->  each field of that person
    index key   --hashes with its purpose-->  the blind index by which a value is found

Who destroys a person's key destroys what it sealed, in every copy that lacks the master key's file.
Everything sealed is AES-256-GCM with a random nonce, and bound to its key and its place: a sealed
value that is moved to another row, column or person does not open.
"""

import base64
import binascii
import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Final, Literal, Self, get_args
from uuid import UUID, uuid4

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from anxin.errors import AnxinError, SettingError

KEY_BYTES: Final = 32
INDEX_BYTES: Final = 16
"""Enough that two values never meet by chance; half a hash less to compare and to keep."""
_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12
_ID_BYTES: Final = 16

KeyKind = Literal["master", "index"]


class KeysMissing(AnxinError):
    """There are no data keys. Set ANXIN_DATA_KEYS_FILE to the file that `anxin keys new` makes."""


class KeyUnknown(AnxinError):
    """This was sealed with a key that the file of data keys does not hold. Add the key again."""


class SealBroken(AnxinError):
    """A sealed field does not open: it was changed, moved, or sealed with another key."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed value stands; it opens nowhere else."""

    table: str
    column: str
    row: str

    def bound(self, key: bytes) -> bytes:
        """Return what is authenticated along with a value: the format, its key and its place."""
        parts = (_VERSION, key, *(part.encode() for part in (self.table, self.column, self.row)))
        return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


@dataclass(frozen=True, slots=True)
class PersonKey:
    """The key of one person's fields."""

    id: UUID
    key: bytes = field(repr=False)

    @classmethod
    def new(cls) -> Self:
        """Return a fresh one."""
        return cls(uuid4(), secrets.token_bytes(KEY_BYTES))

    def seal(self, text: str, place: Place) -> bytes:
        """Return a text sealed for its place: version, key id, nonce, ciphertext with its tag."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = AESGCM(self.key).encrypt(nonce, text.encode(), place.bound(self.id.bytes))
        return _VERSION + self.id.bytes + nonce + sealed

    def open(self, sealed: bytes, place: Place) -> str:
        """Return the text of a sealed value; raise SealBroken."""
        start = len(_VERSION) + _ID_BYTES
        nonce, rest = sealed[start : start + _NONCE_BYTES], sealed[start + _NONCE_BYTES :]
        if sealed[:start] != _VERSION + self.id.bytes:
            raise SealBroken
        try:
            return AESGCM(self.key).decrypt(nonce, rest, place.bound(self.id.bytes)).decode()
        except (InvalidTag, ValueError) as error:
            raise SealBroken from error


@dataclass(frozen=True, slots=True)
class DataKeys:
    """The keys of this installation by kind and id, oldest first; the newest of each writes."""

    masters: Mapping[str, bytes] = field(repr=False)
    indexes: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read lines of `kind id key`, as `key_line` writes them; raise SettingError."""
        found: dict[str, dict[str, bytes]] = {kind: {} for kind in get_args(KeyKind)}
        for number, line in enumerate(text.splitlines(), 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if len(words) != 3 or words[0] not in found:
                raise SettingError(f"Data keys, line {number}: this is not `master|index id key`.")
            kind, id_, encoded = words
            try:
                key = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError):
                key = b""
            if len(key) != KEY_BYTES:
                raise SettingError(
                    f"Data keys, line {number}: a key is {KEY_BYTES} bytes in base64."
                )
            if id_ in found[kind]:
                raise SettingError(f"Data keys, line {number}: the id {id_} is there twice.")
            found[kind][id_] = key
        if not all(found.values()):
            raise SettingError("Data keys: at least one master and one index key are needed.")
        return cls(found["master"], found["index"])

    @property
    def newest_master(self) -> str:
        """The id of the master key that wraps what is written now."""
        return list(self.masters)[-1]

    @property
    def newest_index(self) -> str:
        """The id of the index key that is written now."""
        return list(self.indexes)[-1]

    def wrap(self, key: PersonKey, resident_id: int) -> tuple[str, bytes]:
        """Return the id of the newest master key, and a person's key wrapped with it."""
        master = self.newest_master
        return master, self._shut(master, key.key, _wrapping(master, key.id, resident_id))

    def unwrap(self, master: str, id_: UUID, wrapped: bytes, resident_id: int) -> PersonKey:
        """Return a person's key; raise KeyUnknown or SealBroken."""
        return PersonKey(id_, self._opened(master, wrapped, _wrapping(master, id_, resident_id)))

    def seal(self, value: bytes, place: Place) -> tuple[str, bytes]:
        """Return the id of the newest master key, and a value sealed with it for its place.

        For what belongs to no resident, so that no person's key seals it.
        """
        master = self.newest_master
        return master, self._shut(master, value, place.bound(master.encode()))

    def open(self, master: str, sealed: bytes, place: Place) -> bytes:
        """Return a value that a master key has sealed; raise KeyUnknown or SealBroken."""
        return self._opened(master, sealed, place.bound(master.encode()))

    def _shut(self, master: str, value: bytes, bound: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + AESGCM(self.masters[master]).encrypt(nonce, value, bound)

    def _opened(self, master: str, sealed: bytes, bound: bytes) -> bytes:
        if master not in self.masters:
            raise KeyUnknown(
                f"This was sealed with the master key {master}, which the file of data keys does "
                "not hold. Add that key again."
            )
        try:
            return AESGCM(self.masters[master]).decrypt(
                sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound
            )
        except (InvalidTag, ValueError) as error:
            raise SealBroken from error

    def index(self, purpose: str, value: str) -> bytes:
        """Return the blind index of a normalised value, as it is written now."""
        return _index(self.indexes[self.newest_index], purpose, value)

    def candidates(self, purpose: str, value: str) -> list[bytes]:
        """Return every index under which a value may stand, also while keys are rotated."""
        return [_index(key, purpose, value) for key in self.indexes.values()]


def key_line(kind: KeyKind, now: datetime, others: Iterable[str] = ()) -> str:
    """Return the line of a fresh key; its id is the day of its birth."""
    id_ = day = now.strftime("%Y%m%d")
    number = 1
    while id_ in others:
        number += 1
        id_ = f"{day}-{number}"
    return f"{kind} {id_} {base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}"


def _wrapping(master: str, id_: UUID, resident_id: int) -> bytes:
    return Place("person_keys", "wrapped", str(resident_id)).bound(id_.bytes) + master.encode()


def _index(key: bytes, purpose: str, value: str) -> bytes:
    return hmac.digest(key, f"{purpose}\0{value}".encode(), sha256)[:INDEX_BYTES]

"""The audit's chain: who did or saw what, each entry bound to all before it; pure.

An entry's hash is SHA-256 over the hash before it and its own content, so whoever changes, removes,
adds or moves an entry must compute every later hash anew. The heads of the chain are signed with a
key that the database does not have, so computing anew does not help. `Check` finds what was done.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that somebody did or was shown.

    `path` is the place of who did it, `residents` whom it is about, `fields` the names of what
    changed (never the values), `status` the answer of HTTP if it was a request.
    """

    id: int
    at: datetime
    user_id: int | None = None
    role: str | None = None
    path: str | None = None
    action: str
    object: str
    object_id: str | None = None
    residents: tuple[int, ...] = ()
    fields: tuple[str, ...] = ()
    status: int | None = None
    channel: str | None = None
    address: str | None = None

    def content(self) -> bytes:
        """Return what its hash is taken over: every field in the order above, as JSON."""
        at_us = (self.at - _EPOCH) // timedelta(microseconds=1)
        return msgspec.json.encode([at_us if name == "at" else getattr(self, name)
                                    for name in self.__struct_fields__])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Head:
    """How far a chain has come: the number of its last entry, counted from 1, and its hash."""

    place: int
    hash: bytes

    def then(self, entry: Entry) -> "Head":
        """Return the head after one entry more."""
        place = self.place + 1
        content = b"%d\n%b" % (place, entry.content())
        return Head(place, hashlib.sha256(self.hash + content).digest())


START: Final = Head(0, hashlib.sha256(b"anxin audit 1").digest())
"""Where every chain begins."""


class Sealed(msgspec.Struct, frozen=True):
    """A head and its signature: what is kept outside the database."""

    at: datetime
    place: int
    hash: bytes
    seal: bytes

    @property
    def head(self) -> Head:
        """The head that was sealed."""
        return Head(self.place, self.hash)


class Checkpoint(msgspec.Struct, frozen=True):
    """Says that everything up to a head was old enough to be removed, the newest from `until`."""

    place: int
    hash: bytes
    until: datetime
    seal: bytes

    @property
    def head(self) -> Head:
        """The head that what is left begins after."""
        return Head(self.place, self.hash)


class Link(msgspec.Struct, frozen=True):
    """An entry in its place; the last one of those that were linked together has a seal."""

    place: int
    entry: Entry
    hash: bytes
    seal: bytes | None = None


class Keys:
    """The public keys that heads are checked with."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Take 32 bytes each."""
        self._keys = [Ed25519PublicKey.from_public_bytes(key) for key in keys]

    def vouch_for(self, head: Head, seal: bytes) -> bool:
        """Tell whether one of the keys has sealed this head."""
        return self._signed(seal, _message(b"head", head))

    def vouch_for_removal(self, one: Checkpoint) -> bool:
        """Tell whether one of the keys has sealed this checkpoint."""
        return self._signed(one.seal, _message(b"checkpoint", one.head, one.until))

    def _signed(self, seal: bytes, message: bytes) -> bool:
        for key in self._keys:
            try:
                key.verify(seal, message)
            except InvalidSignature:
                continue
            return True
        return False


class Signer:
    """The key that seals, and the public keys that its seals and those before it are checked by."""

    def __init__(self, secret: bytes, trusted: Sequence[bytes] = ()) -> None:
        """Take 32 secret bytes, and the public keys of those that sealed before."""
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.public = [self._key.public_key().public_bytes_raw(), *trusted]
        self.keys = Keys(self.public)

    def seal(self, head: Head) -> bytes:
        """Return the signature of a head."""
        return self._key.sign(_message(b"head", head))

    def seal_removal(self, head: Head, until: datetime) -> Checkpoint:
        """Return the checkpoint that stands for everything up to a head."""
        seal = self._key.sign(_message(b"checkpoint", head, until))
        return Checkpoint(head.place, head.hash, until, seal)


def chain(head: Head, entries: Iterable[Entry], signer: Signer) -> list[Link]:
    """Return the entries as links after a head, the last one sealed."""
    links = []
    for entry in entries:
        head = head.then(entry)
        links.append(Link(head.place, entry, head.hash))
    if links:
        links[-1] = msgspec.structs.replace(links[-1], seal=signer.seal(head))
    return links


Deed = Literal["changed", "removed", "added", "moved", "cut", "recomputed", "removal", "keys"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done to a chain, at the first entry where it shows."""

    deed: Deed
    place: int
    entry_id: int | None
    zh: str
    en: str


class Check:
    """Goes through a chain link by link, and stops at the first fault."""

    def __init__(
        self,
        keys: Keys,
        checkpoint: Checkpoint | None = None,
        known: Iterable[Sealed] = (),
        *,
        after: Head = START,
    ) -> None:
        """Begin after a head or a checkpoint; `known` heads were kept elsewhere and must be met."""
        self.fault: Fault | None = None
        self.sealed = START.place
        self.entries = 0
        self._keys = keys
        self._head = checkpoint.head if checkpoint else after
        if checkpoint and not keys.vouch_for_removal(checkpoint):
            self._found("removal", checkpoint.place, None,
                        "检查点的签名不符：较早的条目被非正常删除",
                        "the checkpoint's seal is not ours: what it covers was not removed by "
                        "retention")  # fmt: skip
        self._sealed_head = self._head
        self._known = sorted(known, key=lambda one: one.place, reverse=True)
        for one in self._known:
            if not keys.vouch_for(one.head, one.seal):
                self._found("keys", one.place, None,
                            "链外保存的链头签名不符：文件被改动，或密钥不对",
                            "the seal of a head kept outside is not ours: that file was changed, "
                            "or this is another key")  # fmt: skip
        self._meet_known()

    @property
    def head(self) -> Head:
        """How far the chain was found good."""
        return self._head

    def take(self, link: Link) -> bool:
        """Check the next link; return False when there is nothing more to check after a fault."""
        if self.fault:
            return False
        expected = self._head.then(link.entry)
        if link.place != expected.place:
            self._misplaced(link, expected.place)
        elif link.hash != expected.hash:
            self._altered(link)
        elif link.seal is not None and not self._keys.vouch_for(expected, link.seal):
            self._resealed(link)
        else:
            self._head = expected
            self.entries += 1
            if link.seal is not None:
                self._sealed_head = expected
                self.sealed = expected.place
            self._meet_known()
        return self.fault is None

    def finish(self) -> Fault | None:
        """Say what is wrong once every link was taken: the end may be missing, or be too long."""
        if self.fault is None and self._known:
            one = self._known[-1]
            self._found("cut", self._head.place + 1, None,
                        f"链尾缺失：链外保存的链头在第 {one.place} 条，数据库只到第 "
                        f"{self._head.place} 条",
                        f"the end is missing: a head kept outside stands at place {one.place}, "
                        f"the database ends at {self._head.place}")  # fmt: skip
        if self.fault is None and self._head != self._sealed_head:
            place = self._sealed_head.place + 1
            self._found("added", place, None,
                        f"第 {place} 条起没有签名：不是由平台写入，或其后被截断",
                        f"from place {place} on nothing is sealed: added by something else than "
                        "the platform, or cut off behind")  # fmt: skip
        return self.fault

    def _meet_known(self) -> None:
        while self._known and self._known[-1].place <= self._head.place:
            one = self._known.pop()
            if one.place == self._head.place and one.hash != self._head.hash:
                self._found("recomputed", one.place, None,
                            f"第 {one.place} 条与链外保存的链头不同：其前的内容被重新计算",
                            f"place {one.place} differs from the head kept outside: something "
                            "before it was changed and the hashes computed anew")  # fmt: skip

    def _misplaced(self, link: Link, expected: int) -> None:
        if link.place > expected:
            self._found("removed", expected, None,
                        f"第 {expected} 至 {link.place - 1} 条缺失",
                        f"places {expected} to {link.place - 1} are missing")  # fmt: skip
        else:
            # One of the two is not ours: which, only a seal could say.
            self._found("moved", self._sealed_head.place + 1, link.entry.id,
                        f"第 {link.place} 条出现在第 {expected} 条应在的位置",
                        f"place {link.place} stands where {expected} should")  # fmt: skip

    def _altered(self, link: Link) -> None:
        self._found("changed", link.place, link.entry.id,
                    f"第 {link.place} 条（编号 {link.entry.id}）的内容或顺序与其散列值不符",
                    f"place {link.place} (entry {link.entry.id}) does not match its hash: it was "
                    "changed, added or moved")  # fmt: skip

    def _resealed(self, link: Link) -> None:
        first = self._sealed_head.place + 1
        self._found("recomputed", first, None,
                    f"第 {link.place} 条的签名不符：第 {first} 条起的内容被重新计算，或密钥不对",
                    f"the seal at place {link.place} is not ours: from place {first} on the hashes "
                    "were computed anew, or this is another key")  # fmt: skip

    def _found(self, deed: Deed, place: int, entry_id: int | None, zh: str, en: str) -> None:
        if self.fault is None:
            self.fault = Fault(deed, place, entry_id, zh, en)


def _message(label: bytes, head: Head, until: datetime | None = None) -> bytes:
    moment = b"" if until is None else b"%d" % ((until - _EPOCH) // timedelta(microseconds=1))
    return b"anxin audit %b 1\n%d\n%b%b" % (label, head.place, head.hash, moment)

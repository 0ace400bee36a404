"""What ingest knows of devices: credentials, whose they are, limits, and what came last."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from psycopg.rows import DictRow

from anxin.db.pool import Database, blocks

_SQL = blocks("registry")


class Card(msgspec.Struct, frozen=True):
    """A device with its present assignment and its newest values."""

    key: int
    id: str
    kind: str
    salt: bytes
    secret_hash: bytes
    revoked: bool
    resident_id: int | None
    place_id: int | None
    fall_risk: bool
    wander_risk: bool
    spo2_scale: int
    limits: dict[str, float]
    metrics: dict[str, tuple[Any, int]] | None
    absent_since: datetime | None
    present_since: datetime | None
    active_at: datetime | None
    old_salt: bytes | None
    old_secret_hash: bytes | None
    old_until: datetime | None
    certificates_from: datetime | None

    @property
    def subject(self) -> str:
        """Whom an alarm of this device is about: the resident, else the place, else itself."""
        if self.resident_id is not None:
            return f"r{self.resident_id}"
        return f"d{self.key}" if self.place_id is None else f"p{self.place_id}"


class Key(msgspec.Struct, frozen=True, array_like=True):
    """What opens the door to a device."""

    key: int
    id: str
    salt: bytes
    secret_hash: bytes
    old_salt: bytes | None
    old_secret_hash: bytes | None
    old_until: datetime | None
    certificates_from: datetime | None
    gateway_key: int | None


class Link(msgspec.Struct, frozen=True):
    """A device and the gateway that may speak for it, if any."""

    key: int
    id: str
    gateway_key: int | None


class Arrival(msgspec.Struct, frozen=True):
    """From what network a device connected, with what TLS, with a certificate good until when."""

    key: int
    network: str
    tls: str
    certificate_until: datetime | None


async def keys(db: Database, most: int) -> list[Key]:
    """Return the keys of up to `most` devices that are not revoked."""
    rows = await db.fetch(_SQL["keys"], {"most": most})
    return [Key(**row) for row in rows]


async def cards_by_id(db: Database, ids: Sequence[str]) -> list[Card]:
    """Return the cards of the devices of these ids; unknown ids are left out."""
    return _cards(await db.fetch(_SQL["cards_by_id"], {"ids": list(ids)}))


async def cards_by_key(db: Database, keys: Sequence[int]) -> list[Card]:
    """Return the cards of the devices of these numbers."""
    return _cards(await db.fetch(_SQL["cards_by_key"], {"keys": list(keys)}))


async def links(db: Database, keys: Sequence[int]) -> list[Link]:
    """Return these devices and all that stand behind them; revoked ones stand behind nobody."""
    return [Link(**row) for row in await db.fetch(_SQL["links"], {"keys": list(keys)})]


async def end_overlap(db: Database, key: int, secret_hash: bytes) -> None:
    """End the time of the old secret, unless the present one was renewed meanwhile."""
    await db.execute(_SQL["end_overlap"], {"key": key, "secret_hash": secret_hash})


async def note_arrivals(db: Database, arrivals: Sequence[Arrival]) -> None:
    """Keep these, sorted by key; devices that are gone are left out."""
    await db.execute(
        _SQL["note_arrivals"],
        {
            "keys": [one.key for one in arrivals],
            "networks": [one.network for one in arrivals],
            "tls": [one.tls for one in arrivals],
            "untils": [one.certificate_until for one in arrivals],
        },
    )


async def open_alarms(db: Database, subjects: Sequence[str]) -> list[DictRow]:
    """Return subject, kind, priority and raised_at of episodes whose condition is present."""
    return await db.fetch(_SQL["open_alarms"], {"subjects": list(subjects)})


async def recent_telemetry(db: Database, keys: Sequence[int]) -> list[DictRow]:
    """Return the last minutes of the metrics that live rules look at, by device and time."""
    return await db.fetch(_SQL["recent_telemetry"], {"keys": list(keys)})


async def changes_since(db: Database, horizon: str) -> tuple[list[int], str]:
    """Return the devices changed by transactions from `horizon` on, and the next horizon.

    The horizon is the oldest transaction still running at the last look, so a late commit is
    never passed by; a change may be told twice.
    """
    row = await db.fetch_one(_SQL["changes_since"], {"since": horizon})
    assert row is not None  # noqa: S101  a query without FROM has one row
    return list(row["keys"] or ()), str(row["horizon"])


def _cards(rows: Sequence[DictRow]) -> list[Card]:
    return [msgspec.convert(row, Card) for row in rows]

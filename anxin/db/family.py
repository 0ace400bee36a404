"""What a relative is told beside state and values, and when it does not want to be disturbed."""

from dataclasses import dataclass
from datetime import datetime, time

from anxin.db.alarms import alarm
from anxin.db.consents import Giver, How
from anxin.db.pool import Database, blocks
from anxin.db.residents import resident
from anxin.db.scope import Scope


@dataclass(frozen=True, slots=True)
class Station:
    """Whom a relative calls; both are None where no place on the way up has a telephone."""

    name: str | None
    phone: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """One step in answering an alarm; `role` is of who took it, None for the platform itself."""

    at: datetime
    change: str
    role: str | None


@dataclass(frozen=True, slots=True)
class OwnConsent:
    """What a resident allows this relative to see, by whose word, and until when."""

    resident_id: str
    scopes: list[str]
    given_by: Giver
    relation: str | None
    how: How
    given_at: datetime
    until_at: datetime | None
    withdrawn_at: datetime | None
    in_force: bool


@dataclass(frozen=True, slots=True)
class QuietHours:
    """Local times between which only what is urgent comes, or None; `only_urgent`: at any time."""

    from_: time | None
    until: time | None
    only_urgent: bool


async def station(database: Database, scope: Scope, resident_id: int) -> Station:
    """Return the nearest place of a resident that can be called; raise NotFound."""
    await resident(database, scope, resident_id)
    row = await database.fetch_one(blocks("family")["station"], {"id": resident_id})
    return Station(**row) if row else Station(None, None)


async def answers(database: Database, scope: Scope, alarm_id: int) -> list[Answer]:
    """Return what was done about an alarm, oldest first, without names; raise NotFound."""
    await alarm(database, scope, alarm_id)
    rows = await database.fetch(blocks("family")["answers"], {"id": alarm_id})
    return [Answer(**row) for row in rows]


async def own_consents(database: Database, user_id: int) -> list[OwnConsent]:
    """Return every consent that lets, or let, this relative see something, the newest first."""
    rows = await database.fetch(blocks("family")["consents"], {"user_id": user_id})
    return [OwnConsent(**row) for row in rows]


async def quiet_hours(database: Database, user_id: int) -> QuietHours:
    """Return when a relative does not want to be disturbed."""
    row = await database.fetch_one(blocks("family")["quiet"], {"user_id": user_id})
    if row is None:
        return QuietHours(None, None, only_urgent=False)
    return QuietHours(row["from_"], row["until_"], only_urgent=row["only_urgent"])


async def choose_quiet_hours(database: Database, user_id: int, chosen: QuietHours) -> None:
    """Keep when a relative does not want to be disturbed."""
    await database.execute(
        blocks("family")["choose_quiet"],
        {
            "user_id": user_id,
            "from": chosen.from_,
            "until": chosen.until,
            "only_urgent": chosen.only_urgent,
        },
    )

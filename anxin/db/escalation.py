"""Timers of alarms: which came due, what is done about them, and the watchdog over all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from anxin.alarms import fault_subject
from anxin.db.pool import Database, blocks
from anxin.db.roster import everybody, path_places
from anxin.escalation import Ladder, People, Plan, Timer, Where

_SQL = blocks("escalation")


@dataclass(frozen=True, slots=True)
class Due:
    """A timer that came due, and where its alarm is."""

    timer: Timer
    where: Where
    fault_place: int | None
    """Where a fault is raised when nobody is reached; None when the alarm tells of just that."""


async def clock(database: Database) -> datetime:
    """Return the database's time, by which every timer goes."""
    row = await database.fetch_one(_SQL["clock"])
    assert row is not None  # noqa: S101  a query without FROM has one row
    now: datetime = row["now"]
    return now


async def due(
    database: Database, now: datetime, *, limit: int
) -> tuple[list[Due], Sequence[Ladder], People]:
    """Return timers that came due, high priority first, with the ladders and people they need."""
    rows = await database.fetch(_SQL["due"], {"now": now, "limit": limit})
    if not rows:
        return [], [], People()
    places = {place for row in rows for place in path_places(row["path"])}
    residents = {row["resident_id"] for row in rows if row["resident_id"] is not None}
    ladders, people, families = await everybody(database, places, residents, now)
    found = [
        Due(
            msgspec.convert(row, Timer),
            Where(
                path_places(row["path"]),
                families.get(row["resident_id"], ()),
                at_home=row["at_home"],
            ),
            None if row["tells_of_this"] else row["fault_place"],
        )
        for row in rows
    ]
    return found, ladders, people


async def next_due_seconds(database: Database) -> float | None:
    """Return in how many seconds the next timer comes due; None when none will."""
    row = await database.fetch_one(_SQL["next_due"])
    return row["seconds"] if row else None


async def carry_out(database: Database, plans: Sequence[Plan]) -> frozenset[int]:
    """Carry out plans and return the alarms whose plan still held.

    Timers, deliveries and lines of the timeline of one alarm are written together or not at all.
    """
    if not plans:
        return frozenset()
    row = await database.fetch_one(
        _SQL["carry_out"], {"plans": msgspec.json.encode(plans).decode()}
    )
    return frozenset(row["done"]) if row else frozenset()


async def rescue(database: Database) -> int:
    """Give a timer back to alarms that have neither timer nor owner; return how many had not."""
    row = await database.fetch_one(_SQL["rescue"])
    return int(row["rescued"]) if row else 0


async def tell_unreachable(
    database: Database, unreachable: Sequence[int], reachable: Sequence[int]
) -> None:
    """Raise, once per place, that nobody can be reached there, and end it where somebody was."""
    for name, told in (("raise_unreachable", unreachable), ("recover_reachable", reachable)):
        if told:
            places = sorted(set(told))
            subjects = [fault_subject(place, "nobody_reachable") for place in places]
            await database.fetch(_SQL[name], {"places": places, "subjects": subjects})


async def overdue_seconds(database: Database) -> float:
    """Return by how much the latest timer is late now."""
    row = await database.fetch_one(_SQL["overdue"])
    return float(row["seconds"]) if row else 0.0

"""Visits and services: for what somebody of the station came to a resident, or will."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from anxin.db.pool import Database, blocks
from anxin.db.residents import resident
from anxin.db.scope import Scope
from anxin.errors import NotFound

VisitKind = Literal[
    "visit", "meal", "bath", "medical", "cleaning", "rehabilitation", "errand", "other"
]


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit; `at` is when it began, or will."""

    id: str
    resident_id: str
    kind: VisitKind
    at: datetime
    minutes: int | None
    note: str
    recorded_at: datetime


async def visits(
    database: Database,
    scope: Scope,
    resident_id: int,
    *,
    before: tuple[datetime, int] | None,
    limit: int,
) -> list[Visit]:
    """Return the visits to a resident, the latest first; raise NotFound.

    `before` is the `at` and `id` of the visit after which the list goes on.
    """
    if resident_id not in scope.residents:
        await resident(database, scope, resident_id)
    at, id_ = before or (None, None)
    rows = await database.fetch(
        blocks("visits")["list"],
        {"resident_id": resident_id, "at": at, "before": id_, "limit": limit},
    )
    return [Visit(**row) for row in rows]


async def record_visit(
    database: Database,
    scope: Scope,
    resident_id: int,
    *,
    kind: VisitKind,
    at: datetime,
    minutes: int | None,
    note: str,
    by: int,
) -> Visit:
    """Write down a visit; raise NotFound."""
    await resident(database, scope, resident_id)
    row = await database.fetch_one(
        blocks("visits")["record"],
        {
            "resident_id": resident_id,
            "kind": kind,
            "at": at,
            "minutes": minutes,
            "note": note,
            "by": by,
        },
    )
    assert row is not None  # noqa: S101  INSERT ... RETURNING gives a row or raises
    return Visit(**row)


async def remove_visit(database: Database, scope: Scope, resident_id: int, visit_id: int) -> None:
    """Take away a visit that was written down by mistake; raise NotFound."""
    await resident(database, scope, resident_id)
    parameters = {"resident_id": resident_id, "id": visit_id}
    if not await database.execute(blocks("visits")["remove"], parameters):
        raise NotFound(f"There is no visit {visit_id} to this resident.")

"""Residents, what their state is made of, and their events."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal

from psycopg.types.json import Jsonb

from anxin.db.pool import Database, blocks
from anxin.db.scope import Scope
from anxin.errors import NotFound

Sex = Literal["female", "male", "unknown"]


@dataclass(frozen=True, slots=True)
class Resident:
    """One resident as staff sees them."""

    id: str
    name: str
    sex: Sex
    born: date | None
    place_id: str
    care_level: int | None
    fall_risk: bool
    wander_risk: bool
    spo2_scale: int
    limits: dict[str, float]
    note: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Signs:
    """What a resident's state is judged by.

    `devices`: per assigned device
    `[assigned, heard or None, {metric: [value, ms]} or None, how it is heard]`;
    `alarms`: per alarm not closed `[priority, class, condition, raised]`; epoch seconds.
    """

    id: int
    path: str
    at: datetime
    devices: list[list[Any]]
    alarms: list[list[Any]]
    last_closed: datetime | None


@dataclass(frozen=True, slots=True)
class CareEvent:
    """One event that a resident's device sent."""

    id: str
    device_id: str
    type: str
    ts: datetime
    received_at: datetime
    detail: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class FamilyLink:
    """What one relative may see of a resident, by the resident's consent."""

    user_id: str
    username: str
    scopes: list[str]


async def residents(
    database: Database,
    scope: Scope,
    *,
    place_id: int | None,
    search: str | None,
    after: int,
    limit: int,
) -> list[Resident]:
    """Return residents by id; those under a place, and whose name contains `search`, if given."""
    rows = await database.fetch(
        blocks("residents")["list"],
        {
            **scope.parameters(),
            "place_id": place_id,
            "search": search,
            "after": after,
            "limit": limit,
        },
    )
    return [Resident(**row) for row in rows]


async def resident(database: Database, scope: Scope, resident_id: int) -> Resident:
    """Return one resident; raise NotFound."""
    row = await database.fetch_one(
        blocks("residents")["get"], {**scope.parameters(), "id": resident_id}
    )
    if row is None:
        raise missing(resident_id)
    return Resident(**row)


async def create_resident(database: Database, scope: Scope, values: dict[str, Any]) -> Resident:
    """Add a resident at a place of the scope; raise NotFound for the place."""
    row = await database.fetch_one(
        blocks("residents")["create"],
        {**scope.parameters(), **values, "limits": Jsonb(values["limits"])},
    )
    if row is None:
        raise NotFound(f"There is no place {values['place_id']}, or you may not see it.")
    return Resident(**row)


_CHANGEABLE = (
    "name", "sex", "born", "place_id", "care_level", "fall_risk", "wander_risk", "spo2_scale",
    "limits", "note",
)  # fmt: skip


async def change_resident(
    database: Database, scope: Scope, resident_id: int, values: dict[str, Any]
) -> Resident:
    """Change the given fields; raise NotFound for the resident or the new place."""
    async with database.transaction() as connection:
        if values.get("place_id") is not None:
            place = await connection.execute(
                blocks("places")["get"], {**scope.parameters(), "id": values["place_id"]}
            )
            if await place.fetchone() is None:
                raise NotFound(f"There is no place {values['place_id']}, or you may not see it.")
        parameters = dict.fromkeys(_CHANGEABLE) | values
        if parameters["limits"] is not None:
            parameters["limits"] = Jsonb(parameters["limits"])
        changed = await connection.execute(
            blocks("residents")["change"],
            {**scope.parameters(), **parameters, "given": list(values), "id": resident_id},
        )
        row = await changed.fetchone()
    if row is None:
        raise missing(resident_id)
    return Resident(**row)


async def signs(database: Database, scope: Scope, ids: Sequence[int]) -> list[Signs]:
    """Return what the states of these residents are judged by; those out of scope are left out."""
    rows = await database.fetch(
        blocks("residents")["signs"], {**scope.parameters(), "ids": list(ids)}
    )
    return [Signs(**row) for row in rows]


async def stirred(
    database: Database,
    *,
    paths: Sequence[str],
    watched: Sequence[int],
    since: datetime,
    silence: timedelta,
) -> list[int]:
    """Return the residents under `paths` or among `watched` whose state may differ since then."""
    rows = await database.fetch(
        blocks("residents")["stirred"],
        {"paths": list(paths), "residents": list(watched), "since": since, "silence": silence},
    )
    return [row["id"] for row in rows]


async def resident_ids(database: Database, scope: Scope, *, limit: int) -> list[int]:
    """Return the ids of the residents of a scope, at most `limit`."""
    rows = await database.fetch(
        blocks("residents")["under"], {**scope.parameters(), "limit": limit}
    )
    return [row["id"] for row in rows]


async def resident_events(
    database: Database,
    scope: Scope,
    resident_id: int,
    *,
    before: tuple[datetime, int, str] | None,
    limit: int,
) -> list[tuple[int, CareEvent]]:
    """Return events, newest first, each with its device's key; raise NotFound."""
    await resident(database, scope, resident_id)
    ts, key, event = before or (None, None, None)
    rows = await database.fetch(
        blocks("residents")["events"],
        {"id": resident_id, "before": ts, "key": key, "event": event, "limit": limit},
    )
    return [(row.pop("device_key"), CareEvent(**row)) for row in rows]


def missing(resident_id: int) -> NotFound:
    """Return the answer for a resident who does not exist or may not be seen."""
    return NotFound(f"There is no resident {resident_id}, or you may not see it.")

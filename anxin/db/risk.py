"""What the risk model says of residents, what staff observe by hand, and which model may alarm."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from anxin.db.pool import Database, blocks
from anxin.db.residents import missing, resident
from anxin.db.scope import Scope
from anxin.errors import NotFound
from anxin.vitals import Consciousness

Model = Literal["news2", "deterioration", "novelty", "rhythm"]
Mode = Literal["shadow", "alarming", "off"]
Band = Literal["low", "low-medium", "medium", "high"]


@dataclass(frozen=True, slots=True)
class RiskRow:
    """The last judgement of a resident; all but the id is empty where there is none yet.

    `usual`: by metric what is usual for this person now; `modes`: which model may alarm here.
    """

    resident_id: str
    at: datetime | None
    data_at: datetime | None
    score: int | None
    possible_max: int | None
    complete: bool | None
    band: Band | None
    deterioration: float | None
    novelty: float | None
    priority: int | None
    model: str | None
    explanation: dict[str, Any] | None
    usual: dict[str, Any] | None
    modes: dict[str, Mode]
    now: datetime


@dataclass(frozen=True, slots=True)
class RiskLine:
    """One line of a resident's history of scores."""

    at: datetime
    score: int
    possible_max: int
    complete: bool
    band: Band
    deterioration: float | None
    novelty: float | None
    priority: int
    model: str


@dataclass(frozen=True, slots=True)
class Observation:
    """What staff saw or measured; `corrected_by` names the line that counts instead."""

    id: str
    at: datetime
    recorded_at: datetime
    by: str | None
    corrects: str | None
    corrected_by: str | None
    withdrawn: bool
    consciousness: Consciousness | None
    oxygen: bool | None
    hr: float | None
    rr: float | None
    spo2: float | None
    temp: float | None
    sbp: float | None
    dbp: float | None


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model as the worker last saw it, with its modes by place."""

    model: Model
    version: str
    at: datetime | None
    fault: str | None
    state: dict[str, Any]
    modes: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class StationRate:
    """Alarms of one kind at one station in some days, and how they ended."""

    place_id: str
    residents: int
    kind: str
    alarms: int
    real: int
    false: int


@dataclass(frozen=True, slots=True)
class ModeRow:
    """What a model may do at a place and below it; without a place: everywhere."""

    place_id: str | None
    mode: Mode
    since: datetime
    why: str
    by: str | None


async def risk_of(database: Database, scope: Scope, resident_id: int) -> RiskRow:
    """Return what the model says of a resident; raise NotFound."""
    row = await database.fetch_one(blocks("risk")["of"], {**scope.parameters(), "id": resident_id})
    if row is None:
        raise missing(resident_id)
    return RiskRow(**row)


async def risk_history(
    database: Database,
    scope: Scope,
    resident_id: int,
    *,
    start: datetime,
    end: datetime,
    before: datetime | None,
    limit: int,
) -> list[RiskLine]:
    """Return lines of a resident's history in [start, end), newest first; raise NotFound."""
    await risk_of(database, scope, resident_id)
    rows = await database.fetch(
        blocks("risk")["history"],
        {"id": resident_id, "from": start, "to": end, "before": before, "limit": limit},
    )
    return [RiskLine(**row) for row in rows]


async def observations(
    database: Database, scope: Scope, resident_id: int, *, before: int | None, limit: int
) -> list[Observation]:
    """Return what staff observed of a resident, newest first; raise NotFound."""
    await resident(database, scope, resident_id)
    rows = await database.fetch(
        blocks("risk")["observations"], {"id": resident_id, "before": before, "limit": limit}
    )
    return [Observation(**row) for row in rows]


async def observe(
    database: Database, scope: Scope, resident_id: int, values: dict[str, Any], *, by: int
) -> Observation:
    """Write down what somebody observed; raise NotFound, or Conflict for what cannot be corrected.

    `values` holds every column of an observation that people write.
    """
    row = await database.fetch_one(
        blocks("risk")["observe"],
        {**scope.parameters(), **values, "id": resident_id, "by": by},
    )
    if row is None:
        raise missing(resident_id)
    return Observation(**row)


async def models(database: Database) -> list[ModelRow]:
    """Return every model and what it may do where, as far as the asking user sees it."""
    return [ModelRow(**row) for row in await database.fetch(blocks("risk")["models"])]


async def station_rates(database: Database, scope: Scope, *, days: int) -> list[StationRate]:
    """Return how often the models alarmed at each station of a scope in the last days."""
    rows = await database.fetch(blocks("risk")["rates"], {**scope.parameters(), "days": days})
    return [StationRate(**row) for row in rows]


async def set_mode(
    database: Database,
    scope: Scope,
    model: Model,
    mode: Mode,
    *,
    place_id: int | None,
    why: str,
    by: int,
) -> ModeRow:
    """Say what a model may do at a place, or everywhere; raise NotFound for a foreign place."""
    async with database.transaction() as connection:
        if place_id is not None:
            place = await connection.execute(
                blocks("places")["get"], {**scope.parameters(), "id": place_id}
            )
            if await place.fetchone() is None:
                raise NotFound(f"There is no place {place_id}, or you may not see it.")
        made = await connection.execute(
            blocks("risk")["set_mode"],
            {"model": model, "place_id": place_id, "mode": mode, "why": why, "by": by},
        )
        row = await made.fetchone()
    assert row is not None  # noqa: S101  an upsert that succeeded returns its row
    return ModeRow(**row)

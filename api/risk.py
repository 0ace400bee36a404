"""Risk: what the model says of a resident and why, what staff observe, which model may alarm."""

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, Self

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field, Strict, StringConstraints, model_validator

from anxin.db import risk as stored
from anxin.db.risk import Band, Mode, Model, Observation, RiskLine, RiskRow, StationRate
from anxin.rules import PRIORITIES
from anxin.vitals import METRICS, Consciousness
from api.answers import After, Limit, Page, answer, page, place_after, serial_after
from api.auth import Grant, confirmed, may
from api.fields import Body, Id, Moment, Name, number
from api.permissions import Forbidden
from api.problems import Unusable
from api.residents import Flag
from api.services import Db

STALE: Final = timedelta(minutes=15)
"""A judgement from readings older than this is one of the past."""
OLDEST_OBSERVATION: Final = timedelta(hours=24)
CLOCK_SKEW: Final = timedelta(minutes=2)
LONGEST: Final = timedelta(days=366)
RATE_DAYS: Final = 7
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MEASURED: Final = {one.name: one for one in METRICS}

router = APIRouter(tags=["risk"])

Priority = Literal["low", "medium", "high"]
Value = Annotated[float, Strict(), Field(allow_inf_nan=False)]


class Risk(BaseModel):
    """What the model says; `score` is NEWS2 only where `complete`, else certain points of it.

    `possible_min` and `possible_max` bound the whole NEWS2. `explanation` holds what it was made
    of; `sentence` says it in Chinese and English. `usual`: by metric low, middle, high of this
    person at this time of day. `stale`: the readings are older than 15 minutes.
    """

    resident_id: str
    at: datetime | None
    data_at: datetime | None
    stale: bool
    score: int | None
    possible_min: int | None
    possible_max: int | None
    complete: bool | None
    band: Band | None
    deterioration: float | None
    novelty: float | None
    priority: Priority | None
    model: str | None
    sentence: dict[str, str] | None
    explanation: dict[str, Any] | None
    usual: dict[str, Any]
    modes: dict[str, Mode]


class SeenLine(BaseModel):
    """One line of the history, as in Risk."""

    at: datetime
    score: int
    possible_min: int
    possible_max: int
    complete: bool
    band: Band
    deterioration: float | None
    novelty: float | None
    priority: Priority | None
    model: str


class NewObservation(Body):
    """What was seen or measured, some of it; `corrects` names the line that counts no more.

    With `withdrawn` and no value that line was an error, and nothing takes its place.
    """

    at: Moment | None = None
    corrects: Id | None = None
    withdrawn: Flag = False
    consciousness: Consciousness | None = None
    oxygen: Flag | None = None
    hr: Value | None = None
    rr: Value | None = None
    spo2: Value | None = None
    temp: Value | None = None
    sbp: Value | None = None
    dbp: Value | None = None

    @model_validator(mode="after")
    def _can_be_meant(self) -> Self:
        now = datetime.now(UTC)
        if self.at is not None and not now - OLDEST_OBSERVATION <= self.at <= now + CLOCK_SKEW:
            raise ValueError("at: within the last 24 hours.")
        given = self.model_dump(exclude={"at", "corrects", "withdrawn"}, exclude_none=True)
        if self.withdrawn:
            if given or self.corrects is None:
                raise ValueError("withdrawn: names the line that it takes back, and no value.")
            return self
        if not given:
            raise ValueError("Say at least one thing that was seen or measured.")
        for name, value in given.items():
            metric = _MEASURED.get(name)
            if metric is not None and not metric.low <= value <= metric.high:
                raise ValueError(
                    f"{name}: {metric.en} lies between {metric.low:g} and {metric.high:g} "
                    f"{metric.unit}."
                )
        if self.sbp is not None and self.dbp is not None and self.dbp >= self.sbp:
            raise ValueError("dbp: diastolic pressure is lower than systolic pressure.")
        return self


class ModeChange(Body):
    """What a model may do at a place and below it, or everywhere; and why."""

    mode: Mode
    place_id: Id | None = None
    why: Annotated[Name, StringConstraints(max_length=200)]


class SeenMode(BaseModel):
    """What a model may do, at a place or (without one) everywhere, since when and why."""

    place_id: str | None
    mode: Mode
    since: datetime
    why: str
    by: str | None


class SeenRate(BaseModel):
    """Alarms of a model at one station in the last days; rates are per resident and day.

    `predicted`: what the model would alarm at its own threshold, `planned`: at the one that keeps
    the station's budget; both of the last week, as far as it was scored.
    """

    place_id: str
    residents: int
    alarms: int
    real: int
    false: int
    predicted: float | None
    planned: float | None
    achieved: float


class SeenModel(BaseModel):
    """One model: its version, whether it is used, what it may do where, and how often it alarms.

    `fault`: why it is not used at present. `drift`: how far its scores are from those it was made
    with. `budget`: the alarms per resident and day that a station bears of it.
    """

    model: Model
    kind: str
    version: str
    at: datetime | None
    fault: str | None
    drift: dict[str, Any] | None
    budget: float | None
    card: dict[str, Any] | None
    modes: list[SeenMode]
    days: int
    stations: list[SeenRate]


_KINDS: Final[dict[Model, str]] = {
    "news2": "early_warning",
    "deterioration": "risk_rising",
    "novelty": "unusual",
    "rhythm": "unusual",
}


@router.get("/residents/{resident_id}/risk", response_model=Risk)
async def get_risk(
    resident_id: Id, grant: Annotated[Grant, may("vitals.read")], database: Db
) -> Response:
    """Return what the model says of a resident, of what, how sure, and what is missing."""
    found = await stored.risk_of(database, grant.scope, int(resident_id))
    return answer(_seen(found, family=grant.user.role == "family"))


@router.get("/residents/{resident_id}/risk/history", response_model=Page[SeenLine])
async def get_risk_history(
    resident_id: Id,
    grant: Annotated[Grant, may("vitals.read")],
    database: Db,
    from_: Annotated[
        Moment | None, Query(alias="from", description="Default: a day before `to`.")
    ] = None,
    to: Annotated[Moment | None, Query(description="Default: now.")] = None,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return how the scores of a resident went, newest first: every change, and every hour."""
    end = to or datetime.now(UTC)
    start = from_ or end - timedelta(days=1)
    if not start < end or end - start > LONGEST:
        raise Unusable(f"`from` must lie before `to`, by at most {LONGEST.days} days.")
    before = None
    if after is not None:
        before = _EPOCH + timedelta(microseconds=place_after(after, int))
    found = await stored.risk_history(
        database,
        grant.scope,
        int(resident_id),
        start=start,
        end=end,
        before=before,
        limit=limit + 1,
    )
    places = [(one.at - _EPOCH) // timedelta(microseconds=1) for one in found]
    return page([_line(one) for one in found], places, limit)


@router.get("/residents/{resident_id}/observations", response_model=Page[Observation])
async def list_observations(
    resident_id: Id,
    grant: Annotated[Grant, may("assess")],
    database: Db,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return what staff observed of a resident, newest first, corrected lines included."""
    found = await stored.observations(
        database, grant.scope, int(resident_id), before=serial_after(after), limit=limit + 1
    )
    return page(found, [int(one.id) for one in found], limit)


@router.post(
    "/residents/{resident_id}/observations",
    response_model=Observation,
    status_code=HTTPStatus.CREATED,
)
async def observe(
    resident_id: Id,
    body: NewObservation,
    grant: Annotated[Grant, may("assess")],
    database: Db,
) -> Response:
    """Write down consciousness, oxygen and what was measured by hand; the score follows."""
    values = body.model_dump() | {"corrects": number(body.corrects)}
    made = await stored.observe(
        database, grant.scope, int(resident_id), values, by=grant.user.user_id
    )
    return answer(made, HTTPStatus.CREATED)


@router.get("/models", response_model=Page[SeenModel])
async def list_models(grant: Annotated[Grant, may("reports.read")], database: Db) -> Response:
    """Return every model: version, fault, drift, modes, alarm rates by station."""
    rates = await stored.station_rates(database, grant.scope, days=RATE_DAYS)
    items = [
        {
            "model": one.model,
            "kind": _KINDS[one.model],
            "version": one.version,
            "at": one.at,
            "fault": one.fault,
            "drift": one.state.get("drift"),
            "budget": one.state.get("budget"),
            "card": one.state.get("card"),
            "modes": one.modes,
            "days": RATE_DAYS,
            "stations": [
                _rate(rate, one.state.get("stations", {}).get(rate.place_id, {}))
                for rate in rates
                if rate.kind == _KINDS[one.model]
            ],
        }
        for one in await stored.models(database)
    ]
    return answer({"items": items, "next": None})


@router.put("/models/{model_id}/mode", response_model=SeenMode)
async def set_mode(
    model_id: Model,
    body: ModeChange,
    grant: Annotated[Grant, confirmed("models.write")],
    database: Db,
) -> Response:
    """Let a model alarm, only be recorded (shadow), or switch it off, at a place or everywhere."""
    if body.place_id is None and grant.user.path != "/":
        raise Forbidden("Name the place: you do not decide for everywhere.")
    made = await stored.set_mode(
        database,
        grant.scope,
        model_id,
        body.mode,
        place_id=number(body.place_id),
        why=body.why,
        by=grant.user.user_id,
    )
    return answer(made)


def _seen(one: RiskRow, *, family: bool) -> dict[str, Any]:
    sentence = (one.explanation or {}).get("sentence")
    return {
        "resident_id": one.resident_id,
        "at": one.at,
        "data_at": one.data_at,
        "stale": one.data_at is None or one.now - one.data_at > STALE,
        "score": one.score,
        "possible_min": one.score,
        "possible_max": one.possible_max,
        "complete": one.complete,
        "band": one.band,
        "deterioration": one.deterioration,
        "novelty": one.novelty,
        "priority": PRIORITIES.get(one.priority or 0),
        "model": one.model,
        "sentence": sentence,
        "explanation": one.explanation,
        "usual": one.usual or {},
        # How a house runs its models is the staff's.
        "modes": {} if family else one.modes,
    }


def _line(one: RiskLine) -> dict[str, Any]:
    return {
        "at": one.at,
        "score": one.score,
        "possible_min": one.score,
        "possible_max": one.possible_max,
        "complete": one.complete,
        "band": one.band,
        "deterioration": one.deterioration,
        "novelty": one.novelty,
        "priority": PRIORITIES.get(one.priority),
        "model": one.model,
    }


def _rate(one: StationRate, known: dict[str, float | None]) -> dict[str, Any]:
    return {
        "place_id": one.place_id,
        "residents": one.residents,
        "alarms": one.alarms,
        "real": one.real,
        "false": one.false,
        "predicted": known.get("predicted"),
        "planned": known.get("planned"),
        "achieved": round(one.alarms / (one.residents * RATE_DAYS), 4),
    }

"""Reports: how soon people came and how often for nothing, and how devices are."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from anxin.db.pool import Database, blocks
from anxin.db.scope import Scope

By = Literal["station", "shift", "day"]
GOAL_60_S: Final = 0.975
GOAL_180_S: Final = 0.99
HEAVY, TOO_HEAVY = 30, 80
"""Alarms that needed nothing, for one carer in any 120 minutes: the two lines."""


@dataclass(frozen=True, slots=True)
class Answering:
    """One group of the report. Shares are 0 to 1, None where there is nothing to share.

    Calls are alarms of medium and high priority that are not technical: they want an answer.
    `from`/`to` None: alarms in no shift of the roster.
    """

    place_id: str | None
    station: str | None
    from_: datetime | None
    to: datetime | None
    alarms: int
    calls: int
    answered_60_s: float | None
    answered_180_s: float | None
    goal_met: bool | None
    unanswered: int
    arrival_median_s: float | None
    arrival_p90_s: float | None
    outcomes: dict[str, int]
    alarms_per_bed_day: float | None
    needed_action: float | None
    burden: int
    burden_line: Literal["below", "heavy", "too_heavy"]


async def answering(
    database: Database,
    scope: Scope,
    *,
    place_id: int | None,
    begins: datetime,
    ends: datetime,
    by: By,
    zone: str,
) -> list[Answering]:
    """Return the report on alarms raised from `begins` until before `ends`; tests are left out."""
    rows = await database.fetch(
        blocks("reports")["answering"],
        {
            "path": scope.path,
            "place_id": place_id,
            "from": begins,
            "to": ends,
            "by": by,
            "zone": zone,
        },
    )
    return [_group(row, begins, ends) for row in rows]


@dataclass(frozen=True, slots=True)
class Health:
    """How the devices of one station are now; `firmware` counts versions by kind."""

    place_id: str | None
    station: str | None
    devices: int
    assigned: int
    online: int
    silent: int
    never_heard: int
    sensor_error: int
    battery_low: int
    battery_critical: int
    battery_unknown: int
    quarantined: int
    firmware: dict[str, dict[str, int]]


async def device_health(database: Database, scope: Scope, *, place_id: int | None) -> list[Health]:
    """Return how devices are now, by station; those that stand nowhere come last."""
    rows = await database.fetch(
        blocks("reports")["devices"], {**scope.parameters(), "place_id": place_id}
    )
    return [Health(**row) for row in rows]


def _group(row: dict[str, object], begins: datetime, ends: datetime) -> Answering:
    numbers = {name: value for name, value in row.items() if isinstance(value, int)}
    from_, to = row["from"], row["to"]
    days = 0.0
    if isinstance(from_, datetime) and isinstance(to, datetime):
        days = (min(to, ends) - max(from_, begins)) / timedelta(days=1)
    within_60 = _share(numbers["within_60"], numbers["calls"])
    within_180 = _share(numbers["within_180"], numbers["calls"])
    judged = numbers["real"] + numbers["false"] + numbers["unknown"]
    bed_days = numbers["residents"] * days
    return Answering(
        place_id=_text(row["place_id"]),
        station=_text(row["station"]),
        from_=from_ if isinstance(from_, datetime) else None,
        to=to if isinstance(to, datetime) else None,
        alarms=numbers["alarms"],
        calls=numbers["calls"],
        answered_60_s=within_60,
        answered_180_s=within_180,
        goal_met=(
            None
            if within_60 is None or within_180 is None
            else within_60 >= GOAL_60_S and within_180 >= GOAL_180_S
        ),
        unanswered=numbers["unanswered"],
        arrival_median_s=_seconds(row["arrival_median_s"]),
        arrival_p90_s=_seconds(row["arrival_p90_s"]),
        outcomes={name: numbers[name] for name in ("real", "false", "unknown", "open")},
        alarms_per_bed_day=round(numbers["alarms"] / bed_days, 3) if bed_days else None,
        needed_action=_share(numbers["real"], judged),
        burden=numbers["burden"],
        burden_line=(
            "too_heavy"
            if numbers["burden"] >= TOO_HEAVY
            else "heavy"
            if numbers["burden"] >= HEAVY
            else "below"
        ),
    )


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _seconds(value: object) -> float | None:
    return round(value, 1) if isinstance(value, float) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None

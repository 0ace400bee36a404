"""What must be noticed when nothing arrives: silent devices, empty beds, nobody moving. Pure.

Each function turns rows of the database and a moment into findings; `changes` compares them with
the episodes there are. Everything is computed from stored times, so a restart changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from typing import Any, Final

from anxin.db.intake import Raise, Recover
from anxin.rules import HIGH, LOW, MEDIUM, Class

PATIENCE: Final[Mapping[str, tuple[int, bool]]] = {
    # kind: (seconds, True when only measurements count as being heard)
    "bed_sensor": (180, True),
    "radar": (180, True),
    "gateway": (180, False),
    "call_button": (900, False),
    "wearable": (900, False),
    "oximeter": (90_000, False),
    "cuff": (90_000, False),
    "thermometer": (90_000, False),
    "scale": (90_000, False),
    "smoke": (90_000, False),
    "door": (90_000, False),
    "other": (90_000, False),
}
FIRST_SECONDS: Final = 600
"""How long after its assignment a device may never have been heard."""
INACTIVE_SECONDS: Final = 4 * 3600
BUNDLE_SECONDS: Final = 6 * 3600
"""A condition whose alarm was closed so lately is no news, unless its priority rises."""

IN_BED_BEFORE: Final = timedelta(minutes=10)
AWAY_MEDIUM: Final = timedelta(minutes=15)
AWAY_HIGH: Final = timedelta(minutes=60)
NIGHT: Final = (22, 6)

KINDS: Final = ("device_silent", "bed_exit_long", "no_activity")
_CLASSES: Final[Mapping[str, Class]] = {
    "device_silent": "technical",
    "bed_exit_long": "behavioural",
    "no_activity": "behavioural",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition that is there now."""

    subject: str
    kind: str
    priority: int
    resident_id: int | None
    place_id: int | None
    device_key: int | None
    since: datetime
    detail: Mapping[str, Any] = field(default_factory=dict)


def silent_devices(rows: Sequence[Mapping[str, Any]], now: datetime) -> list[Finding]:
    """Return one finding per resident who is no longer monitored by some device."""
    by_subject: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_subject.setdefault(row["subject"], []).append(row)
    return [
        Finding(
            subject,
            "device_silent",
            MEDIUM if devices[0]["care_level"] >= 3 else LOW,
            devices[0]["resident_id"],
            devices[0]["place_id"],
            devices[0]["device_key"],
            min((one["heard_at"] for one in devices if one["heard_at"]), default=now),
            {
                "devices": [one["device_id"] for one in devices][:20],
                "never_heard": any(one["heard_at"] is None for one in devices),
            },
        )
        for subject, devices in by_subject.items()
    ]


def empty_beds(rows: Sequence[Mapping[str, Any]], now: datetime, zone: tzinfo) -> list[Finding]:
    """Return who left the bed at night and has not come back for too long."""
    findings = []
    for row in rows:
        left: datetime = row["absent_since"]
        lay: datetime | None = row["present_since"]
        if row["fall_risk"]:
            steps = [(HIGH, AWAY_HIGH), (MEDIUM, timedelta(0))]
        else:
            steps = [(HIGH, AWAY_HIGH), (MEDIUM, AWAY_MEDIUM)]
            if lay is None or left - lay < IN_BED_BEFORE:
                continue
        for priority, wait in steps:
            if now - left >= wait and is_night(left + wait, zone):
                findings.append(
                    Finding(
                        row["subject"],
                        "bed_exit_long",
                        priority,
                        row["resident_id"],
                        row["place_id"],
                        row["device_key"],
                        left,
                        {"away_minutes": int((now - left) / timedelta(minutes=1))},
                    )
                )
                break
    return findings


def nobody_moving(rows: Sequence[Mapping[str, Any]], now: datetime, zone: tzinfo) -> list[Finding]:
    """Return who has not moved for hours of the day."""
    local = now.astimezone(zone)
    if is_night(now, zone):
        return []
    morning = local.replace(hour=NIGHT[1], minute=0, second=0, microsecond=0)
    return [
        Finding(
            row["subject"],
            "no_activity",
            MEDIUM,
            row["resident_id"],
            row["place_id"],
            None,
            row["active_at"],
            {"still_hours": round((now - row["active_at"]) / timedelta(hours=1), 1)},
        )
        for row in rows
        if now - max(row["active_at"], morning) >= timedelta(seconds=INACTIVE_SECONDS)
    ]


def is_night(moment: datetime, zone: tzinfo) -> bool:
    """Tell whether it is night, by the clock of the place."""
    hour = moment.astimezone(zone).hour
    return hour >= NIGHT[0] or hour < NIGHT[1]


def changes(
    findings: Sequence[Finding], episodes: Sequence[Mapping[str, Any]]
) -> list[Raise | Recover]:
    """Return the alarms to raise and to recover, given the episodes there are.

    A condition is told once while it lasts, and again when its priority rises.
    """
    known = {(one["subject"], one["kind"]): one for one in episodes}
    there = {(one.subject, one.kind) for one in findings}
    out: list[Raise | Recover] = []
    for one in findings:
        episode = known.get((one.subject, one.kind))
        told = episode is not None and (
            episode["condition"] == "present" or episode["handling"] == "closed"
        )
        if told and episode is not None and episode["priority"] >= one.priority:
            continue
        out.append(
            Raise(
                one.subject,
                one.resident_id,
                one.place_id,
                one.device_key,
                one.kind,
                _CLASSES[one.kind],
                one.priority,
                round(one.since.timestamp() * 1_000_000),
                False,
                1,
                one.detail,
                "worker",
            )
        )
    out += [
        Recover(subject, kind, "worker")
        for (subject, kind), episode in known.items()
        if episode["condition"] == "present"
        and episode["handling"] != "closed"
        and (subject, kind) not in there
    ]
    return out

"""What must be noticed when nothing arrives: silent devices, empty beds, nobody moving. Pure.

Each function turns rows of the database and a moment into findings; `changes` compares them with
the episodes there are. Everything is computed from stored times, so a restart changes nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from typing import Any, Final

from anxin.db.intake import Raise, Recover
from anxin.db.silence import Silence
from anxin.rules import HIGH, LOW, MEDIUM, Class

INACTIVE_SECONDS: Final = 4 * 3600
SEVERE: Final = 3
"""Care level from which losing sight of somebody is of medium priority."""
MASS_DEVICES: Final = 5
MASS_WINDOW: Final = timedelta(minutes=2)
"""So many devices, half of those of a place, last heard within so long: the place is lost."""
QUIET_SHARE: Final = 3
"""A device counts as lost with its place after a third of the time it is given alone."""
BUNDLE_SECONDS: Final = 6 * 3600
"""A condition whose alarm was closed so lately is no news, unless its priority rises."""

IN_BED_BEFORE: Final = timedelta(minutes=10)
AWAY_MEDIUM: Final = timedelta(minutes=15)
AWAY_HIGH: Final = timedelta(minutes=60)
NIGHT: Final = (22, 6)

SOON_SECONDS: Final = 900
"""Devices that are given no longer than this count when a place is lost."""
_PARTS: Final = {"device_silent": "devices", "device_fault": "spells"}
"""Where in its detail an alarm names what it is about."""

KINDS: Final = ("device_silent", "bed_exit_long", "no_activity")
_CLASSES: Final[Mapping[str, Class]] = {
    "device_silent": "technical",
    "device_fault": "technical",
    "bed_exit_long": "behavioural",
    "no_activity": "behavioural",
}

Row = Mapping[str, Any]


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
    told_elsewhere: bool = False
    """Part of a larger loss that has its alarm: an alarm of its own stays, none is raised."""


def silent_devices(silence: Silence, now: datetime) -> list[Finding]:
    """Return one finding per subject of which some device is missed.

    What is missed because its gateway is, or with half of its place, is named there.
    """
    missed = [one for one in silence.devices if one["missed"]]
    by_subject: dict[str, list[Row]] = {}
    for one in missed:
        by_subject.setdefault(one["subject"], []).append(one)
    places = list(_lost_places(silence, now))
    with_place = {one["device_key"] for _, members, _ in places for one in members}
    findings = {}
    for subject, devices in by_subject.items():
        own = [
            one for one in devices
            if not (one["gateway_missed"] or one["excused"] or one["device_key"] in with_place)
        ]  # fmt: skip
        findings[subject] = _silent(silence, subject, own or devices, told_elsewhere=not own)
    for site, members, size in places:
        subject = f"p{site}"
        findings[subject] = Finding(
            subject,
            "device_silent",
            MEDIUM,
            None,
            site,
            None,
            min(one["quiet_since"] for one in members),
            {"devices": sorted(one["device_id"] for one in members), "of": size},
        )
    return list(findings.values())


def _silent(
    silence: Silence, subject: str, devices: Sequence[Row], *, told_elsewhere: bool
) -> Finding:
    first = devices[0]
    behind = silence.behind.get(first["device_key"], ())
    levels = [one["care_level"] for one in devices] + [level for _, level in behind]
    detail: dict[str, Any] = {
        "devices": [one["device_id"] for one in devices] + [device_id for device_id, _ in behind],
        "clocks": sorted({one["clock"] for one in devices}),
        "never_heard": any(one["never_heard"] for one in devices),
    }
    if behind:
        detail["gateway"] = first["device_id"]
    return Finding(
        subject,
        "device_silent",
        MEDIUM if max(levels) >= SEVERE else LOW,
        first["resident_id"],
        first["place_id"],
        first["device_key"],
        min(one["quiet_since"] for one in devices),
        detail,
        told_elsewhere,
    )


def _lost_places(silence: Silence, now: datetime) -> Iterator[tuple[int, list[Row], int]]:
    """Yield places with the devices that were lost together and the number they are of."""
    by_site: dict[int, list[Row]] = {}
    for one in silence.devices:
        if one["site"] in silence.sizes and one["patience"] <= SOON_SECONDS:
            by_site.setdefault(one["site"], []).append(one)
    for site, devices in by_site.items():
        members = _together(sorted(devices, key=lambda one: one["quiet_since"]))
        if len(members) < MASS_DEVICES or not any(one["missed"] for one in members):
            continue
        gateways = {
            one["device_id" if one["kind"] == "gateway" else "gateway_id"] for one in members
        }
        if len(gateways) == 1 and None not in gateways:
            continue  # the gateway speaks for them
        since_s = (now - members[-1]["quiet_since"]).total_seconds()
        size = sum(
            count for patience, count in silence.sizes[site] if patience <= QUIET_SHARE * since_s
        )
        if 2 * len(members) >= size:
            yield site, members, size


def _together(devices: list[Row]) -> list[Row]:
    """Return the most devices, of these in order of time, last heard within one window."""
    best = range(0)
    start = 0
    for end, one in enumerate(devices):
        while one["quiet_since"] - devices[start]["quiet_since"] > MASS_WINDOW:
            start += 1
        best = max(best, range(start, end + 1), key=len)
    return devices[best.start : best.stop]


def deafness(spells: Sequence[Row]) -> list[Finding]:
    """Return that the platform itself heard nobody; while it lasts no emergency gets through."""
    if not spells:
        return []
    named = [
        f"{one['from_at'].isoformat()}/{'..' if one['lasts'] else one['to_at'].isoformat()}"
        for one in spells
    ]
    return [
        Finding(
            "platform",
            "device_fault",
            HIGH if spells[-1]["lasts"] else MEDIUM,
            None,
            spells[-1]["place_id"],
            None,
            spells[0]["from_at"],
            {"reason": "deaf", "spells": named, "kept": all(one["kept"] for one in spells)},
        )
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

    A condition is told once while it lasts, and again when its priority rises or when it comes to
    name something that it did not name before.
    """
    known = {(one["subject"], one["kind"]): one for one in episodes}
    there = {(one.subject, one.kind) for one in findings}
    out: list[Raise | Recover] = []
    for one in findings:
        episode = known.get((one.subject, one.kind))
        if not _is_news(one, episode):
            continue
        priority = one.priority
        if episode is not None and episode["handling"] != "closed":
            priority = max(priority, episode["priority"])
        out.append(
            Raise(
                one.subject,
                one.resident_id,
                one.place_id,
                one.device_key,
                one.kind,
                _CLASSES[one.kind],
                priority,
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


def _is_news(one: Finding, episode: Mapping[str, Any] | None) -> bool:
    if one.told_elsewhere:
        return False
    if episode is None or one.priority > episode["priority"]:
        return True
    part = _PARTS.get(one.kind)
    if part is not None and not set(one.detail[part]) <= set(episode["detail"].get(part, ())):
        return True
    if episode["handling"] != "closed":
        return bool(episode["condition"] == "recovered")
    # Closed lately. A person on the way to the bathroom again is no news, a device lost again is.
    return part is not None and (
        episode["condition"] == "recovered" or one.since > episode["closed_at"]
    )

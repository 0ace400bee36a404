"""Stations are watched themselves: one that is muted, asleep or gone is a fault, and passed over.

A place whose screens can call nobody raises an alarm, and its alarms go on to their next step at
once. Everything is computed from what the screens said and when, so a restart changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from anxin.db.intake import Raise, Recover
from anxin.db.pool import Database
from anxin.db.stations import Round
from anxin.rules import HIGH, MEDIUM
from anxin.stations import UNMANNED_AFTER, Fault, Station, fault_of

BUNDLE: Final = timedelta(minutes=5)
"""A fault that was closed is told again after so long, while it lasts."""
_WORST_FIRST: Final[tuple[Fault, ...]] = ("station_gone", "station_asleep", "station_muted")


async def watch_stations(database: Database) -> int:
    """Raise and recover faults of stations, and pass over the deaf; return how many changed."""
    async with database.transaction() as connection:
        look = Round(connection)
        now = await look.mine()
        if now is None:
            return 0
        picture = survey(await look.on_duty(), await look.unmanned(UNMANNED_AFTER), now)
        found = changes(picture.faults, await look.episodes(BUNDLE))
        if found:
            await look.alarms(found)
        if not picture.deaf:
            return len(found)
        return len(found) + await look.hurry(deaf=picture.deaf, well=picture.well)


@dataclass(frozen=True, slots=True)
class PlaceFault:
    """The stations of a place that cannot call anybody, by user name; none: nobody is on duty."""

    place_id: int
    priority: int
    reason: Fault
    stations: Mapping[str, str]
    since: datetime


@dataclass(frozen=True, slots=True)
class Picture:
    """Faults by place; the paths of places that nobody can call to, and of those that are well."""

    faults: tuple[PlaceFault, ...]
    deaf: tuple[str, ...]
    well: tuple[str, ...]


def survey(
    stations: Sequence[Station], unmanned: Sequence[Mapping[str, Any]], now: datetime
) -> Picture:
    """Return what is wrong where; a station covers its place and everything below it."""
    judged = [(station, fault_of(station, now)) for station in stations]
    well = tuple(sorted({station.path for station, fault in judged if fault is None}))
    manned = [station.path for station in stations]
    bad: dict[int, list[tuple[Station, Fault]]] = {}
    for station, fault in judged:
        if fault is not None and station.place_id is not None:
            bad.setdefault(station.place_id, []).append((station, fault))
    faults, deaf = [], set()
    for place_id, ones in bad.items():
        path = ones[0][0].path
        alone = not path.startswith(well)
        if alone:
            deaf.add(path)
        faults.append(
            PlaceFault(
                place_id,
                HIGH if alone else MEDIUM,
                min((fault for _, fault in ones), key=_WORST_FIRST.index),
                {station.username: fault for station, fault in ones},
                min(station.seen_at for station, _ in ones),
            )
        )
    for place in unmanned:
        if place["path"].startswith(tuple(manned)):
            continue
        deaf.add(place["path"])
        faults.append(PlaceFault(place["place_id"], HIGH, "station_gone", {}, place["since"]))
    return Picture(tuple(faults), tuple(sorted(deaf)), well)


def changes(
    faults: Sequence[PlaceFault], episodes: Sequence[Mapping[str, Any]]
) -> list[Raise | Recover]:
    """Return the alarms to raise and to recover, given the episodes there are.

    A fault is told once while it lasts, and again when other stations or a higher priority join.
    """
    known = {episode["subject"]: episode for episode in episodes}
    out: list[Raise | Recover] = []
    for fault in faults:
        episode = known.pop(f"p{fault.place_id}", None)
        if episode is None or not _told(fault, episode):
            out.append(_raise(fault))
    # The place may have another fault in the same episode, told by somebody else: that one stays.
    out += [
        Recover(subject, "device_fault", "worker")
        for subject, episode in known.items()
        if episode["condition"] == "present"
        and episode["handling"] != "closed"
        and str(episode["detail"].get("reason", "")).startswith("station_")
    ]
    return out


def _told(fault: PlaceFault, episode: Mapping[str, Any]) -> bool:
    there = episode["condition"] == "present" or episode["handling"] == "closed"
    same = episode["detail"]["stations"] == dict(fault.stations)
    return bool(there and same and episode["priority"] >= fault.priority)


def _raise(fault: PlaceFault) -> Raise:
    return Raise(
        subject=f"p{fault.place_id}",
        resident_id=None,
        place_id=fault.place_id,
        device_key=None,
        kind="device_fault",
        class_="technical",
        priority=fault.priority,
        event_us=round(fault.since.timestamp() * 1_000_000),
        late=False,
        count=1,
        detail={"reason": fault.reason, "stations": dict(fault.stations)},
        actor="worker",
    )

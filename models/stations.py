"""Stations are watched themselves: one that is muted, asleep or gone is a fault, and passed over.

A place whose screens can call nobody raises an alarm, and its alarms go on to their next step at
once. Everything is computed from what the screens said and when, so a restart changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from anxin.alarms import fault_subject
from anxin.db.intake import Raise, Recover
from anxin.db.pool import Database
from anxin.db.stations import Round
from anxin.rules import HIGH, MEDIUM
from anxin.stations import UNMANNED_AFTER, Fault, Station, fault_of

BUNDLE: Final = timedelta(minutes=5)
"""A fault that was closed is told again after so long, while it lasts."""


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
    """Stations of a place that cannot call anybody, all for one reason, by user name.

    Without any: nobody is on duty.
    """

    place_id: int
    priority: int
    reason: Fault
    stations: Mapping[str, str]
    since: datetime

    @property
    def subject(self) -> str:
        """The subject of its episode."""
        return fault_subject(self.place_id, self.reason)


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
    bad: dict[tuple[int, Fault], list[Station]] = {}
    for station, fault in judged:
        if fault is not None and station.place_id is not None:
            bad.setdefault((station.place_id, fault), []).append(station)
    faults, deaf = [], set()
    for (place_id, reason), ones in bad.items():
        path = ones[0].path
        alone = not path.startswith(well)
        if alone:
            deaf.add(path)
        faults.append(
            PlaceFault(
                place_id,
                HIGH if alone else MEDIUM,
                reason,
                {station.username: reason for station in ones},
                min(station.seen_at for station in ones),
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

    A fault is told once while it lasts, and again when its stations change or its priority rises.
    """
    known = {episode["subject"]: episode for episode in episodes}
    out: list[Raise | Recover] = []
    for fault in faults:
        episode = known.pop(fault.subject, None)
        if episode is None or not _told(fault, episode):
            out.append(_raise(fault, episode))
    out += [
        Recover(subject, "device_fault", "worker")
        for subject, episode in known.items()
        if episode["condition"] == "present" and episode["handling"] != "closed"
    ]
    return out


def _told(fault: PlaceFault, episode: Mapping[str, Any]) -> bool:
    if episode["priority"] < fault.priority:
        return False
    # Of what somebody has closed just now, fewer stations are no news.
    named = set(episode["detail"]["stations"])
    if episode["handling"] == "closed":
        return named.issuperset(fault.stations)
    return named == set(fault.stations) and episode["condition"] == "present"


def _raise(fault: PlaceFault, episode: Mapping[str, Any] | None) -> Raise:
    # Said at the priority that the open episode has: a lower one would not renew its detail.
    priority = fault.priority
    if episode is not None and episode["handling"] != "closed":
        priority = max(priority, episode["priority"])
    return Raise(
        subject=fault.subject,
        resident_id=None,
        place_id=fault.place_id,
        device_key=None,
        kind="device_fault",
        class_="technical",
        priority=priority,
        event_us=round(fault.since.timestamp() * 1_000_000),
        late=False,
        count=1,
        detail={"reason": fault.reason, "stations": dict(fault.stations)},
        actor="worker",
    )

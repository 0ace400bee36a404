"""Compares what people were told with what happened; pure.

Every change of an alarm reaches every viewer who may see it, once and in order, and nobody else;
every alarm is told to somebody; every step of the ladder is taken in time, or within 2 s of the
end of a fault that kept the escalation from working.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from chaos.faults import Injected
from chaos.notices import Told
from chaos.staff import STEPS, Person
from chaos.verdict import Line, line
from chaos.viewer import Sight

GRACE: Final = timedelta(seconds=2)
_CLOCKS_AGREE: Final = timedelta(milliseconds=50)
_TELLING: Final = timedelta(seconds=10)
"""An alarm younger than this at the end of the run need not have been told yet."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm as the database holds it at the end."""

    id: str
    kind: str
    path: str
    resident_id: int | None
    raised_at: datetime
    handling: str
    owned: bool
    timed: bool
    """Whether a timer of the escalation is set for it."""


@dataclass(frozen=True, slots=True)
class Change:
    """One line of an alarm's timeline."""

    cursor: int | None
    alarm_id: str
    change: str
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Delivery:
    """One notice that the escalation wanted."""

    key: str
    alarm_id: str
    round: int
    step: int
    audience: str
    name: str
    channel: str
    state: str
    created_at: datetime


@dataclass(slots=True)
class Record:
    """What the database holds of alarms, their changes and their notices."""

    alarms: dict[str, Alarm] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)


def judge_telling(
    record: Record,
    sights: Sequence[Sight],
    told: Sequence[Told],
    faults: Sequence[Injected],
    ended_at: datetime,
) -> list[Line]:
    """Return every comparison; the promise is kept when no line has a fault."""
    people = {sight.person.name: sight.person for sight in sights}
    taken_at = _taken_at(record)
    return [
        *_judge_frames(record, sights),
        *_judge_notices(record, told, people, faults, ended_at),
        *_judge_steps(record, taken_at, faults, ended_at),
        *_told_somebody(record, sights, told, taken_at, ended_at),
        _answered(record, sights),
        line("a taken alarm calls nobody any more", taken_at, _called_in_vain(record, taken_at)),
        line(
            "an alarm that is not closed has an owner or a timer",
            record.alarms,
            [
                alarm.id
                for alarm in record.alarms.values()
                if alarm.handling != "closed" and not (alarm.owned or alarm.timed)
            ],
        ),
    ]


def lateness(record: Record, faults: Sequence[Injected]) -> list[float]:
    """Return of every step that was taken how many seconds after its due time, or after a fault."""
    found = []
    steps = _steps(record)
    for alarm in _climbing(record):
        for number, (after_seconds, _) in enumerate(STEPS):
            at = steps.get((alarm.id, number))
            if at is not None:
                due = alarm.raised_at + timedelta(seconds=after_seconds)
                found.append(max(0.0, (at - _possible(due, faults)).total_seconds()))
    return found


def _judge_frames(record: Record, sights: Sequence[Sight]) -> list[Line]:
    missing, again, strange, wrong = [], [], [], []
    expected_count = 0
    written = {one.cursor: one for one in record.changes if one.cursor is not None}
    for sight in sights:
        name = sight.person.name
        if sight.begins_after is None:
            missing.append(f"{name} never saw the stream")
            continue
        expected = {
            cursor
            for cursor, change in written.items()
            if cursor > sight.begins_after and _may_see(sight.person, record, change.alarm_id)
        }
        expected_count += len(expected)
        seen = [frame.cursor for frame in sight.frames]
        missing += [f"{name} missed {cursor}" for cursor in expected - set(seen)]
        again += [
            f"{name} saw {later} after {earlier}"
            for earlier, later in pairwise(seen)
            if later <= earlier
        ]
        strange += [f"{name} saw {cursor}" for cursor in set(seen) - expected]
        for frame in sight.frames:
            change = written.get(frame.cursor)
            if change and (change.alarm_id, change.change) != (frame.alarm_id, frame.change):
                wrong.append(f"{name} at {frame.cursor}")
    frames = range(sum(len(sight.frames) for sight in sights))
    return [
        line("a change reaches every viewer who may see it", range(expected_count), missing),
        line("no viewer sees a change twice or out of order", frames, again),
        line("no viewer sees an alarm of others", frames, strange),
        line("a frame says what the timeline says", frames, wrong),
        line(
            "no viewer had to start over",
            sights,
            [sight.person.name for sight in sights if sight.resyncs],
        ),
    ]


def _judge_notices(
    record: Record,
    told: Sequence[Told],
    people: Mapping[str, Person],
    faults: Sequence[Injected],
    ended_at: datetime,
) -> list[Line]:
    wrong, unknown = [], []
    wanted = {one.key: one for one in record.deliveries}
    first_told: dict[str, datetime] = {}
    times: Counter[str] = Counter()
    for one in told:
        times[one.key] += 1
        first_told.setdefault(one.key, one.at)
        person = people.get(one.name)
        wrong += [
            f"alarm {alarm_id} told to {one.name}"
            for alarm_id in one.alarm_ids
            if person is None or not _may_see(person, record, alarm_id)
        ]
        delivery = wanted.get(one.key)
        # Ladders go on while the books are read: the database told of its notices before this one.
        if delivery is None and one.key and one.at > ended_at:
            continue
        if delivery is None or (delivery.name, delivery.alarm_id) not in {
            (one.name, alarm_id) for alarm_id in one.alarm_ids
        }:
            unknown.append(f"{one.key or 'no key'} told to {one.name}")
    for delivery in record.deliveries:
        person = people.get(delivery.name)
        if delivery.audience != "wall" and (person is None or person.post != delivery.audience):
            wrong.append(f"{delivery.key} meant for {delivery.name or 'nobody'}")
    arrived = {one.key for one in told}
    return [
        line("a notice is told to nobody else", told, wrong),
        line("a notice that came was wanted, for this person and alarm", told, unknown),
        line(
            "a notice comes once; again only where a fault cut off its answer, under its own key",
            times,
            [
                f"{key}: {count} times"
                for key, count in times.items()
                if count > 1 and not (count == 2 and _in_fault(first_told[key], faults))
            ],
        ),
        line(
            "a notice that counts as sent has come",
            record.deliveries,
            [
                one.key
                for one in record.deliveries
                if one.channel == "webhook"
                and one.state in {"sent", "delivered", "displayed"}
                and one.key not in arrived
            ],
        ),
    ]


def _judge_steps(
    record: Record,
    taken_at: Mapping[str, datetime],
    faults: Sequence[Injected],
    ended_at: datetime,
) -> list[Line]:
    missing, late, early = [], [], []
    due_steps: list[str] = []
    steps = _steps(record)
    for alarm in _climbing(record):
        for number, (after_seconds, audience) in enumerate(STEPS):
            name = f"alarm {alarm.id} step {number} ({audience})"
            due = alarm.raised_at + timedelta(seconds=after_seconds)
            latest = _possible(due, faults) + GRACE
            at = steps.get((alarm.id, number))
            if at is None:
                if latest < min(taken_at.get(alarm.id, ended_at), ended_at):
                    due_steps.append(name)
                    missing.append(name)
                continue
            due_steps.append(name)
            if at > latest:
                late.append(
                    f"{name}: {(at - due).total_seconds():.2f} s after it was due, "
                    f"{(at - latest + GRACE).total_seconds():.2f} s after {_last(at, faults)}"
                )
            if at < due - _CLOCKS_AGREE:
                early.append(f"{name}: {(due - at).total_seconds():.2f} s early")
    return [
        line("a step of the ladder that was due is taken", due_steps, missing),
        line("a step is taken within 2 s of its time, or of the end of a fault", due_steps, late),
        line("no step is taken early", due_steps, early),
    ]


def _told_somebody(
    record: Record,
    sights: Sequence[Sight],
    told: Sequence[Told],
    taken_at: Mapping[str, datetime],
    ended_at: datetime,
) -> list[Line]:
    staff = [sight for sight in sights if sight.person.post != "family"]
    called = {alarm_id for one in told for alarm_id in one.alarm_ids}
    shown = {frame.alarm_id for sight in staff for frame in sight.frames}
    raised = {one.alarm_id: one.cursor or 0 for one in record.changes if one.change == "raised"}
    old = [
        one
        for one in record.alarms.values()
        if one.raised_at < ended_at - _TELLING
        and any(
            sight.begins_after is not None
            and sight.begins_after < raised.get(one.id, sys.maxsize)
            and sight.person.may_see(one.path, one.resident_id)
            for sight in staff
        )
    ]
    nobody_has = [one for one in old if one.kind == "sos" and one.id not in taken_at]
    return [
        line("an alarm is on a screen", old, [one.id for one in old if one.id not in shown]),
        line(
            "an alarm that nobody took is told by telephone",
            nobody_has,
            [one.id for one in nobody_has if one.id not in called],
        ),
    ]


def _answered(record: Record, sights: Sequence[Sight]) -> Line:
    kept = {(one.alarm_id, one.actor) for one in record.changes if one.change == "acknowledged"}
    promised = [(id_, sight.person.name) for sight in sights for id_ in sight.taken]
    return line(
        "an alarm that somebody was told to have is theirs",
        promised,
        [f"alarm {id_}, {name}" for id_, name in promised if (id_, name) not in kept],
    )


def _called_in_vain(record: Record, taken_at: Mapping[str, datetime]) -> list[str]:
    return [
        f"{one.key}: {(one.created_at - taken_at[one.alarm_id]).total_seconds():.2f} s after"
        for one in record.deliveries
        if one.round == 1 and one.alarm_id in taken_at and one.created_at > taken_at[one.alarm_id]
    ]


def _taken_at(record: Record) -> dict[str, datetime]:
    """Return of every alarm when somebody first took or ended it."""
    taken: dict[str, datetime] = {}
    for one in record.changes:
        if one.change in {"acknowledged", "on_site", "closed"}:
            taken[one.alarm_id] = min(one.at, taken.get(one.alarm_id, one.at))
    return taken


def _climbing(record: Record) -> list[Alarm]:
    """Return the alarms that climb the ladder of this run."""
    return [one for one in record.alarms.values() if one.kind == "sos"]


def _steps(record: Record) -> dict[tuple[str, int], datetime]:
    """Return when each step of an alarm's first round was taken, by alarm and number."""
    taken: dict[tuple[str, int], datetime] = {}
    for one in record.deliveries:
        if one.round == 1:
            key = one.alarm_id, one.step
            taken[key] = min(one.created_at, taken.get(key, one.created_at))
    return taken


def _possible(due: datetime, faults: Iterable[Injected]) -> datetime:
    """Return the first moment from `due` on at which no fault keeps the escalation from working."""
    for one in sorted(faults, key=lambda one: one.began_at):
        if one.fault.stops_timers and one.began_at - GRACE <= due < one.recovered_at:
            due = one.recovered_at
    return due


def _last(at: datetime, faults: Sequence[Injected]) -> str:
    """Name the last fault that the escalation could feel before a moment."""
    felt = [one for one in faults if one.fault.stops_timers and one.began_at <= at]
    return str(max(felt, key=lambda one: one.began_at).fault) if felt else "no fault"


def _in_fault(at: datetime, faults: Iterable[Injected]) -> bool:
    """Tell whether a notice that came at `at` may have lost its answer to a fault."""
    return any(
        one.fault.stops_timers and one.began_at - GRACE <= at <= one.recovered_at + GRACE
        for one in faults
    )


def _may_see(person: Person, record: Record, alarm_id: str) -> bool:
    alarm = record.alarms.get(alarm_id)
    return alarm is not None and person.may_see(alarm.path, alarm.resident_id)

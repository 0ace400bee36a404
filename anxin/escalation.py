"""Who is told of an alarm, when, and by which way: ladder, roster and a moment in, plan out; pure.

A ladder is a list of steps in order of time; steps of the same second make a rung. A rung that
reaches nobody brings the next one forward. After its last rung the ladder begins again, in a new
round, for as long as the alarm is open: nothing here ever falls silent by itself.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, get_args

import msgspec

Audience = Literal[
    "wall", "first", "second", "supervisor", "robot", "family", "rescue_point", "rescue_centre"
]
Post = Literal["first", "second", "supervisor"]
HIGH, MEDIUM, LOW = 3, 2, 1

WAYS: Final[Mapping[str, tuple[str, ...]]] = {
    "station": (),
    "robot": ("wecom", "dingtalk", "feishu", "webhook"),
    "message": ("wechat", "web_push", "webhook", "email"),
    "phone": ("voice",),
    "sms": ("aliyun_sms", "tencent_sms"),
}
"""What a step may name beside a single channel, and the channels that it stands for."""
CHANNELS: Final = frozenset(channel for channels in WAYS.values() for channel in channels)
_POSTS: Final[tuple[str, ...]] = get_args(Post)
_OFFICES: Final = ("robot", "rescue_point", "rescue_centre")
WEEK: Final = timedelta(days=7)


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step of a ladder: so long after the round began, these people, by these ways."""

    after_seconds: int
    audience: str
    channels: tuple[str, ...]


class Ladder(msgspec.Struct, frozen=True):
    """The steps for one priority, and how long an acknowledgement lasts without arrival."""

    priority: int
    lease_seconds: int
    steps: tuple[Step, ...]
    from_minute: int = 0
    to_minute: int = 1440
    place_id: int | None = None

    def holds(self, minute: int) -> bool:
        """Tell whether it holds at this minute of the local day; it may cross midnight."""
        if self.from_minute < self.to_minute:
            return self.from_minute <= minute < self.to_minute
        return minute >= self.from_minute or minute < self.to_minute


_CALL: Final = ("phone", "sms")
_ANY_WAY: Final = ("phone", "sms", "message", "robot")
DEFAULT_LADDERS: Final[Mapping[int, Ladder]] = {
    HIGH: Ladder(
        HIGH,
        600,
        (
            Step(0, "wall", ("station",)),
            Step(0, "first", ("station", "message")),
            Step(30, "second", ("station", "message")),
            Step(30, "robot", ("robot",)),
            Step(60, "first", _CALL),
            Step(60, "second", _CALL),
            Step(120, "supervisor", ("station", *_ANY_WAY)),
            Step(120, "family", _ANY_WAY),
            Step(120, "rescue_point", _ANY_WAY),
            Step(180, "rescue_centre", _ANY_WAY),
        ),
    ),
    MEDIUM: Ladder(
        MEDIUM,
        1800,
        (
            Step(0, "wall", ("station",)),
            Step(300, "second", ("station", "message")),
            Step(900, "supervisor", ("station", "message")),
        ),
    ),
    LOW: Ladder(LOW, 28800, (Step(0, "wall", ("station",)),)),
}


class Shift(msgspec.Struct, frozen=True):
    """Somebody on a post of a place for a time, perhaps in the stead of somebody else."""

    place_id: int
    user_id: int
    post: str
    begins_at: datetime
    ends_at: datetime
    stands_in_for: int | None = None


class Contact(msgspec.Struct, frozen=True):
    """A way to a person, or to an office of a place."""

    id: int
    channel: str
    user_id: int | None = None
    place_id: int | None = None
    office: str | None = None


class Staff(msgspec.Struct, frozen=True):
    """Somebody who works at a place and below it."""

    user_id: int
    place_id: int | None
    role: str


class People(msgspec.Struct, frozen=True):
    """Everybody who may have to be told of what happens at a few places.

    Shifts are those of a week back and ahead; a user who is disabled is nowhere in it.
    """

    shifts: tuple[Shift, ...] = ()
    contacts: tuple[Contact, ...] = ()
    staff: tuple[Staff, ...] = ()


class Where(msgspec.Struct, frozen=True):
    """Where an alarm is: the places from its own up to the root, and whose relatives count."""

    places: tuple[int, ...]
    family: tuple[int, ...] = ()
    at_home: bool = False


class Reached(msgspec.Struct, frozen=True):
    """One way to one of an audience: a person or an office; neither means the wall itself."""

    channel: str
    user_id: int | None = None
    contact_id: int | None = None


class Timer(msgspec.Struct, frozen=True):
    """The timer of an alarm as it was read, with the alarm's own priority and snooze."""

    alarm_id: int
    round: int
    ladder_priority: int
    began_at: datetime
    next_step: int
    due_at: datetime | None
    lease_until: datetime | None
    priority: int
    snoozed_until: datetime | None = None


class Notice(msgspec.Struct, frozen=True):
    """A delivery to be made; `key` makes a second attempt the same delivery."""

    key: str
    round: int
    step: int
    audience: str
    channel: str
    user_id: int | None
    contact_id: int | None
    due_at: datetime


class Line(msgspec.Struct, frozen=True):
    """A line for the timeline."""

    change: Literal["escalated", "nobody_reached", "lease_expired", "snooze_over"]
    note: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do for one timer; it holds only while the timer is as `round` to `lease_until` say.

    `nobody`: a whole round reached nobody beyond the wall. `somebody`: this climb reached someone.
    """

    alarm_id: int
    round: int
    step: int
    due_at: datetime | None
    lease_until: datetime | None
    does: Literal["climb", "lease_expired", "snooze_over"]
    to_round: int = 0
    to_priority: int = 0
    to_began_at: datetime | None = None
    to_step: int = 0
    to_due_at: datetime | None = None
    lease_seconds: int = 0
    deliveries: tuple[Notice, ...] = ()
    lines: tuple[Line, ...] = ()
    nobody: bool = False
    somebody: bool = False


def plan(timer: Timer, ladder: Ladder, where: Where, people: People, now: datetime) -> Plan | None:
    """Return what a timer that came due asks for now, or None when it does not.

    `ladder` is that of the timer's priority, or, where its ladder has ended, of the alarm's.
    """
    if timer.lease_until is not None:
        if timer.lease_until > now:
            return None
        return _restart(timer, "lease_expired", f"lease ended {_written(timer.lease_until)}")
    if timer.due_at is None or timer.due_at > now:
        return None
    if timer.snoozed_until is not None and timer.snoozed_until <= now:
        return _restart(timer, "snooze_over", f"snoozed until {_written(timer.snoozed_until)}")
    if timer.snoozed_until is not None:
        return _at_rest(timer, ladder, timer.snoozed_until)
    return _climb(timer, ladder, where, people, now)


def ended(timer: Timer, ladder: Ladder) -> bool:
    """Tell whether the round is over: the next begins with the alarm's priority of then."""
    return timer.next_step >= len(ladder.steps)


def ladder_for(
    ladders: Collection[Ladder], places: Sequence[int], priority: int, minute: int
) -> Ladder:
    """Return the ladder of the nearest place that has one for this minute, else the default."""
    for place in places:
        for ladder in ladders:
            own = (ladder.place_id, ladder.priority) == (place, priority)
            if own and ladder.steps and ladder.holds(minute):
                return ladder
    return DEFAULT_LADDERS[priority]


def reached(step: Step, where: Where, people: People, now: datetime) -> tuple[Reached, ...]:
    """Return by which ways a step reaches whom at a moment; empty when it reaches nobody."""
    if step.audience == "wall":
        return (Reached("station"),)
    if step.audience in _OFFICES:
        if step.audience == "rescue_point" and not where.at_home:
            return ()
        return _ways(step, _office(step.audience, where, people))
    if step.audience == "family":
        users: Sequence[int] = where.family
    else:
        users = on_duty(step.audience, where.places, people, now)
    found = [
        one
        for user in users
        for one in _ways(step, [own for own in people.contacts if own.user_id == user], user)
    ]
    if step.audience == "supervisor":
        found += _ways(step, _office("supervisor", where, people))
    return tuple(found)


def on_duty(post: str, places: Sequence[int], people: People, now: datetime) -> tuple[int, ...]:
    """Return who has a post now at the nearest place where somebody has.

    A stand-in takes the place of whom it stands in for; during a hand-over both shifts count.
    Without any roster, and for supervisors between shifts, the staff of the nearest place counts.
    """
    rostered = False
    for place in places:
        here = [shift for shift in people.shifts if shift.place_id == place]
        rostered = rostered or bool(here)
        present = [s for s in here if s.post == post and s.begins_at <= now < s.ends_at]
        absent = {s.stands_in_for for s in here if s.begins_at <= now < s.ends_at}
        users = dict.fromkeys(s.user_id for s in present if s.user_id not in absent)
        if users:
            return tuple(users)
    if rostered and post != "supervisor":
        return ()
    role = "supervisor" if post == "supervisor" else "nurse"
    for place in places:
        users = dict.fromkeys(
            one.user_id for one in people.staff if one.place_id == place and one.role == role
        )
        if users:
            return tuple(users)
    return ()


def _office(office: str, where: Where, people: People) -> list[Contact]:
    """Return the ways to an office of the nearest place that has it."""
    for place in where.places:
        here = [one for one in people.contacts if (one.place_id, one.office) == (place, office)]
        if here:
            return here
    return []


def _ways(step: Step, contacts: Sequence[Contact], user: int | None = None) -> tuple[Reached, ...]:
    """Return one contact for each way of a step; the station needs none."""
    found: dict[Reached, None] = {}
    for way in step.channels:
        if way == "station":
            if user is not None:
                found[Reached("station", user)] = None
            continue
        for channel in WAYS.get(way, (way,)):
            one = next((one for one in contacts if one.channel == channel), None)
            if one is not None:
                found[Reached(channel, user, one.id)] = None
                break
    return tuple(found)


def _climb(timer: Timer, ladder: Ladder, where: Where, people: People, now: datetime) -> Plan:
    round_, began_at, at = timer.round, timer.began_at, timer.next_step
    assert timer.due_at is not None  # noqa: S101  `plan` has looked
    due_at = timer.due_at
    if ended(timer, ladder):
        round_, began_at, at = round_ + 1, now, 0
    notices: list[Notice] = []
    lines: list[Line] = []
    first_call = all(step.audience == "wall" for step in ladder.steps[:at])
    somebody = False
    while at < len(ladder.steps) and due_at <= now:
        end = _rung_end(ladder, at)
        people_reached = False
        for number in range(at, end):
            step = ladder.steps[number]
            ways = reached(step, where, people, now)
            people_reached = people_reached or (bool(ways) and step.audience != "wall")
            notices += [
                Notice(
                    f"{timer.alarm_id}:{round_}:{number}:{step.audience}:"
                    f"{_target(way)}:{way.channel}",
                    round_,
                    number,
                    step.audience,
                    way.channel,
                    way.user_id,
                    way.contact_id,
                    due_at,
                )
                for way in ways
            ]
            lines.append(_line(round_, number, step, ways, due_at))
        somebody = somebody or people_reached
        only_wall = all(step.audience == "wall" for step in ladder.steps[at:end])
        at = end
        if at < len(ladder.steps):
            own_time = began_at + timedelta(seconds=ladder.steps[at].after_seconds)
            due_at = own_time if people_reached or only_wall else min(own_time, now)
    if at >= len(ladder.steps):
        due_at = now + timedelta(seconds=ladder.lease_seconds)
    calls = any(step.audience != "wall" for step in ladder.steps)
    return Plan(
        alarm_id=timer.alarm_id,
        round=timer.round,
        step=timer.next_step,
        due_at=timer.due_at,
        lease_until=timer.lease_until,
        does="climb",
        to_round=round_,
        to_priority=ladder.priority,
        to_began_at=began_at,
        to_step=at,
        to_due_at=due_at,
        lease_seconds=ladder.lease_seconds,
        deliveries=tuple(notices),
        lines=tuple(lines),
        nobody=calls and first_call and not somebody and at >= len(ladder.steps),
        somebody=somebody,
    )


def _at_rest(timer: Timer, ladder: Ladder, due_at: datetime) -> Plan:
    """Return the plan that only sets when to look again."""
    return Plan(
        alarm_id=timer.alarm_id,
        round=timer.round,
        step=timer.next_step,
        due_at=timer.due_at,
        lease_until=timer.lease_until,
        does="climb",
        to_round=timer.round,
        to_priority=timer.ladder_priority,
        to_began_at=timer.began_at,
        to_step=timer.next_step,
        to_due_at=due_at,
        lease_seconds=ladder.lease_seconds,
    )


def _restart(timer: Timer, does: Literal["lease_expired", "snooze_over"], note: str) -> Plan:
    """Return the plan that opens the alarm again; its ladder begins anew with that."""
    return Plan(
        alarm_id=timer.alarm_id,
        round=timer.round,
        step=timer.next_step,
        due_at=timer.due_at,
        lease_until=timer.lease_until,
        does=does,
        lines=(Line(does, note),),
    )


def _rung_end(ladder: Ladder, at: int) -> int:
    """Return the number of the first step that is later than step `at`."""
    end = at
    while end < len(ladder.steps) and (
        ladder.steps[end].after_seconds == ladder.steps[at].after_seconds
    ):
        end += 1
    return end


def _line(round_: int, number: int, step: Step, ways: Sequence[Reached], due_at: datetime) -> Line:
    """Return what the timeline says of a step: numbers only, no names."""
    users = sorted({way.user_id for way in ways if way.user_id is not None})
    contacts = sorted({way.contact_id for way in ways if way.contact_id is not None})
    note = f"round {round_} step {number} {step.audience} due {_written(due_at)}"
    if users:
        note += f" users {','.join(map(str, users))}"
    if contacts:
        note += f" contacts {','.join(map(str, contacts))}"
    return Line("escalated" if ways else "nobody_reached", note)


def _target(way: Reached) -> str:
    if way.contact_id is not None:
        return f"c{way.contact_id}"
    return "" if way.user_id is None else f"u{way.user_id}"


def _written(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a ladder or a roster cannot be relied on; said in Chinese and in English."""

    code: str
    step: int | None
    audience: str | None
    since: datetime | None
    until: datetime | None
    zh: str
    en: str


def lint(ladder: Ladder, where: Where, people: People, now: datetime) -> list[Fault]:
    """Return what is wrong with a ladder at a place during the week from `now` on.

    Relatives differ from resident to resident, and a rescue point serves home beds only: these
    two are looked at as far as the place tells.
    """
    if not ladder.steps:
        return [_fault("empty", "阶梯没有任何步骤。", "The ladder has no step.")]
    faults: list[Fault] = []
    if ladder.priority == HIGH and ladder.steps[0].after_seconds > 0:
        faults.append(
            _fault(
                "late_start",
                "高优先级报警必须立即(0 秒)通知。",
                "A high alarm must be told at once: its first step stands at 0 s.",
                step=0,
            )
        )
    for number, step in enumerate(ladder.steps):
        faults += _faults_of_step(ladder, number, where, people, now)
        if number and step.after_seconds < ladder.steps[number - 1].after_seconds:
            faults.append(
                _fault(
                    "order",
                    f"第 {number + 1} 步早于前一步。",
                    f"Step {number + 1} is earlier than the one before it.",
                    step=number,
                )
            )
    return faults


def _faults_of_step(
    ladder: Ladder, number: int, where: Where, people: People, now: datetime
) -> list[Fault]:
    step = ladder.steps[number]
    if step.audience not in get_args(Audience):
        known = ", ".join(get_args(Audience))
        return [
            _fault(
                "unknown_audience",
                f"第 {number + 1} 步的对象 {step.audience} 不存在。",
                f"Step {number + 1}: the audience {step.audience} is none of {known}.",
                step=number,
            )
        ]
    unknown = [way for way in step.channels if way not in WAYS and way not in CHANNELS]
    if unknown or not step.channels:
        known = ", ".join([*WAYS, *sorted(CHANNELS)])
        return [
            _fault(
                "unknown_channel",
                f"第 {number + 1} 步的通道 {'、'.join(unknown) or '(空)'} 不存在。",
                f"Step {number + 1}: {', '.join(unknown) or 'no channel'} is none of {known}.",
                step=number,
            )
        ]
    if step.audience == "family" or (step.audience == "rescue_point" and not where.at_home):
        return []
    return [
        _fault(
            "nobody",
            f"第 {number + 1} 步({step.audience})从 {since:%m-%d %H:%M} 到"
            f" {until:%m-%d %H:%M} 无人可通知。请排班、安排替班或添加联系方式。",
            f"Step {number + 1} ({step.audience}) reaches nobody from {since:%m-%d %H:%M} to"
            f" {until:%m-%d %H:%M}. Add a shift, a stand-in or a contact.",
            step=number,
            audience=step.audience,
            since=since,
            until=until,
        )
        for since, until in gaps(step, where, people, now)
    ]


def gaps(
    step: Step, where: Where, people: People, now: datetime
) -> list[tuple[datetime, datetime]]:
    """Return when in the coming week a step reaches nobody: it changes only as shifts do."""
    until = now + WEEK
    moments = sorted(
        {now}
        | {
            moment
            for shift in people.shifts
            for moment in (shift.begins_at, shift.ends_at)
            if now < moment < until
        }
    )
    found: list[tuple[datetime, datetime]] = []
    for since, end in zip(moments, [*moments[1:], until], strict=True):
        if reached(step, where, people, since):
            continue
        if found and found[-1][1] == since:
            found[-1] = (found[-1][0], end)
        else:
            found.append((since, end))
    return found


def _fault(
    code: str,
    zh: str,
    en: str,
    *,
    step: int | None = None,
    audience: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Fault:
    return Fault(code, step, audience, since, until, zh, en)

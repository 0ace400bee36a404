"""The life of an alarm: one table of transitions and one function over it; pure.

open → acknowledged → on_site → closed. An alarm is closed by its owner's side only: it must have
been acknowledged or reached first, so that none ends without anybody's name on it. An
acknowledgement is a lease: it runs out, and the alarm is open again.

`step` says what the database must do; the functions in `anxin/db/migrations` and the statements in
`anxin/db/alarms.sql` are compared with it, move by move, by the model test.
"""

from datetime import datetime, timedelta
from typing import Final, Literal, assert_never

import msgspec

Handling = Literal["open", "acknowledged", "on_site", "closed"]
Outcome = Literal["real", "false", "test", "unknown"]
Priority = Literal["low", "medium", "high"]
Condition = Literal["present", "recovered"]
Action = Literal["acknowledge", "arrive", "close", "snooze", "note"]
Automatic = Literal["rise", "lease_expired", "snooze_over", "owner_lost", "end_by_policy"]

PRIORITY_NUMBER: Final[dict[Priority, int]] = {"low": 1, "medium": 2, "high": 3}
"""Priorities as they are stored."""

LONGEST_SNOOZE: Final = timedelta(hours=12)
NEVER_SNOOZED: Final = frozenset({"emergency", "safety"})
"""Classes of alarm that nobody may put off."""


class Transition(msgspec.Struct, frozen=True):
    """What an action does: from which handling, to which (None = it stays), under which name."""

    sources: tuple[Handling, ...]
    target: Handling | None
    change: str
    refusal: str
    """What is said when the alarm is in none of `sources`."""


# The table has two halves: what people do, and what happens by itself.
TRANSITIONS: Final[dict[Action, Transition]] = {
    "acknowledge": Transition(
        ("open",), "acknowledged", "acknowledged", "Somebody has taken this alarm already."
    ),
    "arrive": Transition(
        ("open", "acknowledged"), "on_site", "on_site", "Somebody is on site already, or it ended."
    ),
    "close": Transition(
        ("acknowledged", "on_site"),
        "closed",
        "closed",
        "Only an alarm that was acknowledged and is not closed yet can be closed.",
    ),
    "snooze": Transition(
        ("open", "acknowledged", "on_site"), None, "snoozed", "A closed alarm cannot be put off."
    ),
    "note": Transition(("open", "acknowledged", "on_site", "closed"), None, "note", ""),
}


AUTOMATIC: Final[dict[Automatic, Transition]] = {
    "rise": Transition(("acknowledged",), "open", "priority", ""),
    "lease_expired": Transition(("acknowledged",), "open", "lease_expired", ""),
    "owner_lost": Transition(("acknowledged", "on_site"), "open", "rescued", ""),
    "snooze_over": Transition(("open",), None, "snooze_over", ""),
    "end_by_policy": Transition(("open",), "closed", "closed", ""),
}
"""A higher priority asks its owner again; so does a lease that ran out; see `step` for the rest."""


class Policy(msgspec.Struct, frozen=True):
    """What a platform decides about alarms in general."""

    calm: timedelta = timedelta(minutes=10)
    """How long nothing must have called for the present priority before it falls."""
    ends_low_technical: bool = True
    """A low technical alarm that nobody has taken ends with its condition."""


class Episode(msgspec.Struct, frozen=True):
    """An alarm as far as its life goes; the database keeps it in a row of `alarms`."""

    class_: str
    priority: int
    severe_at: datetime
    """When the present priority was last called for."""
    condition: Condition = "present"
    handling: Handling = "open"
    outcome: Outcome | None = None
    count: int = 1
    owner: int | None = None
    snoozed_until: datetime | None = None


class Trigger(msgspec.Struct, frozen=True):
    """A rule finds the condition present, perhaps several times at once."""

    class_: str
    priority: int
    count: int = 1


class Recovery(msgspec.Struct, frozen=True):
    """A rule finds the condition gone."""


class Deed(msgspec.Struct, frozen=True):
    """Somebody does something about it."""

    action: Action
    user: int
    outcome: Outcome | None = None
    until: datetime | None = None


class Passing(msgspec.Struct, frozen=True):
    """Time, or the loss of an owner, does something to it."""

    what: Literal["lease_expired", "snooze_over", "owner_lost"]


Happening = Trigger | Recovery | Deed | Passing
_STANDARD: Final = Policy()


def step(
    state: Episode | None, happening: Happening, now: datetime, policy: Policy = _STANDARD
) -> tuple[Episode | None, tuple[str, ...]]:
    """Return an episode after something happened, and the changes that its timeline tells.

    None is no open episode: the first trigger makes one, and after the end the next does. What
    cannot happen in a state changes nothing.
    """
    match happening:
        case Trigger():
            if state is None or state.handling == "closed":
                fresh = Episode(happening.class_, happening.priority, now, count=happening.count)
                return fresh, ("raised",)
            return _again(state, happening, now, policy)
        case Recovery():
            return _recovered(state, policy)
        case Deed():
            return _done(state, happening)
        case Passing():
            return _passed(state, happening.what)
        case _:
            assert_never(happening)


def _again(
    state: Episode, trigger: Trigger, now: datetime, policy: Policy
) -> tuple[Episode, tuple[str, ...]]:
    count = state.count + trigger.count
    again = msgspec.structs.replace(state, condition="present", count=count)
    if trigger.priority > state.priority:
        risen = msgspec.structs.replace(
            again, priority=trigger.priority, severe_at=now, snoozed_until=None
        )
        return _moved(risen, AUTOMATIC["rise"]) or risen, ("priority",)
    if trigger.priority == state.priority:
        return msgspec.structs.replace(again, severe_at=now), ("repeated",)
    if state.class_ not in NEVER_SNOOZED and now - state.severe_at >= policy.calm:
        lower = state.priority - 1
        return msgspec.structs.replace(again, priority=lower, severe_at=now), ("priority",)
    return again, ("repeated",)


def _recovered(state: Episode | None, policy: Policy) -> tuple[Episode | None, tuple[str, ...]]:
    if state is None or state.handling == "closed" or state.condition == "recovered":
        return state, ()
    calm = msgspec.structs.replace(state, condition="recovered")
    if policy.ends_low_technical and (state.class_, state.priority) == ("technical", 1):
        ended = _moved(calm, AUTOMATIC["end_by_policy"])
        if ended is not None:
            return msgspec.structs.replace(ended, outcome="unknown"), ("recovered", "closed")
    return calm, ("recovered",)


def _done(state: Episode | None, deed: Deed) -> tuple[Episode | None, tuple[str, ...]]:
    transition = TRANSITIONS[deed.action]
    moved = None if state is None else _moved(state, transition)
    if state is None or moved is None:
        return state, ()
    match deed.action:
        case "acknowledge" | "arrive":
            if state.handling == "open" or state.owner is None:
                moved = msgspec.structs.replace(moved, owner=deed.user)
        case "close":
            owner = deed.user if state.owner is None else state.owner
            moved = msgspec.structs.replace(moved, outcome=deed.outcome, owner=owner)
        case "snooze":
            if state.class_ in NEVER_SNOOZED:
                return state, ()
            moved = msgspec.structs.replace(moved, snoozed_until=deed.until)
        case "note":
            return state, (transition.change,)
        case _:
            assert_never(deed.action)
    return moved, (transition.change,)


def _passed(
    state: Episode | None, what: Literal["lease_expired", "snooze_over", "owner_lost"]
) -> tuple[Episode | None, tuple[str, ...]]:
    transition = AUTOMATIC[what]
    moved = None if state is None else _moved(state, transition)
    if state is None or moved is None:
        return state, ()
    if what == "owner_lost":
        return msgspec.structs.replace(moved, owner=None), (transition.change,)
    if what == "snooze_over" and state.snoozed_until is None:
        return state, ()
    return msgspec.structs.replace(moved, snoozed_until=None), (transition.change,)


def _moved(state: Episode, transition: Transition) -> Episode | None:
    """Return the episode in the handling that a transition leads to, or None when it does not."""
    if state.handling not in transition.sources:
        return None
    return msgspec.structs.replace(state, handling=transition.target or state.handling)


def fault_subject(place_id: int, reason: str, which: str = "") -> str:
    """Return the subject of a fault of a place: each reason, each `which` of it, is one episode."""
    return ":".join(part for part in (f"p{place_id}", reason, which) if part)


def state_diagram() -> str:
    """Return the table as a Mermaid state diagram, for the documents."""
    lines = ["stateDiagram-v2", "    [*] --> open: raise"]
    for name, transition in (TRANSITIONS | AUTOMATIC).items():
        lines += [
            f"    {source} --> {transition.target}: {name}"
            for source in transition.sources
            if transition.target is not None
        ]
    return "\n".join([*lines, "    closed --> [*]"])


def allowed_actions(handling: str, class_: str) -> list[Action]:
    """Return what a person who may act can do with an alarm in this state."""
    return [
        action
        for action, transition in TRANSITIONS.items()
        if handling in transition.sources and not (action == "snooze" and class_ in NEVER_SNOOZED)
    ]

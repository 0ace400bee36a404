"""The handling of an alarm: one table of transitions, and which actions are open to whom; pure.

open → acknowledged → on_site → closed. An alarm is closed by its owner's side only: it must have
been acknowledged or reached first, so that none ends without anybody's name on it.
"""

from datetime import timedelta
from typing import Final, Literal

import msgspec

Handling = Literal["open", "acknowledged", "on_site", "closed"]
Outcome = Literal["real", "false", "test", "unknown"]
Priority = Literal["low", "medium", "high"]
Action = Literal["acknowledge", "arrive", "close", "snooze", "note"]

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


def allowed_actions(handling: str, class_: str) -> list[Action]:
    """Return what a person who may act can do with an alarm in this state."""
    return [
        action
        for action, transition in TRANSITIONS.items()
        if handling in transition.sources and not (action == "snooze" and class_ in NEVER_SNOOZED)
    ]

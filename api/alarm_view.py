"""An alarm as one viewer sees it: with the actions open to it, without what it may not know."""

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from anxin.alarms import Action, allowed_actions
from anxin.db.alarms import AlarmObject
from anxin.db.sessions import Authority
from api.permissions import ACTION_RIGHTS


@dataclass(frozen=True, slots=True)
class View:
    """What kind of viewer it is; equal views of an alarm are encoded once."""

    acts: frozenset[Action]
    family: bool = False
    sees_values: bool = True
    sees_location: bool = True


_NOTHING: Final[frozenset[Action]] = frozenset()


def view_of(authority: Authority, resident_id: int | None) -> View:
    """Return how this user sees the alarms and the status of a resident."""
    if (view := staff_view(authority)) is not None:
        return view
    consent = authority.links.get(resident_id, frozenset()) if resident_id else frozenset()
    return View(
        acts=_NOTHING,
        family=True,
        sees_values="vitals" in consent,
        sees_location="location" in consent,
    )


def staff_view(authority: Authority) -> View | None:
    """Return how staff sees every alarm, one object for all who see alike; None for a family."""
    if authority.role == "family":
        return None
    return _staff(authority.rights)


@cache
def _staff(rights: frozenset[str]) -> View:
    return View(frozenset(act for act, right in ACTION_RIGHTS.items() if right in rights))


def seen_alarm(alarm: AlarmObject, view: View) -> dict[str, Any]:
    """Return the alarm object for such a viewer."""
    possible = allowed_actions(alarm["handling"], alarm["class"])
    seen = {**alarm, "actions": [action for action in possible if action in view.acts]}
    if view.family:
        # The detail of an alarm holds the values, or the place, that it was raised for.
        located = alarm["kind"].startswith("geofence")
        if not (view.sees_location if located else view.sees_values):
            seen["detail"] = {}
        seen["owner"] = None
    return seen

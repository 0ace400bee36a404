"""An alarm as one viewer sees it: with the actions open to it, without what it may not know."""

from dataclasses import dataclass
from typing import Any

from anxin.alarms import allowed_actions
from anxin.db.alarms import AlarmObject
from anxin.db.sessions import Authority
from api.permissions import allows


@dataclass(frozen=True, slots=True)
class View:
    """What kind of viewer it is; equal views of an alarm are encoded once."""

    acts: bool
    family: bool = False
    sees_values: bool = True
    sees_location: bool = True


_ACTING = View(acts=True)
_WATCHING = View(acts=False)


def view_of(authority: Authority, resident_id: int | None) -> View:
    """Return how this user sees the alarms and the status of a resident."""
    if (view := staff_view(authority)) is not None:
        return view
    consent = authority.links.get(resident_id, frozenset()) if resident_id else frozenset()
    return View(
        acts=False,
        family=True,
        sees_values="vitals" in consent,
        sees_location="location" in consent,
    )


def staff_view(authority: Authority) -> View | None:
    """Return how staff sees every alarm, one object for all who see alike; None for a family."""
    if authority.role == "family":
        return None
    return _ACTING if allows(authority.role, "alarms.act") else _WATCHING


def seen_alarm(alarm: AlarmObject, view: View) -> dict[str, Any]:
    """Return the alarm object for such a viewer."""
    actions = allowed_actions(alarm["handling"], alarm["class"]) if view.acts else []
    seen = {**alarm, "actions": actions}
    if view.family:
        # The detail of an alarm holds the values, or the place, that it was raised for.
        located = alarm["kind"].startswith("geofence")
        if not (view.sees_location if located else view.sees_values):
            seen["detail"] = {}
        seen["owner"] = None
    return seen


def plain_alarm(alarm: AlarmObject) -> dict[str, Any]:
    """Return the alarm object for somebody who tried to act on it."""
    return seen_alarm(alarm, View(acts=True))

"""Who may do what: the names of the rights, and which of them a family needs consent for.

Which role has which right is a table of the database, `role_rights`; a session comes with them.
"""

from collections.abc import Iterable
from typing import Final, Literal, get_args

from anxin.alarms import Action
from anxin.db.scope import Scope
from anxin.db.sessions import Authority
from anxin.db.users import Role
from anxin.errors import AnxinError

Right = Literal[
    "places.read", "places.write",
    "residents.read", "residents.write", "limits.write", "family.write",
    "status.read", "vitals.read", "events.read",
    "devices.read", "devices.write", "devices.secrets",
    "alarms.read", "alarms.acknowledge", "alarms.close", "alarms.snooze", "timeline.read",
    "assess", "export", "administer", "access.read", "audit.read",
    "quarantine.read", "users.read", "users.write", "stations.read",
    "contacts.write", "reports.read", "roster.read", "roster.write",
    "people.read", "people.write", "people.identify",
    "visits.read", "visits.write", "quiet.choose", "imports.write", "models.write",
]  # fmt: skip

FamilyScope = Literal["status", "vitals", "alarms", "events", "location", "video"]
"""What a resident can let a relative see; `location` adds coordinates to the rest."""

ACTION_RIGHTS: Final[dict[Action, Right]] = {
    "acknowledge": "alarms.acknowledge",
    "arrive": "alarms.acknowledge",
    "note": "alarms.acknowledge",
    "close": "alarms.close",
    "snooze": "alarms.snooze",
}
"""What each action on an alarm asks for."""

CONSENT: Final[dict[Right, FamilyScope]] = {
    "residents.read": "status",
    "status.read": "status",
    "vitals.read": "vitals",
    "events.read": "events",
    "alarms.read": "alarms",
    "access.read": "status",
    "visits.read": "events",
    "quiet.choose": "status",
}
"""The side of a resident that a family user needs consent for, by right."""

MANAGED_ROLES: Final[dict[Role, tuple[Role, ...]]] = {
    "admin": get_args(Role),
    "supervisor": ("family",),
}
"""Whose users a role may see and make."""


class Forbidden(AnxinError):
    """Your role may not do this."""


class UnknownRight(AnxinError):
    """The database and this program name different rights. Run: anxin migrate."""


def allows(authority: Authority, right: Right) -> bool:
    """Tell whether a user has a right at all; the scope says on whom."""
    return right in authority.rights


def check_rights(stored: Iterable[str]) -> None:
    """Compare the rights in the database with those named here; raise UnknownRight."""
    if odd := set(stored) ^ set(get_args(Right)):
        raise UnknownRight(f"Only one of database and program knows {', '.join(sorted(odd))}.")


def scope_of(authority: Authority, right: Right) -> Scope:
    """Return on whom a user may use a right; raise Forbidden when its role lacks it."""
    if not allows(authority, right):
        raise Forbidden(f"The role {authority.role} may not do this ({right}).")
    if authority.role == "family":
        return Scope(None, consenting(authority, right))
    return Scope(authority.path)


def consenting(authority: Authority, right: Right) -> tuple[int, ...]:
    """Return the residents who let this family user use a right."""
    needed = CONSENT[right]
    return tuple(resident for resident, scopes in authority.links.items() if needed in scopes)

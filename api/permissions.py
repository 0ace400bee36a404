"""Who may do what: one table of rights by role, and one of what a family's consent opens."""

from typing import Final, Literal, get_args

from anxin.db.scope import Scope
from anxin.db.sessions import Authority
from anxin.db.users import Role
from anxin.errors import AnxinError

Right = Literal[
    "places.read", "places.write",
    "residents.read", "residents.write", "limits.write", "family.write",
    "status.read", "vitals.read", "events.read",
    "devices.read", "devices.write",
    "alarms.read", "alarms.act", "timeline.read",
    "quarantine.read", "users.read", "users.write", "stations.read",
    "contacts.write", "reports.read", "roster.read", "roster.write",
]  # fmt: skip

FamilyScope = Literal["status", "vitals", "alarms", "events", "location"]
"""What a resident can let a relative see; `location` adds coordinates to the rest."""

_LEAD: Final[frozenset[Role]] = frozenset({"admin", "supervisor"})
_SETTING_UP: Final[frozenset[Role]] = _LEAD | {"integrator"}
_CARE: Final[frozenset[Role]] = _LEAD | {"nurse"}
_STAFF: Final[frozenset[Role]] = _CARE | {"integrator"}
_ALL: Final[frozenset[Role]] = frozenset(get_args(Role))

RIGHTS: Final[dict[Right, frozenset[Role]]] = {
    "places.read": _STAFF,
    "places.write": _SETTING_UP,
    "residents.read": _ALL,
    "residents.write": _SETTING_UP,
    "limits.write": _LEAD,
    "family.write": _LEAD,
    "status.read": _ALL,
    "vitals.read": _ALL,
    "events.read": _ALL,
    "devices.read": _STAFF,
    "devices.write": _SETTING_UP,
    "alarms.read": _ALL,
    "alarms.act": _CARE,
    "timeline.read": _STAFF,
    "quarantine.read": _STAFF,
    "users.read": _LEAD,
    "users.write": _LEAD,
    "stations.read": _STAFF,
    "contacts.write": _LEAD,
    "reports.read": _CARE,
    "roster.read": _CARE,
    "roster.write": _LEAD,
}

CONSENT: Final[dict[Right, FamilyScope]] = {
    "residents.read": "status",
    "status.read": "status",
    "vitals.read": "vitals",
    "events.read": "events",
    "alarms.read": "alarms",
}
"""The side of a resident that a family user needs consent for, by right."""

MANAGED_ROLES: Final[dict[Role, tuple[Role, ...]]] = {
    "admin": get_args(Role),
    "supervisor": ("family",),
}
"""Whose users a role may see and make."""


class Forbidden(AnxinError):
    """Your role may not do this."""


def allows(role: Role, right: Right) -> bool:
    """Tell whether a role has a right at all; the scope says on whom."""
    return role in RIGHTS[right]


def scope_of(authority: Authority, right: Right) -> Scope:
    """Return on whom a user may use a right; raise Forbidden when its role lacks it."""
    if not allows(authority.role, right):
        raise Forbidden(f"The role {authority.role} may not do this ({right}).")
    if authority.role == "family":
        return Scope(None, consenting(authority, right))
    return Scope(authority.path)


def consenting(authority: Authority, right: Right) -> tuple[int, ...]:
    """Return the residents who let this family user use a right."""
    needed = CONSENT[right]
    return tuple(resident for resident, scopes in authority.links.items() if needed in scopes)

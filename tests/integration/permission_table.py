"""The one table of who may do what: by route, the right it asks for and what it is about.

A new route belongs here, or the test of the matrix fails: `(method, path): Rule(right, about)`.
`right` is a row of `role_rights`, or SESSION for a route of everybody's own, or OPEN; `about` is
what `Sides` makes to ask about (a parameter of the path, of the query or a field of the body).
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

SESSION: Final = "(any session)"
OPEN: Final = "(nobody needs a session)"

CONSENT: Final = {
    "residents.read": "status", "status.read": "status", "access.read": "status",
    "vitals.read": "vitals", "events.read": "events", "alarms.read": "alarms",
    "visits.read": "events",
}  # fmt: skip
"""What a relative needs a consent to, to use a right at all."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a route asks for, and what it answers; words in braces stand for ids."""

    right: str
    about: str = ""
    body: dict[str, Any] | None = None
    query: dict[str, str] = field(default_factory=dict)
    done: int = 200
    lacking: int = 403
    """The answer without the right."""
    hidden: int = 404
    """The answer about what is foreign or absent."""
    rows: str = ""
    """Of a list, what its rows are; see `Sides.rows`."""
    instead: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of a body, the one to use when this field names somebody foreign."""
    echoes: bool = False
    """Whether the answer tells of ids that the caller's own people asked for."""
    ends_session: bool = False
    renews_session: bool = False
    """Whether the answer holds the token with which the session goes on."""
    private: bool = False
    """Whether it is about the caller's own account, and an administrator's reach does not count."""


LATER = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
STEPS = [{"after_seconds": 0, "audience": "wall", "channels": ["station"]}]
SHIFT = {"place_id": "{place_id}", "user_id": "{colleague}", "post": "first",
         "begins_at": "{begins}", "ends_at": "{ends}"}  # fmt: skip
GAPS = {"accept_gaps": "true"}
CONSENTED = {"purpose": "care", "scopes": ["status"], "given_by": "elder", "how": "paper"}
LIST = {"kind": "devices", "name": "x.csv", "content": "a2luZApjdWZmCg=="}
"""A file of one column, `kind`, and one row, `cuff`."""
HOOK = {"channel": "webhook", "address": "https://example.org/x"}

RULES: Final[dict[tuple[str, str], Rule]] = {
    ("POST", "/auth/login"): Rule(
        OPEN, body={"username": "nurse", "password": "a good password"}),
    ("GET", "/auth/providers"): Rule(OPEN),
    ("GET", "/auth/providers/{provider}/login"): Rule(OPEN, "provider", done=404),
    ("GET", "/auth/providers/{provider}/callback"): Rule(OPEN, "provider", done=404),
    ("POST", "/auth/logout"): Rule(SESSION, done=204, ends_session=True),
    ("POST", "/auth/step-up"): Rule(
        SESSION, body={"password": "a good password"}, renews_session=True),
    ("GET", "/me"): Rule(SESSION),
    ("GET", "/me/consents"): Rule(SESSION),
    ("GET", "/me/quiet-hours"): Rule("quiet.choose"),
    ("PUT", "/me/quiet-hours"): Rule("quiet.choose", body={"from": "22:00", "until": "06:30"}),
    ("GET", "/me/sessions"): Rule(SESSION, rows="session"),
    ("DELETE", "/me/sessions"): Rule(SESSION, done=204),
    ("DELETE", "/me/sessions/{session_id}"): Rule(SESSION, "session", done=204, private=True),
    # What is wrong with the new password is told before the old one is looked at.
    ("POST", "/me/password"): Rule(
        SESSION, body={"password": "a good password", "new": "short"}, done=422),
    ("POST", "/me/totp"): Rule(SESSION, done=201),
    ("POST", "/me/totp/confirm"): Rule(SESSION, body={"code": "none"}, done=409),
    ("DELETE", "/me/totp"): Rule(SESSION, "factor", done=204, private=True),
    ("GET", "/places"): Rule("places.read", rows="place"),
    ("POST", "/places"): Rule(
        "places.write", "place", {"parent_id": "{place_id}", "kind": "room", "name": "1"},
        done=201),
    ("GET", "/places/{place_id}"): Rule("places.read", "place"),
    ("PATCH", "/places/{place_id}"): Rule("places.write", "place", {"phone": "023-4980 0000"}),
    ("GET", "/residents"): Rule("residents.read", rows="resident"),
    ("POST", "/residents"): Rule(
        "residents.write", "place", {"name": "x", "place_id": "{place_id}"}, done=201),
    ("GET", "/residents/{resident_id}"): Rule("residents.read", "resident"),
    ("PATCH", "/residents/{resident_id}"): Rule("residents.write", "resident", {"note": "x"}),
    ("GET", "/residents/{resident_id}/status"): Rule("status.read", "resident"),
    ("GET", "/residents/{resident_id}/events"): Rule("events.read", "resident", rows="own"),
    ("GET", "/residents/{resident_id}/vitals"): Rule("vitals.read", "resident"),
    ("GET", "/residents/{resident_id}/risk"): Rule("vitals.read", "resident"),
    ("GET", "/residents/{resident_id}/risk/history"): Rule("vitals.read", "resident"),
    ("GET", "/residents/{resident_id}/observations"): Rule("assess", "resident", rows="own"),
    ("POST", "/residents/{resident_id}/observations"): Rule(
        "assess", "resident", {"consciousness": "A", "oxygen": False}, done=201),
    ("GET", "/residents/{resident_id}/usual"): Rule("vitals.read", "resident"),
    ("GET", "/residents/{resident_id}/station"): Rule("residents.read", "resident"),
    ("GET", "/residents/{resident_id}/visits"): Rule("visits.read", "resident", rows="own"),
    ("POST", "/residents/{resident_id}/visits"): Rule(
        "visits.write", "resident", {"kind": "bath", "at": LATER}, done=201),
    ("DELETE", "/residents/{resident_id}/visits/{visit_id}"): Rule(
        "visits.write", "visit", done=204),
    ("GET", "/residents/{resident_id}/family"): Rule("family.write", "resident", rows="own"),
    ("POST", "/residents/{resident_id}/family"): Rule(
        "family.write", "resident", {"user_id": "{kin}", "scopes": ["status"]}, done=201),
    ("DELETE", "/residents/{resident_id}/family/{user_id}"): Rule("family.write", "link", done=204),
    ("GET", "/residents/{resident_id}/identity"): Rule("people.read", "resident"),
    ("PUT", "/residents/{resident_id}/identity"): Rule(
        "people.write", "resident", {"phone": "13900139000"}),
    ("POST", "/residents/{resident_id}/identity/reveal"): Rule("people.identify", "resident"),
    ("GET", "/residents/{resident_id}/relatives"): Rule("people.read", "resident", rows="own"),
    ("POST", "/residents/{resident_id}/relatives"): Rule(
        "people.write", "resident", {"name": "x", "relation": "son"}, done=201),
    ("DELETE", "/residents/{resident_id}/relatives/{relative_id}"): Rule(
        "people.write", "relative", done=204),
    ("POST", "/people/search"): Rule("people.read", "phone", {"phone": "{phone}"}, hidden=200),
    ("GET", "/residents/{resident_id}/consents"): Rule("family.write", "resident", rows="own"),
    ("POST", "/residents/{resident_id}/consents"): Rule(
        "family.write", "resident", CONSENTED, done=201,
        instead={"user_id": {**CONSENTED, "purpose": "family"}}),
    ("DELETE", "/residents/{resident_id}/consents/{consent_id}"): Rule(
        "family.write", "consent", done=204),
    ("GET", "/residents/{resident_id}/access"): Rule("access.read", "resident"),
    ("POST", "/residents/{resident_id}/erase"): Rule("administer", "resident", done=202),
    ("GET", "/residents/{resident_id}/export"): Rule("export", "resident"),
    ("GET", "/erasures"): Rule("administer", rows="erasure"),
    ("POST", "/erasures/{erasure_id}/approve"): Rule("administer", "erasure"),
    ("POST", "/erasures/{erasure_id}/refuse"): Rule("administer", "erasure"),
    ("GET", "/users"): Rule("users.read", rows="user"),
    ("POST", "/users"): Rule(
        "users.write", "place",
        {"username": "{new}", "password": "a good password", "role": "family",
         "place_id": "{place_id}"}, done=201),
    ("PATCH", "/users/{user_id}"): Rule("users.write", "user", {"disabled": True}),
    ("POST", "/users/{user_id}/password"): Rule("users.write", "user"),
    ("GET", "/users/{user_id}/sessions"): Rule("users.write", "visitor", rows="own"),
    ("DELETE", "/users/{user_id}/sessions"): Rule("users.write", "visitor", done=204),
    ("DELETE", "/users/{user_id}/totp"): Rule("users.write", "guarded", done=204),
    ("GET", "/users/{user_id}/identities"): Rule("administer", "outsider", rows="own"),
    ("POST", "/users/{user_id}/identities"): Rule(
        "administer", "user", {"provider": "hospital", "subject": "{new}"}, done=201),
    ("DELETE", "/users/{user_id}/identities/{identity_id}"): Rule(
        "administer", "outsider", done=204),
    ("GET", "/devices"): Rule("devices.read", rows="device"),
    ("POST", "/devices"): Rule(
        "devices.write", "place", {"kind": "cuff", "place_id": "{place_id}"}, done=201),
    ("GET", "/devices/{device_id}"): Rule("devices.read", "device"),
    ("PATCH", "/devices/{device_id}"): Rule("devices.write", "device", {"name": "x"}),
    ("DELETE", "/devices/{device_id}"): Rule("devices.write", "device", done=204),
    ("POST", "/devices/{device_id}/secret"): Rule("devices.secrets", "device"),
    ("PUT", "/devices/{device_id}/assignment"): Rule(
        "devices.write", "device", {"resident_id": None}),
    ("POST", "/devices/{device_id}/commands"): Rule(
        "devices.write", "device", {"name": "blink"}, done=201),
    ("GET", "/devices/{device_id}/commands"): Rule("devices.read", "device", rows="own"),
    ("GET", "/enrolments"): Rule("devices.read", rows="enrolment"),
    ("POST", "/enrolments"): Rule(
        "devices.write", "place", {"kind": "cuff", "place_id": "{place_id}"}, done=201),
    ("DELETE", "/enrolments/{enrolment_id}"): Rule("devices.write", "enrolment", done=204),
    ("POST", "/enrol"): Rule(OPEN, body={"code": "{code}"}, done=404),
    ("GET", "/alarms"): Rule("alarms.read", rows="alarm"),
    ("GET", "/alarms/{alarm_id}"): Rule("alarms.read", "alarm"),
    ("GET", "/alarms/{alarm_id}/timeline"): Rule("timeline.read", "alarm", rows="own"),
    ("GET", "/alarms/{alarm_id}/answers"): Rule("alarms.read", "alarm", rows="own"),
    ("GET", "/alarms/{alarm_id}/deliveries"): Rule("timeline.read", "alarm", rows="own"),
    ("POST", "/alarms/{alarm_id}/acknowledge"): Rule("alarms.acknowledge", "alarm"),
    ("POST", "/alarms/{alarm_id}/arrive"): Rule("alarms.acknowledge", "alarm"),
    ("POST", "/alarms/{alarm_id}/close"): Rule("alarms.close", "taken", {"outcome": "real"}),
    ("POST", "/alarms/{alarm_id}/snooze"): Rule("alarms.snooze", "alarm", {"until": LATER}),
    ("POST", "/alarms/{alarm_id}/note"): Rule("alarms.acknowledge", "alarm", {"text": "x"}),
    ("GET", "/quarantine"): Rule("quarantine.read", rows="rejected"),
    ("GET", "/quarantine/{rejected_id}"): Rule("quarantine.read", "rejected"),
    ("POST", "/stream/tickets"): Rule(SESSION, done=201),
    ("GET", "/stations"): Rule("stations.read", rows="station"),
    ("GET", "/self-tests"): Rule("stations.read", rows="self_test"),
    ("GET", "/channels"): Rule(SESSION),
    ("GET", "/channels/web_push/key"): Rule(SESSION),
    ("POST", "/channels/{channel}/reports/{token}"): Rule(OPEN, "report", done=404),
    # Everybody has contacts of its own; the right is needed for those of others.
    ("GET", "/contacts"): Rule(SESSION, rows="contact"),
    ("POST", "/contacts"): Rule(
        "contacts.write", "place", {**HOOK, "place_id": "{place_id}", "office": "robot"}, done=201,
        instead={"user_id": HOOK}),
    ("PATCH", "/contacts/{contact_id}"): Rule(
        "contacts.write", "contact", {"enabled": False}, lacking=404),
    ("DELETE", "/contacts/{contact_id}"): Rule(
        "contacts.write", "contact", done=204, lacking=404),
    ("POST", "/contacts/{contact_id}/test"): Rule("contacts.write", "contact", lacking=404),
    ("GET", "/reports/answering"): Rule("reports.read", "place", query={"place_id": "{place_id}"}),
    ("GET", "/reports/devices"): Rule("reports.read", "place", query={"place_id": "{place_id}"}),
    ("GET", "/imports"): Rule("imports.write"),
    ("POST", "/imports"): Rule(
        "imports.write", "place", {**LIST, "place_id": "{place_id}"}, done=201),
    ("GET", "/imports/{import_id}"): Rule("imports.write", "import", private=True),
    ("GET", "/imports/{import_id}/rows"): Rule("imports.write", "import", private=True),
    ("POST", "/imports/{import_id}/mend"): Rule(
        "imports.write", "import", {}, done=409, private=True),
    ("POST", "/imports/{import_id}/apply"): Rule("imports.write", "import", private=True),
    ("DELETE", "/imports/{import_id}"): Rule("imports.write", "import", done=204, private=True),
    ("GET", "/exports/{kind}"): Rule("export", "place", query={"place_id": "{place_id}"}),
    ("GET", "/exports/{kind}/template"): Rule("imports.write"),
    ("GET", "/limits"): Rule("limits.write"),
    ("GET", "/limit-templates"): Rule("limits.write", rows="template"),
    ("POST", "/limit-templates"): Rule(
        "limits.write", "place",
        {"name": "{new}", "place_id": "{place_id}", "limits": {"hr_high": 110}}, done=201),
    ("DELETE", "/limit-templates/{template_id}"): Rule("limits.write", "template", done=204),
    ("POST", "/limit-templates/{template_id}/apply"): Rule(
        "limits.write", "template", {"resident_ids": []}),
    ("GET", "/backups"): Rule("administer"),
    ("GET", "/shifts"): Rule("roster.read", rows="shift"),
    ("POST", "/shifts"): Rule("roster.write", "place", {"items": [SHIFT]}, GAPS, done=201),
    ("DELETE", "/shifts/{shift_id}"): Rule("roster.write", "shift", query=GAPS, done=204),
    ("GET", "/ladders"): Rule("roster.read", rows="ladder"),
    ("PUT", "/ladders"): Rule(
        "roster.write", "place", {"place_id": "{place_id}", "priority": "low", "steps": STEPS}),
    ("GET", "/ladders/verdict"): Rule("roster.read", "place", query={"place_id": "{place_id}"}),
    ("POST", "/ladders/verdict"): Rule(
        "roster.read", "place", {"place_id": "{place_id}", "priority": "low", "steps": STEPS}),
    ("DELETE", "/ladders/{ladder_id}"): Rule("roster.write", "ladder", done=204),
    ("GET", "/audit"): Rule("audit.read", echoes=True),
    ("GET", "/models"): Rule("reports.read"),
    ("PUT", "/models/{model_id}/mode"): Rule(
        "models.write", "place", {"place_id": "{place_id}", "mode": "shadow", "why": "x"}),
}  # fmt: skip

FIELDS: Final = {
    "place_id": "place", "parent_id": "place", "resident_id": "resident", "user_id": "user",
    "stands_in_for": "user", "gateway_id": "device", "device_id": "device",
}  # fmt: skip
"""Whom a field of a body, or a parameter of a query, names."""

NAMES_OF_ALL: Final = {
    ("POST", "/enrolments", "device_id"):
        "ids of devices are names of the whole platform: one that is taken says so",
}  # fmt: skip
"""Fields that tell whether something foreign exists, and why that cannot be otherwise."""

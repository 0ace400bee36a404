# ruff: noqa: E501  # statements that fill tables
"""Two facilities with a row of everything in each, and who should see which of them.

What should be seen is worked out here once more, in Python, from what is stored: from the parents
of places and from the consents, not from paths, links or anything a policy asks.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from anxin.db.sessions import hash_token
from tests.integration.api_world import World, settle
from tests.integration.row_catalogue import Connection, relations

Row = dict[str, Any]
Stored = dict[str, list[Row]]

KEYS = {"device_monitoring": "device_key", "deaf_spells": "from_at", "audit_log": "id",
        "risk_feedback": "alarm_id"}  # fmt: skip
"""By what a row of a view is known; a row of a table is known by all that a request may read."""

_FILL = """
INSERT INTO device_states (device_key, heard_at) SELECT key, now() FROM devices;
INSERT INTO latest (device_key, ts, received_at, metrics)
    SELECT key, now(), now(), '{"hr": [70, 1]}' FROM devices;
INSERT INTO events (device_key, id, type, ts, received_at)
    SELECT key, hours::text, 'sos', now() - hours * interval '1 hour', now()
    FROM devices CROSS JOIN (VALUES (1), (100)) AS at (hours);
INSERT INTO telemetry (device_key, ts, received_at, hr)
    SELECT key, now() - interval '1 hour', now(), 70 FROM devices;
INSERT INTO rollup_due (device_key, minute)
    SELECT device_key, date_trunc('minute', ts) FROM telemetry;
INSERT INTO commands (device_key, name, created_by)
    SELECT key, 'blink', u.id FROM devices CROSS JOIN users u WHERE u.username = 'admin';
INSERT INTO quarantine (received_at, device_id, kind, reason, size, payload)
    SELECT now(), id, 'vitals', 'test', 1, 'x'::bytea FROM devices
    UNION ALL SELECT now(), 'unknown', 'vitals', 'test', 1, 'x'::bytea;
SELECT raise_alarm('p' || id, NULL, id, NULL, 'smoke', 'safety', 3::smallint, now(), false, 1, '{}',
                   'test') FROM places WHERE name IN ('A', 'B', 'district');
SELECT raise_alarm('d' || key, NULL, NULL, key, 'battery', 'technical', 1::smallint, now(), false, 1,
                   '{}', 'test') FROM devices;
INSERT INTO receipts (alarm_id, user_id, kind)
    SELECT a.id, u.id, 'displayed' FROM alarms a CROSS JOIN users u WHERE u.username LIKE 'nurse%';
INSERT INTO deliveries (key, alarm_id, audience, channel, due_at)
    SELECT id::text, id, 'first', 'station', now() FROM alarms
    UNION ALL SELECT 'report', NULL, 'first', 'station', now();
INSERT INTO shifts (place_id, user_id, post, during)
    SELECT p.id, u.id, 'first', tstzrange(now(), now() + interval '8 hours')
    FROM places p CROSS JOIN users u WHERE u.username = 'nurse';
INSERT INTO ladders (place_id, priority, steps) SELECT id, 3, '[]' FROM places;
INSERT INTO contacts (user_id, channel, address) SELECT id, 'sms', '1' FROM users;
INSERT INTO contacts (place_id, office, channel, address)
    SELECT id, 'robot', 'wecom', '1' FROM places;
INSERT INTO stations (user_id, screen, place_id, seen_at)
    SELECT id, 'wall', place_id, now() FROM users WHERE role <> 'family';
INSERT INTO self_tests (place_id) SELECT id FROM places;
INSERT INTO listening (began_at, until_at) VALUES
    (now() - interval '2 hours', now() - interval '1 hour'), (now() - interval '1 minute', now());
INSERT INTO person_keys (resident_id, id, master_id, index_id, wrapped)
    SELECT id, gen_random_uuid(), 'm', 'i', 'x'::bytea FROM residents;
INSERT INTO identities (resident_id, phone) SELECT id, 'x'::bytea FROM residents;
INSERT INTO relatives (id, resident_id, relation, name)
    SELECT gen_random_uuid(), id, 'daughter', 'x'::bytea FROM residents;
INSERT INTO consents (resident_id, purpose, scopes, given_by, how)
    SELECT id, 'care', '{status}', 'elder', 'paper' FROM residents;
INSERT INTO erasures (resident_id, place_id, requested_by)
    SELECT 9000 + p.id, p.id, u.id FROM places p CROSS JOIN users u WHERE u.username = 'admin';
INSERT INTO audit_waiting (user_id, role, path, action, object, object_id, residents)
    SELECT u.id, u.role, p.path, 'read', 'resident', r.id::text, ARRAY[r.id]
    FROM residents r CROSS JOIN users u LEFT JOIN places p ON p.id = u.place_id
    WHERE u.role <> 'family' OR u.username = 'family';
INSERT INTO audit (place, id, at, user_id, role, path, action, object, residents, fields, hash)
    SELECT u.id, 100000 + u.id, now(), u.id, u.role, p.path, 'read', 'status', '{}', '{}',
           sha256(u.username::bytea)
    FROM users u LEFT JOIN places p ON p.id = u.place_id;
INSERT INTO risk (resident_id, at, score, possible_max, complete, band, model, explanation)
    SELECT id, now(), 4, 9, false, 'low', 'm', '{}' FROM residents;
INSERT INTO risk_history (resident_id, at, score, possible_max, complete, band, priority, model)
    SELECT id, now(), 4, 9, false, 'low', 0, 'm' FROM residents;
INSERT INTO baselines (resident_id, at, layout, state, usual)
    SELECT id, now(), 'l', 'x'::bytea, '{}' FROM residents;
INSERT INTO observations (resident_id, at, by_id, oxygen)
    SELECT r.id, now(), u.id, false FROM residents r CROSS JOIN users u;
INSERT INTO model_modes (model, place_id, mode, why)
    SELECT 'novelty', id, 'off', 'test' FROM places;
INSERT INTO model_states (model, version, at) VALUES ('news2', '1', now());
INSERT INTO alarms (subject, resident_id, kind, class, priority, raised_at, last_at, event_at,
                    handling, outcome, closed_at)
    SELECT 'r' || id, id, 'early_warning', 'physiological', 2, now(), now(), now(), 'closed', 'real',
           now() FROM residents;
UPDATE places SET phone = '110' WHERE kind IN ('district', 'facility');
INSERT INTO visits (resident_id, kind, at, recorded_by)
    SELECT r.id, 'bath', now(), u.id FROM residents r CROSS JOIN users u;
INSERT INTO quiet_hours (user_id, from_, until_) SELECT id, '22:00', '06:30' FROM users;
INSERT INTO imports (id, kind, name, created_by, expires_at, applied_at)
    SELECT gen_random_uuid(), 'residents', n::text, u.id, now() + interval '1 day', now()
    FROM users u CROSS JOIN generate_series(1, 2) AS n WHERE n = 1 OR u.username = 'admin';
INSERT INTO limit_templates (place_id, name, limits) SELECT id, 'night', '{}'::jsonb FROM places
    UNION ALL SELECT NULL, 'everywhere', '{}';
INSERT INTO backups (made_at, file, bytes, rows, tables, encrypted, version, verified_at)
    VALUES (now(), 'a.backup', 1, 1, 1, false, '1', now());
INSERT INTO login_attempts (username, address) VALUES ('somebody', '127.0.0.1');
INSERT INTO tickets (token_hash, session_hash, expires_at)
    SELECT sha256(token_hash), token_hash, now() + interval '1 minute' FROM sessions;
"""
# Tables of accounts and of the enrolment of devices: filled where there are such.
_FILL_WHERE_THERE = {
    "second_factors": (
        "INSERT INTO second_factors (user_id, master_id, secret) SELECT id, 'm', 'x'::bytea FROM users"
    ),
    "outside_identities": (
        "INSERT INTO outside_identities (provider, issuer, subject, user_id)"
        " SELECT 'p', 'https://p', username, id FROM users"
    ),
    "enrolments": (
        "INSERT INTO enrolments (code_hash, kind, place_id, created_by, expires_at)"
        " SELECT sha256(p.path::bytea), 'door', p.id, u.id, now() + interval '1 day'"
        " FROM places p CROSS JOIN users u WHERE u.username = 'admin'"
    ),
}


def populate(dsn: str) -> World:
    """Fill a database with two facilities, a row of everything in each, and users of every kind."""
    world = settle(dsn)
    world.resident("ada", "A")
    for name, role, place in (
        ("admin-a", "admin", "A"), ("supervisor-b", "supervisor", "B"), ("disabled", "nurse", "A"),
        ("expired", "nurse", "A"), ("limited", "nurse", "A"), ("placeless", "nurse", None),
    ):  # fmt: skip
        world.user(name, role, place)
    for scope in ("status", "vitals", "alarms", "events"):
        world.user(f"family-{scope}", "family")
        world.link(f"family-{scope}", "anna", scope)
    for name in ("stranger", "withdrawn", "lapsed", "family-b"):
        world.user(name, "family")
    # A relative who is said to belong to a place is shown nothing of it all the same.
    world.user("family-placed", "family", "A")
    everything = ("status", "vitals", "alarms", "events")
    world.link("withdrawn", "anna", *everything)
    world.link("lapsed", "anna", *everything)
    world.link("family-b", "bela", *everything)
    world.device("mat-anna", "A", "anna")
    world.device("mat-bela", "B", "bela")
    world.device("with-ada", None, "ada")
    # Assigned across facilities: it is where it stands, and with whom it is.
    world.device("lent", "B", "anna")
    world.device("spare-a", "A bed")
    world.device("spare-b", "B")
    world.device("in-stock", None)
    world.device("formerly", "B", "anna", since_days=9)
    for name in ("anna", "bela", "ada"):
        world.alarm(name)
    user = {name: int(number) for name, number in world.ids.items()}
    with world.sql(autocommit=False) as connection:
        connection.execute(
            b"UPDATE assignments a SET during = tstzrange(lower(during), now() - interval '2 days')"
            b" FROM devices d WHERE d.key = a.device_key AND d.id = 'formerly'"
        )
        connection.execute(
            b"UPDATE consents SET withdrawn_at = now() WHERE user_id = %s", [user["withdrawn"]]
        )
        connection.execute(_FILL.encode())
        tables = {one["name"] for one in relations(connection)}
        for table, statement in _FILL_WHERE_THERE.items():
            if table in tables:
                connection.execute(statement.encode())
        for statement, name in (
            ("UPDATE users SET disabled_at = now() WHERE id = %s", "disabled"),
            (
                "UPDATE sessions SET expires_at = now() - interval '1 s' WHERE user_id = %s",
                "expired",
            ),
        ):
            connection.execute(statement.encode(), [user[name]])
        if has_column(connection, "sessions", "limited"):
            connection.execute(
                b"UPDATE sessions SET limited = 'password' WHERE user_id = %s", [user["limited"]]
            )
        # Time passes, as no trigger lets us pretend.
        connection.execute(b"SET LOCAL session_replication_role = replica")
        connection.execute(
            b"UPDATE consents SET given_at = now() - interval '2 days',"
            b" until_at = now() - interval '1 hour' WHERE user_id = %s",
            [user["lapsed"]],
        )
        connection.execute(
            b"UPDATE family_links SET ends = array_fill(now() - interval '1 hour',"
            b" ARRAY[cardinality(scopes)]) WHERE user_id = %s",
            [user["lapsed"]],
        )
    # A connection of nobody, and one with a session that never was.
    world.tokens |= {"nobody": "", "forged": "a guess"}
    return world


def has_column(connection: Connection, table: str, column: str) -> bool:
    """Tell whether a table has a column."""
    query = (
        b"SELECT FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s"
        b" AND NOT attisdropped"
    )
    return connection.execute(query, [table, column]).fetchone() is not None


@dataclass(frozen=True, slots=True)
class Viewer:
    """A user with a session, or nobody, before all that is stored."""

    name: str
    user: Row | None
    stored: Stored

    @property
    def id(self) -> int | None:
        """The number of the user."""
        return self.user["id"] if self.user else None

    @property
    def everywhere(self) -> bool:
        """Whether this is an administrator of everything."""
        return self.staff and self.user is not None and self.role == "admin" and self.place is None

    @property
    def staff(self) -> bool:
        """Whether this is somebody, and not a relative."""
        return self.user is not None and self.role != "family"

    @property
    def role(self) -> str | None:
        """The role of the user."""
        return self.user["role"] if self.user else None

    @property
    def place(self) -> int | None:
        """The place that staff belongs to."""
        return self.user["place_id"] if self.user and self.staff else None

    def may(self, *rights: str) -> bool:
        """Tell whether the role has one of these rights."""
        held = {one["right_"] for one in self.stored["role_rights"] if one["role"] == self.role}
        return bool(held & set(rights))

    def find(self, table: str, number: int | None, key: str = "id") -> Row | None:
        """Return the row of a table with this number, if any."""
        return next((row for row in self.stored[table] if row[key] == number), None)

    def way_up(self, place: int | None) -> list[int]:
        """Return a place and all those around it."""
        found = []
        while place is not None:
            found.append(place)
            row = self.find("places", place)
            assert row is not None
            place = row["parent_id"]
        return found

    def under(self, place: int | None) -> bool:
        """Tell whether a place is the own one or inside it."""
        return self.everywhere or (self.place is not None and self.place in self.way_up(place))

    def along(self, place: int | None) -> bool:
        """Tell whether a place is inside the own one or around it."""
        return self.under(place) or (place is not None and place in self.way_up(self.place))

    def consenting(self, scope: str) -> set[int]:
        """Return who lets this relative see a side of them now."""
        return {
            one["resident_id"]
            for one in self.stored["consents"]
            if self.user and self.role == "family" and one["user_id"] == self.id
            and scope in one["scopes"] and one["withdrawn_at"] is None
            and (one["until_at"] is None or moment(one["until_at"]) > datetime.now(UTC))
        }  # fmt: skip

    def cares_for(self, resident: int) -> bool:
        """Tell whether a resident lives inside the own place."""
        row = self.find("residents", resident)
        return row is not None and self.under(row["place_id"])

    def sees(self, resident: int, scope: str) -> bool:
        """Tell whether staff or a relative sees this side of a resident."""
        return self.cares_for(resident) or resident in self.consenting(scope)

    def with_whom(self, device: int, at: datetime) -> int | None:
        """Return the resident who had a device at a moment."""
        for one in self.stored["assignments"]:
            begins, ends = moment(one["begins"]), one["ends"] and moment(one["ends"])
            if one["device_key"] == device and begins <= at and (ends is None or at < ends):
                return int(one["resident_id"])
        return None

    def stands_here(self, device: int | None) -> bool:
        """Tell whether a device stands inside the own place."""
        row = self.find("devices", device, "key")
        return self.everywhere or (row is not None and self.under(row["place_id"]))

    def has_device(self, device: int) -> bool:
        """Tell whether a device stands here or is with somebody who lives here."""
        resident = self.with_whom(device, datetime.now(UTC))
        return self.stands_here(device) or (resident is not None and self.cares_for(resident))

    def watches(self, device: int) -> bool:
        """Tell whether a device is staff's, or now with a resident who lets its state be seen."""
        resident = self.with_whom(device, datetime.now(UTC))
        return self.has_device(device) or resident in self.consenting("status")

    def sees_device(self, device: Row) -> bool:
        """Tell whether this viewer sees a device; a relative also those of before."""
        return self.has_device(device["key"]) or any(
            one["device_key"] == device["key"] and one["resident_id"] in self.consenting("status")
            for one in self.stored["assignments"]
        )

    def sees_event(self, row: Row) -> bool:
        """Tell whether an event is of somebody whose events one sees, or of a device here."""
        resident = self.with_whom(row["device_key"], moment(row["ts"]))
        if resident is None or self.everywhere:
            return self.stands_here(row["device_key"])
        return self.sees(resident, "events")

    def sees_alarm(self, alarm: Row | None) -> bool:
        """Tell whether an alarm's subject is seen."""
        if self.everywhere or alarm is None:
            return self.everywhere
        if alarm["resident_id"] is not None:
            return self.sees(alarm["resident_id"], "alarms")
        if alarm["place_id"] is not None:
            return self.under(alarm["place_id"])
        return self.stands_here(alarm["device_key"])

    def knows(self, user: Row) -> bool:
        """Tell whether another user is seen at all."""
        linked = [x for x in self.stored["family_links"] if x["user_id"] == user["id"]]
        return (self.id is not None and user["id"] == self.id) or self.along(user["place_id"]) or (
            self.staff and (self.place is not None or self.everywhere) and (
                (user["role"] == "admin" and user["place_id"] is None)
                or any(self.cares_for(link["resident_id"]) for link in linked)
            )
        )  # fmt: skip

    def manages(self, number: int) -> bool:
        """Tell whether another user's account may be changed."""
        user = self.find("users", number)
        assert user is not None
        return (
            self.may("users.write")
            and (user["role"] == "family" or self.role == "admin")
            and self.under(user["place_id"])
        )

    def reaches_contact(self, row: Row) -> bool:
        """Tell whether a way of reaching somebody is the own one, or of one's house."""
        user = self.find("users", row["user_id"])
        return (self.id is not None and row["user_id"] == self.id) or (self.may("contacts.write") and (
            self.under(row["place_id"]) if user is None else self.under(user["place_id"])
        ))  # fmt: skip

    def reads_audit(self, row: Row) -> bool:
        """Tell whether an entry of the audit is the own house's."""
        way = "".join(f"{place}/" for place in reversed(self.way_up(self.place)))
        return self.may("audit.read") and (row["path"] or "/").startswith(f"/{way}")


def moment(text: str) -> datetime:
    """Return a time as the database writes it."""
    return datetime.fromisoformat(text)


def _of_alarm(v: Viewer, row: Row) -> bool:
    return v.sees_alarm(v.find("alarms", row["alarm_id"]))


def _person(right: str) -> Callable[[Viewer, Row], bool]:
    return lambda v, r: v.may(right) and v.sees(r["resident_id"], "status")


VISIBLE: dict[str, Callable[[Viewer, Row], bool]] = {
    "schema_migrations": lambda _, __: True,
    "role_rights": lambda _, __: True,
    "places": lambda v, r: v.along(r["id"]) or any(
        one["place_id"] == r["id"] and one["id"] in v.consenting("status")
        for one in v.stored["residents"]
    ),
    "residents": lambda v, r: v.sees(r["id"], "status"),
    "family_links": lambda v, r: (
        (v.id is not None and r["user_id"] == v.id) or v.cares_for(r["resident_id"])
    ),
    "users": lambda v, r: v.knows(r),
    "sessions": lambda v, r: (v.id is not None and r["user_id"] == v.id) or v.manages(r["user_id"]),
    "assignments": lambda v, r: (
        v.sees(r["resident_id"], "status") or v.stands_here(r["device_key"])
    ),
    "devices": lambda v, r: v.sees_device(r),
    "device_states": lambda v, r: v.watches(r["device_key"]),
    "latest": lambda v, r: v.watches(r["device_key"]),
    "events": lambda v, r: v.sees_event(r),
    "commands": lambda v, r: v.may("devices.read") and v.has_device(r["device_key"]),
    "quarantine": lambda v, r: v.may("quarantine.read") and (v.everywhere or any(
        one["id"] == r["device_id"] and v.sees_device(one) for one in v.stored["devices"]
    )),
    "alarms": lambda v, r: v.sees_alarm(r),
    "timeline": lambda v, r: v.may("timeline.read") and _of_alarm(v, r),
    "receipts": _of_alarm,
    "deliveries": lambda v, r: v.may("timeline.read") and _of_alarm(v, r),
    "escalations": lambda v, r: v.may("timeline.read") and _of_alarm(v, r),
    "shifts": lambda v, r: v.may("roster.read") and v.along(r["place_id"]),
    "ladders": lambda v, r: v.may("roster.read") and v.along(r["place_id"]),
    "contacts": lambda v, r: v.reaches_contact(r),
    "stations": lambda v, r: (
        (v.id is not None and r["user_id"] == v.id)
        or (v.may("stations.read") and v.under(r["place_id"]))
    ),
    "self_tests": lambda v, r: v.may("stations.read") and v.under(r["place_id"]),
    "listening": lambda v, _: v.user is not None,
    "person_keys": _person("people.read"),
    "identities": _person("people.read"),
    "relatives": _person("people.read"),
    "consents": lambda v, r: _person("family.write")(v, r) or (
        v.role == "family" and r["user_id"] == v.id
    ),
    "visits": lambda v, r: v.may("visits.read") and v.sees(r["resident_id"], "events"),
    "quiet_hours": lambda v, r: v.may("quiet.choose") and r["user_id"] == v.id,
    "erasures": lambda v, r: v.may("administer") and v.under(r["place_id"]),
    "audit": lambda v, r: v.reads_audit(r),
    "audit_waiting": lambda v, r: v.reads_audit(r),
    "second_factors": lambda v, r: (
        (v.id is not None and r["user_id"] == v.id) or v.manages(r["user_id"])
    ),
    "outside_identities": lambda v, r: v.may("administer") and v.manages(r["user_id"]),
    "enrolments": lambda v, r: v.may("devices.read") and v.under(r["place_id"]),
    "risk": lambda v, r: v.may("vitals.read") and v.sees(r["resident_id"], "vitals"),
    "risk_history": lambda v, r: v.may("vitals.read") and v.sees(r["resident_id"], "vitals"),
    "baselines": lambda v, r: v.may("vitals.read") and v.sees(r["resident_id"], "vitals"),
    "observations": lambda v, r: v.may("assess") and v.cares_for(r["resident_id"]),
    "model_modes": lambda v, r: v.may("reports.read") and (
        r["place_id"] is None or v.along(r["place_id"])
    ),
    "model_states": lambda v, _: v.may("reports.read"),
    "risk_feedback": lambda v, r: v.sees_alarm(v.find("alarms", r["alarm_id"])),
    "imports": lambda v, r: (
        v.id is not None and r["created_by"] == v.id and v.may("imports.write")
    ),
    "limit_templates": lambda v, r: v.may("limits.write") and (
        r["place_id"] is None or v.along(r["place_id"])
    ),
    "backups": lambda v, _: v.may("administer"),
    "device_monitoring": lambda v, r: any(
        one["key"] == r["device_key"] and v.sees_device(one) for one in v.stored["devices"]
    ),
    "deaf_spells": lambda v, _: v.user is not None,
    "audit_log": lambda v, r: v.reads_audit(r),
}  # fmt: skip
"""Whether somebody should see a row, by table and view."""

_HANDLING = ("alarms.acknowledge", "alarms.close", "alarms.snooze")
WRITABLE: dict[str, Callable[[Viewer, Row], bool]] = {
    "places": lambda v, r: v.may("places.write") and v.under(r["id"]),
    "residents": lambda v, r: v.may("residents.write", "limits.write") and v.cares_for(r["id"]),
    "users": lambda v, r: v.manages(r["id"]),
    "sessions": VISIBLE["sessions"],
    "assignments": lambda v, r: v.may("devices.write") and VISIBLE["assignments"](v, r),
    "devices": lambda v, r: v.may("devices.write") and v.has_device(r["key"]),
    "commands": lambda v, r: v.may("devices.write") and v.has_device(r["device_key"]),
    "alarms": lambda v, r: v.may(*_HANDLING) and v.sees_alarm(r),
    "timeline": lambda v, r: v.may(*_HANDLING) and _of_alarm(v, r),
    "shifts": lambda v, r: v.may("roster.write") and v.under(r["place_id"]),
    "ladders": lambda v, r: v.may("roster.write") and v.under(r["place_id"]),
    "contacts": lambda v, r: v.reaches_contact(r),
    "person_keys": _person("people.write"),
    "identities": _person("people.write"),
    "relatives": _person("people.write"),
    "consents": _person("family.write"),
    "visits": lambda v, r: v.may("visits.write") and v.sees(r["resident_id"], "events"),
    "quiet_hours": VISIBLE["quiet_hours"],
    "erasures": lambda v, r: v.may("administer") and v.under(r["place_id"]),
    "second_factors": lambda v, r: v.manages(r["user_id"]),
    "outside_identities": VISIBLE["outside_identities"],
    "enrolments": lambda v, r: v.may("devices.write") and v.under(r["place_id"]),
    "observations": VISIBLE["observations"],
    "model_modes": lambda v, r: v.may("models.write") and v.under(r["place_id"]),
    "imports": VISIBLE["imports"],
    "limit_templates": lambda v, r: v.may("limits.write") and v.under(r["place_id"]),
}
"""Whether somebody may add, change or remove a row, or one like it."""

CHANGES = {
    "places": "name = 'x'",
    "quiet_hours": "only_urgent = true",
    "residents": "note = 'x'",
    "users": "disabled_at = now()",
    "assignments": "during = tstzrange('2020-01-01', '2020-01-02')",
    "devices": "name = 'x'",
    "alarms": "snoozed_until = now()",
    "ladders": "lease_seconds = 700",
    "contacts": "enabled = false",
    "identities": "phone = NULL",
    "consents": "withdrawn_by = {me}",
    "erasures": "refused_at = now()",
    "enrolments": "withdrawn_at = now()",
    "model_modes": "since = now(), by_id = {me}",
    "imports": "done = 1",
    "limit_templates": "limits = '[]'",
}
"""A change of every row of a table that reads no column: only policies can keep it in bounds."""


def read(connection: Connection, tables: dict[str, list[str]]) -> Stored:
    """Return every row of these tables as who sees everything sees them, with `shown` beside."""
    stored: Stored = {}
    for table, columns in tables.items():
        extra = (
            ", lower(t.during) AS begins, upper(t.during) AS ends" if table == "assignments" else ""
        )
        query = f"SELECT {shown(columns)} AS shown, to_jsonb(x) AS row_ FROM (SELECT t.*{extra} FROM {table} t) AS x"
        stored[table] = [
            row["row_"] | {"shown": row["shown"]}
            for row in connection.execute(query.encode()).fetchall()
        ]
    return stored


def shown(columns: list[str]) -> str:
    """Return the expression that makes one text of the columns by which a row is known."""
    return f"jsonb_build_array({', '.join(columns)})::text"


def readable(connection: Connection) -> dict[str, list[str]]:
    """Return the columns that a request may read, by table and view."""
    query = b"""
        SELECT c.relname AS name, array_agg(quote_ident(a.attname) ORDER BY a.attnum) AS columns
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
          AND NOT a.attisdropped AND has_column_privilege('anxin_api', c.oid, a.attnum, 'SELECT')
        GROUP BY c.relname ORDER BY c.relname
    """
    return {
        row["name"]: [KEYS[row["name"]]] if row["name"] in KEYS else row["columns"]
        for row in connection.execute(query).fetchall()
    }


def writable(connection: Connection, command: str) -> dict[str, list[str]]:
    """Return the columns that a request may INSERT or UPDATE, by table; for DELETE the tables."""
    query = b"""
        SELECT c.relname AS name, array_agg(quote_ident(a.attname) ORDER BY a.attnum) AS columns
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
          AND NOT a.attisdropped AND a.attidentity <> 'a' AND a.attgenerated = ''
          AND CASE WHEN %(command)s = 'DELETE'
                   THEN has_table_privilege('anxin_api', c.oid, 'DELETE')
                   ELSE has_column_privilege('anxin_api', c.oid, a.attnum, %(command)s) END
        GROUP BY c.relname ORDER BY c.relname
    """
    rows = connection.execute(query, {"command": command}).fetchall()
    return {row["name"]: row["columns"] for row in rows}


def viewers(world: World, stored: Stored) -> list[Viewer]:
    """Return everybody who has a token, and the rows of whoever it still stands for."""
    found = []
    with world.sql() as connection:
        limits = has_column(connection, "sessions", "limited")
    gone = {"disabled", "expired", "nobody", "forged"} | ({"limited"} if limits else set())
    for name in world.tokens:
        user = next((one for one in stored["users"] if one["username"] == name), None)
        found.append(Viewer(name, None if name in gone else user, stored))
    return found


@contextmanager
def acting(connection: Connection, world: World, name: str) -> Iterator[None]:
    """Be a request of somebody, inside an open transaction, until the end of the block."""
    token = world.tokens[name]
    connection.execute(b"SET LOCAL ROLE anxin_api")
    connection.execute(
        b"SELECT set_config('anxin.session', %s, true)", [hash_token(token).hex() if token else ""]
    )
    try:
        yield
    finally:
        if connection.info.transaction_status != psycopg.pq.TransactionStatus.INERROR:
            connection.execute(b"RESET ROLE")


def wrong_reads(
    connection: Connection, world: World, people: list[Viewer], tables: dict[str, list[str]],
    expected: dict[tuple[str, str], set[str]],
) -> Iterator[str]:  # fmt: skip
    """Compare what each sees of these tables with what they should see; yield each difference."""
    for viewer in people:
        seen = {}
        with connection.transaction(force_rollback=True), acting(connection, world, viewer.name):
            for table, columns in tables.items():
                query = f"SELECT {shown(columns)} AS shown FROM {table}"
                rows = connection.execute(query.encode()).fetchall()
                seen[table] = {row["shown"] for row in rows}
        for table, found in seen.items():
            should = expected[viewer.name, table]
            if found != should:
                yield (
                    f"{viewer.name} sees {len(found - should)} rows of {table} too many,"
                    f" {len(should - found)} too few: {sorted(found ^ should)[:3]}"
                )


def expectations(
    people: list[Viewer], tables: dict[str, list[str]]
) -> dict[tuple[str, str], set[str]]:
    """Return what each should see of each table, as `shown`."""
    return {
        (viewer.name, table): {
            row["shown"] for row in viewer.stored[table] if VISIBLE[table](viewer, row)
        }
        for viewer in people
        for table in tables
    }


def wrong_changes(
    connection: Connection, world: World, people: list[Viewer], only: str | None = None
) -> Iterator[str]:
    """Let each change and remove whole tables; yield what reached rows beyond their reach."""
    changes = writable(connection, "UPDATE")
    removals = writable(connection, "DELETE")
    for viewer in people:
        for table in [one for one in changes if only in (None, one)]:
            change = f"UPDATE {table} SET {CHANGES[table].format(me=viewer.id or 'NULL')}"
            yield from _beyond(connection, world, viewer, table, change)
        for table in [one for one in removals if only in (None, one)]:
            yield from _beyond(connection, world, viewer, table, f"DELETE FROM {table}")


def _beyond(
    connection: Connection, world: World, viewer: Viewer, table: str, statement: str
) -> Iterator[str]:
    key = "key" if table == "devices" else "user_id" if table in _BY_USER else "id"
    key = "resident_id" if table == "identities" else key
    here = f"SELECT {key}::text AS key, ctid::text AS place FROM {table}".encode()
    with connection.transaction(force_rollback=True):
        before = connection.execute(here).fetchall()
        try:
            with acting(connection, world, viewer.name):
                connection.execute(statement.encode())
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.IntegrityError):
            return
        after = connection.execute(here).fetchall()
    # A changed row lies somewhere else, a removed one nowhere.
    rows = {row["key"] for row in before if row not in after}
    hit = [row for row in viewer.stored[table] if str(row[key]) in rows]
    if wrong := [row[key] for row in hit if not WRITABLE[table](viewer, row)]:
        yield f"{viewer.name}: {statement!r} reaches {len(wrong)} rows beyond ({wrong[:3]})"


_BY_USER = ("sessions", "second_factors", "quiet_hours")


def wrong_additions(
    connection: Connection, world: World, people: list[Viewer], only: str | None = None
) -> Iterator[str]:
    """Let each add rows like those of others; yield what the policies let through."""
    for table, columns in writable(connection, "INSERT").items():
        if only not in (None, table):
            continue
        values = ", ".join(["%L"] * len(columns))
        made = f"format('({values})', {', '.join(columns)}) AS made"
        query = f"SELECT {made}, to_jsonb(t) AS row_ FROM {table} t"
        rows = connection.execute(query.encode().replace(b"%", b"%%"), []).fetchall()
        for viewer in people:
            for row in rows:
                if WRITABLE[table](viewer, row["row_"]):
                    continue
                statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES {row['made']}"
                with connection.transaction(force_rollback=True):
                    try:
                        with acting(connection, world, viewer.name):
                            connection.execute(statement.encode())
                    except psycopg.errors.InsufficientPrivilege:
                        continue
                    except psycopg.errors.IntegrityError:
                        pass  # the policy had let it through
                yield f"{viewer.name} may add a row to {table} like {row['row_']}"


def weakened(table: str, rule: dict[str, Any]) -> sql.Composed:
    """Return the statement that opens a policy to every row."""
    parts = {"r": "USING (true)", "d": "USING (true)", "a": "WITH CHECK (true)"}
    text = parts.get(rule["command"], "USING (true) WITH CHECK (true)")
    return sql.SQL("ALTER POLICY {} ON {} " + text).format(
        sql.Identifier(rule["name"]), sql.Identifier(table)
    )

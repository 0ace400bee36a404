"""Who did and was shown what: every route, every table, and in the words of a family."""

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from anxin.audit import Signer
from anxin.config import Settings
from anxin.db.audit import Chainer
from anxin.db.pool import Database
from anxin.db.sessions import hash_token
from anxin.enrolment import hash_code, new_code, read_code
from anxin.keys import key_line
from anxin.seal import DataKeys, Place
from anxin.totp import code_of, new_secret, step_at
from api import recording
from api.app import create_app
from api.recording import KINDS, UNRECORDED
from tests.integration.api_world import ONE_PROVIDER, PASSWORD, Api, World, running, settle
from tests.waiting import eventually

KEYS = "\n".join(key_line(kind, datetime.now(UTC)) for kind in ("master", "index"))
LATER = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
OPENAPI = create_app(Settings(database="unused")).openapi()
ROUTES = {
    (method.upper(), path.removeprefix("/api/v1"))
    for path, methods in OPENAPI["paths"].items()
    for method in methods
}


@pytest_asyncio.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    world = settle(dsn)
    world.device("mat-anna", "A", "anna")
    async with running(world, environ={"data_keys": KEYS, **ONE_PROVIDER}) as serving:
        clear(world)
        yield serving


def clear(world: World) -> None:
    with world.sql() as connection:
        connection.execute(b"SET session_replication_role = replica")
        connection.execute(b"TRUNCATE audit_waiting, audit")


def entries(world: World) -> list[dict[str, Any]]:
    return world.ask("SELECT * FROM audit_log ORDER BY id")


def brief(world: World) -> list[tuple[Any, ...]]:
    """Return what was recorded: who, action, object, id, residents, fields."""
    names = {int(number): name for name, number in world.ids.items()
             if name in ("admin", "supervisor", "nurse", "nurse-b", "family")}  # fmt: skip
    return [
        (names.get(one["user_id"]), one["action"], one["object"], one["object_id"],
         one["residents"], one["fields"])
        for one in entries(world)
    ]  # fmt: skip


def test_every_route_says_what_it_shows_or_why_that_needs_no_entry() -> None:
    paths = {path for _, path in ROUTES} | {"/openapi.json"}
    assert not paths - KINDS.keys() - UNRECORDED.keys()
    assert not KINDS.keys() & UNRECORDED.keys()
    assert all(UNRECORDED.values())


# What a row of each table is about is told where a person changes it; the others need no entry.
NOT_PERSONS: dict[str, str] = {
    "alarms": "a person's act is a line of the timeline",
    "sessions": "logins and logouts are recorded by the API",
    "tickets": "the stream that a ticket opens is recorded",
    "login_attempts": "failed logins are recorded by the API",
    "stations": "what a screen says of itself",
    "receipts": "what a screen says of itself",
    "device_states": "devices write it", "latest": "devices write it", "events": "devices write it",
    "telemetry": "devices write it", "quarantine": "devices write it",
    "device_changes": "machinery", "rollup_due": "machinery", "minute_rollup": "machinery",
    "hour_rollup": "machinery", "listening": "machinery", "self_tests": "machinery",
    "outbox": "machinery", "escalations": "machinery", "deliveries": "machinery",
    "receipt_news": "machinery",
    "schema_migrations": "the operator's", "person_keys": "made and destroyed with an identity",
    "erased_spans": "follows from an erasure",
    "second_factors": "the routes that set one up are recorded by the API",
    "recovery_codes": "the routes that make them are recorded by the API",
    "known_devices": "follows from a login", "outside_logins": "becomes a login, or nothing",
    "audit": "the audit itself", "audit_waiting": "the audit itself",
    "audit_checkpoints": "the audit itself",
    "imports": "the routes that take a list over are recorded by the API",
    "backups": "the operator's",
    "risk": "the worker writes it", "risk_history": "the worker writes it",
    "baselines": "the worker writes it", "model_states": "the worker writes it",
}  # fmt: skip


def test_every_table_is_audited_or_says_why_not(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT c.relname, EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid"
            " AND t.tgname = 'audited' AND t.tgenabled = 'O')"
            " FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace"
            " AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
        ).fetchall()
    assert not {name for name, audited in rows if not audited} - set(NOT_PERSONS)


Prepare = Callable[[World], dict[str, str]]


def _nothing(_: World) -> dict[str, str]:
    return {}


def _alarm(world: World) -> dict[str, str]:
    world.ask("DELETE FROM alarms")
    return {"alarm": world.alarm("anna", "bed_exit_long", "behavioural", 2)}


def _taken(world: World) -> dict[str, str]:
    ids = _alarm(world)
    world.ask(
        "UPDATE alarms SET handling = 'acknowledged', owner_id = %s WHERE id = %s",
        int(world.ids["nurse"]),
        int(ids["alarm"]),
    )
    return ids


def _row(name: str, table: str, columns: str, values: str) -> Prepare:
    """Return what puts a row into a table; in the values, {anna} stands for her number."""

    def make(world: World) -> dict[str, str]:
        query = (
            f"INSERT INTO {table} ({columns}) VALUES ({values.format(**world.ids)}) RETURNING id"
        )
        return {name: str(world.one(query))}

    return make


_contact = _row("contact", "contacts", "user_id, channel, address",
                "{supervisor}, 'webhook', 'http://127.0.0.1/'")  # fmt: skip
_shift = _row("shift", "shifts", "place_id, user_id, post, during",
              "{A}, {nurse}, 'first', tstzrange('2020-01-01', '2020-01-02')")  # fmt: skip
_ladder = _row("ladder", "ladders", "place_id, priority, steps", "{A}, 2, '[]'")
_relative = _row("relative", "relatives", "id, resident_id, relation, name",
                 "gen_random_uuid(), {anna}, 'son', ''")  # fmt: skip
_consent = _row("consent", "consents", "resident_id, purpose, scopes, given_by, how",
                "{anna}, 'care', ARRAY['status'], 'elder', 'paper'")  # fmt: skip
_visit = _row("visit", "visits", "resident_id, kind, at", "{anna}, 'bath', now()")
_rejected = _row("rejected", "quarantine", "received_at, device_id, kind, reason, size, payload",
                 "now(), 'mat-anna', 'telemetry', 'not JSON', 1, ''")  # fmt: skip
_enrolment = _row("enrolment", "enrolments", "code_hash, kind, place_id, created_by, expires_at",
                  "sha256(gen_random_uuid()::text::bytea), 'cuff', {A}, {supervisor},"
                  " now() + interval '1 hour'")  # fmt: skip
_template = _row("template", "limit_templates", "place_id, name, limits",
                 "{A}, gen_random_uuid()::text, '{{\"hr_high\": 111}}'")  # fmt: skip


def _list(world: World, whose: str = "supervisor") -> dict[str, str]:
    """Keep a list without any row, sealed as the API seals one."""
    id_ = str(uuid4())
    sheet = zlib.compress(b'{"kind":"devices","headings":[],"rows":[]}')
    master, sealed = DataKeys.parse(KEYS).seal(sheet, Place("imports", "content", id_))
    world.ask(
        "INSERT INTO imports (id, kind, name, created_by, expires_at, master_id, content)"
        " VALUES (%s, 'devices', 'x', %s, now() + interval '1 hour', %s, %s)",
        id_, int(world.ids[whose]), master, sealed,
    )  # fmt: skip
    return {"import": id_}


CODE = new_code()


def _code(world: World) -> dict[str, str]:
    made = _enrolment(world)
    plain = hash_code(read_code(CODE) or "")
    world.ask("UPDATE enrolments SET code_hash = %s WHERE id = %s", plain, int(made["enrolment"]))
    return made


_identity = _row("identity", "outside_identities", "user_id, provider, issuer, subject",
                 "{family}, 'hospital', 'https://p', gen_random_uuid()::text")  # fmt: skip
_erasure = _row("erasure", "erasures", "resident_id, requested_by", "{bela}, {supervisor}")


def _second(world: World) -> dict[str, str]:
    token = world.tokens["nurse"]
    hashed = hash_token(world.log_in("nurse"))
    world.tokens["nurse"] = token
    return {"session": str(world.one("SELECT id FROM sessions WHERE token_hash = %s", hashed))}


SECRET = new_secret()


def _factor(world: World, who: str, *, confirmed: bool) -> dict[str, str]:
    user_id = int(world.ids[who])
    place = Place("second_factors", "secret", str(user_id))
    master, sealed = DataKeys.parse(KEYS).seal(SECRET, place)
    world.ask("DELETE FROM second_factors WHERE user_id = %s", user_id)
    world.ask(
        "INSERT INTO second_factors (user_id, master_id, secret, confirmed_at)"
        " VALUES (%s, %s, %s, CASE WHEN %s THEN now() END)",
        user_id,
        master,
        sealed,
        confirmed,
    )
    return {}


def _begun(world: World) -> dict[str, str]:
    world.ids["code"] = code_of(SECRET, step_at(datetime.now(UTC)))
    return _factor(world, "nurse", confirmed=False)


CASES: dict[tuple[str, str], tuple[str, dict[str, Any] | None, Prepare, set[tuple[str, str]]]] = {
    ("POST", "/places"): (
        "supervisor", {"parent_id": "{A}", "kind": "room", "name": "1"}, _nothing,
        {("create", "place")}),
    ("PATCH", "/places/{place_id}"): (
        "supervisor", {"phone": "023-4980 0000"}, _nothing,
        {("change", "place")}),
    ("POST", "/residents/{resident_id}/visits"): (
        "nurse", {"kind": "bath", "at": LATER}, _nothing, {("create", "visit")}),
    ("DELETE", "/residents/{resident_id}/visits/{visit_id}"): (
        "nurse", None, _visit, {("delete", "visit")}),
    ("PUT", "/me/quiet-hours"): (
        "family", {"from": "22:00", "until": "06:30"}, _nothing, {("create", "quiet_hours")}),
    ("POST", "/residents"): (
        "supervisor", {"name": "x", "place_id": "{A}"}, _nothing, {("create", "resident")}),
    ("PATCH", "/residents/{resident_id}"): (
        "supervisor", {"note": "x", "limits": {"hr_high": 110}}, _nothing,
        {("change", "resident")}),
    ("POST", "/residents/{resident_id}/family"): (
        "admin", {"user_id": "{family}", "scopes": ["status"]}, _nothing,
        {("create", "family"), ("create", "consent"), ("change", "consent")}),
    ("DELETE", "/residents/{resident_id}/family/{user_id}"): (
        "supervisor", None, _nothing, {("delete", "family")}),
    ("PUT", "/residents/{resident_id}/identity"): (
        "supervisor", {"phone": "13800138000"}, _nothing, {("create", "identity")}),
    ("POST", "/residents/{resident_id}/identity/reveal"): (
        "supervisor", None, _nothing, {("reveal", "identity")}),
    ("POST", "/residents/{resident_id}/relatives"): (
        "supervisor", {"name": "x", "relation": "son"}, _nothing, {("create", "relative")}),
    ("DELETE", "/residents/{resident_id}/relatives/{relative_id}"): (
        "supervisor", None, _relative, {("delete", "relative")}),
    ("POST", "/residents/{resident_id}/erase"): ("admin", None, _nothing, {("create", "erasure")}),
    ("POST", "/erasures/{erasure_id}/refuse"): ("admin", None, _erasure, {("change", "erasure")}),
    ("POST", "/erasures/{erasure_id}/approve"): ("admin", None, _erasure, {("change", "erasure")}),
    ("POST", "/residents/{resident_id}/consents"): (
        "supervisor",
        {"purpose": "care", "scopes": ["status"], "given_by": "elder", "how": "paper"},
        _nothing, {("create", "consent")}),
    ("DELETE", "/residents/{resident_id}/consents/{consent_id}"): (
        "supervisor", None, _consent, {("change", "consent")}),
    ("POST", "/residents/{resident_id}/observations"): (
        "nurse", {"consciousness": "A"}, _nothing, {("create", "observation")}),
    ("PUT", "/models/{model_id}/mode"): (
        "supervisor", {"mode": "shadow", "place_id": "{A}", "why": "x"},
        lambda _: {"model": "novelty"},
        {("create", "model")}),
    ("POST", "/people/search"): (
        "supervisor", {"phone": "13800138000"}, _nothing, {("search", "identity")}),
    ("POST", "/imports"): (
        "supervisor", {"kind": "devices", "name": "x.csv", "content": "a2luZApjdWZmCg=="},
        _nothing, {("create", "import")}),
    ("POST", "/imports/{import_id}/mend"): (
        "supervisor", {}, _list, {("mend", "import")}),
    ("POST", "/imports/{import_id}/apply"): (
        "supervisor", None, _list, {("apply", "import")}),
    ("DELETE", "/imports/{import_id}"): ("supervisor", None, _list, {("delete", "import")}),
    ("POST", "/limit-templates"): (
        "supervisor", {"name": "x", "limits": {"hr_high": 110}}, _nothing,
        {("create", "limit_template")}),
    ("DELETE", "/limit-templates/{template_id}"): (
        "supervisor", None, _template, {("delete", "limit_template")}),
    ("POST", "/limit-templates/{template_id}/apply"): (
        "supervisor", {"resident_ids": ["{anna}"]}, _template,
        {("apply", "limit_template"), ("change", "resident")}),
    ("POST", "/users"): (
        "supervisor", {"username": "new", "password": PASSWORD, "role": "family"}, _nothing,
        {("create", "user")}),
    ("POST", "/devices"): ("supervisor", {"kind": "cuff"}, _nothing, {("create", "device")}),
    ("POST", "/enrolments"): ("supervisor", {"kind": "cuff"}, _nothing, {("create", "enrolment")}),
    ("DELETE", "/enrolments/{enrolment_id}"): (
        "supervisor", None, _enrolment, {("change", "enrolment")}),
    ("POST", "/enrol"): ("nobody", {"code": CODE}, _code, {("create", "enrolment")}),
    ("PATCH", "/devices/{device_id}"): (
        "supervisor", {"name": "x"}, _nothing, {("change", "device")}),
    ("POST", "/devices/{device_id}/secret"): (
        "supervisor", None, _nothing, {("change", "device")}),
    ("PUT", "/devices/{device_id}/assignment"): (
        "supervisor", {"resident_id": None}, _nothing, {("change", "assignment")}),
    ("POST", "/devices/{device_id}/commands"): (
        "supervisor", {"name": "blink"}, _nothing, {("create", "command")}),
    ("DELETE", "/devices/{device_id}"): ("supervisor", None, _nothing, {("change", "device")}),
    ("POST", "/alarms/{alarm_id}/acknowledge"): (
        "nurse", None, _alarm, {("acknowledged", "alarm")}),
    ("POST", "/alarms/{alarm_id}/arrive"): ("nurse", None, _alarm, {("on_site", "alarm")}),
    ("POST", "/alarms/{alarm_id}/close"): (
        "nurse", {"outcome": "real"}, _taken, {("closed", "alarm")}),
    ("POST", "/alarms/{alarm_id}/snooze"): (
        "nurse", {"until": LATER}, _alarm, {("snoozed", "alarm")}),
    ("POST", "/alarms/{alarm_id}/note"): ("nurse", {"text": "x"}, _alarm, {("note", "alarm")}),
    ("POST", "/contacts"): (
        "nurse", {"channel": "webhook", "address": "https://example.org/x"}, _nothing,
        {("create", "contact")}),
    ("PATCH", "/contacts/{contact_id}"): (
        "supervisor", {"enabled": False}, _contact, {("change", "contact")}),
    ("DELETE", "/contacts/{contact_id}"): (
        "supervisor", None, _contact, {("delete", "contact")}),
    ("POST", "/contacts/{contact_id}/test"): (
        "supervisor", None, _contact, {("test", "contact")}),
    ("POST", "/shifts?accept_gaps=true"): (
        "supervisor",
        {"items": [{"place_id": "{A}", "user_id": "{nurse}", "post": "first",
                    "begins_at": "2030-01-01T00:00:00Z", "ends_at": "2030-01-01T08:00:00Z"}]},
        _nothing, {("create", "shift")}),
    ("DELETE", "/shifts/{shift_id}?accept_gaps=true"): (
        "supervisor", None, _shift, {("delete", "shift")}),
    ("PUT", "/ladders"): (
        "supervisor",
        {"place_id": "{A}", "priority": "low",
         "steps": [{"after_seconds": 0, "audience": "wall", "channels": ["station"]}]},
        _nothing, {("create", "ladder")}),
    ("DELETE", "/ladders/{ladder_id}"): ("supervisor", None, _ladder, {("delete", "ladder")}),
    ("POST", "/users/{user_id}/identities"): (
        "admin", {"provider": "hospital", "subject": "x"}, _nothing,
        {("create", "outside_identity")}),
    ("DELETE", "/users/{user_id}/identities/{identity_id}"): (
        "admin", None, _identity, {("delete", "outside_identity")}),
    ("PATCH", "/users/{user_id}"): ("admin", {"disabled": True}, _nothing, {("change", "user")}),
    ("POST", "/auth/login"): (
        "nobody", {"username": "nurse", "password": PASSWORD}, _nothing, {("login", "session")}),
    ("POST", "/auth/step-up"): (
        "nurse", {"password": PASSWORD}, _nothing, {("step-up", "session")}),
    ("POST", "/me/totp"): ("nurse", None, _nothing, {("totp", "second_factor")}),
    ("POST", "/me/totp/confirm"): (
        "nurse", {"code": "{code}"}, _begun, {("confirm", "second_factor")}),
    ("DELETE", "/me/totp"): (
        "nurse", None, lambda w: _factor(w, "nurse", confirmed=True), {("totp", "second_factor")}),
    ("POST", "/me/password"): (
        "nurse", {"password": PASSWORD, "new": "another good one"}, _nothing,
        {("password", "password")}),
    ("POST", "/users/{user_id}/password"): (
        "admin", None, _nothing, {("password", "password"), ("change", "user")}),
    ("DELETE", "/users/{user_id}/sessions"): ("admin", None, _nothing, {("sessions", "session")}),
    ("DELETE", "/users/{user_id}/totp"): (
        "admin", None, lambda w: _factor(w, "family", confirmed=True),
        {("totp", "second_factor")}),
    ("DELETE", "/me/sessions"): ("nurse", None, _nothing, {("sessions", "session")}),
    ("DELETE", "/me/sessions/{session_id}"): (
        "nurse", None, _second, {("delete", "session")}),
    ("POST", "/auth/logout"): ("nurse", None, _nothing, {("logout", "session")}),
}  # fmt: skip
"""By route that changes something: who asks, with what, after which preparation; what is told."""


def test_every_route_that_changes_something_has_a_case() -> None:
    unsafe = {(method, path) for method, path in ROUTES if method not in ("GET", "HEAD")}
    cases = {(method, path.partition("?")[0]) for method, path in CASES}
    told = cases | ONLY_ASKING | {route for route in ROUTES if route[1] in UNRECORDED}
    assert not unsafe - told


ONLY_ASKING = {("POST", "/ladders/verdict")}
"""Questions that are too long for an address; nothing comes of them."""

BY_A_PROVIDER = {f"/auth/providers/{{provider}}/{word}" for word in ("login", "callback")}
"""Need a provider that answers: test_sign_in.py looks at what is told of them."""


def address(path: str, world: World, made: dict[str, str]) -> str:
    ids = {"resident": world.ids["anna"], "user": world.ids["family"], "device": "mat-anna",
           "place": world.ids["A"]} | made  # fmt: skip
    for name, number in ids.items():
        path = path.replace(f"{{{name}_id}}", number)
    return path.replace("{kind}", "residents")


def filled(body: Any, world: World) -> Any:
    if isinstance(body, dict):
        return {name: filled(value, world) for name, value in body.items()}
    if isinstance(body, list):
        return [filled(value, world) for value in body]
    if isinstance(body, str) and body.startswith("{"):
        return world.ids[body.strip("{}")]
    return body


async def test_every_change_by_a_person_is_told(api: Api) -> None:
    world = api.world
    anna = int(world.ids["anna"])
    for (method, path), (who, body, prepare, expected) in CASES.items():
        made = prepare(world)
        clear(world)
        answer = await api[who].request(
            method, address(path, world, made), json=filled(body, world)
        )
        assert answer.status_code < 300, (method, path, answer.text)
        if "access_token" in answer.text and who != "nobody":
            token = answer.json()["access_token"]
            api[who].headers["authorization"] = f"Bearer {token}"
        told = [one for one in entries(world) if one["action"] != "read"]
        told_of = {(one["action"], one["object"]) for one in told}
        assert expected <= told_of, (method, path, told_of)
        who = "nurse" if path == "/auth/login" else who
        user = None if who == "nobody" else int(world.ids[who])
        assert {one["user_id"] for one in told} == {user}, (method, path)
        if "resident_id" in path or "alarm" in path:
            assert {number for one in told for number in one["residents"]} == {anna}, path


async def test_every_read_is_told_unless_it_says_why_not(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = api.world
    anna, bela = (int(world.ids[name]) for name in ("anna", "bela"))
    made = _alarm(world) | _contact(world) | _rejected(world)
    made |= _list(world, "admin")
    shown = {"/residents": [anna, bela], "/erasures": [bela]}
    _erasure(world)
    # What no resident is named in: users, contacts, reports, raw payloads, the audit itself.
    without = ("/users", "/contacts", "/reports/answering", "/audit", "/quarantine", "/enrolments",
               "/quarantine/{rejected_id}", "/devices/{device_id}/commands",
               "/users/{user_id}/identities", "/reports/devices", "/imports",
               "/imports/{import_id}", "/imports/{import_id}/rows", "/exports/{kind}", "/backups",
               "/users/{user_id}/sessions")  # fmt: skip
    reads = {path for method, path in ROUTES if method == "GET"} - BY_A_PROVIDER
    for minute, path in enumerate(sorted(reads)):
        clear(world)
        monkeypatch.setattr(recording, "time", lambda minute=minute: 60.0 * minute)
        query = {"place_id": world.ids["A"]} if "verdict" in path else {}
        who = "family" if path == "/me/quiet-hours" else "admin"
        answer = await api[who].get(address(path, world, made), params=query)
        assert answer.status_code == 200, (path, answer.text)
        told = entries(world)
        if KINDS[path].unread:
            assert told == [], path
            continue
        assert len(told) == 1, path
        one = told[0]
        assert (one["user_id"], one["role"], one["path"]) == (int(world.ids["admin"]), "admin", "/")
        assert (one["action"], one["object"]) == ("read", KINDS[path].object), path
        assert one["residents"] == ([] if path in without else shown.get(path, [anna])), path


async def test_what_is_refused_is_told(api: Api) -> None:
    ids = api.world.ids
    await api["nurse"].get(f"/residents/{ids['bela']}/vitals")
    await api["nurse"].patch(f"/residents/{ids['anna']}", json={"note": "x"})
    await api["family"].get(f"/residents/{ids['bela']}/status")
    told = [(one["user_id"], one["action"], one["object"], one["status"], one["residents"])
            for one in entries(api.world)]  # fmt: skip
    anna, bela = int(ids["anna"]), int(ids["bela"])
    assert told == [
        (int(ids["nurse"]), "read", "vitals", 404, [bela]),
        (int(ids["nurse"]), "change", "resident", 403, [anna]),
        (int(ids["family"]), "read", "status", 404, [bela]),
    ]


async def test_logins_and_failures_are_told_without_the_name_that_was_tried(api: Api) -> None:
    for username, password in (("nurse", PASSWORD), ("nurse", "wrong"), ("Geheim-42", "x")):
        await api["nobody"].post("/auth/login", json={"username": username, "password": password})
    told = [(one["user_id"], one["action"], one["status"], one["address"])
            for one in entries(api.world)]  # fmt: skip
    nurse = int(api.world.ids["nurse"])
    assert told == [
        (nurse, "login", 200, "127.0.0.1"),
        (nurse, "login", 401, "127.0.0.1"),
        (None, "login", 401, "127.0.0.1"),
    ]
    assert "Geheim" not in str(entries(api.world))


async def test_a_change_tells_names_of_fields_and_no_values(api: Api) -> None:
    path = f"/residents/{api.world.ids['anna']}"
    await api["supervisor"].patch(path, json={"name": "Anna Geheim", "note": "vertraulich"})
    await api["supervisor"].patch(path, json={"note": "vertraulich"})
    (one,) = entries(api.world)
    assert one["fields"] == ["name", "note"]
    assert "Geheim" not in str(one)
    assert "vertraulich" not in str(one)


async def test_a_change_that_fails_leaves_no_entry_of_it(api: Api) -> None:
    world = api.world
    async with Database(world.dsn, role="anxin_api") as database:
        bound = database.on_behalf_of(
            world.one(
                "SELECT token_hash FROM sessions WHERE user_id = %s", int(world.ids["supervisor"])
            )
        )
        with contextlib.suppress(RuntimeError):
            async with bound.transaction() as connection:
                await connection.execute(b"UPDATE residents SET note = 'x'")
                raise RuntimeError
        assert entries(world) == []
        async with bound.transaction() as connection:
            await connection.execute(b"UPDATE residents SET note = 'x'")
    assert brief(world) == [
        ("supervisor", "change", "resident", world.ids["anna"], [int(world.ids["anna"])], ["note"])
    ]


async def test_who_changes_rights_in_the_database_itself_is_told(api: Api) -> None:
    api.world.ask("INSERT INTO role_rights VALUES ('nurse', 'administer')")
    (one,) = entries(api.world)
    assert (one["user_id"], one["action"], one["object"], one["channel"]) == (
        None, "create", "right", "database")  # fmt: skip
    assert one["role"] == "anxin", "the database's own user"


async def test_the_same_seen_again_in_the_same_minute_is_one_entry(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "time", lambda: 6_000_000.0)
    path = f"/residents/{api.world.ids['anna']}/status"
    await asyncio.gather(*(api["nurse"].get(path) for _ in range(20)))
    assert len(entries(api.world)) == 1
    await api["admin"].get(path)
    await api["nurse"].get(path.replace("status", "vitals"))
    assert len(entries(api.world)) == 3
    # A list tells only of those who were not told of yet.
    await api["admin"].get("/residents")
    api.world.resident("carl", "B")
    await api["admin"].get("/residents")
    assert entries(api.world)[-1]["residents"] == [int(api.world.ids["carl"])]
    monkeypatch.setattr(recording, "time", lambda: 6_000_060.0)
    await api["nurse"].get(path)
    assert len(entries(api.world)) == 6


async def test_what_cannot_be_recorded_is_not_shown(api: Api) -> None:
    path = f"/residents/{api.world.ids['anna']}/status"
    with api.world.sql(autocommit=False) as connection:
        connection.execute(b"LOCK TABLE audit_waiting IN ACCESS EXCLUSIVE MODE")
        reading = asyncio.create_task(api["nurse"].get(path))
        done, _ = await asyncio.wait([reading], timeout=1)
        assert not done, "the read waits for its entry"
        connection.rollback()
    assert (await reading).status_code == 200
    assert len(entries(api.world)) == 1


async def test_a_read_fails_when_its_entry_cannot_be_written(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/residents/{api.world.ids['anna']}/status"

    async def away(*_: object) -> None:
        raise recording.DatabaseUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(recording.Scribe, "write", away)
        answer = await api["nurse"].get(path)
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert "state" not in answer.json()
    # It was not told, so it is told now.
    assert (await api["nurse"].get(path)).status_code == 200
    assert len(entries(api.world)) == 1


async def test_a_defect_of_one_entry_does_not_end_the_audit(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/residents/{api.world.ids['anna']}/status"

    async def defect(*_: object) -> None:
        raise LookupError

    with monkeypatch.context() as patch:
        patch.setattr(recording.Scribe, "write", defect)
        assert (await api["nurse"].get(path)).status_code == 503
    assert (await api["nurse"].get(path)).status_code == 200
    assert len(entries(api.world)) == 1


async def test_a_stream_tells_that_it_was_opened_and_whom_it_showed(api: Api) -> None:
    world = api.world
    anna, bela = int(world.ids["anna"]), int(world.ids["bela"])

    def shown(user: str) -> set[int]:
        return {number for one in entries(world) for number in one["residents"]
                if one["user_id"] == int(world.ids[user]) and one["action"] == "show"}  # fmt: skip

    world.user("aunt", "family")
    world.link("aunt", "anna", "alarms")
    async with api.stream("aunt") as aunt:
        await aunt.next("ready")
        world.alarm("anna")
        await aunt.alarms(1)
        # She is shown no status, so it was the alarm.
        await eventually(lambda: shown("aunt") == {anna}, 10)
    world.ask("DELETE FROM alarms")
    clear(world)
    async with api.stream("nurse") as nurse, api.stream("admin") as admin:
        await nurse.next("ready")
        await admin.next("ready")
        opened = [one["object"] for one in entries(world) if one["action"] == "open"]
        assert opened == ["stream"] * 2
        # Each is shown how everybody is, first.
        await eventually(lambda: shown("nurse") == {anna} and shown("admin") == {anna, bela}, 10)
        count = len(entries(world))
        world.alarm("anna")
        await nurse.alarms(1)
        await admin.alarms(1)
        world.resident("carl", "A")
        world.alarm("carl")
        await nurse.alarms(1)
        carl = int(world.ids["carl"])
        await eventually(lambda: carl in shown("nurse") and carl in shown("admin"), 10)
        # Anna was told of in this hour.
        assert len(entries(world)) == count + 2
    assert shown("nurse-b") == set()


async def test_a_relative_reads_who_looked_in_plain_words(api: Api) -> None:
    world = api.world
    anna = world.ids["anna"]
    await api["nurse"].get(f"/residents/{anna}/vitals")
    await api["supervisor"].patch(f"/residents/{anna}", json={"care_level": 3})
    await api["nurse"].post(f"/alarms/{world.alarm('anna')}/acknowledge")
    world.user("brother", "family")
    world.link("brother", "anna", "status")
    await api["brother"].get(f"/residents/{anna}/status")
    await api["nurse-b"].get(f"/residents/{anna}/status")  # refused: she is not told of it
    clear_links = world.ids["bela"]
    await api["admin"].get(f"/residents/{clear_links}/status")  # somebody else
    answer = await api["family"].get(f"/residents/{anna}/access")
    assert answer.status_code == 200, answer.text
    said = [(one["zh"], one["en"]) for one in answer.json()["items"]]
    assert said == [
        ("家属查看了当前状态", "relative looked at the present state"),
        ("护理员 nurse（A）接警", "carer nurse of A took an alarm"),
        ("主管 supervisor（A）修改了资料：care_level",
         "supervisor supervisor of A changed the details: care_level"),
        ("护理员 nurse（A）查看了体征曲线", "carer nurse of A looked at the vital signs"),
    ]  # fmt: skip
    again = (await api["family"].get(f"/residents/{anna}/access", params={"limit": 2})).json()
    assert again["items"][0]["zh"] == "您本人查看了访问记录"
    rest = await api["family"].get(
        f"/residents/{anna}/access", params={"limit": 100, "after": again["next"]}
    )
    assert len(again["items"]) + len(rest.json()["items"]) == 5
    assert "brother" not in answer.text


async def test_only_who_may_know_is_told_who_looked(api: Api) -> None:
    world = api.world
    anna = world.ids["anna"]
    await api["nurse"].get(f"/residents/{anna}/status")
    path = f"/residents/{anna}/access"
    world.user("lead-b", "supervisor", "B")
    world.user("stranger", "family")
    expected = {"admin": 200, "supervisor": 200, "family": 200, "nurse": 403,
                "integrator": 403, "lead-b": 404, "stranger": 404, "nobody": 401}  # fmt: skip
    assert {who: (await api[who].get(path)).status_code for who in expected} == expected
    world.link("family", "anna", "alarms")
    assert (await api["family"].get(path)).status_code == 404, "without consent to be seen at all"


async def test_the_database_itself_keeps_who_looked_from_others(api: Api) -> None:
    world = api.world
    anna = int(world.ids["anna"])
    await api["nurse"].get(f"/residents/{anna}/status")
    counts = {}
    for who in ("admin", "supervisor", "family", "nurse", "nurse-b"):
        token = world.one("SELECT token_hash FROM sessions WHERE user_id = %s", int(world.ids[who]))
        async with Database(world.dsn, role="anxin_api") as database:
            bound = database.on_behalf_of(token)
            looked = await bound.fetch(
                b"SELECT * FROM access_to(%s, now() - interval '1 day', now(), NULL, 10)", [anna]
            )
            log = await bound.fetch(b"SELECT * FROM audit_log")
        counts[who] = (len(looked), len(log))
    assert counts == {"admin": (1, 1), "supervisor": (1, 0), "family": (1, 0), "nurse": (0, 0),
                      "nurse-b": (0, 0)}  # fmt: skip


async def test_an_administrator_of_a_place_reads_of_its_own_people_only(api: Api) -> None:
    world = api.world
    world.user("admin-a", "admin", "A")
    await api["nurse"].get(f"/residents/{world.ids['anna']}/status")
    await api["nurse-b"].get(f"/residents/{world.ids['bela']}/status")
    await api["admin"].get(f"/residents/{world.ids['bela']}/status")
    await api["family"].get(f"/residents/{world.ids['anna']}/status")
    own = (await api["admin-a"].get("/audit")).json()["items"]
    assert [one["username"] for one in own] == ["nurse"]
    assert (await api["supervisor"].get("/audit")).status_code == 403
    everything = (await api["admin"].get("/audit", params={"object": "status"})).json()["items"]
    assert [one["username"] for one in everything] == ["family", "admin", "nurse-b", "nurse"]
    of_anna = await api["admin"].get("/audit", params={"resident_id": world.ids["anna"]})
    assert {one["username"] for one in of_anna.json()["items"]} == {"family", "nurse"}


async def test_the_log_goes_on_from_page_to_page_while_it_is_chained(api: Api) -> None:
    world = api.world
    ids = world.ids
    for resident in ("anna", "bela"):
        for part in ("status", "vitals", "events"):
            await api["admin"].get(f"/residents/{ids[resident]}/{part}")
    chainer = Chainer(Signer(bytes(32)), None)
    async with Database(world.dsn, role="anxin_worker") as worker:
        before = (await api["admin"].get("/audit", params={"limit": 3})).json()
        assert [one["place"] for one in before["items"]] == [None] * 3
        await chainer.chain(worker)
        after = (
            await api["admin"].get("/audit", params={"limit": 3, "after": before["next"]})
        ).json()
    numbers = [one["id"] for one in before["items"] + after["items"]]
    assert numbers == sorted(numbers, key=int, reverse=True)
    assert len(set(numbers)) == 6
    assert [one["place"] for one in after["items"]] == [3, 2, 1]


async def test_removing_a_trigger_is_noticed(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        for (table,) in connection.execute(
            "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'audited'"
        ).fetchall():
            connection.execute(
                sql.SQL("ALTER TABLE {} DISABLE TRIGGER audited").format(sql.Identifier(table))
            )
        connection.commit()
    with pytest.raises(AssertionError):
        test_every_table_is_audited_or_says_why_not(dsn)

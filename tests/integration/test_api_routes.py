"""Every route as a user meets it: what works, and what is refused with which words."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest_asyncio

from tests.integration.api_world import PASSWORD, Api, running, settle
from tests.waiting import eventually


@pytest_asyncio.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    async with running(settle(dsn)) as serving:
        yield serving


def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Return the problem document of an answer that must have this status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert {"type", "title", "detail"} <= problem.keys()
    return problem


def done(answer: httpx.Response, status: int = 200) -> Any:
    """Return the JSON of an answer that must have this status."""
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


async def test_login_gives_a_token_and_a_strict_cookie(api: Api) -> None:
    login = {"username": "NURSE", "password": PASSWORD}
    answer = await api["nobody"].post("/auth/login", json=login)
    session = done(answer)
    assert session["user"] == {
        "id": api.world.ids["nurse"],
        "username": "nurse",
        "role": "nurse",
        "place_id": api.world.ids["A"],
        "disabled_at": None,
    }
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    stored = api.world.ask("SELECT token_hash FROM sessions")
    assert session["access_token"].encode() not in [row["token_hash"] for row in stored]
    bearer = {"authorization": f"Bearer {session['access_token']}"}
    assert done(await api["nobody"].get("/me", headers=bearer))["username"] == "nurse"


async def test_a_wrong_password_and_an_unknown_user_get_the_same_answer(api: Api) -> None:
    wrong = {"username": "nurse", "password": "wrong"}
    unknown = {"username": "nobody at all", "password": "wrong"}
    answers = [
        refused(await api["nobody"].post("/auth/login", json=login), 401)
        for login in (wrong, unknown)
    ]
    assert answers[0] == answers[1]
    assert "wrong" not in str(answers[0].get("errors", ""))


async def test_logout_ends_the_session(api: Api) -> None:
    done(await api["nurse"].post("/auth/logout"), 204)
    refused(await api["nurse"].get("/me"), 401)


async def test_an_expired_session_and_a_disabled_user_are_shut_out(api: Api) -> None:
    api.world.ask(
        "UPDATE sessions SET expires_at = now() WHERE user_id = %s", int(api.world.ids["nurse"])
    )
    refused(await api["nurse"].get("/me"), 401)
    done(await api["admin"].patch(f"/users/{api.world.ids['nurse-b']}", json={"disabled": True}))
    refused(await api["nurse-b"].get("/me"), 401)
    login = {"username": "nurse-b", "password": PASSWORD}
    refused(await api["nobody"].post("/auth/login", json=login), 401)


async def test_a_cookie_serves_our_pages_and_no_other_site(api: Api) -> None:
    cookie = {"cookie": f"anxin_session={api.world.tokens['nurse']}"}
    alarm = api.world.alarm("anna")
    path = f"/alarms/{alarm}/note"
    note = {"text": "looked in"}
    done(await api["nobody"].get("/me", headers=cookie))
    for headers in (
        {},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": api.address},
    ):
        refused(await api["nobody"].post(path, json=note, headers=cookie | headers), 403)
    for headers in ({"origin": api.address}, {"sec-fetch-site": "same-origin"}):
        done(await api["nobody"].post(path, json=note, headers=cookie | headers))
    lines = done(await api["nurse"].get(f"/alarms/{alarm}/timeline"))["items"]
    assert [line["channel"] for line in lines] == ["rule", "station", "station"]


async def test_places_are_a_tree_read_page_by_page(api: Api) -> None:
    body = {"parent_id": api.world.ids["A"], "kind": "room", "name": "101 房"}
    made = done(await api["supervisor"].post("/places", json=body), 201)
    assert made == {**body, "id": made["id"], "phone": None}
    assert done(await api["nurse"].get(f"/places/{made['id']}")) == made
    seen: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = done(await api["admin"].get("/places", params={"limit": "2"} | after))
        seen += page["items"]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert [place["name"] for place in seen] == ["district", "A", "A bed", "B", "101 房"]
    assert seen[0]["parent_id"] is None


async def test_bad_fields_are_named_and_their_values_never_repeated(api: Api) -> None:
    body = {"username": "x", "password": "short", "role": "king", "secret_thing": "hunter2"}
    problem = refused(await api["admin"].post("/users", json=body), 422)
    fields = {error["field"] for error in problem["errors"]}
    assert fields == {"body.password", "body.role", "body.secret_thing"}
    assert "hunter2" not in str(problem)
    assert "short'" not in str(problem)
    broken = await api["admin"].post(
        "/users", content=b"{", headers={"content-type": "application/json"}
    )
    refused(broken, 422)


async def test_texts_that_postgres_cannot_hold_are_refused(api: Api) -> None:
    place = api.world.ids["A"]
    device = f"/devices/{api.world.device('mat', 'A') and 'mat'}"
    alarm = api.world.alarm("anna")
    bad = {
        "/residents": {"name": "a\x00b", "place_id": place},
        "/places": {"name": "\x00", "kind": "room", "parent_id": place},
        f"/alarms/{alarm}/note": {"text": "\x00"},
        f"{device}/commands": {"name": "say", "args": {"a": ["\x00"]}},
    }
    for path, body in bad.items():
        refused(await api["admin"].post(path, json=body), 422)
    surrogate = b'{"name": "\\ud800", "place_id": "%s"}' % place.encode()
    headers = {"content-type": "application/json"}
    refused(await api["admin"].post("/residents", content=surrogate, headers=headers), 422)
    args = b'{"name": "say", "args": {"a": "\\ud800"}}'
    refused(await api["admin"].post(f"{device}/commands", content=args, headers=headers), 422)
    infinite = b'{"name": "say", "args": {"a": 1e999}}'
    refused(await api["admin"].post(f"{device}/commands", content=infinite, headers=headers), 422)
    refused(await api["admin"].get("/residents", params={"q": "\x00"}), 422)
    done(
        await api["admin"].post(
            f"{device}/commands", json={"name": "say", "args": {"a": "\\u0000"}}
        ),
        201,
    )


async def test_quoting_tricks_are_only_text(api: Api) -> None:
    name = "Robert'); DROP TABLE residents;-- %s %(x)s {unit}"
    body = {"name": name, "place_id": api.world.ids["A"]}
    made = done(await api["admin"].post("/residents", json=body), 201)
    found = done(await api["admin"].get("/residents", params={"q": "'); DROP"}))["items"]
    assert [one["name"] for one in found] == [name]
    assert found[0]["id"] == made["id"]
    refused(await api["admin"].get("/residents/1 OR 1=1"), 422)
    refused(await api["admin"].get("/alarms", params={"handling": "open' OR '1'='1"}), 422)


async def test_a_body_of_more_than_a_mebibyte_is_refused(api: Api) -> None:
    body = msgspec.json.encode({"name": "x" * 1_100_000, "place_id": "1"})
    headers = {"content-type": "application/json"}
    refused(await api["admin"].post("/residents", content=body, headers=headers), 413)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    refused(await api["admin"].post("/residents", content=chunks(), headers=headers), 413)


async def test_a_resident_needs_a_name_and_a_place_only(api: Api) -> None:
    body = {"name": " 王秀英 ", "place_id": api.world.ids["A bed"]}
    made = done(await api["integrator"].post("/residents", json=body), 201)
    assert made["name"] == "王秀英"
    assert made["sex"] == "unknown"
    assert made["born"] is None
    path = f"/residents/{made['id']}"
    change = {"born": "1938-05-17", "care_level": 3, "sex": "female", "fall_risk": True}
    assert done(await api["supervisor"].patch(path, json=change)).items() >= change.items()
    forgotten = done(await api["supervisor"].patch(path, json={"born": None, "care_level": None}))
    assert (forgotten["born"], forgotten["care_level"]) == (None, None)
    assert forgotten["sex"] == "female"
    assert done(await api["nurse"].get(path)) == forgotten
    here = done(await api["nurse"].get("/residents", params={"place_id": api.world.ids["A"]}))
    assert [one["name"] for one in here["items"]] == ["anna", "王秀英"]
    refused(await api["supervisor"].patch(path, json={"care_level": 5}), 422)
    refused(await api["supervisor"].patch(path, json={"born": "yesterday"}), 422)


async def test_limits_stay_inside_the_clinicians_bounds(api: Api) -> None:
    path = f"/residents/{api.world.ids['anna']}"
    limits = {"limits": {"hr_high": 110.0}}
    assert done(await api["supervisor"].patch(path, json=limits))["limits"] == limits["limits"]
    for bad in ({"hr_high": 500}, {"hr": 100}, {"hr_high": "high"}):
        refused(await api["supervisor"].patch(path, json={"limits": bad}), 422)
    refused(await api["integrator"].patch(path, json=limits), 403)


async def test_a_device_gets_its_secret_once_and_anew_after_revocation(api: Api) -> None:
    body = {"id": "mat-1", "kind": "bed_sensor", "name": "床垫", "place_id": api.world.ids["A"]}
    made = done(await api["integrator"].post("/devices", json=body), 201)
    assert made.keys() == {"id", "secret"}
    assert len(made["secret"]) == 43
    seen = done(await api["nurse"].get("/devices/mat-1"))
    assert "secret" not in str(seen)
    refused(await api["integrator"].post("/devices", json=body), 409)
    renewed = done(await api["integrator"].post("/devices/mat-1/secret"))
    assert renewed["secret"] != made["secret"]
    done(await api["integrator"].delete("/devices/mat-1"), 204)
    assert done(await api["nurse"].get("/devices/mat-1"))["revoked_at"] is not None
    assert done(await api["nurse"].get("/devices"))["items"] == []
    refused(await api["integrator"].post("/devices/mat-1/secret"), 409)
    refused(await api["integrator"].post("/devices/mat-1/commands", json={"name": "x"}), 409)
    done(await api["integrator"].post("/devices", json=body), 201)
    assert done(await api["nurse"].get("/devices/mat-1"))["revoked_at"] is None
    given = done(await api["integrator"].post("/devices", json={"kind": "cuff"}), 201)
    assert (
        done(await api["nurse"].get(f"/devices/{given['id']}"))["place_id"] == (api.world.ids["A"])
    )
    refused(await api["integrator"].post("/devices", json={"id": "a/b", "kind": "cuff"}), 422)


async def test_commands_wait_for_their_device(api: Api) -> None:
    api.world.device("mat", "A")
    sent = done(
        await api["integrator"].post(
            "/devices/mat/commands", json={"name": "blink", "args": {"times": 3}}
        ),
        201,
    )
    assert done(await api["nurse"].get("/devices/mat/commands"))["items"] == [sent]
    assert sent["delivered_at"] is None


async def test_an_assignment_since_a_past_time_moves_stored_readings(api: Api) -> None:
    world = api.world
    key = world.device("mat", "A", "anna", since_days=10)
    now = datetime.now(UTC).replace(microsecond=0)
    world.resident("zoe", "A")
    for hours in (5, 3, 1):
        world.ask(
            "INSERT INTO telemetry (ts, received_at, device_key, hr) VALUES (%s, now(), %s, %s)",
            now - timedelta(hours=hours),
            key,
            60 + hours,
        )

    async def beats(name: str) -> list[float]:
        path = f"/residents/{world.ids[name]}/vitals"
        series = done(await api["nurse"].get(path, params={"step": "1"}))
        return [point[1] for point in series.get("hr", [])]

    assert await beats("anna") == [65, 63, 61]
    since = (now - timedelta(hours=2)).isoformat()
    body = {"resident_id": world.ids["zoe"], "since": since}
    assigned = done(await api["supervisor"].put("/devices/mat/assignment", json=body))
    assert assigned["resident_id"] == world.ids["zoe"]
    assert (await beats("anna"), await beats("zoe")) == ([65, 63], [61])
    body = {"resident_id": world.ids["anna"], "since": (now - timedelta(hours=4)).isoformat()}
    done(await api["supervisor"].put("/devices/mat/assignment", json=body))
    assert (await beats("anna"), await beats("zoe")) == ([65, 63, 61], [])
    done(await api["supervisor"].put("/devices/mat/assignment", json=body))
    done(await api["supervisor"].put("/devices/mat/assignment", json={"resident_id": None}))
    assert done(await api["nurse"].get("/devices/mat"))["resident_id"] is None
    assert await beats("anna") == [65, 63, 61]
    future = {"resident_id": None, "since": (now + timedelta(hours=1)).isoformat()}
    refused(await api["supervisor"].put("/devices/mat/assignment", json=future), 422)
    naive = {"resident_id": None, "since": "2026-01-01T00:00:00"}
    refused(await api["supervisor"].put("/devices/mat/assignment", json=naive), 422)


async def test_an_alarm_is_taken_reached_and_closed_with_its_timeline(api: Api) -> None:
    alarm = api.world.alarm("anna")
    path = f"/alarms/{alarm}"
    assert done(await api["nurse"].get(path))["actions"] == ["acknowledge", "arrive", "note"]
    taken = done(await api["nurse"].post(f"{path}/acknowledge"))
    assert (taken["handling"], taken["owner"]) == ("acknowledged", "nurse")
    assert taken["actions"] == ["arrive", "close", "note"]
    late = refused(await api["supervisor"].post(f"{path}/acknowledge"), 409)
    assert late["alarm"]["owner"] == "nurse"
    there = done(await api["supervisor"].post(f"{path}/arrive"))
    assert (there["handling"], there["owner"]) == ("on_site", "nurse")
    refused(await api["nurse"].post(f"{path}/close", json={"outcome": "maybe"}), 422)
    closing = {"outcome": "real", "note": "跌倒，已扶起"}
    closed = done(await api["nurse"].post(f"{path}/close", json=closing))
    assert (closed["handling"], closed["outcome"], closed["actions"]) == (
        "closed", "real", ["note"],
    )  # fmt: skip
    refused(await api["nurse"].post(f"{path}/close", json=closing), 409)
    refused(await api["nurse"].post(f"{path}/arrive"), 409)
    done(await api["nurse"].post(f"{path}/note", json={"text": "call the doctor"}))
    lines = done(await api["integrator"].get(f"{path}/timeline"))["items"]
    assert [(line["change"], line["actor"], line["note"]) for line in lines] == [
        ("raised", "test", None),
        ("acknowledged", "nurse", None),
        ("on_site", "supervisor", None),
        ("closed", "nurse", "跌倒，已扶起"),
        ("note", "nurse", "call the doctor"),
    ]
    assert [line["handling"] for line in lines][:4] == [
        "open", "acknowledged", "on_site", "closed",
    ]  # fmt: skip


async def test_an_open_alarm_has_to_be_taken_before_it_is_closed(api: Api) -> None:
    alarm = api.world.alarm("anna")
    body = {"outcome": "false"}
    problem = refused(await api["nurse"].post(f"/alarms/{alarm}/close", json=body), 409)
    assert problem["alarm"]["handling"] == "open"
    assert len(done(await api["nurse"].get(f"/alarms/{alarm}/timeline"))["items"]) == 1


async def test_of_many_who_acknowledge_at_once_one_becomes_the_owner(api: Api) -> None:
    alarm = api.world.alarm("anna")
    users = ["admin", "supervisor", "nurse"] * 4
    answers = await asyncio.gather(
        *(api[user].post(f"/alarms/{alarm}/acknowledge") for user in users)
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 11
    (winner,) = (answer.json()["owner"] for answer in answers if answer.status_code == 200)
    assert all(
        answer.json()["alarm"]["owner"] == winner for answer in answers if answer.status_code == 409
    )


async def test_an_alarm_rests_for_a_while_unless_it_is_an_emergency(api: Api) -> None:
    behaviour = api.world.alarm("anna", "bed_exit_long", "behavioural", 2)
    until = datetime.now(UTC) + timedelta(hours=1)
    body = {"until": until.isoformat()}
    resting = done(await api["nurse"].post(f"/alarms/{behaviour}/snooze", json=body))
    assert datetime.fromisoformat(resting["snoozed_until"]) == until
    for wrong in (timedelta(hours=13), timedelta(hours=-1)):
        wish = {"until": (datetime.now(UTC) + wrong).isoformat()}
        refused(await api["nurse"].post(f"/alarms/{behaviour}/snooze", json=wish), 422)
    emergency = api.world.alarm("anna")
    refused(await api["nurse"].post(f"/alarms/{emergency}/snooze", json=body), 409)


async def test_alarms_are_filtered_and_newest_first(api: Api) -> None:
    world = api.world
    sos = world.alarm("anna")
    battery = world.alarm("anna", "battery_low", "technical", 1)
    bela = world.alarm("bela", "fall")
    done(await api["admin"].post(f"/alarms/{battery}/acknowledge"))

    async def found(**query: str | list[str]) -> list[str]:
        items = done(await api["admin"].get("/alarms", params=query))["items"]
        return [alarm["id"] for alarm in items]

    assert await found() == [bela, battery, sos]
    assert await found(handling="open") == [bela, sos]
    assert await found(handling="open,acknowledged") == [bela, battery, sos]
    assert await found(handling=["open", "acknowledged"], priority="low") == [battery]
    assert await found(resident_id=world.ids["anna"]) == [battery, sos]
    assert await found(place_id=world.ids["A"]) == [battery, sos]
    assert await found(place_id=world.ids["B"]) == [bela]
    assert await found(kind="fall,sos") == [bela, sos]
    first = done(await api["admin"].get("/alarms", params={"limit": "2"}))
    rest = await found(limit="2", after=first["next"])
    assert [alarm["id"] for alarm in first["items"]] + rest == [bela, battery, sos]
    refused(await api["admin"].get("/alarms", params={"handling": "sleeping"}), 422)
    refused(await api["admin"].get("/alarms", params={"after": "???"}), 422)
    refused(await api["admin"].get("/alarms", params={"limit": "1001"}), 422)


async def test_events_and_rejected_payloads_can_be_read(api: Api) -> None:
    world = api.world
    key = world.device("mat", "A", "anna")
    other = world.device("other", "B", "bela")
    for number in range(3):
        for one in (key, other):
            world.ask(
                "INSERT INTO events VALUES (%s, %s, 'bed_exit', now() - %s, now(), 0, '{}')",
                one,
                f"e{number}",
                timedelta(minutes=number),
            )
    path = f"/residents/{world.ids['anna']}/events"
    first = done(await api["nurse"].get(path, params={"limit": "2"}))
    rest = done(await api["nurse"].get(path, params={"limit": "2", "after": first["next"]}))
    assert [event["id"] for event in first["items"] + rest["items"]] == ["e0", "e1", "e2"]
    assert rest["next"] is None
    world.ask(
        "INSERT INTO quarantine (received_at, device_id, kind, reason, size, payload)"
        " VALUES (now(), 'mat', 'telemetry', 'not JSON', 70000, %s),"
        " (now(), 'x', 'event', 'r', 1, 'y')",
        b"\xff" * 2000,
    )
    (rejected,) = done(await api["nurse"].get("/quarantine"))["items"]
    assert (rejected["reason"], rejected["size"]) == ("not JSON", 70000)
    assert len(rejected["payload"]) == 1024
    whole = done(await api["nurse"].get(f"/quarantine/{rejected['id']}"))
    assert len(whole["payload"]) == 2000
    assert len(done(await api["admin"].get("/quarantine"))["items"]) == 2


async def test_users_come_with_a_place_and_without_their_password(api: Api) -> None:
    body = {"username": "小李", "password": PASSWORD, "role": "nurse"}
    refused(await api["admin"].post("/users", json=body), 422)
    made = done(
        await api["admin"].post("/users", json=body | {"place_id": api.world.ids["A"]}), 201
    )
    assert "password" not in str(made)
    refused(await api["admin"].post("/users", json=body | {"place_id": api.world.ids["A"]}), 409)
    names = {user["username"] for user in done(await api["admin"].get("/users"))["items"]}
    assert "小李" in names
    refused(await api["supervisor"].post("/users", json=body | {"username": "x"}), 403)
    relative = {"username": "relative", "password": PASSWORD, "role": "family"}
    family = done(await api["supervisor"].post("/users", json=relative), 201)
    path = f"/residents/{api.world.ids['anna']}/family"
    link = {"user_id": family["id"], "scopes": ["status", "vitals"]}
    done(await api["supervisor"].post(path, json=link), 201)
    links = done(await api["supervisor"].get(path))["items"]
    assert {
        "user_id": family["id"],
        "username": "relative",
        "scopes": ["status", "vitals"],
    } in links
    done(await api["supervisor"].delete(f"{path}/{family['id']}"), 204)
    refused(await api["supervisor"].delete(f"{path}/{family['id']}"), 404)
    refused(await api["supervisor"].post(path, json=link | {"scopes": ["everything"]}), 422)
    nurse = {"user_id": api.world.ids["nurse"], "scopes": ["status"]}
    refused(await api["supervisor"].post(path, json=nurse), 404)
    changed = {"password": "another password"}
    done(await api["supervisor"].patch(f"/users/{family['id']}", json=changed))
    login = {"username": "relative", "password": "another password"}
    done(await api["nobody"].post("/auth/login", json=login))


async def test_health_readiness_metrics_and_pages(api: Api) -> None:
    async with httpx.AsyncClient(base_url=api.address, trust_env=False) as root:
        assert done(await root.get("/healthz")) == {"status": "alive"}
        assert done(await root.get("/readyz")) == {"status": "ready"}
        api.world.alarm("anna")
        text = (await root.get("/metrics")).text
        assert 'anxin_alarms_open{priority="high"} 1.0' in text
        assert 'anxin_http_seconds_bucket{le="0.005",route="/healthz"}' in text
        docs = await root.get("/api/docs")
        assert "POST /api/v1/alarms/{alarm_id}/acknowledge" in docs.text
        assert "<script" not in docs.text
        refused(await root.get("/api/v1/nothing"), 404)
        refused(await root.get("/api/v2"), 404)
        refused(await root.put("/api/v1/places"), 405)
        schema = done(await root.get("/api/v1/openapi.json"))
        assert "/api/v1/residents/{resident_id}/status" in schema["paths"]
        answer = await root.get("/healthz")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        api.world.ask("DELETE FROM schema_migrations WHERE version = '0001_schema'")
        assert "anxin migrate" in refused(await root.get("/readyz"), 503)["detail"]


async def test_while_the_database_is_away_answers_say_so_and_it_recovers(api: Api) -> None:
    host, _, name = api.world.dsn.rpartition("/")
    import psycopg  # noqa: PLC0415  # this test alone pulls the database away

    with psycopg.connect(f"{host}/postgres", autocommit=True) as server:
        server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        refused(await api["nurse"].get("/alarms"), 503)
        async with httpx.AsyncClient(base_url=api.address, trust_env=False) as root:
            refused(await root.get("/readyz"), 503)
            assert (await root.get("/healthz")).status_code == 200
            assert (await root.get("/metrics")).status_code == 200
        server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())

    async def served() -> bool:
        return (await api["nurse"].get("/alarms")).status_code == 200

    await eventually(served, 20)

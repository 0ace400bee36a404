"""Who may do what, on their own and on foreign objects: every role against every kind of route."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from anxin.config import Settings
from api.app import create_app
from tests.integration.api_world import PASSWORD, Api, World, running, settle

ROLES = ("admin", "supervisor", "nurse", "integrator", "family", "nobody")
# A provider's report carries a token of its own in its path.
OPEN = {
    "/auth/login", "/auth/providers", "/auth/providers/{provider}/login",
    "/auth/providers/{provider}/callback", "/channels/{channel}/reports/{token}", "/enrol",
}  # fmt: skip
FORBIDDEN, HIDDEN, ANONYMOUS = 403, 404, 401


@pytest_asyncio.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    world = settle(dsn)
    world.link("family", "anna", "status", "vitals", "alarms", "events")
    world.device("mat-anna", "A", "anna")
    world.device("mat-bela", "B", "bela")
    async with running(world) as serving:
        yield serving


class Case:
    """One route with a body, on an object of Anna's (facility A) or of Bela's (facility B)."""

    def __init__(
        self,
        method: str,
        path: str,
        allowed: str,
        body: dict[str, Any] | None = None,
        done: int = 200,
    ) -> None:
        """Take `allowed` roles by their first letters; admin may everything."""
        self.method, self.path, self.body, self.done = method, path, body, done
        self.allowed = {role for role in ROLES if role[0] in allowed} | {"admin"}

    def __repr__(self) -> str:
        """Name the case in the report of a test run."""
        return f"{self.method} {self.path}"

    async def ask(self, api: Api, role: str, whose: str, alarm: str) -> int:
        """Return the status of the answer."""
        ids = api.world.ids
        facility = {"anna": "A", "bela": "B"}[whose]
        names = {
            "resident": ids[whose],
            "place": ids[facility],
            "device": f"mat-{whose}",
            "alarm": alarm,
            "family": ids["family"],
        }
        body = self.body and {
            name: value.format(**names) if isinstance(value, str) else value
            for name, value in self.body.items()
        }
        path = self.path.format(**names)
        return (await api[role].request(self.method, path, json=body)).status_code


LATER = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
CASES = [
    Case("GET", "/places/{place}", "asni"),
    Case("POST", "/places", "asi", {"parent_id": "{place}", "kind": "room", "name": "1"}, 201),
    Case("GET", "/residents/{resident}", "asnif"),
    Case("PATCH", "/residents/{resident}", "asi", {"note": "x"}),
    Case("PATCH", "/residents/{resident}", "as", {"limits": {"hr_high": 110}}),
    Case("POST", "/residents", "asi", {"name": "x", "place_id": "{place}"}, 201),
    Case("GET", "/residents/{resident}/status", "asnif"),
    Case("GET", "/residents/{resident}/vitals", "asnif"),
    Case("GET", "/residents/{resident}/events", "asnif"),
    Case("GET", "/residents/{resident}/family", "as"),
    Case("GET", "/devices/{device}", "asni"),
    Case("PATCH", "/devices/{device}", "asi", {"name": "x"}),
    Case("POST", "/devices/{device}/secret", "asi"),
    Case("PUT", "/devices/{device}/assignment", "asi", {"resident_id": "{resident}"}),
    Case("POST", "/devices/{device}/commands", "asi", {"name": "blink"}, 201),
    Case("GET", "/devices/{device}/commands", "asni"),
    Case("POST", "/devices", "asi", {"kind": "cuff", "place_id": "{place}"}, 201),
    Case("GET", "/alarms/{alarm}", "asnif"),
    Case("GET", "/alarms/{alarm}/timeline", "asni"),
    Case("POST", "/alarms/{alarm}/note", "asn", {"text": "x"}),
    Case("POST", "/alarms/{alarm}/snooze", "asn", {"until": LATER}),
    Case("POST", "/alarms/{alarm}/acknowledge", "asn"),
    Case("POST", "/alarms/{alarm}/arrive", "asn"),
    Case("POST", "/alarms/{alarm}/close", "asn", {"outcome": "test"}, 409),
    Case("DELETE", "/devices/{device}", "asi", None, 204),
]


@pytest.mark.parametrize("case", CASES, ids=repr)
async def test_a_role_may_do_what_the_table_says_and_a_foreign_object_is_as_good_as_missing(
    api: Api, case: Case
) -> None:
    seen: dict[str, tuple[int, int]] = {}
    for role in ROLES:
        answers = []
        for whose in ("anna", "bela"):
            api.world.ask("DELETE FROM alarms")
            api.world.ask("UPDATE devices SET revoked_at = NULL")
            alarm = api.world.alarm(whose, "bed_exit_long", "behavioural", 2)
            answers.append(await case.ask(api, role, whose, alarm))
        seen[role] = (answers[0], answers[1])
    expected = {}
    for role in ROLES:
        if role == "nobody":
            expected[role] = (ANONYMOUS, ANONYMOUS)
        elif role not in case.allowed:
            expected[role] = (FORBIDDEN, FORBIDDEN)
        else:
            expected[role] = (case.done, case.done if role == "admin" else HIDDEN)
    assert seen == expected


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("/places", {"admin": 4, "supervisor": 2, "nurse": 2, "integrator": 2, "family": 403}),
        ("/residents", {"admin": 2, "supervisor": 1, "nurse": 1, "integrator": 1, "family": 1}),
        ("/devices", {"admin": 2, "supervisor": 1, "nurse": 1, "integrator": 1, "family": 403}),
        ("/alarms", {"admin": 2, "supervisor": 1, "nurse": 1, "integrator": 1, "family": 1}),
        ("/quarantine", {"admin": 3, "supervisor": 1, "nurse": 1, "integrator": 1, "family": 403}),
        ("/users", {"admin": 6, "supervisor": 0, "nurse": 403, "integrator": 403, "family": 403}),
    ],
)
async def test_a_list_holds_what_its_reader_may_see(
    api: Api, path: str, counts: dict[str, int]
) -> None:
    world = api.world
    world.alarm("anna")
    world.alarm("bela")
    for device in ("mat-anna", "mat-bela", "unknown"):
        world.ask(
            "INSERT INTO quarantine (received_at, device_id, kind, reason, size, payload)"
            " VALUES (now(), %s, 'telemetry', 'not JSON', 1, '{')",
            device,
        )
    seen = {}
    for role in counts:
        answer = await api[role].get(path)
        ok = answer.status_code == 200
        seen[role] = len(answer.json()["items"]) if ok else answer.status_code
    assert seen == counts


async def test_every_other_route_needs_a_session(api: Api) -> None:
    document = create_app(Settings(database="unused")).openapi()
    asked = 0
    for path, methods in document["paths"].items():
        for method in methods:
            short = path.removeprefix("/api/v1")
            if short in OPEN:
                continue
            address = short.replace("{device_id}", "mat-anna")
            for name in ("resident", "alarm", "place", "user", "rejected"):
                address = address.replace(f"{{{name}_id}}", "1")
            answer = await api["nobody"].request(method.upper(), address)
            assert answer.status_code == ANONYMOUS, (method, path, answer.text)
            asked += 1
    assert asked > 35


async def test_staff_cannot_move_things_out_of_their_own_places(api: Api) -> None:
    ids = api.world.ids
    supervisor = api["supervisor"]
    moves: list[tuple[str, str, dict[str, Any]]] = [
        ("PATCH", f"/residents/{ids['anna']}", {"place_id": ids["B"]}),
        ("PATCH", "/devices/mat-anna", {"place_id": ids["B"]}),
        ("PATCH", "/devices/mat-anna", {"place_id": None}),
        ("PUT", "/devices/mat-anna/assignment", {"resident_id": ids["bela"]}),
        ("POST", "/places", {"kind": "facility", "name": "mine alone"}),
        ("POST", "/users", {
            "username": "x", "password": PASSWORD, "role": "family", "place_id": ids["B"]}),
    ]  # fmt: skip
    for method, path, body in moves:
        answer = await supervisor.request(method, path, json=body)
        assert answer.status_code == HIDDEN, (method, path, answer.text)


async def test_a_permission_that_is_withdrawn_is_gone_at_the_next_request(api: Api) -> None:
    ids = api.world.ids
    path = f"/residents/{ids['anna']}/status"
    assert (await api["family"].get(path)).status_code == 200
    await api["supervisor"].delete(f"/residents/{ids['anna']}/family/{ids['family']}")
    assert (await api["family"].get(path)).status_code == HIDDEN
    assert (await api["family"].get("/residents")).json()["items"] == []


async def test_staff_without_a_place_sees_nothing(api: Api) -> None:
    world: World = api.world
    world.user("lost", "nurse")
    for path in ("/places", "/residents", "/devices", "/alarms", "/quarantine"):
        assert (await api["lost"].get(path)).json() == {"items": [], "next": None}

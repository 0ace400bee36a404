"""Every route by every role on what is its own, what is foreign and what is not there; 0 leaks."""

import asyncio
import contextlib
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from time import monotonic, perf_counter
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed

from anxin.config import Settings
from anxin.seal import key_line
from api import enrolments
from api.app import create_app
from tests.integration.api_world import ONE_PROVIDER, Api, Stream, running
from tests.integration.permission_sides import (
    CANARY,
    PHONES,
    ROLES,
    SIDES,
    STAFF,
    UNKNOWN,
    Sides,
    populate,
    read,
    walk,
)
from tests.integration.permission_table import (
    CONSENT,
    FIELDS,
    NAMES_OF_ALL,
    OPEN,
    RULES,
    SESSION,
    Rule,
)

KEYS = "\n".join(key_line(kind, datetime.now(UTC)) for kind in ("master", "index"))
OPENAPI = create_app(Settings(database="unused")).openapi()
OPERATIONS: dict[tuple[str, str], dict[str, Any]] = {
    (method.upper(), path.removeprefix("/api/v1")): operation
    for path, methods in OPENAPI["paths"].items()
    for method, operation in methods.items()
}
SECONDS_WITHDRAWN = 1.0
PARTS = 6
"""So that a slow machine stays within the time of one test."""


class Matrix:
    """A running API, both sides behind it, and who has which right and consent."""

    def __init__(self, api: Api, sides: Sides) -> None:
        """Read the rights as they are stored."""
        self.api, self.sides, self.world = api, sides, sides.world
        self.rights = {
            (row["role"], row["right_"]) for row in self.world.ask("SELECT * FROM role_rights")
        }
        self.cells = 0
        self.wrong: list[str] = []

    def may(self, role: str, right: str) -> bool:
        """Tell whether a role has a right at all."""
        stored = {"admin-a": "admin", "aunt": "family", "stranger": "family"}.get(role, role)
        return right == SESSION or (stored, right) in self.rights

    def reaches(self, role: str, right: str, side: str) -> bool:
        """Tell whether somebody with a right has it on this side."""
        if role in STAFF or role == "admin":
            return side == "own" or (role == "admin" and side == "foreign")
        consented = {"family": {"status", "vitals", "alarms", "events"}, "aunt": {"alarms"}}
        return side == "own" and CONSENT.get(right) in consented.get(role, set())

    def expected(self, rule: Rule, role: str, side: str) -> int:
        """Return the status that the table and the stored rights ask for."""
        if rule.right == OPEN:
            return rule.done
        if role in UNKNOWN:
            return 401
        if not self.may(role, rule.right):
            return rule.lacking
        # Of users a supervisor manages relatives, of its place; the table's are such.
        reached = side == "own" if rule.private else self.reaches(role, rule.right, side)
        if rule.about and not reached:
            return rule.hidden
        return rule.done

    async def ask(
        self, role: str, route: tuple[str, str], ids: dict[str, str], **changes: Any
    ) -> httpx.Response:
        """Send the request of a route, about these ids."""
        rule = RULES[route]
        filled = self.sides.own() | ids
        query = changes.get("query", _filled(rule.query, filled))
        body = changes.get("body", _filled(rule.body, filled))
        path = route[1].format_map(filled)
        client = self.api[role]
        client.cookies.clear()  # or whoever logged in to try it would stay so
        return await client.request(route[0], path, json=body, params=query)

    def note(self, what: str, *problems: object) -> None:
        """Count a cell and what is wrong about it."""
        self.cells += 1
        self.wrong += [f"{what}: {problem}" for problem in problems if problem]

    def said(self, capsys: pytest.CaptureFixture[str], what: str) -> None:
        """Print the counts, and fail with everything that was wrong."""
        with capsys.disabled():
            print(f"\npermission matrix, {what}: {self.cells} cells, {len(self.wrong)} wrong")
        assert self.cells
        assert not self.wrong, "\n".join(self.wrong[:40])


@pytest_asyncio.fixture
async def matrix(dsn: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Matrix]:
    # Guesses at codes are slowed by address: here all come from one.
    monkeypatch.setattr(enrolments.ATTEMPTS, "allows", lambda *_: True)
    sides = populate(dsn)
    async with running(sides.world, environ={"data_keys": KEYS, **ONE_PROVIDER}) as api:
        for side, name in (("own", "anna"), ("foreign", "bela")):
            path = f"/residents/{sides.world.ids[name]}"
            stored = await api["admin"].put(f"{path}/identity", json={"phone": PHONES[side]})
            assert stored.status_code == 200, stored.text
            relative = {"name": CANARY if side == "foreign" else "plain", "relation": "son"}
            added = await api["admin"].post(f"{path}/relatives", json=relative)
            assert added.status_code == 201, added.text
        for role in ROLES:
            # An idle connection is closed after some seconds, at times just when it is used again.
            api[role].headers["connection"] = "close"
        yield Matrix(api, sides)


def test_every_route_is_in_the_table_and_the_table_names_no_other() -> None:
    new = sorted(OPERATIONS.keys() - RULES.keys())
    assert not new, (
        f"New routes: {new}. Add each to RULES in tests/integration/permission_table.py as"
        ' ("METHOD", "/path"): Rule("right.it.asks.for", "what it is about").'
    )
    gone = sorted(RULES.keys() - OPERATIONS.keys())
    assert not gone, f"No longer routes: {gone}. Take them out of permission_table.RULES."
    components = OPENAPI["components"]["schemas"]
    for route, operation in OPERATIONS.items():
        named = {one["name"] for one in operation.get("parameters", []) if one["in"] == "query"}
        named |= set(walk(operation.get("requestBody", {}), components))
        odd = {one for one in named if one.endswith("_id")} - FIELDS.keys()
        assert not odd, f"{route} takes {odd}: say in permission_table.FIELDS whom they name."


@pytest.mark.parametrize("part", range(PARTS))
async def test_every_role_on_own_foreign_and_absent_objects(
    matrix: Matrix, capsys: pytest.CaptureFixture[str], part: int
) -> None:
    sides = matrix.sides
    routes = list(RULES.items())[part::PARTS]
    for route, rule in routes:
        for role in ROLES:
            answers: dict[str, tuple[Any, ...]] = {}
            for side in SIDES if rule.about else ("own",):
                expected = matrix.expected(rule, role, side)
                changes = route[0] != "GET" and expected < 300
                about, sides.asking = rule.about or "place", role
                make = sides.fresh if changes and side != "absent" else sides.one
                ids = make(about, side)
                answer = await matrix.ask(role, route, ids)
                sent = f"{answer.request.url} {answer.request.content.decode()}"
                leaks = sides.leaks(role, answer, sent, echoes=rule.echoes)
                what = f"{' '.join(route)} by {role} on {side}"
                matrix.note(
                    what,
                    answer.status_code != expected
                    and f"{answer.status_code}, not {expected} {answer.text[:200]}",
                    leaks and f"leaks {leaks}",
                )
                answers[side] = _comparable(answer, ids)
                if rule.renews_session and answer.status_code < 300:
                    token = answer.json()["access_token"]
                    matrix.api[role].headers["authorization"] = f"Bearer {token}"
                if rule.ends_session and answer.status_code < 300:
                    token = matrix.world.log_in(role)
                    matrix.api[role].headers["authorization"] = f"Bearer {token}"
            if rule.about and role != "admin" and answers["foreign"] != answers["absent"]:
                difference = f"foreign {answers['foreign']}, absent {answers['absent']}"
                matrix.note(f"{' '.join(route)} by {role}", difference)
    matrix.said(capsys, f"{len(routes)} routes by {len(ROLES)} roles")


async def test_lists_hold_exactly_what_their_reader_may_see_and_their_cursors_tell_no_more(
    matrix: Matrix, capsys: pytest.CaptureFixture[str]
) -> None:
    for route, rule in RULES.items():
        if not rule.rows:
            continue
        for role in ROLES:
            if matrix.expected(rule, role, "own") != 200:
                continue
            ids = matrix.sides.one(rule.about or "place", "own")
            whole = (await matrix.ask(role, route, ids)).json()
            seen = [_key(one) for one in whole["items"]]
            expected = await _rows(matrix, route, role, ids)
            walked, after = [], None
            paged = any(one["name"] == "after" for one in OPERATIONS[route].get("parameters", []))
            while paged:
                query = {"limit": 1} | ({"after": after} if after else {})
                one = (await matrix.ask(role, route, ids, query=query)).json()
                walked += [_key(row) for row in one["items"]]
                after = one["next"]
                if after is None or len(walked) > len(seen):
                    break
            matrix.note(
                f"{' '.join(route)} by {role}",
                set(seen) != expected and f"rows {sorted(seen)}, not {sorted(expected)}",
                len(seen) != len(set(seen)) and "rows twice",
                whole["next"] is not None and "goes on",
                paged and walked != seen and f"pages of one give {walked}, not {seen}",
            )
    matrix.said(capsys, "rows of lists")


NAMES = {"rejected": "quarantine", "template": "limit_templates"}
"""Tables that are not called as what they hold."""


def _key(row: dict[str, Any]) -> str:
    """Return by what a row of an answer is known."""
    return str(row.get("id") or row.get("user_id") or row["at"])


async def _rows(matrix: Matrix, route: tuple[str, str], role: str, ids: dict[str, str]) -> set[str]:
    """Return the ids of the rows that a role should see in a list."""
    rule, world, sides = RULES[route], matrix.world, matrix.sides
    if rule.rows == "own":  # everything that hangs on one own object
        everything = (await matrix.ask("admin", route, ids)).json()["items"]
        assert everything, f"nothing to see in {route}"
        return {_key(one) for one in everything}
    table = NAMES.get(rule.rows, f"{rule.rows}s")
    managers = ("admin", "admin-a", "supervisor")
    if rule.rows == "session":
        rows = world.ask("SELECT id FROM sessions WHERE user_id = %s", int(world.ids[role]))
        return {str(one["id"]) for one in rows}
    if role == "admin":
        return {str(one["id"]) for one in world.ask(f"SELECT id FROM {table}")}
    if rule.rows == "user":
        query = ("SELECT u.id FROM users u JOIN places p ON p.id = u.place_id"
                 " WHERE p.id = %s AND (%s OR u.role = 'family')")  # fmt: skip
        rows = world.ask(query, int(world.ids["A"]), role == "admin-a")
        return {str(one["id"]) for one in rows}
    if rule.rows == "contact" and role not in managers:
        return set()
    if rule.rows == "place":
        return {world.ids["A"], world.ids["A bed"]}
    if rule.rows == "resident" and role in STAFF:
        bed = [int(world.ids["A"]), int(world.ids["A bed"])]
        rows = world.ask("SELECT id FROM residents WHERE place_id = ANY(%s)", bed)
        return {str(one["id"]) for one in rows}
    if not matrix.reaches(role, rule.right, "own"):
        return set()
    return sides.rows[rule.rows, "own"]


async def test_whom_a_field_or_a_filter_names_is_as_good_as_absent_when_foreign(
    matrix: Matrix, capsys: pytest.CaptureFixture[str]
) -> None:
    sides, components = matrix.sides, OPENAPI["components"]["schemas"]
    for route, rule in RULES.items():
        operation = OPERATIONS[route]
        fields = set(walk(operation.get("requestBody", {}), components)) & FIELDS.keys()
        named = {one["name"] for one in operation.get("parameters", []) if one["in"] == "query"}
        named &= FIELDS.keys()
        for role in (one for one in ROLES if one != "admin" and one not in UNKNOWN):
            if not matrix.may(role, rule.right):
                continue
            for name in sorted(fields | named):
                if (*route, name) in NAMES_OF_ALL:
                    continue
                own = sides.one(rule.about or "place", "own")
                answers = []
                for side in ("foreign", "absent"):
                    other = sides.one(FIELDS[name], side)
                    value = other[f"{FIELDS[name]}_id"]
                    filled = sides.own() | own
                    if name in fields:
                        body = _filled(rule.instead.get(name, rule.body), filled)
                        changes: dict[str, Any] = {"body": _named(body, name, value)}
                    else:
                        changes = {"query": _filled(rule.query, filled) | {name: value}}
                    answer = await matrix.ask(role, route, own, **changes)
                    sent = f"{answer.request.url} {answer.request.content.decode()}"
                    leaks = sides.leaks(role, answer, sent, echoes=rule.echoes)
                    done = name in fields and answer.status_code < 400
                    matrix.note(
                        f"{' '.join(route)} by {role}, {name} {side}",
                        leaks and f"leaks {leaks}",
                        done and f"accepted with {answer.status_code} {answer.text[:200]}",
                    )
                    answers.append(_comparable(answer, {name: value}))
                if answers[0] != answers[1]:
                    matrix.note(
                        f"{' '.join(route)} by {role}", f"{name}: {answers[0]} or {answers[1]}"
                    )
    matrix.said(capsys, "fields and filters that name somebody")


async def test_a_request_that_cannot_be_read_tells_nothing_of_what_it_was_about(
    matrix: Matrix, capsys: pytest.CaptureFixture[str]
) -> None:
    for route, rule in RULES.items():
        if "_id}" not in route[1] or rule.right == OPEN:
            continue
        for role in STAFF:
            answers = []
            for side in ("foreign", "absent"):
                ids = matrix.sides.one(rule.about, side)
                changes = {"body": {"unknown": [1]}, "query": {"limit": "x", "after": "x"}}
                answer = await matrix.ask(role, route, ids, **changes)
                leaks = matrix.sides.leaks(role, answer, str(answer.request.url), echoes=False)
                matrix.note(
                    f"{' '.join(route)} by {role} on {side}",
                    answer.status_code not in (403, 404, 422) and str(answer.status_code),
                    leaks and f"leaks {leaks}",
                )
                answers.append(_comparable(answer, ids))
            if answers[0] != answers[1]:
                matrix.note(f"{' '.join(route)} by {role}", f"{answers[0]} or {answers[1]}")
    matrix.said(capsys, "requests that cannot be read")


async def test_the_time_of_an_answer_does_not_tell_whether_something_foreign_exists(
    matrix: Matrix, capsys: pytest.CaptureFixture[str]
) -> None:
    """Mere noise decides here more often than not: printed, and held to a generous bound."""
    for route in (("GET", "/residents/{resident_id}/status"), ("GET", "/alarms/{alarm_id}"),
                  ("GET", "/devices/{device_id}")):  # fmt: skip
        times: dict[str, list[float]] = {"foreign": [], "absent": []}
        for number in range(100):
            side = ("foreign", "absent")[number % 2]
            ids = matrix.sides.one(RULES[route].about, side)
            began = perf_counter()
            answer = await matrix.ask("nurse", route, ids)
            times[side].append((perf_counter() - began) * 1000)
            assert answer.status_code == 404
        foreign, absent = (statistics.median(times[side]) for side in ("foreign", "absent"))
        far = abs(foreign - absent) > max(3.0, 0.5 * absent)
        matrix.note(" ".join(route), far and f"foreign {foreign:.2f} ms, absent {absent:.2f} ms")
        with capsys.disabled():
            print(f"\n{route[1]}: foreign {foreign:.2f} ms, absent {absent:.2f} ms", end="")
    matrix.said(capsys, "time of existence")


VIEWERS = ("admin", *STAFF, "family", "aunt", "stranger")


async def test_a_stream_shows_each_role_its_own_alarms_and_states_and_nobody_elses(
    matrix: Matrix, capsys: pytest.CaptureFixture[str]
) -> None:
    world, sides = matrix.world, matrix.sides
    # What everybody sees comes last, so that it is known when all was said.
    world.resident("coda", "A")
    for user in ("family", "aunt", "stranger"):
        world.link(user, "coda", "alarms")
    async with contextlib.AsyncExitStack() as stack:
        streams = {one: await stack.enter_async_context(matrix.api.stream(one)) for one in VIEWERS}
        for stream in streams.values():
            await stream.next("ready")
        collected = {one: asyncio.create_task(_until(streams[one], world.ids["coda"]))
                     for one in VIEWERS}  # fmt: skip
        for place in ("A", "B"):
            query = (
                "SELECT raise_alarm(%s, NULL, %s, NULL, 'smoke', 'safety', 3::smallint, now(),"
                " false, 1, jsonb_build_object('in', %s::text), 'test')"
            )
            number = world.ids[place]
            world.ask(query, f"p{number}", int(number), CANARY if place == "B" else "plain")
        sides.foreign_ids |= {str(world.one("SELECT id FROM alarms WHERE subject = %s",
                                            f"p{world.ids['B']}"))}  # fmt: skip
        world.alarm("anna")
        sides.foreign_ids.add(world.alarm("bela"))
        world.user("owner-of-b", "nurse", "B")
        world.ask("UPDATE users SET username = %s WHERE username = 'owner-of-b'", f"{CANARY}-owner")
        world.user(f"{CANARY}-taker", "nurse", "B")
        for alarm in world.ask(
            "SELECT id FROM alarms WHERE resident_id = %s", int(world.ids["bela"])
        ):
            path = f"/alarms/{alarm['id']}"
            taken = await matrix.api[f"{CANARY}-taker"].post(f"{path}/acknowledge")
            assert taken.status_code == 200
            await matrix.api[f"{CANARY}-taker"].post(f"{path}/note", json={"text": CANARY})
        world.alarm("coda", "bed_exit_long", "behavioural", 2)
        said = {one: await task for one, task in collected.items()}
    for role in VIEWERS:
        text = " ".join(said[role]).lower()
        leaks = [one for one in (CANARY, "173.625", *sides.foreign_ids)
                 if role != "admin" and one in text]  # fmt: skip
        frames = [msgspec.json.decode(one) for one in said[role]]
        shown = {one["alarm"]["kind"] + ":" + str(one["alarm"]["resident_id"])
                 for one in frames if one["type"] == "alarm"}  # fmt: skip
        expected = {f"bed_exit_long:{world.ids['coda']}"}
        if role != "stranger":
            expected |= {f"sos:{world.ids['anna']}"}
        if role in (*STAFF, "admin"):
            expected |= {"smoke:None"}
        if role == "admin":
            expected |= {f"{kind}:{world.ids['bela']}" for kind in ("sos", "bed_exit_long")}
        states = {one["resident_id"] for one in frames if one["type"] == "status"}
        matrix.note(
            f"stream of {role}",
            leaks and f"leaks {leaks}",
            shown != expected and f"shows {shown}, not {expected}",
            role in ("aunt", "stranger") and bool(states) and f"shows states of {states}",
            *(f"unknown frame {one['type']}" for one in frames
              if one["type"] not in ("alarm", "status", "ping", "ready", "resync")),
        )  # fmt: skip
    matrix.said(capsys, "frames of the stream")


async def test_a_cursor_of_foreign_events_replays_nothing_of_them(matrix: Matrix) -> None:
    world = matrix.world
    async with matrix.api.stream("admin") as all_seeing, matrix.api.stream("nurse") as nurse:
        start = (await nurse.next("ready"))["cursor"]
        await all_seeing.next("ready")
        bela = world.alarm("bela")
        cursor = (await all_seeing.next("alarm"))["cursor"]
    for since in (start, cursor - 1, cursor):
        async with matrix.api.stream("nurse", since) as again:
            assert (await again.next("ready"))["cursor"] == since
            world.alarm("anna")
            frames = [msgspec.json.decode(one) for one in await _until(again, world.ids["anna"])]
            assert [one["alarm"]["id"] for one in frames if one["type"] == "alarm"].count(bela) == 0


async def test_a_stream_is_silent_a_second_after_its_permission_was_withdrawn(
    matrix: Matrix, capsys: pytest.CaptureFixture[str]
) -> None:
    world, api = matrix.world, matrix.api
    for name in ("moved", "kept"):
        world.resident(name, "A")
    for name in ("shut-out", "leaver", "expiring"):
        world.user(name, "nurse", "A")
    world.user("cousin", "family", "A")
    world.link("cousin", "anna", "alarms", "status")

    async def expire() -> None:
        world.ask("UPDATE sessions SET expires_at = now() WHERE user_id = %s",
                  int(world.ids["expiring"]))  # fmt: skip

    ids = world.ids
    ways: dict[str, tuple[str, str, Callable[[], Awaitable[Any]]]] = {
        "consent withdrawn": ("family", "anna", lambda: api["supervisor"].delete(
            f"/residents/{ids['anna']}/family/{ids['family']}")),
        "consent changed": ("cousin", "anna", lambda: api["supervisor"].post(
            f"/residents/{ids['anna']}/family",
            json={"user_id": ids["cousin"], "scopes": ["vitals"]})),
        "user disabled": ("shut-out", "kept", lambda: api["admin"].patch(
            f"/users/{ids['shut-out']}", json={"disabled": True})),
        "session ended": ("leaver", "kept", lambda: api["leaver"].post("/auth/logout")),
        "session expired": ("expiring", "kept", expire),
        "place moved": ("nurse", "moved", lambda: api["admin"].patch(
            f"/residents/{ids['moved']}", json={"place_id": ids["B"]})),
    }  # fmt: skip
    async with contextlib.AsyncExitStack() as stack:
        heard: dict[str, list[tuple[float, str]]] = {}
        streams = {}
        for way, (user, resident, _) in ways.items():
            streams[way] = await stack.enter_async_context(api.stream(user))
            await streams[way].next("ready")
            world.alarm(resident)
        for stream in streams.values():
            await stream.next("alarm")
        tasks = []
        for way, (_, resident, _) in ways.items():
            heard[way] = []
            tasks.append(asyncio.create_task(_hear(streams[way], ids[resident], heard[way])))
        withdrawn = {}
        for way, (_, _, withdraw) in ways.items():
            answer = await withdraw()
            assert answer is None or answer.status_code < 300, (way, answer.text)
            withdrawn[way] = monotonic()
        # Events go on until well after the second has passed.
        while monotonic() < max(withdrawn.values()) + 2 * SECONDS_WITHDRAWN:
            for resident in ("anna", "moved", "kept"):
                await asyncio.to_thread(world.alarm, resident)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for way, frames in heard.items():
        late = [at - withdrawn[way] for at, _ in frames if at > withdrawn[way] + SECONDS_WITHDRAWN]
        matrix.note(way, late and f"{len(late)} frames, the last {max(late):.2f} s after")
    matrix.said(capsys, "streams withdrawn")


async def _until(stream: Stream, resident: str) -> list[str]:
    """Return every frame, as it came, up to the alarm of a resident."""
    frames: list[str] = []
    async with asyncio.timeout(20):
        while True:
            frames.append(str(await stream.socket.recv()))
            frame = msgspec.json.decode(frames[-1])
            if frame["type"] == "alarm" and frame["alarm"]["resident_id"] == resident:
                return frames


async def _hear(stream: Stream, resident: str, heard: list[tuple[float, str]]) -> None:
    """Note when frames about a resident come, until the stream ends."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            frame = str(await stream.socket.recv())
            if f'"{resident}"' in frame:
                heard.append((monotonic(), frame))


def _filled(body: Any, ids: dict[str, str]) -> Any:
    if isinstance(body, dict):
        return {name: _filled(value, ids) for name, value in body.items()}
    if isinstance(body, list):
        return [_filled(value, ids) for value in body]
    return body.format_map(ids) if isinstance(body, str) else body


def _named(body: Any, name: str, value: str) -> Any:
    """Return a body in which a field has a value: where it stands, else at the top."""
    if isinstance(body, dict):
        if isinstance(body.get("items"), list):
            return {**body, "items": [_named(one, name, value) for one in body["items"]]}
        return {**body, name: value}
    return {name: value}


def _comparable(answer: httpx.Response, ids: dict[str, str]) -> tuple[Any, ...]:
    """Return what an answer says, with the ids that were sent taken out."""
    text = read(answer)
    for value in sorted(ids.values(), key=len, reverse=True):
        if len(value) > 5:  # what is shorter is no id and stands in other words
            text = text.replace(value, "…")
    told = {"content-type", "cache-control", "www-authenticate", "retry-after", "allow"}
    headers = tuple(sorted((k, v) for k, v in answer.headers.items() if k in told))
    return answer.status_code, text, headers, tuple(sorted(answer.headers.keys()))

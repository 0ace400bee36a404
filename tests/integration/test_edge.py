"""What surrounds every answer: headers, limits to size and time, other origins, other sites."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from anxin.config import Settings
from anxin.errors import SettingError
from api import edge
from api.app import create_app
from api.edge import MOST_BODY, SECURITY, SMALL_BODY, read_origins
from tests.integration.api_world import Api, running, settle

ORIGIN = "https://pages.example.cn"
OPENAPI = create_app(Settings(database="unused")).openapi()


@pytest_asyncio.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    environ = {"public_url": "https://care.example.cn", "cors_origins": f"{ORIGIN}, https://b.cn"}
    async with running(settle(dsn), environ=environ) as serving:
        yield serving


@contextlib.asynccontextmanager
async def anybody(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=api.address, timeout=20, trust_env=False) as one:
        yield one


def is_secured(headers: Any) -> bool:
    return all(headers.get(name.decode()) == value.decode() for name, value in SECURITY)


async def test_every_answer_carries_the_headers_that_browsers_ask_for(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("api.providers.answer", defect)
    nurse = {"authorization": f"Bearer {api.world.tokens['nurse']}"}
    async with anybody(api) as one:
        answers = [
            (200, await one.get("/healthz")),
            (200, await one.get("/metrics")),
            (200, await one.get("/api/docs")),
            (200, await one.get("/api/v1/openapi.json")),
            (200, await one.get("/api/v1/me", headers=nurse)),
            (401, await one.get("/api/v1/me")),
            (403, await one.post("/api/v1/places", headers=nurse, json={"kind": "x"})),
            (404, await one.get("/api/v1/nothing")),
            (404, await one.get("/nothing.js")),
            (404, await one.get("/%252e%252e/secret.txt")),
            (405, await one.put("/healthz")),
            (413, await one.post("/api/v1/places", headers=nurse, content=b"x" * (MOST_BODY + 1))),
            (422, await one.post("/api/v1/auth/login", content=b"{")),
            (500, await one.get("/api/v1/auth/providers")),
        ]
    for status, answer in answers:
        assert answer.status_code == status, (answer.url, answer.text)
        assert is_secured(answer.headers), (answer.url, answer.headers)
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        for name, _ in SECURITY:
            assert len(answer.headers.get_list(name.decode())) == 1, (answer.url, name)
        if answer.url.path.startswith("/api/"):
            assert answer.headers["cache-control"] == "no-store", answer.url
    assert "x-powered-by" not in answers[0][1].headers
    assert "server" not in answers[0][1].headers or answers[0][1].headers["server"] == "uvicorn"


async def test_without_https_no_browser_is_told_to_insist_on_it(dsn: str) -> None:
    async with running(settle(dsn)) as api, anybody(api) as one:
        assert "strict-transport-security" not in (await one.get("/healthz")).headers


async def test_what_is_no_http_and_a_refused_websocket_are_answered_like_the_rest(api: Api) -> None:
    answer = (await raw(api, b"NONSENSE\r\n\r\n")).decode()
    assert answer.startswith("HTTP/1.1 400 ")
    headers = dict(line.split(": ", 1) for line in answer.split("\r\n\r\n")[0].splitlines()[1:])
    assert is_secured(headers)
    socket = api.address.replace("http", "ws", 1)
    with pytest.raises(InvalidStatus) as refusal:
        async with connect(f"{socket}/api/v1/nowhere", proxy=None):
            pass
    assert refusal.value.response.status_code == 403
    assert is_secured(refusal.value.response.headers)


async def test_a_body_is_as_large_as_its_path_allows(api: Api) -> None:
    async def chunks(size: int) -> AsyncIterator[bytes]:
        for _ in range(size // 1024 + 1):
            yield b" " * 1024

    async with anybody(api) as one:
        for path, most in (("/api/v1/auth/login", SMALL_BODY), ("/api/v1/enrol", SMALL_BODY),
                           ("/api/v1/places", MOST_BODY), ("/", SMALL_BODY)):  # fmt: skip
            for content in (b" " * (most + 1), chunks(most)):
                answer = await one.post(path, content=content)
                # Who has no session, and a page, are refused before a body is read.
                assert answer.status_code in (413, 401, 405), (path, answer.status_code)
                if path.startswith(("/api/v1/auth", "/api/v1/enrol")):
                    assert answer.status_code == 413, path
            assert (await one.post(path, content=b"{}")).status_code in (401, 405, 422)


async def raw(api: Api, data: bytes, *, drip: bytes = b"") -> bytes:
    """Send bytes, then some again and again, and return all that comes until the end or a reset."""
    answer = b""
    host, _, port = api.address.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)

    async def dripping() -> None:
        while drip:
            writer.write(drip)
            await writer.drain()
            await asyncio.sleep(0.05)

    task = asyncio.create_task(dripping())
    try:
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):
                while some := await reader.read(65536):
                    answer += some
        return answer
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await task
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


GET = b"GET /healthz HTTP/1.1\r\nhost: a\r\n"
POST = b"POST /api/v1/auth/login HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
SLOW: dict[str, tuple[bytes, bytes, bytes]] = {
    "says nothing": (b"", b"", b""),
    "headers one at a time": (GET, b"x: y\r\n", b""),
    "a header without end": (GET + b"x: ", b"y", b""),
    "a line without end": (b"GET /", b"a", b""),
    "empty lines for ever": (b"\r\n", b"\r\n", b""),
    "a second request that never comes": (GET + b"\r\n", b"\r\n", b"200"),
    "headers of a second request": (GET + b"\r\n" + GET, b"x: y\r\n", b"200"),
    "a body a byte at a time": (POST + b"content-length: 8000\r\n\r\n", b" ", b"408"),
    "chunks a byte at a time": (
        POST + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n", b"408",
    ),
    "a body that nobody reads": (GET + b"content-length: 8000\r\n\r\n", b" ", b"200"),
}  # fmt: skip


@pytest.mark.parametrize("way", SLOW)
async def test_a_client_that_takes_its_time_loses_its_connection(
    api: Api, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr("api.connection.HEAD_S", 0.6)
    monkeypatch.setattr(edge, "BODY_S", 0.6)
    data, drip, status = SLOW[way]
    began = monotonic()
    answer = await raw(api, data, drip=drip)
    assert monotonic() - began < 5
    assert answer.startswith(b"HTTP/1.1 " + status) if status else answer == b""
    # Whoever does not take its time is served, also twice over one connection.
    async with anybody(api) as one:
        assert [(await one.get("/healthz")).status_code for _ in range(2)] == [200, 200]


async def test_many_that_take_their_time_keep_nobody_out(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.connection.HEAD_S", 1.0)
    async with asyncio.TaskGroup() as tasks:
        slow = [tasks.create_task(raw(api, GET, drip=b"x: y\r\n")) for _ in range(200)]
        async with anybody(api) as one:
            for _ in range(5):
                assert (await one.get("/healthz")).status_code == 200
    assert {task.result() for task in slow} == {b""}


@pytest.mark.parametrize("head", [
    GET + b"x: " + b"y" * 300_000, GET + b"x: y\r\n" * 50_000, b"GET /" + b"a" * 300_000,
    GET + b"x: y\r\n" * 10_000 + b"\r\n", b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n",
])  # fmt: skip
async def test_a_head_that_is_too_large_is_refused_at_once(api: Api, head: bytes) -> None:
    began = monotonic()
    answer = await raw(api, head)
    # What is not read any more resets the connection: the words may get lost on the way.
    assert answer.startswith(b"HTTP/1.1 400 ") or not answer
    assert monotonic() - began < 5


async def test_only_named_origins_may_use_the_api_and_only_with_a_token(api: Api) -> None:
    asks = {"access-control-request-method": "POST",
            "access-control-request-headers": "authorization"}  # fmt: skip
    async with anybody(api) as one:
        answer = await one.options("/api/v1/places", headers={"origin": ORIGIN, **asks})
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert answer.headers["access-control-allow-headers"] == "authorization, content-type"
        nurse = {"authorization": f"Bearer {api.world.tokens['nurse']}", "origin": ORIGIN,
                 "sec-fetch-site": "cross-site"}  # fmt: skip
        read = await one.get("/api/v1/me", headers=nurse)
        assert read.json()["username"] == "nurse"
        assert read.headers["access-control-allow-origin"] == ORIGIN
        assert read.headers["vary"] == "origin"
        denied = await one.get("/api/v1/me", headers={"origin": ORIGIN})
        assert (denied.status_code, denied.headers["access-control-allow-origin"]) == (401, ORIGIN)
        for origin in ("https://evil.example", "null", f"{ORIGIN}.evil.example", "http://b.cn",
                       f"{ORIGIN}:8443", ""):  # fmt: skip
            preflight = await one.options("/api/v1/places", headers={"origin": origin, **asks})
            assert preflight.status_code == 405
            other = await one.get("/api/v1/me", headers={**nurse, "origin": origin})
            for refused in (preflight, other):
                assert not [name for name in refused.headers if name.startswith("access-control")]
                assert refused.headers["vary"] == "origin"
        # A page is nobody's to read, and the cookie is not sent along: nothing ever says it may be.
        assert (
            "access-control-allow-origin"
            not in (await one.get("/", headers={"origin": ORIGIN})).headers
        )
        for one_answer in (answer, read, denied):
            assert "access-control-allow-credentials" not in one_answer.headers
        cookie = {"cookie": f"anxin_session={api.world.tokens['nurse']}", "origin": ORIGIN}
        posted = await one.post("/api/v1/stream/tickets", headers=cookie)
        assert posted.status_code == 403


async def test_by_default_no_other_origin_may(dsn: str) -> None:
    async with running(settle(dsn)) as api, anybody(api) as one:
        answer = await one.get("/api/v1/me", headers={"origin": ORIGIN})
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "vary" not in answer.headers


@pytest.mark.parametrize("wrong", [
    "*", "null", "https://*.example.cn", "http://pages.example.cn", "https://a.cn/path",
    "https://a.cn/", "pages.example.cn", "https://a:b@c.cn",
])  # fmt: skip
def test_an_origin_that_cannot_be_meant_is_told(wrong: str) -> None:
    if wrong == "https://*.example.cn":
        assert read_origins(wrong) == {wrong}, "matches no browser's origin"
        return
    with pytest.raises(SettingError, match="ANXIN_CORS_ORIGINS"):
        read_origins(wrong)


UNSAFE = [
    (method.upper(), path)
    for path, methods in OPENAPI["paths"].items()
    for method in methods
    if method not in ("get", "head")
]


async def test_no_page_of_another_site_changes_anything_by_any_route(api: Api) -> None:
    """With the cookie of an administrator; nothing is looked at before it is refused."""
    alone = {"/api/v1/enrol", "/api/v1/channels/{channel}/reports/{token}"}
    before = api.world.one("SELECT count(*) FROM audit_waiting WHERE status IS NULL")
    sites = (
        {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {},
    )
    tried = 0
    async with anybody(api) as one:
        for method, path in UNSAFE:
            if path in alone:  # no session, so nothing to ride on
                continue
            for site in sites if path != "/api/v1/auth/login" else sites[:4]:
                headers = {"cookie": f"anxin_session={api.world.tokens['admin']}", **site}
                login = {"username": "nurse", "password": "a good password"}
                answer = await one.request(
                    method, path.replace("{", "1").replace("}", ""), headers=headers,
                    json=login if path == "/api/v1/auth/login" else {},
                )  # fmt: skip
                assert answer.status_code == 403, (method, path, site, answer.text)
                assert "set-cookie" not in answer.headers
                tried += 1
    assert tried > 200
    assert api.world.one("SELECT count(*) FROM audit_waiting WHERE status IS NULL") == before
    assert api.world.ask("SELECT 1 FROM sessions WHERE device <> ''") == []


def test_limits_name_paths_that_there_are() -> None:
    paths = [*OPENAPI["paths"]]
    for one in edge.SMALL:
        assert any(path.startswith(one) for path in paths), one

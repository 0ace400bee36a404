"""The pages, and what surrounds every answer."""

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest_asyncio

from tests.integration.api_world import running, settle


@pytest_asyncio.fixture
async def browser(dsn: str, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    static = tmp_path / "static"
    (static / "assets").mkdir(parents=True)
    (static / "index.html").write_text("<!doctype html><title>安心</title>", encoding="utf-8")
    (static / "assets" / "station-3fa9.js").write_text("export {}", encoding="utf-8")
    (static / "assets" / "family-77ab.js").write_text("larger", encoding="utf-8")
    (static / "assets" / "family-77ab.js.gz").write_bytes(gzip.compress(b"smaller"))
    (static / "icon.svg").write_text("<svg/>", encoding="utf-8")
    (static / ".built").write_text("", encoding="utf-8")
    (tmp_path / "secret.txt").write_text("outside", encoding="utf-8")
    async with (
        running(settle(dsn), static=static) as api,
        httpx.AsyncClient(base_url=api.address, trust_env=False) as client,
    ):
        yield client


async def test_every_page_route_gets_the_one_page_and_asks_again_each_time(
    browser: httpx.AsyncClient,
) -> None:
    for path in ("/", "/station", "/login", "/station/beds/7"):
        answer = await browser.get(path)
        assert answer.status_code == 200
        assert "安心" in answer.text
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.headers["cache-control"] == "no-cache"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe-inline" not in policy
    assert (await browser.head("/station")).status_code == 200


async def test_hashed_assets_are_kept_for_ever_and_other_files_are_not(
    browser: httpx.AsyncClient,
) -> None:
    script = await browser.get("/assets/station-3fa9.js")
    assert "immutable" in script.headers["cache-control"]
    assert "javascript" in script.headers["content-type"]
    assert (await browser.get("/icon.svg")).headers["cache-control"] == "no-cache"


async def test_browser_that_takes_it_is_served_what_the_build_compressed(
    browser: httpx.AsyncClient,
) -> None:
    script = await browser.get("/assets/family-77ab.js")
    assert script.headers["content-encoding"] == "gzip"
    assert script.headers["vary"] == "accept-encoding"
    assert "javascript" in script.headers["content-type"]
    assert script.text == "smaller"
    plain = await browser.get("/assets/family-77ab.js", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.text == "larger"


async def test_nothing_outside_and_nothing_hidden_is_served(browser: httpx.AsyncClient) -> None:
    for path in (
        "/../secret.txt", "/assets/../../secret.txt", "/%2e%2e/secret.txt", "/.built",
        "/assets/%2e%2e/%2e%2e/secret.txt", "//etc/passwd.txt", "/missing.js", "/a%00.js",
        "/api/nothing",
    ):  # fmt: skip
        answer = await browser.get(path)
        assert answer.status_code == 404, path
        assert answer.headers["content-type"] == "application/problem+json"


async def test_without_built_pages_it_says_how_to_build_them(dsn: str, tmp_path: Path) -> None:
    async with (
        running(settle(dsn), static=tmp_path / "nothing") as api,
        httpx.AsyncClient(base_url=api.address, trust_env=False) as client,
    ):
        answer = await client.get("/station")
        assert answer.status_code == 503
        assert "make web" in answer.text


async def test_no_cache_keeps_an_answer_of_the_api(browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/api/v1/me")
    assert answer.headers["cache-control"] == "no-store"

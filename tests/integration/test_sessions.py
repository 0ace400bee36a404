"""Sessions: listed, ended, rotated, run out; and what asks for the password again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import httpx
import pytest
import pytest_asyncio

from anxin.db.sessions import hash_token
from anxin.keys import key_line
from tests.integration.api_world import PASSWORD, Api, running, settle
from tests.integration.test_api_routes import done, refused

KEYS = "\n".join(key_line(kind, datetime.now(UTC)) for kind in ("master", "index"))
BROWSER = {
    "sec-fetch-site": "same-origin",
    "user-agent": "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/141.0 Safari/537.36",
}
LOGIN = {"username": "nurse", "password": PASSWORD}


@pytest_asyncio.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    async with running(settle(dsn), environ={"data_keys": KEYS}) as serving:
        yield serving


def client(api: Api) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"{api.address}/api/v1", timeout=20, trust_env=False)


@asynccontextmanager
async def logged_in(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with client(api) as somebody:
        answer = done(await somebody.post("/auth/login", json=LOGIN, headers=BROWSER))
        somebody.cookies.clear()
        somebody.headers["authorization"] = f"Bearer {answer['access_token']}"
        yield somebody


async def test_sessions_say_where_they_are_and_end_one_by_one_or_all_others(api: Api) -> None:
    async with logged_in(api) as phone, logged_in(api) as tablet:
        listed = done(await phone.get("/me/sessions"))["items"]
        assert len(listed) == 3
        (own,) = [one for one in listed if one["current"]]
        assert (own["address"], own["device"]) == ("127.0.0.1", "Chrome · Windows")
        (theirs,) = [
            one["id"] for one in done(await tablet.get("/me/sessions"))["items"] if one["current"]
        ]
        assert (await phone.delete(f"/me/sessions/{theirs}")).status_code == 204
        refused(await tablet.get("/me"), 401)
        refused(await phone.delete(f"/me/sessions/{theirs}"), 404)
        assert (await phone.delete("/me/sessions")).status_code == 204
        assert [one["current"] for one in done(await phone.get("/me/sessions"))["items"]] == [True]
        refused(await api["nurse"].get("/me"), 401)


async def test_a_session_of_somebody_else_is_neither_seen_nor_ended(api: Api) -> None:
    number = api.world.one(
        "SELECT id FROM sessions WHERE token_hash = %s", hash_token(api.world.tokens["nurse"])
    )
    # An administrator may end it by shutting the user out, not as one of its own.
    for who in ("family", "nurse-b", "admin"):
        refused(await api[who].delete(f"/me/sessions/{number}"), 404)
        listed = done(await api[who].get("/me/sessions"))["items"]
        assert str(number) not in [one["id"] for one in listed]
        assert (await api[who].delete("/me/sessions")).status_code == 204
    done(await api["nurse"].get("/me"))


async def test_a_browser_that_logs_in_again_has_a_new_session_and_the_old_one_is_over(
    api: Api,
) -> None:
    async with client(api) as browser:
        first = done(await browser.post("/auth/login", json=LOGIN, headers=BROWSER))["access_token"]
        second = done(await browser.post("/auth/login", json=LOGIN, headers=BROWSER))[
            "access_token"
        ]
        third = done(await browser.post("/auth/login", json=LOGIN))["access_token"]
        browser.cookies.clear()
        for token, status in ((first, 401), (second, 200), (third, 200)):
            answer = await browser.get("/me", headers={"authorization": f"Bearer {token}"})
            assert answer.status_code == status


async def test_a_session_ends_unused_or_at_its_limit_and_moves_on_with_use(api: Api) -> None:
    def ends() -> datetime:
        found = api.world.one("SELECT expires_at FROM sessions WHERE token_hash = %s", token_hash)
        assert isinstance(found, datetime)
        return found

    def pretend(**columns: str) -> None:
        changes = ", ".join(f"{name} = now() + '{value}'" for name, value in columns.items())
        api.world.ask(f"UPDATE sessions SET {changes} WHERE token_hash = %s", token_hash)

    async with logged_in(api) as phone:
        token_hash = hash_token(phone.headers["authorization"].removeprefix("Bearer "))
        pretend(used_at="-5 minutes", expires_at="10 minutes")
        done(await phone.get("/me"))
        assert 7100 < (ends() - datetime.now(UTC)).total_seconds() <= 7200
        pretend(used_at="-5 minutes", expires_at="10 minutes", ends_at="20 minutes")
        done(await phone.get("/me"))
        assert 1100 < (ends() - datetime.now(UTC)).total_seconds() <= 1200
        pretend(used_at="-121 minutes", expires_at="-1 minute", ends_at="20 minutes")
        refused(await phone.get("/me"), 401)


@pytest.mark.parametrize("who", ["supervisor", "admin"])
async def test_what_is_masked_is_shown_in_full_only_soon_after_the_password(
    api: Api, who: str
) -> None:
    anna = api.world.ids["anna"]
    api.world.device("cuff", "A")
    api.world.user("kin", "family", "A")
    asked = (
        ("GET", f"/residents/{anna}/export"),
        ("POST", f"/residents/{anna}/identity/reveal"),
        ("POST", "/devices/cuff/secret"),
        ("GET", f"/users/{api.world.ids['kin']}/sessions"),
        ("POST", f"/users/{api.world.ids['kin']}/password"),
        ("DELETE", f"/users/{api.world.ids['kin']}/sessions"),
    )
    for method, path in asked:
        assert (await api[who].request(method, path)).status_code in (200, 204), path
    api.world.ask("UPDATE sessions SET confirmed_at = now() - interval '11 minutes'")
    for method, path in asked:
        assert refused(await api[who].request(method, path), 403)["type"] == "step-up"
    refused(await api[who].post("/auth/step-up", json={"password": "wrong"}), 403)
    for method, path in asked:
        refused(await api[who].request(method, path), 403)
    old = api[who].headers["authorization"]
    answer = done(await api[who].post("/auth/step-up", json={"password": PASSWORD}))
    refused(await api[who].get("/me", headers={"authorization": old}), 401)
    api[who].headers["authorization"] = f"Bearer {answer['access_token']}"
    for method, path in asked:
        assert (await api[who].request(method, path)).status_code in (200, 204), path

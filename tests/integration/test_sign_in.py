"""Logins through providers of identities: a browser goes there and comes back; nobody else does."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import pytest_asyncio

from tests.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider, serving
from tests.integration.api_world import PASSWORD, Api, running, settle
from tests.integration.test_api_routes import done, refused

PUBLIC = "https://care.example.cn"
BASE = "/api/v1/auth/providers"
BROWSER = {"accept": "text/html,*/*", "sec-fetch-site": "cross-site", "user-agent": "Firefox/140"}


@pytest.fixture
def hospital() -> Iterator[IdentityProvider]:
    with serving() as one:
        yield one


@pytest.fixture
def other() -> Iterator[IdentityProvider]:
    with serving(subject="subject-of-another", algorithm="ES256") as one:
        yield one


def setting(name: str, provider: IdentityProvider) -> dict[str, str]:
    return {"name": name, "zh": "市医院", "en": "City hospital", "issuer": provider.issuer,
            "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}  # fmt: skip


@pytest_asyncio.fixture
async def api(dsn: str, hospital: IdentityProvider, other: IdentityProvider) -> AsyncIterator[Api]:
    oidc = json.dumps([setting("hospital", hospital), setting("other", other)])
    environ = {"oidc": oidc, "public_url": PUBLIC}
    async with running(settle(dsn), environ=environ) as serving_:
        yield serving_


@asynccontextmanager
async def browser(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=api.address, headers=BROWSER, timeout=20, trust_env=False
    ) as one:
        yield one


async def link(api: Api, user: str, subject: str, provider: str = "hospital") -> str:
    body = {"provider": provider, "subject": subject}
    made = await api["admin"].post(f"/users/{api.world.ids[user]}/identities", json=body)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def away(one: httpx.AsyncClient, provider: str = "hospital", **query: str) -> str:
    """Begin a login; return the address at the provider."""
    answer = await one.get(f"{BASE}/{provider}/login", params=query)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def through(provider: IdentityProvider, address: str) -> str:
    """Log in at the provider; return the path and query by which it sends the browser back."""
    parts = urlsplit(address)
    assert f"{parts.scheme}://{parts.netloc}" == provider.issuer
    back = provider.authorize({name: v[0] for name, v in parse_qs(parts.query).items()})
    assert back.startswith(f"{PUBLIC}{BASE}/")
    return back.removeprefix(PUBLIC)


async def log_in(
    one: httpx.AsyncClient, provider: IdentityProvider, **query: str
) -> httpx.Response:
    return await one.get(through(provider, await away(one, **query)))


async def who(one: httpx.AsyncClient) -> str | None:
    answer = await one.get("/api/v1/me", headers={"sec-fetch-site": "same-origin"})
    return answer.json()["username"] if answer.status_code == 200 else None


def told(api: Api) -> list[tuple[object, ...]]:
    query = ("SELECT user_id, action, object, object_id, status FROM audit_waiting"
             " WHERE object IN ('session', 'outside_identity') ORDER BY id")  # fmt: skip
    return [tuple(row.values()) for row in api.world.ask(query)]


async def test_the_login_page_is_told_of_every_provider_and_of_no_secret(api: Api) -> None:
    answer = await api["nobody"].get("/auth/providers")
    assert [one["name"] for one in done(answer)["items"]] == ["hospital", "other"]
    assert done(answer)["items"][0] == {
        "name": "hospital", "zh": "市医院", "en": "City hospital", "confirms": True,
    }  # fmt: skip
    assert CLIENT_SECRET not in answer.text


async def test_somebody_who_is_linked_logs_in_without_a_password_and_lands_where_it_wanted(
    api: Api, hospital: IdentityProvider
) -> None:
    identity = await link(api, "nurse", "subject-1")
    async with browser(api) as one:
        answer = await log_in(one, hospital, next="/station?alarm=7")
        assert (answer.status_code, answer.headers["location"]) == (303, "/station?alarm=7")
        assert await who(one) == "nurse"
        cookies = answer.headers.get_list("set-cookie")
        (session,) = [cookie for cookie in cookies if cookie.startswith("anxin_session=")]
        assert {"HttpOnly", "SameSite=strict"} <= set(session.split("; "))
        assert api.world.ask("SELECT * FROM outside_logins") == []
    rows = api.world.ask("SELECT method FROM sessions WHERE device = 'Firefox'")
    assert [row["method"] for row in rows] == ["oidc"]
    nurse = int(api.world.ids["nurse"])
    assert told(api)[-1] == (nurse, "login", "session", identity, 303)


async def test_a_stranger_is_told_whom_to_ask_and_nothing_is_kept_of_it(
    api: Api, hospital: IdentityProvider
) -> None:
    hospital.subject = "<b>stranger</b>"
    async with browser(api) as one:
        answer = await log_in(one, hospital)
        assert (answer.status_code, answer.headers["content-type"]) == (
            403,
            "text/html; charset=utf-8",
        )
        assert "请联系本机构的安心管理员" in answer.text
        assert "Ask the administrator" in answer.text
        assert "<b>" not in answer.text
        assert "&lt;b&gt;stranger" in answer.text
        assert await who(one) is None
        problem = refused(await one.get(
            through(hospital, await away(one)), headers={"accept": "application/json"}
        ), 403)  # fmt: skip
        assert (problem["type"], problem["subject"]) == ("not-linked", "<b>stranger</b>")
    assert "stranger" not in str(api.world.ask("SELECT * FROM audit_waiting"))
    assert api.world.ask("SELECT * FROM outside_identities") == []
    # The same again in the same minute is one entry.
    first, *again = [one for one in told(api) if one[4] == 403]
    assert first[:3] == (None, "login", "session")
    assert str(first[3]).startswith("hospital:")
    assert again in ([], [first])


async def test_the_same_subject_of_another_provider_is_somebody_else(
    api: Api, hospital: IdentityProvider, other: IdentityProvider
) -> None:
    await link(api, "nurse", "subject-1", "other")
    async with browser(api) as one:
        assert (await log_in(one, hospital)).status_code == 403
        other.subject = "subject-1"
        back = await one.get(through(other, await away(one, "other")))
        assert back.status_code == 303
        assert await who(one) == "nurse"


async def test_a_name_that_is_set_to_another_issuer_lets_nobody_in(api: Api) -> None:
    await link(api, "nurse", "subject-1")
    with serving() as impostor:
        environ = {"oidc": json.dumps([setting("hospital", impostor)]), "public_url": PUBLIC}
        async with running(api.world, environ=environ) as later, browser(later) as one:
            assert (await log_in(one, impostor)).status_code == 403
            assert await who(one) is None


async def test_a_login_comes_back_once_to_the_browser_that_began_it(
    api: Api, hospital: IdentityProvider
) -> None:
    await link(api, "nurse", "subject-1")
    async with browser(api) as one, browser(api) as thief:
        stolen = through(hospital, await away(one))
        answer = await thief.get(stolen)
        assert answer.status_code == 403
        assert "不是在这个浏览器里开始的" in answer.text
        assert (await one.get(stolen)).status_code == 403, "used up by the attempt"
        # The thief's own login, brought to the other's browser: nobody is logged in as the thief.
        planted = through(hospital, await away(thief))
        assert (await one.get(planted)).status_code == 403
        back = through(hospital, await away(one))
        assert (await one.get(back)).status_code == 303
        assert (await one.get(back)).status_code == 403, "replayed"
        assert await who(thief) is None


@pytest.mark.parametrize("change", [
    {"state": "guess"}, {"state": None}, {"code": None}, {"iss": "https://evil.example"},
    {"iss": None}, {"error": "access_denied"},
])  # fmt: skip
async def test_an_answer_that_was_tampered_with_begins_no_session(
    api: Api, hospital: IdentityProvider, change: dict[str, str | None]
) -> None:
    await link(api, "nurse", "subject-1")
    hospital.lies.answer = change
    async with browser(api) as one:
        assert (await log_in(one, hospital)).status_code == 403
        assert await who(one) is None


async def test_parameters_given_twice_are_refused(api: Api, hospital: IdentityProvider) -> None:
    await link(api, "nurse", "subject-1")
    async with browser(api) as one:
        path, _, query = through(hospital, await away(one)).partition("?")
        assert (await one.get(f"{path}?code=another&{query}")).status_code == 403
        assert await who(one) is None


async def test_the_answer_of_one_provider_is_not_taken_by_another(
    api: Api, hospital: IdentityProvider, other: IdentityProvider
) -> None:
    """Mix-up: a bad provider sends the browser on to a good one, to be given its code."""
    await link(api, "nurse", "subject-1")
    hospital.issuer_in_answer = False
    async with browser(api) as one:
        query = parse_qs(urlsplit(await away(one, "other")).query)
        asked = {name: values[0] for name, values in query.items()}
        code = urlsplit(hospital.authorize(asked)).query
        assert (await one.get(f"{BASE}/other/callback?{code}")).status_code == 403
        assert "/token" not in other.asked, "the code has gone to nobody"
        # One that does not name itself: the login it was begun for is known here.
        other.lies.answer = {"iss": None}
        back = through(other, await away(one, "other"))
        assert (await one.get(back.replace("/other/", "/hospital/"))).status_code == 403
        assert "/token" not in hospital.asked
        assert await who(one) is None


async def test_a_login_that_took_longer_than_ten_minutes_is_over(
    api: Api, hospital: IdentityProvider
) -> None:
    await link(api, "nurse", "subject-1")
    async with browser(api) as one:
        back = through(hospital, await away(one))
        api.world.ask("UPDATE outside_logins SET expires_at = now() - interval '1 second'")
        assert (await one.get(back)).status_code == 403
        assert await who(one) is None


@pytest.mark.parametrize("where", [
    "https://evil.example", "//evil.example", "/\\evil.example", "/%2f/evil.example", "/a//b",
    "javascript:alert(1)", "/station\r\nset-cookie: a=b", "/@evil.example", "station",
    "/station#//evil", "/a/../../b", "/.evil.example", "/station\n",
])  # fmt: skip
async def test_a_login_goes_on_to_pages_of_this_host_only(api: Api, where: str) -> None:
    async with browser(api) as one:
        answer = await one.get(f"{BASE}/hospital/login", params={"next": where})
        assert answer.status_code == 422, answer.headers.get("location")
    assert api.world.ask("SELECT * FROM outside_logins") == []


async def test_no_header_decides_where_a_provider_sends_the_browser_back(
    api: Api, hospital: IdentityProvider
) -> None:
    async with browser(api) as one:
        forged = {"host": "evil.example", "x-forwarded-host": "evil.example",
                  "forwarded": "host=evil.example", "x-forwarded-proto": "http"}  # fmt: skip
        answer = await one.get(f"{BASE}/hospital/login", headers=forged)
        (back,) = parse_qs(urlsplit(answer.headers["location"]).query)["redirect_uri"]
        assert back == f"{PUBLIC}{BASE}/hospital/callback"
        assert (await log_in(one, hospital, next="/")).status_code == 403


async def test_a_provider_that_is_down_is_told_plainly_and_passwords_go_on(
    api: Api, hospital: IdentityProvider
) -> None:
    hospital.lies.status = 503
    async with browser(api) as one:
        answer = await one.get(f"{BASE}/hospital/login")
        assert answer.status_code == 503
        assert "用用户名和密码登录" in answer.text
        assert "Use your password" in answer.text
        login = {"username": "nurse", "password": PASSWORD}
        body = await one.post("/api/v1/auth/login", json=login,
                              headers={"sec-fetch-site": "same-origin"})  # fmt: skip
        assert body.status_code == 200
    refused(await api["nobody"].get("/auth/providers/nobodys/login"), 404)


async def test_somebody_shut_out_does_not_come_in_by_a_provider_either(
    api: Api, hospital: IdentityProvider
) -> None:
    await link(api, "nurse", "subject-1")
    done(await api["admin"].patch(f"/users/{api.world.ids['nurse']}", json={"disabled": True}))
    async with browser(api) as one:
        assert (await log_in(one, hospital)).status_code == 403
        assert await who(one) is None


async def test_from_one_address_only_so_many_logins_are_away_at_a_time(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anxin.db.identities.MOST_PENDING", 3)
    async with browser(api) as one:
        for _ in range(3):
            await away(one)
        assert (await one.get(f"{BASE}/hospital/login")).status_code == 429
        api.world.ask("UPDATE outside_logins SET expires_at = now() - interval '1 second'")
        await away(one)


async def test_a_login_by_a_provider_proves_nothing_new_until_it_is_asked_to(
    api: Api, hospital: IdentityProvider
) -> None:
    await link(api, "admin", "subject-1")
    hospital.authenticated_at = (datetime.now(UTC) - timedelta(hours=3)).timestamp()
    path = f"/api/v1/users/{api.world.ids['nurse']}/identities"
    body = {"provider": "other", "subject": "x"}
    same = {"sec-fetch-site": "same-origin"}
    async with browser(api) as one:
        await log_in(one, hospital)
        old = one.cookies["anxin_session"]
        assert refused(await one.post(path, json=body, headers=same), 403)["type"] == "step-up"
        # The provider says that it was hours ago: this confirms nothing.
        assert (await log_in(one, hospital, confirm="true")).status_code == 403
        assert refused(await one.post(path, json=body, headers=same), 403)["type"] == "step-up"
        hospital.authenticated_at = None
        asked = await away(one, confirm="true", next="/station")
        assert parse_qs(urlsplit(asked).query)["prompt"] == ["login"]
        # Strict cookies do not come along from another site; what began is known nevertheless.
        session = one.cookies.pop("anxin_session")
        assert session == old
        assert (await one.get(through(hospital, asked))).status_code == 303
        assert one.cookies["anxin_session"] != old
        assert (await one.post(path, json=body, headers=same)).status_code == 201
        stale = {"authorization": f"Bearer {old}"}
        assert (await api["nobody"].get("/me", headers=stale)).status_code == 401


async def test_nobody_confirms_for_somebody_else(api: Api, hospital: IdentityProvider) -> None:
    await link(api, "nurse", "subject-1")
    await link(api, "admin", "subject-2")
    async with browser(api) as one:
        assert (await log_in(one, hospital)).status_code == 303
        hospital.subject = "subject-2"
        assert (await log_in(one, hospital, confirm="true")).status_code == 403
        assert await who(one) == "nurse"
        one.cookies.clear()
        assert (
            await one.get(f"{BASE}/hospital/login", params={"confirm": "true"})
        ).status_code == 401


async def test_identities_are_linked_by_administrators_within_their_reach_and_once(
    api: Api, hospital: IdentityProvider
) -> None:
    world = api.world
    world.user("admin-b", "admin", "B")
    path = f"/users/{world.ids['nurse']}/identities"
    body = {"provider": "hospital", "subject": "subject-1"}
    for user, status in (("nurse", 403), ("supervisor", 403), ("family", 403), ("admin-b", 404)):
        refused(await api[user].get(path), status)
        refused(await api[user].post(path, json=body), status)
    identity = await link(api, "nurse", "subject-1")
    (row,) = done(await api["admin"].get(path))["items"]
    assert (row["id"], row["provider"], row["issuer"], row["subject"], row["used_at"]) == (
        identity, "hospital", hospital.issuer, "subject-1", None)  # fmt: skip
    refused(await api["admin"].post(f"/users/{world.ids['nurse-b']}/identities", json=body), 409)
    refused(await api["admin"].post(path, json={"provider": "nobodys", "subject": "x"}), 404)
    refused(await api["admin-b"].delete(f"{path}/{identity}"), 404)
    refused(await api["admin"].delete(f"/users/{world.ids['nurse-b']}/identities/{identity}"), 404)
    world.ask("UPDATE sessions SET confirmed_at = now() - interval '1 hour' WHERE user_id = %s",
              int(world.ids["admin"]))  # fmt: skip
    assert refused(await api["admin"].post(path, json=body), 403)["type"] == "step-up"
    assert refused(await api["admin"].delete(f"{path}/{identity}"), 403)["type"] == "step-up"


async def test_unlinking_ends_every_session_and_the_way_in(
    api: Api, hospital: IdentityProvider
) -> None:
    identity = await link(api, "nurse", "subject-1")
    async with browser(api) as one:
        await log_in(one, hospital)
        path = f"/users/{api.world.ids['nurse']}/identities/{identity}"
        assert (await api["admin"].delete(path)).status_code == 204
        assert await who(one) is None
        assert (await log_in(one, hospital)).status_code == 403
    admin = int(api.world.ids["admin"])
    changes = [one for one in told(api) if one[2] == "outside_identity"]
    assert (admin, "create", "outside_identity", identity, None) in changes
    assert (admin, "delete", "outside_identity", identity, None) in changes

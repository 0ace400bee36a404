"""Logins by WeCom, against a stand-in for its API over real HTTP."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from anxin.signin import Attempt, ProviderAway, SignInRefused
from anxin.wecom import WeCom, WeComSetting
from tests.integration.api_world import running, settle

BACK = "https://care.example.cn/api/v1/auth/providers/wecom/callback"
SECRET = "secret-of-the-application"


@dataclass
class Enterprise:
    """What the stand-in knows, answers and was asked."""

    address: str = ""
    members: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Answers by code; each is good once."""
    token: str = "token-1"
    answer: dict[str, Any] | None = None
    asked: list[str] = field(default_factory=list)

    def say(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        """Answer like WeCom: always with 200, and a code of its own."""
        self.asked.append(path)
        if self.answer is not None:
            return self.answer
        if path == "/cgi-bin/gettoken":
            if (query["corpid"], query["corpsecret"]) != ("ww1", SECRET):
                return {"errcode": 40001, "errmsg": "invalid credential"}
            return {"errcode": 0, "errmsg": "ok", "access_token": self.token, "expires_in": 7200}
        assert path == "/cgi-bin/auth/getuserinfo"
        if query["access_token"] != self.token:
            return {"errcode": 42001, "errmsg": "access_token expired"}
        member = self.members.pop(query["code"], None)
        if member is None:
            return {"errcode": 40029, "errmsg": "invalid code"}
        return {"errcode": 0, "errmsg": "ok", **member}


@contextmanager
def serving() -> Iterator[Enterprise]:
    enterprise = Enterprise()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            body = json.dumps(enterprise.say(parts.path, query)).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        enterprise.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield enterprise
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def enterprise() -> Iterator[Enterprise]:
    with serving() as one:
        yield one


def setting(enterprise: Enterprise, secret: str = SECRET) -> WeComSetting:
    return WeComSetting(
        name="wecom", corp_id="ww1", agent_id="1000002", secret=secret, api=enterprise.address
    )


def attempt(**changes: Any) -> Attempt:
    values = {"state": "s" * 43, "nonce": "", "verifier": "", "redirect_uri": BACK,
              "began_at": datetime.now(UTC)}  # fmt: skip
    return Attempt(**values | changes)


async def who(enterprise: Enterprise, code: str = "c", secret: str = SECRET) -> str:
    async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
        one = WeCom(setting(enterprise, secret), client)
        return (await one.identify(attempt(), {"code": code}, datetime.now(UTC))).subject


async def test_the_browser_goes_to_a_code_to_scan_and_inside_wecom_straight_on(
    enterprise: Enterprise,
) -> None:
    async with httpx.AsyncClient() as client:
        one = WeCom(setting(enterprise), client)
        page = urlsplit(await one.address(attempt(), datetime.now(UTC)))
        assert f"{page.netloc}{page.path}" == "login.work.weixin.qq.com/wwlogin/sso/login"
        assert {name: values[0] for name, values in parse_qs(page.query).items()} == {
            "login_type": "CorpApp", "appid": "ww1", "agentid": "1000002", "redirect_uri": BACK,
            "state": "s" * 43,
        }  # fmt: skip
        inside = attempt(browser="Mozilla/5.0 MicroMessenger/7.0.1 wxwork/4.1.30")
        page = urlsplit(await one.address(inside, datetime.now(UTC)))
        assert f"{page.netloc}{page.path}" == "open.weixin.qq.com/connect/oauth2/authorize"
        assert page.fragment == "wechat_redirect"
        assert parse_qs(page.query)["scope"] == ["snsapi_base"]


async def test_a_member_is_known_by_its_id_and_a_code_is_good_once(enterprise: Enterprise) -> None:
    enterprise.members["c"] = {"userid": "ZhangSan", "user_ticket": "x"}
    assert await who(enterprise) == "zhangsan"
    with pytest.raises(SignInRefused):
        await who(enterprise)


@pytest.mark.parametrize("member", [
    {"openid": "o-outsider"}, {"external_userid": "wm1"}, {"userid": ""}, {"userid": 7},
])  # fmt: skip
async def test_an_outsider_is_refused(enterprise: Enterprise, member: dict[str, Any]) -> None:
    enterprise.members["c"] = member
    with pytest.raises(SignInRefused):
        await who(enterprise)


@pytest.mark.parametrize("answer", [
    {"errcode": 60020, "errmsg": "not allow to access from your ip"}, {"errcode": -1},
    {"errcode": 0}, {"errcode": 0, "access_token": ""},
])  # fmt: skip
async def test_what_wecom_will_not_do_is_no_fault_of_the_person(
    enterprise: Enterprise, answer: dict[str, Any]
) -> None:
    enterprise.answer = answer
    with pytest.raises(ProviderAway):
        await who(enterprise)


async def test_a_wrong_secret_is_no_fault_of_the_person(enterprise: Enterprise) -> None:
    with pytest.raises(ProviderAway):
        await who(enterprise, secret="wrong")


async def test_the_token_of_the_application_is_kept_and_fetched_anew_when_it_is_void(
    enterprise: Enterprise,
) -> None:
    async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
        one = WeCom(setting(enterprise), client)
        now = datetime.now(UTC)

        async def again(at: datetime) -> str:
            enterprise.members["c"] = {"userid": "li"}
            return (await one.identify(attempt(), {"code": "c"}, at)).subject

        assert await again(now) == await again(now) == "li"
        assert enterprise.asked.count("/cgi-bin/gettoken") == 1
        enterprise.token = "token-2"
        assert await again(now) == "li"
        assert enterprise.asked.count("/cgi-bin/gettoken") == 2
        assert await again(now + timedelta(minutes=116)) == "li"
        assert enterprise.asked.count("/cgi-bin/gettoken") == 3


async def test_wecom_confirms_nobody_and_a_linked_member_logs_in(
    dsn: str, enterprise: Enterprise
) -> None:
    one = {"kind": "wecom", "name": "wecom", "corp_id": "ww1", "agent_id": "1000002",
           "secret": SECRET, "api": enterprise.address}  # fmt: skip
    environ = {"oidc": json.dumps([one]), "public_url": "https://care.example.cn"}
    async with running(settle(dsn), environ=environ) as api:
        (offer,) = (await api["nobody"].get("/auth/providers")).json()["items"]
        assert (offer["zh"], offer["confirms"]) == ("企业微信", False)
        body = {"provider": "wecom", "subject": "WangWu"}
        path = f"/users/{api.world.ids['nurse']}/identities"
        assert (await api["admin"].post(path, json=body)).status_code == 201
        async with httpx.AsyncClient(base_url=api.address, trust_env=False) as browser:
            base = "/api/v1/auth/providers/wecom"
            away = await browser.get(f"{base}/login")
            (state,) = parse_qs(urlsplit(away.headers["location"]).query)["state"]
            enterprise.members["c"] = {"userid": "wangwu"}
            back = await browser.get(f"{base}/callback", params={"code": "c", "state": state})
            assert back.status_code == 303
            same = {"sec-fetch-site": "same-origin"}
            assert (await browser.get("/api/v1/me", headers=same)).json()["username"] == "nurse"
            assert (await browser.get(f"{base}/login?confirm=true")).status_code == 403
        rows = api.world.ask("SELECT method FROM sessions WHERE method <> 'password'")
        assert [row["method"] for row in rows] == ["wecom"]

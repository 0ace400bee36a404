"""Web Push from the channel over the wire to what a browser reads, and through the API."""

import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from anxin.config import Settings
from anxin.notify.channel import Contact, DeliveryError
from anxin.notify.notice import Notice, Priority
from anxin.notify.web import Web
from anxin.notify.web_push import WebPush, topic
from tests import docs
from tests.integration.api_world import Api, running, settle
from tests.integration.test_api_routes import done, refused
from tests.push_service import Browser, PushService
from tests.recording import Provider, Reply

PRIVATE = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
PUBLIC = "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8"
SUBJECT = "mailto:it@care.example.cn"
KEY = "7:1:0:first:u3:web_push"


def notice(priority: Priority = "high") -> Notice:
    return Notice(
        alarm_ids=("7",), priority=priority, kind="sos", what_zh="紧急呼叫",
        what_en="Emergency call", place="安心养老院 · 201 · 2 床", who="王**",
        at="11-23 21:40:05", link="https://care.example.cn/?alarm=7",
    )  # fmt: skip


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    async with Web(allow_private=True) as client:
        yield client


@pytest.fixture
def channel(web: Web) -> WebPush:
    return WebPush(web, private_key=PRIVATE, subject=SUBJECT)


@pytest.fixture
def service() -> PushService:
    browser = Browser(ec.generate_private_key(ec.SECP256R1()), b"0123456789abcdef")
    return PushService(browser, PUBLIC)


def contact(service: PushService, address: str) -> Contact:
    return Contact(service.browser.subscription(f"{address}/push/abc"))


async def test_a_notice_is_shown_by_the_browser_and_a_repeat_takes_its_place(
    channel: WebPush, service: PushService
) -> None:
    async with Provider(service).serving() as stub:
        for _ in range(2):
            await channel.send(notice(), contact(service, stub.address), key=KEY)
    first, again = service.shown
    assert first == again
    assert first["notification"]["title"] == notice().title()
    assert first["notification"]["navigate"] == notice().link
    assert first["notification"]["tag"] == stub.heard[0].headers["topic"] == topic(KEY)
    assert stub.heard[0].path == "/push/abc"
    assert stub.heard[0].headers["content-type"] == "application/octet-stream"
    bodies = [heard.body for heard in stub.heard]
    assert bodies[0][:86] != bodies[1][:86], "salt and key are new for each message"
    assert all("紧急".encode() not in body for body in bodies)


@pytest.mark.parametrize(
    ("priority", "urgency", "seconds"),
    [("high", "high", 3600), ("medium", "high", 3600), ("low", "normal", 86_400)],
)
async def test_the_push_service_is_told_how_urgent_it_is_and_how_long_it_keeps(
    channel: WebPush, service: PushService, priority: Priority, urgency: str, seconds: int
) -> None:
    async with Provider(service).serving() as stub:
        await channel.send(notice(priority), contact(service, stub.address), key=KEY)
    (heard,) = stub.heard
    assert (heard.headers["urgency"], heard.headers["ttl"]) == (urgency, str(seconds))


@pytest.mark.parametrize("status", [404, 410])
async def test_a_subscription_that_has_ended_is_final_and_says_what_to_do(
    channel: WebPush, service: PushService, status: int
) -> None:
    service.ended = status
    async with Provider(service).serving() as stub:
        with pytest.raises(DeliveryError, match=f"HTTP {status}.*Subscribe again") as refused:
            await channel.send(notice(), contact(service, stub.address), key=KEY)
    assert refused.value.permanent


async def test_another_key_than_the_subscriptions_is_refused_for_good(
    channel: WebPush, service: PushService
) -> None:
    service.application_server_key = "another"
    async with Provider(service).serving() as stub:
        with pytest.raises(DeliveryError, match="HTTP 403") as refused:
            await channel.send(notice(), contact(service, stub.address), key=KEY)
    assert refused.value.permanent
    assert service.shown == []


@pytest.mark.parametrize(
    ("reply", "rest"),
    [
        (Reply(None, 429, {"retry-after": "7"}), 7.0),
        (Reply(None, 503, {"retry-after": "9"}), 9.0),
        (Reply(None, 500), None),
    ],
)
async def test_a_push_service_that_is_busy_is_asked_again(
    channel: WebPush, service: PushService, reply: Reply, rest: float | None
) -> None:
    async with Provider(lambda _: reply).serving() as stub:
        with pytest.raises(DeliveryError) as refused:
            await channel.send(notice(), contact(service, stub.address), key=KEY)
    assert (refused.value.permanent, refused.value.retry_after_seconds) == (False, rest)


async def test_a_subscription_in_the_own_network_is_never_asked(service: PushService) -> None:
    async with Provider(service).serving() as stub, Web() as web:
        channel = WebPush(web, private_key=PRIVATE, subject=SUBJECT)
        with pytest.raises(DeliveryError) as refused:
            await channel.send(notice(), contact(service, stub.address), key=KEY)
    assert refused.value.permanent
    assert stub.heard == []


@pytest.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    async with running(settle(dsn)) as serving:
        yield serving


def use(api: Api, settings: Settings) -> None:
    state = api.server.config.app.state  # type: ignore[union-attr]  # it is our application
    state.services = replace(state.services, settings=settings)


async def test_a_person_stores_a_subscription_and_tries_it(
    api: Api, dsn: str, service: PushService
) -> None:
    use(api, Settings(database=dsn))
    seen = {one["name"]: one for one in done(await api["nurse"].get("/channels"))}
    assert "ANXIN_VAPID_PRIVATE_KEY" in seen["web_push"]["missing"]
    use(api, Settings(
        database=dsn, allow_private_webhooks=True, vapid_private_key=PRIVATE,
        vapid_subject=SUBJECT,
    ))  # fmt: skip
    seen = {one["name"]: one for one in done(await api["nurse"].get("/channels"))}
    assert seen["web_push"] == {
        "name": "web_push", "receipts": ["sent"], "most_per_minute": None, "missing": None,
    }  # fmt: skip
    wrong = {"channel": "web_push", "address": "https://push.example.com/"}
    refused(await api["nurse"].post("/contacts", json=wrong), 422)
    async with Provider(service).serving() as stub:
        new = {"channel": "web_push", "address": contact(service, stub.address).address}
        made = done(await api["nurse"].post("/contacts", json=new), 201)
        told = done(await api["nurse"].post(f"/contacts/{made['id']}/test"))
        assert told["ok"] is True
        assert "通道测试" in service.shown[0]["notification"]["title"]
        service.ended = 410
        told = done(await api["nurse"].post(f"/contacts/{made['id']}/test"))
        assert (told["outcome"], "重新订阅" in told["zh"]) == ("failed", True)


@pytest.fixture
def documented_keys(tmp_path: Path) -> tuple[str, str]:
    """Return what the commands of the docs make: a private key as PEM, and its public half."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the key")
    section = (docs.DOCS / "notify.md").read_text(encoding="utf-8").split("### Web Push\n")[1]
    commands = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)[0]
    shown = subprocess.run(
        ["bash", "-euc", commands], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    return (tmp_path / "vapid.pem").read_text(encoding="utf-8"), shown.stdout.strip()


async def test_the_keys_that_the_docs_tell_to_make_belong_together(
    web: Web, service: PushService, documented_keys: tuple[str, str]
) -> None:
    private, service.application_server_key = documented_keys
    channel = WebPush(web, private_key=private, subject=SUBJECT)
    async with Provider(service).serving() as stub:
        await channel.send(notice(), contact(service, stub.address), key=KEY)
    assert len(service.shown) == 1

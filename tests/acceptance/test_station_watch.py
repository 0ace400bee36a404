"""Beds whose devices fall silent, and notices in a browser, on a platform with its own database."""

import asyncio
import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from playwright.sync_api import BrowserContext, Locator, Page, expect

from anxin.embedded import EmbeddedPostgres
from anxin.notify.web_push import application_server_key
from tests.acceptance.house import SOON_MS, House, alarm, card, is_live, log_in
from tests.conftest import ADMIN_PASSWORD, Running, database_of, starter
from tests.push_service import Browser as Subscriber
from tests.push_service import PushService, to_text
from tests.recording import Provider
from tests.waiting import wait_until

VAPID = to_text(bytes(range(1, 33)))
SLOW_MS = 20_000
"""Within this the worker has looked for silence, and the page has heard of it."""


@pytest.fixture(scope="module")
def dsn(postgres: EmbeddedPostgres, template: str) -> Iterator[str]:
    with database_of(postgres, template) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def anxin(dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with starter(tmp_path_factory.mktemp("watch")) as start:
        yield start(
            "--database",
            dsn,
            environ={
                "ANXIN_VAPID_PRIVATE_KEY": VAPID,
                "ANXIN_VAPID_SUBJECT": "mailto:it@care.example.cn",
                "ANXIN_ALLOW_PRIVATE_WEBHOOKS": "true",
            },
        )


def silence(dsn: str, device_id: str, column: str) -> None:
    """Let a device have been quiet for ten minutes: `heard` not at all, `measured` no values."""
    with psycopg.connect(dsn) as connection:
        connection.execute(
            """WITH d AS (SELECT key FROM devices WHERE id = %(id)s), quiet AS (
                UPDATE latest SET received_at = now() - interval '10 minutes' FROM d
                WHERE device_key = d.key)
               UPDATE device_states SET heard_at = CASE WHEN %(all)s
                    THEN now() - interval '10 minutes' ELSE now() END
               FROM d WHERE device_key = d.key""",
            {"id": device_id, "all": column == "heard"},
        )
        connection.execute(
            """UPDATE assignments SET during = tstzrange(now() - interval '1 hour', NULL)
               WHERE device_key = (SELECT key FROM devices WHERE id = %(id)s)""",
            {"id": device_id},
        )


def lies_in_bed(house: House, name: str) -> None:
    reading = {"ts": int(time.time() * 1000), "hr": 70, "rr": 14, "presence": "present"}
    house.publish(f"{name} mat", "telemetry", reading)


def test_bed_whose_sensor_is_not_heard_never_looks_well(house: House, page: Page, dsn: str) -> None:
    name = "王秀英"
    log_in(page, house)
    is_live(page)
    here = card(page, house, name)
    # Assigned a moment ago and never heard: no fault yet, and nothing to rely on either.
    expect(here).to_have_attribute("data-watch", "never")
    expect(here).to_contain_text("从未收到数据")

    lies_in_bed(house, name)
    expect(here).to_have_attribute("data-state", "well", timeout=SOON_MS)
    expect(here).to_contain_text("在床")

    # The mat is gone; the call button, which was never pressed, tells nothing either.
    silence(dsn, house.devices[f"{name} mat"][0], "heard")
    silence(dsn, house.devices[f"{name} button"][0], "heard")
    expect(alarm(page).filter(has_text=name)).to_contain_text("设备失联", timeout=SLOW_MS)
    expect(here).not_to_have_attribute("data-state", "well", timeout=SOON_MS)
    expect(here).to_have_attribute("data-watch", "network-error", timeout=SOON_MS)
    expect(here).to_contain_text("设备失联")
    here.click()
    drawer = page.get_by_role("complementary")
    expect(drawer.locator("[data-watch]").first).to_contain_text("设备失联")
    devices = drawer.locator("[data-devices] li")
    expect(devices.filter(has_text="床垫传感器")).to_contain_text("失联")
    expect(devices.filter(has_text="床垫传感器")).to_contain_text("10 分钟前")
    expect(devices.filter(has_text="呼叫按钮")).to_contain_text("从未联系上")

    # It is heard again: of two devices one is still missed, so the bed is not well yet.
    lies_in_bed(house, name)
    expect(here).to_have_attribute("data-watch", "partly", timeout=SLOW_MS)
    expect(here).to_have_attribute("data-state", "attention")
    page.locator("[data-language]").click()
    expect(drawer.locator("[data-watch]").first).to_contain_text("A device is silent")


def test_bed_whose_sensor_is_connected_and_measures_nothing_is_told_apart(
    house: House, page: Page, dsn: str
) -> None:
    for name in house.residents:
        lies_in_bed(house, name)
        house.publish(f"{name} button", "state", {"battery": 80})
    log_in(page, house)
    is_live(page)
    here = card(page, house, "李建国")
    expect(here).to_have_attribute("data-watch", "present")

    silence(dsn, house.devices["李建国 mat"][0], "measured")
    expect(alarm(page)).to_contain_text("设备在线，但没有读数", timeout=SLOW_MS)
    # The button is heard: the bed is watched in part, and says so.
    expect(here).to_have_attribute("data-watch", "partly", timeout=SOON_MS)
    expect(here).to_have_attribute("data-state", "attention")
    house.admin.put(
        f"/devices/{house.devices['李建国 button'][0]}/assignment", json={"resident_id": None}
    ).raise_for_status()
    page.reload()
    expect(here).to_have_attribute("data-watch", "sensor-error")
    expect(here).to_contain_text("传感器无读数")

    house.admin.put(
        f"/devices/{house.devices['李建国 mat'][0]}/assignment", json={"resident_id": None}
    ).raise_for_status()
    page.reload()
    expect(here).to_have_attribute("data-watch", "undeployed")
    expect(here).to_contain_text("没有设备")
    expect(card(page, house, "王秀英")).to_have_attribute("data-state", "well")


# ---- notices in the browser


class Service:
    """A push service at an address of this machine, which the browser says it subscribed with."""

    def __init__(self) -> None:
        key = application_server_key(VAPID)
        assert key is not None
        subscriber = Subscriber(ec.generate_private_key(ec.SECP256R1()), b"0123456789abcdef")
        self.push = PushService(subscriber, key)
        self.address = ""

    @contextmanager
    def serving(self) -> Iterator["Service"]:
        """Serve beside the test, in a thread of its own."""
        loop = asyncio.new_event_loop()
        ready, over = threading.Event(), asyncio.Event()

        async def serve() -> None:
            async with Provider(self.push).serving() as provider:
                self.address = provider.address
                ready.set()
                await over.wait()

        thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="push")
        thread.start()
        try:
            assert ready.wait(10)
            yield self
        finally:
            loop.call_soon_threadsafe(over.set)
            thread.join(10)
            loop.close()

    def script(self) -> str:
        """Return what stands in for the maker's service, which is out of reach here."""
        told = self.push.browser.subscription(f"{self.address}/push/abc")
        key = base64.urlsafe_b64decode(self.push.application_server_key + "=")
        return f"""(() => {{
            const kept = 'test.subscribed'
            const one = () => ({{
                ...{told}, toJSON: () => ({told}),
                options: {{ applicationServerKey: new Uint8Array({list(key)}).buffer }},
                unsubscribe: async () => {{
                    localStorage.setItem('test.ended', 1)
                    localStorage.removeItem(kept)
                    return true
                }},
            }})
            PushManager.prototype.getSubscription = async () =>
                localStorage.getItem(kept) ? one() : null
            PushManager.prototype.subscribe = async (options) => {{
                if (!options.userVisibleOnly) throw new Error('must show')
                localStorage.setItem(kept, options.applicationServerKey)
                return one()
            }}
        }})()"""


@pytest.fixture
def service() -> Iterator[Service]:
    with Service().serving() as service:
        yield service


def panel(page: Page) -> Locator:
    return page.locator("[data-push-panel]")


def stands(page: Page, standing: str) -> None:
    expect(panel(page)).to_have_attribute("data-standing", standing, timeout=SOON_MS)


def deliver(page: Page, context: BrowserContext, message: dict[str, object]) -> None:
    """Hand a message to the page's service worker as the browser does when it is pushed."""
    session = context.new_cdp_session(page)
    seen: list[dict[str, str]] = []
    session.on("ServiceWorker.workerRegistrationUpdated", lambda e: seen.extend(e["registrations"]))
    session.send("ServiceWorker.enable")
    page.wait_for_function("navigator.serviceWorker.ready.then(() => true)")
    while not seen:
        page.evaluate("1")  # Events are read while the page is spoken to.
    parts = urlsplit(page.url)
    session.send(
        "ServiceWorker.deliverPushMessage",
        {
            "origin": f"{parts.scheme}://{parts.netloc}",
            "registrationId": seen[0]["registrationId"],
            "data": json.dumps(message),
        },
    )


def test_notice_reaches_the_browser_and_its_click_opens_the_alarm(
    house: House, page: Page, service: Service
) -> None:
    context = page.context
    context.grant_permissions(["notifications"])
    page.add_init_script(service.script())
    log_in(page, house)
    is_live(page)
    page.locator("[data-push]").click()
    stands(page, "off")
    page.locator("[data-push-begin]").click()
    stands(page, "on")
    page.reload()
    page.locator("[data-push]").click()
    stands(page, "on")

    page.locator("[data-push-test]").click()
    expect(panel(page)).to_contain_text("测试通知已发出")
    (pushed,) = service.push.shown
    deliver(page, context, pushed)
    wait_until(lambda: len(notices(page)) == 1, what="the worker shows the notice")
    assert "通道测试" in notices(page)[0]

    house.sos("李建国")
    expect(alarm(page)).to_have_count(1, timeout=SOON_MS)
    identity = alarm(page).get_attribute("data-alarm")
    click_notice(page, f"https://care.example.cn/?alarm={identity}")
    page.wait_for_url(f"**/station?alarm={identity}*")
    expect(alarm(page)).to_be_focused()
    expect(panel(page)).not_to_be_visible()
    # No list of alarms is ever an old one.
    assert page.evaluate("caches.keys()") == []

    page.locator("[data-push]").click()
    page.locator("[data-push-end]").click()
    stands(page, "off")
    mine = house.admin.get("/contacts", params={"place_id": house.place_id}).json()["items"]
    assert mine == []


def notices(page: Page) -> list[str]:
    """Return the titles of what the browser shows."""
    titles: list[str] = page.evaluate(
        """async () => {
            const shown = await (await navigator.serviceWorker.ready).getNotifications()
            return shown.map(({ title }) => title)
        }"""
    )
    return titles


def click_notice(page: Page, link: str) -> None:
    """Let the worker hear a click, which no test can make on the desktop's own notice."""
    (worker,) = page.context.service_workers
    worker.evaluate(
        """async link => {
            const data = { navigate: link }
            await self.registration.showNotification('t', { tag: 'click', data })
            const [notification] = await self.registration.getNotifications({ tag: 'click' })
            self.dispatchEvent(new NotificationEvent('notificationclick', { notification }))
        }""",
        link,
    )


def test_browser_notifies_one_user_and_tells_the_next_one(
    house: House, page: Page, service: Service
) -> None:
    page.context.grant_permissions(["notifications"])
    page.add_init_script(service.script())
    log_in(page, house)
    is_live(page)
    page.locator("[data-push]").click()
    page.locator("[data-push-begin]").click()
    stands(page, "on")
    page.keyboard.press("Escape")
    page.locator("[data-logout]").click()

    page.get_by_label("用户名").fill("admin")
    page.get_by_label("密码").fill(ADMIN_PASSWORD)
    page.get_by_role("button", name="登录").click()
    is_live(page)
    page.locator("[data-push]").click()
    stands(page, "other")
    expect(panel(page)).to_contain_text("另一个账号")
    page.locator("[data-push-begin]").click()
    stands(page, "on")
    # The first subscription was ended, so that its notices come to nobody else.
    assert page.evaluate("localStorage.getItem('test.ended')") == "1"


def test_browser_that_cannot_receive_notices_says_why(house: House, page: Page) -> None:
    context = page.context
    context.grant_permissions(["notifications"])
    log_in(page, house)
    is_live(page)
    page.locator("[data-push]").click()
    stands(page, "off")
    # This browser has no maker's service to subscribe with.
    page.locator("[data-push-begin]").click()
    expect(panel(page).get_by_role("alert")).to_contain_text(
        "连接不上它的推送服务", timeout=SLOW_MS
    )
    stands(page, "off")
    assert house.admin.get("/contacts", params={"place_id": house.place_id}).json()["items"] == []

    page.add_init_script("delete window.PushManager")
    page.reload()
    page.locator("[data-push]").click()
    stands(page, "unsupported")
    page.add_init_script("Object.defineProperty(window, 'isSecureContext', { value: false })")
    page.reload()
    page.locator("[data-push]").click()
    stands(page, "insecure")
    expect(panel(page)).to_contain_text("https://")

"""A relative's page in a real browser, against a whole running platform."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest
from playwright.sync_api import Locator, Page, ViewportSize, expect

from tests.acceptance.cable import Cable
from tests.acceptance.house import (
    NURSE_PASSWORD,
    SOON_MS,
    House,
    faults_of,
    fill_in,
    is_live,
    log_in,
)

SIDES = ("status", "vitals", "alarms", "events")
WANG, LI = "王秀英", "李建国"
PHONE: Final[ViewportSize] = {"width": 390, "height": 844}


@dataclass(frozen=True, slots=True)
class Relative:
    """A daughter who looks at her telephone."""

    house: House
    username: str
    user_id: str

    def may_see(self, name: str, *sides: str) -> None:
        """Let her see these sides of a resident, and no others."""
        body = {"user_id": self.user_id, "scopes": list(sides), "given_by": "elder"}
        path = f"/residents/{self.house.residents[name]}/family"
        self.house.admin.post(path, json=body).raise_for_status()

    def open(self, page: Page, *, url: str = "") -> None:
        """Log in on a telephone and wait until the page lives."""
        page.set_viewport_size(PHONE)
        page.goto(f"{url or self.house.running.url}/family")
        page.get_by_label("用户名").fill(self.username)
        page.get_by_label("密码").fill(NURSE_PASSWORD)
        page.get_by_role("button", name="登录").click()
        lives(page)


@pytest.fixture
def daughter(house: House) -> Relative:
    username = house.nurse.replace("nurse", "daughter")
    body = {"username": username, "password": NURSE_PASSWORD, "role": "family"}
    made = house.admin.post("/users", json=body)
    made.raise_for_status()
    one = Relative(house, username, made.json()["id"])
    one.may_see(WANG, *SIDES)
    phone = {"phone": "023-4980 0001"}
    house.admin.patch(f"/places/{house.place_id}", json=phone).raise_for_status()
    return one


def lives(page: Page) -> None:
    expect(page.locator(".family main")).to_have_attribute("data-up", "true")


def relative(page: Page, house: House, name: str) -> Locator:
    return page.locator(f'[data-relative="{house.residents[name]}"]')


def part(page: Page, name: str) -> Locator:
    return page.locator(f'[data-part="{name}"]')


def breathe(house: House, name: str) -> None:
    """Let a mat tell twenty seconds of a quiet heart."""
    now = int(time.time() * 1000)
    house.publish(
        f"{name} mat",
        "telemetry",
        [
            {"ts": now - 1000 * back, "hr": 71, "rr": 14, "presence": "present"}
            for back in range(20, 0, -1)
        ],
    )


@contextmanager
def nurse(house: House) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{house.running.url}/api/v1", timeout=20) as client:
        body = {"username": house.nurse, "password": NURSE_PASSWORD}
        token = client.post("/auth/login", json=body).raise_for_status().json()["access_token"]
        client.cookies.clear()
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


def test_each_relative_is_one_word_and_silence_is_never_taken_for_wellness(
    house: House, daughter: Relative, page: Page
) -> None:
    daughter.may_see(LI, *SIDES)
    daughter.open(page)
    expect(relative(page, house, WANG)).to_contain_text("失联")
    breathe(house, WANG)
    expect(relative(page, house, WANG)).to_have_attribute("data-state", "well", timeout=SOON_MS)
    for text in ("平安", "目前没有需要处理的事", "最近一次收到信号"):
        expect(relative(page, house, WANG)).to_contain_text(text)
    expect(relative(page, house, LI)).to_have_attribute("data-state", "unknown")
    expect(relative(page, house, LI)).to_contain_text("还没有收到过设备的信号")
    # The button alone was heard of nothing: she cannot be told to be well.
    relative(page, house, LI).get_by_role("button").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(LI)
    expect(relative(page, house, WANG)).to_have_count(0)
    page.go_back()
    expect(relative(page, house, WANG)).to_be_visible()


def test_alarm_comes_at_once_and_tells_what_is_done_by_whom_as_it_is_done(
    house: House, daughter: Relative, page: Page
) -> None:
    breathe(house, WANG)
    daughter.open(page)
    expect(relative(page, house, WANG)).to_have_attribute("data-state", "well")
    expect(part(page, "alarms")).to_contain_text("最近没有报警")

    house.sos(WANG)
    expect(relative(page, house, WANG)).to_have_attribute(
        "data-state", "emergency", timeout=SOON_MS
    )
    expect(relative(page, house, WANG)).to_contain_text("紧急")
    alarm = page.locator("[data-alarm]")
    expect(alarm).to_contain_text("紧急呼叫")
    expect(alarm).to_contain_text("还没有人接警")
    # Nothing on this page lets a relative act on an alarm.
    expect(alarm.get_by_role("button")).to_have_count(0)

    identity = alarm.get_attribute("data-alarm")
    with nurse(house) as her:
        for step, told in (("acknowledge", "护理员接警"), ("arrive", "护理员到场")):
            her.post(f"/alarms/{identity}/{step}", json={}).raise_for_status()
            expect(alarm).to_contain_text(told, timeout=SOON_MS)
        done = {"outcome": "real", "note": "扶起，无外伤"}
        her.post(f"/alarms/{identity}/close", json=done).raise_for_status()
    expect(page.locator("[data-list=over] [data-alarm]")).to_contain_text("护理员处置完成：属实")
    expect(relative(page, house, WANG)).to_have_attribute("data-state", "well")
    # By role: no name of who works there, and none of their notes.
    assert house.nurse not in page.content()
    assert "扶起" not in page.content()


def test_a_notice_opens_its_alarm_and_one_that_is_not_hers_shows_nothing(
    house: House, daughter: Relative, page: Page
) -> None:
    daughter.may_see(LI, *SIDES)
    house.sos(LI)
    (raised,) = house.alarms("open")
    page.set_viewport_size(PHONE)
    page.goto(f"{house.running.url}/?alarm={raised['id']}")
    page.get_by_label("用户名").fill(daughter.username)
    page.get_by_label("密码").fill(NURSE_PASSWORD)
    page.get_by_role("button", name="登录").click()
    expect(page.locator(f'[data-alarm="{raised["id"]}"]')).to_be_in_viewport()
    assert page.url == f"{house.running.url}/family?alarm={raised['id']}"
    daughter.may_see(LI, "status")
    page.goto(f"{house.running.url}/family?alarm={raised['id']}")
    lives(page)
    expect(page.locator("[data-alarm]")).to_have_count(0)


def test_what_is_not_shared_is_said_to_be_so_and_nothing_of_it_is_shown(
    house: House, daughter: Relative, page: Page
) -> None:
    daughter.may_see(WANG, "status")
    breathe(house, WANG)
    daughter.open(page)
    house.sos(WANG)
    expect(relative(page, house, WANG)).to_have_attribute(
        "data-state", "emergency", timeout=SOON_MS
    )
    for name in ("alarms", "today", "visits"):
        expect(part(page, name).locator("[data-hidden]")).to_contain_text("没有授权给您看")
    expect(page.locator("[data-alarm]")).to_have_count(0)
    assert "71" not in page.locator(".family").inner_text()


def test_today_visits_call_consents_and_who_looked_are_told_in_plain_words(
    house: House, daughter: Relative, page: Page
) -> None:
    breathe(house, WANG)
    with nurse(house) as her:
        path = f"/residents/{house.residents[WANG]}"
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 90_000))
        visit = {"kind": "bath", "at": at, "minutes": 40, "note": "请备好毛巾"}
        her.post(f"{path}/visits", json=visit).raise_for_status()
        her.get(f"{path}/vitals").raise_for_status()
    daughter.open(page)
    today = part(page, "today")
    expect(today.locator("[data-about=hr]")).to_contain_text("心率平均 71 次/分")
    expect(today.locator("[data-about=hr]")).to_contain_text("还在了解平常是多少")
    expect(today.locator("[data-about=steps]")).to_contain_text("没有测量")
    expect(today.locator("[data-about=night]")).to_contain_text("没有测量")
    for text in ("助浴", "计划", "40 分钟", "请备好毛巾"):
        expect(part(page, "visits")).to_contain_text(text)
    expect(page.locator("[data-call]")).to_have_attribute("href", "tel:023-49800001")
    expect(page.locator("[data-call]")).to_contain_text(re.compile(r"给康宁养老院\d+打电话"))
    part(page, "access").locator("summary").click()
    expect(part(page, "access")).to_contain_text(f"护理员 {house.nurse}")
    expect(part(page, "access")).to_contain_text("您本人")
    part(page, "consents").locator("summary").click()
    expect(part(page, "consents")).to_contain_text("老人本人同意")
    expect(part(page, "consents")).to_contain_text("是否平安")


def test_network_cut_is_told_with_its_seconds_and_the_same_alarms_are_there_again(
    house: House, daughter: Relative, page: Page, cable: Cable
) -> None:
    breathe(house, WANG)
    house.sos(WANG)
    daughter.open(page, url=f"http://127.0.0.1:{cable.port}")
    expect(page.locator("[data-alarm]")).to_have_count(1)
    expect(page.locator("[data-call]")).to_be_visible()

    cable.pull_out()
    lost = page.locator('[data-network="lost"]')
    expect(lost).to_contain_text("网络中断", timeout=15_000)
    expect(lost).to_contain_text("秒")
    # What was is dated, and an alarm list that may be old is no list.
    expect(page.locator("[data-dated]")).to_contain_text("不是现在的")
    expect(page.locator("[data-alarm]")).to_have_count(0)
    expect(page.locator("[data-call]")).to_be_visible()
    house.sos(WANG, "e2")
    with nurse(house) as her:
        (one,) = house.alarms("open")
        her.post(f"/alarms/{one['id']}/acknowledge", json={}).raise_for_status()

    cable.plug_in()
    expect(lost).to_have_count(0, timeout=20_000)
    shown = page.locator("[data-alarm]")
    expect(shown).to_have_count(1)
    expect(shown).to_have_attribute("data-handling", "acknowledged")
    expect(shown).to_contain_text("护理员接警")


def test_page_opens_without_network_and_says_of_when_its_picture_is(
    house: House, daughter: Relative, page: Page, cable: Cable
) -> None:
    breathe(house, WANG)
    address = f"http://127.0.0.1:{cable.port}"
    daughter.open(page, url=address)
    expect(relative(page, house, WANG)).to_have_attribute("data-state", "well")
    house.sos(WANG)
    expect(page.locator("[data-alarm]")).to_have_count(1, timeout=SOON_MS)
    with nurse(house) as her:
        (one,) = house.alarms("open")
        her.post(f"/alarms/{one['id']}/close", json={"outcome": "false"})
        her.post(f"/alarms/{one['id']}/acknowledge", json={})
        her.post(f"/alarms/{one['id']}/close", json={"outcome": "false"}).raise_for_status()
    expect(relative(page, house, WANG)).to_have_attribute("data-state", "well")
    kept = "async () => (await (await caches.open('anxin-shell')).keys()).length > 4"
    page.wait_for_function(kept)
    held = page.evaluate(
        "async () => (await (await caches.open('anxin-shell')).keys()).map(({ url }) => url)"
    )
    assert not [url for url in held if "/api/" in url]
    page.wait_for_function("navigator.serviceWorker.ready.then(() => true)")

    cable.pull_out()
    house.sos(WANG, "e2")
    page.goto(f"{address}/")
    offline = page.locator('[data-network="offline"]')
    expect(offline).to_contain_text("没有网络")
    expect(offline).to_contain_text("最后一次看到的情况")
    here = relative(page, house, WANG)
    expect(here).to_contain_text("平安")
    expect(here.locator("[data-dated]")).to_contain_text("不是现在的")
    assert "目前没有需要处理的事" not in here.inner_text()
    expect(page.locator("[data-alarm]")).to_have_count(0)
    expect(page.locator("[data-offline]")).to_contain_text("看不到报警")
    expect(page.locator("[data-call]")).to_have_attribute("href", "tel:023-49800001")

    cable.plug_in()
    expect(offline).to_have_count(0, timeout=20_000)
    expect(here).to_have_attribute("data-state", "emergency", timeout=20_000)
    expect(page.locator("[data-list=open] [data-alarm]")).to_have_count(1)

    # After a logout nothing of it stays.
    page.locator("[data-settings-open]").click()
    page.locator("[data-logout]").click()
    expect(page.get_by_label("用户名")).to_be_visible()
    page.wait_for_function("async () => (await caches.keys()).length === 0")
    left = page.evaluate("Object.keys(localStorage).filter(key => /family|station/.test(key))")
    assert left == []


def test_quiet_hours_are_kept_and_say_that_an_emergency_always_comes(
    house: House, daughter: Relative, page: Page
) -> None:
    way = {"channel": "email", "address": "d@example.org", "user_id": daughter.user_id}
    house.admin.post("/contacts", json=way).raise_for_status()
    daughter.open(page)
    page.locator("[data-settings-open]").click()
    expect(page.locator("[data-settings]")).to_contain_text("紧急情况（求助、跌倒")
    page.locator("[data-quiet]").check()
    page.locator("[data-from]").fill("21:30")
    page.locator("[data-until]").fill("06:00")
    page.locator("[data-save]").click()
    expect(page.get_by_role("status").filter(has_text="已保存")).to_be_visible()
    page.locator("[data-way=email]").uncheck()
    expect(page.locator("[data-way=email]")).not_to_be_checked()
    page.reload()
    expect(page.locator("[data-quiet]")).to_be_checked()
    expect(page.locator("[data-from]")).to_have_value("21:30")
    expect(page.locator("[data-way=email]")).not_to_be_checked()
    hers = house.admin.get("/contacts", params={"user_id": daughter.user_id}).json()["items"]
    assert [one["enabled"] for one in hers] == [False]


def test_each_role_has_its_page_and_is_told_so_on_another(
    house: House, daughter: Relative, page: Page
) -> None:
    daughter.open(page)
    page.goto(f"{house.running.url}/station")
    expect(page.get_by_role("alert")).to_contain_text("“护理站”页面不给家属账号使用")
    expect(page.locator(".card")).to_have_count(0)
    page.get_by_role("button", name="回到我的页面").click()
    lives(page)
    page.goto(f"{house.running.url}/")
    expect(page).to_have_url(f"{house.running.url}/family")
    page.locator("[data-settings-open]").click()
    page.locator("[data-logout]").click()

    page.goto(f"{house.running.url}/family")
    fill_in(page, house)
    is_live(page)
    expect(page).to_have_url(f"{house.running.url}/station")
    page.goto(f"{house.running.url}/family")
    expect(page.get_by_role("alert")).to_contain_text("“家人”页面不给护理员账号使用")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_has_no_accessibility_faults_in_either_language_and_in_large_type(
    house: House, daughter: Relative, page: Page, theme: str
) -> None:
    page.emulate_media(reduced_motion="reduce")
    page.add_init_script(f"localStorage.setItem('anxin.theme', '{theme}')")
    daughter.may_see(LI, "status")
    breathe(house, WANG)
    house.sos(WANG)
    daughter.open(page)
    expect(relative(page, house, WANG)).to_contain_text("紧急")
    for large in (False, True):
        for language in ("zh-CN", "en"):
            page.goto(f"{house.running.url}/family?view=settings")
            if page.locator("html").get_attribute("lang") != language:
                page.locator("[data-language]").click()
            page.locator("[data-large]").set_checked(large)
            expect(page.locator("[data-quiet]")).to_be_visible()
            expect(page.locator("[data-standing=asking]")).to_have_count(0)
            look(page, large=large)
            page.goto(f"{house.running.url}/family")
            expect(page.locator("[data-relative]")).to_have_count(2)
            look(page, large=large)
            page.goto(f"{house.running.url}/family?person={house.residents[WANG]}")
            expect(part(page, "today").locator("li")).to_have_count(6)
            expect(page.locator(".steps li")).not_to_have_count(0)
            for name in ("access", "consents"):
                part(page, name).locator("summary").click()
                expect(part(page, name).locator("li")).not_to_have_count(0)
            look(page, large=large)


def look(page: Page, *, large: bool) -> None:
    """Check what the page shows: faults, sizes of letters and of what is pressed, no overflow."""
    assert faults_of(page) == []
    letters = page.evaluate(
        """() => [...document.querySelectorAll('.family *')]
            .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
            .filter(e => e.checkVisibility() && !e.closest('.out-of-sight'))
            .map(e => [parseFloat(getComputedStyle(e).fontSize), e.outerHTML.slice(0, 80)])"""
    )
    assert [one for one in letters if one[0] < (24 if large else 18)] == []
    pressed = page.evaluate(
        """() => [...document.querySelectorAll(
                'button, a[href], summary, label.switch, input[type=time]')]
            .filter(e => e.checkVisibility())
            .map(e => [e.getBoundingClientRect(), e.outerHTML.slice(0, 80)])
            .filter(([box]) => box.height < 48 || box.width < 48).map(([, html]) => html)"""
    )
    assert pressed == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_scripts_stay_small_and_the_first_paint_early(
    house: House, daughter: Relative, page: Page
) -> None:
    breathe(house, WANG)
    daughter.open(page)
    page.goto("about:blank")
    page.context.clear_cookies(name="none")
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    session.send("Network.setBypassServiceWorker", {"bypass": True})
    session.send("Emulation.setCPUThrottlingRate", {"rate": 4})
    slow = {"offline": False, "latency": 20, "downloadThroughput": 200_000,
            "uploadThroughput": 90_000}  # fmt: skip
    session.send("Network.emulateNetworkConditions", slow)
    sizes = loaded(page, f"{house.running.url}/family", ".state-word")
    painted_ms = page.evaluate(
        "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? Infinity"
    )
    print(f"family: {sizes} bytes of scripts, first paint after {painted_ms:.0f} ms")
    assert sizes <= 180_000
    # The goal is 1,500 ms; the rest is for a machine that does other things at the same time.
    assert painted_ms <= 1.5 * 1_500
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    session.send("Network.emulateNetworkConditions", slow)
    session.send("Emulation.setCPUThrottlingRate", {"rate": 1})
    page.context.clear_cookies()
    page.set_viewport_size({"width": 1280, "height": 800})
    log_in(page, house)
    is_live(page)
    sizes = loaded(page, f"{house.running.url}/station", ".card")
    print(f"station: {sizes} bytes of scripts")
    assert sizes <= 350_000


def loaded(page: Page, url: str, shown: str) -> int:
    """Open a page afresh and return how many bytes of scripts came, as they were sent."""
    page.goto(url)
    expect(page.locator(shown).first).to_be_visible(timeout=30_000)
    sizes: list[dict[str, Any]] = page.evaluate(
        """performance.getEntriesByType('resource')
            .filter(({ name }) => name.endsWith('.js'))
            .map(({ name, encodedBodySize }) => ({ name, size: encodedBodySize }))"""
    )
    assert sizes
    return sum(one["size"] for one in sizes)

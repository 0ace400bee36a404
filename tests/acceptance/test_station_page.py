"""The nursing-station page in a real browser, against a whole running platform."""

import json
import time
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.cable import Cable
from tests.acceptance.house import (
    NURSE_PASSWORD,
    SOON_MS,
    House,
    alarm,
    card,
    faults_of,
    is_live,
    log_in,
)
from tests.waiting import wait_until


def test_wrong_password_is_explained_and_right_one_shows_the_wall(house: House, page: Page) -> None:
    log_in(page, house, password="wrong-password")
    expect(page.get_by_role("alert")).to_contain_text("用户名或密码不对")

    page.get_by_label("密码").fill(NURSE_PASSWORD)
    page.keyboard.press("Enter")

    expect(page).to_have_url(f"{house.running.url}/station")
    expect(page.locator(".card")).to_have_count(2)
    # Never heard from is not well.
    expect(card(page, house, "王秀英")).to_have_attribute("data-state", "unknown")
    expect(page.get_by_text("没有待处理的报警")).to_be_visible()
    page.reload()
    expect(page.locator(".card")).to_have_count(2)

    page.locator("[data-logout]").click()
    expect(page).to_have_url(f"{house.running.url}/login")
    page.goto(f"{house.running.url}/station")
    expect(page.get_by_label("用户名")).to_be_visible()


def test_readings_appear_on_the_card_and_in_the_drawer(house: House, page: Page) -> None:
    log_in(page, house)
    is_live(page)

    now = int(time.time() * 1000)
    readings = [
        {"ts": now - 1000 * back, "hr": 71, "rr": 14, "spo2": 97, "presence": "present"}
        for back in range(20, 0, -1)
    ]
    house.publish("王秀英 mat", "telemetry", readings)

    here = card(page, house, "王秀英")
    expect(here).to_have_attribute("data-state", "well", timeout=SOON_MS)
    for text in ("201-1", "王秀英", "71", "14", "97", "在床", "平安", "秒前"):
        expect(here).to_contain_text(text)
    expect(card(page, house, "李建国")).to_have_attribute("data-state", "unknown")

    here.click()
    drawer = page.get_by_role("complementary")
    expect(drawer.get_by_role("heading", name="王秀英")).to_be_focused()
    expect(drawer.get_by_role("img")).to_have_count(3)
    expect(drawer).to_contain_text("71 次/分")
    page.reload()
    expect(drawer.get_by_role("heading", name="王秀英")).to_be_visible()
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)
    expect(here).to_be_focused()


def test_sos_is_on_the_wall_at_once_and_handled_by_mouse(house: House, page: Page) -> None:
    log_in(page, house)
    is_live(page)

    house.sos("王秀英")

    expect(alarm(page)).to_have_count(1, timeout=SOON_MS)
    for text in ("紧急呼叫", "王秀英", "201-1", "康宁养老院", "!!!", "未接警"):
        expect(alarm(page)).to_contain_text(text)
    expect(card(page, house, "王秀英")).to_have_attribute("data-state", "emergency")
    expect(page.locator("[aria-live=assertive]")).to_contain_text("王秀英")

    alarm(page).get_by_role("button", name="接警").click()
    expect(alarm(page)).to_have_attribute("data-handling", "acknowledged")
    expect(alarm(page)).to_contain_text(house.nurse)
    alarm(page).get_by_role("button", name="到场").click()
    expect(alarm(page)).to_have_attribute("data-handling", "on_site")
    alarm(page).get_by_role("button", name="处置完成").click()
    alarm(page).get_by_role("button", name="确认完成").click()
    expect(alarm(page)).to_contain_text("请先选择结果")
    alarm(page).get_by_text("属实").click()
    alarm(page).get_by_label("备注").fill("扶起，无外伤")
    alarm(page).get_by_role("button", name="确认完成").click()

    expect(alarm(page)).to_have_count(0)
    page.locator("summary").click()
    expect(page.locator(".recent li")).to_contain_text("属实")
    (closed,) = house.alarms("closed")
    assert closed["outcome"] == "real"
    lines = house.admin.get(f"/alarms/{closed['id']}/timeline").json()["items"]
    changes = [line["change"] for line in lines if line["change"] != "escalated"]
    assert changes == ["raised", "acknowledged", "on_site", "closed"]


def press(page: Page, key: str) -> None:
    """Press a key; whatever has the focus after it must be plain to see."""
    page.keyboard.press(key)
    shown = page.evaluate(
        """async () => {
            await new Promise(requestAnimationFrame)
            const here = document.activeElement
            const { outlineStyle, outlineWidth } = getComputedStyle(here)
            return ['BODY', 'H2'].includes(here.tagName)
                || outlineStyle === 'solid' && parseFloat(outlineWidth) >= 2
                || here.closest('label')?.matches(':focus-within')
        }"""
    )
    assert shown, f"after {key} the focus cannot be seen"


def test_nurse_handles_an_alarm_from_login_to_its_end_by_keyboard_alone(
    house: House, page: Page
) -> None:
    page.goto(f"{house.running.url}/station")
    expect(page.get_by_label("用户名")).to_be_visible()
    while not page.get_by_label("用户名").evaluate("e => e === document.activeElement"):
        press(page, "Tab")
    page.keyboard.type(house.nurse)
    press(page, "Tab")
    page.keyboard.type(NURSE_PASSWORD)
    page.keyboard.press("Enter")
    is_live(page)
    press(page, "?")
    keys = page.locator("[data-key-help]")
    expect(keys).to_contain_text("Enter 在路上")
    press(page, "Escape")
    expect(keys).not_to_be_visible()

    house.sos("王秀英")
    house.sos("李建国")
    expect(alarm(page)).to_have_count(2, timeout=SOON_MS)
    press(page, "ArrowDown")
    press(page, "ArrowDown")
    second = page.locator("li.alarm:focus")
    expect(second).to_contain_text("李建国")
    press(page, "Enter")
    expect(second).to_have_attribute("data-handling", "acknowledged")
    press(page, "Enter")
    expect(second.locator("[data-way]")).to_contain_text("在路上")
    # Whoever comes to the screen now reads it too: it is a line of the timeline.
    page.reload()
    expect(page.locator("[data-way]")).to_have_count(1)
    press(page, "ArrowDown")
    press(page, "ArrowDown")
    expect(second).to_contain_text("李建国")
    press(page, "Enter")
    expect(second).to_have_attribute("data-handling", "on_site")
    press(page, "Enter")
    expect(page.locator("form.closing")).to_be_visible()
    press(page, "Escape")
    expect(page.locator("form.closing")).to_have_count(0)
    press(page, "Enter")
    expect(page.locator("form.closing input:focus")).to_have_count(1)
    press(page, "2")
    press(page, "Tab")
    page.keyboard.type("误碰，人很好")
    press(page, "Enter")

    expect(alarm(page)).to_have_count(1)
    expect(alarm(page)).to_contain_text("王秀英")
    # No further press can take an alarm that nobody chose; the way on is short.
    expect(page.locator("#alarms-heading")).to_be_focused()
    press(page, "Tab")
    press(page, "ArrowDown")
    expect(page.locator("li.alarm:focus")).to_contain_text("王秀英")
    (closed,) = house.alarms("closed")
    assert (closed["resident_id"], closed["outcome"]) == (house.residents["李建国"], "false")
    lines = house.admin.get(f"/alarms/{closed['id']}/timeline").json()["items"]
    said = [(line["change"], line["note"]) for line in lines if line["actor"] == house.nurse]
    assert said == [
        ("acknowledged", None),
        ("note", "正在前往 · On my way"),
        ("on_site", None),
        ("closed", "误碰，人很好"),
    ]


def test_second_nurse_who_comes_too_late_is_told_who_was_first(house: House, page: Page) -> None:
    log_in(page, house)
    is_live(page)
    house.sos("王秀英")
    expect(alarm(page)).to_have_count(1, timeout=SOON_MS)
    (raised,) = house.alarms("open")

    def somebody_is_faster(route: Any) -> None:
        taken = house.admin.post(f"/alarms/{raised['id']}/acknowledge", json={})
        taken.raise_for_status()
        route.continue_()

    page.route("**/acknowledge", somebody_is_faster)
    alarm(page).get_by_role("button", name="接警").click()

    expect(alarm(page).get_by_role("alert")).to_contain_text("已有人先处理了")
    expect(alarm(page).get_by_role("alert")).to_contain_text("admin")
    expect(alarm(page)).to_have_attribute("data-handling", "acknowledged")


def test_network_cut_is_loud_and_loses_nothing(house: House, page: Page, cable: Cable) -> None:
    log_in(page, house, url=f"http://127.0.0.1:{cable.port}")
    is_live(page)
    house.sos("王秀英")
    expect(alarm(page)).to_have_count(1, timeout=SOON_MS)

    cable.pull_out()
    banner = page.locator('[data-banner="connection"]')
    expect(banner).to_contain_text("连接中断", timeout=15_000)
    expect(banner).to_contain_text("秒")
    house.sos("王秀英", "e2")
    house.sos("李建国")
    for one in house.alarms("open"):
        if one["resident_id"] == house.residents["王秀英"]:
            house.admin.post(f"/alarms/{one['id']}/acknowledge", json={}).raise_for_status()
    alarm(page).get_by_role("button", name="接警").click()
    expect(alarm(page).get_by_role("alert")).to_contain_text("没有确认成功")

    cable.plug_in()
    expect(banner).to_have_count(0, timeout=20_000)
    expect(alarm(page)).to_have_count(2)
    expect(alarm(page).filter(has_text="王秀英")).to_contain_text("2 次")
    shown = {
        (row.get_attribute("data-alarm"), row.get_attribute("data-handling"))
        for row in alarm(page).all()
    }
    stored = {(one["id"], one["handling"]) for one in house.alarms("open,acknowledged,on_site")}
    assert shown == stored
    assert {handling for _, handling in shown} == {"open", "acknowledged"}


def test_page_opened_after_the_alarms_shows_them_all(house: House, page: Page) -> None:
    house.sos("王秀英")
    house.sos("李建国")
    log_in(page, house)
    expect(alarm(page)).to_have_count(2)


def test_silent_browser_with_an_open_alarm_says_so_until_sound_is_allowed(
    house: House, page: Page
) -> None:
    log_in(page, house)
    is_live(page)
    house.sos("王秀英")
    expect(alarm(page)).to_have_count(1, timeout=SOON_MS)
    sound = page.locator("[data-sound]")
    banner = page.locator('[data-banner="sound"]')
    # The click on the login button was the touch that the browser asks for.
    expect(sound).to_have_attribute("data-state", "on")
    expect(banner).to_have_count(0)

    sound.click()
    expect(sound).to_have_attribute("data-state", "off")
    expect(banner).to_contain_text("声音已关闭")
    expect(banner).to_contain_text("1 条未接警")
    page.reload()
    expect(banner).to_contain_text("声音已关闭")
    banner.get_by_role("button", name="开启声音").click()
    expect(sound).to_have_attribute("data-state", "on")
    expect(banner).to_have_count(0)


def test_receipts_say_that_the_alarm_was_received_and_displayed(house: House, page: Page) -> None:
    with page.expect_websocket() as opened:
        log_in(page, house)
    sent: list[dict[str, Any]] = []
    opened.value.on("framesent", lambda text: sent.append(json.loads(text)))
    is_live(page)

    with opened.value.expect_event("framesent", lambda text: "displayed" in text):
        house.sos("王秀英")

    identity = alarm(page).get_attribute("data-alarm")
    assert {"type": "displayed", "alarm_id": identity} in sent
    # One for the alarm; its steps up the ladder may have come as well.
    cursors = [frame["cursor"] for frame in sent if frame["type"] == "received"]
    assert cursors
    assert cursors == sorted(set(cursors))


def test_shift_begins_with_a_tone_that_somebody_heard_and_ends_in_order(
    house: House, page: Page
) -> None:
    log_in(page, house)
    is_live(page)
    duty = page.locator("[data-duty]")
    expect(duty).to_have_attribute("data-step", "off")
    duty.get_by_role("button", name="开始值班").click()
    duty.get_by_role("button", name="听到了").click()
    expect(duty.locator("[data-duty-sound]")).to_have_attribute("data-heard", "on")
    wait_until(lambda: condition(house) == "well", what="the platform counts on the station")

    # The platform tests its own way here at once; nobody is alarmed by that.
    expect(duty.locator("[data-selftest]")).to_contain_text("通道自检", timeout=30_000)
    expect(alarm(page)).to_have_count(0)

    page.locator("[data-sound]").click()
    wait_until(lambda: condition(house) == "station_muted", what="the platform knows it is silent")
    expect(alarm(page)).to_contain_text("护理站没有声音", timeout=20_000)
    # Whoever reloads stays on duty.
    page.reload()
    expect(duty).to_have_attribute("data-step", "on")
    page.locator('[data-banner="sound"]').get_by_role("button", name="开启声音").click()
    expect(alarm(page)).to_contain_text("已恢复", timeout=20_000)

    page.locator("[data-logout]").click()
    wait_until(lambda: condition(house) == "off_duty", what="the station has logged off")


def condition(house: House) -> str:
    """Return what the platform thinks of the only station of this house."""
    answer = house.admin.get("/stations")
    answer.raise_for_status()
    mine = [one for one in answer.json()["items"] if one["place_id"] == house.place_id]
    assert len(mine) <= 1
    return str(mine[0]["condition"]) if mine else ""


def test_sixty_beds_fit_a_wall_and_a_small_screen_stays_usable(house: House, page: Page) -> None:
    for number in range(3, 61):
        bed = house.admin.post(
            "/places", json={"kind": "bed", "name": f"{number}床", "parent_id": house.place_id}
        )
        body = {"name": f"老人{number}", "place_id": bed.raise_for_status().json()["id"]}
        house.admin.post("/residents", json=body).raise_for_status()
    house.sos("王秀英")
    log_in(page, house)
    expect(page.locator(".card")).to_have_count(60)
    expect(alarm(page)).to_have_count(1)
    overflow = "e => [e.scrollWidth > e.clientWidth, e.scrollHeight > e.clientHeight]"
    for width, height, scrolls in ((1920, 1080, False), (1280, 720, True)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_function("width => innerWidth === width", arg=width)
        assert page.locator("html").evaluate(overflow) == [False, False]
        if not scrolls:
            assert page.locator(".wall").evaluate(overflow) == [False, False]
        expect(page.locator(".card").first).to_be_in_viewport()
        expect(alarm(page).get_by_role("button", name="接警")).to_be_in_viewport(ratio=1)
        inside = "element => element.scrollWidth <= element.clientWidth"
        assert page.locator(".bar").evaluate(inside)
        assert page.locator(".alarms").evaluate(inside)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_page_has_no_accessibility_faults_in_either_language(
    house: House, page: Page, theme: str
) -> None:
    # A flashing colour has no one contrast; with less motion asked for, it stands still.
    page.emulate_media(reduced_motion="reduce")
    page.add_init_script(f"localStorage.setItem('anxin.theme', '{theme}')")
    page.goto(f"{house.running.url}/login")
    expect(page.get_by_label("用户名")).to_be_visible()
    assert faults_of(page) == []
    log_in(page, house)
    is_live(page)
    house.sos("王秀英")
    expect(alarm(page)).to_have_count(1, timeout=SOON_MS)
    assert faults_of(page) == []
    page.locator("[data-language]").click()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(alarm(page)).to_contain_text("Emergency call")
    card(page, house, "王秀英").click()
    expect(page.get_by_role("complementary")).to_contain_text("Latest values")
    alarm(page).get_by_role("button", name="On site").click()
    alarm(page).get_by_role("button", name="Close").click()
    expect(page.locator("form.closing")).to_be_visible()
    assert faults_of(page) == []
    # Once chosen, the language stays.
    page.reload()
    expect(alarm(page)).to_contain_text("Emergency call")

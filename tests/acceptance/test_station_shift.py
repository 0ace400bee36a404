"""What a shift does beside its alarms: limits, the hand-over, other stations, names, the plan."""

import time
from dataclasses import replace

import pytest
from playwright.sync_api import Page, expect

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


@pytest.fixture
def leader(house: House) -> str:
    """Return the name of a supervisor of the house."""
    name = house.nurse.replace("nurse", "leader.of.shifts")
    body = {"username": name, "password": NURSE_PASSWORD, "role": "supervisor"}
    made = house.admin.post("/users", json=body | {"place_id": house.place_id})
    made.raise_for_status()
    return name


def test_supervisor_sets_limits_inside_their_bounds_and_a_nurse_reads_them(
    house: House, leader: str, page: Page
) -> None:
    path = f"/residents/{house.residents['王秀英']}"
    log_in(page, replace(house, nurse=leader))
    card(page, house, "王秀英").click()
    limits = page.locator("[data-limits]")
    limits.locator("summary").click()
    field = limits.locator("input[name=hr_high]")
    expect(field).to_have_attribute("placeholder", "120")
    save = limits.get_by_role("button", name="保存报警限")
    expect(save).to_be_disabled()
    for wrong, said in (("500", "要在 90 到 150"), ("快", "请填数字")):
        field.fill(wrong)
        save.click()
        expect(field).to_be_focused()
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(limits.get_by_role("alert")).to_contain_text(said)
    assert house.admin.get(path).json()["limits"] == {}

    # What somebody else sets meanwhile stays.
    house.admin.patch(path, json={"limits": {"spo2_low": 88}}).raise_for_status()
    field.fill("110")
    save.click()
    expect(limits.get_by_role("status")).to_contain_text("已保存")
    assert house.admin.get(path).json()["limits"] == {"hr_high": 110, "spo2_low": 88}
    expect(limits.locator("[data-changes]")).to_contain_text(f"{leader} 修改了报警限")
    expect(limits.locator("[data-changes]")).to_contain_text("admin 修改了报警限")
    expect(limits).to_contain_text("单独设定（默认 120）")
    assert faults_of(page) == []

    page.locator("[data-logout]").click()
    log_in(page, house)
    is_live(page)
    card(page, house, "王秀英").click()
    limits.locator("summary").click()
    expect(limits).to_contain_text("心率偏高 110")
    expect(limits.locator("input")).to_have_count(0)


def test_hand_over_sheet_tells_the_shift_and_prints_on_one_page(house: House, page: Page) -> None:
    reading = {"ts": int(time.time() * 1000), "hr": 70, "rr": 14, "presence": "present"}
    for name, battery in (("王秀英", 9), ("李建国", 80)):
        house.publish(f"{name} mat", "telemetry", reading)
        house.publish(f"{name} button", "state", {"battery": battery})
    house.sos("王秀英")
    (first,) = [one for one in house.alarms("open") if one["kind"] == "sos"]
    for step, body in (("arrive", {}), ("close", {"outcome": "false", "note": "误碰，人很好"})):
        house.admin.post(f"/alarms/{first['id']}/{step}", json=body).raise_for_status()
    house.sos("王秀英", "e2")

    log_in(page, house)
    is_live(page)
    page.locator("[data-view]").click()
    page.locator("[data-open-handover]").click()
    sheet = page.locator("[data-handover]")
    expect(sheet).to_have_attribute("data-ready", "true")
    row = sheet.locator(f'[data-person="{house.residents["王秀英"]}"]')
    for text in ("!!! 紧急呼叫", "未接警"):
        expect(row.locator("[data-open]").filter(has_text="紧急呼叫")).to_contain_text(text)
    for text in ("紧急呼叫", "误报", "admin", "误碰，人很好"):
        expect(row.locator("[data-over]")).to_contain_text(text)
    expect(row).to_contain_text("呼叫按钮：电量 9%")
    # Of whom there is nothing to tell, the sheet says just that.
    expect(sheet.locator(".sheet-quiet")).to_contain_text("201-2 李建国")
    assert faults_of(page) == []

    # The alarms stay in sight on the screen, and off the paper; a reload comes back to the sheet.
    house.sos("李建国")
    expect(alarm(page).filter(has_text="李建国")).to_have_count(1, timeout=SOON_MS)
    page.locator("[data-language]").click()
    page.reload()
    expect(sheet).to_have_attribute("data-ready", "true")
    expect(sheet.locator("[data-open]").filter(has_text="Emergency call")).to_have_count(2)
    page.emulate_media(media="print")
    expect(row).to_be_visible()
    for gone in (".bar", ".alarms", ".handover-tools"):
        expect(page.locator(gone)).not_to_be_visible()
    assert row.evaluate("e => getComputedStyle(e).color") == "rgb(0, 0, 0)"
    paper = page.pdf(prefer_css_page_size=True)
    assert paper.count(b"/Type /Page\n") == 1
    assert b"/MediaBox [0 0 594.95" in paper or b"/MediaBox [0 0 595" in paper

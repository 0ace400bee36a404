"""What a shift does beside its alarms: limits, the hand-over, other stations, names, the plan."""

from dataclasses import replace

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.house import NURSE_PASSWORD, House, card, faults_of, is_live, log_in


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

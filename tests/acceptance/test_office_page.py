"""The back office in a real browser, against a platform that runs."""

import itertools
import re
from collections.abc import Iterator
from typing import Final

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from anxin.id_card import check_character
from tests.acceptance.house import NURSE_PASSWORD, SOON_MS, House, faults_of
from tests.conftest import ADMIN_PASSWORD

SECTIONS: Final = {
    "residents": "[data-resident]", "residents/new": "[data-form=resident]",
    "devices": "[data-device]", "devices/board": "[data-person]",
    "devices/new": ".office-panel", "places": "[data-place]",
    "staff": "tbody tr", "staff/new": ".office-panel", "roster": ".office-week",
    "ladders": "[data-ladder]", "contacts": ".office-card", "contacts/new": ".office-panel",
    "limits": "[data-empty]", "limits/new": ".office-panel form", "import": ".office-drop",
    "reports": "[data-report=devices]", "audit": "tbody tr", "backups": "[data-empty]",
}  # fmt: skip
"""Every page of it, and what is there once it has read everything."""
_numbers = itertools.count(1)


@pytest.fixture
def leader(house: House) -> str:
    """Return the name of a supervisor of the house."""
    name = f"leader.{next(_numbers)}"
    made = house.admin.post(
        "/users",
        json={"username": name, "password": NURSE_PASSWORD, "role": "supervisor",
              "place_id": house.place_id},
    )  # fmt: skip
    made.raise_for_status()
    return name


@pytest.fixture
def english(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-GB")
    context.add_init_script("localStorage.setItem('anxin.language', 'en')")
    yield context.new_page()
    context.close()


def enter(page: Page, house: House, path: str, name: str, password: str = NURSE_PASSWORD) -> None:
    """Log in without the login page, and open a page of the office."""
    url = house.running.url
    body = {"username": name, "password": password}
    answer = page.context.request.post(f"{url}/api/v1/auth/login", data=body)
    assert answer.ok, answer.text()
    page.goto(f"{url}/office/{path}")


def card(serial: int) -> str:
    first = f"50011819400123{serial:03d}"
    return first + check_character(first)


def test_a_list_with_bad_rows_is_mended_in_place_and_stored_whole(
    house: House, leader: str, page: Page
) -> None:
    enter(page, house, "import", leader)
    good, bad = card(41), card(43)
    wrong = bad[:-1] + ("1" if bad[-1] != "1" else "2")
    text = (
        "姓名,性别,出生日期,身份证号,电话,所在地点,床位,血型\r\n"
        f"张好人,,,{good},13800138000,201,3床,A\r\n"
        f"李错号,,,{wrong},,201,4床,B\r\n"
        "王错日,男,1940-02-31,,,201,5床,O\r\n"
        "赵外人,女,,,,别的养老院,1床,O\r\n"
    )
    page.locator("input[type=file]").set_input_files(
        {"name": "名单.csv", "mimeType": "text/csv", "buffer": text.encode("gb18030")}
    )
    expect(page.locator("[data-count=fault]")).to_contain_text("3")
    expect(page.locator("[data-unused]")).to_contain_text("血型")
    expect(page.locator("[data-row]")).to_have_count(3)
    expect(page.locator("[data-row='3']")).to_contain_text("校验码")
    expect(page.locator("[data-row='4']")).to_contain_text("没有这一天")
    expect(page.locator("[data-row='5']")).to_contain_text("没有这个地点")
    expect(page.locator("[data-apply]")).to_be_disabled()
    assert faults_of(page) == []

    page.locator("[data-row='3'] [data-cell=id_card]").fill(bad)
    page.locator("[data-row='4'] [data-cell=born]").fill("1940-02-28")
    page.locator("[data-check]").click()
    expect(page.locator("[data-count=fault]")).to_contain_text("1")
    page.reload()
    page.locator("[data-row='5'] [data-leave]").click()
    expect(page.locator("[data-apply]")).to_be_enabled()
    assert residents(house) == {"王秀英", "李建国"}, "nothing is stored before"
    page.locator("[data-apply]").click()
    expect(page.locator("[data-applied]")).to_contain_text("新增 3")
    assert residents(house) == {"王秀英", "李建国", "张好人", "李错号", "王错日"}
    page.get_by_role("button", name="查看结果").click()
    expect(page.get_by_role("link", name="张好人")).to_be_visible()


def residents(house: House) -> set[str]:
    answer = house.admin.get("/residents", params={"place_id": house.place_id})
    answer.raise_for_status()
    return {one["name"] for one in answer.json()["items"]}


def test_a_device_is_enrolled_by_its_code_and_seen_to_report(
    house: House, leader: str, page: Page
) -> None:
    enter(page, house, "devices", leader)
    page.get_by_role("button", name="登记设备").click()
    panel = page.locator(".office-panel")
    panel.get_by_label("名称").fill("201 新床垫")
    panel.get_by_label("使用的老人").select_option(label="王秀英")
    panel.get_by_role("button", name="生成代码").click()
    code = panel.locator("[data-code]").inner_text()
    expect(panel.locator("svg[role=img] path, svg[role=img] rect").first).to_be_attached()
    assert faults_of(page) == []

    # The device scans its label.
    taken = httpx.post(f"{house.running.url}/api/v1/enrol", json={"code": code}).raise_for_status()
    device = taken.json()
    expect(panel.locator("[data-used]")).to_have_attribute("data-used", device["id"])
    house.devices["new mat"] = (device["id"], device["secret"])
    house.publish("new mat", "telemetry", {"hr": 71, "rr": 14, "presence": "present"})
    house.publish("new mat", "state", {"battery": 12, "firmware": "2.0.1", "rssi": -60})
    row = page.locator(f"[data-device='{device['id']}']")
    expect(row).to_have_attribute("data-heard", "true", timeout=4 * SOON_MS)
    for text in ("201 新床垫", "王秀英", "12 %", "-60 dBm", "2.0.1"):
        expect(row).to_contain_text(text)
    # What it sends and cannot be used is shown with the reason.
    house.publish("new mat", "telemetry", {"hr": 7000})
    panel.get_by_role("button", name=device["id"]).click()
    panel.get_by_role("button", name="查看").click()
    expect(panel.locator("details")).to_contain_text("hr")


def test_a_device_is_given_to_somebody_by_drag_and_by_keyboard_and_taken_back(
    house: House, leader: str, page: Page
) -> None:
    def owner(device: str) -> str | None:
        found: str | None = house.admin.get(f"/devices/{device}").json()["resident_id"]
        return found

    spare = []
    for name in ("甲手环", "乙手环"):
        made = house.admin.post(
            "/devices", json={"kind": "wearable", "name": name, "place_id": house.place_id}
        )
        spare.append(made.raise_for_status().json()["id"])
    enter(page, house, "devices/board", leader)
    wang, li = (house.residents[name] for name in ("王秀英", "李建国"))
    page.locator(f"[data-spare='{spare[0]}']").drag_to(page.locator(f"[data-person='{wang}']"))
    expect(page.locator(f"[data-person='{wang}']")).to_contain_text("甲手环")
    assert owner(spare[0]) == wang
    page.get_by_role("button", name="撤销").click()
    expect(page.locator(f"[data-spare='{spare[0]}']")).to_be_visible()
    assert owner(spare[0]) is None

    row = page.locator(f"[data-spare='{spare[1]}']")
    row.locator("select").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert owner(spare[1]) is None, "passing by a name gives nothing away"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(f"[data-person='{li}']")).to_contain_text("乙手环")


def test_a_ladder_with_a_hole_is_refused_in_words_while_it_is_written_and_when_saved(
    house: House, leader: str, page: Page
) -> None:
    enter(page, house, "ladders", leader)
    page.locator("[data-edit=low]").click()
    form = page.locator("[data-form=ladder]")
    expect(form.locator("[data-whole]")).to_be_visible()
    form.locator("[data-add-step]").click()
    step = form.locator("[data-step]").last
    step.get_by_label("通知谁").select_option("robot")
    step.get_by_label("方式").select_option("robot")
    expect(form.locator("[data-verdict] li").first).to_contain_text("无人可通知")
    expect(step).to_have_class(re.compile("holed"))
    form.get_by_role("button", name="保存为本地点的阶梯").click()
    expect(form.locator("[data-outcome=fault]")).to_contain_text("无人可通知")
    stored = house.admin.get("/ladders", params={"place_id": house.place_id}).json()["items"]
    assert stored == []
    assert faults_of(page) == []

    step.get_by_role("button", name="删除").click()
    expect(form.locator("[data-whole]")).to_be_visible()
    form.get_by_role("button", name="保存为本地点的阶梯").click()
    expect(page.locator("[data-ladder=low]")).to_contain_text("本地点自己的")


def test_a_nurse_cannot_open_it_and_a_leader_sees_its_own_house_only(
    house: House, leader: str, page: Page, english: Page
) -> None:
    elsewhere = house.admin.post(
        "/places", json={"kind": "facility", "name": "别家养老院", "parent_id": None}
    ).json()["id"]
    house.admin.post(
        "/residents", json={"name": "别家老人", "place_id": elsewhere}
    ).raise_for_status()
    enter(page, house, "residents", house.nurse)
    expect(page.locator("[data-fault=role]")).to_contain_text("管理后台")
    expect(page.locator(".office")).to_have_count(0)

    enter(english, house, "residents", leader)
    expect(english.locator("[data-resident]")).to_have_count(2)
    expect(english.locator("body")).not_to_contain_text("别家")
    assert english.locator("[data-section=audit], [data-section=backups]").count() == 0
    english.goto(f"{house.running.url}/office/audit")
    expect(english.locator("[data-fault=right]")).to_be_visible()
    english.goto(f"{house.running.url}/office/places")
    expect(english.locator("[data-place]").first).to_be_visible()
    expect(english.locator("body")).not_to_contain_text("别家")


def test_a_resident_is_put_on_record_changed_and_changed_back(
    house: House, leader: str, page: Page
) -> None:
    enter(page, house, "residents/new", leader)
    form = page.locator("[data-form=resident]")
    form.get_by_label("姓名").fill("新来的人")
    form.get_by_label("所在地点").select_option(label="　201")
    form.get_by_role("button", name="登记").click()
    expect(page).to_have_url(re.compile(r"/office/residents/\d+"))
    expect(page.get_by_role("link", name="新来的人")).to_be_visible()
    page.reload()
    form.get_by_label("跌倒风险").check()
    form.get_by_role("button", name="保存").click()
    expect(page.locator(".office-tag", has_text="跌倒风险")).to_be_visible()
    page.get_by_role("button", name="撤销").click()
    expect(page.locator("td .office-tag", has_text="跌倒风险")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(page.locator(".office-panel")).to_have_count(0)


def test_a_new_account_gets_a_password_that_must_be_replaced(
    house: House, leader: str, page: Page
) -> None:
    name = f"kin.{next(_numbers)}"
    enter(page, house, "staff/new", leader)
    panel = page.locator(".office-panel")
    panel.get_by_label("用户名").fill(name)
    panel.get_by_role("button", name="新建").click()
    password = page.locator("[data-secret]").inner_text()
    answer = httpx.post(
        f"{house.running.url}/api/v1/auth/login", json={"username": name, "password": password}
    )
    assert answer.json()["limited"] == "password", answer.text


@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_page_of_the_office_is_accessible(
    house: House, page: Page, english: Page, language: str
) -> None:
    shown = page if language == "zh" else english
    enter(shown, house, "residents", "admin", ADMIN_PASSWORD)
    found = []
    for path, there in SECTIONS.items():
        shown.goto(f"{house.running.url}/office/{path}")
        expect(shown.locator(there).first).to_be_visible(timeout=3 * SOON_MS)
        found += [f"{path}: {fault}" for fault in faults_of(shown)]
        # A word that nobody wrote is shown as its key.
        assert "office." not in shown.locator("main").inner_text(), path
    assert found == []

"""What a link from a notice shows, and who may be a station on duty."""

from playwright.sync_api import Locator, Page, expect

from tests.acceptance.house import SOON_MS, House, alarm, card, fill_in, is_live, log_in
from tests.conftest import ADMIN_PASSWORD


def linked(page: Page) -> Locator:
    return page.locator("[data-linked]")


def raised(house: House, name: str) -> str:
    """Press a button and return the alarm's id."""
    house.sos(name)
    (found,) = [one for one in house.alarms("open") if one["resident_id"] == house.residents[name]]
    return str(found["id"])


def test_link_of_a_notice_leads_through_the_login_to_its_alarm(house: House, page: Page) -> None:
    raised(house, "王秀英")
    identity = raised(house, "李建国")

    page.goto(f"{house.running.url}/?alarm={identity}")
    expect(page).to_have_url(f"{house.running.url}/login?alarm={identity}")
    page.reload()
    fill_in(page, house)

    mine = page.locator(f'li.alarm[data-alarm="{identity}"]')
    expect(mine).to_be_focused()
    expect(mine).to_have_attribute("aria-current", "true")
    expect(mine).to_be_in_viewport(ratio=1)
    drawer = page.get_by_role("complementary")
    expect(drawer.get_by_role("heading", name="李建国")).to_be_visible()
    assert page.url.startswith(f"{house.running.url}/station?alarm={identity}")
    # The keys are at the alarm: one more press takes it.
    page.keyboard.press("Enter")
    expect(mine).to_have_attribute("data-handling", "acknowledged")
    expect(linked(page)).to_have_count(0)


def test_link_opened_on_a_telephone_shows_the_alarm_uncovered(house: House, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    identity = raised(house, "李建国")
    log_in(page, house)
    is_live(page)
    page.goto(f"{house.running.url}/?alarm={identity}")
    mine = page.locator(f'li.alarm[data-alarm="{identity}"]')
    expect(mine).to_be_focused()
    expect(page.get_by_role("complementary")).to_have_count(0)
    mine.get_by_role("button", name="接警").click()
    expect(mine).to_have_attribute("data-handling", "acknowledged")


def test_link_of_a_closed_alarm_says_plainly_how_it_ended(house: House, page: Page) -> None:
    identity = raised(house, "王秀英")
    for step in ("acknowledge", "arrive"):
        house.admin.post(f"/alarms/{identity}/{step}", json={}).raise_for_status()
    over = house.admin.post(f"/alarms/{identity}/close", json={"outcome": "false"})
    over.raise_for_status()
    log_in(page, house)
    is_live(page)

    page.goto(f"{house.running.url}/?alarm={identity}")
    for text in ("紧急呼叫", "王秀英", "处置完成", "误报", "admin"):
        expect(linked(page)).to_contain_text(text)
    expect(alarm(page)).to_have_count(0)
    linked(page).get_by_role("button").click()
    expect(linked(page)).to_have_count(0)
    expect(page).to_have_url(f"{house.running.url}/station")


def test_link_says_how_its_alarm_ended_while_it_was_looked_at(house: House, page: Page) -> None:
    identity = raised(house, "王秀英")
    log_in(page, house)
    is_live(page)
    page.goto(f"{house.running.url}/?alarm={identity}")
    expect(alarm(page)).to_be_focused()
    house.admin.post(f"/alarms/{identity}/arrive", json={}).raise_for_status()
    house.admin.post(f"/alarms/{identity}/close", json={"outcome": "real"}).raise_for_status()
    expect(linked(page)).to_contain_text("属实", timeout=SOON_MS)


def test_link_of_an_alarm_that_is_not_theirs_shows_nothing_of_it(house: House, page: Page) -> None:
    log_in(page, house)
    is_live(page)
    for identity in ("999999999", "no-number"):
        page.goto(f"{house.running.url}/?alarm={identity}")
        expect(linked(page)).to_contain_text("不归您负责")


def test_screen_of_an_administrator_says_that_it_is_no_station(house: House, page: Page) -> None:
    page.goto(f"{house.running.url}/station")
    page.get_by_label("用户名").fill("admin")
    page.get_by_label("密码").fill(ADMIN_PASSWORD)
    page.get_by_role("button", name="登录").click()
    is_live(page)
    expect(card(page, house, "王秀英")).to_be_visible()
    duty = page.locator("[data-duty]")
    expect(duty).to_contain_text("本屏不是值班的护理站")
    expect(duty.get_by_role("button")).to_have_count(0)

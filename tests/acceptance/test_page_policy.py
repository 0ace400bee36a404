"""Every page in a real browser, in both languages: nothing breaks the content policy."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect

from anxin.config import Settings
from anxin.embedded import free_port
from api.app import create_app
from api.connection import Connection
from api.wire import Wire
from tests.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider, serving
from tests.integration.api_world import PASSWORD, World, settle
from tests.waiting import wait_until

FACES: Final = re.findall(
    r"face\('(\w+)', \['(\w+)'",
    (Path(__file__).parents[2] / "web/src/pages.ts").read_text(encoding="utf-8"),
)
"""Each page with the first role that it is for."""
LANGUAGES: Final = {"zh": ("zh-CN", "登录"), "en": ("en-US", "Log in")}
_LISTEN: Final = """
    globalThis.violations = [];
    addEventListener('securitypolicyviolation', (event) =>
        violations.push(`${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}`));
"""


@dataclass(frozen=True, slots=True)
class House:
    """A platform with two residents, users of each role, and a provider of identities."""

    url: str
    world: World
    hospital: IdentityProvider


@contextmanager
def served(world: World, port: int, oidc: str) -> Iterator[None]:
    options = Settings(database=world.dsn, oidc=oidc, public_url=f"http://127.0.0.1:{port}")
    config = uvicorn.Config(
        create_app(options), host="127.0.0.1", port=port, log_config=None, access_log=False,
        http=Connection, ws=Wire, timeout_graceful_shutdown=2,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def house(dsn: str) -> Iterator[House]:
    world = settle(dsn)
    world.device("mat-anna", "A", "anna")
    world.alarm("anna")
    port = free_port("127.0.0.1")
    # By another name it is another site, as in life: strict cookies do not come back from there.
    with serving("localhost", interactive=True) as hospital:
        setting = {"name": "hospital", "zh": "市医院", "en": "City hospital",
                   "issuer": hospital.issuer, "client_id": CLIENT_ID,
                   "client_secret": CLIENT_SECRET}  # fmt: skip
        with served(world, port, json.dumps([setting])):
            yield House(f"http://127.0.0.1:{port}", world, hospital)


@contextmanager
def visiting(browser: Browser, language: str) -> Iterator[tuple[Page, list[str]]]:
    """Lend a page, and the list of all that its policy has refused."""
    context = browser.new_context(
        viewport={"width": 1600, "height": 900}, locale=LANGUAGES[language][0]
    )
    context.add_init_script(_LISTEN)
    context.add_init_script(f"localStorage.setItem('anxin.language', '{language}')")
    page = context.new_page()
    refused: list[str] = []
    page.on(
        "console",
        lambda said: refused.append(said.text) if "Content Security Policy" in said.text else None,
    )
    page.on("pageerror", lambda error: refused.append(str(error)))
    try:
        yield page, refused
    finally:
        context.close()


def said(page: Page, refused: list[str]) -> list[str]:
    """Return everything that was refused on this page."""
    return [*page.evaluate("globalThis.violations"), *refused]


def log_in(page: Page, house: House, role: str, language: str) -> None:
    page.goto(f"{house.url}/login")
    fields = page.locator("form.login-box input")
    fields.nth(0).fill(role)
    fields.nth(1).fill(PASSWORD)
    page.get_by_role("button", name=LANGUAGES[language][1], exact=True).click()


def test_the_pages_are_those_of_the_source() -> None:
    assert {"station", "family"} <= {name for name, _ in FACES}


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_page_breaks_the_policy_that_it_is_served_with(
    browser: Browser, house: House, language: str
) -> None:
    with visiting(browser, language) as (page, refused):
        for path in ("/login", "/api/docs", "/nothing/here"):
            page.goto(f"{house.url}{path}")
            page.wait_for_load_state("networkidle")
            assert said(page, refused) == [], path
    for name, role in FACES:
        with visiting(browser, language) as (page, refused):
            log_in(page, house, role, language)
            page.wait_for_url(re.compile("/(?!login)[a-z]+$"))
            page.goto(f"{house.url}/{name}")
            page.wait_for_load_state("load")
            expect(page.locator("main, [role=main]").first).to_be_visible()
            # What opens on a touch: the drawer of a resident, a list, a dialogue.
            for card in page.locator(".card, [data-resident]").all()[:1]:
                card.click()
            page.wait_for_load_state("networkidle")
            assert said(page, refused) == [], name
            page.goto(f"{house.url}/account")
            page.wait_for_load_state("networkidle")
            assert said(page, refused) == [], f"account of {role}"
            page.evaluate(
                "() => { const one = document.createElement('script');"
                " one.textContent = 'globalThis.broken = 1'; document.body.append(one);"
                " const two = document.createElement('style');"
                " two.textContent = 'body { opacity: 1 }'; document.body.append(two) }"
            )
            page.wait_for_function("globalThis.violations.length === 2")
            assert page.evaluate("globalThis.broken") is None


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_nurse_logs_in_by_the_hospital_and_a_stranger_reads_whom_to_ask(
    browser: Browser, house: House, language: str
) -> None:
    world = house.world
    world.ask(
        "INSERT INTO outside_identities (user_id, provider, issuer, subject)"
        " VALUES (%s, 'hospital', %s, 'subject-1')", int(world.ids["nurse"]), house.hospital.issuer,
    )  # fmt: skip
    words = {"zh": "市医院", "en": "City hospital"}[language]
    with visiting(browser, language) as (page, refused):
        page.goto(f"{house.url}/login?alarm=1")
        page.get_by_role("link", name=words).click()
        page.get_by_role("link", name="go on").click()
        page.wait_for_url("**/station?alarm=1")
        expect(page.locator("[data-connection]")).to_have_attribute("data-up", "true")
        cookies = {one["name"]: one for one in page.context.cookies(house.url)}
        assert cookies["anxin_session"]["sameSite"] == "Strict"
        assert "anxin_sign_in" not in cookies
        page.reload()
        expect(page.locator("[data-connection]")).to_have_attribute("data-up", "true")
        assert said(page, refused) == []
    house.hospital.subject = "somebody-else"
    with visiting(browser, language) as (page, refused):
        page.goto(f"{house.url}/login")
        page.get_by_role("link", name=words).click()
        page.get_by_role("link", name="go on").click()
        expect(page.get_by_role("heading", name="登录没有完成")).to_be_visible()
        expect(page.get_by_text("somebody-else")).to_be_visible()
        expect(page.get_by_text("Ask the administrator")).to_be_visible()
        # A refused status is told on the console as well, and is no fault of the page.
        assert [one for one in said(page, refused) if "policy" in one.lower()] == []
        page.get_by_role("link", name="返回登录页").click()
        page.wait_for_url("**/login")


def test_who_came_by_the_hospital_confirms_there_and_comes_back_to_the_same_page(
    browser: Browser, house: House
) -> None:
    world = house.world
    world.ask(
        "INSERT INTO outside_identities (user_id, provider, issuer, subject)"
        " VALUES (%s, 'hospital', %s, 'subject-1')", int(world.ids["nurse"]), house.hospital.issuer,
    )  # fmt: skip
    house.hospital.authenticated_at = 1_000_000.0
    with visiting(browser, "zh") as (page, refused):
        page.goto(f"{house.url}/login")
        page.get_by_role("link", name="市医院").click()
        page.get_by_role("link", name="go on").click()
        page.wait_for_url("**/station*")
        page.goto(f"{house.url}/account")
        page.get_by_role("button", name="开启").click()
        house.hospital.authenticated_at = None
        dialogue = page.get_by_role("dialog")
        dialogue.get_by_role("link", name="市医院").click()
        page.get_by_role("link", name="go on").click()
        page.wait_for_url("**/account")
        assert house.hospital.authorized[-1]["prompt"] == "login"
        page.get_by_role("button", name="开启").click()
        expect(page.locator("svg, img").first).to_be_visible()
        expect(dialogue).to_have_count(0)
        assert "policy" not in " ".join(said(page, refused)).lower()

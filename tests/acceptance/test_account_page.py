"""One's own account in a real browser: codes at login, one-time passwords, the second factor."""

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from anxin.keys import key_line
from tests.acceptance.conftest import PROGRAMS, QUIET
from tests.integration.api_world import PASSWORD, Api, running, settle
from tests.integration.test_accounts import NEW, Telephone, become, enrol
from tests.integration.test_api_routes import done

KEYS = "\n".join(key_line(kind, datetime.now(UTC)) for kind in ("master", "index"))
AXE = Path(__file__).parents[2] / "web/node_modules/axe-core/axe.min.js"


@pytest_asyncio.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    environ = {"data_keys": KEYS, "require_totp": "supervisor"}
    async with running(settle(dsn), environ=environ) as serving:
        yield serving


@asynccontextmanager
async def browsing() -> AsyncIterator[Browser]:
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("No browser is in PATH. Install Chromium.")
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=program, args=QUIET)
        try:
            yield chromium
        finally:
            await chromium.close()


@asynccontextmanager
async def page_of(api: Api, language: str = "zh") -> AsyncIterator[Page]:
    """Lend a page of the platform; fail on anything that the content policy forbids."""
    async with browsing() as browser:
        context = await browser.new_context(base_url=api.address, locale="zh-CN")
        await context.add_init_script(f"localStorage.setItem('anxin.language', '{language}')")
        page = await context.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if "Policy" in said.text else None)
        yield page
        assert wrong == []


async def log_in(page: Page, username: str, password: str = PASSWORD) -> None:
    await page.goto("/login")
    await page.locator("[name=username]").fill(username)
    await page.locator("[name=password]").fill(password)
    await page.keyboard.press("Enter")


async def accessible(page: Page) -> None:
    """Fail on whatever axe finds."""
    await page.evaluate(AXE.read_text("utf-8"))
    found = await page.evaluate("axe.run().then(({violations}) => violations.map(v => v.id))")
    assert found == []


async def test_a_login_asks_for_the_code_only_of_who_has_one(api: Api) -> None:
    telephone, codes = await enrol(api, "nurse")
    async with page_of(api) as page:
        await log_in(page, "nurse")
        code = page.locator("[name=code]")
        await expect(code).to_be_focused()
        await code.fill("000000")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_contain_text("验证码不对")
        await accessible_login(page)
        await code.fill(telephone.code())
        await page.keyboard.press("Enter")
        await expect(page).to_have_url(f"{api.address}/station")
        assert codes


async def accessible_login(page: Page) -> None:
    await expect(page.locator("#code-help")).to_contain_text("备用码")


@pytest.mark.parametrize("language", ["zh", "en"])
async def test_who_comes_with_a_one_time_password_chooses_one_and_goes_on(
    api: Api, language: str
) -> None:
    nurse = api.world.ids["nurse"]
    reset = done(await api["admin"].post(f"/users/{nurse}/password"))
    async with page_of(api, language) as page:
        await log_in(page, "nurse", reset["password"])
        await expect(page.locator("[data-account-page]")).to_be_visible()
        await accessible(page)
        await page.goto("/station")  # nothing else goes
        await page.locator("[name=old]").fill(reset["password"])
        await page.locator("[name=new]").fill("1234567890")
        await page.keyboard.press("Enter")
        words = {"zh": "太常见", "en": "too common"}[language]
        await expect(page.locator(".fault")).to_contain_text(words)
        await page.locator("[name=new]").fill(NEW)
        await page.keyboard.press("Enter")
        await expect(page.locator(".station")).to_be_visible()
    async with page_of(api) as page:
        await log_in(page, "nurse", NEW)
        await expect(page.locator(".station")).to_be_visible()


@pytest.mark.parametrize("language", ["zh", "en"])
async def test_a_role_that_needs_a_second_factor_sets_one_up_by_its_picture(
    api: Api, language: str
) -> None:
    async with page_of(api, language) as page:
        await log_in(page, "supervisor")
        await page.locator("[data-begin]").click()
        await expect(page.locator("[data-qr] svg")).to_be_visible()
        secret = (await page.locator(".account-secret").inner_text()).replace(" ", "")
        assert re.fullmatch("[A-Z2-7]{32}", secret)
        await accessible(page)
        await page.locator("[name=code]").fill(Telephone(f"secret={secret}").code())
        await page.keyboard.press("Enter")
        await expect(page.locator(".account-codes li")).to_have_count(10)
        await accessible(page)
        await page.locator("[data-kept]").click()
        await expect(page.locator(".station")).to_be_visible()


async def test_the_password_is_asked_for_again_and_the_request_repeated(api: Api) -> None:
    async with page_of(api) as page:
        await log_in(page, "nurse")
        await expect(page.locator(".station")).to_be_visible()
        api.world.ask("UPDATE sessions SET confirmed_at = now() - interval '11 minutes'")
        await page.goto("/account")
        await expect(page.locator("[data-session]")).to_have_count(2)
        await page.locator("[data-begin]").click()
        dialog = page.locator("[data-step-up]")
        await expect(dialog).to_be_visible()
        await accessible(page)
        await dialog.locator("[name=password]").fill("wrong")
        await page.keyboard.press("Enter")
        await expect(dialog.get_by_role("alert")).to_contain_text("密码不对")
        await dialog.locator("[name=password]").fill(PASSWORD)
        await page.keyboard.press("Enter")
        await expect(dialog).to_be_hidden()
        await expect(page.locator("[data-qr] svg")).to_be_visible()
        # The cookie is the new one: the page goes on.
        await page.reload()
        await page.locator("[data-end-others]").click()
        await expect(page.locator("[data-session]")).to_have_count(1)
        api.world.ask("UPDATE sessions SET confirmed_at = now() - interval '11 minutes'")
        await page.locator("[data-begin]").click()
        await page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
        await expect(page.locator("[data-qr]")).to_have_count(0)


async def test_a_second_factor_is_asked_for_in_the_dialogue_too(api: Api) -> None:
    telephone, codes = await enrol(api, "nurse")
    become(api, "nurse", done(await api["nurse"].post(
        "/auth/step-up", json={"password": PASSWORD, "totp": codes[0]})))  # fmt: skip
    async with page_of(api, "en") as page:
        await log_in(page, "nurse")
        await page.locator("[name=code]").fill(telephone.code())
        await page.keyboard.press("Enter")
        await expect(page.locator(".station")).to_be_visible()
        api.world.ask("UPDATE sessions SET confirmed_at = now() - interval '11 minutes'")
        await page.goto("/account")
        await page.locator("[data-remove]").click()
        dialog = page.locator("[data-step-up]")
        await dialog.locator("[name=password]").fill(PASSWORD)
        await dialog.locator("[name=code]").fill(telephone.code())
        await page.keyboard.press("Enter")
        await expect(page.locator("[data-begin]")).to_be_visible()
    assert done(await api["nurse"].get("/me"))["second_factor"] is False

"""What the tests of the pages share: a real browser, and a house on a running platform."""

import itertools
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.acceptance.cable import Cable
from tests.acceptance.house import NURSE_PASSWORD, House
from tests.conftest import ADMIN_PASSWORD, Running

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        reason = f"No browser: none of {', '.join(PROGRAMS)} is in PATH. Install Chromium."
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=QUIET)
        yield chromium
        chromium.close()


_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def admin(anxin: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{anxin.url}/api/v1", timeout=20) as client:
        answer = client.post("/auth/login", json={"username": "admin", "password": ADMIN_PASSWORD})
        answer.raise_for_status()
        client.cookies.clear()
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        yield client


@pytest.fixture
def house(anxin: Running, admin: httpx.Client) -> House:
    def make(path: str, **body: object) -> dict[str, Any]:
        made = admin.post(path, json=body)
        made.raise_for_status()
        thing: dict[str, Any] = made.json()
        return thing

    number = next(_numbers)
    home = make("/places", kind="facility", name=f"康宁养老院{number}", parent_id=None)["id"]
    room = make("/places", kind="room", name="201", parent_id=home)["id"]
    residents, devices = {}, {}
    for bed_number, name in enumerate(("王秀英", "李建国"), 1):
        bed = make("/places", kind="bed", name=f"{bed_number}床", parent_id=room)["id"]
        resident = make("/residents", name=name, place_id=bed)["id"]
        residents[name] = resident
        for kind, word in (("call_button", "button"), ("bed_sensor", "mat")):
            device = make("/devices", kind=kind)
            devices[f"{name} {word}"] = (device["id"], device["secret"])
            # Half a minute ago, so that readings of the last seconds are already the resident's.
            since = (datetime.now(UTC) - timedelta(seconds=30)).isoformat()
            assigned = admin.put(
                f"/devices/{device['id']}/assignment",
                json={"resident_id": resident, "since": since},
            )
            assigned.raise_for_status()
    nurse = f"nurse.{number}"
    make("/users", username=nurse, password=NURSE_PASSWORD, role="nurse", place_id=home)
    return House(anxin, admin, home, nurse, residents, devices)


@pytest.fixture
def cable(house: House) -> Iterator[Cable]:
    host, _, port = house.running.http.rpartition(":")
    cable = Cable((host, int(port)))
    cable.plug_in()
    yield cable
    cable.pull_out()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1920, "height": 1080}, locale="zh-CN")
    page = context.new_page()
    broken: list[str] = []
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.on("console", lambda said: broken.append(said.text) if _is_policy(said.text) else None)
    yield page
    context.close()
    assert broken == []


def _is_policy(text: str) -> bool:
    return "Content Security Policy" in text

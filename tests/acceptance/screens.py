"""Pictures of every page in both languages, of a demonstration that runs: `make screens`.

They are written into build/screens, to be looked at one by one.
"""

import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import msgspec
from playwright.sync_api import Browser, Page, sync_playwright

from tests.acceptance.house import House
from tests.conftest import Running, starter

SCREENS: Final = Path(__file__).parents[2] / "build/screens"
PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
WALL: Final = (1920, 1080)
DESK: Final = (1280, 800)
OFFICE: Final = (1440, 900)
PHONE: Final = (390, 844)
LANGUAGES: Final = ("zh", "en")


@dataclass(frozen=True, slots=True)
class Picture:
    """A page as somebody sees it: `shown` is there when it may be taken.

    `{resident}` in the path is the resident of the family; `prepare` is done before.
    """

    name: str
    role: str | None
    path: str
    size: tuple[int, int]
    shown: str
    prepare: Callable[[Page], None] | None = None
    whole: bool = False


def _large(page: Page) -> None:
    page.evaluate("localStorage.setItem('anxin.large', 'yes')")


def _dark(page: Page) -> None:
    page.evaluate("localStorage.setItem('anxin.theme', 'dark')")


def _light(page: Page) -> None:
    page.evaluate("localStorage.setItem('anxin.theme', 'light')")


PICTURES: Final = [
    Picture("login", None, "/login", DESK, "input[name=password]"),
    Picture("station", "nurse", "/station", WALL, ".card .trend"),
    Picture("station-light", "nurse", "/station", WALL, ".card .trend", _light),
    Picture("station-resident", "nurse", "/station?resident={resident}", WALL, ".drawer .trend"),
    Picture("station-not-yours", "family", "/station", DESK, "[data-fault]"),
    Picture("family", "family", "/family", PHONE, "[data-about=steps]", whole=True),
    Picture("family-dark", "family", "/family", PHONE, "[data-about=steps]", _dark, whole=True),
    Picture("family-large", "family", "/family", PHONE, "[data-about=steps]", _large, whole=True),
    *(
        Picture(f"office-{name}", "admin", f"/office/{path}", OFFICE, shown)
        for name, path, shown in (
            ("residents", "residents", "[data-resident]"),
            ("resident", "residents/{resident}", "[data-form=resident]"),
            ("devices", "devices", "[data-device]"),
            ("assign", "devices/board", "[data-person]"),
            ("enrol", "devices/new", ".office-panel"),
            ("places", "places", "[data-place]"),
            ("accounts", "staff", "tbody tr"),
            ("roster", "roster", ".office-week"),
            ("ladders", "ladders/0", "[data-form=ladder]"),
            ("contacts", "contacts/new", ".office-panel"),
            ("limits", "limits/new", ".office-panel form"),
            ("import", "import", ".office-drop"),
            ("reports", "reports", "[data-report=devices]"),
            ("audit", "audit", "tbody tr"),
            ("backups", "backups", ".office-card"),
        )
    ),
    Picture("family-settings", "family", "/family?view=settings", PHONE, "[data-save]", whole=True),
]
"""Every page; whoever adds one adds its picture."""
OF_AN_EMERGENCY: Final = [
    Picture("station-emergency", "nurse", "/station", WALL, "li.alarm"),
    Picture("family-emergency", "family", "/family", PHONE, "[data-change=raised]", whole=True),
]
"""What is taken after the resident of the family has pressed a button."""


def main() -> int:
    """Take them all; say where they are."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        sys.stderr.write(f"No browser: none of {', '.join(PROGRAMS)} is in PATH.\n")
        return 1
    shutil.rmtree(SCREENS, ignore_errors=True)
    SCREENS.mkdir(parents=True)
    directory = Path(tempfile.mkdtemp(prefix="anxin-screens-"))
    directory.chmod(0o711)
    with starter(directory) as start, sync_playwright() as playwright:
        running = start(command="demo", ready_seconds=300)
        passwords = msgspec.json.decode((directory / "demo-logins.json").read_bytes())
        resident = _of_the_family(running, passwords["family"])
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for pictures in (PICTURES, OF_AN_EMERGENCY):
            if pictures is OF_AN_EMERGENCY:
                _call_for_help(running, passwords["admin"], resident)
            for picture, language in itertools.product(pictures, LANGUAGES):
                _take(browser, running, picture, language, passwords, resident)
        browser.close()
    shutil.rmtree(directory)
    print(f"{len(list(SCREENS.iterdir()))} pictures in {os.path.relpath(SCREENS)}")
    return 0


def _of_the_family(running: Running, password: str) -> str:
    with httpx.Client(base_url=f"{running.url}/api/v1") as client:
        client.post("/auth/login", json={"username": "family", "password": password})
        return str(client.get("/residents").json()["items"][0]["id"])


def _call_for_help(running: Running, password: str, resident: str) -> None:
    with httpx.Client(base_url=f"{running.url}/api/v1") as client:
        login = client.post("/auth/login", json={"username": "admin", "password": password})
        client.cookies.clear()
        client.headers["Authorization"] = f"Bearer {login.json()['access_token']}"
        button = client.post("/devices", json={"kind": "call_button"}).raise_for_status().json()
        path = f"/devices/{button['id']}/assignment"
        client.put(path, json={"resident_id": resident}).raise_for_status()
        devices = {"here button": (button["id"], button["secret"])}
        House(running, client, "", "", {}, devices).sos("here")


def _take(
    browser: Browser,
    running: Running,
    picture: Picture,
    language: str,
    passwords: dict[str, str],
    resident: str,
) -> None:
    width, height = picture.size
    context = browser.new_context(
        viewport={"width": width, "height": height},
        timezone_id="Asia/Shanghai",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.add_init_script(f"localStorage.setItem('anxin.language', '{language}')")
    if picture.role is not None:
        body = {"username": picture.role, "password": passwords[picture.role]}
        logged_in = context.request.post(f"{running.url}/api/v1/auth/login", data=body)
        assert logged_in.ok, logged_in.text()
    page.goto(f"{running.url}/icon.svg")
    if picture.prepare is not None:
        picture.prepare(page)
    page.goto(running.url + picture.path.format(resident=resident))
    page.wait_for_selector(picture.shown, timeout=30_000)
    page.wait_for_load_state("networkidle" if picture.role is None else "load")
    page.screenshot(path=SCREENS / f"{picture.name}.{language}.png", full_page=picture.whole)
    context.close()


if __name__ == "__main__":
    raise SystemExit(main())

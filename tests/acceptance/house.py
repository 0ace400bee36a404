"""A nursing home on a running platform, and a nurse who looks at its station page."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from playwright.sync_api import Locator, Page, expect

from tests.conftest import Running

AXE: Final = Path(__file__).parents[2] / "web/node_modules/axe-core/axe.min.js"
NURSE_PASSWORD: Final = "a-long-password"
SOON_MS: Final = 5_000
"""Within this the page must show a change; it takes far less."""


@dataclass(frozen=True, slots=True)
class House:
    """A nursing home of its own on a running platform, and the nurse who may log in to it."""

    running: Running
    admin: httpx.Client
    place_id: str
    nurse: str
    residents: dict[str, str]
    devices: dict[str, tuple[str, str]]

    def publish(self, name: str, channel: str, payload: object) -> None:
        """Send one message as a device and wait until the platform has acknowledged it."""
        device, secret = self.devices[name]
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=device)
        client.username_pw_set(device, secret)
        host, _, port = self.running.mqtt.rpartition(":")
        client.connect(host, int(port))
        client.loop_start()
        try:
            message = client.publish(f"anxin/v1/{device}/{channel}", json.dumps(payload), qos=1)
            message.wait_for_publish(20)
            assert message.is_published()
        finally:
            client.disconnect()
            client.loop_stop()

    def sos(self, name: str, event: str = "e1") -> None:
        """Press the call button of a resident."""
        self.publish(f"{name} button", "event", {"id": event, "type": "sos"})

    def alarms(self, handling: str) -> list[dict[str, Any]]:
        """Return the platform's own list of this house's alarms."""
        wanted = {"handling": handling, "place_id": self.place_id}
        answer = self.admin.get("/alarms", params=wanted)
        answer.raise_for_status()
        items: list[dict[str, Any]] = answer.json()["items"]
        return items


def log_in(page: Page, house: House, *, url: str = "", password: str = NURSE_PASSWORD) -> None:
    page.goto(f"{url or house.running.url}/station")
    fill_in(page, house, password)


def fill_in(page: Page, house: House, password: str = NURSE_PASSWORD) -> None:
    page.get_by_label("用户名").fill(house.nurse)
    page.get_by_label("密码").fill(password)
    page.get_by_role("button", name="登录").click()


def is_live(page: Page) -> None:
    expect(page.locator("[data-connection]")).to_have_attribute("data-up", "true")


def alarm(page: Page) -> Locator:
    return page.locator("li.alarm")


def card(page: Page, house: House, name: str) -> Locator:
    return page.locator(f'.card[data-resident="{house.residents[name]}"]')


def faults_of(page: Page) -> list[tuple[str, str]]:
    """Return what axe finds wrong with what the page shows now: the rule, and where."""
    page.evaluate(AXE.read_text("utf-8"))
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = page.evaluate("tags => axe.run(document, { runOnly: tags })", tags)
    return [(fault["id"], fault["nodes"][0]["html"]) for fault in found["violations"]]

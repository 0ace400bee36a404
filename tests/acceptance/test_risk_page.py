"""From a simulated sepsis to the sentence on the wall, and from a nurse's word to a whole NEWS2."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.house import NURSE_PASSWORD, House, alarm, is_live, log_in
from tests.conftest import ADMIN_PASSWORD, Running
from tests.waiting import wait_until

SPEED = "60"
"""The decline of six hours in six minutes; the tick needs half a minute to believe it."""


@pytest.fixture
def ill(anxin: Running) -> Iterator[None]:
    """Let a simulated person fall ill, with the devices of two others beside."""
    directory = Path(tempfile.mkdtemp(prefix="anxin-sim-"))
    with (directory / "said").open("wb") as said:
        simulator = subprocess.Popen(
            [
                sys.executable, "-m", "anxin.cli", "simulate", "--residents", "1",
                "--scenario", "sepsis", "--speed", SPEED, "--after", "1s", "--at", "14:00",
                "--devices", str(directory / "devices.json"), "--api", anxin.url,
                "--mqtt", anxin.mqtt,
            ],
            env=os.environ | {"ANXIN_ADMIN_PASSWORD": ADMIN_PASSWORD},
            stdout=said, stderr=said,
        )  # fmt: skip
        yield
        simulator.terminate()
        simulator.wait(30)


def early_warnings(admin: httpx.Client) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = admin.get("/alarms").json()["items"]
    return [one for one in items if one["kind"] == "early_warning"]


@pytest.mark.timeout(480)
@pytest.mark.usefixtures("ill")
def test_a_simulated_sepsis_is_on_the_wall_with_its_sentence(
    anxin: Running, admin: httpx.Client, page: Page, tmp_path: Path
) -> None:
    (told,) = wait_until(lambda: early_warnings(admin), 400, "the tick tells of the sepsis")
    said = told["detail"]["sentence"]
    assert "呼吸" in said["zh"]
    assert "部分评分" in said["zh"]
    assert told["priority"] in ("medium", "high")
    house = House(anxin, admin, "", "admin", {}, {})
    log_in(page, house, password=ADMIN_PASSWORD)
    is_live(page)
    row = page.locator('li.alarm[data-kind="early_warning"]')
    expect(row).to_contain_text(said["zh"], timeout=20_000)
    row.locator(".alarm-who button").click()
    drawer = page.get_by_role("complementary")
    expect(drawer.locator("[data-score]")).to_contain_text("部分评分")
    expect(drawer.locator("[data-score]")).to_contain_text("缺吸氧、意识")
    page.screenshot(path=tmp_path / "alarm.png")


@pytest.mark.timeout(180)
def test_consciousness_and_oxygen_entered_by_a_nurse_make_it_news2(
    house: House, page: Page, tmp_path: Path
) -> None:
    values = {"hr": 96, "rr": 22, "spo2": 95, "temp": 37.4, "sbp": 108, "dbp": 70}
    house.publish("王秀英 mat", "telemetry", {**values, "presence": "present"})
    log_in(page, house, password=NURSE_PASSWORD)
    is_live(page)
    page.locator(f'.card[data-resident="{house.residents["王秀英"]}"]').click()
    section = page.locator("[data-risk]")
    expect(section.locator("[data-score]")).to_contain_text(
        "部分评分 5–10，缺吸氧、意识", timeout=60_000
    )
    section.locator('[data-consciousness="A"]').click()
    section.locator('[data-oxygen="true"]').click()
    section.locator("[data-observe]").click()
    expect(section.get_by_role("status")).to_contain_text("已记录")
    expect(section.locator("[data-score]")).to_contain_text("NEWS2 7 分", timeout=60_000)
    page.screenshot(path=tmp_path / "drawer.png")
    expect(alarm(page)).to_contain_text("NEWS2 7 分", timeout=90_000)

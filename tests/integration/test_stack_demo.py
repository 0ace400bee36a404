"""`anxin demo`: a facility with people, devices that report, and logins that work."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil

from tests.conftest import Running
from tests.waiting import wait_until


def _reader(running: Running, username: str, password: str) -> httpx.Client:
    base = f"{running.url}/api/v1"
    login = {"username": username, "password": password}
    answer = httpx.post(f"{base}/auth/login", json=login, timeout=20).raise_for_status()
    bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    return httpx.Client(base_url=base, headers=bearer, timeout=20)


def test_demo_shows_people_devices_report_and_every_login_sees_its_own(
    start_anxin: Callable[..., Running], data_dir: Path
) -> None:
    running = start_anxin(command="demo", environ={"ANXIN_ADMIN_PASSWORD": ""})
    kept = data_dir / "demo-logins.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    logins = json.loads(kept.read_text("utf-8"))
    seen = {}
    for username, password in logins.items():
        with _reader(running, username, password) as reader:
            residents = reader.get("/residents", params={"limit": 100}).json()["items"]
            seen[username] = len(residents)
    assert seen == {"admin": 36, "supervisor": 36, "nurse": 24, "family": 1}

    with _reader(running, "nurse", logins["nurse"]) as nurse:
        resident = nurse.get("/residents").json()["items"][0]["id"]
        wait_until(
            lambda: "hr" in nurse.get(f"/residents/{resident}/status").json()["latest"],
            30,
            "the bed mat reports",
        )
    wait_until(lambda: logins["family"] in running.output.read_text("utf-8"), 10)
    tree = psutil.Process(running.pid).children(recursive=True)
    assert running.stop() == 0
    assert not any(process.is_running() for process in tree)

    again = start_anxin(command="demo", environ={"ANXIN_ADMIN_PASSWORD": ""})
    wait_until(lambda: logins["family"] in again.output.read_text("utf-8"), 10)

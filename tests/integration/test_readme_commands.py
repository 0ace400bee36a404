"""The README's lines for a real device, run as they stand against a running platform."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import httpx

from tests import npm
from tests.conftest import ADMIN_PASSWORD, Running
from tests.docs import DOCS


def test_the_lines_that_connect_a_device_raise_its_alarm(
    start_anxin: Callable[..., Running],
) -> None:
    for program in ("curl", "mosquitto_pub"):
        if shutil.which(program) is None:
            npm.not_here(f"{program} is not installed")
    running = start_anxin()
    with httpx.Client(base_url=f"{running.url}/api/v1", timeout=10) as client:
        login = {"username": "admin", "password": ADMIN_PASSWORD}
        token = client.post("/auth/login", json=login).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        # `make run` has made places; here is the first.
        place = client.post("/places", json={"kind": "facility", "name": "安心养老院"}).json()
        subprocess.run(
            ["bash", "-euo", "pipefail", "-c", _lines(running)],
            env={**os.environ, "PASSWORD": ADMIN_PASSWORD},
            check=True,
            timeout=30,
        )
        [alarm] = [one for one in _items(client, "/alarms") if one["kind"] == "sos"]
    assert (alarm["kind"], alarm["priority"], alarm["device_id"]) == ("sos", "high", "button-1")
    assert alarm["place_id"] == place["id"]


def _lines(running: Running) -> str:
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    block = re.search(r"## Connect a real device\n.*?```bash\n(.*?)```", text, flags=re.DOTALL)
    assert block is not None
    port = running.mqtt.rpartition(":")[2]
    lines = block[1]
    for written, actual in (("http://127.0.0.1:8080", running.url), ("-p 1883", f"-p {port}")):
        assert lines.count(written) == 1
        lines = lines.replace(written, actual)
    return lines


def _items(client: httpx.Client, path: str) -> list[dict[str, Any]]:
    answer = client.get(path)
    answer.raise_for_status()
    items: list[dict[str, Any]] = answer.json()["items"]
    return items

"""The process of the API ends with a part that stopped, so that another can take its place."""

import asyncio
import contextlib
import socket
from typing import Any

import httpx
import pytest

from anxin.config import Settings
from api import live, main, recording
from tests.integration.api_world import running, settle
from tests.waiting import eventually

PARTS = [(recording.Recorder, "audit"), (live.Hub, "alarm stream")]


@pytest.fixture
def stop() -> asyncio.Event:
    return asyncio.Event()


def let_stop(part: type[Any], stop: asyncio.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stopped(_self: object) -> None:
        await stop.wait()

    monkeypatch.setattr(part, "_run", stopped)


@pytest.mark.parametrize(("part", "named"), PARTS)
async def test_the_api_is_not_ready_without_one_of_its_parts(
    dsn: str, stop: asyncio.Event, monkeypatch: pytest.MonkeyPatch, part: type[Any], named: str
) -> None:
    let_stop(part, stop, monkeypatch)
    async with (
        running(settle(dsn)) as api,
        httpx.AsyncClient(base_url=api.address, trust_env=False) as client,
    ):
        assert (await client.get("/readyz")).status_code == 200
        stop.set()
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert named in answer.json()["detail"]


@pytest.mark.parametrize("part", [part for part, _ in PARTS])
async def test_the_process_ends_with_one_of_its_parts(
    dsn: str, stop: asyncio.Event, monkeypatch: pytest.MonkeyPatch, part: type[Any]
) -> None:
    let_stop(part, stop, monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        process = asyncio.create_task(main._serve(Settings(database=dsn), listener))
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:

            async def ready() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    return (await client.get("/readyz")).status_code == 200
                return False

            await eventually(ready, 30)
        stop.set()
        with pytest.raises(main.PartStopped):
            await process

"""Viewers who see alike share their frames: nothing is torn, lost or doubled when one falls behind.

Whoever keeps up is written to past its transport, so what matters here is every way in which a
viewer leaves that path and comes back to it while frames arrive.
"""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from api.live import Hub
from api.viewer import Viewer
from tests.integration.api_world import Api, Stream, World, running, settle
from tests.waiting import eventually

STORM = 120
"""More than go together in one write, in one commit."""


@pytest.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    async with running(settle(dsn)) as api:
        yield api


def raise_storm(world: World, name: str, size: int = 3000) -> None:
    """Raise many alarms with long details in one transaction."""
    with world.sql() as connection, connection.transaction():
        for number in range(STORM):
            world.alarm("anna", f"{name}_{number}", connection=connection)
        detail = msgspec.json.encode({"x": "y" * size}).decode()
        connection.execute("UPDATE alarms SET detail = %s::jsonb", [detail])
        connection.execute(
            "SELECT record_change(a, 'note', NULL, 'test', 'rule') FROM alarms a"
            " WHERE kind LIKE %s ORDER BY id",
            [f"{name}_%"],
        )


def hub_of(api: Api) -> Hub:
    hub: Hub = api.server.config.app.state.services.hub  # type: ignore[union-attr]
    return hub


def viewers(api: Api, username: str) -> list[Viewer]:
    """Return the open streams of a user."""
    return [one for one in hub_of(api)._viewers if one.user.username == username]


def abreast(api: Api, username: str, count: int = 1) -> bool:
    """Tell whether so many streams of a user are live and written to at once."""
    found = viewers(api, username)
    seats = hub_of(api)._seats
    return len(found) == count and all(seats.in_row(v) and v.descriptor is not None for v in found)


async def cursors(stream: Stream, count: int) -> list[int]:
    return [frame["cursor"] for frame in await stream.alarms(count)]


async def test_a_viewer_that_falls_behind_in_a_storm_misses_nothing_and_catches_up(
    api: Api,
) -> None:
    async with api.stream("nurse") as quick, api.stream("supervisor", max_queue=1) as slow:
        start = (await quick.next("ready"))["cursor"]
        await slow.next("ready")
        await eventually(lambda: abreast(api, "supervisor"))
        slow.socket.transport.pause_reading()
        told = 0
        while viewers(api, "supervisor")[0].depth == 0:
            await asyncio.to_thread(raise_storm, api.world, f"storm_{told}")
            told += 2 * STORM
            assert await cursors(quick, 2 * STORM) == list(
                range(start + 1 + told - 2 * STORM, start + 1 + told)
            )
        assert not abreast(api, "supervisor")
        slow.socket.transport.resume_reading()
        assert await cursors(slow, told) == list(range(start + 1, start + 1 + told))
        await eventually(lambda: abreast(api, "supervisor"))
        api.world.alarm("anna", "afterwards")
        assert await cursors(slow, 1) == await cursors(quick, 1) == [start + told + 1]


async def test_only_the_row_that_may_see_a_storm_is_told_of_it(api: Api) -> None:
    async with api.stream("nurse") as here, api.stream("nurse-b") as elsewhere:
        start = (await here.next("ready"))["cursor"]
        await elsewhere.next("ready")
        raise_storm(api.world, "storm", size=10)
        assert await cursors(here, 2 * STORM) == list(range(start + 1, start + 1 + 2 * STORM))
        api.world.alarm("bela", "elsewhere")
        assert await cursors(elsewhere, 1) == [start + 1 + 2 * STORM]


async def test_a_viewer_that_says_goodbye_leaves_the_line_before_anything_else_is_sent(
    api: Api,
) -> None:
    async with api.stream("nurse") as stream:
        await stream.next("ready")
        await eventually(lambda: abreast(api, "nurse"))
        wire = viewers(api, "nurse")[0]._wire
        seen: list[tuple[bool, bool]] = []
        wire.on_change = lambda: seen.append((wire.bare, wire.disconnected))
        await stream.socket.close()
        await eventually(lambda: not viewers(api, "nurse"))
    # By its word, not only when its connection is gone.
    assert seen[0] == (False, False)


async def test_a_viewer_whose_stream_ends_is_written_to_no_more(api: Api) -> None:
    async with api.stream("nurse") as ending, api.stream("nurse") as staying:
        for stream in (ending, staying):
            await stream.next("ready")
        await eventually(lambda: abreast(api, "nurse", 2))
        await ending.say(type="nonsense")
        await eventually(lambda: len(viewers(api, "nurse")) == 1)
        api.world.alarm("anna")
        assert len(await cursors(staying, 1)) == 1
        await ending.socket.wait_closed()
        assert ending.socket.close_code == 4002

"""Stations over the real stream: what a screen says is stored, watched, told and passed over."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from anxin.db.pool import Database
from models.stations import watch_stations
from tests.integration.api_world import Api, Stream, World, running, settle
from tests.waiting import eventually


@pytest.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    async with running(settle(dsn)) as api:
        yield api


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with Database(dsn) as database:
        yield database


async def report(api: Api, stream: Stream, **said: Any) -> None:
    """Say how the screen is, and wait until it is stored."""
    frame = {
        "screen": "wall", "sound": "on", "visible": True, "on_duty": True,
        "proved_at": datetime.now(UTC).isoformat(),
    } | said  # fmt: skip
    before = api.world.one("SELECT max(seen_at) FROM stations")
    await stream.say(type="station", **frame)
    await eventually(lambda: api.world.one("SELECT max(seen_at) FROM stations") != before)


def faults(world: World) -> list[dict[str, Any]]:
    return world.ask(
        "SELECT place_id::text, class, priority, condition, detail ->> 'reason' AS reason"
        " FROM alarms WHERE kind = 'device_fault' ORDER BY id"
    )


def later(world: World, seconds: float, column: str = "seen_at") -> None:
    """Let so much time pass for the stations."""
    world.ask(f"UPDATE stations SET {column} = {column} - %s * interval '1 second'", seconds)


async def test_a_muted_station_is_a_fault_until_it_sounds(api: Api, database: Database) -> None:
    async with api.stream("nurse") as stream:
        await report(api, stream)
        assert await watch_stations(database) == 0
        await report(api, stream, sound="muted")
        assert await watch_stations(database) == 1
        assert await watch_stations(database) == 0
        facility = api.world.ids["A"]
        expected = {"place_id": facility, "class": "technical", "priority": 3}
        assert faults(api.world) == [expected | {"condition": "present", "reason": "station_muted"}]
        (seen,) = (await api["supervisor"].get("/stations")).json()["items"]
        assert (seen["condition"], seen["username"], seen["place_id"]) == (
            "station_muted", "nurse", facility,
        )  # fmt: skip
        await report(api, stream)
        assert await watch_stations(database) == 1
        assert [one["condition"] for one in faults(api.world)] == ["recovered"]


async def test_a_station_that_is_gone_is_missed_and_one_that_logged_off_is_not(
    api: Api, database: Database
) -> None:
    async with api.stream("nurse") as stream, api.stream("nurse-b") as other:
        await report(api, stream)
        await report(api, other, screen="other", on_duty=False)
        later(api.world, 31)
        assert await watch_stations(database) == 1
        assert [(one["place_id"], one["reason"]) for one in faults(api.world)] == [
            (api.world.ids["A"], "station_gone")
        ]
        # Back, then off duty in order: the fault recovers, and nobody is missed.
        await report(api, stream)
        await report(api, stream, on_duty=False)
        assert await watch_stations(database) == 1
        later(api.world, 60)
        assert await watch_stations(database) == 0


async def test_a_hidden_page_is_a_fault_after_a_minute(api: Api, database: Database) -> None:
    async with api.stream("nurse") as stream:
        await report(api, stream)
        await report(api, stream, visible=False)
        assert await watch_stations(database) == 0
        later(api.world, 61, "visible_at")
        assert await watch_stations(database) == 1
        assert faults(api.world)[0]["reason"] == "station_asleep"


async def test_monitored_beds_without_any_station_are_missed_after_two_minutes(
    api: Api, database: Database
) -> None:
    world = api.world
    world.device("mat", None, "anna")
    async with api.stream("nurse") as stream, api.stream("nurse-b") as unmonitored:
        await report(api, stream)
        await report(api, stream, on_duty=False)
        await report(api, unmonitored)
        await report(api, unmonitored, on_duty=False)
    later(world, 110, "on_duty_at")
    assert await watch_stations(database) == 0
    later(world, 20, "on_duty_at")
    assert await watch_stations(database) == 1
    assert [(one["place_id"], one["priority"]) for one in faults(world)] == [(world.ids["A"], 3)]
    # The day after, the place is taken for one without a station.
    later(world, 86_400, "on_duty_at")
    assert await watch_stations(database) == 1
    assert faults(world)[0]["condition"] == "recovered"


async def test_alarms_of_a_deaf_station_go_on_to_their_next_step_at_once(
    api: Api, database: Database
) -> None:
    world = api.world
    async with api.stream("nurse") as stream, api.stream("nurse-b") as well:
        await report(api, stream, sound="muted")
        await report(api, well, screen="b")
        own, other = int(world.alarm("anna")), int(world.alarm("bela"))
        # The worker's sweep has called the wall; what comes next is due in half a minute.
        world.ask("UPDATE escalations SET next_step = 2, due_at = now() + interval '30 seconds'")
        assert await watch_stations(database) == 2
        due = "SELECT alarm_id FROM escalations WHERE due_at <= now() AND next_step > 0"
        assert [row["alarm_id"] for row in world.ask(due)] == [own]
        assert own != other
        world.ask("UPDATE escalations SET due_at = now() + interval '30 seconds'")
        assert await watch_stations(database) == 0


async def test_a_nurse_who_moves_to_another_screen_is_not_missed_at_the_first(
    api: Api, database: Database
) -> None:
    async with api.stream("nurse") as stream:
        await report(api, stream)
        later(api.world, 40)
        await report(api, stream, screen="second")
        assert await watch_stations(database) == 0


@pytest.mark.parametrize(
    "frame",
    [
        {"screen": "a b", "sound": "on", "visible": True, "on_duty": True},
        {"screen": "a", "sound": "loud", "visible": True, "on_duty": True},
        {"screen": "a", "sound": "on", "on_duty": True},
        {"screen": "a", "sound": "on", "visible": True, "on_duty": True, "proved_at": "never"},
    ],
)
async def test_a_report_that_cannot_be_read_ends_the_stream(
    api: Api, frame: dict[str, Any]
) -> None:
    async with api.stream("nurse") as stream:
        await stream.next("ready")
        await stream.say(type="station", **frame)
        await stream.socket.wait_closed()
        assert stream.socket.close_code == 4002


async def test_a_relative_keeps_no_watch_and_sees_no_stations(api: Api) -> None:
    async with api.stream("family") as stream, api.stream("nurse") as nurse:
        await stream.say(type="station", screen="phone", sound="on", visible=True, on_duty=True)
        await report(api, nurse)
        assert api.world.one("SELECT count(*) FROM stations") == 1
    assert (await api["family"].get("/stations")).status_code == 403
    assert (await api["nurse-b"].get("/stations")).json()["items"] == []

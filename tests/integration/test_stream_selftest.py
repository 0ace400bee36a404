"""The self-test, whole: by MQTT into a running platform, to a station's stream and back."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import psycopg
import pytest
from psycopg.rows import dict_row
from websockets.asyncio.client import ClientConnection, connect

from anxin.config import Settings
from anxin.db.pool import Database
from models.selftest import SelfTests
from tests.conftest import ADMIN_PASSWORD, Running
from tests.integration.test_escalation import Home
from tests.waiting import eventually

PASSWORD = "a-long-password"


class Platform:
    """A facility with one nurse on a running platform."""

    def __init__(self, running: Running, dsn: str) -> None:
        """Make the facility."""
        self.running = running
        self.dsn = dsn
        self.admin = self._logged_in("admin", ADMIN_PASSWORD)
        place = self.admin.post("/places", json={"kind": "facility", "name": "康宁"})
        self.place_id = int(place.raise_for_status().json()["id"])
        nurse = {
            "username": "nurse", "password": PASSWORD, "role": "nurse",
            "place_id": str(self.place_id),
        }  # fmt: skip
        self.admin.post("/users", json=nurse).raise_for_status()
        self.nurse = self._logged_in("nurse", PASSWORD)

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Run one query and return its rows."""
        with psycopg.connect(self.dsn, autocommit=True, row_factory=dict_row) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    async def station(self) -> ClientConnection:
        """Open the stream as the nurse."""
        ticket = self.nurse.post("/stream/tickets").json()["ticket"]
        address = self.running.url.replace("http", "ws", 1)
        socket = await connect(f"{address}/api/v1/stream", proxy=None)
        await say(socket, type="hello", ticket=ticket, cursor=None)
        return socket

    def _logged_in(self, username: str, password: str) -> httpx.Client:
        client = httpx.Client(base_url=f"{self.running.url}/api/v1", trust_env=False)
        body = {"username": username, "password": password}
        token = client.post("/auth/login", json=body).raise_for_status().json()["access_token"]
        client.cookies.clear()
        client.headers["Authorization"] = f"Bearer {token}"
        return client


async def say(socket: ClientConnection, **frame: object) -> None:
    await socket.send(msgspec.json.encode(frame).decode())


async def watch(socket: ClientConnection, *, shows: bool) -> None:
    """Be a station on duty that shows every alarm, or one that is broken and shows none."""
    await say(
        socket, type="station", screen="wall", sound="on", visible=True, on_duty=True,
        proved_at=datetime.now(UTC).isoformat(),
    )  # fmt: skip
    async for text in socket:
        frame = msgspec.json.decode(text)
        if not shows or frame["type"] != "alarm" or frame["change"] != "raised":
            continue
        # The fault of the run before may get its place in the stream after this one was opened.
        if frame["alarm"]["kind"] != "device_fault":
            assert frame["alarm"]["detail"]["selftest"] is True
            await say(socket, type="displayed", alarm_id=frame["alarm"]["id"])


@pytest.fixture
def platform(start_anxin: Callable[..., Running], dsn: str) -> Iterator[Platform]:
    platform = Platform(start_anxin("--database", dsn), dsn)
    yield platform
    platform.admin.close()
    platform.nurse.close()


async def test_a_station_on_duty_is_tested_the_whole_way_and_nobody_is_called(
    platform: Platform,
) -> None:
    socket = await platform.station()
    watching = asyncio.create_task(watch(socket, shows=True))
    try:
        done = "SELECT * FROM self_tests WHERE displayed_at IS NOT NULL"
        (run,) = await eventually(lambda: platform.ask(done), 40, "the self-test is shown")
        closed = "SELECT * FROM alarms WHERE handling = 'closed'"
        (alarm,) = await eventually(lambda: platform.ask(closed), 10, "its alarm is closed")
    finally:
        watching.cancel()
        await socket.close()
    assert (run["failed"], run["place_id"], run["alarm_id"]) == (
        None, platform.place_id, alarm["id"],
    )  # fmt: skip
    assert (alarm["kind"], alarm["outcome"], alarm["resident_id"]) == ("sos", "test", None)
    assert alarm["subject"] != f"p{platform.place_id}"
    assert platform.ask("SELECT * FROM escalations") == []
    assert platform.ask("SELECT * FROM deliveries") == []
    (seen,) = platform.nurse.get("/self-tests").json()["items"]
    assert (seen["failed"], seen["alarm_id"]) == (None, str(alarm["id"]))
    # The bed is made once, and is nobody's.
    assert len(platform.ask("SELECT * FROM places WHERE name = '自检床'")) == 1


async def test_a_test_that_no_screen_shows_is_a_fault_until_one_does(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.selftest.DISPLAY_SECONDS", 3.0)
    platform.ask(
        f"INSERT INTO self_tests (place_id, finished_at) VALUES ({platform.place_id}, now())"
    )
    platform.ask("UPDATE self_tests SET started_at = now() - interval '200 seconds'")
    settings = Settings(database=platform.dsn, mqtt=platform.running.mqtt)
    async with Database(platform.dsn) as database:
        tests = SelfTests(database, settings.mqtt)

        async def once(*, shows: bool) -> bool | None:
            socket = await platform.station()
            watching = asyncio.create_task(watch(socket, shows=shows))
            try:
                # The platform's own worker looks every 5 s only: this one is first.
                platform.ask("UPDATE self_tests SET started_at = now() - interval '301 seconds'")
                return await tests.run(platform.place_id)
            finally:
                watching.cancel()
                await socket.close()

        assert await once(shows=False) is False
        (run,) = platform.ask("SELECT * FROM self_tests ORDER BY id DESC LIMIT 1")
        assert run["failed"] == "not_displayed"
        fault = (
            "SELECT priority, condition, detail ->> 'step' AS step"
            " FROM alarms WHERE kind = 'device_fault'"
        )
        assert platform.ask(fault) == [
            {"priority": 3, "condition": "present", "step": "not_displayed"}
        ]
        assert await tests.run(platform.place_id) is None, "it is not due yet"
        assert await once(shows=True) is True
        assert platform.ask(fault)[0]["condition"] == "recovered"


async def test_what_a_killed_worker_left_of_its_self_test_is_cleared_and_begun_anew(
    dsn: str, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.selftest.PUBLISH_SECONDS", 1.0)
    nowhere = f"127.0.0.1:{free_port}"
    house = Home(dsn)
    async with Database(dsn) as database:
        tests = SelfTests(database, nowhere)
        await tests._secret(house.place)
        # A station on duty, so that a test is due; a worker in its own process begins one.
        house.db.execute(
            "INSERT INTO stations (user_id, screen, place_id, seen_at, on_duty)"
            " VALUES (%s, 'wall', %s, now(), true)",
            [house.user("nurse"), house.place],
        )
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-c", BEGIN_AND_HANG, dsn, str(house.place),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert worker.stdout is not None
        assert await worker.stdout.readline() == b"begun\n"
        press = (
            "SELECT raise_alarm('d' || d.key, NULL, NULL, d.key, 'sos', 'emergency',"
            " 3::smallint, now(), false, 1, '{}', d.id) FROM devices d"
        )
        house.db.execute(press)
        assert await tests.tick() == 0, "the run goes on, and so does its alarm"
        assert [one["handling"] for one in house.alarms()] == ["open"]
        worker.kill()
        await worker.wait()
        runs = "SELECT failed, finished_at IS NULL AS runs FROM self_tests ORDER BY id"

        run: int = await eventually(tests.tick, 5, "another worker has taken over")
        assert run == 1
        assert house.rows(runs) == [
            {"failed": "interrupted", "runs": False},
            {"failed": "not_acknowledged", "runs": False},
        ]
        silent = house.alarms()[0]
        assert (silent["handling"], silent["outcome"]) == ("closed", "test")
        # What comes late, out of a spool, is cleared as well.
        house.db.execute(press)
        await tests.tick()
        assert {one["handling"] for one in house.alarms() if one["kind"] == "sos"} == {"closed"}
    house.close()


BEGIN_AND_HANG = """
import asyncio, sys
from datetime import timedelta
from anxin.db.pool import Database
from anxin.db.stations import self_test_run

async def main():
    async with Database(sys.argv[1]) as database:
        async with self_test_run(database, int(sys.argv[2]), timedelta(minutes=5)) as run:
            print("begun" if run else "not mine", flush=True)
            await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_worker_that_stood_still_in_its_self_test_tells_nothing_of_it(
    dsn: str, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.selftest.PUBLISH_SECONDS", 1.0)
    house = Home(dsn)
    async with Database(dsn) as database:
        slow = SelfTests(database, f"127.0.0.1:{free_port}")
        running = asyncio.create_task(slow.run(house.place))
        begun = "SELECT count(*) FROM self_tests"
        await eventually(lambda: house.value(begun) == 1, 5, "the run has begun")
        house.db.execute("UPDATE self_tests SET started_at = started_at - interval '61 seconds'")
        await SelfTests(database, f"127.0.0.1:{free_port}").tick()
        assert await running is None
        assert house.value("SELECT failed FROM self_tests") == "interrupted"
        assert house.alarms() == []
    house.close()


async def test_nobody_at_the_door_is_a_fault(
    dsn: str, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.selftest.PUBLISH_SECONDS", 1.0)
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
        made = "INSERT INTO places (kind, name) VALUES ('facility', 'A') RETURNING id"
        place = (connection.execute(made).fetchone() or {})["id"]
        async with Database(dsn) as database:
            assert await SelfTests(database, f"127.0.0.1:{free_port}").run(place) is False
        (run,) = connection.execute("SELECT failed FROM self_tests").fetchall()
        assert run["failed"] == "not_acknowledged"
        (alarm,) = connection.execute("SELECT priority, detail FROM alarms").fetchall()
    assert alarm["priority"] == 3
    assert alarm["detail"] == {"reason": "selftest_failed", "step": "not_acknowledged"}


async def test_a_device_cannot_pass_its_own_alarm_off_as_a_test(platform: Platform) -> None:
    async with Database(platform.dsn) as database:
        tests = SelfTests(database, platform.running.mqtt)
        await tests._secret(platform.place_id)
        # No self-test runs here, so the event of the test device is an emergency like any other.
        await tests._publish(platform.place_id, "e1")
    (alarm,) = platform.ask("SELECT detail FROM alarms WHERE kind = 'sos'")
    assert "selftest" not in alarm["detail"]
    assert len(platform.ask("SELECT * FROM escalations")) == 1

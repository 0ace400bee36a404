"""Loss of monitoring on a real Postgres: five states, three clocks, one alarm for one loss."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from anxin.config import Settings
from anxin.db.pool import Database
from anxin.db.silence import learn_intervals, note_listening
from models.worker import Worker
from tests.factories import Ward
from tests.integration.api_world import running, settle


@pytest.fixture
def ward(dsn: str) -> Iterator[Ward]:
    """Return an empty facility."""
    made = Ward(dsn)
    yield made
    made.close()


@pytest.fixture
async def worker(dsn: str) -> AsyncIterator[Worker]:
    """Return a worker on the test's database."""
    async with Database(dsn, role="anxin_worker") as db:
        yield Worker(db, Settings(database=dsn))


def heard(ward: Ward, device_id: str, seconds: float, *, online: bool | None = None) -> None:
    """Let the last sign of life of a device be so long ago."""
    ward.db.execute(
        "INSERT INTO device_states (device_key, heard_at, online)"
        " SELECT key, now() - %s * interval '1 second', %s FROM devices WHERE id = %s"
        " ON CONFLICT (device_key) DO UPDATE SET heard_at = excluded.heard_at,"
        " online = excluded.online",
        [seconds, online, device_id],
    )


def measured(ward: Ward, device_id: str, seconds: float, presence: str | None = None) -> None:
    """Let the last reading of a device be so long ago."""
    metrics = "{}" if presence is None else f'{{"presence": ["{presence}", 0]}}'
    ward.db.execute(
        "INSERT INTO latest (device_key, ts, received_at, metrics)"
        " SELECT key, now(), now() - %s * interval '1 second', %s FROM devices WHERE id = %s"
        " ON CONFLICT (device_key) DO UPDATE SET received_at = excluded.received_at",
        [seconds, metrics, device_id],
    )


def state(ward: Ward, device_id: str) -> str:
    """Return how a device is being heard."""
    found = ward.value("SELECT state FROM device_monitoring WHERE device_id = %s", device_id)
    assert isinstance(found, str)
    return found


def silent(ward: Ward) -> list[tuple[str, str, list[str]]]:
    """Return subject, condition and devices of the alarms of silence that are not closed."""
    return [
        (alarm["subject"], alarm["condition"], alarm["detail"]["devices"])
        for alarm in ward.alarms()
        if alarm["kind"] == "device_silent" and alarm["handling"] != "closed"
    ]


def test_a_device_is_in_one_of_five_states(ward: Ward) -> None:
    ward.device("mat", resident=ward.resident(), since="2026-01-01")
    ward.device("stock", "wearable", place=ward.place)
    assert state(ward, "stock") == "undeployed"
    measured(ward, "mat", 5, "absent")
    assert state(ward, "mat") == "absent"
    ward.db.execute("UPDATE latest SET metrics = '{\"hr\": [70, 0]}'")
    assert state(ward, "mat") == "present"
    measured(ward, "mat", 200)
    heard(ward, "mat", 10, online=True)
    assert state(ward, "mat") == "sensor-error"
    heard(ward, "mat", 190, online=True)
    assert state(ward, "mat") == "network-error"


@pytest.mark.parametrize(
    ("kind", "online", "usual", "limit"),
    [
        ("bed_sensor", True, None, 180), ("gateway", True, None, 180), ("radar", None, 9999, 180),
        ("wearable", True, None, 900), ("call_button", True, None, 180),
        ("call_button", None, None, 90_000), ("call_button", True, 600, 1800),
        ("cuff", None, None, 90_000), ("smoke", True, 3600, 7200), ("door", True, 60, 1800),
        ("thermometer", None, 80_000, 90_000),
    ],
)  # fmt: skip
def test_each_kind_is_missed_after_its_own_time(
    ward: Ward, kind: str, online: bool | None, usual: float | None, limit: int
) -> None:
    ward.device("it", kind, resident=ward.resident(), since="2026-01-01")
    heard(ward, "it", limit - 20, online=online)
    measured(ward, "it", limit - 20)
    ward.db.execute("UPDATE device_states SET usual_interval_seconds = %s", [usual])
    assert state(ward, "it") == "present"
    heard(ward, "it", limit + 20, online=online)
    measured(ward, "it", limit + 20)
    assert state(ward, "it") == "network-error"


async def test_a_corridor_detector_that_falls_silent_is_an_alarm_of_its_place(
    ward: Ward, worker: Worker
) -> None:
    ward.device("detector", "smoke", place=ward.place)
    assert await worker.watch() == 0
    heard(ward, "detector", 91_000)
    assert await worker.watch() == 1
    assert silent(ward) == [(f"p{ward.place}", "present", ["detector"])]


async def test_a_gateway_that_fails_is_one_alarm_and_a_child_that_stays_silent_another(
    ward: Ward, worker: Worker
) -> None:
    ward.device("gw", "gateway", place=ward.place)
    mats = [f"mat-{number}" for number in range(4)]
    for mat in mats:
        ward.device(mat, resident=ward.resident(care_level=4), since="2026-01-01")
    ward.db.execute(
        "UPDATE devices SET gateway_key = (SELECT key FROM devices WHERE id = 'gw')"
        " WHERE kind = 'bed_sensor'"
    )
    # A broken connection is noticed late: the gateway still counts as heard after its mats.
    heard(ward, "gw", 110, online=True)
    for mat in mats:
        measured(ward, mat, 190)
    assert await worker.watch() == 0
    heard(ward, "gw", 200, online=False)
    for mat in mats:
        measured(ward, mat, 280)
    assert await worker.watch() == 1
    (key,) = (row["key"] for row in ward.rows("SELECT key FROM devices WHERE id = 'gw'"))
    assert silent(ward) == [(f"d{key}", "present", ["gw", *mats])]
    assert ward.alarms()[0]["priority"] == 2
    # It is back, and so are all but one.
    heard(ward, "gw", 0, online=True)
    assert await worker.watch() == 1
    for mat in mats[1:]:
        measured(ward, mat, 0)
    assert await worker.watch() == 0
    ward.db.execute("UPDATE timeline SET at = at - interval '4 minutes'")
    assert await worker.watch() == 1
    assert [one for one in silent(ward) if one[1] == "present"] == [("r1", "present", ["mat-0"])]


async def test_a_network_that_fails_is_one_alarm_of_the_place(ward: Ward, worker: Worker) -> None:
    room = ward._id(f"INSERT INTO places (parent_id, kind, name) VALUES ({ward.place}, 'room', '1')"
                    " {}")  # fmt: skip
    for number in range(10):
        ward.device(f"mat-{number}", resident=ward.resident(place_id=room), since="2026-01-01")
        measured(ward, f"mat-{number}", 185 - number * 10 if number < 7 else 1)
    assert await worker.watch() == 1
    assert silent(ward) == [(f"p{ward.place}", "present", [f"mat-{number}" for number in range(7)])]
    assert ward.alarms()[0]["detail"]["of"] == 10


async def test_an_outage_of_our_own_is_one_alarm_and_no_storm(
    ward: Ward, worker: Worker, dsn: str
) -> None:
    for number in range(4):
        ward.device(f"mat-{number}", resident=ward.resident(), since="2026-01-01")
        measured(ward, f"mat-{number}", 1230)
    ward.db.execute(
        "INSERT INTO listening (began_at, until_at)"
        " VALUES (now() - interval '1 day', now() - interval '20 minutes')"
    )
    assert await worker.watch() == 1
    (alarm,) = ward.alarms()
    assert (alarm["subject"], alarm["kind"], alarm["priority"]) == ("platform", "device_fault", 3)
    assert alarm["place_id"] == ward.place
    assert alarm["detail"]["spells"][0].endswith("/..")
    async with Database(dsn, role="anxin_ingest") as db:
        await note_listening(db, kept=True)
        await note_listening(db, kept=False)
    assert ward.value("SELECT count(*) FROM listening") == 2
    assert await worker.watch() == 1
    (alarm,) = ward.alarms()
    assert not alarm["detail"]["spells"][0].endswith("/..")
    assert alarm["detail"]["kept"] is True
    # Who does not come back within a minute and what was left of its time is missed.
    ward.db.execute(
        "UPDATE listening SET began_at = began_at - interval '4 minutes',"
        " until_at = until_at - interval '4 minutes'"
    )
    ward.db.execute("UPDATE latest SET received_at = received_at - interval '4 minutes'")
    ward.db.execute(
        "UPDATE listening SET until_at = now() WHERE id = (SELECT max(id) FROM listening)"
    )
    measured(ward, "mat-0", 0)
    await worker.watch()
    assert {one[0] for one in silent(ward)} == {"r2", "r3", "r4"}


async def test_a_place_of_no_ingest_at_all_is_watched_by_the_plain_clock(
    ward: Ward, worker: Worker
) -> None:
    ward.device("mat", resident=ward.resident(), since="2026-01-01")
    measured(ward, "mat", 181)
    assert await worker.watch() == 1


async def test_the_interval_of_a_battery_sensor_is_learned_and_kept(ward: Ward, dsn: str) -> None:
    ward.device("cuff", "cuff", resident=ward.resident(), since="2026-01-01")
    ward.device("new", "cuff", resident=ward.resident(), since="2026-01-01")
    insert = (
        "INSERT INTO telemetry (device_key, ts, received_at)"
        " SELECT key, t, t FROM devices, generate_series(1, %s) AS n,"
        " LATERAL (SELECT now() - n * interval '6 hours') AS s (t) WHERE id = %s"
    )
    ward.db.execute(insert.encode(), [20, "cuff"])
    ward.db.execute(insert.encode(), [5, "new"])
    # Measured twice within a minute, now and then: that is not how often it reports.
    ward.db.execute(
        "INSERT INTO telemetry (device_key, ts, received_at)"
        " SELECT device_key, ts + interval '1 minute', ts + interval '1 minute' FROM telemetry"
        " WHERE extract(hour FROM ts)::integer %% 4 = 0".replace("%%", "%").encode()
    )
    async with Database(dsn, role="anxin_worker") as db:
        await learn_intervals(db, slice_=0, slices=1)
        assert await learn_intervals(db, slice_=0, slices=1) == 0
    rows: list[dict[str, Any]] = ward.rows("SELECT usual_interval_seconds AS s FROM device_states")
    assert [round(row["s"]) for row in rows] == [pytest.approx(21_600, abs=61)]


async def test_the_api_shows_how_devices_are_heard_and_takes_their_gateway(dsn: str) -> None:
    async with running(settle(dsn)) as api:
        world = api.world
        world.device("mat", "A", "anna")
        world.device("gw", "A")
        world.device("far", "B")
        world.ask("UPDATE devices SET kind = 'gateway' WHERE id IN ('gw', 'far')")
        supervisor, mat = api["supervisor"], "/devices/mat"
        shown = (await supervisor.get(mat)).json()
        assert (shown["monitoring"], shown["gateway_id"]) == ("network-error", None)
        changed = await supervisor.patch(mat, json={"gateway_id": "gw"})
        assert (changed.status_code, changed.json()["gateway_id"]) == (200, "gw")
        for wrong, status in (("far", 404), ("nowhere", 404), ("mat", 409)):
            refused = await supervisor.patch(mat, json={"gateway_id": wrong})
            assert refused.status_code == status, wrong
        assert (await supervisor.patch(mat, json={"name": "M"})).json()["gateway_id"] == "gw"
        cleared = await supervisor.patch(mat, json={"gateway_id": None})
        assert cleared.json()["gateway_id"] is None
        items = (await supervisor.get("/devices")).json()["items"]
        assert {one["id"]: one["monitoring"] for one in items} == {
            "mat": "network-error", "gw": "undeployed",
        }  # fmt: skip


async def test_the_status_of_a_resident_tells_how_the_resident_is_monitored(dsn: str) -> None:
    async with running(settle(dsn)) as api:
        world = api.world
        path = f"/residents/{world.ids['anna']}/status"

        async def monitoring(user: str = "nurse") -> str:
            word: str = (await api[user].get(path)).json()["monitoring"]
            return word

        assert await monitoring() == "undeployed"
        world.device("mat", "A", "anna")
        assert await monitoring() == "network-error"
        world.ask(
            "INSERT INTO latest (device_key, ts, received_at, metrics)"
            ' SELECT key, now(), now(), \'{"presence": ["absent", 0]}\' FROM devices'
        )
        assert await monitoring() == "absent"
        world.link("family", "anna", "status")
        assert await monitoring("family") == "present"
        world.ask("UPDATE latest SET received_at = now() - interval '4 minutes'")
        world.ask("INSERT INTO device_states (device_key, heard_at) SELECT key, now() FROM devices")
        assert await monitoring() == "sensor-error"

"""The worker on a real Postgres: silence raises alarms, rollups say what the readings say."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from anxin.config import Settings
from anxin.db import upkeep
from anxin.db.pool import Database
from models.worker import Worker
from tests.factories import Ward


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


async def test_a_device_that_falls_silent_raises_one_alarm_and_recovers(
    ward: Ward, worker: Worker
) -> None:
    ward.device("mat", resident=ward.resident(care_level=4), since="2026-01-01")
    ward.db.execute(
        "INSERT INTO latest (device_key, ts, received_at, metrics)"
        " SELECT key, now(), now() - interval '4 minutes', '{}' FROM devices"
    )
    assert await worker.watch() == 1
    assert await worker.watch() == 0
    (alarm,) = ward.alarms()
    assert (alarm["kind"], alarm["class"], alarm["priority"]) == ("device_silent", "technical", 2)
    ward.db.execute("UPDATE latest SET received_at = now()")
    assert await worker.watch() == 1
    assert ward.alarms()[0]["condition"] == "recovered"


async def test_a_device_never_heard_from_is_missed_ten_minutes_after_its_assignment(
    ward: Ward, worker: Worker
) -> None:
    minutes_ago = datetime.now(UTC) - timedelta(minutes=9)
    ward.device("mat", resident=ward.resident(), since=str(minutes_ago))
    assert await worker.watch() == 0
    ward.device("watch", "wearable", resident=ward.resident(),
                since=str(minutes_ago - timedelta(minutes=7)))  # fmt: skip
    assert await worker.watch() == 1
    assert ward.alarms()[0]["detail"]["never_heard"] is True


async def test_a_revoked_or_unassigned_device_is_not_missed(ward: Ward, worker: Worker) -> None:
    ward.device("stock")
    ward.device("old", resident=ward.resident(), since="2026-01-01")
    ward.db.execute("UPDATE devices SET revoked_at = now() WHERE id = 'old'")
    assert await worker.watch() == 0


async def test_rollups_say_what_the_readings_say(ward: Ward, worker: Worker) -> None:
    ward.device("mat", resident=ward.resident())
    ward.db.execute(
        "INSERT INTO telemetry (device_key, ts, received_at, hr, spo2)"
        " SELECT key, now() - n * interval '7 seconds', now(), 60 + n % 40,"
        "        CASE WHEN n % 3 = 0 THEN 95 + n % 4 END"
        " FROM devices, generate_series(1, 2000) AS n"
    )
    mark = (
        "INSERT INTO rollup_due (device_key, minute, marked_at)"
        " SELECT DISTINCT device_key, date_trunc('minute', ts), now() - interval '3 minutes'"
        " FROM telemetry"
    )
    ward.db.execute(mark)
    assert await worker.roll_up() > 200
    assert ward.value("SELECT count(*) FROM rollup_due") == 0
    for view, unit in (("vitals_minute", "minute"), ("vitals_hour", "hour")):
        differences = ward.rows(
            "WITH expected AS ("
            "  SELECT device_key, date_trunc(%s, ts) AS bucket, metric, count(*)::integer AS n,"
            "         avg(value) AS mean, min(value)::real AS low, max(value)::real AS high"
            "  FROM readings GROUP BY 1, 2, 3)"
            f" SELECT * FROM expected e FULL JOIN {view} v USING (device_key, bucket, metric)"
            " WHERE (e.n, e.low, e.high) IS DISTINCT FROM (v.n, v.low, v.high)"
            "    OR abs(e.mean - v.mean) > 1e-6",
            unit,
        )
        assert differences == []
    # A reading that comes late is in the rollup after its minute was marked again.
    ward.db.execute("UPDATE telemetry SET hr = 200 WHERE ts = (SELECT min(ts) FROM telemetry)")
    ward.db.execute(mark)
    await worker.roll_up()
    assert ward.value("SELECT max(high) FROM vitals_hour WHERE metric = 'hr'") == 200


async def test_a_fresh_mark_waits_until_it_has_settled(ward: Ward, worker: Worker) -> None:
    ward.device("mat")
    ward.db.execute("INSERT INTO rollup_due (device_key, minute) SELECT key, now() FROM devices")
    assert await worker.roll_up() == 0
    assert ward.value("SELECT count(*) FROM rollup_due") == 1


async def test_partitions_are_made_ahead_and_take_over_what_lay_in_their_week(
    ward: Ward, worker: Worker
) -> None:
    ward.device("mat")
    ward.db.execute(
        "INSERT INTO telemetry (device_key, ts, received_at, hr)"
        " SELECT key, now() + n * interval '7 days', now(), n FROM devices,"
        "        generate_series(2, 5) AS n"
    )
    assert ward.value("SELECT count(*) FROM telemetry_other") == 3
    ward.db.execute("SELECT add_partition(now() + interval '21 days')")
    assert ward.value("SELECT count(*) FROM telemetry_other") == 2
    assert ward.value("SELECT count(*) FROM telemetry") == 4
    await worker.upkeep()
    assert ward.value("SELECT count(*) FROM telemetry") == 4


async def test_retention_drops_old_weeks_and_keeps_recordings_that_came_lately(
    ward: Ward, worker: Worker, dsn: str
) -> None:
    ward.device("mat")
    ward.db.execute("SELECT add_partition('2020-01-01')")
    ward.db.execute(
        "INSERT INTO telemetry (device_key, ts, received_at)"
        " SELECT key, t::timestamptz, r::timestamptz FROM devices, (VALUES"
        "  ('2020-01-01', '2020-01-01'), ('2019-05-01', '2019-05-01'), ('2019-06-01', now()::text))"
        " AS v (t, r)"
    )
    async with Database(dsn, role="anxin_worker") as db:
        assert await upkeep.keep_partitions(db, retention_days=730) == 1
    assert ward.value("SELECT count(*) FROM telemetry") == 1
    await worker.upkeep()

"""The worker deletes what is older than its period, in its own role, and nothing younger."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from anxin.config import Settings
from anxin.db import upkeep
from anxin.db.pool import Database
from anxin.errors import SettingError
from models.worker import Worker
from tests.factories import Ward


@pytest.fixture
def ward(dsn: str) -> Iterator[Ward]:
    made = Ward(dsn)
    yield made
    made.close()


def plant(ward: Ward, days: int) -> None:
    """Store one row of everything, so many days ago."""
    (row,) = ward.db.execute("SELECT key, now() - make_interval(days => %s) AS at"
                             " FROM devices LIMIT 1", [days]).fetchall()  # fmt: skip
    key, at = (row["key"], row["at"]) if isinstance(row, dict) else row
    for query in (
        (
            "INSERT INTO events (device_key, id, type, ts, received_at) VALUES"
            " (%(key)s, %(name)s, 'sos', %(at)s, %(at)s)"
        ),
        "INSERT INTO commands (device_key, name, created_at) VALUES (%(key)s, 'blink', %(at)s)",
        (
            "INSERT INTO quarantine (received_at, device_id, kind, reason, size, payload)"
            " VALUES (%(at)s, 'x', 'event', 'x', 1, '')"
        ),
        "INSERT INTO minute_rollup (device_key, bucket) VALUES (%(key)s, %(at)s)",
        "INSERT INTO hour_rollup (device_key, bucket) VALUES (%(key)s, %(at)s)",
        *(
            "WITH alarm AS (INSERT INTO alarms (subject, kind, class, priority, handling, outcome,"
            " raised_at, last_at, event_at, closed_at, detail) VALUES (%(name)s, 'sos',"
            f" 'emergency', 3, 'closed', 'real', %(at)s, %(at)s, %(at)s, %(at)s, '{detail}')"
            " RETURNING id), line AS ("
            " INSERT INTO timeline (alarm_id, change, actor, channel, alarm)"
            " SELECT id, 'closed', 'x', 'api', '{}' FROM alarm)"
            " INSERT INTO deliveries (key, alarm_id, audience, channel, due_at, created_at)"
            f" SELECT %(name)s || '{len(detail)}', id, 'first', 'station', %(at)s, %(at)s"
            " FROM alarm"
            for detail in (json.dumps({}), json.dumps({"selftest": True}))
        ),
        (
            "INSERT INTO alarms (subject, kind, class, priority, raised_at, last_at, event_at)"
            " VALUES (%(name)s || 'open', 'sos', 'emergency', 3, %(at)s, %(at)s, %(at)s)"
        ),
    ):
        ward.db.execute(query.encode(), {"key": key, "at": at, "name": f"d{days}"})


def count(ward: Ward) -> dict[str, int]:
    tables = ("events", "commands", "quarantine", "minute_rollup", "hour_rollup", "alarms",
              "timeline", "deliveries")  # fmt: skip
    found: dict[str, int] = {}
    for table in tables:
        row: Any = ward.db.execute(f"SELECT count(*)::int AS n FROM {table}".encode()).fetchone()
        found[table] = row["n"] if isinstance(row, dict) else row[0]
    return found


async def test_each_kind_goes_when_its_own_time_is_over(dsn: str, ward: Ward) -> None:
    ward.device("mat")
    for days in (0, 29, 31, 367, 731, 1097, 1827):
        plant(ward, days)
    async with Database(dsn, role="anxin_worker", size=1) as database:
        worker = Worker(database, Settings(database=dsn))
        await worker.upkeep()
        after = count(ward)
        await worker.upkeep()
    assert count(ward) == after, "what is not too old stays"
    # Closed alarms of 5 ages, self-tests of 2; the 7 open ones stay, however old.
    assert after == {
        "events": 5, "commands": 5, "quarantine": 2, "minute_rollup": 4, "hour_rollup": 6,
        "alarms": 7 + 5 + 2, "timeline": 5 + 2, "deliveries": 3 + 2,
    }  # fmt: skip


async def test_what_is_too_old_goes_in_slices(dsn: str, ward: Ward) -> None:
    ward.device("mat")
    ward.db.execute(
        "INSERT INTO events (device_key, id, type, ts, received_at)"
        " SELECT key, n::text, 'sos', now() - interval '2 years', now() - interval '2 years'"
        " FROM devices, generate_series(1, 25) AS n"
    )
    async with Database(dsn, role="anxin_worker", size=1) as database:
        assert await upkeep.forget(database, "forget_events", days=365, most=10) == 25


async def test_a_period_of_nothing_stops_the_upkeep_and_deletes_nothing(
    dsn: str, ward: Ward
) -> None:
    ward.device("mat")
    plant(ward, 0)
    before = count(ward)
    async with Database(dsn, role="anxin_worker", size=1) as database:
        with pytest.raises(SettingError):
            await Worker(database, Settings(database=dsn, alarms_days=0)).upkeep()
    assert count(ward) == before


def test_nobody_but_the_worker_may_forget(dsn: str) -> None:
    for role in ("anxin_api", "anxin_ingest", "anxin_door"):
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"SET ROLE {role}".encode())
            for query in ("DELETE FROM alarms", "DELETE FROM events", "SELECT erase_slice(1)",
                          "SELECT forget_rollups_before(now(), now())"):  # fmt: skip
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(query.encode())

"""Every statement of the TimescaleDB form, run by TimescaleDB itself.

The server is the extension compiled to WebAssembly: real code, one session, no background workers
and no COPY. Policies are created and then run by hand; COPY into a hypertable is not shown here.
What the plain form answers to the same readings is the measure.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from anxin.db import upkeep, vitals
from anxin.db.migrate import migrate, pending, scripts
from anxin.db.pool import Database, blocks
from tests import timescale

Connection = psycopg.Connection[dict[str, Any]]

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
LONG_AGO = datetime(2019, 5, 17, 3, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
BOTH_FORMS = (
    "telemetry",
    "minute_rollup",
    "hour_rollup",
    "vitals_minute",
    "vitals_hour",
    "readings",
)
ROLLUPS = blocks("rollups")
PLANNED = re.compile(r"(\s|--[^\n]*\n)*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", re.IGNORECASE)
ONLY_PLAIN = {("upkeep", "roll_up")}
"""Queries that the worker leaves out on TimescaleDB."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Return the DSN of a TimescaleDB that the product's own migrations were applied to."""
    with timescale.server() as dsn:
        assert migrate(dsn) == list(scripts(timescale=True))
        assert pending(dsn) == []
        yield dsn


@pytest.fixture
def hyper(server: str) -> Iterator[Connection]:
    """Return the one session of TimescaleDB, without readings or marks of an earlier test."""
    with psycopg.connect(server, autocommit=True, row_factory=dict_row) as connection:
        connection.execute("TRUNCATE telemetry, rollup_due")
        connection.execute(
            "SELECT drop_chunks(c, newer_than => '-infinity'::timestamptz)"
            " FROM unnest(ARRAY['minute_rollup', 'hour_rollup']::regclass[]) c"
        )
        yield connection


@pytest.fixture
def plain(dsn: str) -> Iterator[Connection]:
    """Return a session of plain PostgreSQL with the same schema version."""
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def test_both_forms_give_readers_the_same_columns(hyper: Connection, plain: Connection) -> None:
    query = (
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name = ANY(%s) ORDER BY 1, ordinal_position"
    )
    ours, theirs = (one.execute(query, [list(BOTH_FORMS)]).fetchall() for one in (hyper, plain))
    assert {row["table_name"] for row in ours} == set(BOTH_FORMS)
    assert ours == theirs


def test_both_forms_have_the_same_functions_but_for_the_rollup(
    hyper: Connection, plain: Connection
) -> None:
    query = (
        "SELECT proname || '(' || pg_get_function_identity_arguments(p.oid) || ')' AS one"
        " FROM pg_proc p WHERE pronamespace = 'public'::regnamespace AND NOT EXISTS (SELECT FROM"
        " pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')"
    )
    ours, theirs = ({row["one"] for row in one.execute(query)} for one in (hyper, plain))
    assert ours - theirs == {"drop_old_chunks(IN job_id integer, IN config jsonb)"}
    assert theirs - ours == {"roll_up(settled timestamp with time zone, most integer)"}


def test_the_worker_can_tell_the_two_forms_apart(hyper: Connection, plain: Connection) -> None:
    answers = [one.execute(ROLLUPS["timescale_present"]).fetchone() for one in (hyper, plain)]
    assert answers == [{"present": True}, {"present": False}]


def test_every_query_of_the_product_is_planned_as_on_plain_postgres(
    hyper: Connection, plain: Connection
) -> None:
    for connection in (hyper, plain):
        _store(connection, NOON, 3)
    planned = 0
    for noun in _nouns():
        for name, block in blocks(noun).items():
            query = _numbered(block.decode())
            one_form_only = name.startswith("timescale_") or (noun, name) in ONLY_PLAIN
            if one_form_only or not PLANNED.match(query):
                continue
            for connection in (hyper, plain):
                connection.execute(blocks("intake")["make_incoming"])
            explain = f"EXPLAIN (GENERIC_PLAN) {query}".encode()
            faults = [_fault(connection, explain) for connection in (hyper, plain)]
            assert faults[0] == faults[1], f"{noun}.sql, {name}"
            planned += faults == [None, None]
    assert planned > 10


def test_a_reading_sent_again_fills_gaps_and_changes_nothing_else(hyper: Connection) -> None:
    _store(hyper, NOON, 1)
    intake = blocks("intake")
    with hyper.transaction():
        hyper.execute(intake["make_incoming"])
        hyper.execute(
            "INSERT INTO incoming (ts, received_at, device_key, hr, rr) VALUES"
            " (%(ts)s, now(), 1, 99, 14), (%(ts)s, now(), 2, 70, NULL)",
            {"ts": NOON},
        )
        merged = hyper.execute(intake["merge_incoming"]).fetchall()
    assert [row["device_key"] for row in merged] == [1, 2]
    stored = hyper.execute("SELECT device_key, hr, rr FROM telemetry ORDER BY 1").fetchall()
    assert stored == [
        {"device_key": 1, "hr": 60, "rr": 14},
        {"device_key": 2, "hr": 70, "rr": None},
    ]


def test_rollups_of_both_forms_agree_also_after_late_readings(
    hyper: Connection, plain: Connection
) -> None:
    for connection in (hyper, plain):
        _store(connection, NOON, 500)
        _store(connection, LONG_AGO, 7)
    _roll_up_hyper(hyper)
    _roll_up_plain(plain)
    _assert_same_rollups(hyper, plain)
    for connection in (hyper, plain):
        _store(connection, NOON + timedelta(minutes=5, milliseconds=1), 3)
        _store(connection, LONG_AGO + timedelta(seconds=1), 2)
    _roll_up_hyper(hyper)
    _roll_up_plain(plain)
    _assert_same_rollups(hyper, plain)


def test_an_hour_that_goes_on_is_rolled_up_again(hyper: Connection, plain: Connection) -> None:
    for minutes in (0, 20, 59, 61):
        for connection in (hyper, plain):
            _store(connection, NOON + timedelta(minutes=minutes), 2)
        _roll_up_hyper(hyper)
        _roll_up_plain(plain)
        _assert_same_rollups(hyper, plain)


async def test_readers_get_the_same_series_from_both_forms_while_minutes_are_due(
    server: str, dsn: str
) -> None:
    """One connection at a time: each step opens its own."""
    answers: dict[str, list[object]] = {}
    for form, where, roll_up in (("hyper", server, _roll_up_hyper), ("plain", dsn, _roll_up_plain)):
        with psycopg.connect(where, autocommit=True, row_factory=dict_row) as connection:
            connection.execute("TRUNCATE telemetry, rollup_due")
            resident = _somebody(connection)
            _store(connection, NOON, 900)
            roll_up(connection)
            _store(connection, NOON + timedelta(minutes=30, milliseconds=1), 5)
        async with Database(where, size=1) as database:
            assert await upkeep.is_timescale(database) is (form == "hyper")
            answers[form] = [
                await vitals.series(
                    database, resident, start=NOON + timedelta(seconds=30), end=NOON + 2 * HOUR,
                    step=timedelta(seconds=seconds), most=10_000,
                )
                for seconds in (1, 60, 300, 3600)
            ]  # fmt: skip
    assert all(answers["hyper"])
    assert answers["hyper"] == answers["plain"]


async def test_the_worker_rolls_up_with_its_own_functions(server: str) -> None:
    with psycopg.connect(server, autocommit=True, row_factory=dict_row) as connection:
        connection.execute("TRUNCATE telemetry, rollup_due")
        _store(connection, NOON, 100)
        marks = _count(connection, "rollup_due")
    settled = await upkeep.roll_up_timescale(server, datetime.now(UTC), most=1_000)
    assert settled == marks
    with psycopg.connect(server, autocommit=True, row_factory=dict_row) as connection:
        assert _count(connection, "rollup_due") == 0
        assert _count(connection, "vitals_minute") > 0


def test_a_mark_made_during_the_refresh_is_kept(hyper: Connection) -> None:
    _store(hyper, NOON, 1)
    [hour] = hyper.execute(ROLLUPS["timescale_due"], _everything()).fetchall()
    _store(hyper, NOON + timedelta(seconds=1), 1)
    hyper.execute(ROLLUPS["timescale_settled"], hour)
    assert _count(hyper, "rollup_due") == 1


def test_the_due_windows_do_not_span_the_years_between(hyper: Connection) -> None:
    _store(hyper, NOON, 1)
    _store(hyper, LONG_AGO, 1)
    hours = hyper.execute(ROLLUPS["timescale_due"], _everything()).fetchall()
    assert [(row["hour"], row["hour_end"]) for row in hours] == [
        (LONG_AGO, LONG_AGO + HOUR),
        (NOON, NOON + HOUR),
    ]
    assert all(row["minute_end"] - row["first_minute"] == timedelta(minutes=1) for row in hours)


def test_one_worker_at_a_time_refreshes(hyper: Connection) -> None:
    assert hyper.execute(ROLLUPS["timescale_lock"]).fetchone() == {"locked": True}
    assert hyper.execute(ROLLUPS["timescale_unlock"]).fetchone() == {"unlocked": True}


def test_the_columnstore_policy_compresses_by_age_of_the_chunk_and_readings_still_merge(
    hyper: Connection,
) -> None:
    _store(hyper, LONG_AGO, 50)
    compression = _job(hyper, "policy_compression")
    hyper.execute("CALL run_job(%s)", [compression])
    assert _compressed(hyper) == [False], "a recording is not compressed while it comes in"
    _age_chunks(hyper, days=9)
    hyper.execute("CALL run_job(%s)", [compression])
    assert _compressed(hyper) == [True]
    again = (
        "INSERT INTO telemetry AS t (ts, received_at, device_key, hr, rr)"
        " VALUES (%s, now(), 1, 99, 14) ON CONFLICT (device_key, ts)"
        " DO UPDATE SET hr = coalesce(t.hr, excluded.hr), rr = coalesce(t.rr, excluded.rr)"
    )
    hyper.execute(again, [LONG_AGO])
    stored = hyper.execute("SELECT hr, rr FROM telemetry WHERE ts = %s", [LONG_AGO]).fetchall()
    assert stored == [{"hr": 60, "rr": 14}]
    assert _count(hyper, "telemetry") == 50


def test_the_retention_policy_follows_the_setting_and_keeps_a_new_recording(
    hyper: Connection,
) -> None:
    _store(hyper, LONG_AGO, 5)
    _set_retention(hyper, days=30)
    retention = _job(hyper, "drop_old_chunks")
    hyper.execute("CALL run_job(%s)", [retention])
    assert _count(hyper, "telemetry") == 5, "what came today is kept, however old its times"
    _age_chunks(hyper, days=31)
    hyper.execute("CALL run_job(%s)", [retention])
    assert _count(hyper, "telemetry") == 0
    _set_retention(hyper, days=730)
    config = hyper.execute(
        "SELECT config FROM timescaledb_information.jobs WHERE job_id = %s", [retention]
    ).fetchone()
    assert config == {"config": {"keep": "730 days"}}


def test_partitions_need_nobody_to_make_them(hyper: Connection) -> None:
    assert hyper.execute("SELECT add_partition(now()) AS made").fetchone() == {"made": None}


def test_an_emergency_raised_twice_is_one_episode_with_a_place_in_the_stream(
    hyper: Connection,
) -> None:
    call = (
        "SELECT raise_alarm('d1', NULL, NULL, NULL, 'sos', 'emergency', 3::smallint, now(), false,"
        " 1, '{}', 'test') AS change"
    )
    changes = [hyper.execute(call).fetchone() for _ in range(2)]
    assert changes == [{"change": "raised"}, {"change": "repeated"}]
    assert _count(hyper, "alarms") == 1
    assert hyper.execute("SELECT advance_stream() AS cursor").fetchone() == {"cursor": 2}


def test_an_erased_person_leaves_neither_compressed_readings_nor_rollups(
    hyper: Connection,
) -> None:
    row = hyper.execute(
        "WITH place AS (INSERT INTO places (kind, name) VALUES ('home', 'her home') RETURNING id)"
        " INSERT INTO residents (name, place_id) SELECT 'she', id FROM place RETURNING id"
    ).fetchone()
    assert row is not None
    made = hyper.execute(
        "INSERT INTO devices (key, id, kind, salt, secret_hash) OVERRIDING SYSTEM VALUE"
        " VALUES (1000, 'hers', 'bed_sensor', '', '') RETURNING key"
    ).fetchone()
    assert made is not None
    key, until = made["key"], LONG_AGO + timedelta(minutes=30, seconds=30)
    hyper.execute(
        "INSERT INTO assignments (device_key, resident_id, during)"
        " VALUES (%s, %s, tstzrange(%s, %s))", [key, row["id"], LONG_AGO, until],
    )  # fmt: skip
    _store(hyper, LONG_AGO, 400)
    for table in ("telemetry", "rollup_due"):
        hyper.execute(f"UPDATE {table} SET device_key = %s".encode(), [key])
    _store(hyper, LONG_AGO, 5)
    _roll_up_hyper(hyper)
    _age_chunks(hyper, days=9)
    hyper.execute("CALL run_job(%s)", [_job(hyper, "policy_compression")])
    assert _compressed(hyper) == [True]
    hyper.execute("INSERT INTO erasures (resident_id, approved_at) VALUES (%s, now())", [row["id"]])
    hyper.execute("SET ROLE anxin_worker")
    hyper.execute("SELECT begin_erasure(id), erase_person(id) FROM erasures")
    while any(row["n"] for row in hyper.execute("SELECT erase_slice(id) AS n FROM erasures")):
        pass
    hyper.execute("RESET ROLE")
    left = "SELECT count(*) AS n, min(ts) AS first FROM telemetry WHERE device_key = %s"
    after = hyper.execute(left, [key]).fetchone()
    assert after is not None
    assert after["first"] >= until
    _roll_up_hyper(hyper)
    counted = (
        "SELECT sum(n)::int AS n, min(bucket) AS first FROM {} WHERE device_key = %s"
        " AND metric = 'hr'"
    )
    for view in ("vitals_minute", "vitals_hour"):
        found = hyper.execute(counted.format(view).encode(), [key]).fetchone()
        assert found is not None
        assert found["n"] == after["n"], view
    assert _count(hyper, "telemetry") == after["n"] + 5, "others keep what is theirs"


def test_old_rollups_go_by_their_own_time(hyper: Connection) -> None:
    _store(hyper, LONG_AGO, 5)
    _store(hyper, NOON, 5)
    _roll_up_hyper(hyper)
    hyper.execute("SET ROLE anxin_worker")
    hyper.execute("SELECT forget_rollups_before(%s, %s)", [NOON - HOUR, LONG_AGO - HOUR])
    hyper.execute("RESET ROLE")
    assert _count(hyper, "minute_rollup") == 1
    assert _count(hyper, "hour_rollup") == 2


def _somebody(connection: Connection) -> int:
    """Return a resident who has device 1 since long ago."""
    row = connection.execute(
        "WITH place AS (INSERT INTO places (kind, name) VALUES ('home', 'a home') RETURNING id),"
        " device AS (INSERT INTO devices (id, kind, salt, secret_hash)"
        " SELECT 'bed-1', 'bed_sensor', '', '' RETURNING key),"
        " resident AS (INSERT INTO residents (name, place_id) SELECT 'a person', id FROM place"
        " RETURNING id) INSERT INTO assignments (device_key, resident_id, during)"
        " SELECT key, resident.id, tstzrange('2000-01-01', NULL) FROM device, resident"
        " RETURNING resident_id, device_key"
    ).fetchone()
    assert row is not None
    assert row["device_key"] == 1
    resident: int = row["resident_id"]
    return resident


def _store(connection: Connection, start: datetime, rows: int) -> None:
    """Store readings of device 1, 7 seconds apart, and mark their minutes as ingest does."""
    connection.execute(
        "INSERT INTO telemetry (ts, received_at, device_key, hr, temp, steps)"
        " SELECT %(start)s + n * interval '7 s', now(), 1, 60 + n %% 11,"
        " CASE WHEN n %% 3 = 0 THEN 36.6 END, n FROM generate_series(0, %(rows)s - 1) AS n",
        {"start": start, "rows": rows},
    )
    connection.execute(
        "INSERT INTO rollup_due (device_key, minute, marked_at)"
        " SELECT DISTINCT 1, date_trunc('minute', %(start)s + n * interval '7 s'), %(start)s"
        " FROM generate_series(0, %(rows)s - 1) AS n",
        {"start": start, "rows": rows},
    )


def _roll_up_hyper(connection: Connection) -> None:
    for hour in connection.execute(ROLLUPS["timescale_due"], _everything()).fetchall():
        connection.execute(ROLLUPS["timescale_refresh_minutes"], hour)
        connection.execute(ROLLUPS["timescale_refresh_hour"], hour)
        connection.execute(ROLLUPS["timescale_settled"], hour)
    assert _count(connection, "rollup_due") == 0


def _roll_up_plain(connection: Connection) -> None:
    connection.execute("SELECT roll_up(now(), 100000)")
    assert _count(connection, "rollup_due") == 0


def _assert_same_rollups(hyper: Connection, plain: Connection) -> None:
    for view in ("vitals_minute", "vitals_hour"):
        query = sql.SQL("SELECT * FROM {} ORDER BY device_key, bucket, metric").format(
            sql.Identifier(view)
        )
        ours, theirs = (one.execute(query).fetchall() for one in (hyper, plain))
        assert ours
        assert [{**row, "mean": pytest.approx(row["mean"])} for row in ours] == theirs, view


def _set_retention(connection: Connection, *, days: int) -> None:
    dropped = connection.execute(
        "SELECT drop_partitions(now() - make_interval(days => %s)) AS dropped", [days]
    ).fetchone()
    assert dropped == {"dropped": 0}


def _job(connection: Connection, procedure: str) -> int:
    query = "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = %s"
    [job] = connection.execute(query, [procedure]).fetchall()
    number: int = job["job_id"]
    return number


def _age_chunks(connection: Connection, *, days: int) -> None:
    """Let every chunk look as if it had been made `days` ago; no clock can be turned here."""
    connection.execute(
        "UPDATE _timescaledb_catalog.chunk SET creation_time = now() - make_interval(days => %s)",
        [days],
    )


def _compressed(connection: Connection) -> list[bool]:
    query = (
        "SELECT is_compressed FROM timescaledb_information.chunks"
        " WHERE hypertable_name = 'telemetry'"
    )
    return [row["is_compressed"] for row in connection.execute(query)]


def _count(connection: Connection, table: str) -> int:
    query = sql.SQL("SELECT count(*) AS n FROM {}").format(sql.Identifier(table))
    row = connection.execute(query).fetchone()
    assert row is not None
    number: int = row["n"]
    return number


def _everything() -> dict[str, object]:
    return {"settled": datetime.now(UTC), "most": 100_000}


def _nouns() -> list[str]:
    files = resources.files("anxin.db").iterdir()
    return sorted(file.name.removesuffix(".sql") for file in files if file.name.endswith(".sql"))


def _numbered(query: str) -> str:
    """Write `%(name)s` as `$1`, `$2`, as the server sees it."""
    names: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        return f"${names.setdefault(match[1], len(names) + 1)}"

    return re.sub(r"%\((\w+)\)s", number, query).replace("%%", "%")


def _fault(connection: Connection, statement: bytes) -> str | None:
    try:
        with connection.transaction():
            connection.execute(statement)
    except psycopg.Error as error:
        return f"{error.sqlstate} {error.diag.message_primary}"
    return None

"""What the comparison reads back from a real database, before and after somebody harms it."""

from anxin.db.pool import connect
from bench.population import LONG_AGO, enrol
from chaos.ledger import Book, read, values
from chaos.stored import stored_rows
from chaos.verdict import judge

BOOK = [
    "reading chaos-1 1700000000000\n",
    "reading-ok chaos-1 1700000000000\n",
    "reading chaos-1 1700000000001\n",
    "reading-ok chaos-1 1700000000001\n",
    "event chaosbutton-1 sos-0\n",
    "event-ok chaosbutton-1 sos-0\n",
]
_READING = b"""
    INSERT INTO telemetry (device_key, ts, received_at, hr, rr, spo2, temp, sbp, dbp, movement)
    SELECT key, to_timestamp(%(ts_ms)s / 1000.0), now(), %(hr)s, %(rr)s, %(spo2)s, %(temp)s,
           %(sbp)s, %(dbp)s, %(movement)s
    FROM devices WHERE id = 'chaos-1'
"""
_EMERGENCY = b"""
    WITH button AS (
        SELECT d.key, a.resident_id FROM devices d JOIN assignments a ON a.device_key = d.key
        WHERE d.id = 'chaosbutton-1'
    ), kept AS (
        INSERT INTO events (device_key, id, type, ts, received_at)
        SELECT key, 'sos-0', 'sos', now(), now() FROM button
    )
    SELECT raise_alarm('r' || resident_id, resident_id, NULL, key, 'sos', 'emergency', 3::smallint,
                       now(), false, 1, '{}', 'test')
    FROM button
"""


async def fill(dsn: str) -> None:
    """Store what BOOK tells of, as ingest would."""
    await enrol(dsn, "chaos", 2)
    await enrol(dsn, "chaosbutton", 2, kind="call_button")
    async with await connect(dsn) as connection:
        for ts_ms in (1_700_000_000_000, 1_700_000_000_001):
            await connection.execute(_READING, {"ts_ms": ts_ms, **values("chaos-1", ts_ms)})
        await connection.execute(_EMERGENCY)


async def faulty_claims(dsn: str, book: Book) -> list[str]:
    return [line.claim for line in judge(book, await stored_rows(dsn, "chaos")) if line.faults]


async def test_a_whole_database_agrees_with_the_book(dsn: str) -> None:
    await fill(dsn)
    assert await faulty_claims(dsn, read(BOOK)) == []


async def test_a_row_that_goes_missing_is_seen(dsn: str) -> None:
    await fill(dsn)
    async with await connect(dsn) as connection:
        await connection.execute(
            b"DELETE FROM telemetry WHERE ts = to_timestamp(1700000000001 / 1000.0)"
        )
    assert await faulty_claims(dsn, read(BOOK)) == ["an acknowledged reading is stored"]


async def test_a_changed_value_is_seen(dsn: str) -> None:
    await fill(dsn)
    async with await connect(dsn) as connection:
        await connection.execute(b"UPDATE telemetry SET hr = hr + 1")
    assert await faulty_claims(dsn, read(BOOK)) == ["values are those that were sent"]


async def test_an_alarm_that_goes_missing_is_seen(dsn: str) -> None:
    await fill(dsn)
    async with await connect(dsn) as connection:
        await connection.execute(b"DELETE FROM alarms")
    assert await faulty_claims(dsn, read(BOOK)) == ["who pressed for help has one alarm"]


async def test_a_second_episode_of_one_resident_is_seen(dsn: str) -> None:
    await fill(dsn)
    async with await connect(dsn) as connection:
        await connection.execute(
            b"UPDATE alarms SET handling = 'closed', outcome = 'real', closed_at = now()"
        )
        await connection.execute(_EMERGENCY.replace(b"'sos-0'", b"'sos-1'"))
    again = [*BOOK, "event chaosbutton-1 sos-1\n"]
    assert await faulty_claims(dsn, read(again)) == ["who pressed for help has one alarm"]


async def test_population_is_assigned_from_long_ago_and_one_device_to_a_resident(dsn: str) -> None:
    devices = await enrol(dsn, "crowd", 50)
    assert len({device.resident_id for device in devices}) == 50
    async with await connect(dsn) as connection:
        rows = await (
            await connection.execute(
                b"SELECT d.id, a.resident_id, lower(a.during) AS since"
                b" FROM assignments a JOIN devices d ON d.key = a.device_key"
            )
        ).fetchall()
    assert {row["id"]: row["resident_id"] for row in rows} == {
        device.id: device.resident_id for device in devices
    }
    assert {row["since"] for row in rows} == {LONG_AGO}

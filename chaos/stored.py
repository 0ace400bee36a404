"""Reads back what the platform stored, row by row, past all of its own code for reading."""

from anxin.db.pool import connect
from chaos.ledger import Book
from chaos.telling import Alarm, Change, Delivery, Record
from chaos.verdict import Stored

_DEVICES = b"SELECT key, id FROM devices WHERE id LIKE %(prefix)s || '%%'"
_READINGS = b"""
    SELECT (extract(epoch FROM ts) * 1000000)::bigint AS ts_us,
           hr, rr, spo2, temp, sbp, dbp, movement
    FROM telemetry WHERE device_key = %(key)s
"""
# Flags 2 and 4 are those of a time stamp that the platform took for wrong.
_EVENTS = b"SELECT device_key, id, flags & 6 <> 0 AS misdated FROM events"
_ALARMS = b"""
    SELECT s.device_key, a.count
    FROM alarms a JOIN assignments s USING (resident_id) WHERE a.kind = 'sos'
"""
_COUNTS = b"""
    SELECT (SELECT count(*) FROM telemetry) AS readings, (SELECT count(*) FROM events) AS events
"""
_TOLD_ALARMS = b"""
    SELECT a.id::text, a.kind, coalesce(p.path, '') AS path, a.resident_id, a.raised_at,
           a.handling, u.id IS NOT NULL AS owned,
           coalesce(e.due_at, e.lease_until) IS NOT NULL AS timed
    FROM alarms a
    LEFT JOIN places p ON p.id = a.place_id
    LEFT JOIN users u ON u.id = a.owner_id AND u.disabled_at IS NULL
    LEFT JOIN escalations e ON e.alarm_id = a.id
"""
_CHANGES = b"SELECT cursor, alarm_id::text, change, actor, at FROM timeline ORDER BY id"
_DELIVERIES = b"""
    SELECT d.key, d.alarm_id::text, d.round, d.step, d.audience, coalesce(u.username, '') AS name,
           d.channel, d.state, d.created_at
    FROM deliveries d LEFT JOIN users u ON u.id = d.user_id
    WHERE d.alarm_id IS NOT NULL ORDER BY d.id
"""
_QUARANTINED = b"SELECT count(*) AS count FROM quarantine"


async def stored_rows(dsn: str, prefix: str) -> Stored:
    """Return every row of the devices whose id begins with `prefix`."""
    stored = Stored()
    async with await connect(dsn, application="anxin chaos") as connection:
        rows = await (await connection.execute(_DEVICES, {"prefix": prefix})).fetchall()
        names: dict[int, str] = {row["key"]: row["id"] for row in rows}
        for key, name in names.items():
            for row in await (await connection.execute(_READINGS, {"key": key})).fetchall():
                stored.add_reading(name, row["ts_us"], row)
        for row in await (await connection.execute(_EVENTS)).fetchall():
            stored.events[names[row["device_key"]], row["id"]] += 1
            if row["misdated"]:
                stored.misdated.add(names[row["device_key"]])
        for row in await (await connection.execute(_ALARMS)).fetchall():
            stored.alarms.append((names[row["device_key"]], row["count"]))
        for row in await (await connection.execute(_QUARANTINED)).fetchall():
            stored.quarantined = row["count"]
    return stored


async def arrived(dsn: str, book: Book) -> bool:
    """Tell whether as much is stored as was acknowledged; a spool may still hold some."""
    async with await connect(dsn, application="anxin chaos") as connection:
        row = await (await connection.execute(_COUNTS)).fetchone()
    assert row is not None  # noqa: S101 - counts are one row
    return bool(
        row["readings"] >= len(book.readings_acknowledged)
        and row["events"] >= len(book.events_acknowledged)
    )


async def told_record(dsn: str) -> Record:
    """Return every alarm, every line of its timeline and every notice that was wanted."""
    async with await connect(dsn, application="anxin chaos") as connection:
        alarms = await (await connection.execute(_TOLD_ALARMS)).fetchall()
        changes = await (await connection.execute(_CHANGES)).fetchall()
        deliveries = await (await connection.execute(_DELIVERIES)).fetchall()
    return Record(
        {row["id"]: Alarm(**row) for row in alarms},
        [Change(**row) for row in changes],
        [Delivery(**row) for row in deliveries],
    )

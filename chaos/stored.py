"""Reads back what the platform stored, row by row, past all of its own code for reading."""

from anxin.db.pool import connect
from chaos.verdict import Stored

_DEVICES = b"SELECT key, id FROM devices WHERE id LIKE %(prefix)s || '%%'"
_READINGS = b"""
    SELECT (extract(epoch FROM ts) * 1000000)::bigint AS ts_us,
           hr, rr, spo2, temp, sbp, dbp, movement
    FROM telemetry WHERE device_key = %(key)s
"""
_EVENTS = b"SELECT device_key, id FROM events"
_ALARMS = b"""
    SELECT s.device_key, a.count
    FROM alarms a JOIN assignments s USING (resident_id) WHERE a.kind = 'sos'
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
        for row in await (await connection.execute(_ALARMS)).fetchall():
            stored.alarms.append((names[row["device_key"]], row["count"]))
        for row in await (await connection.execute(_QUARANTINED)).fetchall():
            stored.quarantined = row["count"]
    return stored

"""Residents and devices in bulk, written straight into the tables: set-up, not what is measured."""

from datetime import UTC, datetime

import msgspec

from anxin.db.pool import Connection, connect
from anxin.device_secret import new_secret

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


class Enrolled(msgspec.Struct, frozen=True):
    """A device with its secret, and the resident that it watches."""

    id: str
    secret: str
    resident_id: int


_PLACE = b"""
    INSERT INTO places (kind, name) VALUES ('facility', %(name)s) RETURNING id
"""
_PEOPLE = b"""
    INSERT INTO residents (name, place_id)
    SELECT %(prefix)s || n, %(place)s FROM generate_series(1, %(count)s::integer) AS n
    RETURNING id
"""
_DEVICES = b"""
    WITH enrolled AS (
        INSERT INTO devices (id, kind, place_id, salt, secret_hash)
        SELECT d.id, %(kind)s, %(place)s, d.salt, d.hashed
        FROM unnest(%(ids)s::text[], %(salts)s::bytea[], %(hashes)s::bytea[])
             AS d (id, salt, hashed)
        RETURNING id, key
    )
    INSERT INTO assignments (device_key, resident_id, during)
    SELECT e.key, w.resident_id, tstzrange(%(since)s, NULL)
    FROM enrolled e
    JOIN unnest(%(ids)s::text[], %(residents)s::bigint[]) AS w (id, resident_id) USING (id)
"""


async def enrol(
    dsn: str, prefix: str, count: int, *, kind: str = "bed_sensor", since: datetime = LONG_AGO
) -> list[Enrolled]:
    """Make `count` residents with one device each, ids `<prefix>-1` and on; return the devices.

    The assignments begin at `since`; long ago, readings with any time stamp are the resident's.
    """
    ids = [f"{prefix}-{number}" for number in range(1, count + 1)]
    made = [new_secret() for _ in ids]
    async with await connect(dsn, application="anxin bench") as connection:
        place = await _first(connection, _PLACE, {"name": prefix})
        people = await connection.execute(
            _PEOPLE, {"prefix": f"{prefix} ", "place": place, "count": count}
        )
        residents = [int(row["id"]) for row in await people.fetchall()]
        await connection.execute(
            _DEVICES,
            {
                "kind": kind,
                "place": place,
                "ids": ids,
                "salts": [salt for _, salt, _ in made],
                "hashes": [hashed for _, _, hashed in made],
                "residents": residents,
                "since": since,
            },
        )
    return [
        Enrolled(id_, secret, resident)
        for id_, (secret, _, _), resident in zip(ids, made, residents, strict=True)
    ]


async def _first(connection: Connection, query: bytes, parameters: dict[str, object]) -> int:
    row = await (await connection.execute(query, parameters)).fetchone()
    assert row is not None  # noqa: S101 - INSERT ... RETURNING of one row
    return int(row["id"])

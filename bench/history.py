"""Ten million stored values, and how quickly a resident's status and day are read from them."""

import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.client import HTTPConnection
from typing import Final
from urllib.parse import urlencode

import httpx

from anxin.db.pool import Connection, Database, connect
from anxin.db.residents import signs
from anxin.db.scope import EVERYTHING
from anxin.db.vitals import series
from anxin.errors import AnxinError
from bench.emergency import base_url, token
from bench.population import Enrolled
from bench.stack import Stack

EVERY_SECONDS: Final = 5
METRICS: Final = 7
STEP: Final = timedelta(minutes=10)
"""Of the query alone; the server picks it for a day when it is not asked for another."""

_KEYS = b"SELECT id, key FROM devices WHERE id = ANY(%(ids)s::text[])"
_WEEKS = b"""
    SELECT add_partition(day) FROM generate_series(
        %(from_)s::timestamptz - interval '7 days', %(to)s::timestamptz, interval '7 days') AS day
"""
_FILL = b"""
    INSERT INTO telemetry (device_key, ts, received_at, hr, rr, spo2, temp, sbp, dbp, movement)
    SELECT %(key)s, at, at,
           (70 + 8 * sin(n / 700.0))::real, (15 + 2 * sin(n / 90.0))::real,
           (97 + sin(n / 300.0))::real, (36.6 + 0.3 * sin(n / 4000.0))::real,
           (122 + 7 * sin(n / 500.0))::real, (74 + 5 * sin(n / 500.0))::real,
           (0.2 + 0.2 * sin(n / 20.0))::real
    FROM generate_series(1, %(rows)s::integer) AS n,
         LATERAL (SELECT %(to)s::timestamptz - n * %(every)s * interval '1 second' AS at) AS moment
"""
_MARK = b"""
    INSERT INTO rollup_due (device_key, minute, marked_at)
    SELECT %(key)s, minute, now() - interval '1 hour'
    FROM generate_series(date_trunc('minute', %(from_)s::timestamptz), %(to)s::timestamptz,
                         interval '1 minute') AS minute
"""
_STILL_DUE = (
    b"SELECT count(*) AS due FROM rollup_due WHERE marked_at < now() - interval '10 minutes'"
)
_TIDY = b"VACUUM (ANALYZE) telemetry, minute_rollup, hour_rollup, rollup_due"


async def fill(dsn: str, devices: Sequence[Enrolled], values: int) -> int:
    """Store `values` values, a row of seven every five seconds up to now; return how many.

    The rows are written by one INSERT from generate_series for each device. Their minutes are
    marked, and rolled up by the function that the worker calls.
    """
    rows = values // METRICS // len(devices)
    to = datetime.now(UTC).replace(microsecond=0)
    from_ = to - timedelta(seconds=rows * EVERY_SECONDS)
    async with await connect(dsn, autocommit=True, application="anxin bench") as connection:
        await connection.execute(_WEEKS, {"from_": from_, "to": to})
        ids = [device.id for device in devices]
        found = await (await connection.execute(_KEYS, {"ids": ids})).fetchall()
        for row in found:
            parameters = {
                "key": row["key"],
                "rows": rows,
                "every": EVERY_SECONDS,
                "from_": from_,
                "to": to,
            }
            await connection.execute(_FILL, parameters)
            await connection.execute(_MARK, parameters)
        await _roll_up(connection)
        await connection.execute(_TIDY)
    return rows * len(devices) * METRICS


async def _roll_up(connection: Connection) -> None:
    """Do the worker's work at once, or wait for the worker that is at it."""
    while True:
        row = await (await connection.execute(_STILL_DUE)).fetchone()
        if not row or not row["due"]:
            return
        await connection.execute(b"SELECT roll_up(now() - interval '10 minutes', 20000)")


class AnswerFailed(AnxinError):
    """The API did not answer a question about a resident."""


@dataclass(frozen=True, slots=True)
class ReadTimes:
    """Milliseconds of each question: through HTTP, and of the same query alone."""

    status: list[float]
    vitals: list[float]
    status_query: list[float]
    vitals_query: list[float]


async def read_times(stack: Stack, residents: Sequence[int], times: int) -> ReadTimes:
    """Ask for the status and the last 24 hours of one resident after the other."""
    to = datetime.now(UTC)
    day = (to - timedelta(hours=24), to)
    chosen = [residents[number % len(residents)] for number in range(times)]
    return ReadTimes(
        *await _over_http(stack, chosen, day),
        *await _by_query(stack.dsn, chosen, day),
    )


async def _over_http(
    stack: Stack, residents: Sequence[int], day: tuple[datetime, datetime]
) -> tuple[list[float], list[float]]:
    async with httpx.AsyncClient(base_url=base_url(stack)) as client:
        headers = {"Authorization": f"Bearer {await token(client)}"}
    span = urlencode({"from": day[0].isoformat(), "to": day[1].isoformat()})
    # The plainest client there is, so that its own time counts little; it blocks, and nothing
    # else runs in this loop meanwhile.
    connection = HTTPConnection(stack.http.host, stack.http.port, timeout=30)

    async def get(path: str) -> None:
        connection.request("GET", f"/api/v1/residents/{path}", headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != HTTPStatus.OK:
            raise AnswerFailed(f"GET {path} answers {answer.status}: {body[:200]!r}")

    # In two rows, because one kind of question would warm or cool the other's memory.
    status = [await _timed_ms(get(f"{one}/status")) for one in residents]
    vitals = [await _timed_ms(get(f"{one}/vitals?{span}")) for one in residents]
    connection.close()
    return status, vitals


async def _by_query(
    dsn: str, residents: Sequence[int], day: tuple[datetime, datetime]
) -> tuple[list[float], list[float]]:
    start, end = day
    async with Database(dsn, size=1, application="anxin bench") as database:

        async def day_of(resident: int) -> None:
            await series(database, resident, start=start, end=end, step=STEP, most=10_000)

        status = [await _timed_ms(signs(database, EVERYTHING, [one])) for one in residents]
        vitals = [await _timed_ms(day_of(one)) for one in residents]
    return status, vitals


async def _timed_ms(question: Awaitable[object]) -> float:
    began = time.perf_counter()
    await question
    return (time.perf_counter() - began) * 1000

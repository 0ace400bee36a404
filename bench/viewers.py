"""`python -m bench.viewers`: one alarm to a thousand open streams of one API process.

Beside it the obvious way with the same viewers and frame: `await send_text` in a loop, as uvicorn
comes (it compresses for every viewer anew, which every browser offers) and without compression. Our
figures hold all that the API does meanwhile: reading the alarm, statuses, pings, sessions; what of
it is writing the alarms, the API says itself. Once an alarm at a time, once three in one commit.
"""

import argparse
import asyncio
import itertools
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import httpx
import psutil

from anxin.db.migrate import migrate
from anxin.db.pool import Connection, connect
from anxin.db.sessions import hash_token
from anxin.embedded import EmbeddedPostgres, free_port
from anxin.errors import AnxinError
from bench.report import Goal, Table, percentile, publish_viewers

EVERY_SECONDS: Final = 0.2
PATIENCE_SECONDS: Final = 30.0
STORM: Final = 3
"""So many alarms at once: a fall, the alarm button and the open door of one resident."""
NAIVE: Final = "`await send_text` in a loop"

_SETTLE = b"""
    WITH place AS (
        INSERT INTO places (kind, name) VALUES ('facility', 'bench') RETURNING id
    ), resident AS (
        INSERT INTO residents (name, place_id) SELECT 'bench', id FROM place RETURNING id, place_id
    ), staff AS (
        INSERT INTO users (username, password_hash, role, place_id)
        SELECT 'bench' || n, '-', 'nurse', place.id
        FROM place, generate_series(1, %(count)s::integer) AS n
        RETURNING id
    ), numbered AS (
        SELECT id, row_number() OVER () AS n FROM staff
    )
    INSERT INTO sessions (token_hash, user_id, expires_at)
    SELECT h.hash, s.id, now() + interval '1 hour'
    FROM numbered s JOIN unnest(%(hashes)s::bytea[]) WITH ORDINALITY AS h (hash, n) USING (n)
"""
_TICKETS = b"""
    INSERT INTO tickets (token_hash, session_hash, expires_at)
    SELECT ticket, session, now() + interval '10 minutes'
    FROM unnest(%(tickets)s::bytea[], %(sessions)s::bytea[]) AS t (ticket, session)
"""
_RAISE = b"""
    SELECT raise_alarm('r' || id, id, NULL, NULL, %(kind)s || n, 'emergency', 3::smallint, now(),
                       false, 1, '{"event_type": "sos"}', 'bench')
    FROM (SELECT id FROM residents LIMIT 1) AS r, generate_series(1, %(count)s::integer) AS n
"""
_FRAME = b"""
    SELECT alarm::text AS alarm FROM timeline ORDER BY id DESC LIMIT 1
"""


class CrowdFailed(AnxinError):
    """The viewers did not come, or left. Their last words stand above."""


@dataclass(frozen=True, slots=True)
class Run:
    """One alarm after another to a crowd: milliseconds by delivery, processor time by frame."""

    times_ms: list[float]
    cpu_us: float
    writing_us: float | None = None


def main() -> int:
    """Measure, print the table; 0 when both could be measured."""
    arguments = _parser().parse_args()
    try:
        table = asyncio.run(_measure(arguments.viewers, arguments.alarms, arguments.rounds))
    except AnxinError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    section = f"""
Written by `python -m bench.viewers --write` on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; medians of
{arguments.rounds} rounds, {arguments.viewers} viewers, {arguments.alarms} times an alarm in each,
five a second; load of the machine at the end {load}.

{table}
- The viewers are one process on the same two cores and offer compression, as every browser does.
  Ours sends frames uncompressed and encoded once; its processor time is that of the whole process:
  reading the alarm, a status of the resident each second to everybody, pings, the check of every
  session each five seconds. The loops do nothing but send, and know of no permission.
- Over loopback the sender's processor time holds the receiver's half of TCP too, on all sides.
- {STORM} at once: so many alarms in one commit; the loops get so many texts in one request.
"""
    print(section)
    if arguments.write:
        publish_viewers(section)
    return 0


async def _measure(viewers: int, alarms: int, rounds: int) -> Table:
    table = Table()
    with tempfile.TemporaryDirectory(prefix="anxin-viewers-") as directory:
        place = Path(directory)
        place.chmod(0o711)  # noqa: ASYNC240  nothing is served yet
        with EmbeddedPostgres(place / "data") as server:
            migrate(server.dsn)
            sessions = [secrets.token_bytes(32) for _ in range(viewers)]
            async with await connect(server.dsn, autocommit=True) as connection:
                await connection.execute(_SETTLE, {"count": viewers, "hashes": sessions})
                for number in range(rounds):
                    for count in (1, STORM):
                        crowded = Crowded(server.dsn, connection, sessions, alarms, count)
                        await _round(table, crowded, number)
    return table


@dataclass(frozen=True, slots=True)
class Crowded:
    """What one round is about: so many alarms to these sessions, `count` of them at a time."""

    dsn: str
    connection: Connection
    sessions: list[bytes]
    alarms: int
    count: int


async def _round(table: Table, crowded: Crowded, number: int) -> None:
    alone = crowded.count == 1
    suffix = "" if alone else f", {crowded.count} alarms at once"
    ours = await _ours(crowded, number)
    _note(table, f"Anxin{suffix}", ours, Goal(150))
    for who, words, goal in (
        (f"{NAIVE}, uvicorn as it comes{suffix}", (), Goal(2, at_least=True)),
        (f"{NAIVE}, no compression{suffix}", ("plain",), None),
    ):
        naive = await _naive(crowded, words)
        _note(table, who, naive, None)
        table.note(f"{who}: processor time to ours", "times", naive.cpu_us / ours.cpu_us, goal)


def _note(table: Table, who: str, run: Run, goal: Goal | None) -> None:
    table.note(f"{who}: alarm → viewer, p50", "ms", percentile(run.times_ms, 0.5))
    table.note(f"{who}: alarm → viewer, p99", "ms", percentile(run.times_ms, 0.99), goal)
    table.note(f"{who}: processor time per viewer and alarm", "µs", run.cpu_us)
    if run.writing_us is not None:
        table.note(f"{who}: of it writing the alarm", "µs", run.writing_us)


async def _ours(crowded: Crowded, number: int) -> Run:
    """From the statement that raises the alarms, its commit included."""
    tickets = [secrets.token_urlsafe(32) for _ in crowded.sessions]
    hashes = [hash_token(ticket) for ticket in tickets]
    await crowded.connection.execute(_TICKETS, {"tickets": hashes, "sessions": crowded.sessions})
    port = free_port("127.0.0.1")
    environ = {"ANXIN_DATABASE": crowded.dsn, "ANXIN_HTTP": f"127.0.0.1:{port}"}
    raised = iter(range(crowded.alarms))

    async def alarm() -> None:
        kind = f"bench_{number}_{crowded.count}_{next(raised)}_"
        await crowded.connection.execute(_RAISE, {"kind": kind, "count": crowded.count})

    async with _served([sys.executable, "-P", "-m", "anxin.cli", "api"], port, environ) as api:
        run = await _run(api, port, tickets, crowded, alarm)
        writing_us = 1e6 * await _writing_seconds(port) / len(run.times_ms)
        return Run(run.times_ms, run.cpu_us, writing_us)


async def _writing_seconds(port: int) -> float:
    """Return what the API says that it spent on writing alarms; nothing else was raised."""
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"http://127.0.0.1:{port}/metrics", timeout=30)).text
    name = "anxin_stream_write_seconds_total "
    return next(float(line[len(name) :]) for line in text.splitlines() if line.startswith(name))


async def _naive(crowded: Crowded, words: tuple[str, ...]) -> Run:
    """From the request, with frames that are encoded already."""
    row = await (await crowded.connection.execute(_FRAME)).fetchone() or {}
    port = free_port("127.0.0.1")
    command = [sys.executable, "-m", "bench.naive_viewers", str(port), *words]
    async with _served(command, port, {}) as app, httpx.AsyncClient(trust_env=False) as client:
        cursor = itertools.count(1)

        async def alarm() -> None:
            # The beginning is what the viewers look for.
            texts = [
                f'{{"type":"alarm","cursor":{next(cursor)},"change":"raised","alarm":{row["alarm"]}}}'
                for _ in range(crowded.count)
            ]
            await client.post(
                f"http://127.0.0.1:{port}/alarm", content="\n".join(texts), timeout=30
            )

        return await _run(app, port, ["-"] * len(crowded.sessions), crowded, alarm)


async def _run(
    server: psutil.Process,
    port: int,
    tickets: list[str],
    crowded: Crowded,
    alarm: Callable[[], Awaitable[None]],
) -> Run:
    """Let the crowd in, raise the alarms, and wait until each has reached everybody."""
    crowd = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.crowd", str(port), str(len(tickets)), "deflate",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=2**22,
    )  # fmt: skip
    assert crowd.stdin is not None  # noqa: S101  it was opened with pipes
    assert crowd.stdout is not None  # noqa: S101
    try:
        crowd.stdin.write("".join(f"{ticket}\n" for ticket in tickets).encode())
        if await _line(crowd.stdout) != "ready":
            raise CrowdFailed
        await asyncio.sleep(2.0)  # the first statuses are behind us
        times_ms: list[float] = []
        before = _cpu_seconds(server)
        for _ in range(crowded.alarms):
            began = time.monotonic()
            raised_ns = time.time_ns()
            await alarm()
            for _ in range(crowded.count):
                arrived = (await _line(crowd.stdout)).split()[1:]
                if len(arrived) != len(tickets):
                    raise CrowdFailed
                times_ms += [(int(at) - raised_ns) / 1e6 for at in arrived]
            await asyncio.sleep(max(0.0, EVERY_SECONDS - (time.monotonic() - began)))
        spent = _cpu_seconds(server) - before
    finally:
        if crowd.returncode is None:
            crowd.kill()
        await crowd.wait()
    return Run(times_ms, 1e6 * spent / len(times_ms))


@asynccontextmanager
async def _served(
    command: list[str], port: int, environ: dict[str, str]
) -> AsyncIterator[psutil.Process]:
    """Run a server until it is no longer needed."""
    process = await asyncio.create_subprocess_exec(
        *command, env=os.environ | environ, stderr=subprocess.DEVNULL
    )
    try:
        deadline = datetime.now(UTC) + timedelta(seconds=PATIENCE_SECONDS)
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                if process.returncode is not None or datetime.now(UTC) > deadline:
                    raise CrowdFailed(f"{command[-2:]} did not start.") from None
                await asyncio.sleep(0.1)
                continue
            writer.close()
            break
        yield psutil.Process(process.pid)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _line(output: asyncio.StreamReader) -> str:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return (await output.readline()).decode().strip()
    except TimeoutError:
        raise CrowdFailed("An alarm has not reached everybody.") from None


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.viewers", description=__doc__)
    parser.add_argument("--viewers", type=int, default=1000)
    parser.add_argument("--alarms", type=int, default=30, help="how often, in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write it to docs/benchmarks.md")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())

"""`python -m bench.audit`: what it costs to record every read before it is shown.

The same questions twice within one minute: first they are recorded, and answered when the entry is
committed; then they are known to be recorded. The difference of the two is the price. Then the
chain: how quickly it is written and verified, and how large an entry is.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from http.client import HTTPConnection
from statistics import median
from typing import Final

import httpx

from anxin.audit import Check
from anxin.audit_files import kept_heads, signer
from anxin.config import Settings
from anxin.db.audit import Noted, note, stored_links
from anxin.db.pool import Connection, Database, connect
from anxin.errors import AnxinError
from bench.emergency import base_url, token
from bench.population import enrol
from bench.report import Goal, Table, percentile, report
from bench.stack import Stack

RESIDENTS: Final = 300
ROLES: Final = ("api", "postgres")
ENTRIES: Final = 50_000
AT_ONCE: Final = 500
_WAITING = b"SELECT count(*) AS n FROM audit_waiting"
_SIZE = b"""
    SELECT pg_total_relation_size('audit') AS total, pg_relation_size('audit') AS heap,
           (SELECT count(*) FROM audit) AS rows
"""


class Unread(AnxinError):
    """The API did not answer a question about a resident."""


def main() -> int:
    """Measure and print; 0 when all was measured, whether goals are met or not."""
    parser = argparse.ArgumentParser(prog="python -m bench.audit", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    table = Table()
    try:
        with Stack() as stack:
            server = asyncio.run(_measure(stack, table, rounds))
    except AnxinError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    print(report(table, "python -m bench.audit", rounds, server, datetime.now(UTC)))
    return 0


async def _measure(stack: Stack, table: Table, rounds: int) -> str:
    people = [one.resident_id for one in await enrol(stack.dsn, "bench", RESIDENTS)]
    async with httpx.AsyncClient(base_url=base_url(stack)) as client:
        headers = {"Authorization": f"Bearer {await token(client)}"}
    _read(stack, headers, people)  # everything is warm
    for _ in range(rounds):
        await asyncio.sleep(61 - time.time() % 60)
        first, spent = _read(stack, headers, people)
        again, spent_again = _read(stack, headers, people)
        table.note("status, first in its minute: recorded", "ms", median(first), Goal(3))
        table.note("status, first in its minute, p99", "ms", percentile(first, 0.99))
        table.note("status, again in the same minute", "ms", median(again))
        for role, cost, cost_again in zip(ROLES, spent, spent_again, strict=True):
            name = f"{role} processor time of a recorded read"
            table.note(name, "ms", cost / len(people) * 1000)
            table.note(f"{name}, again", "ms", cost_again / len(people) * 1000)
    async with await connect(stack.dsn, autocommit=True, application="anxin bench") as connection:
        await _chain(stack, table, connection)
        row = await (await connection.execute(b"SELECT version()")).fetchone()
    return str(row["version"]) if row else ""


def _read(
    stack: Stack, headers: dict[str, str], people: Sequence[int]
) -> tuple[list[float], list[float]]:
    """Ask for the status of each; return the milliseconds, and seconds of processor by role."""
    connection = HTTPConnection(stack.http.host, stack.http.port, timeout=30)
    times = []
    before = [stack.cpu_seconds(role) for role in ROLES]
    for one in people:
        began = time.perf_counter()
        connection.request("GET", f"/api/v1/residents/{one}/status", headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        times.append((time.perf_counter() - began) * 1000)
        if answer.status != HTTPStatus.OK:
            raise Unread(f"Status {answer.status}: {body[:200]!r}")
    connection.close()
    spent = [stack.cpu_seconds(role) - was for role, was in zip(ROLES, before, strict=True)]
    return times, spent


async def _chain(stack: Stack, table: Table, connection: Connection) -> None:
    entries = [
        Noted(user_id=number % 50, role="nurse", path="/1/22/333/", action="read",
              object="status", residents=(number % 5000,), status=200, channel="station")
        for number in range(ENTRIES)
    ]  # fmt: skip
    began = time.perf_counter()
    async with Database(stack.dsn, role="anxin_door", size=1) as door:
        for start in range(0, ENTRIES, AT_ONCE):
            await note(door, entries[start : start + AT_ONCE])
    while True:
        row = await (await connection.execute(_WAITING)).fetchone()
        if not row or not row["n"]:
            break
        await asyncio.sleep(0.02)
    table.note("entries written and chained", "/s", ENTRIES / (time.perf_counter() - began))
    size = await (await connection.execute(_SIZE)).fetchone()
    assert size is not None  # noqa: S101 - a query without FROM has one row
    table.note("bytes on disk per entry, indexes in", "bytes", size["total"] / size["rows"])
    table.note("of these in the table itself", "bytes", size["heap"] / size["rows"])
    settings = Settings(data_dir=str(stack.data))
    heads = list(kept_heads(stack.data / "audit" / "heads.jsonl"))
    check = Check(signer(settings).keys, None, heads)
    began = time.perf_counter()
    for link in stored_links(stack.dsn):
        if not check.take(link):
            break
    if fault := check.finish():
        raise Unread(fault.en)
    table.note("entries verified", "/s", check.entries / (time.perf_counter() - began))


if __name__ == "__main__":
    sys.exit(main())

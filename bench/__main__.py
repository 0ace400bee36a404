"""`make bench`: measure a whole platform of its own, and write `docs/benchmarks.md`."""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

from anxin.db.pool import connect
from anxin.embedded import EmbeddedPostgres
from anxin.errors import AnxinError
from bench import baselines
from bench.emergency import press_to_frame_ms
from bench.generator import Load, LoadFailed, compiled, publish
from bench.history import fill, read_times
from bench.population import Enrolled, enrol
from bench.report import Goal, Table, percentile, publish_platform, report
from bench.stack import Stack

MAXIMUM: Final = "messages/s over 8 connections"
VALUES_A_MESSAGE: Final = 7

_ROWS = b"""
    SELECT count(*) AS rows FROM telemetry
    WHERE device_key IN (SELECT key FROM devices WHERE id = ANY(%(ids)s::text[]))
"""
_SIZE = b"""
    SELECT sum(pg_relation_size(inhrelid))::bigint AS heap,
           sum(pg_total_relation_size(inhrelid))::bigint AS total,
           (SELECT count(*) FROM telemetry) AS rows
    FROM pg_inherits WHERE inhparent = 'telemetry'::regclass
"""
_SETTINGS = b"""
    SELECT version(), string_agg(name || ' ' || current_setting(name), ', ' ORDER BY name) AS said
    FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes',
        'shared_buffers', 'wal_compression', 'max_wal_size', 'data_checksums')
"""


class RowsMissing(AnxinError):
    """Fewer rows are stored than were acknowledged."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How long and how much."""

    rounds: int
    people: int
    seconds: float
    presses: int
    history_values: int
    questions: int
    bridged: int
    naive: int


FULL: Final = Scale(3, 20_000, 12, 150, 10_000_000, 300, 400_000, 8_000)
QUICK: Final = Scale(1, 1_000, 1.5, 10, 100_000, 20, 0, 0)


def main() -> int:
    """Measure, print, write the page; 0 when all was measured, whether goals are met or not."""
    arguments = _parser().parse_args()
    scale = QUICK if arguments.quick else FULL
    rounds = arguments.rounds or scale.rounds
    try:
        program = compiled()
        table = Table()
        server = _measure_platform(table, program, scale, rounds)
        if scale.naive and not arguments.no_baselines:
            _measure_baselines(table, program, scale, rounds)
    except AnxinError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    page = report(table, "make bench", rounds, server, datetime.now(UTC))
    print(page)
    if not arguments.quick:
        publish_platform(page)
    return 0


def _measure_platform(table: Table, program: Path, scale: Scale, rounds: int) -> str:
    with Stack() as stack:
        return asyncio.run(_rounds(stack, table, program, scale, rounds))


async def _rounds(stack: Stack, table: Table, program: Path, scale: Scale, rounds: int) -> str:
    people = await enrol(stack.dsn, "bench", scale.people)
    buttons = await enrol(stack.dsn, "button", scale.presses * rounds, kind="call_button")
    devices = iter(people)

    def take(count: int) -> list[Enrolled]:
        # Devices of their own for every measurement, so that no time stamp comes twice.
        return [next(devices) for _ in range(count)]

    bench = Bench(stack, table, program, scale)
    for number in range(rounds):
        _tell(f"round {number + 1} of {rounds}")
        await bench.maximum(take(8))
        if number == 0:
            # Before anything else is stored, so that every row is one of the maximum run.
            await bench.size()
        await bench.one_in_flight(take(100 if scale is QUICK else 500))
        await bench.at_rate(take(100), 1_000, Goal(20))
        await bench.at_rate(take(100), 10_000, Goal(60))
        pressed = buttons[number * scale.presses : (number + 1) * scale.presses]
        await bench.emergencies(take(100), pressed, f"round{number}")
    await bench.history(await enrol(stack.dsn, "history", 80), rounds)
    return await _server(stack.dsn)


class Bench:
    """The measurements on one running platform; each notes its figures in the table."""

    def __init__(self, stack: Stack, table: Table, program: Path, scale: Scale) -> None:
        """Measure `stack` with the load generator `program`."""
        self._stack = stack
        self._table = table
        self._program = program
        self._scale = scale

    async def maximum(self, devices: Sequence[Enrolled]) -> None:
        """As fast as acknowledged, over few connections with many messages in flight."""
        with self._processor() as spent:
            load = await self._load(devices, window=2_000)
        self._table.note(MAXIMUM, "/s", load.rate, Goal(40_000, at_least=True))
        self._note_processor("8 connections", load, spent, Goal(10))

    async def one_in_flight(self, devices: Sequence[Enrolled]) -> None:
        """As fast as acknowledged, over many connections with one message in flight each."""
        name = f"{len(devices)} connections, window 1"
        with self._processor() as spent:
            load = await self._load(devices, window=1)
        self._table.note(f"messages/s over {name}", "/s", load.rate)
        self._note_processor(name, load, spent, Goal(45))

    async def at_rate(self, devices: Sequence[Enrolled], rate: int, goal: Goal) -> None:
        """The time from publish to PUBACK at a steady rate."""
        load = await self._load(devices, window=200, rate=rate, warm=self._scale.seconds / 6)
        what = f"publish → PUBACK at {rate:,}/s"
        self._table.note(f"{what}, p50", "ms", load.p50_ms)
        self._table.note(f"{what}, p99", "ms", load.p99_ms, goal)

    async def emergencies(
        self, crowd: Sequence[Enrolled], buttons: Sequence[Enrolled], tag: str
    ) -> None:
        """From the press of a button to the frame at the station, with 5,000/s behind it."""
        times_ms = await press_to_frame_ms(self._stack, self._program, crowd, buttons, tag)
        what = "SOS publish → WebSocket frame, 5,000/s behind it"
        self._table.note(f"{what}, p50", "ms", percentile(times_ms, 0.5), Goal(30))
        self._table.note(f"{what}, p99", "ms", percentile(times_ms, 0.99), Goal(100))

    async def size(self) -> None:
        """Bytes on disk, uncompressed, of what the maximum run stored as it came."""
        async with await connect(self._stack.dsn) as connection:
            row = await (await connection.execute(_SIZE)).fetchone() or {}
        total, rows = int(row["total"]), int(row["rows"])
        readings = rows * VALUES_A_MESSAGE
        self._table.note(
            "bytes on disk per reading, indexes in", "bytes", total / readings, Goal(20)
        )
        self._table.note("bytes on disk per message, indexes in", "bytes", total / rows)
        self._table.note("of these in the table itself", "bytes", int(row["heap"]) / rows)

    async def history(self, devices: Sequence[Enrolled], rounds: int) -> None:
        """Reading back from millions of values."""
        _tell("filling the history")
        stored = await fill(self._stack.dsn, devices, self._scale.history_values)
        # The newest values come the way of all others.
        await publish(
            self._program, self._stack.mqtt, devices, window=1, messages=len(devices), behind=0
        )
        self._table.remark(
            f"Over {stored:,} values of {len(devices)} residents, one row of seven every five "
            "seconds, written by INSERT from generate_series and rolled up by the worker's own "
            f"function, beside what the load had stored. {self._scale.questions} questions a "
            "round, one after the other, median of each round; through HTTP means login, "
            "permission, JSON and the client in Python included."
        )
        residents = [device.resident_id for device in devices]
        for _ in range(rounds):
            times = await read_times(self._stack, residents, self._scale.questions)
            for what, values, goal in (
                ("latest status of one resident, HTTP", times.status, Goal(2)),
                ("latest status of one resident, query alone", times.status_query, Goal(2)),
                ("24 h × 7 metrics of one resident, HTTP", times.vitals, Goal(15)),
                ("24 h × 7 metrics of one resident, query alone", times.vitals_query, Goal(15)),
            ):
                self._table.note(what, "ms", median(values), goal)
                self._table.note(f"{what}, p99", "ms", percentile(values, 0.99))

    async def _load(self, devices: Sequence[Enrolled], **options: float) -> Load:
        """Publish, and make sure that every acknowledged message is a row."""
        seconds = self._scale.seconds
        load = await publish(self._program, self._stack.mqtt, devices, seconds=seconds, **options)
        async with await connect(self._stack.dsn) as connection:
            ids = [device.id for device in devices]
            row = await (await connection.execute(_ROWS, {"ids": ids})).fetchone() or {}
        if row["rows"] != load.acked:
            raise RowsMissing(f"{load.acked} messages were acknowledged, {row['rows']} are stored.")
        return load

    def _note_processor(self, name: str, load: Load, spent: dict[str, float], goal: Goal) -> None:
        for role, seconds in (spent | {"load generator": load.cpu_seconds}).items():
            what = f"{role} processor time per message, {name}"
            microseconds = 1e6 * seconds / load.acked
            self._table.note(what, "µs", microseconds, goal if role == "ingest" else None)

    @contextmanager
    def _processor(self) -> Iterator[dict[str, float]]:
        """Measure the processor time of the block, by role; the dict is filled at its end."""
        roles = ("ingest", "postgres")
        before = {role: self._stack.cpu_seconds(role) for role in roles}
        spent: dict[str, float] = {}
        yield spent
        spent |= {role: self._stack.cpu_seconds(role) - before[role] for role in roles}


def _measure_baselines(table: Table, program: Path, scale: Scale, rounds: int) -> None:
    """The same messages by the usual ways, on a Postgres with the same settings."""
    crowd = [Enrolled(f"baseline-{number}", "none", 0) for number in range(1, 9)]
    with tempfile.TemporaryDirectory(prefix="anxin-baseline-") as directory:
        place = Path(directory)
        place.chmod(0o711)
        with EmbeddedPostgres(place / "data") as server:

            def by_naive() -> float:
                return asyncio.run(baselines.naive_rate(server, program, crowd, scale.naive))

            def by_bridge() -> float:
                python = baselines.install_mq_bridge()
                return asyncio.run(
                    baselines.mq_bridge_rate(server, program, python, crowd, scale.bridged)
                )

            for what, measure in (
                ("mosquitto + paho, one INSERT and commit per message", by_naive),
                ("mosquitto + mq-bridge, bulk copy", by_bridge),
            ):
                _tell(f"baseline: {what}")
                try:
                    for _ in range(rounds):
                        table.note(what, "/s", measure())
                except (baselines.BaselineFailed, LoadFailed) as fault:
                    table.remark(f"Not measured: {what}. {fault}")
    if not _note_ratios(table):
        return
    table.remark(
        f"Baselines: {baselines.mosquitto_version()} with unlimited queues and nothing kept on "
        f"disk; {baselines.MQ_BRIDGE} in batches of 5,000 into a table without a key, because it "
        "passes on no topic and hence no device; paho-mqtt with one INSERT into a table keyed by "
        "device and time. From the first publish to the last commit. There the broker's PUBACK "
        "comes before anything is stored, and nothing is validated, judged or (mq-bridge) "
        "protected from duplicates."
    )


def _note_ratios(table: Table) -> bool:
    """Compare what was measured with ours; False when nothing was."""
    ours = table.figures[MAXIMUM].value
    usual = [one for what, one in table.figures.items() if what.startswith("mosquitto")]
    for figure in usual:
        table.note(f"ours to {figure.what}", "times", ours / figure.value)
    return bool(usual)


async def _server(dsn: str) -> str:
    async with await connect(dsn) as connection:
        row = await (await connection.execute(_SETTINGS)).fetchone() or {}
    return f"{row['version'].split(' on ')[0]}: {row['said']}."


def _tell(what: str) -> None:
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    print(f"{datetime.now(UTC):%H:%M:%S} {what} (load {load})", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, help="how often everything is measured (3)")
    parser.add_argument("--no-baselines", action="store_true", help="only ours")
    parser.add_argument(
        "--quick", action="store_true", help="seconds instead of minutes, and no file is written"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())

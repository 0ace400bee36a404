"""The same messages by the usual ways: mosquitto with mq-bridge, mosquitto with paho and INSERT."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from anxin.config import Address
from anxin.db.pool import connect
from anxin.embedded import EmbeddedPostgres, free_port
from anxin.errors import AnxinError
from bench.generator import BUILD, publish
from bench.population import Enrolled

MQ_BRIDGE: Final = "mq-bridge==1.2.0"
_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.1

_CONFIGURATION = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
max_inflight_messages 0
max_queued_messages 0
"""
_TABLES = b"""
    CREATE TABLE IF NOT EXISTS bridged (
        ts bigint, hr real, rr real, spo2 real, temp real, sbp real, dbp real, movement real);
    CREATE TABLE IF NOT EXISTS baseline (
        device text, ts timestamptz, hr real, rr real, spo2 real, temp real, sbp real, dbp real,
        movement real, PRIMARY KEY (device, ts));
    TRUNCATE bridged, baseline
"""
_COUNTS = {
    "bridged": b"SELECT count(*) AS rows FROM bridged",
    "baseline": b"SELECT count(*) AS rows FROM baseline",
}


class BaselineFailed(AnxinError):
    """A baseline could not be measured."""


def find_mosquitto() -> str:
    """Return the program; raise BaselineFailed where there is none."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise BaselineFailed("mosquitto is not installed, so the baselines were not measured.")
    return found


def mosquitto_version() -> str:
    """Return what the program calls itself, or that there is none."""
    try:
        program = find_mosquitto()
    except BaselineFailed:
        return "no mosquitto"
    done = subprocess.run([program, "-h"], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[0]


def install_mq_bridge() -> Path:
    """Return a Python that has mq-bridge, in an environment of its own; raise BaselineFailed."""
    python = BUILD / "mq-bridge" / "bin" / "python"
    steps = [
        [sys.executable, "-m", "venv", str(python.parent.parent)],
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", MQ_BRIDGE],
    ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BaselineFailed(f"{MQ_BRIDGE} cannot be installed:\n{done.stderr.strip()}")
    return python


async def mq_bridge_rate(
    server: EmbeddedPostgres, program: Path, python: Path, devices: Sequence[Enrolled], count: int
) -> float:
    """Return messages/s from the first publish to the last commit by mq-bridge."""
    route = Path(__file__).parent / "bridge_route.py"
    return await _rate(server, program, [str(python), str(route)], "bridged", devices, count)


async def naive_rate(
    server: EmbeddedPostgres, program: Path, devices: Sequence[Enrolled], count: int
) -> float:
    """Return messages/s from the first publish to the last commit by paho and INSERT."""
    command = [sys.executable, "-m", "bench.naive"]
    return await _rate(server, program, command, "baseline", devices, count)


async def _rate(
    server: EmbeddedPostgres,
    program: Path,
    command: Sequence[str],
    table: str,
    devices: Sequence[Enrolled],
    count: int,
) -> float:
    async with await connect(server.dsn, autocommit=True) as connection:
        await connection.execute(_TABLES)

        async def rows() -> int:
            row = await (await connection.execute(_COUNTS[table])).fetchone()
            return int(row["rows"]) if row else 0

        async with _broker() as mqtt, _subscriber(command, mqtt, server.dsn) as subscriber:
            deadline = time.monotonic() + _PATIENCE_SECONDS
            # One message again and again, until the subscriber is there and one arrives.
            while not (before := await rows()):
                _check(subscriber, deadline)
                await publish(program, mqtt, devices[:1], messages=1, window=1)
                await asyncio.sleep(_POLL_SECONDS)
            load = await publish(program, mqtt, devices, messages=count, seconds=_PATIENCE_SECONDS)
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while await rows() < before + count:
                _check(subscriber, deadline)
                await asyncio.sleep(_POLL_SECONDS)
            return count / ((time.monotonic_ns() - load.begin_ns) / 1e9)


def _check(subscriber: "Subscriber", deadline: float) -> None:
    if subscriber.process.returncode is not None or time.monotonic() > deadline:
        raise BaselineFailed(f"{subscriber.name} did not take every message: {subscriber.words()}")


class Subscriber:
    """A baseline's process, and where it writes its complaints."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        """Keep what `_check` needs."""
        self.name = name
        self.process = process
        self._log = log

    def words(self) -> str:
        """Return the end of what it wrote."""
        return self._log.read_text(errors="replace")[-500:].strip() or "it said nothing."


@asynccontextmanager
async def _subscriber(command: Sequence[str], mqtt: Address, dsn: str) -> AsyncIterator[Subscriber]:
    with tempfile.TemporaryDirectory(prefix="anxin-baseline-") as directory:
        log = Path(directory) / "log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(*command, str(mqtt.port)),
                stdout=output,
                stderr=output,
                env={**os.environ, "ANXIN_BENCH_DATABASE": dsn},
            )
        try:
            yield Subscriber(Path(command[-1]).name, process, log)
        finally:
            await _ended(process)


@asynccontextmanager
async def _broker() -> AsyncIterator[Address]:
    """Run mosquitto on a free port; it keeps nothing on disk and its queues have no limit."""
    mqtt = Address("127.0.0.1", free_port("127.0.0.1"))
    with tempfile.TemporaryDirectory(prefix="anxin-broker-") as directory:
        configuration = Path(directory) / "mosquitto.conf"
        configuration.write_text(_CONFIGURATION.format(port=mqtt.port), encoding="ascii")
        process = await asyncio.create_subprocess_exec(
            find_mosquitto(),
            *("-c", str(configuration)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            await _open(mqtt, process)
            yield mqtt
        finally:
            await _ended(process)


async def _open(address: Address, process: asyncio.subprocess.Process) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            _, writer = await asyncio.open_connection(address.host, address.port)
        except OSError as error:
            if process.returncode is not None or time.monotonic() > deadline:
                raise BaselineFailed("mosquitto did not start.") from error
            await asyncio.sleep(_POLL_SECONDS)
        else:
            writer.close()
            return


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()

"""`anxin worker`: the tick. Looks for silence, keeps rollups, partitions and retention."""

import argparse
import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import uvloop
from msgspec import structs
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from anxin.config import Address, Settings
from anxin.db import erasure, upkeep
from anxin.db.migrate import migrate
from anxin.db.pool import Database, as_role
from anxin.db.silence import learn_intervals
from anxin.db.upkeep import Look
from anxin.errors import AnxinError, DatabaseUnavailable, SettingError
from anxin.logs import log
from anxin.notify import delivery
from anxin.notify.delivery import Delivery
from anxin.retention import KEPT, days_of
from models import escalate, watch
from models.audit import AuditKeeper
from models.audit import Metrics as AuditMetrics
from models.escalate import Escalator
from models.risk import Metrics as RiskMetrics
from models.risk import RiskDuty
from models.selftest import SelfTests
from models.stations import watch_stations

DELIVER_SECONDS: Final = 0.5
ESCALATE_SECONDS: Final = 1.0
STALLED_SECONDS: Final = 8.0
"""After so long an urgent duty gives a question to the database up and asks anew."""
AUDIT_SECONDS: Final = 1.0
PATROL_SECONDS: Final = 5.0
WATCHDOG_SECONDS: Final = 5.0
WATCH_SECONDS: Final = 5.0
LEARN_SECONDS: Final = 300.0
LEARN_SLICES: Final = 12
STATION_SECONDS: Final = 2.0
SELF_TEST_SECONDS: Final = 5.0
ROLL_UP_SECONDS: Final = 10.0
RISK_SECONDS: Final = 2.0
"""So soon the residents of a worker that died are judged by another."""
ERASE_SECONDS: Final = 5.0
UPKEEP_SECONDS: Final = 3600.0
SETTLE_SECONDS: Final = 120.0
"""Longer than ingest waits before it marks a minute again, plus its longest transaction."""
MOST_MINUTES: Final = 20_000
_log = log(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything is a setting."""
    parser.description = (
        "Look for silence, keep rollups, partitions and retention. Several may run: "
        "they share the work."
    )


def run(args: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001  every command's form
    """Work until told to stop."""
    if not settings.database:
        raise SettingError("Set ANXIN_DATABASE, or run everything with `anxin up`.")
    # One core a worker: before scikit-learn is loaded, which asks only then.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    migrate(settings.database)
    ours = as_role(settings.database, "anxin_worker")
    uvloop.run(serve(structs.replace(settings, database=ours)))
    return 0


async def serve(settings: Settings) -> None:
    """Run every duty at its own pace until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(
            Database(settings.database, size=4, application="anxin worker")
        )
        # Connections of their own: neither a step of a ladder nor a notice waits for a rollup or,
        # once the database is back, for a request that outlasts the pool's attempts to connect.
        urgent = await stack.enter_async_context(
            Database(
                settings.database,
                size=1,
                application="anxin worker",
                patience_seconds=1.5,
                stalled_seconds=STALLED_SECONDS,
            )
        )
        telling = await stack.enter_async_context(
            Database(
                settings.database,
                size=4,
                application="anxin worker",
                stalled_seconds=STALLED_SECONDS,
            )
        )
        worker = Worker(db, settings, urgent, telling)
        if settings.worker_metrics:
            where = Address.parse(settings.worker_metrics)
            server, _ = start_http_server(where.port, where.host, registry=worker.metrics.registry)
            stack.callback(server.shutdown)
        await stack.enter_async_context(worker.delivery)
        await stack.enter_async_context(worker.risk)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        bell = asyncio.Event()
        duties = [
            group.create_task(escalate.ring(settings.database, bell), name="bell"),
            group.create_task(
                worker.every(
                    ESCALATE_SECONDS,
                    "escalate",
                    worker.escalator.sweep,
                    bell,
                    worker.escalator.rest_seconds,
                ),
                name="escalate",
            ),
            group.create_task(
                worker.every(
                    DELIVER_SECONDS, "deliver", worker.delivery.tick, worker.delivery.room
                ),
                name="deliver",
            ),
        ]
        duties += [
            group.create_task(worker.every(seconds, name, duty), name=name)
            for name, seconds, duty in (
                ("audit", AUDIT_SECONDS, worker.audit.tick),
                ("verify_audit", PATROL_SECONDS, worker.audit.verify),
                ("watchdog", WATCHDOG_SECONDS, worker.escalator.watch_over),
                ("watch", WATCH_SECONDS, worker.watch),
                ("learn", LEARN_SECONDS, worker.learn),
                ("stations", STATION_SECONDS, partial(watch_stations, db)),
                ("self_test", SELF_TEST_SECONDS, SelfTests(db, settings.mqtt).tick),
                ("roll_up", ROLL_UP_SECONDS, worker.roll_up),
                ("risk", RISK_SECONDS, worker.risk.tick),
                ("upkeep", UPKEEP_SECONDS, worker.upkeep),
                ("erase", ERASE_SECONDS, worker.erase),
                ("forget_audit", UPKEEP_SECONDS, worker.audit.forget),
            )
        ]
        await stop.wait()
        for duty in duties:
            duty.cancel()


class Metrics:
    """What Prometheus reads of a worker."""

    def __init__(self) -> None:
        """Register on a registry of its own."""
        self.registry = CollectorRegistry()
        self.seconds = Histogram(
            "anxin_worker_duty_seconds", "how long a duty took", ["duty"], registry=self.registry
        )
        self.last = Gauge(
            "anxin_worker_duty_last_time", "when a duty last succeeded", ["duty"],
            registry=self.registry,
        )  # fmt: skip
        self.failures = Counter(
            "anxin_worker_duty_failures", "duties that failed", ["duty"], registry=self.registry
        )


class Worker:
    """The duties of one worker process."""

    def __init__(
        self,
        db: Database,
        settings: Settings,
        urgent: Database | None = None,
        telling: Database | None = None,
    ) -> None:
        """Work on this database; escalation uses `urgent`, delivery `telling`: their own pools."""
        self._db = db
        self._settings = settings
        self._zone = ZoneInfo(settings.timezone)
        self._timescale: bool | None = None
        self.metrics = Metrics()
        self.audit = AuditKeeper(db, settings, AuditMetrics(self.metrics.registry))
        self.risk = RiskDuty(
            settings.database,
            self._zone,
            RiskMetrics(self.metrics.registry),
            Path(settings.artefacts) if settings.artefacts else None,
        )
        self.delivery = Delivery(telling or db, settings, delivery.Metrics(self.metrics.registry))
        self.escalator = Escalator(
            urgent or db, self._zone, escalate.Metrics(self.metrics.registry)
        )

    async def every(
        self,
        seconds: float,
        name: str,
        duty: Callable[[], Awaitable[object]],
        bell: asyncio.Event | None = None,
        rest: Callable[[], float] | None = None,
    ) -> None:
        """Do a duty again and again; wait for a database that is away.

        Sooner when the bell rings, or when the duty says that it has less than `seconds` to rest.
        """
        while True:
            began = time.monotonic()
            if bell is not None:
                bell.clear()
            try:
                await duty()
            except DatabaseUnavailable:
                self.metrics.failures.labels(name).inc()
                _log.warning("duty_waits_for_database", duty=name)
                await asyncio.sleep(min(seconds, 2.0))
                continue
            except AnxinError as error:
                self.metrics.failures.labels(name).inc()
                _log.error("duty_failed", duty=name, error=str(error))
            else:
                self.metrics.last.labels(name).set_to_current_time()
            took = time.monotonic() - began
            self.metrics.seconds.labels(name).observe(took)
            if bell is None:
                await asyncio.sleep(max(seconds - took, 0.1))
                continue
            pause = max(seconds - took, 0.1)
            if rest is not None:
                pause = min(pause, max(rest(), 0.0))
            with suppress(TimeoutError):
                await asyncio.wait_for(bell.wait(), pause)

    async def watch(self) -> int:
        """Raise what silence tells; return how many alarms changed."""
        async with self._db.transaction() as connection:
            look = Look(connection)
            now = await look.mine()
            if now is None:
                return 0
            silence = await look.silence()
            findings = [
                *watch.silent_devices(silence, now),
                *watch.deafness(silence.deaf),
                *watch.empty_beds(await look.beds(), now, self._zone),
                *watch.nobody_moving(await look.inactive(watch.INACTIVE_SECONDS), now, self._zone),
            ]
            changes = watch.changes(
                findings, await look.episodes(watch.KINDS, watch.BUNDLE_SECONDS)
            )
            if changes:
                await look.alarms(changes)
            return len(changes)

    async def learn(self) -> int:
        """Learn how often some of the devices report; in an hour all have had their turn."""
        async with self._db.transaction() as connection:
            now = await Look(connection).clock()
        turn = int(now.timestamp() // LEARN_SECONDS) % LEARN_SLICES
        return await learn_intervals(self._db, slice_=turn, slices=LEARN_SLICES)

    async def roll_up(self) -> int:
        """Renew rollups until none is due; return how many minutes were renewed."""
        if self._timescale is None:
            self._timescale = await upkeep.is_timescale(self._db)
        total = 0
        while True:
            if self._timescale:
                async with self._db.transaction() as connection:
                    now = await Look(connection).clock()
                settled = now - timedelta(seconds=SETTLE_SECONDS)
                rolled = await upkeep.roll_up_timescale(
                    self._settings.database, settled, most=MOST_MINUTES
                )
            else:
                rolled = await upkeep.roll_up(
                    self._db, settle_seconds=SETTLE_SECONDS, most=MOST_MINUTES
                )
            total += rolled
            if rolled < MOST_MINUTES:
                return total

    async def erase(self) -> int:
        """Carry on with the erasures that were approved; return how many rows went."""
        return sum([rows async for rows in erasure.carry_on(self._db)])

    async def upkeep(self) -> None:
        """Keep partitions ahead of time and drop what is too old."""
        periods = {kept: days_of(kept, self._settings) for kept in KEPT}
        dropped = await upkeep.keep_partitions(
            self._db, retention_days=self._settings.retention_days
        )
        await upkeep.forget_old(self._db, quarantine_days=self._settings.quarantine_days)
        gone = await upkeep.forget_rollups(
            self._db,
            minute_days=self._settings.retention_days,
            hour_days=self._settings.rollup_days,
        )
        for kept, days in periods.items():
            if kept.forgets:
                gone += await upkeep.forget(self._db, kept.forgets, days=days)
        gone += await erasure.sweep(self._db)
        _log.info("upkeep_done", partitions_dropped=dropped, rows_deleted=gone)

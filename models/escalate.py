"""The duty that climbs the ladders: timers that came due become deliveries, and none is lost."""

import asyncio
import math
import time
from datetime import datetime
from zoneinfo import ZoneInfo

from prometheus_client import CollectorRegistry, Counter, Gauge

from anxin.db import escalation as stored
from anxin.db.pool import Database, doorbell
from anxin.escalation import Plan, ended, ladder_for, plan
from anxin.logs import log

AT_ONCE = 100
_log = log(__name__)


class Metrics:
    """What Prometheus reads of escalation."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register beside the worker's other metrics."""
        self.steps = Counter(
            "anxin_escalation_steps", "steps of ladders carried out", ["reached"],
            registry=registry,
        )  # fmt: skip
        self.late = Gauge(
            "anxin_escalation_overdue_seconds", "how late the latest timer is", registry=registry
        )
        self.rescued = Counter(
            "anxin_alarms_rescued", "alarms found without a living timer or owner",
            registry=registry,
        )  # fmt: skip


class Escalator:
    """Sweeps the timers. Any number may run: a plan holds for the timer as it was read only."""

    def __init__(self, database: Database, zone: ZoneInfo, metrics: Metrics) -> None:
        """Work on this database; `zone` is where the ladders' days begin."""
        self._database = database
        self._zone = zone
        self._metrics = metrics
        self._next_due = math.inf

    def rest_seconds(self) -> float:
        """Return for how long no timer comes due that the last sweep could know of."""
        return self._next_due - time.monotonic()

    async def sweep(self, now: datetime | None = None) -> int:
        """Do everything that is due now and return how many timers moved."""
        total = 0
        while True:
            moment = now or await stored.clock(self._database)
            due, ladders, people = await stored.due(self._database, moment, limit=AT_ONCE)
            plans: dict[int, Plan] = {}
            fault_places: dict[int, int] = {}
            for one in due:
                timer, where = one.timer, one.where
                minutes = _minute_of_day(timer.began_at, self._zone)
                ladder = ladder_for(ladders, where.places, timer.ladder_priority, minutes)
                if ended(timer, ladder):
                    minutes = _minute_of_day(moment, self._zone)
                    ladder = ladder_for(ladders, where.places, timer.priority, minutes)
                made = plan(timer, ladder, where, people, moment)
                if made is not None:
                    plans[timer.alarm_id] = made
                    if one.fault_place is not None:
                        fault_places[timer.alarm_id] = one.fault_place
            # Raised before the plans are carried out: a worker that ends between the two finds
            # the same timers due again, and the fault is raised once.
            await stored.tell_unreachable(
                self._database,
                [fault_places[key] for key, one in plans.items()
                 if one.nobody and key in fault_places],
                [fault_places[key] for key, one in plans.items()
                 if one.somebody and key in fault_places],
            )  # fmt: skip
            done = await stored.carry_out(self._database, list(plans.values()))
            self._count(plans, done)
            total += len(done)
            if not done:
                next_due = await stored.next_due_seconds(self._database)
                self._next_due = math.inf if next_due is None else time.monotonic() + next_due
                return total

    async def watch_over(self) -> int:
        """Rescue alarms that nobody would ever be told of again; return how many there were."""
        rescued = await stored.rescue(self._database)
        if rescued:
            self._metrics.rescued.inc(rescued)
            _log.error("alarms_rescued", alarms=rescued)
        self._metrics.late.set(await stored.overdue_seconds(self._database))
        return rescued

    def _count(self, plans: dict[int, Plan], done: frozenset[int]) -> None:
        lines = [line for key in done for line in plans[key].lines]
        for change, reached in (("escalated", "somebody"), ("nobody_reached", "nobody")):
            count = sum(line.change == change for line in lines)
            if count:
                self._metrics.steps.labels(reached).inc(count)


def _minute_of_day(moment: datetime, zone: ZoneInfo) -> int:
    local = moment.astimezone(zone)
    return local.hour * 60 + local.minute


async def ring(dsn: str, bell: asyncio.Event) -> None:
    """Ring at every change of an alarm, so that its first step does not wait for the clock."""
    async for channel in doorbell(dsn, ["anxin_alarm"], every=60.0):
        if channel:
            bell.set()

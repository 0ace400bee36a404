"""The commit pipeline: decode, judge, one transaction, acknowledge.

Natural group commit: while a lane's transaction runs, messages gather; when it ends, all that
gathered go into the next. Emergencies have a lane of their own and wait for nobody.

While the database is away, a lane writes what arrives to the spool and acknowledges it there. When
the database is back the lane drains its part of the spool in order, still writing new arrivals
behind it, and goes straight to the database again once it is empty.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from anxin.db.arrays import Texts
from anxin.db.intake import (
    Due,
    DuplicateReadings,
    Intake,
    Newest,
    Raise,
    Recover,
    Transaction,
)
from anxin.errors import DatabaseUnavailable
from anxin.logs import log
from anxin.messages import (
    MAX_PAYLOAD,
    Event,
    decode_event,
    decode_result,
    decode_state,
    timestamp_us,
)
from anxin.rules import (
    ABSENT,
    EVENT_RECOVERS,
    PRESENT,
    Trigger,
    event_alarm,
    judge,
)
from anxin.vitals import COLUMN
from ingest.columns import (
    AHEAD,
    AHEAD_US,
    BEHIND,
    BEHIND_US,
    LATE,
    LATE_US,
    Columns,
    Refusal,
    copy_rows,
    gather,
)
from ingest.inbound import NOT_LOADED, Device, Inbound, Kind
from ingest.newest import newest, presence_is, since
from ingest.registry import Registry
from ingest.spool import Spool, Spooled, SpoolFull

MAX_BATCH: Final = 2_000
"""Payloads in one transaction: bounds how long preparing it holds up the event loop."""
MARK_AGAIN_US: Final = 45_000_000
"""A minute is marked for its rollup again after so long; the worker waits longer than this."""
LATEST_EMERGENCY_US: Final = 24 * 3_600_000_000
MAX_BATCH_BYTES: Final = 4 * 1024 * 1024
"""The same for payloads that are large: arrays of many objects."""
STALLED_SECONDS: Final = 10.0
"""A transaction that takes longer is broken off: the database hangs without closing anything."""
LONGEST_STALL_SECONDS: Final = 160.0
"""After each that was broken off the next may take twice as long, so that a slow one succeeds."""
AWAY_SECONDS: Final = 1.0
"""So long the database may be away before what arrives goes to the spool."""
ADOPT_SECONDS: Final = 10.0
"""Between two looks for spool files whose process is gone."""
ASK_AGAIN_SECONDS: Final = 0.5
"""Between two attempts to write to a full spool."""
_NIGHT: Final = (22, 6)
_BATTERY: Final = COLUMN["battery"]
_SIGNS_OF_LIFE: Final = frozenset({"bed_exit", "bed_return", "motion", "door_open", "door_closed"})
_NONE: Final = np.zeros(0, np.int64)
_NOTHING_DUE: Final = Due(_NONE, _NONE)
_NOBODY: Final = Newest(_NONE, _NONE, _NONE, _NONE, _NONE, _NONE, Texts())
_STATE: Final = ("keys", "onlines", "ats", "heards", "batteries", "rssis", "firmwares")
_OVERHEAD_BYTES: Final = 64
"""What one queued payload costs beside its own bytes."""
_log = log(__name__)


@dataclass(slots=True)
class Counters:
    """What the pipeline did since it started."""

    payloads: int = 0
    readings: int = 0
    duplicates: int = 0
    events: int = 0
    events_again: int = 0
    quarantined: int = 0
    triggers: int = 0
    transactions: int = 0
    retries: int = 0
    spooled: int = 0
    drained: int = 0


@dataclass(slots=True)
class _Work:
    """One transaction's worth: what arrived and what will be written.

    `judged_us` is when it is judged, where that is later than its receipt: it lay in the spool.
    """

    inbounds: list[Inbound]
    judged_us: int = 0
    columns: Columns | None = None
    rows: bytes = b""
    triggers: list[Trigger] = field(default_factory=list)
    latest: Newest | None = None
    due: Due = _NOTHING_DUE
    events: list["_Happening"] = field(default_factory=list)
    states: dict[int, list[Any]] = field(default_factory=dict)
    results: list[tuple[int, int, bool, str | None]] = field(default_factory=list)
    changes: list[Raise | Recover] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Happening:
    """An event with its times judged."""

    inbound: Inbound
    event: Event
    ts_us: int
    flags: int
    late: bool


class Lane:
    """A queue and the connection that empties it."""

    def __init__(self, name: str, dsn: str, *, urgent: bool) -> None:
        """Prepare an empty lane."""
        self.name = name
        self.urgent = urgent
        self.intake = Intake(dsn)
        self.queue: deque[Inbound] = deque()
        self.wake = asyncio.Event()
        self.expect_duplicates = False
        self.away_since: float | None = None
        """Since when its transactions fail; one lane may be blocked while the other is not."""
        self.spooling = asyncio.Event()
        """Set while what arrives goes to the spool; the connection is the draining task's then."""
        self.writing = False
        """Whether something is on its way into the spool."""
        self.refused = False
        """Whether the spool refused it."""
        self.unwritten: dict[int, Device] = {}
        """Devices whose live rules have seen readings that are not in the database."""

    def put(self, inbound: Inbound) -> None:
        """Add to the queue and wake the lane."""
        self.queue.append(inbound)
        self.wake.set()

    def take(self) -> list[Inbound]:
        """Take all that gathered, up to the size of one transaction."""
        taken: list[Inbound] = []
        count = size = 0
        while self.queue and count < MAX_BATCH and size < MAX_BATCH_BYTES:
            inbound = self.queue.popleft()
            taken.append(inbound)
            count += len(inbound.payloads)
            size += sum(map(len, inbound.payloads))
        return taken


class Pipeline:
    """Takes payloads from sources, commits them, and tells the sources so."""

    def __init__(
        self,
        dsn: str,
        registry: Registry,
        *,
        queue_bytes: int = 64 * 1024 * 1024,
        timezone: str = "Asia/Shanghai",
        receipt: Callable[[Inbound, str], None] | None = None,
        spool: Spool | None = None,
        ready: asyncio.Event | None = None,
    ) -> None:
        """Prepare a lane for ordinary messages and one for emergencies.

        `receipt` is called for every event once it is committed, with its id. Without a `spool`
        nothing is acknowledged while the database is away. Before `ready` is set the database is
        not touched.
        """
        self.counters = Counters()
        self._registry = registry
        self._zone = ZoneInfo(timezone)
        self._receipt = receipt
        self._urgent = Lane("urgent", dsn, urgent=True)
        self._ordinary = Lane("ordinary", dsn, urgent=False)
        self._queued = 0
        self._limit = queue_bytes
        self._waiting: list[Callable[[], None]] = []
        self._marked: dict[int, tuple[int, int]] = {}
        self._spool = spool
        self._ready = ready or _set()

    # --- what sources call

    def submit(self, inbound: Inbound) -> None:
        """Take payloads; `inbound.done` is called after they are committed."""
        self._queued += _weight(inbound)
        self.counters.payloads += len(inbound.payloads)
        if inbound.kind is Kind.EVENT:
            self._urgent.put(inbound)
        else:
            self._ordinary.put(inbound)

    @property
    def has_room(self) -> bool:
        """False while sources should stop reading from their devices."""
        return self._queued < self._limit

    def call_when_room(self, resume: Callable[[], None]) -> None:
        """Call `resume` once there is room again."""
        if self.has_room:
            resume()
        else:
            self._waiting.append(resume)

    @property
    def queued_bytes(self) -> int:
        """Bytes taken and not yet committed."""
        return self._queued

    @property
    def spool_full(self) -> bool:
        """Whether the spool refuses what arrives: it is not acknowledged then."""
        return self._urgent.refused or self._ordinary.refused

    @property
    def spool_bytes(self) -> int:
        """Bytes of the spool in use."""
        return self._spool.bytes if self._spool else 0

    # --- the lanes

    async def run(self) -> None:
        """Work until cancelled."""
        lanes = (self._urgent, self._ordinary)
        try:
            async with asyncio.TaskGroup() as group:
                if self._spool is not None:
                    group.create_task(self._adopt(self._spool), name="adopt spools")
                for lane in lanes:
                    if self._spool is not None:
                        if self._spool.holds(urgent=lane.urgent) or not self._ready.is_set():
                            lane.spooling.set()
                        group.create_task(self._drain(lane, self._spool), name=f"drain {lane.name}")
                    group.create_task(self._serve(lane), name=f"pipeline {lane.name}")
        finally:
            for lane in lanes:
                await lane.intake.close()

    async def _serve(self, lane: Lane) -> None:
        if self._spool is None:
            await self._ready.wait()
        while True:
            if not lane.queue:
                lane.wake.clear()
                await lane.wake.wait()
            if self._spool and self._spool.holds(urgent=lane.urgent):
                lane.spooling.set()  # here, where no transaction of this lane is under way
            inbounds = lane.take()
            if not inbounds:
                continue
            if lane.spooling.is_set() and await self._keep(lane, inbounds):
                continue
            if not self._registry.recalled or await self._settle(lane, inbounds):
                await self._commit(lane, inbounds)

    async def _settle(self, lane: Lane, inbounds: list[Inbound]) -> bool:
        """Load devices that were let in from memory; return False once these are in the spool."""
        new = [one for one in inbounds if one.device.row == NOT_LOADED]
        while new:
            try:
                found = await asyncio.gather(*(self._registry.find(one.device.id) for one in new))
            except DatabaseUnavailable:
                if await self._keep(lane, inbounds):
                    return False
                continue
            for one, device in zip(new, found, strict=True):
                one.device = device or Device(one.device.id, 0, 0)
            break
        return True

    async def _commit(self, lane: Lane, inbounds: list[Inbound], judged_us: int = 0) -> None:
        """Bring these into the database, whatever it takes, then say so."""
        try:
            work = self._prepare(inbounds, judged_us)
            await self._bring(lane, work)
        except Exception as error:  # noqa: BLE001  whatever the payload did, it must not stop others
            await self._isolate(lane, inbounds, error, judged_us)

    async def _bring(self, lane: Lane, work: _Work) -> None:
        """Bring this into the database, or into the spool, and say so."""
        while True:
            if work.judged_us or not lane.spooling.is_set():
                if await self._store_when_possible(lane, work):
                    break
                self._forget(lane, work.inbounds)
            if await self._keep(lane, work.inbounds):
                return
        self._finish(work)

    async def _isolate(
        self, lane: Lane, inbounds: list[Inbound], error: Exception, judged_us: int
    ) -> None:
        """Find the payload that cannot be stored by halving, and put it into quarantine."""
        # What the failed attempt left in memory was never written: start again from the database.
        self._marked.clear()
        while True:
            try:
                await self._rebuild({one.device.key: one.device for one in inbounds})
                break
            except DatabaseUnavailable:
                if self._spool and not judged_us:
                    self._forget(lane, inbounds)
                    if await self._keep(lane, inbounds):
                        return
                await asyncio.sleep(ASK_AGAIN_SECONDS)
        if len(inbounds) > 1:
            middle = len(inbounds) // 2
            await self._commit(lane, inbounds[:middle], judged_us)
            await self._commit(lane, inbounds[middle:], judged_us)
            return
        inbound = inbounds[0]
        if len(inbound.payloads) > 1:
            for payload in inbound.payloads:
                part = replace(inbound, payloads=[payload], packet_ids=None, done=_nothing)
                self._queued += _weight(part)
                await self._commit(lane, [part], judged_us)
            self._release(inbound)
            return
        _log.error(
            "payload_refused", device=inbound.device.id, kind=inbound.kind.name,
            error=type(error).__name__, exc_info=error,
        )  # fmt: skip
        why = f"cannot be stored: {type(error).__name__}"
        refusal = _refused(inbound, inbound.payloads[0], [why])
        await self._bring(lane, _Work([inbound], judged_us, refusals=[refusal]))

    async def _rebuild(self, devices: dict[int, Device]) -> None:
        """Set the rules of these devices back to what is stored; raise DatabaseUnavailable."""
        known = [device for key, device in devices.items() if key]
        if known:
            await self._registry.rebuild(known)

    async def _store_when_possible(self, lane: Lane, work: _Work) -> bool:
        """Try until the database has it; refusals by the database itself are the caller's.

        Return False when the database has been away for long enough to go to the spool instead.
        """
        pause, patience = 0.05, STALLED_SECONDS
        while True:
            began, merging = time.monotonic(), lane.expect_duplicates
            try:
                await self._store(lane, work, patience)
            except DuplicateReadings:
                if merging:
                    raise  # the merge itself cannot meet one
                lane.expect_duplicates = True
                self.counters.retries += 1
            except DatabaseUnavailable:
                now = time.monotonic()
                if lane.away_since is None:
                    lane.away_since = began
                    _log.warning("database_away", lane=lane.name, queued_bytes=self._queued)
                if now - began >= patience:
                    patience = min(patience * 2, LONGEST_STALL_SECONDS)
                self.counters.retries += 1
                # The outcome of the last attempt is unknown: it may have been committed. And the
                # marks made before it may have been settled meanwhile, without these readings.
                lane.expect_duplicates = True
                if work.columns is not None:
                    self._marked.clear()
                    work.due = self._due(work.columns)
                if self._spool and not work.judged_us and now - lane.away_since >= AWAY_SECONDS:
                    return False
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
            else:
                lane.away_since = None
                return True

    # --- the spool

    def _forget(self, lane: Lane, inbounds: list[Inbound]) -> None:
        """Undo what preparing these left in memory: they will be prepared again from the spool."""
        last_auto_us = self._registry.last_auto_us
        for inbound in inbounds:
            device = inbound.device
            if device.key:
                lane.unwritten[device.key] = device
                # A reading without a time of its own must get the same one again.
                if last_auto_us.get(device.row, 0) >= inbound.received_us:
                    last_auto_us[device.row] = inbound.received_us - 1
        self._marked.clear()

    async def _keep(self, lane: Lane, inbounds: list[Inbound]) -> bool:
        """Write these to the spool and acknowledge them; return False to try the database again.

        While the spool is full nothing is acknowledged, so sources stop reading in the end.
        """
        assert self._spool is not None  # noqa: S101  without one no lane begins to spool
        if not lane.spooling.is_set():
            _log.warning("spooling_begins", lane=lane.name)
        lane.spooling.set()
        runs = [Spooled(one.device.id, one.kind, one.received_us, one.payloads) for one in inbounds]
        lane.writing = True
        try:
            while True:
                try:
                    await self._spool.put(runs, urgent=lane.urgent)
                    break
                except SpoolFull as error:
                    if not lane.refused:
                        _log.error("spool_full", lane=lane.name, error=str(error))
                    lane.refused = True
                await asyncio.sleep(ASK_AGAIN_SECONDS)
                if not lane.spooling.is_set():
                    return False
        finally:
            lane.writing = lane.refused = False
        for inbound in inbounds:
            self.counters.spooled += len(inbound.payloads)
            self._release(inbound)
        return True

    async def _drain(self, lane: Lane, spool: Spool) -> None:
        """Bring what a lane has in the spool into the database, oldest first, each time anew."""
        while True:
            await lane.spooling.wait()
            await self._ready.wait()
            unwritten, lane.unwritten = lane.unwritten, {}
            while True:
                try:
                    await self._rebuild(unwritten)
                    break
                except DatabaseUnavailable:
                    await asyncio.sleep(ASK_AGAIN_SECONDS)
            drained = 0
            while True:
                found = await spool.take(MAX_BATCH, urgent=lane.urgent)
                if found:
                    drained += await self._drain_some(lane, spool, found)
                elif not lane.writing or lane.refused:
                    break
            # Nothing came between the last look and here, so no message overtakes another.
            lane.spooling.clear()
            _log.info("spool_drained", lane=lane.name, payloads=drained)

    async def _drain_some(
        self, lane: Lane, spool: Spool, found: Sequence[tuple[int, Spooled]]
    ) -> int:
        devices = await self._devices({one.device_id for _, one in found})
        inbounds = [
            Inbound(devices[one.device_id], one.kind, list(one.payloads), one.received_us, _nothing)
            for _, one in found
        ]
        self._queued += sum(map(_weight, inbounds))
        # Until this is committed the spool has it; a crash between the two stores it again, which
        # changes nothing.
        lane.expect_duplicates = True
        await self._commit(lane, inbounds, judged_us=time.time_ns() // 1000)
        while True:
            try:
                await spool.remove([number for number, _ in found], urgent=lane.urgent)
            except SpoolFull as error:
                _log.error("spool_not_emptied", lane=lane.name, error=str(error))
                await asyncio.sleep(ASK_AGAIN_SECONDS)
            else:
                break
        count = sum(len(one.payloads) for _, one in found)
        self.counters.drained += count
        return count

    async def _adopt(self, spool: Spool) -> None:
        """Take over the files of processes that died, some at a time, once ours is empty."""
        pause = ADOPT_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = ADOPT_SECONDS
            if spool.holds(urgent=True) or spool.holds(urgent=False):
                continue  # nothing can be stored yet, so nothing is gained by moving it
            if await spool.adopt():
                pause = ASK_AGAIN_SECONDS
                for lane in (self._urgent, self._ordinary):
                    lane.wake.set()

    async def _devices(self, ids: set[str]) -> dict[str, Device]:
        """Return these devices; one that is gone is as unknown as one that never was."""
        while True:
            try:
                found = await asyncio.gather(*map(self._registry.find, ids))
            except DatabaseUnavailable:
                await asyncio.sleep(ASK_AGAIN_SECONDS)
                continue
            return {
                id_: device or Device(id_, 0, 0) for id_, device in zip(ids, found, strict=True)
            }

    # --- one transaction

    async def _store(self, lane: Lane, work: _Work, patience_seconds: float) -> None:
        async with await lane.intake.transaction(patience_seconds) as transaction:
            changes = list(work.changes)
            if work.columns is not None and len(work.columns):
                changes += await self._store_readings(lane, transaction, work)
            if work.latest is not None or len(work.due.keys):
                await transaction.latest(work.latest or _NOBODY, work.due)
            if work.events:
                changes += await self._store_events(transaction, work.events)
            if work.states:
                columns = zip(*(work.states[key] for key in sorted(work.states)), strict=True)
                await transaction.states(
                    {name: list(column) for name, column in zip(_STATE, columns, strict=True)}
                )
            if work.results:
                keys, ids, oks, results = map(list, zip(*work.results, strict=True))
                await transaction.results(
                    {"keys": keys, "ids": ids, "oks": oks, "results": results}
                )
            if work.refusals:
                await transaction.quarantine(_quarantine_columns(work.refusals))
            if changes:
                await transaction.alarms(changes)
        self.counters.transactions += 1

    async def _store_readings(
        self, lane: Lane, transaction: Transaction, work: _Work
    ) -> list[Raise | Recover]:
        columns = work.columns
        assert columns is not None  # noqa: S101  the caller looked
        triggers = work.triggers
        if lane.expect_duplicates:
            new = await transaction.merge(work.rows)
            lane.expect_duplicates = len(new) < len(columns)
            self.counters.duplicates += len(columns) - len(new)
            triggers = [
                trigger
                for trigger in triggers
                if (int(columns.keys[trigger.index]), int(columns.ts_us[trigger.index])) in new
            ]
        else:
            await transaction.copy(work.rows)
        self.counters.triggers += len(triggers)
        return [self._change(trigger) for trigger in triggers]

    async def _store_events(
        self, transaction: Transaction, happenings: Sequence[_Happening]
    ) -> list[Raise | Recover]:
        new = await transaction.events(
            {
                "keys": [one.inbound.device.key for one in happenings],
                "ids": [one.event.id for one in happenings],
                "types": [one.event.type for one in happenings],
                "ts": [one.ts_us for one in happenings],
                "received": [one.inbound.received_us for one in happenings],
                "flags": [one.flags for one in happenings],
                "details": [
                    None if one.event.detail is None
                    else msgspec.json.encode(one.event.detail).decode()
                    for one in happenings
                ],
            }
        )  # fmt: skip
        self.counters.events += len(new)
        self.counters.events_again += len(happenings) - len(new)
        fresh = [one for one in happenings if (one.inbound.device.key, one.event.id) in new]
        latest = self._latest_of_events(fresh)
        if latest is not None:
            await transaction.latest(latest, _NOTHING_DUE)
        return [change for one in fresh for change in self._event_changes(one)]

    def _finish(self, work: _Work) -> None:
        counters = self.counters
        for one in work.events:
            if self._receipt is not None:
                _call(self._receipt, one.inbound, one.event.id)
        counters.quarantined += len(work.refusals)
        if work.columns is not None:
            counters.readings += len(work.columns)
        for inbound in work.inbounds:
            self._release(inbound)

    def _release(self, inbound: Inbound) -> None:
        self._queued -= _weight(inbound)
        _call(inbound.done, inbound)
        if self._waiting and self._queued < self._limit // 2:
            waiting, self._waiting = self._waiting, []
            for resume in waiting:
                resume()

    # --- from payloads to what will be written

    def _prepare(self, inbounds: list[Inbound], judged_us: int) -> _Work:
        work = _Work(inbounds, judged_us)
        telemetry = []
        for inbound in inbounds:
            if not inbound.device.key:
                work.refusals += [
                    _refused(inbound, payload, ["unknown device"]) for payload in inbound.payloads
                ]
            elif inbound.kind is Kind.TELEMETRY:
                telemetry.append(inbound)
            elif inbound.kind is Kind.EVENT:
                self._take_events(inbound, work)
            elif inbound.kind is Kind.STATE:
                self._take_states(inbound, work)
            else:
                self._take_results(inbound, work)
        if telemetry:
            self._take_telemetry(telemetry, work)
        return work

    def _take_telemetry(self, inbounds: list[Inbound], work: _Work) -> None:
        registry = self._registry
        columns, refusals = gather(inbounds, registry.last_auto_us)
        work.refusals += refusals
        if not len(columns):
            return
        work.columns = columns
        work.rows = copy_rows(columns)
        usable = columns.usable
        if work.judged_us:
            usable &= columns.ts_us >= work.judged_us - LATE_US
        work.triggers = judge(
            registry.live, columns.rows, columns.ts_us, columns.values, columns.presence, usable
        )
        work.latest = newest(registry, columns)
        work.due = self._due(columns)

    def _due(self, columns: Columns) -> Due:
        """Return the minutes of devices whose rollups this batch makes stale."""
        minutes = columns.ts_us // 60_000_000
        changes = np.r_[
            True, (columns.keys[1:] != columns.keys[:-1]) | (minutes[1:] != minutes[:-1])
        ]
        keys: list[int] = []
        due: list[int] = []
        for place in np.flatnonzero(changes).tolist():
            key, minute = int(columns.keys[place]), int(minutes[place])
            now = int(columns.received_us[place])
            was, when = self._marked.get(key, (-1, 0))
            if was == minute and 0 <= now - when < MARK_AGAIN_US:
                continue
            self._marked[key] = (minute, now)
            keys.append(key)
            due.append(minute)
        return Due(np.array(keys, np.int64), np.array(due, np.int64))

    def _take_events(self, inbound: Inbound, work: _Work) -> None:
        seen = {(one.inbound.device.key, one.event.id) for one in work.events}
        for payload in inbound.payloads:
            event, reasons = decode_event(payload)
            if reasons:
                work.refusals.append(_refused(inbound, payload, reasons))
            if event is None or (inbound.device.key, event.id) in seen:
                continue
            seen.add((inbound.device.key, event.id))
            told = None if event.ts is None else timestamp_us(event.ts)
            ts_us = inbound.received_us if told is None else told
            delay = inbound.received_us - ts_us
            # Stored is how late it came; the alarm is late as well when it lay in the spool.
            late = max(delay, work.judged_us - ts_us) > LATE_US
            flags = (
                LATE * (delay > LATE_US)
                | AHEAD * (delay < -AHEAD_US)
                | BEHIND * (delay > BEHIND_US)
            )
            work.events.append(_Happening(inbound, event, ts_us, flags, late))

    def _event_changes(self, one: _Happening) -> list[Raise | Recover]:
        """Return what an event does to alarms."""
        age = one.inbound.received_us - one.ts_us
        if one.flags & AHEAD or age > LATEST_EMERGENCY_US:
            return []
        device = one.inbound.device
        card = self._registry.card(device)
        changes: list[Raise | Recover] = [
            Recover(card.subject, kind, device.id)
            for kind in EVENT_RECOVERS.get(one.event.type, ())
        ]
        hour = datetime.fromtimestamp(one.ts_us / 1_000_000, self._zone).hour
        alarm = event_alarm(
            one.event.type,
            wander_risk=card.wander_risk,
            fall_risk=card.fall_risk,
            night=hour >= _NIGHT[0] or hour < _NIGHT[1],
        )
        if alarm is not None:
            detail: dict[str, Any] = {"event_id": one.event.id, "event_type": one.event.type}
            if one.event.detail:
                detail["event_detail"] = one.event.detail
            changes.append(
                Raise(
                    card.subject,
                    card.resident_id,
                    card.place_id,
                    device.key,
                    alarm.kind,
                    alarm.class_,
                    alarm.priority,
                    one.ts_us,
                    one.late,
                    1,
                    detail,
                    device.id,
                )
            )
        return changes

    def _latest_of_events(self, happenings: Sequence[_Happening]) -> Newest | None:
        """Beds left and motion seen are signs of life, also when an event tells them."""
        registry = self._registry
        devices: dict[int, tuple[_Happening, dict[str, Any]]] = {}
        for one in sorted(happenings, key=lambda one: (one.inbound.device.key, one.ts_us)):
            if one.flags & (AHEAD | BEHIND) or one.event.type not in _SIGNS_OF_LIFE:
                continue
            row = one.inbound.device.row
            _, metrics = devices.get(row, (one, {}))
            code = {"bed_exit": ABSENT, "bed_return": PRESENT}.get(one.event.type)
            if code is not None and one.ts_us > max(
                registry.absent_us[row], registry.present_us[row]
            ):
                presence_is(registry, row, code, one.ts_us)
                registry.live.presence[row] = code
                word = "absent" if code == ABSENT else "present"
                metrics["presence"] = (word, one.ts_us // 1000)
            registry.active_us[row] = max(registry.active_us[row], one.ts_us)
            devices[row] = (one, metrics)
        if not devices:
            return None
        told = [one for one, _ in devices.values()]
        return since(
            registry,
            list(devices),
            keys=np.array([one.inbound.device.key for one in told], np.int64),
            ts_us=np.array([one.ts_us for one in told], np.int64),
            received_us=np.array([one.inbound.received_us for one in told], np.int64),
            metrics=Texts(msgspec.json.encode(metrics).decode() for _, metrics in devices.values()),
        )

    def _take_states(self, inbound: Inbound, work: _Work) -> None:
        key = inbound.device.key
        for payload in inbound.payloads:
            state, reasons = decode_state(payload)
            if reasons:
                work.refusals.append(_refused(inbound, payload, reasons))
            if state is None:
                continue
            old = work.states.get(key, [key, None, 0, False, None, None, None])
            told = [state.online, state.battery, state.rssi, state.firmware]
            merged = [
                before if value is None else value
                for before, value in zip([old[1], *old[4:]], told, strict=True)
            ]
            # A will says that the device is gone; it is no sign of life.
            heard = bool(old[3]) or state.online is not False
            work.states[key] = [key, merged[0], inbound.received_us, heard, *merged[1:]]
            if state.battery is not None:
                work.changes += self._battery(inbound, state.battery)

    def _battery(self, inbound: Inbound, battery: float) -> list[Raise | Recover]:
        """Judge the charge that a device tells of itself by the rule for metrics."""
        row, live = inbound.device.row, self._registry.live
        values = np.full((1, live.last_us.shape[0]), np.nan)
        values[0, _BATTERY] = battery
        one = np.array([row], np.int64)
        now = np.array([inbound.received_us], np.int64)
        triggers = judge(live, one, now, values, np.array([-1]), np.array([True]))
        return [self._change(trigger) for trigger in triggers]

    def _take_results(self, inbound: Inbound, work: _Work) -> None:
        for payload in inbound.payloads:
            result, reasons = decode_result(payload)
            if result is None:
                work.refusals.append(_refused(inbound, payload, reasons))
                continue
            detail = None if result.detail is None else msgspec.json.encode(result.detail).decode()
            work.results.append((inbound.device.key, int(result.id), result.ok, detail))

    def _change(self, trigger: Trigger) -> Raise | Recover:
        card = self._registry.cards[trigger.row]
        if not trigger.priority:
            return Recover(card.subject, trigger.kind, card.id)
        return Raise(
            card.subject, card.resident_id, card.place_id, card.key, trigger.kind,
            trigger.class_, trigger.priority, trigger.at_us, False, 1, trigger.detail, card.id,
        )  # fmt: skip


def _weight(inbound: Inbound) -> int:
    return sum(map(len, inbound.payloads)) + _OVERHEAD_BYTES * len(inbound.payloads)


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


def _call(told: Callable[..., None], *of: object) -> None:
    """Tell a source; should it fail, what is committed stays so and the others hear of theirs."""
    try:
        told(*of)
    except Exception:  # noqa: BLE001  a fault of one source is none of the others
        _log.exception("source_not_told")


def _nothing(_: Inbound) -> None:
    """A part of an inbound is acknowledged with the whole."""


def _refused(inbound: Inbound, payload: bytes, reasons: list[str]) -> Refusal:
    return Refusal(
        inbound.device.id,
        inbound.kind.name.lower(),
        payload,
        "; ".join(reasons)[:2000],
        inbound.received_us,
    )


def _quarantine_columns(refusals: Sequence[Refusal]) -> dict[str, list[Any]]:
    return {
        "received": [one.received_us for one in refusals],
        "devices": [one.device_id for one in refusals],
        "kinds": [one.kind for one in refusals],
        "reasons": [one.reason.replace("\0", "") for one in refusals],
        "sizes": [len(one.payload) for one in refusals],
        "payloads": [one.payload[:MAX_PAYLOAD] for one in refusals],
    }

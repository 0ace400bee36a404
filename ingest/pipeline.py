"""The commit pipeline: prepare a batch, one transaction, acknowledge.

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
from dataclasses import dataclass, replace
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from anxin.db.intake import DuplicateReadings, Intake, Raise, Recover, Transaction
from anxin.errors import DatabaseUnavailable
from anxin.logs import log
from anxin.messages import MAX_PAYLOAD
from ingest.batch import NOBODY, NOTHING_DUE, Batch, Batches, Happening, refused
from ingest.columns import Refusal
from ingest.inbound import NOT_LOADED, Device, Inbound, Kind
from ingest.registry import Registry
from ingest.spool import Spool, Spooled, SpoolFull

MAX_BATCH: Final = 2_000
"""Payloads in one transaction: bounds how long preparing it holds up the event loop."""
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
        self._batches = Batches(registry, ZoneInfo(timezone))
        self._receipt = receipt
        self._urgent = Lane("urgent", dsn, urgent=True)
        self._ordinary = Lane("ordinary", dsn, urgent=False)
        self._queued = 0
        self._limit = queue_bytes
        self._waiting: list[Callable[[], None]] = []
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
            batch = self._batches.prepare(inbounds, judged_us)
            await self._bring(lane, batch)
        except Exception as error:  # noqa: BLE001  whatever the payload did, it must not stop others
            await self._isolate(lane, inbounds, error, judged_us)

    async def _bring(self, lane: Lane, batch: Batch) -> None:
        """Bring this into the database, or into the spool, and say so."""
        while True:
            if batch.judged_us or not lane.spooling.is_set():
                if await self._store_when_possible(lane, batch):
                    break
                self._forget(lane, batch.inbounds)
            if await self._keep(lane, batch.inbounds):
                return
        self._finish(batch)

    async def _isolate(
        self, lane: Lane, inbounds: list[Inbound], error: Exception, judged_us: int
    ) -> None:
        """Find the payload that cannot be stored by halving, and put it into quarantine."""
        # What the failed attempt left in memory was never written: start again from the database.
        self._batches.forget_marks()
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
        refusal = refused(inbound, inbound.payloads[0], [why])
        await self._bring(lane, Batch([inbound], judged_us, refusals=[refusal]))

    async def _rebuild(self, devices: dict[int, Device]) -> None:
        """Set the rules of these devices back to what is stored; raise DatabaseUnavailable."""
        known = [device for key, device in devices.items() if key]
        if known:
            await self._registry.rebuild(known)

    async def _store_when_possible(self, lane: Lane, batch: Batch) -> bool:
        """Try until the database has it; refusals by the database itself are the caller's.

        Return False when the database has been away for long enough to go to the spool instead.
        """
        pause, patience = 0.05, STALLED_SECONDS
        while True:
            began, merging = time.monotonic(), lane.expect_duplicates
            try:
                await self._store(lane, batch, patience)
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
                if batch.columns is not None:
                    self._batches.forget_marks()
                    batch.due = self._batches.due(batch.columns)
                if self._spool and not batch.judged_us and now - lane.away_since >= AWAY_SECONDS:
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
        self._batches.forget_marks()

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

    async def _store(self, lane: Lane, batch: Batch, patience_seconds: float) -> None:
        async with await lane.intake.transaction(patience_seconds) as transaction:
            changes = list(batch.changes)
            if batch.columns is not None and len(batch.columns):
                changes += await self._store_readings(lane, transaction, batch)
            if batch.latest is not None or len(batch.due.keys):
                await transaction.latest(batch.latest or NOBODY, batch.due)
            if batch.events:
                changes += await self._store_events(transaction, batch.events)
            if batch.states:
                columns = zip(*(batch.states[key] for key in sorted(batch.states)), strict=True)
                await transaction.states(
                    {name: list(column) for name, column in zip(_STATE, columns, strict=True)}
                )
            if batch.results:
                keys, ids, oks, results = map(list, zip(*batch.results, strict=True))
                await transaction.results(
                    {"keys": keys, "ids": ids, "oks": oks, "results": results}
                )
            if batch.refusals:
                await transaction.quarantine(_quarantine_columns(batch.refusals))
            if changes:
                await transaction.alarms(changes)
        self.counters.transactions += 1

    async def _store_readings(
        self, lane: Lane, transaction: Transaction, batch: Batch
    ) -> list[Raise | Recover]:
        columns = batch.columns
        assert columns is not None  # noqa: S101  the caller looked
        triggers = batch.triggers
        if lane.expect_duplicates:
            new = await transaction.merge(batch.rows)
            lane.expect_duplicates = len(new) < len(columns)
            self.counters.duplicates += len(columns) - len(new)
            triggers = [
                trigger
                for trigger in triggers
                if (int(columns.keys[trigger.index]), int(columns.ts_us[trigger.index])) in new
            ]
        else:
            await transaction.copy(batch.rows)
        self.counters.triggers += len(triggers)
        return [self._batches.change(trigger) for trigger in triggers]

    async def _store_events(
        self, transaction: Transaction, happenings: Sequence[Happening]
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
        latest = self._batches.latest_of_events(fresh)
        if latest is not None:
            await transaction.latest(latest, NOTHING_DUE)
        return [change for one in fresh for change in self._batches.event_changes(one)]

    def _finish(self, batch: Batch) -> None:
        counters = self.counters
        for one in batch.events:
            if self._receipt is not None:
                _call(self._receipt, one.inbound, one.event.id)
        counters.quarantined += len(batch.refusals)
        if batch.columns is not None:
            counters.readings += len(batch.columns)
        for inbound in batch.inbounds:
            self._release(inbound)

    def _release(self, inbound: Inbound) -> None:
        self._queued -= _weight(inbound)
        _call(inbound.done, inbound)
        if self._waiting and self._queued < self._limit // 2:
            waiting, self._waiting = self._waiting, []
            for resume in waiting:
                resume()


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


def _quarantine_columns(refusals: Sequence[Refusal]) -> dict[str, list[Any]]:
    return {
        "received": [one.received_us for one in refusals],
        "devices": [one.device_id for one in refusals],
        "kinds": [one.kind for one in refusals],
        "reasons": [one.reason.replace("\0", "") for one in refusals],
        "sizes": [len(one.payload) for one in refusals],
        "payloads": [one.payload[:MAX_PAYLOAD] for one in refusals],
    }

"""A batch: what one transaction of the pipeline will write, prepared from payloads.

Payloads are decoded, their times judged, readings put into columns and given to the live rules.
Nothing here waits: no database, no clock of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from anxin.db.arrays import Texts
from anxin.db.intake import Due, Newest, Raise, Recover
from anxin.messages import Event, decode_event, decode_result, decode_state, timestamp_us
from anxin.rules import ABSENT, EVENT_RECOVERS, PRESENT, Trigger, event_alarm, judge
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
from ingest.inbound import Inbound, Kind
from ingest.newest import newest, presence_is, since
from ingest.registry import Registry

MARK_AGAIN_US: Final = 45_000_000
"""A minute is marked for its rollup again after so long; the worker waits longer than this."""
LATEST_EMERGENCY_US: Final = 24 * 3_600_000_000
_NIGHT: Final = (22, 6)
_BATTERY: Final = COLUMN["battery"]
_SIGNS_OF_LIFE: Final = frozenset({"bed_exit", "bed_return", "motion", "door_open", "door_closed"})
_NONE: Final = np.zeros(0, np.int64)
NOTHING_DUE: Final = Due(_NONE, _NONE)
NOBODY: Final = Newest(_NONE, _NONE, _NONE, _NONE, _NONE, _NONE, Texts())


@dataclass(slots=True)
class Batch:
    """One transaction's worth: what arrived and what will be written.

    `judged_us` is when it is judged, where that is later than its receipt: it lay in the spool.
    """

    inbounds: list[Inbound]
    judged_us: int = 0
    columns: Columns | None = None
    rows: bytes = b""
    triggers: list[Trigger] = field(default_factory=list)
    latest: Newest | None = None
    due: Due = NOTHING_DUE
    events: list["Happening"] = field(default_factory=list)
    states: dict[int, list[Any]] = field(default_factory=dict)
    results: list[tuple[int, int, bool, str | None]] = field(default_factory=list)
    changes: list[Raise | Recover] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Happening:
    """An event with its times judged."""

    inbound: Inbound
    event: Event
    ts_us: int
    flags: int
    late: bool


class Batches:
    """Prepares batches with the state of this process: devices, live rules, minutes marked."""

    def __init__(self, registry: Registry, zone: ZoneInfo) -> None:
        """Start without marks; `zone` says when it is night."""
        self._registry = registry
        self._zone = zone
        self._marked: dict[int, tuple[int, int]] = {}

    def forget_marks(self) -> None:
        """Mark every minute again: it is not known which marks were stored, or settled since."""
        self._marked.clear()

    def prepare(self, inbounds: list[Inbound], judged_us: int) -> Batch:
        """Return what these payloads are to write; `judged_us` as in `Batch`."""
        batch = Batch(inbounds, judged_us)
        telemetry = []
        for inbound in inbounds:
            if not inbound.device.key:
                batch.refusals += [
                    refused(inbound, payload, ["unknown device"]) for payload in inbound.payloads
                ]
            elif inbound.kind is Kind.TELEMETRY:
                telemetry.append(inbound)
            elif inbound.kind is Kind.EVENT:
                self._take_events(inbound, batch)
            elif inbound.kind is Kind.STATE:
                self._take_states(inbound, batch)
            else:
                self._take_results(inbound, batch)
        if telemetry:
            self._take_telemetry(telemetry, batch)
        return batch

    def _take_telemetry(self, inbounds: list[Inbound], batch: Batch) -> None:
        registry = self._registry
        columns, refusals = gather(inbounds, registry.last_auto_us)
        batch.refusals += refusals
        if not len(columns):
            return
        batch.columns = columns
        batch.rows = copy_rows(columns)
        usable = columns.usable
        if batch.judged_us:
            usable &= columns.ts_us >= batch.judged_us - LATE_US
        batch.triggers = judge(
            registry.live, columns.rows, columns.ts_us, columns.values, columns.presence, usable
        )
        batch.latest = newest(registry, columns)
        batch.due = self.due(columns)

    def due(self, columns: Columns) -> Due:
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

    def _take_events(self, inbound: Inbound, batch: Batch) -> None:
        seen = {(one.inbound.device.key, one.event.id) for one in batch.events}
        for payload in inbound.payloads:
            event, reasons = decode_event(payload)
            if reasons:
                batch.refusals.append(refused(inbound, payload, reasons))
            if event is None or (inbound.device.key, event.id) in seen:
                continue
            seen.add((inbound.device.key, event.id))
            told = None if event.ts is None else timestamp_us(event.ts)
            ts_us = inbound.received_us if told is None else told
            delay = inbound.received_us - ts_us
            # Stored is how late it came; the alarm is late as well when it lay in the spool.
            late = max(delay, batch.judged_us - ts_us) > LATE_US
            flags = (
                LATE * (delay > LATE_US)
                | AHEAD * (delay < -AHEAD_US)
                | BEHIND * (delay > BEHIND_US)
            )
            batch.events.append(Happening(inbound, event, ts_us, flags, late))

    def event_changes(self, one: Happening) -> list[Raise | Recover]:
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

    def latest_of_events(self, happenings: Sequence[Happening]) -> Newest | None:
        """Beds left and motion seen are signs of life, also when an event tells them."""
        registry = self._registry
        devices: dict[int, tuple[Happening, dict[str, Any]]] = {}
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

    def _take_states(self, inbound: Inbound, batch: Batch) -> None:
        key = inbound.device.key
        for payload in inbound.payloads:
            state, reasons = decode_state(payload)
            if reasons:
                batch.refusals.append(refused(inbound, payload, reasons))
            if state is None:
                continue
            old = batch.states.get(key, [key, None, 0, False, None, None, None])
            told = [state.online, state.battery, state.rssi, state.firmware]
            merged = [
                before if value is None else value
                for before, value in zip([old[1], *old[4:]], told, strict=True)
            ]
            # A will says that the device is gone; it is no sign of life.
            heard = bool(old[3]) or state.online is not False
            batch.states[key] = [key, merged[0], inbound.received_us, heard, *merged[1:]]
            if state.battery is not None:
                batch.changes += self._battery(inbound, state.battery)

    def _battery(self, inbound: Inbound, battery: float) -> list[Raise | Recover]:
        """Judge the charge that a device tells of itself by the rule for metrics."""
        row, live = inbound.device.row, self._registry.live
        values = np.full((1, live.last_us.shape[0]), np.nan)
        values[0, _BATTERY] = battery
        one = np.array([row], np.int64)
        now = np.array([inbound.received_us], np.int64)
        triggers = judge(live, one, now, values, np.array([-1]), np.array([True]))
        return [self.change(trigger) for trigger in triggers]

    def _take_results(self, inbound: Inbound, batch: Batch) -> None:
        for payload in inbound.payloads:
            result, reasons = decode_result(payload)
            if result is None:
                batch.refusals.append(refused(inbound, payload, reasons))
                continue
            detail = None if result.detail is None else msgspec.json.encode(result.detail).decode()
            batch.results.append((inbound.device.key, int(result.id), result.ok, detail))

    def change(self, trigger: Trigger) -> Raise | Recover:
        """Return what a rule's finding does to the alarm of its resident."""
        card = self._registry.cards[trigger.row]
        if not trigger.priority:
            return Recover(card.subject, trigger.kind, card.id)
        return Raise(
            card.subject, card.resident_id, card.place_id, card.key, trigger.kind,
            trigger.class_, trigger.priority, trigger.at_us, False, 1, trigger.detail, card.id,
        )  # fmt: skip


def refused(inbound: Inbound, payload: bytes, reasons: list[str]) -> Refusal:
    """Return a payload that goes to quarantine, with the reasons."""
    return Refusal(
        inbound.device.id,
        inbound.kind.name.lower(),
        payload,
        "; ".join(reasons)[:2000],
        inbound.received_us,
    )

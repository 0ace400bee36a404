"""From a batch to what is newest of each device: one entry of the table `latest` per device."""

from typing import Any

import msgspec
import numpy as np

from anxin.rules import ABSENT, PRESENT
from anxin.vitals import COLUMN, CONSCIOUSNESS, NAMES, PRESENCE
from ingest.columns import AHEAD, BEHIND, Columns
from ingest.registry import Registry

ACTIVE_MOVEMENT = 0.1
"""Movement from which a person counts as active."""


def newest(registry: Registry, columns: Columns) -> dict[str, list[Any]]:
    """Return the columns of `Transaction.latest`, and remember since when beds are empty.

    Readings of devices whose clock is far off do not take part.
    """
    out: dict[str, list[Any]] = {
        "keys": [], "ts": [], "received": [], "active": [], "absent": [], "present": [],
        "metrics": [],
    }  # fmt: skip
    rightly_dated = (columns.flags & (AHEAD | BEHIND)) == 0
    if not rightly_dated.all():
        columns = columns.take(np.flatnonzero(rightly_dated))
    if not len(columns):
        return out
    starts = np.flatnonzero(np.r_[True, columns.rows[1:] != columns.rows[:-1]])
    here = np.arange(len(columns))
    last = np.maximum.reduceat(
        np.where(np.isnan(columns.values), -1, here[:, None]), starts, axis=0
    )
    moved = columns.values[:, COLUMN["movement"]] >= ACTIVE_MOVEMENT
    last_moved = np.maximum.reduceat(np.where(moved, here, -1), starts)
    coded = {
        name: np.maximum.reduceat(np.where(getattr(columns, name) >= 0, here, -1), starts)
        for name in ("presence", "consciousness", "oxygen")
    }
    ends = np.r_[starts[1:], len(columns)]
    times_ms = columns.ts_us // 1000
    for part, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        row = int(columns.rows[start])
        metrics: dict[str, Any] = {}
        for column in np.flatnonzero(last[part] >= 0).tolist():
            place = last[part, column]
            metrics[NAMES[column]] = (
                float(columns.values[place, column]),
                int(times_ms[place]),
            )
        for name, places in coded.items():
            if (place := int(places[part])) >= 0:
                metrics[name] = (_word(name, int(getattr(columns, name)[place])),
                                 int(times_ms[place]))  # fmt: skip
        if "presence" in metrics:
            _follow_presence(registry, columns, row, start, end)
        if (place := int(last_moved[part])) >= 0:
            registry.active_us[row] = max(registry.active_us[row], int(columns.ts_us[place]))
        out["keys"].append(int(columns.keys[start]))
        out["ts"].append(int(columns.ts_us[end - 1]))
        out["received"].append(int(columns.received_us[start:end].max()))
        add_since(registry, row, out)
        out["metrics"].append(msgspec.json.encode(metrics).decode())
    return out


def add_since(registry: Registry, row: int, out: dict[str, list[Any]]) -> None:
    """Append since when a device's person is active, away, there."""
    out["active"].append(registry.active_us[row] or None)
    out["absent"].append(registry.absent_us[row] or None)
    out["present"].append(registry.present_us[row] or None)


def presence_is(registry: Registry, row: int, code: int, at_us: int) -> None:
    """Follow one word about presence: a new spell begins only when it changes."""
    if code == ABSENT and not registry.absent_us[row]:
        registry.absent_us[row] = at_us
        registry.active_us[row] = max(registry.active_us[row], at_us)
    elif code == PRESENT and (registry.absent_us[row] or not registry.present_us[row]):
        registry.present_us[row] = at_us
        registry.absent_us[row] = 0
        registry.active_us[row] = max(registry.active_us[row], at_us)


def _follow_presence(registry: Registry, columns: Columns, row: int, start: int, end: int) -> None:
    began = max(registry.absent_us[row], registry.present_us[row])
    for place in range(start, end):
        code, at_us = int(columns.presence[place]), int(columns.ts_us[place])
        if code >= 0 and at_us > began:
            presence_is(registry, row, code, at_us)


def _word(name: str, code: int) -> str | bool:
    if name == "presence":
        return PRESENCE[code]
    return CONSCIOUSNESS[code] if name == "consciousness" else bool(code)

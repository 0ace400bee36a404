"""From a batch to what is newest of each device: one entry of the table `latest` per device."""

from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from anxin.db.arrays import Texts
from anxin.db.intake import Newest
from anxin.rules import ABSENT, PRESENT
from anxin.vitals import COLUMN, CONSCIOUSNESS, NAMES, PRESENCE
from ingest.columns import AHEAD, BEHIND, Columns
from ingest.registry import Registry

Ints = NDArray[np.int64]
ACTIVE_MOVEMENT = 0.1
"""Movement from which a person counts as active."""
_PRESENCE: Final = len(NAMES)
_MOVED: Final = len(NAMES) + 3
_CODED: Final[tuple[tuple[int, str, tuple[Any, ...]], ...]] = (
    (_PRESENCE, "presence", PRESENCE),
    (_PRESENCE + 1, "consciousness", CONSCIOUSNESS),
    (_PRESENCE + 2, "oxygen", (False, True)),
)


def newest(registry: Registry, columns: Columns) -> Newest | None:
    """Return what is newest of each device, and remember since when beds are empty.

    Readings of devices whose clock is far off do not take part.
    """
    rightly_dated = (columns.flags & (AHEAD | BEHIND)) == 0
    if not rightly_dated.all():
        columns = columns.take(np.flatnonzero(rightly_dated))
    if not len(columns):
        return None
    starts = np.flatnonzero(np.r_[True, columns.rows[1:] != columns.rows[:-1]])
    ends = np.r_[starts[1:], len(columns)]
    here = np.arange(len(columns))
    moved = columns.values[:, COLUMN["movement"]] >= ACTIVE_MOVEMENT
    present = np.column_stack(
        [
            ~np.isnan(columns.values),
            columns.presence >= 0,
            columns.consciousness >= 0,
            columns.oxygen >= 0,
            moved,
        ]
    )
    # For every device and column the last place at which there is a value, or -1.
    last = np.maximum.reduceat(np.where(present, here[:, None], -1), starts, axis=0)
    rows = columns.rows[starts].tolist()
    times_us = columns.ts_us.tolist()
    places = last.tolist()
    if last[:, _PRESENCE].max() >= 0:
        for row, start, end, told in zip(
            rows, starts.tolist(), ends.tolist(), last[:, _PRESENCE].tolist(), strict=True
        ):
            if told >= 0:
                _follow_presence(registry, columns, row, start, end)
    for row, told in zip(rows, last[:, _MOVED].tolist(), strict=True):
        if told >= 0 and times_us[told] > registry.active_us[row]:
            registry.active_us[row] = times_us[told]
    return since(
        registry,
        rows,
        keys=columns.keys[starts],
        ts_us=columns.ts_us[ends - 1],
        received_us=np.maximum.reduceat(columns.received_us, starts),
        metrics=_metrics(columns, places, times_us),
    )


def _metrics(columns: Columns, places: list[list[int]], times_us: list[int]) -> Texts:
    values = columns.values.tolist()
    encode = msgspec.json.encode
    texts = Texts()
    for of_device in places:
        metrics: dict[str, tuple[float | str | bool, int]] = {
            name: (values[place][column], times_us[place] // 1000)
            for column, (name, place) in enumerate(zip(NAMES, of_device, strict=False))
            if place >= 0
        }
        for column, name, words in _CODED:
            if (place := of_device[column]) >= 0:
                metrics[name] = (words[getattr(columns, name)[place]], times_us[place] // 1000)
        texts.append(encode(metrics).decode())
    return texts


def since(
    registry: Registry,
    rows: list[int],
    *,
    keys: Ints,
    ts_us: Ints,
    received_us: Ints,
    metrics: Texts,
) -> Newest:
    """Add since when each device's person is active, away, there."""
    return Newest(
        keys=keys,
        ts_us=ts_us,
        received_us=received_us,
        active_us=np.array([registry.active_us[row] for row in rows], np.int64),
        absent_us=np.array([registry.absent_us[row] for row in rows], np.int64),
        present_us=np.array([registry.present_us[row] for row in rows], np.int64),
        metrics=metrics,
    )


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

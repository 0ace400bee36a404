"""A batch of telemetry as columns: decoded, checked, sorted by device and time, ready for COPY.

Pure. `gather` turns payloads into columns and refusals; `copy_rows` turns columns into the binary
form that Postgres reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from anxin.messages import (
    MAX_PAYLOAD,
    UNDECODABLE,
    Telemetry,
    decode_object,
    decode_telemetry,
    timestamp_us,
)
from anxin.vitals import CONSCIOUSNESS, HIGH, LOW, METRICS, NAMES, PRESENCE
from ingest.inbound import Inbound

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LATE, AHEAD, BEHIND = 1, 2, 4
"""Flags of a stored reading: over 10 min late; clock over 2 min ahead; over 7 days behind."""
LATE_US: Final = 600_000_000
AHEAD_US: Final = 120_000_000
BEHIND_US: Final = 7 * 86_400_000_000

_PRESENCE_CODE: Final = {None: -1} | {word: code for code, word in enumerate(PRESENCE)}
_CONSCIOUSNESS_CODE: Final = {None: -1} | {word: code for code, word in enumerate(CONSCIOUSNESS)}
_OXYGEN_CODE: Final = {None: -1, False: 0, True: 1}
_metrics_of = attrgetter(*NAMES)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A payload that was refused as a whole or in part."""

    device_id: str
    kind: str
    payload: bytes
    reason: str
    received_us: int


@dataclass(slots=True)
class Columns:
    """Readings sorted by device row and time, each (device, time) once; n = len(rows)."""

    rows: Ints
    keys: Ints
    ts_us: Ints
    received_us: Ints
    flags: Ints
    presence: Ints
    consciousness: Ints
    oxygen: Ints
    values: Floats
    seq: list[int | None]
    extra: list[dict[str, float] | None]

    def __len__(self) -> int:
        """Return the number of readings."""
        return len(self.rows)

    @property
    def usable(self) -> Bools:
        """Tell which readings may raise a live alarm."""
        usable: Bools = self.flags == 0
        return usable

    def take(self, index: Any) -> "Columns":  # noqa: ANN401  NumPy's own index types
        """Return the readings at `index`, in that order."""
        places = range(len(self)) if isinstance(index, slice) else [int(i) for i in index]
        arrays = {name: getattr(self, name)[index] for name in self.__slots__[:9]}
        return Columns(
            **arrays,
            seq=[self.seq[place] for place in places],
            extra=[self.extra[place] for place in places],
        )


def gather(
    inbounds: Sequence[Inbound], last_auto_us: dict[int, int]
) -> tuple[Columns, list[Refusal]]:
    """Decode and check the telemetry of `inbounds`.

    `last_auto_us` holds, by device row, the last time given to a reading that came without one:
    two such readings of one device never get the same time.
    """
    refusals: list[Refusal] = []
    owners, objects = _decode(inbounds, refusals)
    counts = len(objects)
    device_rows = np.fromiter((one.device.row for one in inbounds), np.int64, len(inbounds))
    device_keys = np.fromiter((one.device.key for one in inbounds), np.int64, len(inbounds))
    received = np.fromiter((one.received_us for one in inbounds), np.int64, len(inbounds))
    owner = np.array(owners, np.int64)
    columns = Columns(
        rows=device_rows[owner],
        keys=device_keys[owner],
        ts_us=_times(objects, device_rows[owner], received[owner], last_auto_us),
        received_us=received[owner],
        flags=np.zeros(counts, np.int64),
        presence=np.array([_PRESENCE_CODE[one.presence] for one in objects], np.int64),
        consciousness=np.array(
            [_CONSCIOUSNESS_CODE[one.consciousness] for one in objects], np.int64
        ),
        oxygen=np.array([_OXYGEN_CODE[one.oxygen] for one in objects], np.int64),
        values=np.array([_metrics_of(one) for one in objects], np.float64).reshape(
            counts, len(METRICS)
        ),
        seq=[one.seq for one in objects],
        extra=[one.extra for one in objects],
    )
    if not counts:
        return columns, refusals
    keep = _check_ranges(columns, inbounds, owners, objects, refusals)
    _flag(columns)
    order = np.lexsort((columns.ts_us, columns.rows))
    if keep is not None:
        order = order[keep[order]]
    if len(order) != counts or (order[1:] < order[:-1]).any():
        columns = columns.take(order)
    return _merge_same(columns), refusals


def _decode(
    inbounds: Sequence[Inbound], refusals: list[Refusal]
) -> tuple[list[int], list[Telemetry]]:
    """Return the objects and, for each, the number of the inbound that it came in."""
    owners: list[int] = []
    objects: list[Telemetry] = []
    for number, inbound in enumerate(inbounds):
        payloads = inbound.payloads
        try:
            decoded = [decode_object(payload) for payload in payloads]
        except UNDECODABLE:
            decoded = None
        if decoded is None or _needs_a_look(decoded, payloads):
            decoded = []
            for payload in payloads:
                good, reasons = decode_telemetry(payload)
                decoded += good
                if reasons:
                    refusals.append(_refusal(inbound, payload, reasons))
        objects += decoded
        owners += [number] * len(decoded)
    return owners, objects


def _needs_a_look(decoded: list[Telemetry], payloads: list[bytes]) -> bool:
    return (
        any(one.extra is not None or one.seq is not None for one in decoded)
        or max(map(len, payloads)) > MAX_PAYLOAD
        or any(type(one.ts) is not int or not 0 <= one.ts < _LAST_MS for one in decoded)
    )


_LAST_MS: Final = 7_258_118_400_000


def _refusal(inbound: Inbound, payload: bytes, reasons: list[str]) -> Refusal:
    told = "; ".join(reasons[:20])
    if len(reasons) > 20:
        told += f"; and {len(reasons) - 20} more"
    return Refusal(
        inbound.device.id, inbound.kind.name.lower(), payload, told[:2000], inbound.received_us
    )


def _times(
    objects: list[Telemetry], rows: Ints, received: Ints, last_auto_us: dict[int, int]
) -> Ints:
    try:
        return np.array([one.ts for one in objects], np.int64) * 1000
    except (TypeError, ValueError):
        pass
    times = np.empty(len(objects), np.int64)
    for place, one in enumerate(objects):
        us = timestamp_us(one.ts) if one.ts is not None else None
        if us is None:
            row = int(rows[place])
            us = max(int(received[place]), last_auto_us.get(row, 0) + 1)
            last_auto_us[row] = us
        times[place] = us
    return times


def _check_ranges(
    columns: Columns,
    inbounds: Sequence[Inbound],
    owners: list[int],
    objects: list[Telemetry],
    refusals: list[Refusal],
) -> Bools | None:
    """Blank out values that no sensor can mean; return which readings still hold anything."""
    bad = (columns.values < LOW) | (columns.values > HIGH)
    if not bad.any():
        return None
    columns.values[bad] = np.nan
    touched = np.flatnonzero(bad.any(axis=1))
    keep = np.ones(len(columns), np.bool_)
    by_inbound: dict[int, list[str]] = {}
    for place in touched:
        names = [NAMES[column] for column in np.flatnonzero(bad[place])]
        one = objects[place]
        keep[place] = not (
            np.isnan(columns.values[place]).all()
            and one.presence is None
            and one.consciousness is None
            and one.oxygen is None
            and one.extra is None
        )
        for name in names:
            metric = METRICS[NAMES.index(name)]
            by_inbound.setdefault(owners[place], []).append(
                f"{name}: outside {metric.low:g} to {metric.high:g} {metric.unit}".strip()
            )
    for number, reasons in by_inbound.items():
        inbound = inbounds[number]
        refusals.extend(
            _refusal(inbound, payload, found)
            for payload in inbound.payloads
            if (found := reasons if len(inbound.payloads) == 1 else _range_reasons(payload))
        )
    return keep


def _range_reasons(payload: bytes) -> list[str]:
    """Say again, for one payload of a run, which of its values are out of range."""
    return [
        f"{metric.name}: outside {metric.low:g} to {metric.high:g} {metric.unit}".strip()
        for one in decode_telemetry(payload)[0]
        for metric in METRICS
        if not metric.low <= getattr(one, metric.name) <= metric.high
        and getattr(one, metric.name) == getattr(one, metric.name)
    ]


def _flag(columns: Columns) -> None:
    delay = columns.received_us - columns.ts_us
    flags = columns.flags
    flags[delay > LATE_US] |= LATE
    flags[delay < -AHEAD_US] |= AHEAD
    flags[delay > BEHIND_US] |= BEHIND


def _merge_same(columns: Columns) -> Columns:
    """Make one reading of those of the same device and time: what came first stays."""
    same = (columns.rows[1:] == columns.rows[:-1]) & (columns.ts_us[1:] == columns.ts_us[:-1])
    if not same.any():
        return columns
    keep = np.ones(len(columns), np.bool_)
    into = 0
    for place in range(1, len(columns)):
        if not same[place - 1]:
            into = place
            continue
        keep[place] = False
        values = columns.values[into]
        values[:] = np.where(np.isnan(values), columns.values[place], values)
        for coded in (columns.presence, columns.consciousness, columns.oxygen):
            if coded[into] < 0:
                coded[into] = coded[place]
        if columns.seq[into] is None:
            columns.seq[into] = columns.seq[place]
        if (more := columns.extra[place]) is not None:
            columns.extra[into] = more | (columns.extra[into] or {})
    return columns.take(np.flatnonzero(keep))


# --- the binary form of COPY, https://www.postgresql.org/docs/current/sql-copy.html

COPY_COLUMNS: Final = (
    "ts", "received_at", "device_key", "flags", "presence", "consciousness", "oxygen",
    *NAMES, "seq", "extra",
)  # fmt: skip
_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_EPOCH_2000_US: Final = 946_684_800_000_000
_WIRE: Final = {"steps": ">i4", "lat": ">f8", "lon": ">f8"}
_CODED: Final = (("presence", ">i2"), ("consciousness", ">i2"), ("oxygen", ">i1"))


def copy_rows(columns: Columns) -> bytes:
    """Return the readings as one binary COPY stream.

    Rows with the same set of absent fields have the same layout, so each such group is written at
    once as a structured array. The few rows with extra fields are written one by one.
    """
    present = np.concatenate(
        [
            (columns.presence >= 0)[:, None],
            (columns.consciousness >= 0)[:, None],
            (columns.oxygen >= 0)[:, None],
            ~np.isnan(columns.values),
            np.array([seq is not None for seq in columns.seq], np.bool_)[:, None],
        ],
        axis=1,
    )
    pattern = present @ _POWERS
    extra = np.array([one is not None for one in columns.extra], np.bool_)
    parts = [_HEADER]
    plain = pattern if not extra.any() else pattern[~extra]
    for code in np.unique(plain):
        chosen = np.flatnonzero((pattern == code) & ~extra)
        parts.append(_layout(columns, chosen, present[chosen[0]]).tobytes())
    for place in np.flatnonzero(extra):
        row = _layout(columns, np.array([place]), present[place]).tobytes()
        body = b"\x01" + msgspec.json.encode(columns.extra[place])
        parts.append(row[:-4] + len(body).to_bytes(4, "big") + body)
    parts.append(_TRAILER)
    return b"".join(parts)


_POWERS: Final = 1 << np.arange(len(_CODED) + len(NAMES) + 1)


@lru_cache(maxsize=4096)
def _row_type(present: bytes) -> np.dtype[np.void]:
    flags = list(present)
    fields = [("fields", ">i2")]
    for name, kind in (("ts", ">i8"), ("received", ">i8"), ("key", ">i4"), ("flags", ">i2")):
        fields += [(f"{name}_size", ">i4"), (name, kind)]
    names = [*_CODED, *((name, _WIRE.get(name, ">f4")) for name in NAMES), ("seq", ">i8")]
    for (name, kind), there in zip(names, flags, strict=True):
        fields.append((f"{name}_size", ">i4"))
        if there:
            fields.append((name, kind))
    fields.append(("extra_size", ">i4"))
    return np.dtype(fields)


def _layout(columns: Columns, chosen: Ints, present: Bools) -> NDArray[np.void]:
    kind = _row_type(present.tobytes())
    out = np.empty(len(chosen), kind)
    out["fields"] = len(COPY_COLUMNS)
    assert kind.names is not None  # noqa: S101  a structured type has names
    for name in kind.names:
        if name.endswith("_size"):
            field = name.removesuffix("_size")
            out[name] = kind[field].itemsize if field in kind.names else -1
    out["ts"] = columns.ts_us[chosen] - _EPOCH_2000_US
    out["received"] = columns.received_us[chosen] - _EPOCH_2000_US
    out["key"] = columns.keys[chosen]
    out["flags"] = columns.flags[chosen]
    for name, _ in _CODED:
        if name in kind.names:
            out[name] = getattr(columns, name)[chosen]
    for column, name in enumerate(NAMES):
        if name in kind.names:
            values = columns.values[chosen, column]
            out[name] = np.rint(values) if name == "steps" else values
    if "seq" in kind.names:
        out["seq"] = [columns.seq[place] for place in chosen]
    return out

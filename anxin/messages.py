"""What crosses a border: telemetry, event, state, result; decoding is pure and never raises.

Bad input is data: a payload comes back as its good parts and the reasons why others were refused.
"""

import json
import math
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec

from anxin.vitals import CODED, COLUMN, MAX_EXTRA, METRICS, NAMES, Consciousness, Presence

NAN: Final = math.nan
MAX_PAYLOAD: Final = 64 * 1024
MAX_OBJECTS: Final = 1_000
MAX_ID: Final = 128
FIRST_US: Final = 0
LAST_US: Final = 7_258_118_400_000_000  # 2200-01-01
UNDECODABLE: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""What msgspec raises for bad JSON, deep nesting and bad UTF-8."""
_EXTRA_NAME: Final = re.compile(r"[a-z0-9_]{1,32}")


class Telemetry(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """One telemetry object; NaN means that a metric was not sent."""

    ts: int | str | None = None
    seq: int | None = None
    presence: Presence | None = None
    consciousness: Consciousness | None = None
    oxygen: bool | None = None
    hr: float = NAN
    rr: float = NAN
    spo2: float = NAN
    temp: float = NAN
    sbp: float = NAN
    dbp: float = NAN
    glucose: float = NAN
    weight: float = NAN
    steps: float = NAN
    movement: float = NAN
    battery: float = NAN
    rssi: float = NAN
    lat: float = NAN
    lon: float = NAN
    room_temp: float = NAN
    humidity: float = NAN
    extra: dict[str, float] | None = None


class Event(msgspec.Struct):
    """Something happened: an emergency, a door, a return to bed."""

    id: str
    type: str
    ts: int | str | None = None
    detail: dict[str, Any] | None = None


class State(msgspec.Struct):
    """What a device says of itself."""

    online: bool | None = None
    battery: float | None = None
    rssi: float | None = None
    firmware: str | None = None


class Result(msgspec.Struct):
    """A device's answer to a command."""

    id: str
    ok: bool
    detail: dict[str, Any] | None = None


decode_object: Final[Callable[[bytes], Telemetry]] = msgspec.json.Decoder(Telemetry).decode
_decode_array = msgspec.json.Decoder(list[Telemetry]).decode
_decode_any = msgspec.json.Decoder().decode
_decode_event = msgspec.json.Decoder(Event).decode
_decode_state = msgspec.json.Decoder(State).decode
_decode_result = msgspec.json.Decoder(Result).decode

Reasons = list[str]


def decode_telemetry(payload: bytes) -> tuple[list[Telemetry], Reasons]:
    """Return the usable objects of a payload and why others, or single fields, were refused."""
    if too_big := _too_big(payload):
        return [], too_big
    try:
        is_array = payload[:1] == b"["
        objects = _decode_array(payload) if is_array else [decode_object(payload)]
    except UNDECODABLE:
        return _salvage(payload)
    if len(objects) > MAX_OBJECTS:
        return [], [f"more than {MAX_OBJECTS} objects"]
    if any(one.extra is not None or one.ts is not None for one in objects):
        return _checked(objects, payload)
    return objects, []


def timestamp_us(ts: int | str) -> int | None:
    """Return epoch microseconds of `ts` (epoch milliseconds, or ISO 8601 with offset), or None."""
    if isinstance(ts, int):
        us = ts * 1000
    else:
        try:
            moment = datetime.fromisoformat(ts)
        except ValueError:
            return None
        if moment.tzinfo is None:
            return None
        try:
            us = round(moment.timestamp() * 1_000_000)
        except (OverflowError, OSError):
            return None
    return us if FIRST_US <= us < LAST_US else None


def decode_event(payload: bytes) -> tuple[Event | None, Reasons]:
    """Return the event, and why its payload or a part of it was refused."""
    if too_big := _too_big(payload):
        return None, too_big
    try:
        event = _decode_event(payload)
    except UNDECODABLE as error:
        return _salvage_event(payload, _plain(error))
    return _checked_event(event, [])


def decode_state(payload: bytes) -> tuple[State | None, Reasons]:
    """Return the state, and why its payload or a part of it was refused."""
    if too_big := _too_big(payload):
        return None, too_big
    reasons: Reasons = []
    try:
        state = _decode_state(payload)
    except UNDECODABLE as error:
        raw = _loose(payload)
        if not isinstance(raw, dict):
            return None, [_plain(error)]
        state = State()
        for name, type_ in (("online", bool), ("battery", float), ("rssi", float),
                            ("firmware", str)):  # fmt: skip
            try:
                setattr(state, name, msgspec.convert(raw.get(name), type_ | None))
            except msgspec.ValidationError:
                reasons.append(f"{name}: not a {type_.__name__}")
    for name in ("battery", "rssi"):
        value = getattr(state, name)
        metric = METRICS[COLUMN[name]]
        if value is not None and not metric.low <= value <= metric.high:
            reasons.append(f"{name}: outside {metric.low:g} to {metric.high:g}")
            setattr(state, name, None)
    if state.firmware is not None and (len(state.firmware) > MAX_ID or "\0" in state.firmware):
        reasons.append(f"firmware: longer than {MAX_ID} characters or with a NUL")
        state.firmware = None
    return state, reasons


def decode_result(payload: bytes) -> tuple[Result | None, Reasons]:
    """Return a command's result, and why its payload was refused."""
    if too_big := _too_big(payload):
        return None, too_big
    try:
        result = _decode_result(payload)
    except UNDECODABLE as error:
        return None, [_plain(error)]
    if not result.id.isascii() or not result.id.isdigit() or len(result.id) > 18:
        return None, ["id: not the id of a command"]
    if _has_nul(result.detail):
        return None, ["detail: with a NUL"]
    return result, []


def _too_big(payload: bytes) -> Reasons:
    return [f"over {MAX_PAYLOAD // 1024} KiB"] if len(payload) > MAX_PAYLOAD else []


def _plain(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "bad UTF-8"
    if isinstance(error, msgspec.ValidationError):
        return f"wrong type: {error}"
    return f"bad JSON: {error}"


def _loose(payload: bytes) -> object:
    """Decode as far as possible, also the NaN and Infinity that JSON does not have."""
    try:
        return _decode_any(payload)
    except UNDECODABLE:
        if b"NaN" not in payload and b"Infinity" not in payload:
            return None
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return None


def _checked(objects: list[Telemetry], payload: bytes) -> tuple[list[Telemetry], Reasons]:
    """Look at what types alone cannot tell: time stamps and extra fields."""
    for one in objects:
        if one.extra is not None or (one.ts is not None and timestamp_us(one.ts) is None):
            return _salvage(payload)
        if one.seq is not None and not -(2**63) <= one.seq < 2**63:
            return _salvage(payload)
    return objects, []


def _salvage(payload: bytes) -> tuple[list[Telemetry], Reasons]:
    raw = _loose(payload)
    if raw is None:
        try:
            _decode_any(payload)
        except UNDECODABLE as error:
            return [], [_plain(error)]
        return [], ["not an object"]
    single = isinstance(raw, dict)
    items = [raw] if single else raw
    if not isinstance(items, list):
        return [], ["not an object or an array of objects"]
    if len(items) > MAX_OBJECTS:
        return [], [f"more than {MAX_OBJECTS} objects"]
    objects: list[Telemetry] = []
    reasons: Reasons = []
    for position, item in enumerate(items):
        faults: Reasons = []
        one = _object(item, faults)
        if one is not None:
            objects.append(one)
        reasons += faults if single else [f"object {position}: {fault}" for fault in faults]
    return objects, reasons


def _object(raw: object, faults: Reasons) -> Telemetry | None:
    """Build one object field by field; None when nothing of it can be used."""
    if not isinstance(raw, dict):
        faults.append("not an object")
        return None
    one = Telemetry()
    extra: dict[str, float] = {}
    kept = 0
    for name, value in raw.items():
        if value is None:
            continue
        if name == "ts":
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            good = isinstance(value, int | str) and not isinstance(value, bool)
            if not good or timestamp_us(value) is None:
                faults.append("ts: not epoch milliseconds or ISO 8601 with offset")
                return None
            one.ts = value
        elif name == "extra" and isinstance(value, dict):
            for inner, number in value.items():
                kept += _keep_extra(extra, inner, number, faults)
        elif name in _SETTERS:
            kept += _set(one, name, value, faults)
        else:
            kept += _keep_extra(extra, name, value, faults)
    if faults and not kept:
        return None
    if extra:
        one.extra = extra
    return one


def _set(one: Telemetry, name: str, value: object, faults: Reasons) -> bool:
    try:
        good = msgspec.convert(value, _SETTERS[name])
    except msgspec.ValidationError:
        faults.append(f"{name}: wrong type or value")
        return False
    if name in COLUMN and not math.isfinite(good):
        faults.append(f"{name}: not a number")
        return False
    if name == "seq" and not -(2**63) <= good < 2**63:
        faults.append("seq: too large")
        return False
    setattr(one, name, good)
    return True


def _keep_extra(extra: dict[str, float], name: object, value: object, faults: Reasons) -> bool:
    shown = str(name)[:40]
    if isinstance(value, bool) or not isinstance(value, int | float):
        faults.append(f"{shown}: not a number")
    elif not isinstance(name, str) or not _EXTRA_NAME.fullmatch(name):
        faults.append(f"{shown}: not a field name")
    elif not math.isfinite(value) or abs(value) > 1e300:
        faults.append(f"{shown}: not a finite number")
    elif len(extra) >= MAX_EXTRA:
        faults.append(f"{shown}: more than {MAX_EXTRA} extra fields")
    else:
        extra[name] = value
        return True
    return False


_SETTERS: Final[dict[str, Any]] = {
    **dict.fromkeys(NAMES, float),
    "seq": int,
    **dict(zip(CODED, (Presence, Consciousness, bool), strict=True)),
}


def _salvage_event(payload: bytes, why: str) -> tuple[Event | None, Reasons]:
    """An emergency with a broken time stamp or detail is still an emergency."""
    raw = _loose(payload)
    if not isinstance(raw, dict):
        return None, [why]
    id_, type_ = raw.get("id"), raw.get("type")
    if not isinstance(id_, str) or not isinstance(type_, str):
        return None, [why]
    event = Event(id_, type_)
    reasons: Reasons = []
    ts = raw.get("ts")
    if isinstance(ts, float) and ts.is_integer():
        ts = int(ts)
    if isinstance(ts, int | str) and not isinstance(ts, bool):
        event.ts = ts
    elif ts is not None:
        reasons.append("ts: wrong type; the time of receipt stands")
    if raw.get("detail") is not None:
        reasons.append("detail: cannot be used")
    return _checked_event(event, reasons)


def _checked_event(event: Event, reasons: Reasons) -> tuple[Event | None, Reasons]:
    if not 0 < len(event.id) <= MAX_ID or "\0" in event.id:
        return None, [f"id: needs 1 to {MAX_ID} characters"]
    if not _EXTRA_NAME.fullmatch(event.type):
        return None, ["type: needs 1 to 32 of a-z 0-9 _"]
    if event.ts is not None and timestamp_us(event.ts) is None:
        reasons.append("ts: not epoch milliseconds or ISO 8601 with offset; receipt time stands")
        event.ts = None
    if _has_nul(event.detail):
        reasons.append("detail: with a NUL")
        event.detail = None
    return event, reasons


def _has_nul(value: object) -> bool:
    return value is not None and b"\\u0000" in msgspec.json.encode(value)

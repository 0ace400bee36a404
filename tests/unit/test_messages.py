"""Decoding: good parts are kept, bad parts are told, nothing is ever raised."""

import json
import math
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anxin.messages import (
    MAX_OBJECTS,
    MAX_PAYLOAD,
    decode_event,
    decode_result,
    decode_state,
    decode_telemetry,
    timestamp_us,
)
from anxin.vitals import HIGH, LOW, METRICS, NAMES

DECODERS = (decode_telemetry, decode_event, decode_state, decode_result)


def sent(one: msgspec.Struct) -> dict[str, object]:
    """Return the fields that were sent."""
    return {
        name: value
        for name, value in msgspec.structs.asdict(one).items()
        if value is not None and not (isinstance(value, float) and math.isnan(value))
    }


@pytest.mark.parametrize(
    ("payload", "objects", "faults"),
    [
        ('{"ts":1800000000000,"hr":72}', [{"ts": 1800000000000, "hr": 72.0}], 0),
        ('{"hr":0}', [{"hr": 0.0}], 0),
        ("{}", [{}], 0),
        ('{"hr":null,"rr":12}', [{"rr": 12.0}], 0),
        ('{"hr":"72","rr":12}', [{"rr": 12.0}], 1),
        ('{"hr":true,"rr":12}', [{"rr": 12.0}], 1),
        ('{"hr":NaN,"rr":12}', [{"rr": 12.0}], 1),
        ('{"hr":1e999,"rr":12}', [], 1),
        ('{"hr":72,"pm25":31.5}', [{"hr": 72.0, "extra": {"pm25": 31.5}}], 0),
        ('{"extra":{"pm25":31.5}}', [{"extra": {"pm25": 31.5}}], 0),
        ('{"hr":72,"PM 2.5":1}', [{"hr": 72.0}], 1),
        ('{"hr":72,"note":"x"}', [{"hr": 72.0}], 1),
        ('{"presence":"present","consciousness":"A","oxygen":false}',
         [{"presence": "present", "consciousness": "A", "oxygen": False}], 0),
        ('{"presence":"maybe","hr":70}', [{"hr": 70.0}], 1),
        ('{"ts":"2026-11-23T08:00:00+08:00","hr":70}',
         [{"ts": "2026-11-23T08:00:00+08:00", "hr": 70.0}], 0),
        ('{"ts":"2026-11-23T08:00:00","hr":70}', [], 1),
        ('{"ts":true,"hr":70}', [], 1),
        ('{"ts":-1,"hr":70}', [], 1),
        ('[{"hr":70},{"hr":"x"},7,{"rr":12}]', [{"hr": 70.0}, {"rr": 12.0}], 2),
        ("[]", [], 0),
        ("", [], 1),
        ("7", [], 1),
        ("nonsense", [], 1),
        ('{"hr":72', [], 1),
        ("[" * 50_000, [], 1),
        ('{"a":' * 5_000 + "1" + "}" * 5_000, [], 1),
    ],
)  # fmt: skip
def test_telemetry_keeps_what_is_good(
    payload: str, objects: list[dict[str, object]], faults: int
) -> None:
    good, reasons = decode_telemetry(payload.encode())
    assert [sent(one) for one in good] == objects
    assert len(reasons) == faults


def test_what_is_too_large_is_refused_whole() -> None:
    assert decode_telemetry(b'{"hr":70}' + b" " * MAX_PAYLOAD) == ([], ["over 64 KiB"])
    many = json.dumps([{"hr": 70}] * (MAX_OBJECTS + 1)).encode()
    assert decode_telemetry(many) == ([], ["more than 1000 objects"])
    extra = json.dumps({f"x{n}": n for n in range(40)}).encode()
    good, reasons = decode_telemetry(extra)
    assert good[0].extra is not None
    assert (len(good[0].extra), len(reasons)) == (32, 8)


@pytest.mark.parametrize(
    ("payload", "kept"),
    [
        ('{"id":"a","type":"sos"}', True),
        ('{"id":"a","type":"sos","ts":"yesterday"}', True),
        ('{"id":"a","type":"sos","ts":[1],"detail":7}', True),
        ('{"id":"a","type":"sos","detail":{"x":NaN}}', True),
        ('{"id":"a","type":"sos","detail":{"x":"\\u0000"}}', True),
        ('{"id":"","type":"sos"}', False),
        ('{"id":7,"type":"sos"}', False),
        ('{"id":"\\u0000","type":"sos"}', False),
        ('{"type":"sos"}', False),
        ('{"id":"a"}', False),
        ('{"id":"a","type":"S O S"}', False),
    ],
)
def test_an_emergency_survives_a_broken_time_or_detail(payload: str, kept: bool) -> None:
    event, reasons = decode_event(payload.encode())
    assert (event is not None) == kept
    assert kept or reasons


def test_state_keeps_good_fields() -> None:
    state, reasons = decode_state(b'{"online":"yes","battery":187,"rssi":-61,"firmware":"1.4.2"}')
    assert state is not None
    assert sent(state) == {"rssi": -61, "firmware": "1.4.2"}
    assert len(reasons) == 2


def test_a_result_names_a_command() -> None:
    result, _ = decode_result(b'{"id":"17","ok":true}')
    assert result is not None
    assert decode_result(b'{"id":"x","ok":true}')[0] is None


@given(st.integers(0, 7_258_118_399_999))
def test_a_time_stamp_is_exact(milliseconds: int) -> None:
    assert timestamp_us(milliseconds) == milliseconds * 1000


numbers = {
    metric.name: st.floats(float(low), float(high), width=32)
    for metric, low, high in zip(METRICS, LOW, HIGH, strict=True)
}


@given(st.fixed_dictionaries({}, optional=numbers))
def test_telemetry_in_range_comes_back_as_sent(fields: dict[str, float]) -> None:
    good, reasons = decode_telemetry(msgspec.json.encode(fields))
    assert reasons == []
    assert sent(good[0]) == fields


@given(st.binary(max_size=300))
def test_any_bytes_are_decoded_without_an_exception(payload: bytes) -> None:
    for decode in DECODERS:
        decode(payload)


def test_mutated_payloads_are_decoded_without_an_exception() -> None:
    dice = random.Random(1)  # noqa: S311  repeatable on purpose
    seeds = [
        json.dumps({"ts": 1_800_000_000_000, "seq": 7, "presence": "present", "oxygen": True,
                    **dict.fromkeys(NAMES, 50)}).encode(),
        b'[{"hr":70},{"rr":12,"extra":{"a":1}}]',
        b'{"id":"e-1","type":"sos","ts":"2026-11-23T08:00:00Z","detail":{"x":[1,{"y":null}]}}',
    ]  # fmt: skip
    for _ in range(20_000):
        payload = bytearray(dice.choice(seeds))
        for _ in range(dice.randint(1, 6)):
            place = dice.randrange(len(payload) + 1)
            payload[place : place + dice.randint(0, 3)] = dice.randbytes(dice.randint(0, 3))
        for decode in DECODERS:
            decode(bytes(payload))

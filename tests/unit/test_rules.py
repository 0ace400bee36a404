"""Live rules: when they trigger, when they do not, and that batching changes nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anxin.rules import (
    ABSENT,
    HIGH,
    LIMITS,
    LOW,
    MEDIUM,
    PRESENT,
    REMIND_US,
    Live,
    Trigger,
    event_alarm,
    judge,
    limits_of,
)
from anxin.vitals import COLUMN, METRICS

SECOND = 1_000_000
START = 1_800_000_000 * SECOND

Reading = tuple[int, float, dict[str, float]]
"""(device row, second, metrics); the metric `presence` is coded."""


def run(live: Live, readings: list[Reading]) -> list[Trigger]:
    """Judge readings as one batch, sorted as the pipeline sorts them."""
    ordered = sorted(readings, key=lambda reading: (reading[0], reading[1]))
    values = np.full((len(ordered), len(METRICS)), np.nan)
    for place, (_, _, metrics) in enumerate(ordered):
        for name, value in metrics.items():
            if name != "presence":
                values[place, COLUMN[name]] = value
    return judge(
        live,
        np.array([row for row, _, _ in ordered], np.int64),
        np.array([START + round(second * SECOND) for _, second, _ in ordered], np.int64),
        values,
        np.array([int(metrics.get("presence", -1)) for _, _, metrics in ordered], np.int64),
        np.ones(len(ordered), np.bool_),
    )


def device(*, spot: bool = False, **limits: float) -> Live:
    """Return the memory of one device."""
    live = Live()
    row = live.add()
    live.set_limits(row, limits_of(limits))
    live.spot[row] = spot
    return live


def every(seconds: float, count: int, **metrics: float) -> list[Reading]:
    """Return `count` readings of one device, one every `seconds`."""
    return [(0, n * seconds, dict(metrics)) for n in range(count)]


def told(triggers: list[Trigger]) -> list[tuple[str, int]]:
    """Return kind and priority of each trigger."""
    return [(trigger.kind, trigger.priority) for trigger in triggers]


@pytest.mark.parametrize(
    ("metrics", "seconds", "kind", "priority"),
    [
        ({"hr": 39}, 30, "heart_rate_low", HIGH),
        ({"hr": 49}, 60, "heart_rate_low", MEDIUM),
        ({"hr": 131}, 30, "heart_rate_high", HIGH),
        ({"hr": 121}, 60, "heart_rate_high", MEDIUM),
        ({"hr": 0, "presence": PRESENT}, 10, "heart_rate_low", HIGH),
        ({"rr": 7}, 30, "respiration_low", HIGH),
        ({"rr": 9}, 120, "respiration_low", MEDIUM),
        ({"rr": 31}, 30, "respiration_high", HIGH),
        ({"rr": 25}, 120, "respiration_high", MEDIUM),
        ({"rr": 0, "presence": PRESENT}, 20, "apnea", HIGH),
        ({"spo2": 84}, 15, "spo2_low", HIGH),
        ({"spo2": 89}, 30, "spo2_low", MEDIUM),
        ({"temp": 39.1}, 0, "temperature_high", HIGH),
        ({"temp": 38.0}, 0, "temperature_high", MEDIUM),
        ({"temp": 37.8}, 0, "temperature_high", LOW),
        ({"temp": 35.0}, 0, "temperature_low", MEDIUM),
        ({"sbp": 220}, 0, "blood_pressure_high", HIGH),
        ({"sbp": 180}, 300, "blood_pressure_high", MEDIUM),
        ({"sbp": 89}, 0, "blood_pressure_low", HIGH),
        ({"battery": 15}, 0, "battery_low", LOW),
        ({"battery": 5}, 0, "battery_low", MEDIUM),
    ],
)
def test_a_condition_triggers_when_it_has_lasted_and_not_before(
    metrics: dict[str, float], seconds: float, kind: str, priority: int
) -> None:
    before = run(device(), every(5, int(seconds // 5), **metrics)) if seconds else []
    assert (kind, priority) not in told(before)
    assert (kind, priority) in told(run(device(), every(5, int(seconds // 5) + 1, **metrics)))


@pytest.mark.parametrize(
    "metrics",
    [{"hr": 50}, {"hr": 120}, {"rr": 10}, {"rr": 24}, {"spo2": 90}, {"temp": 37.7},
     {"temp": 35.1}, {"sbp": 179}, {"sbp": 90}, {"battery": 16}],
)  # fmt: skip
def test_a_value_on_the_good_side_of_its_limit_never_triggers(metrics: dict[str, float]) -> None:
    assert run(device(), every(5, 200, **metrics)) == []


def test_a_spot_reading_triggers_at_once() -> None:
    assert told(run(device(spot=True), [(0, 0, {"sbp": 185, "hr": 125})])) == [
        ("heart_rate_high", MEDIUM),
        ("blood_pressure_high", MEDIUM),
    ]


def test_one_normal_reading_starts_the_persistence_anew() -> None:
    readings = every(5, 6, hr=135)
    readings += [(0, 30, {"hr": 80}), *((0, 35 + 5 * n, {"hr": 135}) for n in range(6))]
    assert run(device(), readings) == []


def test_a_long_pause_starts_the_persistence_anew() -> None:
    assert run(device(), [(0, 0, {"hr": 135}), (0, 400, {"hr": 135})]) == []


def test_an_empty_bed_has_no_vital_signs() -> None:
    assert run(device(), every(5, 60, hr=0, rr=0, presence=ABSENT)) == []


def test_zero_without_presence_known_is_low_but_not_apnea() -> None:
    kinds = {kind for kind, _ in told(run(device(), every(5, 30, hr=0, rr=0)))}
    assert kinds == {"heart_rate_low", "respiration_low"}


def test_a_fall_of_saturation_makes_a_shorter_pause_an_apnea() -> None:
    live = device()
    run(live, [(0, 0, {"rr": 14, "spo2": 96, "presence": PRESENT})])
    run(live, [(0, 5, {"rr": 0, "spo2": 95})])
    triggers = run(live, [(0, 10, {"spo2": 93}), (0, 15.1, {"rr": 0, "spo2": 92})])
    assert ("apnea", HIGH) in told(triggers)


def test_priority_rises_in_the_same_condition() -> None:
    live = device()
    assert told(run(live, every(5, 13, hr=125))) == [("heart_rate_high", MEDIUM)]
    later = [(0, 65 + 5 * n, {"hr": 140}) for n in range(7)]
    assert told(run(live, later)) == [("heart_rate_high", HIGH)]


def test_recovery_needs_the_margin_and_is_told_once() -> None:
    live = device()
    run(live, every(5, 13, hr=125))
    assert run(live, [(0, 70, {"hr": 119})]) == []
    assert told(run(live, [(0, 75, {"hr": 116}), (0, 80, {"hr": 100})])) == [("heart_rate_high", 0)]


def test_a_lasting_condition_reminds_after_ten_minutes() -> None:
    live = device()
    count = REMIND_US // (5 * SECOND) + 20
    assert told(run(live, every(5, count, hr=140))) == [
        ("heart_rate_high", HIGH), ("heart_rate_high", HIGH),
    ]  # fmt: skip


def test_own_limits_replace_the_defaults() -> None:
    assert run(device(hr_high=140, hr_high_critical=150), every(5, 60, hr=135)) == []
    assert told(run(device(hr_high=100), every(5, 13, hr=105))) == [("heart_rate_high", MEDIUM)]


def test_scale_two_has_its_own_saturation_limits() -> None:
    live = device()
    live.set_limits(0, limits_of({}, spo2_scale=2))
    assert run(live, every(5, 60, spo2=86)) == []
    assert told(run(live, [(0, 300 + 5 * n, {"spo2": 79}) for n in range(4)])) == [
        ("spo2_low", HIGH)
    ]


def test_a_reading_sent_again_changes_nothing() -> None:
    live = device()
    readings = every(5, 13, hr=125)
    assert told(run(live, readings)) == [("heart_rate_high", MEDIUM)]
    assert run(live, readings) == []


def test_the_detail_names_value_and_limit() -> None:
    (trigger,) = run(device(), [(0, 0, {"temp": 38.4})])
    assert trigger.detail == {
        "metric": "temp", "value": 38.4, "limit": 38.0, "at": START // 1000,
    }  # fmt: skip


def test_every_default_lies_inside_its_bounds() -> None:
    for name, limit in LIMITS.items():
        assert limit.low <= limit.default <= limit.high, name


def test_wandering_makes_a_geofence_high_and_fall_risk_a_bed_exit_medium() -> None:
    wandering = event_alarm("geofence_exit", wander_risk=True, fall_risk=False, night=False)
    assert wandering is not None
    assert wandering.priority == HIGH
    risky = event_alarm("bed_exit", wander_risk=False, fall_risk=True, night=True)
    assert risky is not None
    assert (risky.kind, risky.priority) == ("bed_exit_long", MEDIUM)
    assert event_alarm("bed_exit", wander_risk=False, fall_risk=False, night=True) is None
    assert event_alarm("brand_new_type", wander_risk=True, fall_risk=True, night=True) is None


metric = st.one_of(
    st.fixed_dictionaries({"hr": st.sampled_from([0, 35, 45, 49, 51, 60, 80, 119, 125, 140])}),
    st.fixed_dictionaries({"rr": st.sampled_from([0, 5, 9, 12, 16, 25, 33])}),
    st.fixed_dictionaries({"spo2": st.sampled_from([80, 86, 90, 92, 97])}),
    st.fixed_dictionaries({"temp": st.sampled_from([34.9, 36.6, 37.9, 38.2, 39.5])}),
    st.fixed_dictionaries({"presence": st.sampled_from([0, ABSENT, PRESENT])}),
)
reading = st.tuples(st.integers(0, 2), st.integers(1, 40), st.lists(metric, min_size=1, max_size=3))


@given(st.lists(reading, min_size=1, max_size=60), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_how_readings_are_batched_changes_no_trigger(
    steps: list[tuple[int, int, list[dict[str, float]]]], random: object
) -> None:
    """One reading at a time is the reference; any other cut into batches must agree with it."""
    clock = [0.0, 0.0, 0.0]
    readings: list[Reading] = []
    for row, pause, parts in steps:
        clock[row] += pause
        merged: dict[str, float] = {}
        for part in parts:
            merged |= part
        readings.append((row, clock[row], merged))

    def triggered(cuts: list[int]) -> list[list[tuple[str, int, int]]]:
        live = Live()
        for _ in range(3):
            live.add()
        found: list[Trigger] = []
        for start, end in zip([0, *cuts], [*cuts, len(readings)], strict=True):
            found += run(live, readings[start:end])
        return [
            sorted((one.kind, one.priority, one.at_us) for one in found if one.row == row)
            for row in range(3)
        ]

    count = len(readings)
    one_by_one = triggered(list(range(1, count)))
    cuts = sorted(random.sample(range(1, count), min(3, count - 1)))  # type: ignore[attr-defined]
    # Apnea by saturation compares metrics across readings in their order of arrival, which a
    # batch coarsens on purpose; everything else must agree exactly.
    for expected, found in zip(one_by_one, triggered(cuts), strict=True):
        assert [one for one in found if one[0] != "apnea"] == [
            one for one in expected if one[0] != "apnea"
        ]

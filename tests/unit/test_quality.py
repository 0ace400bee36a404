"""What a score may look at: each objection, and what is never objected to."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anxin.rules import ABSENT, PRESENT, UNKNOWN
from anxin.vitals import COLUMN, METRICS
from models.quality import NO_VALUE, PACE, REASONS, STILLNESS, USABLE, WORDS, Checked, Memory, check

START = 1.8e9
Reading = tuple[int, float, dict[str, float]]
"""(device row, second, metrics)."""


def run(readings: list[Reading], presence: int = UNKNOWN, memory: Memory | None = None) -> Checked:
    """Check readings as one batch, in the order given."""
    values = np.full((len(readings), len(METRICS)), np.nan)
    for place, (_, _, metrics) in enumerate(readings):
        for name, value in metrics.items():
            values[place, COLUMN[name]] = value
    return check(
        memory or Memory(1 + max(row for row, _, _ in readings)),
        np.array([row for row, _, _ in readings], np.int64),
        np.array([START + second for _, second, _ in readings]),
        values,
        np.full(len(readings), presence, np.int64),
    )


def series(
    metric: str, values: list[float], every_s: float = 10, start_s: float = 0
) -> list[Reading]:
    """Return one device's readings of one metric."""
    return [(0, start_s + n * every_s, {metric: value}) for n, value in enumerate(values)]


def said(checked: Checked, metric: str) -> list[str | None]:
    """Return the objection to each reading of a metric."""
    codes = checked.reason[:, COLUMN[metric]]
    return [None if code == USABLE else REASONS[code] for code in codes]


@pytest.mark.parametrize(
    ("metrics", "presence", "reason"),
    [
        ({"hr": 255}, PRESENT, "no_value"),
        ({"hr": -1}, PRESENT, "no_value"),
        ({"hr": 0}, UNKNOWN, "no_value"),
        ({"hr": 0}, ABSENT, "no_value"),
        ({"rr": 255}, UNKNOWN, "no_value"),
        ({"rr": 0}, UNKNOWN, "no_value"),
        ({"spo2": 0}, PRESENT, "no_value"),
        ({"spo2": 127}, PRESENT, "no_value"),
        ({"temp": 6553.5}, UNKNOWN, "no_value"),
        ({"temp": 0}, UNKNOWN, "no_value"),
        ({"sbp": 0}, UNKNOWN, "no_value"),
        ({"weight": 0}, UNKNOWN, "no_value"),
        ({"hr": 301}, UNKNOWN, "out_of_range"),
        ({"temp": 19.9}, UNKNOWN, "out_of_range"),
        ({"temp": 48}, UNKNOWN, "out_of_range"),
        ({"spo2": 101}, UNKNOWN, "out_of_range"),
        ({"sbp": math.inf}, UNKNOWN, "out_of_range"),
        ({"hr": 70}, ABSENT, "absent"),
        ({"rr": 16}, ABSENT, "absent"),
        ({"spo2": 97}, ABSENT, "absent"),
        ({"sbp": 80, "dbp": 120}, UNKNOWN, "pressure_reversed"),
        ({"sbp": 80, "dbp": 80}, UNKNOWN, "pressure_reversed"),
    ],
)
def test_a_value_that_cannot_be_is_set_aside_with_its_reason(
    metrics: dict[str, float], presence: int, reason: str
) -> None:
    checked = run([(0, 0, metrics)], presence)
    for metric in metrics:
        assert said(checked, metric) == [reason]
        assert not checked.usable[0, COLUMN[metric]]
    assert {finding.reason for finding in checked.findings} == {reason}


@pytest.mark.parametrize(
    ("metrics", "presence"),
    [
        ({"hr": 0, "rr": 0}, PRESENT),  # a heart that stops is no fault of the sensor
        ({"hr": 25}, UNKNOWN),
        ({"hr": 240}, PRESENT),
        ({"spo2": 60}, PRESENT),
        ({"sbp": 255, "dbp": 140}, UNKNOWN),
        ({"temp": 34.0}, ABSENT),
        ({"sbp": 120, "dbp": 70}, ABSENT),
        ({"steps": 0, "movement": 0}, ABSENT),
        ({"battery": 0}, UNKNOWN),
    ],
)
def test_an_extreme_value_of_the_body_is_never_objected_to(
    metrics: dict[str, float], presence: int
) -> None:
    checked = run([(0, 0, metrics)], presence)
    for metric in metrics:
        assert said(checked, metric) == [None]
        assert checked.usable[0, COLUMN[metric]]
    assert checked.findings == ()


def test_an_absent_value_is_neither_usable_nor_objected_to() -> None:
    checked = run([(0, 0, {"hr": 70})])
    assert checked.usable.sum() == 1
    assert (checked.reason == USABLE).all()


def test_a_single_spike_is_set_aside_and_not_its_neighbours() -> None:
    assert said(run(series("hr", [70, 71, 180, 70, 71])), "hr") == [
        None, None, "too_fast", None, None,
    ]  # fmt: skip


def test_a_new_level_that_stays_is_believed_from_its_second_reading() -> None:
    assert said(run(series("hr", [70, 71, 180, 178, 181])), "hr") == [
        None, None, "too_fast", None, None,
    ]  # fmt: skip


@pytest.mark.parametrize("metric", PACE)
def test_with_time_the_same_distance_becomes_possible(metric: str) -> None:
    pace = PACE[metric]
    low = {"hr": 60, "rr": 15, "spo2": 70, "temp": 36, "sbp": 100, "dbp": 60}.get(metric, 10.0)
    high = low + pace.jump * 1.2
    hours = (high - low - pace.jump) / pace.per_hour
    for share, expected in ((0.5, "too_fast"), (1.1, None)):
        checked = run(series(metric, [low, high], every_s=hours * 3600 * share))
        assert said(checked, metric) == [None, expected], share


def test_the_first_reading_of_a_device_must_be_believed() -> None:
    assert said(run([(0, 0, {"hr": 200}), (1, 0, {"hr": 40})]), "hr") == [None, None]


@pytest.mark.parametrize("metric", STILLNESS)
def test_a_value_that_never_moves_is_a_stuck_sensor(metric: str) -> None:
    stillness = STILLNESS[metric]
    value = {"hr": 66.0, "rr": 14.0, "spo2": 97.0, "temp": 36.4}[metric]
    every_s = stillness.seconds / stillness.readings
    count = stillness.readings + 3
    told = said(run(series(metric, [value] * count, every_s)), metric)
    assert told == [None] * stillness.readings + ["flat"] * 3
    moves = [value + 0.1 * (n == count // 2) for n in range(count)]
    assert set(said(run(series(metric, moves, every_s)), metric)) == {None}


def test_equal_values_around_a_long_pause_are_not_a_stuck_sensor() -> None:
    readings = series("hr", [66] * 59) + series("hr", [66] * 2, start_s=7200)
    assert set(said(run(readings), "hr")) == {None}


def test_fewer_equal_readings_over_a_long_time_are_not_a_stuck_sensor() -> None:
    assert set(said(run(series("hr", [66] * 50, every_s=600)), "hr")) == {None}


def test_findings_gather_one_fault_of_one_device() -> None:
    readings = series("hr", [255, 255, 70, 255])
    readings.append((1, 5.0, {"hr": 255.0}))
    first, second = run(readings, PRESENT).findings
    assert (first.row, first.metric, first.reason, first.count) == (0, "hr", "no_value", 3)
    assert (first.first_s, first.last_s) == (START, START + 30)
    assert (second.row, second.count) == (1, 1)


def test_a_reading_older_than_the_last_is_not_judged_by_its_pace() -> None:
    memory = Memory(1)
    run([(0, 100, {"hr": 70})], memory=memory)
    assert said(run([(0, 50, {"hr": 200})], memory=memory), "hr") == [None]
    assert said(run([(0, 110, {"hr": 200})], memory=memory), "hr") == ["too_fast"]


def test_every_reason_has_words_and_no_code_is_a_usual_value() -> None:
    assert set(WORDS) == set(REASONS)
    usual = {
        "hr": (30, 240), "rr": (4, 60), "spo2": (50, 100), "temp": (30, 43),
        "sbp": (50, 300), "dbp": (20, 200), "glucose": (1, 40), "weight": (25, 250),
    }  # fmt: skip
    for metric, no_value in NO_VALUE.items():
        low, high = usual[metric]
        assert not [code for code in no_value.codes if low <= code <= high]


@settings(max_examples=60)
@given(
    readings=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from([5, 60, 1800]),
            st.sampled_from([0, 60, 60, 61, 66, 140, 200, 255]),
            st.sampled_from([97, 97, 80, 0, math.nan]),
        ),
        max_size=40,
    ),
    cut=st.integers(0, 40),
)
def test_cutting_a_series_into_batches_changes_nothing(
    readings: list[tuple[int, int, float, float]], cut: int
) -> None:
    clock = [0.0, 0.0, 0.0]
    told: list[Reading] = []
    for row, step, hr, spo2 in readings:
        clock[row] += step
        told.append((row, clock[row], {"hr": hr, "spo2": spo2}))
    whole = [reading for row in range(3) for reading in told if reading[0] == row]
    if not whole:
        return
    together = run(whole, memory=Memory(3))
    expected = {
        reading[:2]: list(reason) for reading, reason in zip(whole, together.reason, strict=True)
    }
    memory = Memory(3)
    for part in (told[:cut], told[cut:]):
        batch = [reading for row in range(3) for reading in part if reading[0] == row]
        if batch:
            for reading, reason in zip(batch, run(batch, memory=memory).reason, strict=True):
                assert list(reason) == expected[reading[:2]]


@pytest.mark.parametrize("cut", range(1, 5))
def test_a_spike_is_known_across_batches(cut: int) -> None:
    memory, readings = Memory(1), series("hr", [70, 180, 71, 69, 190])
    told = [reason for part in (readings[:cut], readings[cut:])
            for reason in said(run(part, memory=memory), "hr")]  # fmt: skip
    assert told == [None, "too_fast", None, None, "too_fast"]


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_stuck_sensor_is_known_across_batches(size: int) -> None:
    memory, readings = Memory(1), series("hr", [66] * 100, every_s=30)
    parts = [readings[start : start + size] for start in range(0, 100, size)]
    told = [reason for part in parts for reason in said(run(part, memory=memory), "hr")]
    assert told == [None] * 60 + ["flat"] * 40

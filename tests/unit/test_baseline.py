"""One's own usual: what it is learnt from, how fast it moves, and the distance from it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.baseline import (
    ALL_DAY,
    BINS,
    LEAST_SPREAD,
    MOST_DRIFT_PER_DAY,
    MOST_SUM,
    NUMBERS,
    SHRINK_HOURS,
    SLACK,
    VITALS,
    Baselines,
    Distance,
    Floats,
    Usual,
    bin_of,
    follow,
    learn,
    usual_at,
    usual_of,
)

HOUR = 3600.0
START = 1.8e9
ONE = np.array([0])
AWAKE = np.zeros(1, np.bool_)
POPULATION = np.array([72.0, 16.0, 96.5, 36.5, 132.0, 74.0])


def days(count: int, level: Floats | float = 0.0, people: int = 1, seed: int = 0) -> Floats:
    """Return hourly means (people, hours, vitals) around 90/20/95/36.9/150/85, slower at night."""
    dice = np.random.default_rng(seed)
    at = np.arange(count * 24)
    night = (at % 24 < 6)[None, :, None]
    centre = np.array([90, 20, 95, 36.9, 150, 85])
    spread = np.array([5, 1.5, 1, 0.2, 10, 6])
    noise = dice.normal(size=(people, count * 24, len(VITALS))) * spread
    hourly: Floats = centre + noise - 10.0 * night * np.array([1, 0, 0, 0, 0, 0]) + level
    return hourly


def hours(count: int) -> Floats:
    """Return the local hour of each hourly mean."""
    return np.arange(count * 24.0) % 24


def learnt(hourly: Floats, span_days: float = 1) -> Baselines:
    """Return baselines of residents who have been known for so many hourly means."""
    baselines = Baselines.of_nobody(len(hourly))
    rows = np.arange(len(hourly))
    found = usual_of(hourly, np.arange(hourly.shape[1]) % 24)
    learn(baselines, rows, found, span_days, np.zeros(len(hourly), np.bool_))
    return baselines


def told(baselines: Baselines, at_h: float, **vitals: float) -> Distance:
    """Tell one reading of the first resident."""
    values = np.array([[vitals.get(name, np.nan) for name in VITALS]])
    return follow(baselines, ONE, np.array([START + at_h * HOUR]), values, np.array([at_h % 24]))


def test_median_and_spread_are_those_of_each_time_of_day() -> None:
    hourly = days(28, people=3)
    hourly[1, ::3] = np.nan
    hourly[2] = np.nan
    found = usual_of(hourly, hours(28))
    for person in range(2):
        for one in range(BINS + 1):
            inside = bin_of(hours(28)) == one if one < BINS else np.ones(28 * 24, np.bool_)
            mine = hourly[person, inside]
            centre = np.nanmedian(mine, axis=0)
            spread = 1.4826 * np.nanmedian(np.abs(mine - centre), axis=0)
            assert found.centre[:, one, person] == pytest.approx(centre, abs=1e-4)
            assert found.spread[:, one, person] == pytest.approx(spread, abs=1e-4)
            assert (found.hours[:, one, person] == (~np.isnan(mine)).sum(axis=0)).all()
    assert (found.hours[:, :, 2] == 0).all()
    assert found.centre[0, 0, 0] < found.centre[0, 1, 0] - 5  # the heart is slower at night


def test_hours_of_an_open_alarm_are_not_learnt_from() -> None:
    hourly = days(14)
    ill = np.zeros(hourly.shape[:2], np.bool_)
    ill[:, 100:200] = True
    healthy = usual_of(hourly, hours(14), ill)
    hourly[ill] += 40
    assert (usual_of(hourly, hours(14), ill).centre == healthy.centre).all()
    assert healthy.hours[0, ALL_DAY, 0] == 14 * 24 - 100


def test_nobody_known_is_like_the_population() -> None:
    centre, spread = usual_at(Baselines.of_nobody(1), ONE, np.array([2]))
    assert centre[:, 0] == pytest.approx(POPULATION)
    assert (spread[:, 0] >= LEAST_SPREAD).all()


@pytest.mark.parametrize("known", [3, 20, 60])
def test_the_first_hours_lean_on_the_population(known: int) -> None:
    hourly = days(4)
    hourly[:, known:] = np.nan
    baselines = learnt(hourly)
    own = baselines.usual
    for one in range(BINS):
        day, here = (own.hours[0, bin_, 0] for bin_ in (ALL_DAY, one))
        assert day == known
        all_day = 72 + day / (day + SHRINK_HOURS) * (own.centre[0, ALL_DAY, 0] - 72)
        expected = all_day + here / (here + SHRINK_HOURS) * (own.centre[0, one, 0] - all_day)
        centre, _ = usual_at(baselines, ONE, np.array([one]))
        assert centre[0, 0] == pytest.approx(expected)


def test_after_four_weeks_the_usual_is_ones_own() -> None:
    centre, spread = usual_at(learnt(days(28)), ONE, bin_of([14.0]))
    assert centre[:, 0] == pytest.approx([90, 20, 95, 36.9, 150, 85], rel=0.03)
    assert spread[0, 0] == pytest.approx(5, rel=0.25)


def test_a_very_steady_person_keeps_the_least_spread() -> None:
    hourly = np.full((1, 28 * 24, len(VITALS)), 50.0)
    _, spread = usual_at(learnt(hourly), ONE, np.array([1]))
    assert (spread[:, 0] >= LEAST_SPREAD).all()


def test_an_established_usual_follows_a_change_no_faster_than_its_drift() -> None:
    baselines = learnt(days(28))
    before = baselines.usual.centre.copy()
    risen = usual_of(days(28, level=30.0), hours(28))
    learn(baselines, ONE, risen, 1, AWAKE)
    moved = baselines.usual.centre - before
    assert moved == pytest.approx(np.broadcast_to(MOST_DRIFT_PER_DAY[:, None, None], moved.shape))
    for _ in range(100):
        learn(baselines, ONE, risen, 1, AWAKE)
    assert baselines.usual.centre[0] == pytest.approx(risen.centre[0])  # but it arrives


def test_nothing_is_learnt_of_a_resident_with_an_open_alarm() -> None:
    baselines = learnt(days(28, people=2))
    before = baselines.numbers.copy()
    risen = usual_of(days(28, people=2, level=20.0), hours(28))
    learn(baselines, np.arange(2), risen, np.array([1.0, 1.0]), np.array([True, False]))
    assert (baselines.numbers[:, 0] == before[:, 0]).all()
    assert (baselines.numbers[:, 1] != before[:, 1]).any()


def test_an_empty_window_leaves_the_usual_as_it_was() -> None:
    baselines = learnt(days(28))
    before = baselines.numbers.copy()
    learn(baselines, ONE, usual_of(np.full((1, 672, 6), np.nan), hours(28)), 28, AWAKE)
    assert (baselines.numbers == before).all()


def test_the_distance_is_in_spreads_from_the_usual() -> None:
    distance = told(learnt(days(28)), 14, hr=110)
    expected = (110 - distance.centre[0, 0]) / distance.spread[0, 0]
    assert distance.z[0, 0] == pytest.approx(expected)
    assert distance.z[0, 0] > 3
    assert np.isnan(distance.z[1:]).all()
    for running in (distance.faded, distance.above, distance.below):
        assert not np.isnan(running).any()


def test_a_slow_rise_is_summed_and_a_usual_day_is_not() -> None:
    baselines = learnt(days(28))
    quiet, ill = learnt(days(28)), baselines
    for hour in range(6, 24):
        centre, spread = usual_at(baselines, ONE, bin_of([hour]))
        told(quiet, hour, hr=float(centre[0, 0]))
        told(ill, hour, hr=float(centre[0, 0] + 1.5 * spread[0, 0]))
    assert quiet.above[0, 0] == 0
    assert ill.above[0, 0] == pytest.approx(18 * (1.5 - SLACK))
    assert ill.below[0, 0] == 0
    assert ill.faded[0, 0] == pytest.approx(1.5, abs=0.1)


def test_the_sums_end_and_fade_in_silence() -> None:
    baselines = learnt(days(28))
    for hour in range(100):
        told(baselines, hour, hr=200.0)
    assert baselines.above[0, 0] == MOST_SUM
    faded = baselines.faded[0, 0]
    later = told(baselines, 99 + 24, hr=float("nan"))
    assert later.above[0, 0] == MOST_SUM  # nothing told, nothing changed
    told(baselines, 99 + 96, hr=80.0)
    assert baselines.above[0, 0] == 0
    assert abs(baselines.faded[0, 0]) < 0.1 * faded


@pytest.mark.parametrize("every_s", [10, 60, 600, 3600])
def test_how_often_somebody_is_measured_changes_nothing(every_s: int) -> None:
    baselines = Baselines.of_nobody(1)
    told(baselines, 0, hr=90.0)
    for second in range(every_s, 12 * 3600 + 1, every_s):
        values = np.full((1, len(VITALS)), np.nan)
        values[0, 0] = 90.0
        at_s = np.array([START + second])
        distance = follow(baselines, ONE, at_s, values, np.array([12.0]))
    z = (90 - 72) / 8
    assert distance.above[0, 0] == pytest.approx(13 * (z - SLACK), rel=1e-6)
    assert distance.faded[0, 0] == pytest.approx(z * (1 - np.exp(-13 / 6)), rel=1e-6)


def test_a_reading_that_is_not_newer_is_told_of_and_not_remembered() -> None:
    baselines = Baselines.of_nobody(1)
    told(baselines, 10, hr=90.0)
    before = baselines.numbers.copy()
    for at_h in (10, 4):
        assert told(baselines, at_h, hr=120.0).z[0, 0] > 5
        assert (baselines.numbers == before).all()


def test_what_is_known_of_a_resident_is_stored_and_read_back() -> None:
    baselines = learnt(days(28, people=4))
    follow(baselines, np.arange(4), np.full(4, START), days(1, people=4)[:, 0], np.zeros(4))
    stored = [baselines.numbers[:, row].tobytes() for row in (3, 1)]
    again = Baselines(np.array([np.frombuffer(one) for one in stored]).T)
    assert again.numbers.shape == (NUMBERS, 2)
    more = again.grown(5)
    values, at_s = days(1, people=2, seed=9)[:, 9], np.full(2, START + HOUR)
    expected = follow(baselines, np.array([3, 1]), at_s, values, np.full(2, 9.0))
    for one in (again, more):
        distance = follow(one, np.array([0, 1]), at_s, values, np.full(2, 9.0))
        assert (distance.z == expected.z).all()
        assert (distance.above == expected.above).all()
        assert (distance.faded == expected.faded).all()


@settings(max_examples=50)
@given(
    readings=st.lists(
        st.tuples(st.integers(0, 100), st.one_of(st.floats(0, 300), st.just(float("nan")))),
        max_size=30,
    )
)
def test_the_running_sums_stay_finite_and_bounded(readings: list[tuple[int, float]]) -> None:
    baselines = Baselines.of_nobody(1)
    for at_h, hr in readings:
        distance = told(baselines, at_h, hr=hr)
        assert (distance.above >= 0).all()
        assert (distance.above <= MOST_SUM).all()
        assert (distance.below >= 0).all()
        assert (np.abs(distance.faded) <= 8).all()
        assert np.isnan(distance.z[0, 0]) == np.isnan(hr)


def test_a_usual_is_a_struct_of_arrays_by_vital_bin_and_resident() -> None:
    found = usual_of(days(2, people=7), hours(2))
    assert isinstance(found, Usual)
    assert found.centre.shape == (len(VITALS), BINS + 1, 7)

"""NEWS2 against a slow reading of the table, value by value, and what must hold with gaps."""

from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anxin.vitals import CONSCIOUSNESS
from models.news2 import (
    AGE_LIMIT_S,
    BANDS,
    PARAMETERS,
    SPOT_S,
    STREAM_S,
    News2,
    Parameter,
    band_of,
    news2,
    without_points,
)

# The columns of the published table: points, then the values that get them, both ends included.
TABLE: dict[str, list[tuple[int, str, str]]] = {
    "rr": [(3, "0", "8"), (1, "9", "11"), (0, "12", "20"), (2, "21", "24"), (3, "25", "100")],
    "spo2": [(3, "0", "91"), (2, "92", "93"), (1, "94", "95"), (0, "96", "100")],
    "scale 2": [(3, "0", "83"), (2, "84", "85"), (1, "86", "87"), (0, "88", "92")],
    "scale 2 on air": [(0, "93", "100")],
    "scale 2 on oxygen": [(1, "93", "94"), (2, "95", "96"), (3, "97", "100")],
    "sbp": [
        (3, "0", "90"), (2, "91", "100"), (1, "101", "110"), (0, "111", "219"), (3, "220", "350"),
    ],
    "hr": [
        (3, "0", "40"), (1, "41", "50"), (0, "51", "90"), (1, "91", "110"), (2, "111", "130"),
        (3, "131", "300"),
    ],
    "temp": [
        (3, "20.0", "35.0"), (1, "35.1", "36.0"), (0, "36.1", "38.0"), (1, "38.1", "39.0"),
        (2, "39.1", "45.0"),
    ],
}  # fmt: skip
USUAL: dict[str, Any] = {
    "hr": 70, "rr": 16, "spo2": 97, "temp": 36.8, "sbp": 120, "oxygen": 0, "consciousness": 0,
}  # fmt: skip
RANGES = {"rr": (0, 100, 1), "spo2": (0, 100, 1), "sbp": (0, 350, 1), "hr": (0, 300, 1)}


def oracle(value: Decimal, *bands: str, step: str = "1") -> int:
    """Return the points of one value, by looking it up row by row."""
    rounded = value.quantize(Decimal(step), ROUND_HALF_UP)
    found = [
        points
        for band in bands
        for points, low, high in TABLE[band]
        if Decimal(low) <= rounded <= Decimal(high)
    ]
    assert len(found) == 1, (value, bands)
    return found[0]


def scored(**values: Any) -> News2:
    """Score residents of whom nothing but these values is unusual."""
    return news2(**(USUAL | values))


def part(result: News2, parameter: str) -> list[int]:
    """Return one parameter's points, by resident."""
    return list(result.points[PARAMETERS.index(parameter)])


@pytest.mark.parametrize("parameter", ["rr", "sbp", "hr", "spo2"])
def test_every_hundredth_of_a_parameter_gets_the_points_of_the_table(parameter: str) -> None:
    low, high, _ = RANGES[parameter]
    values = [Decimal(n) / 100 for n in range(low * 100, high * 100 + 1)]
    result = scored(**{parameter: [float(value) for value in values]})
    expected = [oracle(value, parameter) for value in values]
    assert part(result, parameter) == expected
    assert list(result.score) == expected  # nothing else gives points
    assert result.complete.all()


def test_every_thousandth_of_a_degree_gets_the_points_of_the_table() -> None:
    values = [Decimal(n) / 1000 for n in range(20_000, 45_001)]
    expected = [oracle(value, "temp", step="0.1") for value in values]
    assert part(scored(temp=[float(value) for value in values]), "temp") == expected
    kept_in_four_bytes = np.array([float(value) for value in values], np.float32)
    assert part(scored(temp=kept_in_four_bytes), "temp") == expected


@pytest.mark.parametrize(("oxygen", "bands"), [(0, "scale 2 on air"), (1, "scale 2 on oxygen")])
def test_scale_2_gives_the_points_of_its_own_rows(oxygen: int, bands: str) -> None:
    values = [Decimal(n) / 100 for n in range(10_001)]
    result = scored(spo2=[float(value) for value in values], oxygen=oxygen, scale2=True)
    expected = [oracle(value, "scale 2", bands) for value in values]
    assert part(result, "spo2") == expected
    assert list(result.score) == [points + 2 * oxygen for points in expected]


@pytest.mark.parametrize(
    ("values", "parameter", "points"),
    [
        ({"temp": 35.05}, "temp", 1),  # 35.1
        ({"temp": 35.04}, "temp", 3),
        ({"temp": 36.05}, "temp", 0),
        ({"temp": 38.05}, "temp", 1),  # 38.1
        ({"temp": 38.049}, "temp", 0),
        ({"temp": 39.05}, "temp", 2),
        ({"sbp": 90.5}, "sbp", 2),  # 91
        ({"sbp": 90.49}, "sbp", 3),
        ({"sbp": 219.5}, "sbp", 3),
        ({"hr": 90.5}, "hr", 1),
        ({"rr": 8.5}, "rr", 1),
        ({"rr": 24.5}, "rr", 3),
        ({"spo2": 91.5}, "spo2", 2),
        ({"hr": 0}, "hr", 3),  # zero is a value
    ],
)
def test_a_half_is_rounded_up_before_it_is_banded(
    values: dict[str, float], parameter: str, points: int
) -> None:
    assert part(scored(**{name: [value] for name, value in values.items()}), parameter) == [points]


def test_oxygen_gives_two_and_anything_but_alert_three() -> None:
    assert part(scored(oxygen=[0, 1]), "oxygen") == [0, 2]
    coded = range(len(CONSCIOUSNESS))
    assert part(scored(consciousness=list(coded)), "consciousness") == [0, 3, 3, 3, 3]


@pytest.mark.parametrize("spo2", range(80, 101))
def test_scale_2_with_oxygen_unknown_is_bounded_by_air_and_oxygen(spo2: int) -> None:
    result = scored(spo2=[spo2], oxygen=np.nan, scale2=True)
    air = scored(spo2=[spo2], oxygen=0, scale2=True).score[0]
    oxygen = scored(spo2=[spo2], oxygen=1, scale2=True).score[0]
    assert (result.possible_min[0], result.possible_max[0]) == (air, oxygen)
    assert not result.complete[0]


@pytest.mark.parametrize("parameter", ["rr", "sbp", "hr", "spo2", "temp"])
@pytest.mark.parametrize(("scale2", "oxygen"), [(False, 0), (True, 0), (True, 1)])
def test_the_range_without_points_is_the_one_that_scores_nothing(
    parameter: Parameter, scale2: bool, oxygen: int
) -> None:
    low, high = without_points(parameter, scale2=scale2, on_oxygen=bool(oxygen))
    top = {"rr": 100, "sbp": 350, "hr": 300, "spo2": 100, "temp": 45}[parameter]
    every = np.round(np.arange(20, top * 10 + 1) / 10, 1) if parameter == "temp" else np.arange(top)
    values = {parameter: every.astype(float)}
    points = part(scored(**values, scale2=scale2, oxygen=oxygen), parameter)
    inside = (every >= low) & (every <= high)
    measurable = every >= 20 if parameter == "temp" else every >= 0
    assert list((np.array(points) == 0) & measurable) == list(inside)


def test_a_bed_sensor_gives_six_of_twenty_points() -> None:
    result = news2(hr=[140.0], rr=[30.0], spo2=np.nan, temp=np.nan, sbp=np.nan)
    assert (result.score[0], result.possible_max[0]) == (6, 20)
    assert not result.complete[0]
    assert result.present.sum() == 2


def test_nothing_known_gives_every_total_from_none_to_twenty() -> None:
    result = news2(hr=[np.nan], rr=np.nan, spo2=np.nan, temp=np.nan, sbp=np.nan)
    assert (result.possible_min[0], result.possible_max[0]) == (0, 20)


@pytest.mark.parametrize(
    "values",
    [
        {"hr": 301.0}, {"hr": -0.1}, {"hr": np.inf}, {"rr": 255.0}, {"spo2": 127.0},
        {"temp": 0.0}, {"temp": 45.01}, {"sbp": 6553.5}, {"oxygen": 0.5}, {"consciousness": 5},
        {"consciousness": -1},
    ],
)  # fmt: skip
def test_what_no_device_may_report_counts_as_missing(values: dict[str, float]) -> None:
    (parameter,) = values
    result = scored(**{name: [value] for name, value in values.items()})
    assert not result.complete[0]
    assert part(result, parameter) == [0]
    assert result.possible_max[0] > result.possible_min[0]


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_a_value_counts_up_to_its_age_limit_and_not_beyond(parameter: str) -> None:
    row = PARAMETERS.index(parameter)
    limit = AGE_LIMIT_S[row]
    assert limit == (STREAM_S if parameter in {"hr", "rr", "spo2"} else SPOT_S)
    ages = np.zeros((7, 4))
    ages[row] = [limit, limit + 1, np.nan, -60]
    result = scored(hr=[70.0] * 4, age_s=ages)
    assert list(result.present[row]) == [True, False, False, True]
    assert list(result.complete) == [True, False, False, True]


def test_ages_may_be_one_for_each_parameter_and_limits_others() -> None:
    ages = np.zeros(7)
    ages[PARAMETERS.index("hr")] = 3600
    assert not scored(hr=[70.0, 71.0], age_s=ages).complete.any()
    assert scored(hr=[70.0, 71.0], age_s=ages, age_limit_s=np.full(7, SPOT_S)).complete.all()


@pytest.mark.parametrize(
    ("values", "score", "band"),
    [
        ({}, 0, "low"),
        ({"rr": 22, "hr": 120}, 4, "low"),
        ({"rr": 25}, 3, "low-medium"),
        ({"rr": 25, "hr": 95}, 4, "low-medium"),
        ({"rr": 25, "hr": 115}, 5, "medium"),
        ({"rr": 22, "hr": 115, "temp": 38.5}, 5, "medium"),
        ({"rr": 25, "hr": 135}, 6, "medium"),
        ({"rr": 25, "hr": 135, "temp": 38.5}, 7, "high"),
        ({"rr": 30, "hr": 140, "temp": 35, "spo2": 80, "sbp": 80, "oxygen": 1,
          "consciousness": 4}, 20, "high"),
    ],
)  # fmt: skip
def test_the_total_falls_into_its_band(values: dict[str, float], score: int, band: str) -> None:
    result = scored(**({"hr": [70.0]} | {name: [value] for name, value in values.items()}))
    assert result.score[0] == score
    assert BANDS[result.band[0]] == band
    assert list(band_of([score], result.any_three)) == list(result.band)


VALUES = st.fixed_dictionaries(
    {
        "hr": st.floats(-10, 320),
        "rr": st.floats(-5, 120),
        "spo2": st.floats(60, 110),
        "temp": st.floats(30, 46),
        "sbp": st.floats(-5, 360),
        "oxygen": st.sampled_from([0.0, 1.0]),
        "consciousness": st.integers(-1, 5),
        "scale2": st.booleans(),
    }
)


def gaps(values: dict[str, Any], missing: set[str]) -> dict[str, Any]:
    """Return the values of one resident without some of them."""
    nothing = {"consciousness": -1}
    return {
        name: [nothing.get(name, np.nan) if name in missing else value]
        for name, value in values.items()
    }


@given(
    values=VALUES, missing=st.sets(st.sampled_from(PARAMETERS)), more=st.sampled_from(PARAMETERS)
)
def test_a_gap_filled_in_stays_within_the_bounds(
    values: dict[str, Any], missing: set[str], more: str
) -> None:
    wide = news2(**gaps(values, missing | {more}))
    narrow = news2(**gaps(values, missing))
    full = news2(**gaps(values, set()))
    for fewer, better in ((wide, narrow), (narrow, full)):
        assert fewer.possible_min[0] <= better.possible_min[0]
        assert better.possible_max[0] <= fewer.possible_max[0]
        assert fewer.band[0] <= better.band[0]
    for result in (wide, narrow, full):
        assert 0 <= result.possible_min[0] <= result.score[0] <= result.possible_max[0] <= 20
        assert result.score[0] == result.points[:, 0].sum()
        assert result.complete[0] == result.present[:, 0].all()
        if result.complete[0]:
            assert result.possible_min[0] == result.possible_max[0]


def test_hours_of_residents_score_like_each_hour_alone() -> None:
    dice = np.random.default_rng(1)
    hours = {"hr": dice.uniform(30, 150, (5, 6)), "temp": dice.uniform(34, 40, (5, 6))}
    together = scored(**hours, scale2=np.arange(5)[:, None] % 2 == 0)
    for person in range(5):
        for hour in range(6):
            alone = scored(
                **{name: [values[person, hour]] for name, values in hours.items()},
                scale2=person % 2 == 0,
            )
            assert together.score[person, hour] == alone.score[0]
            assert list(together.points[:, person, hour]) == list(alone.points[:, 0])

"""Features of a day: causal, blind to how often somebody was measured, never infinite."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.datasets import Dataset
from models.deterioration import VITALS_AND_AGE
from models.examples import table
from models.features import BODY, FEATURES, HOLDS_HOURS, HOURS, VITALS, features

USUAL = np.array([72.0, 16.0, 97.0, 36.6, 128.0, 74.0, 15.0, 0.0])
RNG = np.random.default_rng(5)


def days(count: int, missing: float = 0.3, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = USUAL + rng.normal(0, 1, (count, HOURS, len(VITALS))) * [9, 2, 1, 0.4, 12, 8, 0, 0]
    values[rng.random(values.shape) < missing] = np.nan
    return values


def of(values: np.ndarray, usual: np.ndarray | None = None) -> np.ndarray:
    count = len(values)
    known = np.full((count, BODY), np.nan) if usual is None else usual
    return features(values, np.full(count, 80.0), np.ones(count), known)


def dataset(values: np.ndarray) -> Dataset:
    hours = len(values)
    return Dataset(
        name="one", question="sepsis", hourly=True, people=("a",),
        person=np.zeros(hours, np.int64), hour=np.arange(hours), values=values,
        age=np.array([80.0]), sex=np.array([1.0]), onset=np.array([np.nan]),
        outcome=np.array([0.0]), hashes={},
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, HOURS))
def test_constant_vital_signs_give_the_same_features_however_often_and_long_measured(
    seed: int, length: int
) -> None:
    rng = np.random.default_rng(seed)
    whole = np.broadcast_to(USUAL, (1, HOURS, len(VITALS))).copy()
    thinned = whole.copy()
    thinned[:, : HOURS - length] = np.nan
    for vital in range(len(VITALS)):
        holds = int(HOLDS_HOURS[vital])
        newest = HOURS - 1 - int(rng.integers(0, min(holds, length)))
        gone = rng.random(HOURS) < 0.7
        gone[newest] = False
        # Never a gap so long that a value grows too old, nor one at the newest end.
        gone[newest::-holds] = False
        thinned[0, gone, vital] = np.nan
        thinned[0, newest + 1 :, vital] = np.nan
    assert np.allclose(of(whole), of(thinned), equal_nan=True, atol=1e-6)


def test_no_feature_is_a_count_an_age_of_a_value_or_an_hour_of_the_stay() -> None:
    words = {word for name in FEATURES for word in name.split("_")}
    assert not words & {"count", "n", "hour", "hours", "since", "stay", "missing", "measured"}
    assert set(VITALS_AND_AGE) <= set(FEATURES)


def test_what_comes_later_changes_nothing_about_an_hour() -> None:
    values = days(3, seed=4).reshape(-1, len(VITALS))
    before = table(dataset(values), np.arange(40))
    changed = values.copy()
    changed[40:] = 1.5 * values[40:]
    assert np.array_equal(before, table(dataset(changed), np.arange(40)), equal_nan=True)


def test_the_batch_gives_each_resident_what_one_alone_gets() -> None:
    values = days(2100)
    usual = USUAL[:BODY] + RNG.normal(0, 1, (2100, BODY))
    together = of(values, usual)
    for one in (0, 1023, 1024, 2099):
        alone = of(values[one : one + 1], usual[one : one + 1])
        assert np.allclose(together[one], alone[0], equal_nan=True)


def test_the_order_of_a_ring_may_be_any_view() -> None:
    ring = np.ascontiguousarray(days(50).transpose(1, 2, 0))
    assert np.array_equal(of(ring.transpose(2, 0, 1)), of(days(50)), equal_nan=True)


def test_features_are_never_infinite_and_the_input_stays_as_it_was() -> None:
    values = days(200, missing=0.95)
    values[0] = np.nan
    values[1] = 0.0
    before = values.copy()
    out = of(values)
    assert not np.isinf(out).any()
    assert np.array_equal(values, before, equal_nan=True)
    assert np.isnan(out[0, FEATURES.index("hr_last")])


def test_a_value_holds_until_it_is_too_old() -> None:
    values = np.full((1, HOURS, len(VITALS)), np.nan)
    for vital, name in enumerate(VITALS[:BODY]):
        holds = int(HOLDS_HOURS[vital])
        values[0, HOURS - holds, vital] = USUAL[vital]
        assert of(values)[0, FEATURES.index(f"{name}_last")] == USUAL[vital]
        values[0, :, vital] = np.nan
        values[0, HOURS - holds - 1, vital] = USUAL[vital]
        assert np.isnan(of(values)[0, FEATURES.index(f"{name}_last")])


@pytest.mark.parametrize(("name", "value"), [("own", 8.0), ("jump", 0.0), ("turn", 0.0)])
def test_a_shift_from_ones_usual_shows_as_own_only(name: str, value: float) -> None:
    values = np.broadcast_to(USUAL, (1, HOURS, len(VITALS))).copy()
    usual = USUAL[None, :BODY] - [8, 0, 0, 0, 0, 0]
    assert of(values, usual)[0, FEATURES.index(f"hr_{name}")] == pytest.approx(value)

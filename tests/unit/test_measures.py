"""Discrimination against scikit-learn, alarms against a plain slow count."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from models.calibration import calibrate, conformal_threshold, curve
from models.measures import (
    BUNDLE_HOURS,
    CAUGHT_AFTER,
    CAUGHT_BEFORE,
    Ranking,
    interval,
    resamples,
    steps,
    watch,
)


def scored(people: int = 40, hours: int = 60, seed: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), hours)
    hour = np.tile(np.arange(hours), people)
    onset = np.where(rng.random(people) < 0.4, rng.integers(3, hours, people), np.nan)
    with np.errstate(invalid="ignore"):
        near = np.abs(hour - onset[person]) < 6
    score = np.round(rng.normal(0, 1, len(person)) + near, 1)
    return {"score": score, "person": person, "hour": hour, "onset": onset, "near": near * 1}


def test_areas_agree_with_scikit_learn_with_ties_and_weights() -> None:
    one = scored()
    ranking = Ranking(one["score"], one["near"], one["person"])
    for weight in (np.ones(40), *resamples(40, 3)):
        each = weight[one["person"]]
        assert ranking.auroc(weight) == pytest.approx(
            roc_auc_score(one["near"], one["score"], sample_weight=each)
        )
        assert ranking.auprc(weight) == pytest.approx(
            average_precision_score(one["near"], one["score"], sample_weight=each)
        )


def test_a_score_of_one_value_tells_nothing_apart() -> None:
    ranking = Ranking(np.zeros(10), np.array([1, 0] * 5), np.arange(10))
    assert ranking.auroc(np.ones(10)) == 0.5
    assert np.isnan(ranking.auroc(np.zeros(10)))


def slow(one: dict[str, np.ndarray], threshold: float) -> tuple[set[int], dict[int, float], int]:
    """Count alarms of each person one hour after the other."""
    caught: dict[int, float] = {}
    false, last = 0, {}
    for score, person, hour in zip(one["score"], one["person"], one["hour"], strict=True):
        if score < threshold or hour - last.get(person, -99) < BUNDLE_HOURS:
            continue
        last[person] = hour
        onset = one["onset"][person]
        if np.isnan(onset) or hour < onset - CAUGHT_BEFORE:
            false += 1
        elif hour <= onset + CAUGHT_AFTER:
            caught.setdefault(int(person), float(onset - hour))
    return set(caught), caught, false


@pytest.mark.parametrize("threshold", [-0.5, 0.3, 1.2, 2.5])
def test_alarms_are_counted_as_a_plain_count_does(threshold: float) -> None:
    one = scored()
    watched = watch(one["score"], one["person"], one["hour"], one["onset"], np.array([threshold]))
    caught, lead, false = slow(one, threshold)
    assert set(np.flatnonzero(watched.caught[0]).tolist()) == caught
    assert {who: watched.lead[0, who] for who in caught} == lead
    assert watched.false.sum() == false
    assert not (watched.caught & ~watched.event).any()
    assert (watched.early <= watched.caught).all()


def test_the_budget_is_kept_by_the_lowest_threshold_that_keeps_it() -> None:
    one = scored(people=200)
    watched = watch(one["score"], one["person"], one["hour"], one["onset"], steps(one["score"]))
    everybody = np.ones(200)
    rate = watched.false_rate(everybody)
    at = watched.at_budget(1.0, everybody)
    assert rate[at] <= 1.0 < rate[at - 1]
    assert rate[watched.at_budget(1e-9, everybody)] == 0
    assert watched.at_budget(1e9, everybody) == 0


def test_the_last_step_raises_no_alarm_at_all() -> None:
    one = scored()
    thresholds = steps(one["score"])
    assert (np.diff(thresholds) > 0).all()
    assert thresholds[-1] > one["score"].max()


def test_days_at_home_are_counted_by_rows() -> None:
    score = np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    ranking = Ranking(score, np.array([1, 0, 1, 0, 0]), np.arange(5))
    everybody = np.ones(5)
    assert ranking.caught(0.0, everybody) == (0.5, 0.2)
    assert ranking.caught(0.2, everybody) == (1.0, 0.6)
    assert ranking.cost(0.95, everybody) == pytest.approx(0.2)


def test_an_interval_is_the_middle_of_the_rounds() -> None:
    found = interval(0.5, np.arange(101) / 100)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.025, 0.975))


def test_calibration_finds_the_line_that_made_the_answers() -> None:
    rng = np.random.default_rng(1)
    score = rng.normal(0, 2, 60_000)
    answer = (rng.random(60_000) < 1 / (1 + np.exp(-(0.6 * score - 2)))).astype(np.int64)
    found = calibrate(score, answer)
    assert found.slope == pytest.approx(0.6, abs=0.03)
    assert found.intercept == pytest.approx(-2, abs=0.06)
    groups = curve(found.risk(score), answer)
    assert sum(rows for _, _, rows in groups) == 60_000
    assert all(abs(said - came) < 0.02 for said, came, _ in groups)


def test_calibration_survives_answers_that_are_all_alike() -> None:
    found = calibrate(np.linspace(-3, 3, 50), np.zeros(50, np.int64))
    assert np.isfinite([found.slope, found.intercept]).all()


def test_the_conformal_threshold_keeps_its_bound_on_new_people() -> None:
    budget, rates = 1.0, []
    for seed in range(25):
        learned, new = scored(people=150, seed=seed), scored(people=150, seed=1000 + seed)
        watched = watch(
            learned["score"], learned["person"], learned["hour"], learned["onset"],
            steps(learned["score"]),
        )  # fmt: skip
        threshold = conformal_threshold(watched, budget)
        assert threshold is not None
        there = watch(new["score"], new["person"], new["hour"], new["onset"], np.array([threshold]))
        rates.append(there.false_rate(np.ones(150))[0])
    assert np.mean(rates) <= budget


def test_there_is_no_conformal_threshold_for_a_few_people() -> None:
    one = scored(people=3)
    watched = watch(one["score"], one["person"], one["hour"], one["onset"], steps(one["score"]))
    assert conformal_threshold(watched, 0.1) is None

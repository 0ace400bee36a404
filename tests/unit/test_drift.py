"""Drift: the same people are no news, others are, and the verdict does not flutter."""

import numpy as np

from models.drift import HOURS, LEAST_SCORES, Watch

EDGES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
SHARES = [0.1] * 10
HOUR = 3600.0


def seen(watch: Watch, low: float, high: float, *, hour: int, count: int = 1000) -> Watch:
    watch.see(np.linspace(low, high, count, endpoint=False), hour * HOUR)
    return watch


def test_people_like_those_of_the_card_are_no_drift() -> None:
    told = seen(Watch.of(EDGES, SHARES, 0.5), 0, 1, hour=500).told()
    assert told.psi is not None
    assert told.psi < 0.01
    assert not told.drifted


def test_other_people_are_and_it_ends_only_when_they_are_long_gone() -> None:
    watch = seen(Watch.of(EDGES, SHARES, 0.5), 0.8, 1, hour=500)
    assert watch.told().drifted
    for hour in range(501, 500 + HOURS):
        seen(watch, 0, 1, hour=hour, count=20)
    assert watch.told().drifted
    for hour in range(500 + HOURS, 500 + 2 * HOURS):
        seen(watch, 0, 1, hour=hour)
    assert not watch.told().drifted


def test_too_few_scores_say_nothing() -> None:
    told = seen(Watch.of(EDGES, SHARES, 0.5), 0.9, 1, hour=500, count=LEAST_SCORES - 1).told()
    assert (told.psi, told.drifted) == (None, False)


def test_nobody_is_not_a_score() -> None:
    watch = Watch.of(EDGES, SHARES, 0.5)
    watch.see(np.full(5000, np.nan), 500 * HOUR)
    assert watch.told().scores == 0

"""Real recordings of others: what the readers make of them, and figures that must not fall.

They are not part of the repository; where `../shared/data` is absent these tests are left out.
"""

from pathlib import Path

import numpy as np
import pytest

from models import home
from models.datasets import Dataset, find, read
from models.evaluate import held_out
from models.examples import table
from models.features import BODY
from models.measures import Ranking

DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="the recordings of ../shared/data are not here"
)


@pytest.fixture(scope="module")
def datasets() -> dict[tuple[str, str], Dataset]:
    return {(one.name, one.question): one for folder in find(DATA) for one in read(folder)}


def test_every_folder_is_known(datasets: dict[tuple[str, str], Dataset]) -> None:
    homes = [one for folder in find(DATA) for one in home.read(folder)]
    known = {name for name, _ in datasets} | {one.name for one in homes}
    assert known == {folder.name for folder in find(DATA)}
    assert {question for _, question in datasets} == {"sepsis", "death in hospital"}


def test_people_and_values_are_sane(datasets: dict[tuple[str, str], Dataset]) -> None:
    for one in datasets.values():
        assert (np.diff(one.person) >= 0).all()
        same = one.person[1:] == one.person[:-1]
        assert (np.diff(one.hour)[same] == 1).all()
        assert (one.hour[one.starts[:-1]] == 0).all()
        assert np.nanmin(one.values[:, 0]) >= 20
        assert 50 < np.nanmean(one.age) < 80
        events = np.isfinite(one.onset) if one.hourly else one.outcome == 1
        assert events.sum() == np.nansum(one.outcome)
        if one.hourly:
            known = np.flatnonzero(events)
            last = one.hour[one.starts[known + 1] - 1]
            assert (one.onset[known] <= last + 6).all()


def test_the_features_of_real_hours_are_finite_or_missing(
    datasets: dict[tuple[str, str], Dataset],
) -> None:
    for one in datasets.values():
        x = table(one, np.arange(0, len(one.person), 997))
        assert not np.isinf(x).any()
        assert np.isfinite(x[:, :BODY]).mean() > 0.3


def test_the_hold_out_is_always_the_same_fifth() -> None:
    held = held_out(4678)
    assert 0.19 < held.mean() < 0.21
    assert np.array_equal(held, held_out(4678))


def test_physiology_alerts_at_home_are_found_at_few_false_ones() -> None:
    (one,) = home.read(DATA / "tihm")
    given = home.days(one, "physiology alert", 0)
    score = home.crossfit(one, given, home.PLANS["physiology alert", 0])
    ranking = Ranking(score, given.y, one.resident)
    part, _ = ranking.caught(0.05, np.ones(len(one.people)))
    assert part >= 0.93

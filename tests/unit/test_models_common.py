"""What every scorer must pass, learned or not: one suite, a line for each scorer.

A scorer is a function from some residents to named arrays whose last axis is the resident. Each
begins afresh, so a scorer that remembers is asked about its first look.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
import pytest

from anxin.vitals import COLUMN, CONSCIOUSNESS, METRICS, PRESENCE
from models import deterioration, novelty, policy, quality
from models.baseline import VITALS as BASELINE_VITALS
from models.baseline import Baselines, follow, learn, usual_of
from models.examples import Examples
from models.explain import explain, record
from models.features import FEATURES, HOURS, VITALS, features
from models.news2 import News2, news2
from models.rhythm import DAY_S, HOUR_S, KINDS, ROOMS, Events, Sensors, days_of, unusual
from models.rhythm import WORDS as RHYTHM_WORDS

PEOPLE: Final = 40
NOW_S: Final = 1.8e9
BODY: Final = len(BASELINE_VITALS)
Array = np.ndarray[Any, np.dtype[Any]]
Said = Mapping[str, Array]


@dataclass(frozen=True)
class World:
    """Some residents, the first axis of every array: what devices and staff told of them.

    `history` (n, HOURS, VITALS), the newest values are its last hour; `age_s` (n, 7); `seed` stands
    for what each one does in a day.
    """

    history: Array
    consciousness: Array
    scale2: Array
    age_s: Array
    presence: Array
    years: Array
    sex: Array
    seed: Array

    def only(self, chosen: Array) -> "World":
        """Return some of the residents, in the order chosen."""
        return replace(self, **{one.name: getattr(self, one.name)[chosen] for one in fields(self)})

    def newest(self) -> dict[str, Array]:
        """Return the newest value of each vital sign by name."""
        return {name: self.history[:, -1, number] for number, name in enumerate(VITALS)}


def world(missing: float = 0.3, people: int = PEOPLE) -> World:
    """Return residents of whom some are ill and some things unknown."""
    dice = np.random.default_rng(7)
    centre = np.array([78, 17, 95.5, 36.9, 128, 74, 14, 0.2])
    spread = np.array([16, 4, 2.5, 0.7, 22, 12, 1.5, 0.4])
    history = centre + spread * dice.normal(size=(people, HOURS, len(VITALS)))
    history[..., -2] = history[..., -2].round().clip(3, 15)
    history[..., -1] = history[..., -1] > 0.5
    history[..., 2] = history[..., 2].clip(60, 100)
    history[dice.random(history.shape) < missing] = np.nan
    ages = dice.exponential(600, (people, 7))
    made = World(
        history,
        dice.integers(-1, len(CONSCIOUSNESS), people),
        dice.random(people) < 0.2,
        ages,
        dice.integers(0, len(PRESENCE), people),
        dice.uniform(65, 95, people),
        dice.integers(0, 2, people).astype(float),
        np.arange(people),
    )
    for one in fields(made):
        getattr(made, one.name).setflags(write=False)
    return made


def _news2(residents: World) -> News2:
    newest = residents.newest()
    return news2(
        **{name: newest[name] for name in ("hr", "rr", "spo2", "temp", "sbp", "oxygen")},
        consciousness=residents.consciousness, scale2=residents.scale2, age_s=residents.age_s.T,
    )  # fmt: skip


def score_news2(residents: World) -> Said:
    """Score NEWS2."""
    found = _news2(residents)
    return {one.name: getattr(found, one.name) for one in fields(found)}


def score_quality(residents: World) -> Said:
    """Check the newest values."""
    count = len(residents.seed)
    values = np.full((count, len(METRICS)), np.nan)
    for name in BASELINE_VITALS:
        values[:, COLUMN[name]] = residents.newest()[name]
    at_s = np.full(count, NOW_S)
    rows = np.arange(count)
    checked = quality.check(quality.Memory(count), rows, at_s, values, residents.presence)
    return {"usable": checked.usable.T, "reason": checked.reason.T}


def score_baseline(residents: World) -> Said:
    """Learn what is usual from the past hours and follow the newest."""
    count = len(residents.seed)
    rows, baselines = np.arange(count), Baselines.of_nobody(count)
    found = usual_of(residents.history[:, :-1, :BODY], np.arange(HOURS - 1))
    learn(baselines, rows, found, 1, np.zeros(count, np.bool_))
    newest, at_s, hour = residents.history[:, -1, :BODY], np.full(count, NOW_S), np.full(count, 9.0)
    distance = follow(baselines, rows, at_s, newest, hour)
    told = {one.name: getattr(distance, one.name) for one in fields(distance)}
    # The only NaN allowed: no distance where there is no value.
    assert (np.isnan(told["z"]) == np.isnan(newest.T)).all()
    return {**told, "z": np.nan_to_num(told["z"]), "numbers": baselines.numbers}


def score_rhythm(residents: World) -> Said:
    """Look for what is unusual in a fortnight of each."""
    told = []
    for row, seed in enumerate(residents.seed):
        dice = np.random.default_rng(int(seed))
        at_s = np.sort(dice.uniform(0, 13.6 * DAY_S, 60 + 20 * int(seed % 5)))
        told.append((
            np.full(len(at_s), row), at_s,
            dice.integers(0, len(KINDS), len(at_s)), dice.integers(0, len(ROOMS), len(at_s)),
        ))  # fmt: skip
    there = np.array([seed % 7 > 0 for seed in residents.seed], np.bool_)
    sensors = Sensors(there, there, there, in_bed=there)
    rows, at_s, kind, room = (np.concatenate(parts) for parts in zip(*told, strict=True))
    now_s = 13.6 * DAY_S
    codes = list(RHYTHM_WORDS)
    value = np.zeros((len(codes), len(residents.seed)))
    days = days_of(Events(rows, at_s, kind, room), sensors, 0, now_s)
    for finding in unusual(days, now_s):
        value[codes.index(finding.code), finding.row] = finding.value
    assert now_s % DAY_S > 12 * HOUR_S  # all that is judged by day is judged
    return {"findings": value}


def score_policy(residents: World) -> Said:
    """Fuse NEWS2 and what two learned layers might say."""
    scores, count = _news2(residents), len(residents.seed)
    asked = policy.Asked(
        np.zeros((len(policy.LAYERS), count), np.int8), np.full((len(policy.LAYERS), count), np.nan)
    )
    asked.priority[policy.NEWS2] = policy.news2_asks(scores)
    speaking: tuple[tuple[policy.Layer, str], ...] = (("deterioration", "hr"), ("novelty", "temp"))
    for layer, vital in speaking:
        place = policy.LAYERS.index(layer)
        asked.score[place] = residents.newest()[vital]
        asked.priority[place] = policy.learned_asks(layer, asked.score[place], 37.5)
    modes = np.full(len(policy.LAYERS), policy.MODES.index("alarming"))
    decided = policy.decide(
        policy.Told.nothing(count), np.arange(count), asked, modes, np.full(len(modes), 40.0), NOW_S
    )
    told = {one.name: getattr(decided, one.name) for one in fields(decided)}
    return {**told, "news2_asks": asked.priority[policy.NEWS2].copy()}


def score_sentence(residents: World) -> Said:
    """Explain each of them."""
    scores, newest = _news2(residents), residents.newest()
    told = np.empty(len(residents.seed), object)
    for place in range(len(told)):
        values = {name: float(newest[name][place]) for name in BASELINE_VITALS}
        one = explain(
            scores, place, values=values, ages_s=dict.fromkeys(values, np.nan), model="1",
            usual=values, z=values, change=values, shares=values, risk=values["hr"],
        )  # fmt: skip
        told[place] = str(record(one))
    return {"sentence": told}


def _seen(residents: World) -> Array:
    nothing = np.full((len(residents.seed), BODY), np.nan)
    return features(residents.history, residents.years, residents.sex, nothing)


def _taught() -> Examples:
    count = 720
    residents, person = world(people=count), np.arange(count)
    answer = (residents.years > 90).astype(np.int64)
    every = np.ones(count, np.bool_)
    return Examples(_seen(residents), answer, person, person, every, every, person % 5)


@pytest.fixture(scope="module")
def scorers() -> Mapping[str, Callable[[World], Said]]:
    """Return every scorer by name, the learned ones after they have learned."""
    taught = _taught()
    trees = deterioration.fit(taught, FEATURES, "trees", seeds=1)
    line = deterioration.fit(taught, FEATURES, "line")
    strange = novelty.fit(taught)
    return {
        "news2": score_news2,
        "quality": score_quality,
        "baseline": score_baseline,
        "rhythm": score_rhythm,
        "policy": score_policy,
        "sentence": score_sentence,
        "trees": lambda residents: {"score": trees.score(_seen(residents))},
        "line": lambda residents: {"score": line.score(_seen(residents))},
        "novelty": lambda residents: {"score": strange.score(_seen(residents))},
    }


NAMES: Final = (
    "news2", "quality", "baseline", "rhythm", "policy", "sentence", "trees", "line", "novelty",
)  # fmt: skip
BOUNDS: Final = {"news2": ("possible_min", "possible_max"), "policy": ("news2_asks", None)}
"""The lowest and the highest that a scorer says something may be."""


@pytest.fixture(params=NAMES)
def scorer(
    request: pytest.FixtureRequest, scorers: Mapping[str, Callable[[World], Said]]
) -> Callable[[World], Said]:
    """Return one scorer after another."""
    return scorers[request.param]


def same(left: Said, right: Said) -> None:
    """Assert that two scorings say the same, up to the last bits of a sum."""
    assert left.keys() == right.keys()
    for name, value in left.items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(value, right[name], rtol=1e-9, atol=1e-9, err_msg=name)
        else:
            np.testing.assert_array_equal(value, right[name], err_msg=name)


def sound(said: Said) -> None:
    """Assert that nothing said is NaN."""
    for name, value in said.items():
        if value.dtype.kind == "f":
            assert not np.isnan(value).any(), name
        elif value.dtype.kind == "O":
            assert not [one for one in value.ravel() if "nan" in one], name


def test_the_suite_knows_every_scorer(scorers: Mapping[str, Callable[[World], Said]]) -> None:
    assert tuple(scorers) == NAMES


@pytest.mark.parametrize("missing", [0.0, 0.3, 0.9, 1.0])
def test_missing_values_in_no_nan_out(scorer: Callable[[World], Said], missing: float) -> None:
    sound(scorer(world(missing)))


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e9, -1e9, 0.0, 65535.0])
def test_nonsense_in_no_nan_out(scorer: Callable[[World], Said], value: float) -> None:
    history = world().history.copy()
    history[::2, -1] = value
    with np.errstate(invalid="ignore", over="ignore"):
        if not np.isfinite(value):  # learned layers see only what the quality layer lets through
            history[~np.isfinite(history)] = np.nan
        sound(scorer(replace(world(), history=history)))


def test_the_order_of_residents_changes_nothing(scorer: Callable[[World], Said]) -> None:
    residents = world()
    order = np.random.default_rng(3).permutation(PEOPLE)
    said = scorer(residents)
    same(scorer(residents.only(order)), {name: value[..., order] for name, value in said.items()})


def test_each_resident_is_scored_as_if_alone(scorer: Callable[[World], Said]) -> None:
    residents = world()
    together = scorer(residents)
    for place in (0, 5, PEOPLE - 1):
        chosen = np.array([place])
        expected = {name: value[..., chosen] for name, value in together.items()}
        same(scorer(residents.only(chosen)), expected)


def test_the_same_residents_score_the_same_again(scorer: Callable[[World], Said]) -> None:
    same(scorer(world()), scorer(world()))


def test_what_is_scored_is_not_changed(scorer: Callable[[World], Said]) -> None:
    residents, untouched = world(), world()
    scorer(residents)  # its arrays cannot be written to
    for one in fields(World):
        np.testing.assert_array_equal(getattr(residents, one.name), getattr(untouched, one.name))


def _poorer(residents: World) -> Iterator[World]:
    """Return the same residents with more and more values missing."""
    dice = np.random.default_rng(5)
    history, consciousness = residents.history.copy(), residents.consciousness.copy()
    for _ in range(8):
        history[dice.random(history.shape) < 0.3] = np.nan
        consciousness[dice.random(PEOPLE) < 0.3] = -1
        yield replace(residents, history=history.copy(), consciousness=consciousness.copy())


@pytest.mark.parametrize("name", BOUNDS)
def test_more_missing_never_narrows_the_bounds(
    scorers: Mapping[str, Callable[[World], Said]], name: str
) -> None:
    low, high = BOUNDS[name]
    before = scorers[name](world(0.0))
    for poorer in _poorer(world(0.0)):
        after = scorers[name](poorer)
        assert (after[low] <= before[low]).all()
        assert high is None or (after[high] >= before[high]).all()
        before = after

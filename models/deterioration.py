"""The learned score: boosted trees over the features of a day, with a straight line as challenger.

A score is the log odds, averaged over a few models that differ in their seed. What it means is said
by `calibration`, at which score to act by the thresholds in the model's card.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from models.examples import Examples
from models.features import BODY, COLUMN, FEATURES, VITALS, features

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Learner = Literal["trees", "line"]
SEEDS: Final = 1
ROUNDS: Final = 150
"""Trees of a score that is asked for every resident every few seconds."""
ROUNDS_ONCE: Final = 300
"""Trees where a question is asked once."""

VITALS_AND_AGE: Final = tuple(
    name for name in FEATURES if not name.startswith("gcs") and name != "oxygen"
)
WITH_GCS: Final = tuple(name for name in FEATURES if name != "oxygen")

RISING: Final = frozenset(
    {"shock_index", "shock_index_mean6", "rr_high24", "rr_per_spo2", "news2", "news2_mean24", "age"}
    | {f"news2_{part}" for part in ("rr", "spo2", "sbp", "hr", "temp")}
)
"""More of it never lowers the score."""
FALLING: Final = frozenset(
    {"spo2_last", "spo2_mean6", "spo2_mean24", "spo2_low24", "sbp_low24", "map_low24"}
    | {"gcs", "gcs_low24", "gcs_mean24"}
)
"""Less of it never lowers the score."""


@dataclass(frozen=True, slots=True)
class Deterioration:
    """Fitted estimators of stock scikit-learn, and the features that they read, in order."""

    learner: Learner
    columns: tuple[str, ...]
    estimators: tuple[Any, ...]

    def score(self, x: Floats) -> Floats:
        """Return the log odds of each row of features, (n,)."""
        read = np.ascontiguousarray(x[:, [COLUMN[name] for name in self.columns]])
        total = np.zeros(len(read))
        for estimator in self.estimators:
            total += estimator.decision_function(read)
        mean: Floats = total / len(self.estimators)
        return mean


def fit(
    taught: Examples,
    columns: Sequence[str],
    learner: Learner = "trees",
    *,
    rounds: int = ROUNDS,
    seeds: int = SEEDS,
) -> Deterioration:
    """Learn from examples; `rounds` trees a seed."""
    x = taught.x[:, [COLUMN[name] for name in columns]]
    rare = int(min(taught.y.sum(), len(taught.y) - taught.y.sum()))
    make = _LEARNERS[learner]
    count = seeds if learner == "trees" else 1
    estimators = tuple(
        make(tuple(columns), rare, rounds, seed).fit(x, taught.y) for seed in range(count)
    )
    return Deterioration(learner, tuple(columns), estimators)


def crossfit(
    given: Examples,
    learn: Callable[[Examples], Callable[[Examples], Floats]],
    done: Callable[[], object] = lambda: None,
) -> Floats:
    """Return for each row the score of a model that has never seen the person."""
    score = np.full(len(given.y), np.nan)
    for fold in np.unique(given.fold):
        away = given.fold == fold
        judge = learn(given.only(~away & given.taught))
        score[away] = judge(given.only(away))
        done()
    return score


def over_the_stay(score: Floats, given: Examples) -> Floats:
    """Return the mean score of a person over all looks up to each row (rows are in order of time).

    Where a question is asked once, about the end of a stay, several looks say more than the last.
    """
    total = np.cumsum(score)
    first = np.flatnonzero(np.append(True, given.person[1:] != given.person[:-1]))
    before = np.append(0.0, total)[first]
    place = np.cumsum(np.append(False, given.person[1:] != given.person[:-1]))
    looks = np.arange(len(score)) - first[place] + 1
    mean: Floats = (total - before[place]) / looks
    return mean


def contributions(
    model: Deterioration, values: Floats, age: Floats, sex: Floats, usual: Floats
) -> Floats:
    """Return (n, vitals): how much lower the score were, had this vital sign been as usual all day.

    As `features`. Where nothing is known of the own usual, a healthy value stands for it. Meant for
    the few who raise an alarm: it asks the model once for each vital sign.
    """
    now = model.score(features(values, age, sex, usual))
    out = np.zeros((len(values), len(VITALS)))
    for vital in range(len(VITALS)):
        calm = usual[:, vital] if vital < BODY else np.full(len(values), np.nan)
        calm = np.where(np.isnan(calm), _HEALTHY[vital], calm)
        bent = values.copy()
        there = ~np.isnan(bent[:, :, vital])
        bent[:, :, vital] = np.where(there, calm[:, None], np.nan)
        out[:, vital] = now - model.score(features(bent, age, sex, usual))
    return out


_HEALTHY: Final = np.array([72.0, 16.0, 97.0, 36.6, 128.0, 74.0, 15.0, 0.0])


def _trees(
    columns: tuple[str, ...], rare: int, rounds: int, seed: int
) -> HistGradientBoostingClassifier:
    direction = [1 if name in RISING else -1 if name in FALLING else 0 for name in columns]
    return HistGradientBoostingClassifier(
        max_iter=rounds,
        learning_rate=0.03,
        max_leaf_nodes=8,
        min_samples_leaf=max(20, min(250, rare // 8)),
        l2_regularization=50.0,
        max_features=0.3,
        monotonic_cst=direction,
        early_stopping=False,
        random_state=seed,
    )


def _line(
    columns: tuple[str, ...],  # noqa: ARG001  the form of _trees
    rare: int,  # noqa: ARG001
    rounds: int,  # noqa: ARG001
    seed: int,  # noqa: ARG001
) -> Pipeline:
    return Pipeline(
        [
            ("fill", SimpleImputer(strategy="median", keep_empty_features=True)),
            ("scale", StandardScaler()),
            ("line", LogisticRegression(C=0.003, max_iter=1000)),
        ]
    )


_LEARNERS: Final[dict[Learner, Callable[[tuple[str, ...], int, int, int], Any]]] = {
    "trees": _trees,
    "line": _line,
}

"""What is unlike the others and unlike oneself: an isolation forest. Low priority only."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline

from models.examples import Examples
from models.features import BODY, COLUMN, VITALS

Floats = NDArray[np.float64]

COLUMNS: Final = tuple(
    f"{vital}_{window}" for window in ("mean6", "own", "trend6") for vital in VITALS[:BODY]
)
_MOST: Final = 40_000


@dataclass(frozen=True, slots=True)
class Novelty:
    """A fitted forest; higher scores are stranger."""

    estimator: Any

    def score(self, x: Floats) -> Floats:
        """Return how strange each row of features is, (n,)."""
        strange: Floats = -self.estimator.score_samples(x[:, [COLUMN[name] for name in COLUMNS]])
        return strange


def fit(taught: Examples, seed: int = 0) -> Novelty:
    """Learn what is common from people to whom nothing happened."""
    x = taught.x[taught.y == 0][:, [COLUMN[name] for name in COLUMNS]]
    if len(x) > _MOST:
        x = x[np.random.default_rng(seed).choice(len(x), _MOST, replace=False)]
    forest = Pipeline(
        [
            ("fill", SimpleImputer(strategy="median", keep_empty_features=True)),
            ("forest", IsolationForest(n_estimators=50, max_samples=256, random_state=seed)),
        ]
    )
    return Novelty(forest.fit(x))

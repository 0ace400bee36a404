"""Whether a learned score still looks at people like those it learned from; pure.

Once an hour each resident's score goes into a histogram over the bins of the model's card. Where
the histogram of a day is far from the card's (PSI) the model is not to be believed here, and what
is left is NEWS2 and the rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

HOURS: Final = 24
LEAST_SCORES: Final = 500
"""With fewer in a day nothing is said."""
DRIFTED_PSI: Final = 0.5
"""(check) From here on the model is not believed; 0.25 is commonly called a large shift."""
SETTLED_PSI: Final = 0.25
"""It is believed again below this: a score on the edge does not go to and fro."""
_LEAST_SHARE: Final = 1e-3


class Drift(msgspec.Struct, frozen=True):
    """How far the scores of a day are from those that the model learned from; None: too few."""

    psi: float | None
    mean: float | None
    reference_mean: float
    scores: int
    drifted: bool


@dataclass(slots=True)
class Watch:
    """Counts of a day's scores by hour and bin, and whether they were far off when last asked."""

    edges: Floats
    shares: Floats
    mean: float
    counts: NDArray[np.int64]
    sums: Floats
    hour: int = -1
    drifted: bool = False

    @classmethod
    def of(cls, edges: Sequence[float], shares: Sequence[float], mean: float) -> "Watch":
        """Begin from the histogram of a card: inner edges, and the share in each bin."""
        counts = np.zeros((HOURS, len(shares)), np.int64)
        return cls(np.array(edges), np.array(shares), mean, counts, np.zeros(HOURS))

    def see(self, risk: Floats, now_s: float) -> None:
        """Take scores of residents, each of whom is to come once an hour; NaN is nobody."""
        hour = int(now_s // 3600)
        if hour > self.hour:
            gone = np.arange(max(self.hour + 1, hour - HOURS + 1), hour + 1) % HOURS
            self.counts[gone], self.sums[gone], self.hour = 0, 0.0, hour
        known = risk[~np.isnan(risk)]
        bins = np.searchsorted(self.edges, known, side="right")
        self.counts[hour % HOURS] += np.bincount(bins, minlength=len(self.shares))
        self.sums[hour % HOURS] += known.sum()

    def told(self) -> Drift:
        """Return how far off the last day is, and remember the verdict."""
        found = self.counts.sum(axis=0)
        total = int(found.sum())
        if total < LEAST_SCORES:
            return Drift(None, None, self.mean, total, self.drifted)
        psi = _psi(found / total, self.shares)
        self.drifted = psi > (SETTLED_PSI if self.drifted else DRIFTED_PSI)
        return Drift(psi, float(self.sums.sum() / total), self.mean, total, self.drifted)


def _psi(here: Floats, there: Floats) -> float:
    """Return the population stability index; an empty bin counts as a little."""
    a, b = (np.maximum(one, _LEAST_SHARE) for one in (here, there))
    a, b = a / a.sum(), b / b.sum()
    return float(((a - b) * np.log(a / b)).sum())

"""From a score to a probability that means what it says, and to thresholds with a bound. Pure."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.measures import BUNDLE_HOURS, Watch

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_PER_DAY: Final = 24 / BUNDLE_HOURS
"""Bundling allows no more alarms of one person in a day."""
_BINS: Final = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """Probability = logistic(slope * score + intercept)."""

    slope: float
    intercept: float

    def risk(self, score: Floats) -> Floats:
        """Return the probability that belongs to each score."""
        probability: Floats = 1 / (1 + np.exp(-(self.slope * score + self.intercept)))
        return probability


def calibrate(score: Floats, answer: Ints) -> Calibration:
    """Fit slope and intercept on scores of people whom the model did not learn from (Platt)."""
    slope, intercept = _logistic(score[:, None], answer)
    return Calibration(float(slope), float(intercept))


@dataclass(frozen=True, slots=True)
class Blend:
    """Several scores as one: a weighted sum of them, each in its own spread."""

    centre: Floats
    spread: Floats
    weights: Floats

    def score(self, scores: Floats) -> Floats:
        """Return the sum for each row of `scores` (n, k)."""
        total: Floats = ((scores - self.centre) / self.spread) @ self.weights
        return total


def blend(scores: Floats, answer: Ints) -> Blend:
    """Learn how much each of several scores (n, k) says, all from people not learned from."""
    centre, spread = scores.mean(axis=0), np.maximum(scores.std(axis=0), 1e-9)
    weights = _logistic((scores - centre) / spread, answer)[:-1]
    return Blend(centre, spread, weights)


def _logistic(columns: Floats, answer: Ints) -> Floats:
    """Return the weight of each column, then the intercept: logistic regression by Newton."""
    design = np.column_stack([columns, np.ones(len(columns))])
    weights = np.append(np.ones(columns.shape[1]), np.log(max(answer.mean(), 1e-9)))
    ridge = 1e-6 * np.eye(len(weights))
    for _ in range(60):
        risk = 1 / (1 + np.exp(-design @ weights))
        gradient = design.T @ (answer - risk) - ridge @ weights
        hessian = (design * (risk * (1 - risk))[:, None]).T @ design + ridge
        step = np.linalg.solve(hessian, gradient)
        weights = weights + step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    return weights


def curve(risk: Floats, answer: Ints) -> list[tuple[float, float, int]]:
    """Return (mean risk, part that came true, rows) in ten groups of equal size."""
    order = np.argsort(risk, kind="stable")
    return [
        (float(risk[group].mean()), float(answer[group].mean()), len(group))
        for group in np.array_split(order, _BINS)
        if len(group)
    ]


def conformal_threshold(watched: Watch, budget: float) -> float | None:
    """Return the lowest threshold that bounds the false alarms of somebody new, or None.

    Conformal risk control (Angelopoulos and others, 2022): with n people who are exchangeable with
    the next one, and a loss of at most B that falls as the threshold rises, the expected loss of
    the next one is at most 0 where (sum of the losses + B) / (n + 1) <= 0. The loss is a person's
    false alarms beyond what the budget allows for the days that this person was watched; it is made
    monotone by taking the worst at or above each threshold.
    """
    loss = watched.false - budget * watched.quiet_days
    worst = np.maximum.accumulate(loss[::-1], axis=0)[::-1].sum(axis=1)
    most = (MOST_PER_DAY - budget) * float(watched.quiet_days.max())
    kept = np.flatnonzero(worst + most <= 0)
    return float(watched.thresholds[kept[0]]) if len(kept) else None

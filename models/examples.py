"""Hours of people as examples to learn from: features, answer, and whose they are."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.datasets import HOURS_AHEAD, Dataset
from models.features import BODY, FEATURES, HOURS, USUAL_LAG, features

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

HOURS_AFTER: Final = 3
"""An hour is positive from HOURS_AHEAD before the onset to so many after it."""
LOOKS: Final = (11, 17, 23, 29, 35, 41, 47)
"""Where the question is asked once, a model learns from these hours of the stay."""
FOLDS: Final = 5
SEED: Final = 20261124
_CHUNK: Final = 16_384


@dataclass(frozen=True, slots=True)
class Examples:
    """Hours of a data set. All arrays are (rows,), `x` is (rows, len(FEATURES)).

    `person` indexes the people of the data set, `row` its rows. `taught`: a model may learn from
    this row; `asked`: it is judged by it. `fold` is that of the person.
    """

    x: Floats
    y: Ints
    person: Ints
    row: Ints
    taught: Bools
    asked: Bools
    fold: Ints

    def only(self, chosen: Bools) -> "Examples":
        """Return some of the rows."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in self.__slots__})


def examples(dataset: Dataset) -> Examples:
    """Return the hours of a data set that count, with their features and answers."""
    if dataset.hourly:
        onset = dataset.onset[dataset.person]
        with np.errstate(invalid="ignore"):
            answer = (dataset.hour >= onset - HOURS_AHEAD) & (dataset.hour <= onset + HOURS_AFTER)
            # Who is past the onset is neither well nor about to fall ill: nothing to learn or ask.
            asked = ~(dataset.hour > onset + HOURS_AFTER)
        row = np.arange(len(dataset.person))
        # Neighbouring hours say nearly the same: every second one is enough of the quiet ones.
        taught = asked & (answer | (dataset.hour % 2 == 0))
    else:
        answer = dataset.outcome[dataset.person] == 1
        last = np.zeros(len(dataset.person), np.bool_)
        last[dataset.starts[1:] - 1] = True
        row = np.flatnonzero(last | np.isin(dataset.hour, LOOKS))
        taught, asked = np.ones(len(row), np.bool_), last[row]
    person = dataset.person[row]
    return Examples(
        x=table(dataset, row),
        y=answer[row].astype(np.int64),
        person=person,
        row=row,
        taught=taught,
        asked=asked,
        fold=folds(len(dataset.people))[person],
    )


def folds(people: int, seed: int = SEED) -> Ints:
    """Deal people into FOLDS equal groups, the same ones for the same seed."""
    order = np.random.default_rng(seed).permutation(people)
    dealt: Ints = order.argsort() % FOLDS
    return dealt


def table(dataset: Dataset, row: Ints) -> Floats:
    """Return the features of these rows, (rows, len(FEATURES)), from what was known by then."""
    usual = usual_before(dataset)
    out = np.empty((len(row), len(FEATURES)))
    for first in range(0, len(row), _CHUNK):
        part = slice(first, first + _CHUNK)
        rows = row[part]
        person = dataset.person[rows]
        out[part] = features(
            windows(dataset, rows), dataset.age[person], dataset.sex[person], usual[rows]
        )
    return out


def windows(dataset: Dataset, row: Ints) -> Floats:
    """Return the day up to each row, (rows, HOURS, vitals), NaN before the person's first hour."""
    first = dataset.starts[dataset.person[row]]
    hours = row[:, None] + np.arange(1 - HOURS, 1)
    before = hours < first[:, None]
    day: Floats = dataset.values[np.maximum(hours, 0)]
    day[before] = np.nan
    return day


def usual_before(dataset: Dataset) -> Floats:
    """Return each person's mean of all that was measured up to USUAL_LAG hours before each row."""
    values = dataset.values[:, :BODY]
    there = ~np.isnan(values)
    total = np.zeros((len(values) + 1, BODY))
    count = np.zeros((len(values) + 1, BODY))
    np.cumsum(np.where(there, values, 0.0), axis=0, out=total[1:])
    np.cumsum(there, axis=0, out=count[1:])
    first = dataset.starts[dataset.person]
    end = np.maximum(np.arange(len(values)) + 1 - USUAL_LAG, first)
    with np.errstate(invalid="ignore", divide="ignore"):
        usual: Floats = (total[end] - total[first]) / (count[end] - count[first])
    return usual

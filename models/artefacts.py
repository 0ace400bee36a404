"""Models at rest: `<folder>/<name>/<version>/` holds `model.skops` and `card.json`.

`<folder>/<name>/current` lists the versions that were put into use, one a line, the last one is in
use; taking the last line away is the way back. A file is only read when its hash is the one in its
card, and only into the kinds of objects listed here: reading a model never runs what it brings.
"""

import hashlib
import io
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import skops.io
from numpy.typing import NDArray

from anxin.errors import AnxinError, NotFound
from models.calibration import Calibration
from models.deterioration import Deterioration, Learner, contributions
from models.features import features
from models.novelty import Novelty
from models.report import Section

Floats = NDArray[np.float64]

SHIPPED: Final = Path(__file__).parent / "artefacts"
"""What comes with the product."""
TRUSTED: Final = (
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)
"""Beside the estimators that skops knows: the parts of which scikit-learn's trees are made."""
_MODEL, _CARD, _CURRENT = "model.skops", "card.json", "current"


class DamagedModel(AnxinError):
    """A model is not the one that its card describes. Put its files back, or train it anew."""


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to know of a model before it is used.

    `thresholds`, `promised`: risk by false alarms per person-day (the second ones carry a conformal
    bound). `edges`, `shares`: a histogram of the risk where it learned, to notice drift by.
    """

    name: str
    version: str
    made_at: datetime
    sha256: str
    question: str
    intended_use: str
    limits: list[str]
    data: dict[str, dict[str, str]]
    people: int
    events: int
    hours: int
    split: str
    seed: int
    versions: dict[str, str]
    learner: Learner
    columns: list[str]
    slope: float
    intercept: float
    thresholds: dict[str, float]
    promised: dict[str, float]
    edges: list[float]
    shares: list[float]
    risk_mean: float
    metrics: list[Section]


@dataclass(frozen=True, slots=True)
class RiskModel:
    """A model in use. Arrays as in `features`: `values` (n, HOURS, vitals), the others (n, …)."""

    card: Card
    deterioration: Deterioration
    novelty: Novelty

    def risk(self, values: Floats, age: Floats, sex: Floats, usual: Floats) -> Floats:
        """Return the calibrated probability of an event in the next hours, (n,)."""
        return self.risk_of(features(values, age, sex, usual))

    def risk_of(self, x: Floats) -> Floats:
        """Return the same from features that are there already."""
        meaning = Calibration(self.card.slope, self.card.intercept)
        return meaning.risk(self.deterioration.score(x))

    def shares(self, values: Floats, age: Floats, sex: Floats, usual: Floats) -> Floats:
        """Return (n, vitals): what each vital sign adds to the log odds. For alarms only."""
        return self.card.slope * contributions(self.deterioration, values, age, sex, usual)

    def threshold(self, budget: float) -> float:
        """Return the risk from which on to alarm, for false alarms per person-day."""
        known = {float(name): value for name, value in self.card.thresholds.items()}
        fits = [one for one in known if one <= budget]
        return known[max(fits)] if fits else max(known.values())


def keep(
    folder: Path,
    card: Card,
    deterioration: Deterioration,
    novelty: Novelty,
) -> Card:
    """Write a model and put it into use; return its card with version and hash."""
    written = skops.io.dumps(
        {"deterioration": list(deterioration.estimators), "novelty": novelty.estimator},
        compression=zipfile.ZIP_DEFLATED,
    )
    digest = hashlib.sha256(written).hexdigest()
    version = f"{card.made_at:%Y%m%d-%H%M%S}-{digest[:8]}"
    card = msgspec.structs.replace(card, version=version, sha256=digest)
    place = folder / card.name / version
    place.mkdir(parents=True)
    (place / _MODEL).write_bytes(written)
    (place / _CARD).write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=1) + b"\n")
    _use(folder, card.name, [*versions(folder, card.name), version])
    return card


def versions(folder: Path, name: str) -> list[str]:
    """Return the versions that were put into use, the one in use last; none without a model."""
    current = folder / name / _CURRENT
    return current.read_text(encoding="utf-8").split() if current.exists() else []


def roll_back(folder: Path, name: str) -> str:
    """Return to the version used before, and return it; its files are checked first."""
    used = versions(folder, name)
    if len(used) < 2:
        raise NotFound(f"There is no earlier version of {name!r} in {folder}: it stays as it is.")
    load(folder, name, used[-2])
    _use(folder, name, used[:-1])
    return used[-2]


def load(folder: Path, name: str, version: str | None = None) -> RiskModel:
    """Return a model in use (or a given version).

    Raises NotFound where there is none, DamagedModel where its file is not what its card says.
    """
    used = versions(folder, name)
    if version is None:
        if not used:
            raise NotFound(f"There is no model {name!r} in {folder}. Run `anxin train`.")
        version = used[-1]
    place = folder / name / version
    try:
        card = msgspec.json.decode((place / _CARD).read_bytes(), type=Card)
        written = (place / _MODEL).read_bytes()
    except (OSError, msgspec.MsgspecError) as error:
        raise DamagedModel(f"The model in {place} cannot be read: {error}.") from error
    if hashlib.sha256(written).hexdigest() != card.sha256:
        raise DamagedModel(f"{place / _MODEL} is not the file that its card describes.")
    if other := set(skops.io.get_untrusted_types(data=written)) - set(TRUSTED):
        raise DamagedModel(f"{place / _MODEL} holds objects that are not read: {sorted(other)}.")
    parts = _read(written)
    return RiskModel(
        card,
        Deterioration(card.learner, tuple(card.columns), tuple(parts["deterioration"])),
        Novelty(parts["novelty"]),
    )


def _read(written: bytes) -> Mapping[str, Any]:
    with warnings.catch_warnings():
        # An older scikit-learn's model is read as long as it can be; the card names the version.
        warnings.simplefilter("ignore")
        parts: Mapping[str, Any] = skops.io.load(io.BytesIO(written), trusted=list(TRUSTED))
    return parts


def _use(folder: Path, name: str, used: list[str]) -> None:
    current = folder / name / _CURRENT
    new = current.with_suffix(".new")
    new.write_text("".join(f"{version}\n" for version in used), encoding="utf-8")
    new.replace(current)

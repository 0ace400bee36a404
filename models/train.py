"""`anxin train`: learn a model from a folder of recordings, judge it, keep it with its card.

It is judged by people who are held out, and by cross-validation; what is kept has learned from
everybody. `--rollback NAME` puts the version before into use again.
"""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from anxin.config import Settings
from anxin.errors import SettingError
from models import artefacts, deterioration, novelty
from models.artefacts import SHIPPED, Card
from models.calibration import Calibration
from models.datasets import Dataset, NoData, find, read
from models.deterioration import VITALS_AND_AGE
from models.evaluate import FEWEST_EVENTS, MODEL, School
from models.examples import SEED, examples
from models.report import versions

Floats = NDArray[np.float64]

NAME: Final = "deterioration"
INTENDED_USE: Final = (
    "Adds early warnings for trained staff to the platform's rules and NEWS2. It never cancels, "
    "delays or lowers an alarm of theirs, and is no diagnosis."
)
PARTS: Final = (0.25, 0.5, 0.75, 0.9, 0.97)
"""Drift is looked for in the upper half rather than among those who are surely well."""
LIMITS: Final = (
    "No recording with continuous vital signs at home and outcomes was available to judge it by.",
    "A score says less the fewer vital signs are measured; a bed mat alone gives two of six.",
    "It was not tested as a medical device and claims conformity to no standard.",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `anxin train`."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", type=Path, metavar="DIR", help="recordings to learn from")
    what.add_argument(
        "--rollback", metavar="NAME", help="put the version before into use again, and stop"
    )
    parser.add_argument(
        "--name", default=NAME, help=f"the model's name (default {NAME}, the one that is in use)"
    )
    parser.add_argument(
        "--question", metavar="Q", help="where the folder answers several: sepsis, deterioration"
    )
    parser.add_argument(
        "--artefacts", type=Path, metavar="DIR",
        help="where models are kept (default: ANXIN_ARTEFACTS, or with the program)",
    )  # fmt: skip


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Train, or go back; print what is in use now."""
    folder = args.artefacts or (Path(settings.artefacts) if settings.artefacts else SHIPPED)
    if args.rollback:
        version = artefacts.roll_back(folder, args.rollback)
        print(f"in use: {args.rollback} {version}")
        return 0
    if not args.name.isidentifier():
        raise SettingError(f"--name {args.name!r}: use letters, digits and _ only.")
    card = train(args.data, args.name, folder, question=args.question)
    for section in card.metrics:
        best = section.results[0]
        caught = "  ".join(f"{b.sensitivity.value:.2f} at {b.budget:g}" for b in best.budgets)
        print(f"{section.how}: AUROC {best.auroc.value:.3f}  sensitivity {caught}")
    print(f"in use: {card.name} {card.version}")
    return 0


def train(data: Path, name: str, folder: Path, *, question: str | None = None) -> Card:
    """Learn from the hourly data set with the most events in a folder, and put it into use."""
    dataset = choose([one for place in find(data) for one in read(place)], question)
    with tqdm(desc="train", unit=" steps") as bar:
        school = School([dataset], bar.update, apart=False)
        metrics = list(school.sections(dataset))
        exam, judges = school.learned(dataset)
        given = examples(dataset)
        taught = given.only(given.taught)
        model = deterioration.fit(taught, VITALS_AND_AGE)
        strange = novelty.fit(taught)
        bar.update(1)
    judge = next(one for one in judges if one.name == MODEL)
    scores = next(one for one in exam.scores if one.name == MODEL)
    meaning = judge.meaning
    assert meaning is not None  # noqa: S101  what learns has a meaning
    if meaning.slope <= 0:
        raise NoData(f"What is in {dataset.name} does not tell people apart: nothing was kept.")
    risk = meaning.risk(scores.score)
    edges, shares = histogram(risk)
    card = Card(
        name=name,
        version="",
        made_at=datetime.now(UTC),
        sha256="",
        question=dataset.question,
        intended_use=INTENDED_USE,
        limits=[dataset.note, *LIMITS],
        data={dataset.name: dict(dataset.hashes)},
        people=len(dataset.people),
        events=int(np.nansum(dataset.outcome)),
        hours=len(dataset.person),
        split="by person: a fifth held out, five folds in the rest; what is kept learned from all",
        seed=SEED,
        versions=versions(),
        learner="trees",
        columns=list(VITALS_AND_AGE),
        slope=meaning.slope,
        intercept=meaning.intercept,
        thresholds=_risks(judge.thresholds, meaning),
        promised=_risks(judge.promised, meaning),
        edges=edges,
        shares=shares,
        risk_mean=float(risk.mean()),
        metrics=metrics,
    )
    return artefacts.keep(folder, card, model, strange)


def choose(datasets: Sequence[Dataset], question: str | None) -> Dataset:
    """Return the hourly data set with the most events; raise NoData where none has enough."""
    fit = [one for one in datasets if one.hourly and question in (None, one.question)]
    best = max(fit, key=lambda one: float(np.nansum(one.outcome)), default=None)
    if best is None or np.nansum(best.outcome) < FEWEST_EVENTS:
        raise NoData(
            f"No hourly data set here has {FEWEST_EVENTS} events. Make one with `anxin simulate "
            "--record DIR`, or give a folder of recordings (docs/risk.md)."
        )
    return best


def histogram(risk: Floats) -> tuple[list[float], list[float]]:
    """Return inner edges at PARTS of the rows, and the share of the rows between them."""
    edges = np.unique(np.quantile(risk, PARTS))
    counts = np.bincount(np.searchsorted(edges, risk, side="right"), minlength=len(edges) + 1)
    return edges.tolist(), (counts / len(risk)).tolist()


def _risks(thresholds: dict[float, float], meaning: Calibration) -> dict[str, float]:
    return {
        f"{budget:g}": float(meaning.risk(np.array([score]))[0])
        for budget, score in thresholds.items()
    }

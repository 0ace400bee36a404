"""`anxin evaluate`: every data set in a folder, judged by person; one report as HTML and JSON.

Without `--train-data` a model is judged where it learned, by people: four fifths in five-fold
cross-validation, and a fifth (the hold-out) by a model of the other four. With it, it learns from
everybody there and is judged by everybody here, and refuses where somebody is in both.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from msgspec import structs
from numpy.typing import NDArray
from tqdm import tqdm

from anxin.config import Settings
from anxin.rules import LIMITS
from models import deterioration, home, novelty
from models.calibration import Blend, Calibration, blend, calibrate, conformal_threshold, curve
from models.datasets import Dataset, NoData, SamePeople, file_hashes, find, read
from models.deterioration import (
    ROUNDS_ONCE,
    VITALS_AND_AGE,
    WITH_GCS,
    Learner,
)
from models.examples import SEED, Examples, examples, windows
from models.features import held
from models.measures import BUDGETS, Interval, Ranking, Watch, interval, resamples, steps, watch
from models.news2 import news2
from models.report import (
    Budget,
    Calibrated,
    Difference,
    Group,
    Report,
    Result,
    Section,
    versions,
    write,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

HOLD_OUT: Final = 5
"""One of so many people is held out."""
FEWEST_EVENTS: Final = 100
"""A data set with fewer events teaches nothing; what learned elsewhere is judged on it."""
FEWER: Final = (0.02, 0.05, 0.1)
"""Budgets of homes, at which thresholds are fixed as well."""
FEWEST_IN_GROUP: Final = 10
MODEL: Final = "Anxin trees"
NEWS2: Final = "NEWS2"
NEWS2_FULL: Final = "NEWS2 with consciousness and oxygen"
WITH: Final = "Anxin trees with GCS"
TOGETHER: Final = "Anxin layers together"
HALF_EACH: Final = "Anxin trees with GCS and NEWS2, half each"
_AGES: Final = ((0, 50), (50, 65), (65, 80), (80, 200))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `anxin evaluate`."""
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="recordings to be judged by"
    )
    parser.add_argument(
        "--report", type=Path, required=True, metavar="OUT",
        help="folder for report.html and report.json",
    )  # fmt: skip
    parser.add_argument(
        "--train-data", type=Path, metavar="DIR",
        help="recordings of other people to learn from (default: cross-validation in --data)",
    )  # fmt: skip
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME",
        help="only data sets whose folder has this name; may be given several times",
    )  # fmt: skip


def run(args: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001  every command's form
    """Judge, write the report and print one line for each figure that matters."""
    report = evaluate(args.data, args.train_data, only=args.only)
    write(report, args.report)
    for line in report.summary():
        print(line)
    print(f"report {args.report / 'report.html'} {args.report / 'report.json'}")
    return 0


def evaluate(data: Path, train: Path | None = None, *, only: Sequence[str] = ()) -> Report:
    """Return the report on every data set in `data`, learned in `train` or inside `data`."""
    folders = [folder for folder in find(data) if not only or folder.name in only]
    judged = [one for folder in folders for one in read(folder)]
    homes = [one for folder in folders for one in home.read(folder)]
    if not judged and not homes:
        raise NoData(f"Nothing in {data} has the columns of a known data set. See docs/risk.md.")
    taught = judged
    home_teachers: list[home.Home] = []
    if train is not None:
        others = find(train)
        taught = [one for folder in others for one in read(folder)]
        home_teachers = [one for folder in others for one in home.read(folder)]
        refuse_the_same(taught, judged)
        home.refuse_the_same(home_teachers, homes)
    sections: list[Section] = []
    left_out: list[str] = []
    with tqdm(desc="evaluate", unit=" steps") as bar:
        school = School(taught, bar.update, apart=train is not None)
        for one in judged:
            found = list(school.sections(one))
            sections += found
            if not found:
                left_out.append(
                    f"{one.name}, {one.question}: nothing to learn from has {FEWEST_EVENTS} events"
                )
        for one_home in homes:
            sections += home.sections(one_home, home_teachers, bar.update)
    return Report(
        made_at=datetime.now(UTC),
        versions=versions(),
        seed=SEED,
        data={folder.name: file_hashes(folder) for folder in folders},
        train_data=None
        if train is None
        else {folder.name: file_hashes(folder) for folder in find(train)},
        sections=sections,
        left_out=left_out,
    )


def refuse_the_same(taught: Sequence[Dataset], judged: Sequence[Dataset]) -> None:
    """Raise SamePeople when the measurements of somebody are in both."""
    known = {print_ for one in taught for print_ in one.fingerprints()}
    for one in judged:
        same = known & one.fingerprints()
        if same:
            raise SamePeople(
                f"{len(same)} people of {one.name} are also in the data to learn from. "
                "Give another --train-data, or leave it out for cross-validation."
            )


def held_out(people: int) -> Bools:
    """Tell who is held out inside a development half: the same people every time."""
    order = np.random.default_rng(SEED + 1).permutation(people)
    held: Bools = order % HOLD_OUT == 0
    return held


@dataclass(slots=True)
class Judged:
    """One score of all rows that are asked, with what was fixed while learning."""

    name: str
    role: str
    score: Floats
    risk: Floats | None = None
    thresholds: dict[float, float] = field(default_factory=dict)
    promised: dict[float, float] = field(default_factory=dict)


@dataclass(slots=True)
class Exam:
    """Rows that a question is asked of, the answers, and the scores."""

    dataset: Dataset
    given: Examples
    how: str
    taught_by: str
    scores: list[Judged]


@dataclass(slots=True)
class Judge:
    """Something that scores rows: learned or fixed, with what learning fixed."""

    name: str
    role: str
    score: Callable[[Dataset, Examples], Floats]
    meaning: Calibration | None = None
    thresholds: dict[float, float] = field(default_factory=dict)
    promised: dict[float, float] = field(default_factory=dict)


class School:
    """Learns each question once, from the data set with the most events."""

    def __init__(
        self, taught: Sequence[Dataset], done: Callable[[int], object], *, apart: bool
    ) -> None:
        """Take what there is to learn from; `apart`: none of it is judged."""
        self._taught, self._done, self._apart = taught, done, apart
        self._learned: dict[str, tuple[Exam, list[Judge]]] = {}

    def teacher(self, question: str) -> Dataset | None:
        """Return the data set that teaches a question, None where events are too few."""
        fit = [one for one in self._taught if one.question == question]
        best = max(fit, key=lambda one: float(np.nansum(one.outcome)), default=None)
        return best if best and np.nansum(best.outcome) >= FEWEST_EVENTS else None

    def learned(self, teacher: Dataset) -> tuple[Exam, list[Judge]]:
        """Return cross-fitted scores of the teacher's own people, and judges for all others."""
        if teacher.question not in self._learned:
            near = teacher
            if not self._apart:
                near = teacher.of_people(np.flatnonzero(~held_out(len(teacher.people))))
            given = examples(near)
            scores, judges = _learn(near, given, self._done)
            how = "five-fold cross-validation by person on four fifths"
            self._learned[teacher.question] = (
                Exam(near, given, how, teacher.name, scores),
                judges,
            )
        return self._learned[teacher.question]

    def sections(self, one: Dataset) -> Iterator[Section]:
        """Yield what there is to say of a data set."""
        teacher = self.teacher(one.question)
        if teacher is None:
            return
        exam, judges = self.learned(teacher)
        if one is teacher:
            yield judge(_asked(exam))
            self._done(1)
            far = one.of_people(np.flatnonzero(held_out(len(one.people))))
            how = "hold-out: a fifth of the people, seen by nothing"
        else:
            far = one
            how = "people never seen: learned from other people" + (
                "" if teacher.name == one.name else ", elsewhere"
            )
        yield judge(_examined(far, judges, how, teacher.name))
        self._done(1)


def _learn(
    dataset: Dataset, given: Examples, done: Callable[[int], object]
) -> tuple[list[Judged], list[Judge]]:
    """Learn every model on a data set; return cross-fitted scores, and judges for others."""
    plans: list[tuple[str, str, tuple[str, ...], Learner]] = [
        (MODEL, "model", VITALS_AND_AGE, "trees"),
        ("Logistic regression", "challenger", VITALS_AND_AGE, "line"),
    ]
    if np.isfinite(dataset.values[:, 6]).any():
        plans.insert(1, (WITH, "model", WITH_GCS, "trees"))
    scores, judges = [], []
    for name, role, columns, learner in plans:

        def learn(
            rows: Examples, columns: tuple[str, ...] = columns, learner: Learner = learner
        ) -> Callable[[Examples], Floats]:
            if dataset.hourly:
                model = deterioration.fit(rows, columns, learner)
                return lambda given: model.score(given.x)
            whole = deterioration.fit(rows, columns, learner, rounds=ROUNDS_ONCE)
            return lambda given: deterioration.over_the_stay(whole.score(given.x), given)

        score = deterioration.crossfit(given, learn)
        done(1)
        whole = learn(given.only(given.taught))
        done(1)
        asked = given.asked
        meaning = calibrate(score[asked], given.y[asked])
        judged = Judged(name, role, score, _risk_by_fold(score, given))
        if dataset.hourly:
            _fix_thresholds(judged, dataset, given)
        scores.append(judged)
        judges.append(
            Judge(
                name,
                role,
                lambda _, rows, whole=whole: whole(rows),  # type: ignore[misc]
                meaning,
                judged.thresholds,
                judged.promised,
            )
        )
    strange = deterioration.crossfit(given, _strangeness)
    scores.append(Judged("Isolation forest", "comparator", strange))
    forest = novelty.fit(given.only(given.taught))
    judges.append(Judge("Isolation forest", "comparator", lambda _, rows: forest.score(rows.x)))
    for fixed in _fixed(dataset):
        scores.append(Judged(fixed.name, fixed.role, fixed.score(dataset, given)))
        judges.append(fixed)
    _together(dataset, given, scores, judges)
    done(1)
    return scores, judges


def _together(dataset: Dataset, given: Examples, scores: list[Judged], judges: list[Judge]) -> None:
    """Add several layers as one score, after the models.

    Their weights come from the other folds. Where the question is asked once, of people elsewhere
    too, the best model and NEWS2 with what staff enter also speak with half a voice each.
    """
    names = [one.name for one in scores]
    layers = [at for at, name in enumerate(names) if name != "Fixed limits"]
    plans: list[tuple[str, list[int], Floats | None]] = [(TOGETHER, layers, None)]
    if NEWS2_FULL in names:
        pair = [names.index(WITH), names.index(NEWS2_FULL)]
        plans.append((HALF_EACH, pair, np.ones(2)))
    for name, chosen, weights in plans:
        _mix(dataset, given, scores, judges, name, [names[at] for at in chosen], weights)


def _mix(
    dataset: Dataset,
    given: Examples,
    scores: list[Judged],
    judges: list[Judge],
    name: str,
    parts: Sequence[str],
    weights: Floats | None,
) -> None:
    chosen = [next(at for at, one in enumerate(scores) if one.name == part) for part in parts]
    columns = np.column_stack([scores[at].score for at in chosen])
    asked = given.asked

    def learn(rows: Bools) -> Blend:
        found = blend(columns[rows], given.y[rows])
        return found if weights is None else replace(found, weights=weights)

    score = np.empty(len(columns))
    for fold in np.unique(given.fold):
        away = given.fold == fold
        others = ~away & asked
        score[away] = learn(others).score(columns[away])
    mixed = learn(asked)
    voices = [judges[at].score for at in chosen]
    judged = Judged(name, "model", score, _risk_by_fold(score, given))
    meaning = calibrate(score[asked], given.y[asked])
    if dataset.hourly:
        _fix_thresholds(judged, dataset, given)
    place = sum(one.role == "model" for one in scores)
    scores.insert(place, judged)
    judges.insert(
        place,
        Judge(
            name,
            "model",
            lambda data, rows: mixed.score(np.column_stack([one(data, rows) for one in voices])),
            meaning,
            judged.thresholds,
            judged.promised,
        ),
    )


def _fix_thresholds(judged: Judged, dataset: Dataset, given: Examples) -> None:
    """Fix at which score to alarm, for every budget, on people not learned from."""
    watched = watch(
        judged.score, given.person, dataset.hour[given.row], dataset.onset, steps(judged.score)
    )
    everybody = np.ones(len(dataset.people))
    for budget in (*FEWER, *BUDGETS):
        at = watched.at_budget(budget, everybody)
        judged.thresholds[budget] = float(watched.thresholds[at])
        bound = conformal_threshold(watched, budget)
        if bound is not None:
            judged.promised[budget] = bound


def _strangeness(rows: Examples) -> Callable[[Examples], Floats]:
    forest = novelty.fit(rows)
    return lambda given: forest.score(given.x)


def _risk_by_fold(score: Floats, given: Examples) -> Floats:
    """Return the risk of each row, its meaning fitted on the other folds' people."""
    risk = np.empty(len(score))
    for fold in np.unique(given.fold):
        away = given.fold == fold
        others = ~away & given.asked
        risk[away] = calibrate(score[others], given.y[others]).risk(score[away])
    return risk


def _fixed(dataset: Dataset) -> list[Judge]:
    told = np.isfinite(dataset.values[:, 6:]).any()
    plain = Judge(NEWS2, "comparator", lambda data, rows: news2_now(data, rows, told=False))
    full = Judge(
        NEWS2_FULL,
        "comparator",
        lambda data, rows: news2_now(data, rows, told=True),
    )
    return [plain, *([full] if told and not dataset.hourly else []),
            Judge("Fixed limits", "comparator", limits_now)]  # fmt: skip


def news2_now(dataset: Dataset, rows: Examples, *, told: bool) -> Floats:
    """Return NEWS2 of the values that hold at each row, missing ones without points.

    Where the question is asked once, the mean of the last 24 hours: that is the better predictor.
    `told`: with what staff enter, consciousness and oxygen.
    """
    out = np.empty(len(rows.row))
    for first in range(0, len(out), 8192):
        part = slice(first, first + 8192)
        day = held(windows(dataset, rows.row[part]))
        shown = day[:, -1:] if dataset.hourly else day
        hr, rr, spo2, temp, sbp, _, gcs, oxygen = shown
        awake = np.where(np.isnan(gcs), -1, np.where(gcs >= 15, 0, 1)).astype(np.int64)
        points = news2(
            hr=hr, rr=rr, spo2=spo2, temp=temp, sbp=sbp,
            oxygen=oxygen if told else np.nan,
            consciousness=awake if told else -1,
        ).score  # fmt: skip
        out[part] = points.mean(axis=0)
    return out


_LIMITS: Final = (
    ("hr", "hr_low_critical", "hr_high_critical", 3), ("hr", "hr_low", "hr_high", 2),
    ("rr", "rr_low_critical", "rr_high_critical", 3), ("rr", "rr_low", "rr_high", 2),
    ("spo2", "spo2_low_critical", None, 3), ("spo2", "spo2_low", None, 2),
    ("temp", "temp_low", "temp_high", 2), ("temp", None, "temp_high_critical", 3),
    ("sbp", "sbp_low_critical", "sbp_high_critical", 3), ("sbp", None, "sbp_high", 2),
)  # fmt: skip
"""The platform's default limits: vital sign, low, high, priority."""


def limits_now(dataset: Dataset, rows: Examples) -> Floats:
    """Return the sum of the priorities of all limits that the values in force pass."""
    out = np.empty(len(rows.row))
    for first in range(0, len(out), 8192):
        part = slice(first, first + 8192)
        now = dict(
            zip(
                ("hr", "rr", "spo2", "temp", "sbp"),
                held(windows(dataset, rows.row[part]))[:, -1],
                strict=False,
            )
        )
        worst = {vital: np.zeros(len(now["hr"])) for vital in now}
        for vital, low, high, priority in _LIMITS:
            with np.errstate(invalid="ignore"):
                passed = np.zeros(len(now[vital]), np.bool_)
                if low is not None:
                    passed |= now[vital] < LIMITS[low].default
                if high is not None:
                    passed |= now[vital] >= LIMITS[high].default
            worst[vital] = np.where(passed, np.maximum(worst[vital], priority), worst[vital])
        out[part] = sum(worst.values())
    return out


def _examined(dataset: Dataset, judges: Sequence[Judge], how: str, taught_by: str) -> Exam:
    given = examples(dataset)
    scores = []
    for one in judges:
        score = one.score(dataset, given)
        risk = one.meaning.risk(score) if one.meaning is not None else None
        scores.append(Judged(one.name, one.role, score, risk, one.thresholds, one.promised))
    return _asked(Exam(dataset, given, how, taught_by, scores))


def _asked(exam: Exam) -> Exam:
    asked = exam.given.asked
    scores = [
        replace(one, score=one.score[asked], risk=None if one.risk is None else one.risk[asked])
        for one in exam.scores
    ]
    return replace(exam, given=exam.given.only(asked), scores=scores)


def judge(exam: Exam) -> Section:
    """Return every figure of an exam, with intervals by person."""
    dataset, given = exam.dataset, exam.given
    people = len(dataset.people)
    once = np.ones(people)
    drawn = resamples(people)
    results, areas, watches = [], {}, {}
    for one in exam.scores:
        ranking = Ranking(one.score, given.y, given.person)
        rounds = np.array([(ranking.auroc(w), ranking.auprc(w)) for w in drawn])
        areas[one.name] = rounds[:, 0]
        result = Result(
            name=one.name,
            role=one.role,
            auroc=interval(ranking.auroc(once), rounds[:, 0]),
            auprc=interval(ranking.auprc(once), rounds[:, 1]),
            calibrated=_calibrated(one.risk, given.y),
            groups=_groups(exam, one, drawn) if one.name in {MODEL, NEWS2} else [],
        )
        if dataset.hourly:
            watched = watch(
                one.score, given.person, dataset.hour[given.row], dataset.onset,
                np.union1d(steps(one.score), [*one.thresholds.values(), *one.promised.values()]),
            )  # fmt: skip
            watches[one.name] = watched
            result = structs.replace(result, budgets=budgets(watched, drawn, one))
        results.append(result)
    return Section(
        data=dataset.name,
        question=dataset.question,
        how=exam.how,
        taught_by=exam.taught_by,
        note=dataset.note,
        people=people,
        events=int(np.nansum(dataset.outcome)),
        rows=len(given.y),
        positive_rows=int(given.y.sum()),
        results=results,
        differences=[
            *_differences(results, areas),
            *_caught_differences(results, watches, drawn),
        ],
    )


def _calibrated(risk: Floats | None, answer: Ints) -> Calibrated | None:
    if risk is None:
        return None
    logit = np.log(np.clip(risk, 1e-9, 1 - 1e-9) / np.clip(1 - risk, 1e-9, 1))
    line = calibrate(logit, answer)
    return Calibrated(
        slope=line.slope,
        intercept=line.intercept,
        brier=float(((risk - answer) ** 2).mean()),
        curve=curve(risk, answer),
    )


def _groups(exam: Exam, one: Judged, drawn: Floats) -> list[Group]:
    dataset, given = exam.dataset, exam.given
    kinds = [
        *((f"{low} to {high - 1} years" if high < 200 else f"{low} years and older",
           (dataset.age >= low) & (dataset.age < high)) for low, high in _AGES),
        ("women", dataset.sex == 0),
        ("men", dataset.sex == 1),
    ]  # fmt: skip
    out = []
    for name, chosen in kinds:
        rows = chosen[given.person]
        count = int(np.nansum(dataset.outcome[chosen]))
        area = None
        if count >= FEWEST_IN_GROUP and count < int(chosen.sum()):
            ranking = Ranking(one.score[rows], given.y[rows], given.person[rows])
            rounds = np.array([ranking.auroc(weight) for weight in drawn[:100]])
            area = interval(ranking.auroc(np.ones(len(chosen))), rounds)
        out.append(Group(name=name, people=int(chosen.sum()), events=count, auroc=area))
    return out


def budgets(watched: Watch, drawn: Floats, one: Judged) -> list[Budget]:
    """Return what each budget buys here, and what the thresholds fixed while learning did here."""
    once = np.ones(drawn.shape[1])
    rate, part = watched.false_rate(once), watched.sensitivity(once)
    early = watched.sensitivity(once, early=True)
    all_rates, all_parts = watched.false_rate(drawn.T), _sensitivities(watched, drawn)
    events = int(watched.event.sum())
    out = []
    for budget in BUDGETS:
        at = watched.at_budget(budget, once)
        rounds = _at_budget(all_rates, all_parts, budget)
        lead = watched.lead[at][watched.caught[at]]
        caught = int(watched.caught[at].sum())
        false = float(watched.false[at].sum())
        fixed = one.thresholds.get(budget)
        promised = one.promised.get(budget)
        out.append(
            Budget(
                budget=budget,
                threshold=float(watched.thresholds[at]),
                false_rate=float(rate[at]),
                sensitivity=interval(float(part[at]), rounds),
                before_onset=float(early[at]),
                lead_hours=[float(x) for x in np.quantile(lead, [0.25, 0.5, 0.75])]
                if len(lead)
                else None,
                alarms_per_caught=(false + caught) / caught if caught else None,
                people_without_alarm=float((watched.false[at] == 0)[~watched.event].mean())
                if events < len(once)
                else None,
                fixed=None if fixed is None else _at(watched, fixed, once),
                promised=None if promised is None else _at(watched, promised, once),
            )
        )
    return out


def _at(watched: Watch, threshold: float, once: Floats) -> tuple[float, float]:
    """Return (false alarms per person-day, sensitivity) at a threshold."""
    at = int(np.searchsorted(watched.thresholds, threshold))
    return float(watched.false_rate(once)[at]), float(watched.sensitivity(once)[at])


def _sensitivities(watched: Watch, drawn: Floats) -> Floats:
    counted = drawn.T * watched.event[:, None]
    with np.errstate(invalid="ignore"):
        part: Floats = watched.caught.astype(float) @ counted / counted.sum(axis=0)
    return part


def _at_budget(rates: Floats, parts: Floats, budget: float) -> Floats:
    """Return the sensitivity of each round at the lowest threshold that keeps the budget."""
    over = rates > budget
    last_over = len(over) - 1 - over[::-1].argmax(axis=0)
    at = np.where(over.any(axis=0), last_over + 1, 0)
    chosen: Floats = parts[np.minimum(at, len(over) - 1), np.arange(rates.shape[1])]
    return chosen


def _differences(results: Sequence[Result], areas: dict[str, Floats]) -> list[Difference]:
    best = results[0]
    out = []
    for other in results[1:]:
        gap = interval(best.auroc.value - other.auroc.value, areas[best.name] - areas[other.name])
        out.append(Difference("AUROC", best.name, other.name, gap))
    return out


def _caught_differences(
    results: Sequence[Result], watches: dict[str, Watch], drawn: Floats
) -> list[Difference]:
    if not watches:
        return []
    once = np.ones(drawn.shape[1])
    rounds, values = {}, {}
    for name, watched in watches.items():
        rates, parts = watched.false_rate(drawn.T), _sensitivities(watched, drawn)
        plain = watched.sensitivity(once)
        for budget in BUDGETS:
            rounds[name, budget] = _at_budget(rates, parts, budget)
            values[name, budget] = float(plain[watched.at_budget(budget, once)])
    best = results[0].name
    return [
        Difference(
            f"sensitivity at {budget:g} false alarms per person-day",
            best,
            other.name,
            _gap(values, rounds, best, other.name, budget),
        )
        for budget in (0.5, 1.0)
        for other in results[1:]
    ]


def _gap(
    values: dict[tuple[str, float], float],
    rounds: dict[tuple[str, float], Floats],
    one: str,
    other: str,
    budget: float,
) -> Interval:
    return interval(
        values[one, budget] - values[other, budget], rounds[one, budget] - rounds[other, budget]
    )

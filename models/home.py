"""People at home, by day: will an alert about physiology, or agitation, be raised today, tomorrow?

The recordings are of the TIHM study: readings that people with dementia took at home, movement
sensors, and alerts that a monitoring team confirmed. Everything that is known of a day comes from
that day and before; own alerts count from the day after they were raised.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from models.calibration import calibrate, curve
from models.datasets import Bools, Floats, Ints, SamePeople, columns_of, table_with, tables
from models.examples import folds
from models.measures import Ranking, interval, resamples
from models.report import Budget, Calibrated, Difference, Result, Section

QUESTIONS: Final[Mapping[str, frozenset[str]]] = {
    "physiology alert": frozenset({"Blood pressure", "Pulse", "Body water", "Weight"}),
    "agitation": frozenset({"Agitation"}),
}
MEASURES: Final = (
    "Systolic blood pressure", "Diastolic blood pressure", "Heart rate", "Body Temperature",
    "Total body water", "Body weight",
)  # fmt: skip
PLACES: Final = (
    "kitchen", "hallway", "lounge", "bedroom", "fridge-door", "bathroom", "front-door", "back-door",
)  # fmt: skip
EVENING_HOUR: Final = 20.75
"""A reading later than this is answered by the monitoring team on the next morning."""
HALF_LIFE_DAYS: Final = 7.0
_DAY_S: Final = 86_400
_COLUMNS: Final = ({"patient_id", "device_type", "value"}, {"patient_id", "type", "date"})


NORMAL: Final = (
    (0, 159.5, 95.0, 10.0),
    (1, 99.5, 54.5, 5.0),
    (2, 99.5, 50.5, 5.0),
)
"""Column of MEASURES; above, below: an alert is likely; a scale. Read from the development half."""
BUDGETS: Final = (0.02, 0.05, 0.08, 0.2)
"""False alarms per resident and day."""
WANTED: Final = 0.95


@dataclass(frozen=True, slots=True)
class Home:
    """Days of residents, sorted by resident and day, without gaps.

    `resident` (days,) indexes `people`; `day` counts from 1970. `high` and `low` (days, measures)
    are the extremes of the readings that are answered on this day, `moved` (days, places) counts of
    movement by day and `moved_at_night` by night (the hours to 6), NaN where nothing was recorded.
    `alerts`: by question, 1 on days with an alert.
    """

    name: str
    people: tuple[str, ...]
    resident: Ints
    day: Ints
    high: Floats
    low: Floats
    moved: Floats
    moved_at_night: Floats
    alerts: Mapping[str, Ints]
    kinds: Mapping[str, Ints]
    age: Floats
    sex: Floats


def read(folder: Path) -> list[Home]:
    """Return the recordings of homes in a folder: one or none."""
    files = {path: columns_of(path) for path in tables(folder)}
    if not all(any(needed <= there for there in files.values()) for needed in _COLUMNS):
        return []
    readings = table_with(folder, {"patient_id", "device_type", "value"})
    alerts = table_with(folder, {"patient_id", "type", "date"})
    moves = table_with(folder, {"patient_id", "location_name", "date"})
    who = [_texts(one, "patient_id") for one in (readings, alerts, moves)]
    at = [_seconds(one) for one in (readings, alerts, moves)]
    people = np.unique(np.concatenate([who[0], who[2], who[1]]))
    seat = [np.searchsorted(people, one) for one in who]
    answered = (at[0] + (24 - EVENING_HOUR) * 3600) // _DAY_S
    days = [
        answered.astype(np.int64),
        (at[1] // _DAY_S).astype(np.int64),
        (at[2] // _DAY_S).astype(np.int64),
    ]
    first = np.full(len(people), np.iinfo(np.int64).max)
    last = np.full(len(people), -1)
    for one, day in zip(seat, days, strict=True):
        np.minimum.at(first, one, day)
        np.maximum.at(last, one, day)
    lengths = last - first + 1
    starts = np.concatenate([[0], np.cumsum(lengths)])
    resident = np.repeat(np.arange(len(people)), lengths)
    total = len(resident)
    rows = [starts[one] + day - first[one] for one, day in zip(seat, days, strict=True)]

    high, low = np.full((total, len(MEASURES)), -np.inf), np.full((total, len(MEASURES)), np.inf)
    kind, value = _texts(readings, "device_type"), np.asarray(readings["value"].to_numpy(), float)
    for column, measure in enumerate(MEASURES):
        mine = kind == measure
        np.maximum.at(high[:, column], rows[0][mine], value[mine])
        np.minimum.at(low[:, column], rows[0][mine], value[mine])
    moved, night = np.zeros((total, len(PLACES))), np.zeros((total, len(PLACES)))
    place = _texts(moves, "location_name")
    by_night = (at[2] % _DAY_S) < 6 * 3600
    for column, name in enumerate(PLACES):
        mine = place == name
        np.add.at(moved[:, column], rows[2][mine & ~by_night], 1)
        np.add.at(night[:, column], rows[2][mine & by_night], 1)
    silent = (moved.sum(axis=1) + night.sum(axis=1)) == 0
    moved[silent] = night[silent] = np.nan
    types = _texts(alerts, "type")

    def flags(wanted: frozenset[str]) -> Ints:
        out = np.zeros(total, np.int64)
        out[rows[1][np.isin(types, list(wanted))]] = 1
        return out

    age, sex = _static(folder, people)
    return [
        Home(
            name=folder.name,
            people=tuple(str(one) for one in people),
            resident=resident,
            day=np.arange(total) - starts[resident] + first[resident],
            high=np.where(np.isfinite(high), high, np.nan),
            low=np.where(np.isfinite(low), low, np.nan),
            moved=moved,
            moved_at_night=night,
            alerts={question: flags(wanted) for question, wanted in QUESTIONS.items()},
            kinds={one: flags(frozenset({one})) for one in sorted(set(types))},
            age=age,
            sex=sex,
        )
    ]


def _static(folder: Path, people: NDArray[Any]) -> tuple[Floats, Floats]:
    """Return the middle of the age band, and sex (1 male), of each person."""
    table = table_with(folder, {"patient_id", "age", "sex"})
    age, sex = np.full(len(people), np.nan), np.full(len(people), np.nan)
    for who, band, word in zip(
        _texts(table, "patient_id"), _texts(table, "age"), _texts(table, "sex"), strict=True
    ):
        at = np.flatnonzero(people == who)
        bounds = [float(part) for part in str(band).strip("([])").split(",") if part.strip()]
        age[at] = sum(bounds) / len(bounds) if bounds else np.nan
        sex[at] = {"Male": 1.0, "Female": 0.0}.get(str(word), np.nan)
    return age, sex


def _texts(table: pa.Table, name: str) -> NDArray[Any]:
    return np.asarray(pc.cast(table[name], pa.string()).to_pylist(), dtype=object)


def _seconds(table: pa.Table) -> Floats:
    return np.asarray(pc.cast(table["date"], pa.timestamp("s")).cast(pa.int64()).to_numpy(), float)


@dataclass(frozen=True, slots=True)
class Days:
    """What a model sees of each day, and the answer: was there, or will there be, an alert?

    `x` (days, columns) in the order of `names`; `asked` is false on the last day where tomorrow is
    asked about. `plain` is the score of a fixed rule, the comparator.
    """

    names: tuple[str, ...]
    x: Floats
    y: Ints
    asked: Bools
    plain: Floats


def days(home: Home, question: str, ahead: int) -> Days:
    """Return the examples of a question about today (`ahead` 0) or tomorrow (1)."""
    seen = _known(home)
    alert = home.alerts[question]
    last = np.append(home.resident[1:] != home.resident[:-1], True)
    answer = alert if ahead == 0 else np.where(last, 0, np.append(alert[1:], 0))
    if ahead:
        seen["alert today"] = alert.astype(float)
    recent = _echo(home, alert, HALF_LIFE_DAYS)
    if question == "physiology alert" and ahead == 0:
        plain = (seen["outside"] > 0) + 0.01 * recent
    else:
        plain = (alert if ahead else 0) + recent
    names = tuple(name for name in seen if PLANS[question, ahead].wants(name))
    return Days(
        names,
        np.column_stack([seen[name] for name in names]),
        answer,
        ~last if ahead else np.ones(len(last), np.bool_),
        plain,
    )


def _known(home: Home) -> dict[str, Floats]:
    """Return by name what is known of each day by its end, of alerts only those before it."""
    seen: dict[str, Floats] = {}
    middle = (home.high + home.low) / 2
    usual = _usual(home, middle)
    for column, measure in enumerate(MEASURES):
        seen[f"high {measure}"] = home.high[:, column]
        seen[f"low {measure}"] = home.low[:, column]
        own = middle[:, column] - usual[:, column]
        seen[f"own {measure}"] = np.where(np.isnan(own), 0 * middle[:, column], own)
    beyond = [
        side
        for column, above, below, scale in NORMAL
        for side in ((home.high[:, column] - above) / scale, (below - home.low[:, column]) / scale)
    ]
    outside = np.clip(np.nan_to_num(np.fmax.reduce(beyond), nan=-3.0), -3, 3)
    over = outside > 0
    physiology, agitation = home.alerts["physiology alert"], home.alerts["agitation"]
    unexplained = (physiology == 1) & ~over
    seen["outside"] = outside
    seen["outside near"] = np.clip(outside, -1, 1)
    seen["outside far"] = np.clip(outside, 0, 2)
    seen["over"] = over.astype(float)
    seen["unexplained yesterday"] = _yesterday(home, unexplained)
    seen["unexplained lately"] = np.minimum(_echo(home, unexplained, 2.0), 2)
    seen["over without alert lately"] = np.where(
        over, _echo(home, over & (physiology == 0), 7.0), 0
    )
    seen["over with alert lately"] = np.where(over, _echo(home, over & (physiology == 1), 7.0), 0)
    for name, column in (("water", 4), ("weight", 5)):
        apart = np.fmax(
            np.abs(home.high[:, column] - usual[:, column]),
            np.abs(home.low[:, column] - usual[:, column]),
        )
        seen[f"{name} apart"] = np.minimum(np.nan_to_num(apart), 6)
    for name, alert in (("physiology", physiology), ("agitation", agitation)):
        seen[f"{name} alert yesterday"] = _yesterday(home, alert)
        for half_life in (2.0, 7.0, 30.0):
            seen[f"{name} alerts, half-life {half_life:g} d"] = _echo(home, alert, half_life)
    seen |= _movement(home)
    seen["age"], seen["sex"] = home.age[home.resident], home.sex[home.resident]
    return seen


def _movement(home: Home) -> dict[str, Floats]:
    day, night = home.moved, home.moved_at_night
    sums = {
        "moved": day.sum(axis=1),
        "moved at night": night.sum(axis=1),
        "moved kitchen": day[:, 0] + day[:, 4],
        "moved bathroom": day[:, 5],
        "moved bathroom at night": night[:, 5],
        "moved bedroom": day[:, 3],
        "moved bedroom at night": night[:, 3],
        "moved lounge": day[:, 2],
        "moved hallway": day[:, 1],
        "moved doors": day[:, 6] + day[:, 7],
        "moved doors at night": night[:, 6] + night[:, 7],
    }
    logs = np.log1p(np.column_stack(list(sums.values())))
    apart = logs - _usual(home, logs)
    seen = dict(zip(sums, logs.T, strict=True))
    return seen | {f"{name}, own": row for name, row in zip(sums, apart.T, strict=True)}


def _usual(home: Home, values: Floats) -> Floats:
    """Return the mean of each one's days before, later days weighing more; NaN on the first."""
    decay = 0.5 ** (1 / HALF_LIFE_DAYS)
    out = np.full(values.shape, np.nan)
    total = weight = np.zeros(values.shape[1])
    for row, person in enumerate(home.resident):
        if row == 0 or person != home.resident[row - 1]:
            total = weight = np.zeros(values.shape[1])
        with np.errstate(invalid="ignore", divide="ignore"):
            out[row] = total / weight
        there = ~np.isnan(values[row])
        total = total * decay + np.where(there, values[row], 0.0)
        weight = weight * decay + there
    return out


def _echo(home: Home, flag: NDArray[Any], half_life: float) -> Floats:
    """Return how many days before had the flag, each counting half after `half_life` days."""
    decay = 0.5 ** (1 / half_life)
    out = np.zeros(len(flag))
    for row in range(1, len(flag)):
        if home.resident[row] == home.resident[row - 1]:
            out[row] = (out[row - 1] + float(flag[row - 1])) * decay
    return out


def _yesterday(home: Home, flag: NDArray[Any]) -> Floats:
    same = home.resident[1:] == home.resident[:-1]
    return np.append(0.0, np.where(same, flag[:-1].astype(float), 0.0))


@dataclass(frozen=True, slots=True)
class Plan:
    """Which columns a question is answered from, and by which kind of estimator."""

    make: Callable[[], Any]
    names: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def wants(self, name: str) -> bool:
        """Tell whether a column is read: those of `names`, or all but those beginning so."""
        return name in self.names if self.names else not name.startswith(self.without or ("\0",))


def _line() -> Pipeline:
    return Pipeline(
        [
            ("fill", SimpleImputer(strategy="median", keep_empty_features=True)),
            ("scale", StandardScaler()),
            ("line", LogisticRegression(C=1.0, max_iter=1000)),
        ]
    )


def _trees() -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        max_iter=100,
        learning_rate=0.05,
        max_leaf_nodes=6,
        min_samples_leaf=15,
        l2_regularization=10.0,
        max_features=0.5,
        early_stopping=False,
        random_state=0,
    )


PLANS: Final[Mapping[tuple[str, int], Plan]] = {
    ("physiology alert", 0): Plan(
        _line,
        (
            "over", "outside near", "outside far", "unexplained yesterday", "unexplained lately",
            "physiology alerts, half-life 7 d", "water apart", "weight apart",
            "over without alert lately", "over with alert lately",
        ),
    ),
    ("physiology alert", 1): Plan(
        _line,
        ("alert today", "physiology alerts, half-life 2 d", "physiology alerts, half-life 7 d"),
    ),
    ("agitation", 0): Plan(_trees),
    ("agitation", 1): Plan(
        _trees,
        without=("high", "low", "own", "outside", "over", "unexplained", "water", "weight",
                 "physiology"),
    ),
}  # fmt: skip


def sections(
    home: Home, teachers: Sequence[Home], done: Callable[[int], object]
) -> Iterator[Section]:
    """Yield the report of each question, for today and for tomorrow."""
    for question, ahead in PLANS:
        given = days(home, question, ahead)
        if teachers:
            taught = [days(one, question, ahead) for one in teachers]
            model = (
                PLANS[question, ahead]
                .make()
                .fit(
                    np.concatenate([one.x[one.asked] for one in taught]),
                    np.concatenate([one.y[one.asked] for one in taught]),
                )
            )
            score = np.asarray(model.decision_function(given.x))
            how, by = "people never seen", ", ".join(one.name for one in teachers)
        else:
            score = crossfit(home, given, PLANS[question, ahead])
            how, by = "five-fold cross-validation by resident", home.name
        yield _section(home, question, ahead, given, score, how, by)
        done(1)
    done(2)


def crossfit(home: Home, given: Days, plan: Plan) -> Floats:
    """Return for each day the score of a model that has never seen the resident."""
    fold = folds(len(home.people))[home.resident]
    score = np.full(len(given.y), np.nan)
    for one in np.unique(fold):
        away = fold == one
        model = plan.make().fit(given.x[~away & given.asked], given.y[~away & given.asked])
        score[away] = model.decision_function(given.x[away])
    return score


def _section(
    home: Home, question: str, ahead: int, given: Days, score: Floats, how: str, by: str
) -> Section:
    asked = given.asked
    answer, resident = given.y[asked], home.resident[asked]
    drawn = resamples(len(home.people))
    once = np.ones(len(home.people))
    when = "tomorrow" if ahead else "today"
    results, areas, precisions = [], [], []
    rule = "Limits" if question == "physiology alert" and not ahead else "Recent alerts"
    for name, role, column in (
        ("Anxin home", "model", score[asked]),
        (rule, "comparator", given.plain[asked]),
    ):
        ranking = Ranking(column, answer, resident)
        rounds = np.array([(ranking.auroc(w), ranking.auprc(w)) for w in drawn])
        areas.append(rounds[:, 0])
        precisions.append(rounds[:, 1])
        bought = []
        for budget in BUDGETS:
            part, alarms = ranking.caught(budget, once)
            parts = np.array([ranking.caught(budget, w)[0] for w in drawn])
            false = alarms - part * float(answer.mean())
            bought.append(
                Budget(
                    budget=budget,
                    false_rate=false,
                    sensitivity=interval(part, parts),
                    alarms_per_caught=alarms / (part * float(answer.mean())) if part else None,
                )
            )
        cost = np.array([ranking.cost(WANTED, w) for w in drawn])
        results.append(
            Result(
                name=name,
                role=role,
                auroc=interval(ranking.auroc(once), rounds[:, 0]),
                auprc=interval(ranking.auprc(once), rounds[:, 1]),
                budgets=bought,
                false_rate_at_95=interval(ranking.cost(WANTED, once), cost),
                calibrated=_calibrated(column, answer) if role == "model" else None,
            )
        )
    return Section(
        data=home.name,
        question=f"{question} {when}",
        how=how,
        taught_by=by,
        note="People with dementia at home, by day. A day is false where an alarm is raised and no "
        "alert is. Alerts are those that a monitoring team confirmed.",
        people=len(home.people),
        events=int(answer.sum()),
        rows=len(answer),
        positive_rows=int(answer.sum()),
        per="resident-day",
        results=results,
        differences=[
            Difference(
                what,
                results[0].name,
                results[1].name,
                interval(first.value - second.value, rounds[0] - rounds[1]),
            )
            for what, first, second, rounds in (
                ("AUROC", results[0].auroc, results[1].auroc, areas),
                ("AUPRC", results[0].auprc, results[1].auprc, precisions),
            )
        ],
    )


def _calibrated(score: Floats, answer: Ints) -> Calibrated:
    risk = 1 / (1 + np.exp(-score))
    line = calibrate(score, answer)
    return Calibrated(
        slope=line.slope,
        intercept=line.intercept,
        brier=float(((risk - answer) ** 2).mean()),
        curve=curve(risk, answer),
    )


def refuse_the_same(taught: Sequence[Home], judged: Sequence[Home]) -> None:
    """Raise SamePeople when the readings of somebody are in both."""
    known = {print_ for one in taught for print_ in _fingerprints(one)}
    for one in judged:
        same = known & _fingerprints(one)
        if same:
            raise SamePeople(
                f"{len(same)} residents of {one.name} are also in the data to learn from. "
                "Give another --train-data, or leave it out for cross-validation."
            )


def _fingerprints(home: Home) -> set[str]:
    prints = set()
    for resident in range(len(home.people)):
        mine = home.resident == resident
        seen = np.column_stack([home.high[mine], home.moved[mine]])
        if np.isfinite(seen).any():
            prints.add(hashlib.sha256(np.nan_to_num(seen, nan=-1.0).tobytes()).hexdigest())
    return prints

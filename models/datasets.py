"""Recordings with outcomes in one frozen form: who, which hour, which vital signs, what came of it.

A folder of recordings is known by the columns of its files, never by its name, so that another half
of the same source can take its place. Four kinds of hourly folder are read (see `SOURCES`), and
the daily one of people at home is read by `models.home`.
"""

import csv
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from anxin.errors import AnxinError
from models.features import VITALS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

PLAUSIBLE: Final = np.array(
    [(20, 260), (3, 70), (50, 100), (30, 43), (40, 280), (15, 200), (3, 15), (0, 1)], dtype=float
)
"""What is outside is a fault of the recording and read as missing; by column of `values`."""
HOURS_AHEAD: Final = 6
"""In the sepsis recordings the label turns 1 so many hours before the onset."""

FEWEST_TO_KNOW: Final = 12
"""Somebody with fewer measurements cannot be told from others."""


class NoData(AnxinError):
    """There is no data set of a known layout here. Give a folder with the files of one."""


class SamePeople(AnxinError):
    """Somebody is in the data to learn from and in the data to be judged by. Separate them."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Hours of people. Rows are sorted by person, then hour, and every hour in between has a row.

    `values` (rows, len(VITALS)) are in the order of features.VITALS: `gcs` is the Glasgow coma
    scale (15 = awake), `oxygen` 1 where somebody breathes more than air.
    `person` (rows,) indexes `people`; `hour` (rows,) counts from the person's first hour;
    NaN is missing. `age` in years and `sex` (1 male, 0 female),
    by person, NaN for unknown. `onset` (people,) is the hour at which the event begins, NaN for
    none; `outcome` (people,) 1 or 0, NaN for unknown. Where `hourly`, the question is asked anew
    every hour: is the event near? Otherwise once for each person: will it end badly?
    """

    name: str
    question: str
    hourly: bool
    people: tuple[str, ...]
    person: Ints
    hour: Ints
    values: Floats
    age: Floats
    sex: Floats
    onset: Floats
    outcome: Floats
    hashes: Mapping[str, str]
    note: str = ""

    @property
    def starts(self) -> Ints:
        """The first row of each person, and the number of rows at the end; (people + 1,)."""
        return np.searchsorted(self.person, np.arange(len(self.people) + 1)).astype(np.int64)

    def of_people(self, chosen: Ints) -> "Dataset":
        """Return the same for some people (ascending indexes)."""
        rows = np.isin(self.person, chosen)
        return replace(
            self,
            people=tuple(self.people[one] for one in chosen),
            person=np.searchsorted(chosen, self.person[rows]).astype(np.int64),
            hour=self.hour[rows],
            values=self.values[rows],
            age=self.age[chosen],
            sex=self.sex[chosen],
            onset=self.onset[chosen],
            outcome=self.outcome[chosen],
        )

    def fingerprints(self) -> set[str]:
        """Return a hash of each one's measurements, which knows people under any other id.

        Who has hardly any measurements is like others who have none, and has no hash.
        """
        starts = self.starts
        rounded = np.round(np.nan_to_num(self.values[:, :6], nan=-1.0), 1).astype(np.float32)
        return {
            hashlib.sha256(rounded[first:last].tobytes()).hexdigest()
            for first, last in pairwise(starts)
            if (rounded[first:last] >= 0).sum() >= FEWEST_TO_KNOW
        }


def find(folder: Path) -> list[Path]:
    """Return the folders with recordings: this one, or those directly in it, by name."""
    if not folder.is_dir():
        raise NoData(f"There is no folder {folder}. Give the folder with the recordings.")
    return [
        place
        for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir()))
        if any(path.suffix in {".csv", ".parquet"} for path in place.iterdir())
    ]


def read(folder: Path) -> list[Dataset]:
    """Return the hourly data sets in one folder, one for each question; none if it is not one."""
    for columns, reader in SOURCES:
        files = {path: columns_of(path) for path in tables(folder)}
        if all(any(needed <= there for there in files.values()) for needed in columns):
            return reader(folder, file_hashes(folder))
    return []


def file_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each table in a folder, by file name."""
    hashes = {}
    for path in tables(folder):
        with path.open("rb") as file:
            hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def table_with(folder: Path, columns: set[str]) -> pa.Table:
    """Return the table of the folder that has these columns; ids are read as they are written."""
    for path in tables(folder):
        if columns <= columns_of(path):
            return _read(path)
    raise NoData(f"No file in {folder} has the columns {sorted(columns)}.")


def tables(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in {".csv", ".parquet"})


def columns_of(path: Path) -> set[str]:
    if path.suffix == ".parquet":
        return set(pa.parquet.read_schema(path).names)
    with path.open(encoding="utf-8", newline="") as file:
        return set(next(csv.reader(file), []))


def _read(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        return pa.parquet.read_table(path)
    # Some ids of the homes are all digits; read as numbers they would lose their zeros.
    options = pa.csv.ConvertOptions(column_types={"patient_id": pa.string()})
    return pa.csv.read_csv(path, convert_options=options)


def _floats(table: pa.Table, name: str) -> Floats:
    column = pc.cast(table[name], pa.float64())
    return np.asarray(column.to_numpy(), dtype=np.float64)


def _plausible(values: Floats) -> Floats:
    outside = ~((values >= PLAUSIBLE[:, 0]) & (values <= PLAUSIBLE[:, 1]))
    kept: Floats = np.where(outside, np.nan, values)
    return kept


def _hours(
    who: Ints, hour: Ints, values: Floats, count: int
) -> tuple[Ints, Ints, Floats, NDArray[np.int64]]:
    """Lay rows on a grid without gaps; return person, hour, values, and each row's place in it."""
    first = np.full(count, np.iinfo(np.int64).max)
    last = np.full(count, -1)
    np.minimum.at(first, who, hour)
    np.maximum.at(last, who, hour)
    lengths = np.maximum(last - first + 1, 0)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    person = np.repeat(np.arange(count), lengths)
    hours = np.arange(starts[-1]) - starts[person]
    grid = np.full((starts[-1], values.shape[1]), np.nan)
    place = starts[who] + hour - first[who]
    grid[place] = values
    return person, hours, grid, place


def _sepsis_2019(folder: Path, hashes: Mapping[str, str]) -> list[Dataset]:
    table = table_with(folder, {"ICULOS", "SepsisLabel", "HR"})
    people, who = np.unique(_texts(table, "pid"), return_inverse=True)
    names = ("HR", "Resp", "O2Sat", "Temp", "SBP", "DBP")
    columns = [_floats(table, name) for name in names]
    oxygen = _oxygen(_floats(table, "FiO2"))
    raw = np.column_stack([*columns, np.full(len(who), np.nan), oxygen])
    raw[:, 5] = np.where(
        np.isnan(raw[:, 5]), _diastolic(raw[:, 4], _floats(table, "MAP")), raw[:, 5]
    )
    hour = _floats(table, "ICULOS").astype(np.int64)
    person, hours, values, place = _hours(who, hour, _plausible(raw), len(people))
    label = np.zeros(len(person), np.int64)
    label[place] = _floats(table, "SepsisLabel").astype(np.int64)
    onset = _onset(person, hours, label, len(people))
    age, sex = np.full(len(people), np.nan), np.full(len(people), np.nan)
    age[who], sex[who] = _floats(table, "Age"), _floats(table, "Gender")
    return [
        Dataset(
            name=folder.name,
            question="sepsis",
            hourly=True,
            people=tuple(people.tolist()),
            person=person,
            hour=hours,
            values=values,
            age=age,
            sex=sex,
            onset=onset,
            outcome=(~np.isnan(onset)).astype(np.float64),
            hashes=hashes,
            note="Stays in intensive care. An hour counts as positive from 6 h before the onset of "
            "sepsis to the end of the label. Vital signs only.",
        )
    ]


def _onset(person: Ints, hour: Ints, label: Ints, count: int) -> Floats:
    """Return the hour of onset: where the label first turns 1, plus the hours it is ahead.

    A label that is 1 from the first hour says only that the onset is at most so far ahead; its
    last hour, three after the onset where it was not cut short, says more.
    """
    onset = np.full(count, np.nan)
    positive = np.flatnonzero(label)
    np.minimum.at(first := np.full(count, np.inf), person[positive], hour[positive])
    np.maximum.at(last := np.full(count, -np.inf), person[positive], hour[positive])
    there = np.isfinite(first)
    onset[there] = np.where(
        first[there] > 0,
        first[there] + HOURS_AHEAD,
        np.clip(last[there] - (9 - HOURS_AHEAD), 0, HOURS_AHEAD),
    )
    return onset


def _diastolic(systolic: Floats, mean: Floats) -> Floats:
    """Return the diastolic pressure that goes with a mean pressure."""
    guess: Floats = (3 * mean - systolic) / 2
    return guess


def _oxygen(fraction: Floats) -> Floats:
    """Return 1 where the inspired fraction (or per cent) is above that of air, else 0."""
    part = np.where(fraction > 1, fraction / 100, fraction)
    told: Floats = np.where(np.isnan(part), np.nan, (part > 0.21).astype(np.float64))
    return told


def _texts(table: pa.Table, name: str) -> NDArray[Any]:
    return np.asarray(pc.cast(table[name], pa.string()).to_pylist(), dtype=object)


_PARAMETERS_2012: Final[tuple[tuple[str, ...], ...]] = (
    ("HR",),
    ("RespRate",),
    ("SaO2", "SpO2"),
    ("Temp",),
    ("SysABP", "NISysABP"),
    ("DiasABP", "NIDiasABP"),
    ("GCS",),
    ("FiO2",),
)
"""By column of `values`; of two names the first is taken where both are there in an hour."""


def _death_2012(folder: Path, hashes: Mapping[str, str]) -> list[Dataset]:
    table = table_with(folder, {"RecordID", "minute", "Parameter", "Value"})
    outcomes = table_with(folder, {"RecordID", "In-hospital_death"})
    record = _floats(table, "RecordID").astype(np.int64)
    ids = _floats(outcomes, "RecordID").astype(np.int64)
    order = np.argsort(ids)
    people = ids[order]
    parameter = _texts(table, "Parameter")
    value = _floats(table, "Value")
    hour = np.minimum(_floats(table, "minute").astype(np.int64) // 60, 47)
    known = np.isin(record, people) & (value != -1)
    who = np.searchsorted(people, record)
    count = len(people)
    values = np.full((count * 48, len(VITALS)), np.nan)
    for column, names in enumerate(_PARAMETERS_2012):
        for name in names:
            rows = known & (parameter == name)
            low, high = PLAUSIBLE[column]
            value_here = _oxygen(value) if column == 7 else value
            rows &= (value_here >= low) & (value_here <= high)
            place = who[rows] * 48 + hour[rows]
            total = np.bincount(place, value_here[rows], minlength=count * 48)
            seen = np.bincount(place, minlength=count * 48)
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = total / seen
            values[:, column] = np.where(np.isnan(values[:, column]), mean, values[:, column])
    ventilated = known & (parameter == "MechVent")
    values[who[ventilated] * 48 + hour[ventilated], 7] = 1.0
    values[:, 7] = np.where(np.isnan(values[:, 7]), np.nan, (values[:, 7] > 0).astype(np.float64))

    def static(name: str) -> Floats:
        rows = known & (parameter == name)
        out = np.full(count, np.nan)
        out[who[rows]] = value[rows]
        return out

    outcome = _floats(outcomes, "In-hospital_death")[order]
    return [
        Dataset(
            name=folder.name,
            question="death in hospital",
            hourly=False,
            people=tuple(str(one) for one in people.tolist()),
            person=np.repeat(np.arange(count), 48),
            hour=np.tile(np.arange(48), count),
            values=values,
            age=static("Age"),
            sex=static("Gender"),
            onset=np.full(count, np.nan),
            outcome=outcome,
            hashes=hashes,
            note="Stays in intensive care. Asked once, 48 hours after admission.",
        )
    ]


def _eicu(folder: Path, hashes: Mapping[str, str]) -> list[Dataset]:
    table = table_with(folder, {"stay_id", "hour", "hr", "resp"})
    static = table_with(folder, {"stay_id", "age", "sex"})
    stays = _floats(table, "stay_id").astype(np.int64)
    people, who = np.unique(stays, return_inverse=True)
    names = ("hr", "resp", "o2sat", "temp", "sbp", "dbp")
    raw = np.column_stack(
        [
            *(_floats(table, name) for name in names),
            np.full(len(who), np.nan),
            _oxygen(_floats(table, "fio2")),
        ]
    )
    hour = _floats(table, "hour").astype(np.int64)
    person, hours, values, _ = _hours(who, hour, _plausible(raw), len(people))
    age, sex = np.full(len(people), np.nan), np.full(len(people), np.nan)
    known = _floats(static, "stay_id").astype(np.int64)
    there = np.isin(known, people)
    at = np.searchsorted(people, known[there])
    age[at] = _floats(static, "age")[there]
    words = _texts(static, "sex")[there]
    sex[at] = np.where(words == "Male", 1.0, np.where(words == "Female", 0.0, np.nan))
    whole = Dataset(
        name=folder.name,
        question="",
        hourly=False,
        people=tuple(str(one) for one in people.tolist()),
        person=person,
        hour=hours,
        values=values,
        age=age,
        sex=sex,
        onset=np.full(len(people), np.nan),
        outcome=np.full(len(people), np.nan),
        hashes=hashes,
    )
    return [*_eicu_death(folder, whole, people), *_eicu_sepsis(folder, whole, people)]


def _eicu_death(folder: Path, whole: Dataset, people: Ints) -> list[Dataset]:
    told = table_with(folder, {"stay_id", "death_in_hospital"})
    known = _floats(told, "stay_id").astype(np.int64)
    there = np.isin(known, people)
    outcome = np.full(len(people), np.nan)
    outcome[np.searchsorted(people, known[there])] = _floats(told, "death_in_hospital")[there]
    first_day = whole.hour < 24
    asked = replace(
        whole,
        question="death in hospital",
        person=whole.person[first_day],
        hour=whole.hour[first_day],
        values=whole.values[first_day],
        outcome=outcome,
        note="Stays in intensive care. Asked once, 24 hours after admission.",
    )
    return [asked.of_people(np.flatnonzero(~np.isnan(outcome)))]


def _eicu_sepsis(folder: Path, whole: Dataset, people: Ints) -> list[Dataset]:
    told = table_with(folder, {"stay_id", "hour", "sepsis"})
    stays = _floats(told, "stay_id").astype(np.int64)
    there = np.isin(stays, people)
    at = np.searchsorted(people, stays[there])
    septic = np.asarray(told["sepsis"].to_pylist(), dtype=np.float64)[there] > 0
    hour = _floats(told, "hour").astype(np.int64)[there]
    chosen = np.unique(at)
    label = np.zeros(len(whole.person), np.int64)
    starts = whole.starts
    rows = starts[at] + hour
    inside = (hour >= 0) & (rows < starts[at + 1])
    label[rows[inside]] = septic[inside]
    onset = _onset(whole.person, whole.hour, label, len(people))
    asked = replace(
        whole,
        question="sepsis",
        hourly=True,
        onset=onset,
        outcome=(~np.isnan(onset)).astype(np.float64),
        note="Stays in intensive care; few events. An hour counts as positive from 6 h before the "
        "onset of sepsis.",
    )
    return [asked.of_people(chosen)]


def _recorded(folder: Path, hashes: Mapping[str, str]) -> list[Dataset]:
    """Read the platform's own layout, as `anxin simulate --record` writes it."""
    table = table_with(folder, _OWN_HOURS)
    residents = table_with(folder, _OWN_PEOPLE)
    names = _texts(residents, "resident")
    people = np.unique(names)
    seat = np.searchsorted(people, names)
    told = _texts(table, "resident")
    known = np.isin(told, people)
    who = np.searchsorted(people, told[known])
    raw = np.column_stack(
        [
            _floats(table, name)[known] if name in table.column_names else np.full(len(who), np.nan)
            for name in VITALS
        ]
    )
    hour = _floats(table, "hour").astype(np.int64)[known]
    person, hours, values, _ = _hours(who, hour, _plausible(raw), len(people))
    first = np.full(len(people), np.iinfo(np.int64).max)
    np.minimum.at(first, who, hour)
    age, sex, onset = (np.full(len(people), np.nan) for _ in range(3))
    age[seat] = _floats(residents, "age")
    words = _texts(residents, "sex")
    sex[seat] = np.where(words == "male", 1.0, np.where(words == "female", 0.0, np.nan))
    onset[seat] = _floats(residents, "onset_hour")
    return [
        Dataset(
            name=folder.name,
            question="deterioration",
            hourly=True,
            people=tuple(str(one) for one in people),
            person=person,
            hour=hours,
            values=values,
            age=age,
            sex=sex,
            onset=onset - first,
            outcome=(~np.isnan(onset)).astype(np.float64),
            hashes=hashes,
            note="Recorded in the platform's own layout. If it was simulated, what is learned is "
            "the simulator's idea of illness, and nothing follows from it for real people.",
        )
    ]


_OWN_HOURS: Final = {"resident", "hour", "hr", "rr"}
_OWN_PEOPLE: Final = {"resident", "age", "sex", "onset_hour"}

SOURCES: Final[
    tuple[tuple[tuple[set[str], ...], Callable[[Path, Mapping[str, str]], list[Dataset]]], ...]
] = (
    (({"pid", "ICULOS", "SepsisLabel"},), _sepsis_2019),
    (
        ({"RecordID", "minute", "Parameter", "Value"}, {"RecordID", "In-hospital_death"}),
        _death_2012,
    ),
    (
        ({"stay_id", "hour", "hr"}, {"stay_id", "death_in_hospital"}, {"stay_id", "age", "sex"}),
        _eicu,
    ),
    ((_OWN_HOURS, _OWN_PEOPLE), _recorded),
)
"""Columns that the files of a folder must have, and its reader. The first that fits is taken."""

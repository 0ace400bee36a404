"""`anxin simulate --record`: months of simulated people as a data set, without any connection.

Two files in the platform's own layout: `hourly.parquet` (resident, hour, vital signs) and
`residents.csv` (resident, age, sex, onset_hour: empty for who stays well). People differ in what is
usual for them; exertion, pain and poor sleep bend their vital signs for some hours without meaning
anything; an illness has a strength and a pace of its own. Pure but for writing the files.
"""

import math
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from msgspec.structs import replace
from tqdm import tqdm

from device_sim.dice import Dice, Floats, Ints
from device_sim.person import HOUR_S, Moment, Population, make_people
from device_sim.scenarios import Scenario

EPOCH_S: Final = 1_767_225_600.0 - 8 * HOUR_S
"""The recording begins at midnight of 2026-01-01 by the people's clock."""
FULL_HOURS: Final = {"sepsis": 6.0, "fever": 2.0}
"""So long after its beginning a scenario is at its worst, at its own pace: the onset."""
CUFF_HOURS: Final = (7, 15, 20)
THERMOMETER_HOURS: Final = (7, 16)
BY_CHANCE: Final = 0.05
"""In any hour staff take them so often besides, of the well as of the ill."""
LOST: Final = 0.05
ILL_BEFORE: Final = 0.25
"""So many of the ill are nearly at their worst when the recording begins: they have no past."""
UNEVEN: Final = 0.5
"""So many have vital signs of their own, and harmless ups and downs."""
VITALS: Final = ("hr", "rr", "spo2", "temp", "sbp", "dbp")
_NOISE: Final = np.array([1.5, 0.8, 0.6, 0.08, 4.0, 3.0])
_SPREAD: Final = np.array([6.0, 1.2, 0.9, 0.15, 11.0, 6.0])
_BUMP: Final = np.array([16.0, 4.0, -1.2, 0.25, 14.0, 8.0])
_CHUNK: Final = 100


def record(
    folder: Path,
    *,
    residents: int,
    days: float,
    scenarios: list[Scenario],
    affected: int,
    seed: int,
) -> tuple[int, int]:
    """Write a data set; return the residents and how many of them fall ill."""
    people = make_people(residents, seed)
    population = Population(people, seed)
    dice = Dice(seed, residents)
    hours = round(days * 24)
    everyone = np.arange(residents, dtype=np.int64)
    order = np.argsort(dice.uniform("who falls ill", everyone))
    ill = {
        int(who): scenario
        for place, scenario in enumerate(scenarios)
        for who in order[place * affected : (place + 1) * affected]
    }
    onset = np.full(residents, np.nan)
    columns: list[Floats] = []
    for first in tqdm(range(0, residents, _CHUNK), desc="record", unit=" × 100"):
        who = everyone[first : first + _CHUNK]
        columns.append(_values(population, dice, who, hours, ill, onset))
    values = np.concatenate(columns)
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"r{number:05}" for number in range(residents)]
    table = pa.table(
        {
            "resident": pa.array(np.repeat(names, hours)).dictionary_encode(),
            "hour": np.tile(np.arange(hours, dtype=np.int32), residents),
            **{
                name: pa.array(values[:, column].astype(np.float32), from_pandas=True)
                for column, name in enumerate(VITALS)
            },
        }
    )
    pa.parquet.write_table(table, folder / "hourly.parquet", compression="zstd")
    ages = [2026 - person.born.year if person.born else None for person in people]
    static = pa.table(
        {
            "resident": names,
            "age": pa.array(ages, pa.float64()),
            "sex": [person.sex for person in people],
            "onset_hour": pa.array(onset, from_pandas=True),
        }
    )
    pa.csv.write_csv(static, folder / "residents.csv")
    return residents, int(np.isfinite(onset).sum())


def _values(
    population: Population,
    dice: Dice,
    who: Ints,
    hours: int,
    ill: dict[int, Scenario],
    onset: Floats,
) -> Floats:
    """Return (people * hours, vitals) with NaN where nothing was measured; fill in `onset`."""
    person = np.repeat(who, hours)
    hour = np.tile(np.arange(hours, dtype=np.int64), len(who))
    moments = population.moments(person, EPOCH_S + hour.astype(np.float64) * HOUR_S)
    for number in who.tolist():
        if number in ill:
            first = int((number - who[0]) * hours)
            onset[number] = _fall_ill(dice, ill[number], moments, first, hours, number)
    values = np.array([[getattr(one, name) for name in VITALS] for one in moments])
    # Some are as even as the simulated residents of a demonstration, others as uneven as people.
    uneven = np.where(dice.uniform("uneven", person) < UNEVEN, 1.0, 0.0)
    for column, name in enumerate(VITALS):
        values[:, column] += uneven * _SPREAD[column] * dice.normal(f"own {name}", person)
        values[:, column] += uneven * _BUMP[column] * _bump(dice, person, hour, name)
        noise = _NOISE[column] * (0.3 + 0.7 * uneven)
        values[:, column] += noise * dice.normal(f"noise {name}", person, hour)
    values[:, 2] = np.minimum(values[:, 2], 100)
    values[:, 5] = np.minimum(values[:, 5], values[:, 4] - 15)
    values = np.round(values * [1, 1, 1, 10, 1, 1]) / [1, 1, 1, 10, 1, 1]
    return np.where(_measured(dice, person, hour, moments), values, np.nan)


def _measured(dice: Dice, person: Ints, hour: Ints, moments: list[Moment]) -> npt.NDArray[np.bool_]:
    """Return which vital signs somebody's devices measured in each hour, (rows, vitals)."""
    kit = dice.uniform("kit", person)
    lost = dice.uniform("lost", person, hour) < LOST
    in_bed = np.array([one.in_bed for one in moments])
    still = np.array([one.activity for one in moments]) < 0.3
    worn = np.array([one.worn for one in moments]) & ~lost & (kit < 0.8)
    mat = in_bed & ~lost & ((kit < 0.6) | (kit >= 0.8))
    by_chance = dice.uniform("spot", person, hour) < BY_CHANCE
    cuff = np.isin(hour % 24, CUFF_HOURS) | by_chance
    thermometer = np.isin(hour % 24, THERMOMETER_HOURS) | by_chance
    return np.column_stack([mat | worn, mat, worn & still, worn | thermometer, cuff, cuff])


def _fall_ill(
    dice: Dice, scenario: Scenario, moments: list[Moment], first: int, hours: int, number: int
) -> float:
    """Bend the moments of one person from some hour on; return the hour of the onset."""
    one = np.array([number], dtype=np.int64)
    pace = float(0.5 + 2.0 * dice.uniform("pace", one)[0])
    strength = float(0.35 + 0.65 * dice.uniform("strength", one)[0])
    length = scenario.lasts_s / HOUR_S * pace
    full = FULL_HOURS[scenario.name] * pace
    if dice.uniform("ill before", one)[0] < ILL_BEFORE:
        begin = math.ceil(1 - full)
    else:
        begin = int(12 + dice.uniform("begin", one)[0] * max(hours - 12 - length, 1))
    assert scenario.bend is not None  # noqa: S101  only such scenarios are recorded
    for hour in range(max(begin, 0), min(hours, int(begin + length) + 1)):
        elapsed_s = (hour - begin) * HOUR_S / pace
        if elapsed_s >= scenario.lasts_s:
            break
        own = moments[first + hour]
        bent = scenario.bend(own, elapsed_s)
        moments[first + hour] = replace(
            bent,
            **{
                name: getattr(own, name) + strength * (getattr(bent, name) - getattr(own, name))
                for name in VITALS
            },
        )
    return float(round(min(begin + full, hours - 1)))


def _bump(dice: Dice, person: Ints, hour: Ints, name: str) -> Floats:
    """Return how strongly something harmless bends a vital sign: nothing most of the time."""
    slot = hour // 3
    happens = dice.uniform("bump", person, slot) < 0.05
    size = dice.uniform("bump size", person, slot)
    part = dice.uniform(f"bump of {name}", person, slot)
    return np.where(happens, size * part, 0.0)

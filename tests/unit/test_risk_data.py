"""Recordings in small: what each reader makes of the files, and who is known in two of them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from models import home
from models.datasets import Dataset, NoData, SamePeople, find, read
from models.evaluate import evaluate, refuse_the_same
from models.examples import examples
from models.features import VITALS

HR, SPO2, TEMP, SBP, DBP, GCS, OXYGEN = (
    VITALS.index(name) for name in ("hr", "spo2", "temp", "sbp", "dbp", "gcs", "oxygen")
)


def sepsis(folder: Path, ids: tuple[str, ...] = ("p1", "p2")) -> Path:
    folder.mkdir()
    hours = 20
    rng = np.random.default_rng(1)
    table = {
        "pid": [one for one in ids for _ in range(hours)],
        "ICULOS": [hour + 1 for _ in ids for hour in range(hours)],
        "SepsisLabel": [
            int(one == ids[0] and 8 <= hour < 18) for one in ids for hour in range(hours)
        ],
        "Age": [70] * hours * len(ids),
        "Gender": [1] * hours * len(ids),
        "FiO2": [np.nan] * hours * len(ids),
    }
    for name in ("HR", "Resp", "O2Sat", "Temp", "SBP", "MAP", "DBP"):
        table[name] = rng.uniform(30, 100, hours * len(ids)).round(1).tolist()
    table["DBP"][0], table["SBP"][0], table["MAP"][0] = np.nan, 120.0, 90.0
    table["HR"][1] = 0.0
    pa.parquet.write_table(pa.table(table), folder / "any-name.parquet")
    return folder


def death(folder: Path) -> Path:
    folder.mkdir()
    rows = [
        (132539, 0, "Age", 54.0), (132539, 0, "Gender", 0.0), (132539, 30, "HR", 80.0),
        (132539, 50, "HR", 90.0), (132539, 61, "HR", -1.0), (132539, 70, "NISysABP", 110.0),
        (132539, 70, "SysABP", 118.0), (132539, 75, "NIDiasABP", 70.0), (132539, 2880, "GCS", 15.0),
        (132540, 0, "Age", 76.0), (132540, 0, "Gender", -1.0), (132540, 90, "FiO2", 0.5),
        (132540, 200, "MechVent", 1.0), (132540, 90, "Temp", -17.8),
    ]  # fmt: skip
    columns = dict(
        zip(
            ("RecordID", "minute", "Parameter", "Value"),
            map(list, zip(*rows, strict=True)),
            strict=True,
        )
    )
    pa.parquet.write_table(pa.table(columns), folder / "measurements_set_b.parquet")
    (folder / "outcomes_set_b.csv").write_text(
        "RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death\n"
        "132540,16,8,8,-1,1\n132539,6,1,5,-1,0\n"
    )
    return folder


def homes(folder: Path, days: int = 40) -> Path:
    folder.mkdir()
    readings = ["patient_id,date,device_type,value,unit"]
    alerts = ["patient_id,date,type"]
    for who in ("00123", "04560"):
        for day in range(1, days):
            date = np.datetime64("2019-04-01") + day
            high = 170 if day % 9 == 4 else 130
            readings.append(f"{who},{date} 09:00:00,Systolic blood pressure,{high},mm[Hg]")
            if high > 160:
                alerts.append(f"{who},{date} 08:20:00,Blood pressure")
    readings.append(f"00123,{np.datetime64('2019-04-01') + 20} 21:30:00,Heart rate,111,beats/min")
    alerts.append(f"04560,{np.datetime64('2019-04-01') + 12} 10:00:00,Agitation")
    (folder / "physiology.csv").write_text("\n".join(readings) + "\n")
    (folder / "labels.csv").write_text("\n".join(alerts) + "\n")
    (folder / "demographics.csv").write_text(
        'patient_id,age,sex\n00123,"(80, 90]",Male\n04560,"(70, 80]",Female\n'
    )
    moves = pa.table(
        {
            "patient_id": ["00123"] * 3,
            "location_name": ["kitchen", "bathroom", "front-door"],
            "date": [np.datetime64("2019-04-05T03:00:00", "us")] * 3,
        }
    )
    pa.parquet.write_table(moves, folder / "activity.parquet")
    return folder


def test_sepsis_recordings_are_known_by_their_columns(tmp_path: Path) -> None:
    (one,) = read(sepsis(tmp_path / "another half"))
    assert (one.question, one.hourly, one.people) == ("sepsis", True, ("p1", "p2"))
    assert one.onset[0] == 14  # the label turns 1 six hours before
    assert np.isnan(one.onset[1])
    assert one.values[0, DBP] == 75  # from the mean pressure
    assert np.isnan(one.values[1, HR])  # no heart at all is a fault
    given = examples(one)
    assert given.y.sum() == 10
    assert given.asked.tolist() == [hour <= 14 + 3 for hour in range(20)] + [True] * 20
    assert not (given.taught & ~given.asked).any()
    assert set(one.hashes) == {"any-name.parquet"}


def test_minutes_become_hours_and_minus_one_is_missing(tmp_path: Path) -> None:
    (one,) = read(death(tmp_path / "set b"))
    assert one.people == ("132539", "132540")
    assert one.outcome.tolist() == [0, 1]
    assert one.values.shape == (96, len(VITALS))
    assert one.values[0, HR] == 85  # the mean of the hour
    assert np.isnan(one.values[1, HR])
    assert one.values[1, SBP] == 118  # from the artery where there is one
    assert one.values[1, DBP] == 70
    assert one.values[47, GCS] == 15
    assert one.values[48 + 1, OXYGEN] == 1
    assert one.values[48 + 3, OXYGEN] == 1
    assert np.isnan(one.values[48:, TEMP]).all()
    assert one.age.tolist() == [54, 76]
    assert one.sex[0] == 0
    assert np.isnan(one.sex[1])


def test_ids_of_digits_stay_what_they_are(tmp_path: Path) -> None:
    (one,) = home.read(homes(tmp_path / "tihm"))
    assert one.people == ("00123", "04560")
    assert one.age.tolist() == [85, 75]


def test_a_reading_of_the_evening_is_answered_the_next_day(tmp_path: Path) -> None:
    (one,) = home.read(homes(tmp_path / "tihm"))
    heart = home.MEASURES.index("Heart rate")
    (row,) = np.flatnonzero(~np.isnan(one.high[:, heart]))
    assert np.datetime64(int(one.day[row]), "D") == np.datetime64("2019-04-22")


def test_nothing_of_a_later_day_and_no_alert_of_the_day_itself_is_known(tmp_path: Path) -> None:
    (one,) = home.read(homes(tmp_path / "tihm"))
    row = 20
    before = home.days(one, "physiology alert", 0).x[: row + 1].copy()
    one.high[row + 1 :] = one.low[row + 1 :] = 999
    one.alerts["physiology alert"][row:] = 1
    after = home.days(one, "physiology alert", 0).x[: row + 1]
    assert np.array_equal(before, after, equal_nan=True)


def test_today_is_known_when_tomorrow_is_asked_about(tmp_path: Path) -> None:
    (one,) = home.read(homes(tmp_path / "tihm"))
    today, tomorrow = (home.days(one, "physiology alert", ahead) for ahead in (0, 1))
    assert np.array_equal(tomorrow.y[:-1], np.where(tomorrow.asked[:-1], today.y[1:], 0))
    assert tomorrow.asked.sum() == len(today.y) - 2
    assert np.array_equal(tomorrow.x[:, tomorrow.names.index("alert today")], today.y)


def test_the_folder_itself_or_those_in_it_are_found(tmp_path: Path) -> None:
    sepsis(tmp_path / "b")
    death(tmp_path / "a")
    assert [path.name for path in find(tmp_path)] == ["a", "b"]
    assert find(tmp_path / "a") == [tmp_path / "a"]
    with pytest.raises(NoData):
        find(tmp_path / "nowhere")


def test_a_folder_of_something_else_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("a,b\n1,2\n")
    assert read(tmp_path) == []
    with pytest.raises(NoData, match="known data set"):
        evaluate(tmp_path)


def test_the_same_people_under_other_ids_are_refused(tmp_path: Path) -> None:
    one: Dataset = read(sepsis(tmp_path / "one"))[0]
    other: Dataset = read(sepsis(tmp_path / "two", ids=("x7", "x8")))[0]
    assert one.people != other.people
    with pytest.raises(SamePeople, match="2 people of two"):
        refuse_the_same([one], [other])


def test_the_same_homes_are_refused(tmp_path: Path) -> None:
    homes(tmp_path / "tihm")
    with pytest.raises(SamePeople, match="residents of tihm"):
        evaluate(tmp_path, tmp_path)


def test_people_without_measurements_are_nobody_in_particular(tmp_path: Path) -> None:
    (one,) = read(death(tmp_path / "few"))
    assert one.fingerprints() == set()

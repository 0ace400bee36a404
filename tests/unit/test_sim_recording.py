"""Column maps: which rows of a CSV or Parquet file become which device's readings."""

import zoneinfo
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet
import pytest

from anxin.errors import SettingError
from anxin.messages import decode_telemetry
from anxin.vitals import MAX_EXTRA
from device_sim.payload import pack
from device_sim.recording import (
    ColumnMap,
    Recording,
    device_id,
    read_map,
    read_recording,
)

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="the development recordings (../shared/data) are not here"
)

needs_zones = pytest.mark.skipif(
    "Asia/Shanghai" not in zoneinfo.available_timezones(),
    reason="this machine has no time zone database",
)

LONG = """patient_id,date,device_type,value,unit
28710,2019-05-13 10:13:45,Body Temperature,36.7,Cel
28710,2019-05-13 10:13:45,Skin Temperature,74.1,Cel
0d5ef,2019-05-13 10:15:00,Systolic blood pressure,127,mm[Hg]
0d5ef,2019-05-13 10:15:00,Diastolic blood pressure,87,mm[Hg]
0d5ef,2019-05-13 10:15:00,Heart rate,78,beats/min
0d5ef,2019-05-13 10:15:00,Heart rate,79,beats/min
0d5ef,2019-05-13 10:15:00,Heart rate,78,beats/min
0d5ef,2019-05-13 10:14:00,Body Temperature,36.3,Cel
0d5ef,2019-05-13 10:16:00,Mood,3,
0d5ef,,Body weight,71,kg
"""


@pytest.fixture
def long_csv(tmp_path: Path) -> Path:
    """Return a file in TIHM's form with its traps: ids of digits, repetitions, gaps."""
    path = tmp_path / "physiology.csv"
    path.write_text(LONG)
    return path


def mapped(**changes: object) -> ColumnMap:
    """Return a small wide map with some of it changed."""
    fields: dict[str, object] = {
        "prefix": "w",
        "person": "id",
        "time": {"column": "at", "unit": "minute"},
        "devices": {"m": {"kind": "oximeter", "fields": {"HR": "hr", "X": "extra.x"}}},
        "missing": [-1],
    }
    return msgspec.convert(fields | changes, ColumnMap)


def readings(recording: Recording) -> dict[str, list[tuple[int, dict[str, object]]]]:
    """Return (time, fields) of each reading by device."""
    return {t.device_id: [(r.ts_ms, r.fields) for r in t.readings] for t in recording.tracks}


def test_rows_of_one_device_and_time_become_one_reading(long_csv: Path) -> None:
    recording = read_recording(long_csv, read_map("tihm", long_csv))
    at = int(datetime(2019, 5, 13, 10, 15, tzinfo=UTC).timestamp() * 1000)
    assert readings(recording) == {
        "tihm-28710-thermometer": [(at - 75_000, {"temp": 36.7, "extra": {"skin_temp": 74.1}})],
        "tihm-0d5ef-cuff": [(at, {"sbp": 127, "dbp": 87, "hr": 78})],
        "tihm-0d5ef-thermometer": [(at - 60_000, {"temp": 36.3})],
    }
    assert (recording.rows, recording.distinct) == (10, 3)


def test_a_value_said_twice_keeps_the_first_and_is_counted(long_csv: Path) -> None:
    recording = read_recording(long_csv, read_map("tihm", long_csv))
    assert (recording.contradicting, recording.repeated) == (1, 1)
    assert recording.timeless == 1
    assert recording.unmapped == {"Mood": 1}


def test_each_reading_names_the_row_that_it_comes_from(long_csv: Path) -> None:
    recording = read_recording(long_csv, read_map("tihm", long_csv))
    rows = {track.device_id: [r.row for r in track.readings] for track in recording.tracks}
    assert rows["tihm-0d5ef-cuff"] == [3]
    assert rows["tihm-0d5ef-thermometer"] == [8]


def test_limits_choose_rows_persons_and_times(long_csv: Path) -> None:
    columns = read_map("tihm", long_csv)
    assert read_recording(long_csv, columns, limit=3).distinct == 2
    assert list(readings(read_recording(long_csv, columns, people=1))) == ["tihm-28710-thermometer"]
    begin = datetime(2019, 5, 13, 10, 15, tzinfo=UTC)
    assert list(readings(read_recording(long_csv, columns, begin=begin))) == ["tihm-0d5ef-cuff"]


def test_wide_parquet_counts_from_a_start_and_skips_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "wide.parquet"
    table = pa.table(
        {
            "id": ["a", "a", "a", "b"],
            "at": pa.array([0, 1, 2, 0], pa.int16()),
            "HR": pa.array([71.5, float("nan"), -1, 36.4], pa.float32()),
            "X": pa.array([None, 2.5, -1, 0], pa.float64()),
        }
    )
    pyarrow.parquet.write_table(table, path)
    time = {"column": "at", "unit": "hour", "start": "2020-01-01T00:00:00+08:00"}
    recording = read_recording(path, mapped(time=time))
    start = int(datetime(2019, 12, 31, 16, tzinfo=UTC).timestamp() * 1000)
    assert readings(recording) == {
        "w-a-m": [(start, {"hr": 71.5}), (start + 3_600_000, {"extra": {"x": 2.5}})],
        "w-b-m": [(start, {"hr": 36.4, "extra": {"x": 0.0}})],
    }


@pytest.mark.parametrize(
    ("time", "cells"),
    [
        ({"column": "at"}, ["2020-06-01T08:00:00+08:00", "2020-06-01T00:00:01Z"]),
        ({"column": "at", "zone": "Asia/Shanghai"}, ["2020-06-01 08:00", "2020-06-01 08:00:01"]),
        ({"column": "at", "format": "%d.%m.%Y %H:%M:%S"},
         ["01.06.2020 00:00:00", "01.06.2020 00:00:01"]),
        ({"column": "at", "unit": "second"}, ["1590969600", "1590969601"]),
        ({"column": "at", "unit": "millisecond"}, ["1590969600000", "1590969601000"]),
    ],
)  # fmt: skip
@needs_zones
def test_times_are_read_in_every_form(tmp_path: Path, time: object, cells: list[str]) -> None:
    path = tmp_path / "times.csv"
    path.write_text("id,at,HR,X\n" + "".join(f"a,{cell},70,1\n" for cell in cells))
    found = [ts for ts, _ in readings(read_recording(path, mapped(time=time)))["w-a-m"]]
    assert found == [1_590_969_600_000, 1_590_969_601_000]


@needs_zones
@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai"])
def test_typed_times_without_a_zone_are_in_the_zone_of_the_map(tmp_path: Path, zone: str) -> None:
    path = tmp_path / "typed.parquet"
    stamps = pa.array([datetime(2020, 6, 1, 8)], pa.timestamp("us"))  # noqa: DTZ001 - as recorded
    pyarrow.parquet.write_table(pa.table({"id": ["a"], "at": stamps, "HR": [70], "X": [1]}), path)
    ((found, _),) = readings(read_recording(path, mapped(time={"column": "at", "zone": zone})))[
        "w-a-m"
    ]
    assert found == 1_590_998_400_000 - (8 * 3_600_000 if zone != "UTC" else 0)


def test_a_factor_turns_units_and_several_columns_name_a_person(tmp_path: Path) -> None:
    path = tmp_path / "scaled.csv"
    path.write_text("ward,bed,at,sugar\n3,07,1,180\n")
    columns = mapped(
        person=["ward", "bed"],
        devices={
            "lab": {
                "kind": "other",
                "fields": {"sugar": {"to": "glucose", "factor": 0.0555}},
            }
        },
    )
    assert readings(read_recording(path, columns)) == {"w-3-07-lab": [(60_000, {"glucose": 9.99})]}


def test_device_ids_follow_from_the_recording_and_never_clash(tmp_path: Path) -> None:
    assert device_id("p", "a b/c", "cuff") == "p-a_b_c-cuff"
    with pytest.raises(SettingError, match="64"):
        device_id("p", "x" * 70, "cuff")
    path = tmp_path / "clash.csv"
    path.write_text("id,at,HR,X\na.b,1,70,1\na b,1,70,1\n")
    with pytest.raises(SettingError, match="same device id"):
        read_recording(path, mapped())


def test_faults_are_told_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(SettingError, match="fits the columns"):
        read_map(None, path)
    with pytest.raises(SettingError, match="no column"):
        read_recording(path, mapped())
    with pytest.raises(SettingError, match="cannot be read"):
        read_recording(tmp_path / "absent.csv", mapped())
    bad = tmp_path / "bad.json"
    bad.write_text('{"prefix": "x", "persn": "y"}')
    with pytest.raises(SettingError, match="not a column map"):
        read_map(str(bad), path)


@pytest.mark.parametrize("name", ["tihm", "physionet2019"])
def test_shipped_maps_use_fields_that_the_platform_keeps(name: str) -> None:
    columns = read_map(name, Path("unused"))
    for device in columns.devices.values():
        targets = [t if isinstance(t, str) else t.to for t in device.fields.values()]
        assert len(set(targets)) == len(targets)
        extra = [target for target in targets if target.startswith("extra.")]
        assert len(extra) <= MAX_EXTRA
        plain = {target: 37 for target in targets if target not in extra}
        nested = {target.removeprefix("extra."): 1.0 for target in extra}
        payload = msgspec.json.encode({"ts": 1, "extra": nested} | plain)
        (one,), reasons = decode_telemetry(payload)
        assert reasons == []
        assert set(one.extra or {}) == set(nested)


@needs_data
def test_tihm_holds_one_reading_per_device_and_time() -> None:
    path = DATA / "tihm" / "physiology.csv"
    recording = read_recording(path, read_map(None, path))
    assert (recording.rows, recording.distinct, len(recording.tracks)) == (11_050, 6_193, 93)
    assert (recording.repeated, recording.contradicting, recording.timeless) == (0, 0, 0)
    assert recording.unmapped == {}
    values = sum(
        len(reading.fields) - ("extra" in reading.fields) + len(reading.fields.get("extra", {}))  # type: ignore[arg-type]  # extra is an object
        for track in recording.tracks
        for reading in track.readings
    )
    assert values == recording.rows
    assert any(track.person == "28710" for track in recording.tracks)


@needs_data
def test_tihm_payloads_are_taken_whole_by_the_platform() -> None:
    path = DATA / "tihm" / "physiology.csv"
    for track in read_recording(path, read_map("tihm", path)).tracks:
        taken = 0
        for payload, count in pack({"ts": r.ts_ms} | r.fields for r in track.readings):
            objects, reasons = decode_telemetry(payload)
            assert (len(objects), reasons) == (count, [])
            taken += count
        assert taken == len(track.readings)


@needs_data
def test_physionet_holds_every_hour_with_a_value_once() -> None:
    path = DATA / "physionet2019_setB" / "hourly.parquet"
    columns = read_map(None, path)
    recording = read_recording(path, columns, people=300)
    table = pyarrow.parquet.read_table(path, columns=sorted(columns.needed)).to_pydict()
    first = set(list(dict.fromkeys(table["pid"]))[:300])
    rows = [row for row, pid in enumerate(table["pid"]) if pid in first]
    distinct = {
        (table["pid"][row], table["ICULOS"][row], key)
        for key, device in columns.devices.items()
        for row in rows
        if any(table[column][row] is not None for column in device.fields)
    }
    assert recording.distinct == len(distinct)
    assert recording.rows == 176_840
    assert (recording.repeated, recording.contradicting) == (0, 0)

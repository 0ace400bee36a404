"""Recordings replayed into a real platform: stored once, unchanged by a repetition, traceable."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest

from device_sim.payload import Fields
from device_sim.recording import Recording, read_map, read_recording
from tests.integration.ingest_alone import IngestAlone, anxin, enrol

DATA = Path(__file__).parents[3] / "shared" / "data"
TIHM = DATA / "tihm" / "physiology.csv"
HOURLY = DATA / "physionet2019_setB" / "hourly.parquet"
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="the development recordings (../shared/data) are not here"
)

EVERYTHING = """
    SELECT count(*), md5(string_agg(md5(t::text), '' ORDER BY device_key, ts)) FROM telemetry t
"""


@pytest.fixture
def ingest(dsn: str, free_port: int, tmp_path: Path) -> Iterator[IngestAlone]:
    """Return a running ingest."""
    with IngestAlone(dsn, free_port, tmp_path / "ingest.log") as running:
        yield running


def enrolled(recording: Recording, dsn: str, ingest: IngestAlone, file: Path) -> list[str]:
    """Enrol the devices of a recording; return the options that name their file."""
    devices = [(track.device_id, track.kind, track.person) for track in recording.tracks]
    enrol(dsn, devices, file, ingest.mqtt)
    return ["--devices", str(file)]


def sent_and_acknowledged(summary: str) -> tuple[int, int]:
    """Return the two counts of the closing line."""
    counts = dict(part.split("=") for part in summary.split() if "=" in part)
    return int(counts["sent"]), int(counts["acknowledged"])


def test_tihm_as_recorded_stores_each_reading_once_and_a_repetition_changes_nothing(
    dsn: str, ingest: IngestAlone, tmp_path: Path
) -> None:
    recording = read_recording(TIHM, read_map("tihm", TIHM))
    options = enrolled(recording, dsn, ingest, tmp_path / "devices.json")
    first = anxin("replay", str(TIHM), *options)
    assert first.returncode == 0, first.stderr
    assert "rows=11050 distinct=6193" in first.stdout
    with psycopg.connect(dsn, autocommit=True) as connection:
        before = connection.execute(EVERYTHING).fetchone()
        assert before is not None
        assert before[0] == recording.distinct
        rows = connection.execute(
            "SELECT d.id, (extract(epoch FROM ts) * 1000)::bigint, seq, temp, sbp, dbp, hr, weight,"
            " extra FROM telemetry JOIN devices d ON d.key = device_key"
        ).fetchall()
        stored = {
            (id_, ts): (seq, present(dict(zip(NAMES, values, strict=True)), extra))
            for id_, ts, seq, *values, extra in rows
        }
        assert stored == {
            (track.device_id, r.ts_ms): (r.row, rounded(r.fields))
            for track in recording.tracks
            for r in track.readings
        }
        again = anxin("replay", str(TIHM), *options)
        assert again.returncode == 0, again.stderr
        assert sent_and_acknowledged(again.stdout) == sent_and_acknowledged(first.stdout)
        assert connection.execute(EVERYTHING).fetchone() == before
        assert connection.execute("SELECT count(*) FROM alarms").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM quarantine").fetchone() == (0,)


NAMES = ("temp", "sbp", "dbp", "hr", "weight")


def present(fields: dict[str, float | None], extra: dict[str, float] | None) -> Fields:
    """Return what a stored row holds in the words of a telemetry object."""
    plain: dict[str, object] = {k: v for k, v in fields.items() if v is not None}
    return rounded(plain | ({"extra": extra} if extra else {}))


def rounded(fields: Fields) -> Fields:
    """Return the fields as single precision keeps them."""
    return {
        name: rounded(value) if isinstance(value, dict) else round(float(str(value)), 3)
        for name, value in fields.items()
    }


def test_tihm_live_raises_alarms_whose_values_stand_in_the_recording(
    dsn: str, ingest: IngestAlone, tmp_path: Path
) -> None:
    recording = read_recording(TIHM, read_map("tihm", TIHM), limit=3_000)
    options = enrolled(recording, dsn, ingest, tmp_path / "devices.json")
    trace = tmp_path / "trace.jsonl"
    options += ["--live", "--speed", "3000000", "--limit", "3000", "--trace", str(trace)]
    done = anxin("replay", str(TIHM), *options)
    assert done.returncode == 0, done.stderr
    sent = {
        (line["device"], line["ts"]): line
        for line in map(msgspec.json.decode, trace.read_bytes().splitlines())
    }
    assert len(sent) == recording.distinct
    lines = TIHM.read_text().splitlines()
    with psycopg.connect(dsn, autocommit=True) as connection:
        stored = connection.execute(
            "SELECT d.id, (extract(epoch FROM ts) * 1000)::bigint, seq FROM telemetry"
            " JOIN devices d ON d.key = device_key"
        ).fetchall()
        alarms = connection.execute(
            "SELECT d.id, a.kind, a.detail FROM alarms a JOIN devices d ON d.key = a.device_key"
        ).fetchall()
    assert {(id_, ts): seq for id_, ts, seq in stored} == {at: x["row"] for at, x in sent.items()}
    assert {"temperature_low", "blood_pressure_high"} <= {kind for _, kind, _ in alarms}
    for device, _, detail in alarms:
        origin = sent[device, detail["at"]]
        assert origin["fields"][detail["metric"]] == pytest.approx(detail["value"], abs=0.001)
        assert lines[origin["row"]].split(",")[0] == device.split("-")[1]


def test_physionet_hours_are_stored_once_per_patient_and_device(
    dsn: str, ingest: IngestAlone, tmp_path: Path
) -> None:
    recording = read_recording(HOURLY, read_map("physionet2019", HOURLY), people=120)
    options = enrolled(recording, dsn, ingest, tmp_path / "devices.json")
    done = anxin("replay", str(HOURLY), "--people", "120", "--protocol", "5", *options)
    assert done.returncode == 0, done.stderr
    assert f"distinct={recording.distinct} " in done.stdout
    with psycopg.connect(dsn, autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM telemetry").fetchone() == (
            recording.distinct,
        )


def test_an_unknown_file_or_a_platform_that_is_away_is_told_in_one_line(tmp_path: Path) -> None:
    wrong = anxin("replay", str(tmp_path / "none.csv"))
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    no_login = anxin("replay", str(TIHM), environ={"ANXIN_DATA_DIR": str(tmp_path)})
    assert no_login.returncode == 2
    assert "ANXIN_ADMIN_PASSWORD" in no_login.stderr

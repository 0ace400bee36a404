"""Provisioning over the real API: made once, mended when half of it is lost, kept private."""

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from device_sim.payload import Fields
from device_sim.provision import Roster, read_roster, write_roster
from tests.conftest import ADMIN_PASSWORD, Running
from tests.integration.ingest_alone import anxin

RECORDING = """patient_id,date,device_type,value,unit
28710,2019-05-13 10:13:45,Body Temperature,36.7,Cel
0d5ef,2019-05-13 10:15:00,Systolic blood pressure,127,mm[Hg]
0d5ef,2019-05-14 10:15:00,Heart rate,78,beats/min
0d5ef,2019-05-15 10:14:00,Body Temperature,36.3,Cel
"""


@pytest.fixture
def platform(start_anxin: Callable[..., Running], dsn: str) -> Running:
    """Return a whole running platform."""
    return start_anxin(environ={"ANXIN_DATABASE": dsn})


def run(platform: Running, *words: str) -> str:
    """Run a command against the platform as its administrator; return what it printed."""
    done = anxin(
        *words,
        "--api",
        platform.url,
        "--mqtt",
        platform.mqtt,
        environ={"ANXIN_ADMIN_PASSWORD": ADMIN_PASSWORD},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def count(dsn: str, table: str) -> int:
    """Return how many rows a table has."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        query = psycopg.sql.SQL("SELECT count(*) FROM {}").format(psycopg.sql.Identifier(table))
        row = connection.execute(query).fetchone()
        return row[0] if row else 0


def whole(dsn: str) -> Fields:
    """Return how much of everything there is."""
    return {name: count(dsn, name) for name in ("places", "residents", "devices", "assignments")}


def test_a_ward_is_made_once_and_mended_when_secrets_are_lost(
    platform: Running, dsn: str, tmp_path: Path
) -> None:
    file = tmp_path / "private" / "devices.json"
    options = ["--devices", str(file), "--residents", "6", "--duration", "2s"]
    assert "residents=6 " in run(platform, "simulate", *options)
    made = whole(dsn)
    assert (made["residents"], made["devices"], made["assignments"]) == (6, 41, 38)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    roster = read_roster(file)

    assert "refused=0" in run(platform, "simulate", *options, "--provision")
    assert read_roster(file) == roster

    write_roster(file, Roster(roster.devices[7:]))
    assert "refused=0" in run(platform, "simulate", *options, "--provision")
    renewed = {device.id: device for device in read_roster(file).devices}
    assert set(renewed) == {device.id for device in roster.devices}
    changed = [device for device in roster.devices if renewed[device.id] != device]
    assert [device.id for device in changed] == [device.id for device in roster.devices[:7]]

    file.unlink()
    assert "refused=0" in run(platform, "simulate", *options)
    assert whole(dsn) == made


def test_a_larger_ward_grows_from_the_smaller_and_keeps_its_secrets(
    platform: Running, dsn: str, tmp_path: Path
) -> None:
    file = tmp_path / "devices.json"
    options = ["--devices", str(file), "--duration", "0"]
    run(platform, "simulate", *options, "--residents", "3")
    small = read_roster(file).devices
    run(platform, "simulate", *options, "--residents", "9")
    large = read_roster(file).devices
    assert set(small) < set(large)
    assert whole(dsn)["residents"] == 9
    again = run(platform, "simulate", *options[:2], "--residents", "3", "--duration", "1s")
    assert "residents=3 " in again
    assert read_roster(file).devices == large


def test_history_belongs_to_the_residents_and_is_shown_to_staff(
    platform: Running, dsn: str, tmp_path: Path
) -> None:
    file = tmp_path / "devices.json"
    options = ["--devices", str(file), "--residents", "3", "--history", "6h", "--duration", "6s"]
    run(platform, "simulate", *options)
    with client(platform) as http:
        (bed, *_) = (d for d in read_roster(file).devices if d.kind == "bed_sensor")
        assert bed.resident is not None
        vitals = http.get(f"/residents/{bed.resident.id}/vitals").raise_for_status().json()
        assert sum(bucket[4] for bucket in vitals["movement"]) >= 6 * 60
    assert count(dsn, "quarantine") == 0
    # Assigned since hours ago and heard for seconds only: that is not silence.
    assert count(dsn, "alarms") == 0


def test_a_recording_belongs_to_its_person_for_the_time_it_covers(
    platform: Running, dsn: str, tmp_path: Path
) -> None:
    recording = tmp_path / "physiology.csv"
    recording.write_text(RECORDING)
    options = [str(recording), "--columns", "tihm", "--devices", str(tmp_path / "devices.json")]
    assert "distinct=4 " in run(platform, "replay", *options)
    with psycopg.connect(dsn, autocommit=True) as connection:
        covered = connection.execute(
            "SELECT d.id, r.name, count(t.ts), bool_or(a.during @> now()) FROM assignments a"
            " JOIN devices d ON d.key = a.device_key JOIN residents r ON r.id = a.resident_id"
            " JOIN telemetry t ON t.device_key = d.key AND a.during @> t.ts"
            " GROUP BY 1, 2 ORDER BY 1"
        ).fetchall()
        assert covered == [
            ("tihm-0d5ef-cuff", "tihm 0d5ef", 2, False),
            ("tihm-0d5ef-thermometer", "tihm 0d5ef", 1, False),
            ("tihm-28710-thermometer", "tihm 28710", 1, False),
        ]
        before = whole(dsn)
        run(platform, "replay", *options, "--provision")
        assert whole(dsn) == before
        assert count(dsn, "telemetry") == 4

        run(platform, "replay", *options, "--live", "--speed", "1000000")
        live = connection.execute(
            "SELECT count(*) FROM assignments a JOIN telemetry t USING (device_key)"
            " WHERE a.during @> t.ts AND a.during @> now() AND t.ts > now() - interval '1 hour'"
        ).fetchone()
        assert live == (4,)


@contextmanager
def client(platform: Running) -> Iterator[httpx.Client]:
    """Give the API as the administrator."""
    with httpx.Client(base_url=f"{platform.url}/api/v1", timeout=30, trust_env=False) as http:
        login = {"username": "admin", "password": ADMIN_PASSWORD}
        token = http.post("/auth/login", json=login).raise_for_status().json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        yield http

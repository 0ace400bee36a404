"""The export of one person holds everything about that person, and nothing of anybody else."""

import asyncio
import csv
import io
import json
import os
import stat
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import pytest_asyncio

from anxin.db import people
from anxin.db.pool import Database
from anxin.db.scope import EVERYTHING
from anxin.db.sessions import hash_token
from anxin.export import archive
from anxin.seal import DataKeys, key_line
from tests.fhir_rules import Fault, check_bundle
from tests.integration.api_world import Api, World, running, settle

KEYS = "\n".join(key_line(kind, datetime.now(UTC)) for kind in ("master", "index"))
CARD, PHONE = "11010519491231002X", "+8613812345678"
HOUR = datetime(2026, 3, 1, 8, tzinfo=UTC)


@pytest_asyncio.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    async with running(await lived_in(dsn), environ={"data_keys": KEYS}) as serving:
        yield serving


async def lived_in(dsn: str) -> World:
    """Return a world in which Anna has a mat with a stream, a cuff, alarms and a relative."""
    world = settle(dsn)
    mat = world.device("mat", "A", "anna", since_days=400)
    cuff = world.device("cuff", "A", "anna", since_days=400)
    world.device("other", "B", "bela", since_days=400)
    world.ask("UPDATE residents SET born = '1949-12-31', sex = 'female', note = 'likes, \"tea\"'"
              " WHERE name = 'anna'")  # fmt: skip
    world.ask(
        "INSERT INTO telemetry (ts, received_at, device_key, hr, rr, presence, extra)"
        " SELECT t, t + interval '1 second', d.key, 60 + extract(minute FROM t)::int, 14.5,"
        "   CASE WHEN extract(minute FROM t) < 30 THEN 2 ELSE 1 END, '{\"snore\": 1}'"
        " FROM devices d, generate_series(%s::timestamptz, %s, interval '20 seconds') AS t"
        " WHERE d.id IN ('mat', 'other')",
        HOUR, HOUR + timedelta(minutes=89),
    )  # fmt: skip
    for minute, sbp, dbp, temp in ((5, 141, 88, None), (25, 139, None, 36.55)):
        world.ask(
            "INSERT INTO telemetry (ts, received_at, device_key, sbp, dbp, temp, consciousness,"
            " oxygen) VALUES (%s, %s, %s, %s, %s, %s, 0, false)",
            HOUR + timedelta(minutes=minute), HOUR, cuff, sbp, dbp, temp,
        )  # fmt: skip
    world.ask(
        "INSERT INTO events (device_key, id, type, ts, received_at, detail)"
        " VALUES (%s, 'e1', 'sos', %s, %s, '{\"button\": 2}')", mat, HOUR, HOUR,
    )  # fmt: skip
    for name, note in (("anna", "水温合适"), ("bela", "foreign")):
        world.ask(
            "INSERT INTO visits (resident_id, kind, at, note) VALUES (%s, 'bath', %s, %s)",
            int(world.ids[name]), HOUR, note,
        )  # fmt: skip
        world.ask(
            "INSERT INTO observations (resident_id, at, consciousness) VALUES (%s, %s, %s)",
            int(world.ids[name]), HOUR, "A" if name == "anna" else "U",
        )  # fmt: skip
    closed = world.alarm("anna", "sos")
    world.alarm("anna", "heart_rate_high", "physiological", 2)
    world.alarm("bela", "fall")
    world.ask("UPDATE alarms SET handling = 'closed', outcome = 'real', closed_at = now()"
              " WHERE id = %s", int(closed))  # fmt: skip
    keys = DataKeys.parse(KEYS)
    async with Database(dsn, size=1) as database:
        id_ = int(world.ids["anna"])
        await people.set_identity(
            database, EVERYTHING, keys, id_, {"id_card": CARD, "phone": PHONE}
        )
        await people.add_relative(
            database, EVERYTHING, keys, id_, name="王小明", relation="子", phone=None, guardian=True
        )
    return world


def opened(content: bytes) -> zipfile.ZipFile:
    """Return a ZIP file whose every entry is as its checksum says."""
    whole = zipfile.ZipFile(io.BytesIO(content))
    assert whole.testzip() is None
    return whole


async def test_everything_of_one_person_and_nothing_of_another(api: Api) -> None:
    answer = await api["supervisor"].get(f"/residents/{api.world.ids['anna']}/export")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["cache-control"] == "no-store"
    whole = opened(answer.content)
    assert whole.namelist() == [
        "README.txt", "person.json", "alarms.json", "events.json", "readings.csv", "fhir.json"
    ]  # fmt: skip
    person = json.loads(whole.read("person.json"))
    assert (person["name"], person["note"]) == ("anna", 'likes, "tea"')
    assert person["identity"] == {"id_card": CARD, "phone": PHONE}
    assert person["relatives"][0]["name"] == "王小明"
    assert person["visits"][0]["note"] == "水温合适"
    assert [one["consciousness"] for one in person["observations"]] == ["A"]
    assert [one["device_id"] for one in person["devices"]] == ["mat", "cuff"]
    assert person["consents"][0]["username"] == "family"
    alarms = json.loads(whole.read("alarms.json"))
    assert [(one["kind"], one["priority"], one["handling"]) for one in alarms] == [
        ("sos", "high", "closed"), ("heart_rate_high", "medium", "open")
    ]  # fmt: skip
    assert alarms[0]["timeline"][0]["change"] == "raised"
    (event,) = json.loads(whole.read("events.json"))
    assert (event["device_id"], event["detail"]) == ("mat", {"button": 2})
    for name in whole.namelist():
        for stranger in (b"bela", b'"other"', b",other,"):
            assert stranger not in whole.read(name), name


async def test_the_table_has_every_reading_with_its_exact_values(api: Api) -> None:
    answer = await api["admin"].get(f"/residents/{api.world.ids['anna']}/export")
    text = opened(answer.content).read("readings.csv").decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    stored = api.world.one(
        "SELECT count(*) FROM telemetry t JOIN devices d ON d.key = t.device_key"
        " WHERE d.id IN ('mat', 'cuff')"
    )
    assert len(rows) == stored == 268 + 2
    cuff = [row for row in rows if row["device"] == "cuff"]
    assert [(row["sbp"], row["dbp"], row["temp"]) for row in cuff] == [
        ("141", "88", ""), ("139", "", "36.55")
    ]  # fmt: skip
    first = rows[0]
    assert (first["time"], first["hr"], first["presence"]) == (
        "2026-03-01T08:00:00.000+00:00", "60", "present"
    )  # fmt: skip
    assert json.loads(first["extra"]) == {"snore": 1}


async def test_the_bundle_is_fhir_and_says_what_was_measured(api: Api) -> None:
    answer = await api["admin"].get(f"/residents/{api.world.ids['anna']}/export")
    resources = check_bundle(json.loads(opened(answer.content).read("fhir.json")))

    def kind(name: str) -> list[dict[str, Any]]:
        return [one for one in resources if one["resourceType"] == name]

    (patient,) = kind("Patient")
    assert {one["value"] for one in patient["identifier"]} == {api.world.ids["anna"], CARD}
    assert (patient["gender"], patient["birthDate"]) == ("female", "1949-12-31")
    assert patient["contact"][0]["name"]["text"] == "王小明"
    assert len(kind("Device")) == 2
    assert {(one["status"], one["code"]["coding"][0]["code"]) for one in kind("Flag")} == {
        ("inactive", "sos"), ("active", "heart_rate_high")
    }  # fmt: skip
    (consent,) = kind("Consent")
    assert consent["status"] == "active"
    observed: dict[str, list[dict[str, Any]]] = {}
    for one in kind("Observation"):
        observed.setdefault(one["code"]["coding"][-1]["code"], []).append(one)
    # A stream is one series an hour, of minute means; the second hour has half of its minutes.
    whole_hour, half_hour = (one["valueSampledData"]["data"].split() for one in observed["hr"])
    assert whole_hour == [str(60 + minute) for minute in range(60)]
    assert half_hour[28:31] == ["88", "89", "E"]
    assert observed["hr"][0]["valueSampledData"]["origin"]["code"] == "/min"
    # What is measured now and then is one each; pressure is one with two parts.
    (pressure,) = observed["85354-9"]
    assert [part["valueQuantity"]["value"] for part in pressure["component"]] == [141, 88]
    assert observed["sbp"][0]["valueQuantity"]["value"] == 139
    assert observed["temp"][0]["valueQuantity"] == {
        "value": 36.55, "unit": "°C", "system": "http://unitsofmeasure.org", "code": "Cel"
    }  # fmt: skip
    # States are told when they change: in bed, out, in, out.
    words = [one["valueCodeableConcept"]["text"] for one in observed["presence"]]
    assert words == ["present", "absent", "present"]
    assert [one["valueBoolean"] for one in observed["oxygen"]] == [False]
    assert observed["consciousness"][0]["code"]["coding"][0]["code"] == "67775-7"


@pytest.mark.parametrize(
    "break_it",
    [
        lambda one: one["Patient"].pop("gender"),
        lambda one: one["Patient"].update(birthDate="31.12.1949"),
        lambda one: one["Observation"].update(status="done"),
        lambda one: one["Observation"].pop("subject"),
        lambda one: one["Observation"].update(valueString="x"),
        lambda one: one["Observation"].update(subject={"reference": "urn:uuid:" + "0" * 36}),
        lambda one: one["Flag"].pop("code"),
        lambda one: one["Flag"]["period"].update(end="2000-01-01T00:00:00Z"),
        lambda one: one["Consent"].pop("policyRule"),
        lambda one: one["Device"].update(id="x"),
    ],
)
async def test_the_rules_notice_a_broken_bundle(api: Api, break_it: Any) -> None:
    answer = await api["admin"].get(f"/residents/{api.world.ids['anna']}/export")
    bundle = json.loads(opened(answer.content).read("fhir.json"))
    check_bundle(bundle)
    break_it({one["resource"]["resourceType"]: one["resource"] for one in bundle["entry"]})
    with pytest.raises(Fault):
        check_bundle(bundle)


async def test_only_who_may_export_gets_it_and_only_of_own_residents(api: Api) -> None:
    path = f"/residents/{api.world.ids['anna']}/export"
    for role, status in (("nurse", 403), ("family", 403), ("integrator", 403), ("nobody", 401)):
        assert (await api[role].get(path)).status_code == status
    foreign = f"/residents/{api.world.ids['bela']}/export"
    assert (await api["supervisor"].get(foreign)).status_code == 404


async def test_who_loses_the_right_on_the_way_gets_no_whole_file(api: Api) -> None:
    world = api.world
    world.ask(
        "INSERT INTO telemetry (ts, received_at, device_key, hr, extra)"
        " SELECT t, t, d.key, 60, jsonb_build_object('x', random(), 'y', random())"
        " FROM devices d, generate_series(%s::timestamptz, %s, interval '1 second') AS t"
        " WHERE d.id = 'mat' ON CONFLICT DO NOTHING",
        HOUR + timedelta(days=1), HOUR + timedelta(days=1, hours=12),
    )  # fmt: skip
    content = bytearray()

    async def download() -> None:
        path = f"/residents/{world.ids['anna']}/export"
        async with api["supervisor"].stream("GET", path) as answer:
            async for part in answer.aiter_raw():
                if not content:
                    query = "DELETE FROM sessions WHERE user_id = %s"
                    world.ask(query, int(world.ids["supervisor"]))
                content.extend(part)

    with pytest.raises(httpx.RemoteProtocolError):
        await download()
    assert content
    with pytest.raises(zipfile.BadZipFile):
        opened(bytes(content))


def test_the_database_refuses_readings_to_who_may_not_export(dsn: str) -> None:
    world = settle(dsn)
    world.device("mat", "A", "anna")
    query = "SELECT * FROM exported_readings(%s, '-infinity', 10)"
    with psycopg.connect(dsn, autocommit=True) as connection:

        def act_as(user: str | None) -> None:
            token = hash_token(world.tokens[user]).hex() if user else ""
            connection.execute("RESET ROLE")
            connection.execute("SELECT set_config('anxin.session', %s, false)", [token])
            connection.execute("SET ROLE anxin_api")

        (assignment,) = connection.execute("SELECT id FROM assignments").fetchone() or (0,)
        for user in ("nurse", "nurse-b", "family", None):
            act_as(user)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(query, [assignment])
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("SELECT * FROM telemetry")
        act_as("supervisor")
        assert connection.execute(query, [assignment]).fetchall() == []


async def test_a_long_life_is_exported_in_little_memory(dsn: str) -> None:
    world = await lived_in(dsn)
    world.ask(
        "INSERT INTO telemetry (ts, received_at, device_key, hr, rr)"
        " SELECT t, t, d.key, 60 + random() * 20, 15"
        " FROM devices d, generate_series(%s::timestamptz, %s, interval '10 seconds') AS t"
        " WHERE d.id = 'mat' ON CONFLICT DO NOTHING",
        HOUR + timedelta(days=1), HOUR + timedelta(days=15),
    )  # fmt: skip
    written = biggest = 0
    async with Database(dsn, size=1) as database:
        tracemalloc.start()
        async for part in archive(
            database, EVERYTHING, DataKeys.parse(KEYS), int(world.ids["anna"]), operator=True
        ):
            written += len(part)
            biggest = max(biggest, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert written > 1_000_000
    assert biggest < 32 << 20


async def test_the_command_writes_a_private_file_once_and_never_over_another(
    dsn: str, data_dir: Path
) -> None:
    world = await lived_in(dsn)
    keys = data_dir / "keys"
    keys.write_text(KEYS, "utf-8")
    target = data_dir / "anna.zip"

    def command(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-P", "-m", "anxin.cli", "export", *words],
            env={"ANXIN_DATABASE": dsn, "ANXIN_DATA_KEYS_FILE": str(keys), "PYTHONPATH": "."},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    done = command("--resident", world.ids["anna"], "--to", str(target))
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert opened(target.read_bytes()).namelist()[-1] == "fhir.json"
    again = command("--resident", world.ids["anna"], "--to", str(target))
    assert (again.returncode, "exists already" in again.stderr) == (1, True)
    missing = command("--resident", "999999", "--to", str(data_dir / "x.zip"))
    assert (missing.returncode, "no resident" in missing.stderr) == (1, True)
    assert sorted(await asyncio.to_thread(os.listdir, data_dir)) == ["anna.zip", "keys"]

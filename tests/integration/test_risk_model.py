"""A learned model in the risk duty: it adds alarms, explains them, and may fail without harm."""

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from anxin.db.pool import as_role
from models import artefacts, deterioration, novelty, risk, tick
from models.artefacts import Card
from models.deterioration import VITALS_AND_AGE
from models.examples import Examples
from models.features import BODY, HOURS, VITALS, features
from models.learned import NAME
from models.risk import Metrics, RiskDuty
from tests.factories import Ward
from tests.integration.test_risk import measure, stored

ZONE = ZoneInfo("Asia/Shanghai")
UNEASY = {"hr": 108, "rr": 20, "spo2": 96, "sbp": 120, "temp": 37.9}
"""One point of NEWS2; a heart that the model below has learned to dread."""


@pytest.fixture
def ward(dsn: str) -> Iterator[Ward]:
    made = Ward(dsn)
    yield made
    made.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a small model that has learned to dread a fast heart."""
    directory = tmp_path_factory.mktemp("artefacts")
    rng = np.random.default_rng(1)
    values = np.full((4000, HOURS, len(VITALS)), np.nan)
    usual = np.array([72.0, 16.0, 97.0, 36.6, 128.0, 74.0])
    values[:, :, :BODY] = usual + rng.normal(0, 1, (4000, 1, BODY))
    values[:, :, 0] += rng.uniform(0, 50, (4000, 1))
    y = (values[:, -1, 0] > 100).astype(np.int64)
    x = features(values, np.full(4000, 80.0), np.ones(4000), np.full((4000, BODY), np.nan))
    number, always = np.arange(4000), np.ones(4000, np.bool_)
    taught = Examples(x, y, number, number, always, always, number % 5)
    card = Card(
        name=NAME, version="", made_at=datetime.now(UTC), sha256="", question="test",
        intended_use="a test", limits=[], data={"made up": {}}, people=4000, events=int(y.sum()),
        hours=4000, split="none", seed=1, versions={}, learner="trees",
        columns=list(VITALS_AND_AGE), slope=1.0, intercept=0.0, thresholds={"0.25": 0.5},
        promised={}, edges=[0.1, 0.9], shares=[0.55, 0.05, 0.4], risk_mean=0.4, metrics=[],
    )  # fmt: skip
    model = deterioration.fit(taught, VITALS_AND_AGE, seeds=1)
    artefacts.keep(directory, card, model, novelty.fit(taught))
    return directory


@pytest.fixture
async def duty(dsn: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RiskDuty]:
    monkeypatch.setattr(risk, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(risk, "WHOLE_SECONDS", 0.0)
    monkeypatch.setattr(tick, "HOLD_S", dict.fromkeys(tick.HOLD_S, 0.0))
    async with made(dsn, folder) as one:
        yield one


def made(dsn: str, folder: Path) -> RiskDuty:
    return RiskDuty(as_role(dsn, "anxin_worker"), ZONE, Metrics(CollectorRegistry()), folder)


def let(ward: Ward, mode: str = "alarming") -> None:
    ward.db.execute("UPDATE model_modes SET mode = %s WHERE model = 'deterioration'", [mode])


async def test_in_the_shadow_it_is_scored_and_alarms_nobody(ward: Ward, duty: RiskDuty) -> None:
    anna = ward.resident()
    ward.device("mat", resident=anna)
    measure(ward, "mat", **UNEASY)
    await duty.tick()
    row = stored(ward, anna)
    assert row["deterioration"] > 0.5
    assert row["novelty"] is not None
    assert "news2+deterioration-" in row["model"]
    assert ward.alarms() == []


async def test_allowed_it_raises_an_alarm_that_says_why(ward: Ward, duty: RiskDuty) -> None:
    anna = ward.resident()
    ward.device("mat", resident=anna)
    let(ward)
    measure(ward, "mat", **UNEASY)
    await duty.tick()
    (alarm,) = ward.alarms()
    assert (alarm["kind"], alarm["priority"]) == ("risk_rising", 2)
    detail = alarm["detail"]
    assert detail["layer"] == "deterioration"
    assert detail["vitals"][0]["name"] == "hr"
    assert detail["vitals"][0]["share"] > 0
    assert "心率 108" in detail["sentence"]["zh"]
    assert "恶化风险" in detail["sentence"]["zh"]
    assert "heart rate 108" in detail["sentence"]["en"]
    await duty.tick()
    measure(ward, "mat", ago="0 s", **UNEASY)
    await duty.tick()
    assert [one["count"] for one in ward.alarms()] == [1], "bundled"


async def test_a_place_may_keep_it_in_the_shadow_where_the_house_lets_it_alarm(
    ward: Ward, duty: RiskDuty
) -> None:
    here, there = ward.resident(), ward.resident()
    other = ward.value("INSERT INTO places (kind, name) VALUES ('facility', 'B') RETURNING id")
    ward.db.execute("UPDATE residents SET place_id = %s WHERE id = %s", [other, there])
    let(ward)
    ward.db.execute(
        "INSERT INTO model_modes (model, place_id, mode, why)"
        " VALUES ('deterioration', %s, 'shadow', 'test')", [other])  # fmt: skip
    for resident in (here, there):
        ward.device(f"mat{resident}", resident=resident)
        measure(ward, f"mat{resident}", **UNEASY)
    await duty.tick()
    assert [one["resident_id"] for one in ward.alarms()] == [here]


@pytest.mark.parametrize("how", ["missing", "damaged", "cut"])
async def test_without_its_model_news2_goes_on_and_it_is_said(
    dsn: str, ward: Ward, folder: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tick, "HOLD_S", dict.fromkeys(tick.HOLD_S, 0.0))
    version = artefacts.versions(folder, NAME)[-1]
    if how != "missing":
        place = tmp_path / NAME / version
        place.mkdir(parents=True)
        for file in (folder / NAME / version).iterdir():
            (place / file.name).write_bytes(file.read_bytes())
        (tmp_path / NAME / "current").write_text(f"{version}\n")
        broken = place / ("model.skops" if how == "damaged" else "card.json")
        broken.write_bytes(broken.read_bytes()[:-9])
    anna = ward.resident()
    ward.device("mat", resident=anna)
    let(ward)
    measure(ward, "mat", **UNEASY | {"rr": 30, "spo2": 90})
    async with made(dsn, tmp_path) as duty:
        await duty.tick()
    (alarm,) = ward.alarms()
    assert (alarm["kind"], alarm["priority"]) == ("early_warning", 3)
    assert stored(ward, anna)["model"] == "news2"
    fault = ward.value("SELECT fault FROM model_states WHERE model = 'deterioration'")
    assert {"missing": "no model", "damaged": "is not the file", "cut": "cannot be read"}[how] in (
        fault
    )


async def test_a_model_that_fails_when_asked_stops_nothing(
    ward: Ward, duty: RiskDuty, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError

    anna = ward.resident()
    ward.device("mat", resident=anna)
    let(ward)
    monkeypatch.setattr(deterioration.Deterioration, "score", fail)
    measure(ward, "mat", **UNEASY | {"rr": 30, "spo2": 90})
    await duty.tick()
    assert [one["kind"] for one in ward.alarms()] == ["early_warning"]
    assert "fails when it is asked" in ward.value(
        "SELECT fault FROM model_states WHERE model = 'deterioration'"
    )


async def test_people_unlike_those_it_learned_from_switch_it_off(
    ward: Ward, duty: RiskDuty
) -> None:
    let(ward)
    ward.db.execute(
        "WITH made AS (INSERT INTO residents (name, place_id)"
        "  SELECT n::text, %s FROM generate_series(1, 600) AS n RETURNING id),"
        " devices_ AS (INSERT INTO devices (id, kind, salt, secret_hash)"
        "  SELECT 'm' || id, 'bed_sensor', 'x', 'x' FROM made RETURNING key, id)"
        " INSERT INTO assignments (device_key, resident_id, during)"
        "  SELECT key, substr(id, 2)::bigint, '(,)' FROM devices_", [ward.place])  # fmt: skip
    values = json.dumps({"hr": 85.0, "rr": 16.0, "spo2": 97.0, "sbp": 128.0, "temp": 36.6})
    everybody = (
        "INSERT INTO latest (device_key, ts, received_at, metrics)"
        " SELECT key, now(), now(), (SELECT jsonb_object_agg(k, jsonb_build_array(v,"
        "  (extract(epoch FROM now()) * 1000)::bigint)) FROM jsonb_each(%s::jsonb) AS x (k, v))"
        " FROM devices ON CONFLICT (device_key) DO UPDATE SET ts = excluded.ts,"
        "  received_at = excluded.received_at, metrics = excluded.metrics"
    )
    ward.db.execute(everybody, [values])
    await duty.tick()
    assert ward.value("SELECT count(*) FROM risk WHERE deterioration IS NOT NULL") == 600
    state = "SELECT state -> 'drift' ->> 'drifted' FROM model_states WHERE model = 'deterioration'"
    assert ward.value(state) == "true"
    ward.db.execute(everybody, [values.replace("85.0", "108.0")])
    await duty.tick()
    assert ward.alarms() == []
    fault = ward.value("SELECT fault FROM model_states WHERE model = 'deterioration'")
    assert "not like those" in fault


async def test_where_it_is_right_less_often_than_news2_it_goes_back_on_trial(
    ward: Ward, duty: RiskDuty
) -> None:
    let(ward)
    residents = [ward.resident() for _ in range(30)]
    ward.db.execute(
        "INSERT INTO alarms (subject, resident_id, kind, class, priority, raised_at, last_at,"
        " event_at, handling, outcome, closed_at)"
        " SELECT 'r' || r || k || n, r, k, 'physiological', 2, now(), now(), now(), 'closed',"
        "  CASE WHEN k = 'early_warning' THEN 'real' ELSE 'false' END, now()"
        " FROM unnest(%s::bigint[]) AS r, generate_series(1, 2) AS n,"
        "  unnest('{early_warning,risk_rising}'::text[]) AS k", [residents])  # fmt: skip
    await duty.tick()
    (mode,) = ward.rows("SELECT * FROM model_modes WHERE place_id IS NOT NULL")
    assert (mode["place_id"], mode["model"], mode["mode"]) == (
        ward.place, "deterioration", "shadow")  # fmt: skip
    assert "0%" in mode["why"]
    assert ward.value("SELECT count(*) FROM audit_waiting WHERE object = 'model'") >= 1

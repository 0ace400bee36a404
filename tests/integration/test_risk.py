"""The risk duty on a real Postgres: what it scores, raises, leaves alone, and hands over."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from prometheus_client import CollectorRegistry

from anxin.db.pool import as_role
from anxin.db.risk_tick import SHARDS
from models import risk, tick
from models.risk import Metrics, RiskDuty
from tests.factories import Ward

ZONE = ZoneInfo("Asia/Shanghai")
SICK: dict[str, Any] = {"hr": 118, "rr": 26, "spo2": 91, "sbp": 98, "temp": 38.6}
"""NEWS2: 2 + 3 + 3 + 2 + 1 = 11 of what is known."""
WELL: dict[str, Any] = {"hr": 70, "rr": 15, "spo2": 97, "sbp": 128, "temp": 36.5}


@pytest.fixture
def ward(dsn: str) -> Iterator[Ward]:
    made = Ward(dsn)
    yield made
    made.close()


@pytest.fixture
async def duty(dsn: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RiskDuty]:
    """Return a duty that looks at every call and lets nothing wait."""
    monkeypatch.setattr(risk, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(tick, "HOLD_S", dict.fromkeys(tick.HOLD_S, 0.0))
    monkeypatch.setattr(tick, "CALM_S", 0.0)
    async with made(dsn) as one:
        yield one


def made(dsn: str) -> RiskDuty:
    return RiskDuty(as_role(dsn, "anxin_worker"), ZONE, Metrics(CollectorRegistry()))


def measure(ward: Ward, device: str, ago: str = "10 s", late: str = "0 s", **values: Any) -> None:
    """Store what a device measured, so long ago and received so much later."""
    ward.db.execute(
        "INSERT INTO latest AS l (device_key, ts, received_at, metrics)"
        " SELECT key, now() - %(ago)s::interval - %(late)s::interval, now() - %(ago)s::interval,"
        "  (SELECT jsonb_object_agg(k, jsonb_build_array(v, (extract(epoch FROM now()"
        "    - %(ago)s::interval - %(late)s::interval) * 1000)::bigint))"
        "   FROM jsonb_each(%(values)s::jsonb) AS x (k, v))"
        " FROM devices WHERE id = %(device)s"
        " ON CONFLICT (device_key) DO UPDATE SET ts = excluded.ts,"
        "  received_at = excluded.received_at, metrics = l.metrics || excluded.metrics",
        {"ago": ago, "late": late, "values": json.dumps(values), "device": device},
    )


def stored(ward: Ward, resident: int) -> dict[str, Any]:
    (row,) = ward.rows("SELECT * FROM risk WHERE resident_id = %s", resident)
    return row


async def test_values_of_several_devices_make_one_score_with_its_bounds(
    ward: Ward, duty: RiskDuty
) -> None:
    anna = ward.resident()
    ward.device("mat", resident=anna)
    ward.device("cuff", "cuff", resident=anna)
    measure(ward, "mat", hr=118, rr=26, presence="present")
    measure(ward, "cuff", ago="3 hours", sbp=98, dbp=60)
    await duty.tick()
    row = stored(ward, anna)
    # rr 3, hr 2, sbp 2; unknown: spo2 3, oxygen 2, consciousness 3, temp 3.
    assert (row["score"], row["possible_max"], row["complete"]) == (7, 18, False)
    assert row["explanation"]["parts"] == {"rr": 3, "hr": 2, "sbp": 2}
    assert sorted(row["explanation"]["missing"]) == ["consciousness", "oxygen", "spo2", "temp"]
    assert len(ward.rows("SELECT * FROM risk_history")) == 1


async def test_certain_points_raise_once_and_recover_when_they_have_fallen(
    ward: Ward, duty: RiskDuty
) -> None:
    anna = ward.resident()
    ward.device("mat", resident=anna)
    measure(ward, "mat", **SICK)
    await duty.tick()
    await duty.tick()
    (alarm,) = ward.alarms()
    assert (alarm["kind"], alarm["class"], alarm["priority"], alarm["count"]) == (
        "early_warning", "physiological", 3, 1)  # fmt: skip
    assert alarm["resident_id"] == anna
    measure(ward, "mat", ago="5 s", **WELL | {"hr": 95})
    measure(ward, "mat", ago="5 s", **WELL | {"hr": 95})
    await duty.tick()
    assert ward.alarms()[0]["condition"] == "recovered"


async def test_a_single_reading_that_stands_is_told_without_another(
    ward: Ward, duty: RiskDuty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tick, "HOLD_S", dict.fromkeys(tick.HOLD_S, 0.2))
    anna = ward.resident()
    ward.device("cuff", "cuff", resident=anna)
    measure(ward, "cuff", **SICK)
    await duty.tick()
    assert ward.alarms() == []
    async with asyncio.timeout(5):
        while not ward.alarms():
            await duty.tick()


async def test_what_staff_observed_completes_the_score_and_a_correction_undoes_it(
    ward: Ward, duty: RiskDuty
) -> None:
    anna = ward.resident()
    ward.device("mat", resident=anna)
    measure(ward, "mat", **WELL)
    first = ward.value(
        "INSERT INTO observations (resident_id, at, consciousness, oxygen)"
        " VALUES (%s, now(), 'V', true) RETURNING id", anna)  # fmt: skip
    await duty.tick()
    row = stored(ward, anna)
    assert (row["score"], row["complete"], row["band"]) == (5, True, "medium")
    ward.rows(
        "INSERT INTO observations (resident_id, at, corrects, consciousness, oxygen)"
        " VALUES (%s, now(), %s, 'A', false) RETURNING id", anna, first)  # fmt: skip
    await duty.tick()
    row = stored(ward, anna)
    assert (row["score"], row["complete"], row["band"]) == (0, True, "low")
    # Taken back altogether, nothing of either line counts: the older one does not come up again.
    ward.rows(
        "INSERT INTO observations (resident_id, at, corrects, withdrawn)"
        " SELECT resident_id, at, id, true FROM observations WHERE corrects = %s RETURNING id",
        first,
    )
    await duty.tick()
    row = stored(ward, anna)
    assert (row["score"], row["possible_max"], row["complete"]) == (0, 5, False)


async def test_a_reading_that_comes_late_raises_nothing(ward: Ward, duty: RiskDuty) -> None:
    anna = ward.resident()
    ward.device("mat", resident=anna)
    measure(ward, "mat", **WELL)
    await duty.tick()
    measure(ward, "mat", ago="1 s", late="11 minutes", sbp=70)
    ward.db.execute("UPDATE latest SET ts = now()")
    await duty.tick()
    assert ward.alarms() == []


async def test_readings_of_another_before_the_device_changed_hands_do_not_count(
    ward: Ward, duty: RiskDuty
) -> None:
    anna = ward.resident()
    ward.device("mat", resident=anna, since="now")
    measure(ward, "mat", ago="1 minute", **SICK)
    await duty.tick()
    assert ward.rows("SELECT * FROM risk") == []


async def test_in_the_shadow_a_score_is_recorded_and_nobody_is_alarmed(
    ward: Ward, duty: RiskDuty
) -> None:
    anna, bela = ward.resident(), ward.resident()
    ward.device("a", resident=anna)
    ward.device("b", resident=bela)
    for device in "ab":
        measure(ward, device, **SICK)
    ward.db.execute("UPDATE model_modes SET mode = 'shadow' WHERE model = 'news2'")
    await duty.tick()
    assert (stored(ward, anna)["score"], stored(ward, anna)["priority"]) == (11, 0)
    assert ward.alarms() == []


async def test_alarms_of_rules_are_the_same_to_the_bit_with_and_without_the_duty(
    ward: Ward, duty: RiskDuty
) -> None:
    anna = ward.resident()
    ward.device("mat", resident=anna)
    measure(ward, "mat", **SICK)
    raised = (
        "SELECT raise_alarm('r' || r.id, r.id, NULL, d.key, k.kind, 'physiological', 2::smallint,"
        " now(), false, 1, '{\"value\": 1}', 'test') FROM residents r, devices d,"
        " unnest('{respiration_high,spo2_low}'::text[]) AS k (kind)"
    )
    ward.rows(raised)
    whole = (
        "SELECT to_jsonb(a) AS a, (SELECT jsonb_agg(to_jsonb(t) - 'cursor' ORDER BY t.id)"
        " FROM timeline t WHERE t.alarm_id = a.id) AS t FROM alarms a"
        " WHERE kind <> 'early_warning' ORDER BY id"
    )
    before = ward.rows(whole)
    for values in (SICK, WELL, SICK):
        measure(ward, "mat", ago="0 s", **values)
        await duty.tick()
    assert ward.value("SELECT count(*) FROM alarms WHERE kind = 'early_warning'") == 1
    assert ward.rows(whole) == before


async def test_readings_of_nobody_known_here_do_no_harm(ward: Ward, duty: RiskDuty) -> None:
    await duty.tick()
    anna = ward.resident()
    ward.device("mat", resident=anna)
    measure(ward, "mat", **SICK)
    duty._whole_at = float("inf")  # who lives here is looked at again later
    assert await duty.tick() == 0
    duty._whole_at = 0.0
    assert await duty.tick() == 1


async def test_a_defect_of_one_look_loses_no_alarm(
    ward: Ward, duty: RiskDuty, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna = ward.resident()
    ward.device("mat", resident=anna)
    measure(ward, "mat", **SICK)
    with monkeypatch.context() as broken:
        broken.setattr(risk, "record", lambda _: 1 / 0)
        await duty.tick()
    assert ward.alarms() == []
    await duty.tick()
    assert [one["kind"] for one in ward.alarms()] == ["early_warning"]


async def test_a_defect_of_the_duty_is_counted_and_ends_no_worker(
    ward: Ward, duty: RiskDuty, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna = ward.resident()
    ward.device("mat", resident=anna)
    measure(ward, "mat", **SICK)
    monkeypatch.setattr(risk, "REST_SECONDS", 0.0)
    with monkeypatch.context() as broken:
        broken.setattr(tick, "take", lambda *_, **__: 1 / 0)
        with pytest.raises(risk.Failed):
            await duty.tick()
    await duty.tick()
    assert [one["kind"] for one in ward.alarms()] == ["early_warning"]


async def test_workers_share_the_shards_and_one_that_dies_is_followed_within_seconds(
    dsn: str, ward: Ward
) -> None:
    async with made(dsn) as one, made(dsn) as other:
        await one.tick()
        assert len(one._mine) == SHARDS
        for _ in range(2):
            await other.tick()
            await one.tick()
        await other.tick()
        assert (len(one._mine), len(other._mine)) == (SHARDS // 2, SHARDS // 2)
        assert not one._mine & other._mine
        residents = [ward.resident() for _ in range(8)]
        for resident in residents:
            ward.device(f"mat{resident}", resident=resident)
            measure(ward, f"mat{resident}", **WELL)
        for duty in (one, other):
            duty._look_at = duty._whole_at = 0.0
            await duty.tick()
        assert ward.value("SELECT count(*) FROM risk") == len(residents)
        ward.rows(
            "SELECT pg_terminate_backend(%s)", await _pid(one))  # fmt: skip

        async with asyncio.timeout(5):
            while len(other._mine) < SHARDS:
                await other.tick()


async def _pid(duty: RiskDuty) -> int:
    connection = duty._store._connection
    assert connection is not None
    return connection.info.backend_pid


async def test_what_is_usual_is_learnt_from_the_means_of_weeks_and_outlives_a_restart(
    dsn: str, ward: Ward, duty: RiskDuty
) -> None:
    anna = ward.resident()
    ward.device("mat", resident=anna, since="2020-01-01")
    ward.db.execute(
        "INSERT INTO hour_rollup (device_key, bucket, hr_n, hr_mean, hr_min, hr_max)"
        " SELECT key, date_trunc('hour', now()) - n * interval '1 hour', 60, 58 + n % 3, 50, 70"
        " FROM devices, generate_series(1, 400) AS n"
    )
    await duty.tick()
    usual = ward.value("SELECT usual FROM baselines")
    assert 58 < usual["hr"]["middle"] < 61
    assert usual["hr"]["low"] < usual["hr"]["middle"] < usual["hr"]["high"]
    async with made(dsn) as again:
        await duty.__aexit__(None, None, None)
        await again.tick()
        assert again._ward.baselines.usual.centre[0, 4, 0] == pytest.approx(59, abs=1)

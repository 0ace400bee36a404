"""Simulated people and their devices: repeatable, plausible, and in the words of the contract."""

from datetime import UTC, datetime
from functools import cache

import msgspec
import numpy as np
import pytest

from anxin.messages import decode_event, decode_state, decode_telemetry
from anxin.vitals import COLUMN, HIGH, LOW
from device_sim.payload import MAX_BYTES, MAX_OBJECTS, pack
from device_sim.person import Population, make_people
from device_sim.provision import Device, Resident
from device_sim.scene import Scene
from device_sim.ward import plan_ward

NOON_S = datetime(2025, 3, 4, 4, tzinfo=UTC).timestamp()  # twelve o'clock in China
DAY_S = 86_400


def devices_of(count: int, seed: int = 1) -> list[Device]:
    """Return the devices of a planned ward, as they would be after provisioning."""
    plan = plan_ward(count, seed)
    residents = {
        p.key: Resident(p.key, p.name, p.born, p.sex, p.care_level) for p in plan.residents
    }
    return [
        Device(d.id, "secret", d.kind, residents[d.resident] if d.resident else None)
        for d in plan.devices
    ]


@cache
def a_day(people: int, seed: int = 5) -> dict[str, np.ndarray]:
    """Return each field over one day from midnight, one row a person, one column a minute."""
    population = Population(make_people(people, seed), seed)
    minutes = NOON_S - DAY_S / 2 + 60.0 * np.arange(1440)
    who = np.repeat(np.arange(people), 1440)
    moments = population.moments(who, np.tile(minutes, people))
    columns = zip(*(msgspec.structs.astuple(moment) for moment in moments), strict=True)
    names = moments[0].__struct_fields__
    return {
        name: np.array(column).reshape(people, 1440)
        for name, column in zip(names, columns, strict=True)
    }


def test_the_same_seed_gives_the_same_people_however_many() -> None:
    assert make_people(200, 7)[:50] == make_people(50, 7)
    assert make_people(50, 7) != make_people(50, 8)


def test_names_are_unlike_each_other() -> None:
    names = [person.name for person in make_people(5_000, 1)]
    assert len(set(names)) == len(names)


def test_a_moment_is_the_same_in_any_order_and_company() -> None:
    people = make_people(20, 3)
    population = Population(people, 3)
    at = NOON_S + 3600.0 * np.arange(20)
    together = population.moments(np.arange(20), at)
    alone = Population(people, 3).moments(np.array([13]), at[13:14])[0]
    backwards = population.moments(np.arange(20)[::-1], at[::-1])[::-1]
    assert together[13] == alone
    assert together == backwards
    assert together != Population(people, 4).moments(np.arange(20), at)


def test_a_day_stays_within_what_healthy_old_people_show() -> None:
    day = a_day(200)
    for name, low, high in (
        ("hr", 51, 118),
        ("rr", 11, 23),
        ("spo2", 92, 100),
        ("temp", 35.5, 37.4),
        ("sbp", 95, 175),
        ("dbp", 40, 110),
        ("movement", 0, 1),
        ("activity", 0, 1),
    ):
        assert low <= day[name].min() <= day[name].max() <= high, name
    assert (day["sbp"] > day["dbp"] + 15).all()


def test_nights_are_slept_in_bed_with_a_slower_heart_and_lower_temperature() -> None:
    day = a_day(200)
    night, afternoon = slice(60, 300), slice(16 * 60, 18 * 60)
    assert day["in_bed"][:, night].mean() > 0.9
    assert day["in_bed"][:, afternoon].mean() < 0.25
    assert (day["hr"][:, night].mean(1) < day["hr"][:, afternoon].mean(1)).mean() > 0.95
    assert (day["temp"][:, night].mean(1) < day["temp"][:, afternoon].mean(1)).all()
    assert (day["sbp"][:, night].mean(1) < day["sbp"][:, afternoon].mean(1)).mean() > 0.9


def test_night_visits_to_the_toilet_end_before_the_rule_about_leaving_the_bed() -> None:
    day = a_day(200)
    night = day["in_bed"][:, : 6 * 60].astype(bool)
    longest = 0
    for row in night:
        out = np.flatnonzero(~row)
        runs = np.split(out, np.flatnonzero(np.diff(out) > 1) + 1)
        longest = max([longest, *map(len, runs)])
    assert 2 <= longest < 15


def test_steps_grow_through_the_day_from_zero_at_midnight() -> None:
    steps = a_day(200)["steps"]
    assert (steps[:, 0] == 0).all()
    assert (np.diff(steps, axis=1) >= 0).all()
    assert 300 < np.median(steps[:, -1]) < 8_000


def test_noise_remembers_the_last_minute_and_forgets_the_last_hours() -> None:
    night = a_day(200)["rr"][:, 60:300]
    night = night - night.mean(1, keepdims=True)

    def correlation(lag: int) -> float:
        return float((night[:, lag:] * night[:, :-lag]).mean() / (night**2).mean())

    assert correlation(1) > 0.5
    assert abs(correlation(90)) < 0.2


def test_two_scenes_of_one_seed_send_the_same_bytes() -> None:
    def first_half_hour(seed: int) -> list[object]:
        scene = Scene(devices_of(12), seed=seed, start_s=NOON_S)
        return [scene.due(NOON_S + second) for second in range(0, 1800, 7)]

    assert first_half_hour(2) == first_half_hour(2)
    assert first_half_hour(2) != first_half_hour(3)


def test_everything_that_devices_say_is_accepted_by_the_platform() -> None:
    scene = Scene(devices_of(36), seed=1, start_s=NOON_S + 6 * 3600)
    seen: dict[str, set[str]] = {}
    for second in range(0, 8 * 3600, 60):
        for message in scene.due(NOON_S + 6 * 3600 + second):
            kind = message.device_id.rpartition("-")[2]
            seen.setdefault(message.topic, set()).add(kind)
            if message.topic == "telemetry":
                objects, reasons = decode_telemetry(message.payload)
                assert len(objects) == 1
                values = np.array([getattr(objects[0], name) for name in COLUMN])
                within = np.isnan(values) | ((values >= LOW) & (values <= HIGH))
                assert within.all(), message
            elif message.topic == "event":
                event, reasons = decode_event(message.payload)
                assert event is not None
                assert event.ts is not None
            else:
                state, reasons = decode_state(message.payload)
                assert state is not None
                assert state.online is True
            assert reasons == []
    assert seen["telemetry"] == {"bed", "watch", "cuff", "thermo", "gateway"}
    assert seen["event"] >= {"bed", "motion"}
    assert seen["state"] >= {"bed", "watch", "button", "cuff", "thermo", "smoke", "door", "gateway"}


def test_time_stamps_of_a_device_strictly_increase() -> None:
    scene = Scene(devices_of(6), seed=1, start_s=NOON_S, rate=400)
    last: dict[str, int] = {}
    for second in range(120):
        for message in scene.due(NOON_S + second):
            if message.topic == "telemetry":
                ts = msgspec.json.decode(message.payload)["ts"]
                assert ts > last.get(message.device_id, 0)
                last[message.device_id] = ts


@pytest.mark.parametrize("rate", [2.0, 50.0, 900.0])
def test_a_wanted_rate_is_kept_over_all_streams(rate: float) -> None:
    scene = Scene(devices_of(9), seed=1, start_s=NOON_S, rate=rate)
    sent = [
        message
        for tick in range(1200)
        for message in scene.due(NOON_S + tick / 20)
        if message.topic == "telemetry"
    ]
    assert len(sent) / 60 == pytest.approx(rate, rel=0.25)


def test_history_comes_in_arrays_that_one_payload_can_hold() -> None:
    scene = Scene(devices_of(3), seed=1, start_s=NOON_S)
    by_device: dict[str, list[int]] = {}
    for message, count in scene.history(2 * DAY_S):
        objects, reasons = decode_telemetry(message.payload)
        assert reasons == []
        assert len(objects) == count <= MAX_OBJECTS
        assert len(message.payload) <= MAX_BYTES
        by_device.setdefault(message.device_id, []).extend(int(str(o.ts)) for o in objects)
    assert all(stamps == sorted(set(stamps)) for stamps in by_device.values())
    assert max(max(stamps) for stamps in by_device.values()) < NOON_S * 1000
    assert len(by_device["sim-0001-bed"]) == 2 * 1440
    assert len(by_device["sim-0001-cuff"]) == 6


def test_packing_loses_nothing_and_keeps_the_order() -> None:
    readings = [{"ts": n, "note": "x" * (n % 300)} for n in range(2_500)]
    payloads = list(pack(readings))
    assert [r for payload, _ in payloads for r in msgspec.json.decode(payload)] == readings
    assert all(len(payload) <= MAX_BYTES for payload, _ in payloads)
    assert sum(count for _, count in payloads) == len(readings)
    assert list(pack([])) == []


def test_a_larger_ward_holds_the_smaller_one() -> None:
    small, large = plan_ward(50, 1), plan_ward(400, 1)
    assert {d.id for d in small.devices} <= {d.id for d in large.devices}
    assert set(small.places) <= set(large.places)
    assert set(small.residents) <= set(large.residents)
    ids = [device.id for device in large.devices]
    assert len(set(ids)) == len(ids)
    keys = {place.key for place in large.places}
    assert all(p.parent is None or p.parent in keys for p in large.places)
    assert all(d.place in keys for d in large.devices)


def test_thirty_six_residents_fill_twenty_four_beds_and_twelve_homes() -> None:
    plan = plan_ward(36, 1)
    kinds = [place.kind for place in plan.places]
    assert (kinds.count("facility"), kinds.count("bed"), kinds.count("home")) == (1, 24, 12)

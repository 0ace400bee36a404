"""Each scenario really crosses its live rule, and people to whom nothing happens cross none."""

import math
from collections.abc import Iterable

import msgspec
import numpy as np
import pytest

from anxin.errors import SettingError
from anxin.messages import Telemetry, decode_object, decode_telemetry
from anxin.rules import EVENT_ALARMS, HIGH, LOW, MEDIUM, SPOT_KINDS, Live, judge
from anxin.vitals import NAMES, PRESENCE
from device_sim.payload import Outgoing
from device_sim.scenarios import SCENARIOS, Appearance, scenario
from device_sim.scene import Scene
from tests.unit.test_sim_people import DAY_S, NOON_S, devices_of

EVENING_S = NOON_S + 11 * 3600  # 23:00 in China
PERSON = 2  # a home care bed, with a door


def play(
    name: str, *, minutes: float, speed: float = 1.0, start_s: float = EVENING_S
) -> tuple[Scene, list[Outgoing]]:
    """Return all that is sent while this scenario happens to one person, and the scene."""
    scene = Scene(devices_of(3), seed=1, start_s=start_s, speed=speed)
    scene.happen(Appearance(scenario(name), PERSON, start_s + 60))
    sent: list[Outgoing] = []
    for second in range(int(minutes * 60)):
        sent += scene.due(start_s + second)
    return scene, sent


def triggered(sent: Iterable[Outgoing], scene: Scene) -> dict[str, int]:
    """Return the highest priority of each alarm kind that the live rules raise for the person."""
    mine = {d.id: d for d in scene.devices if d.resident == scene.residents[PERSON]}
    readings: dict[str, list[Telemetry]] = {}
    for message in sent:
        if message.topic == "telemetry" and message.device_id in mine:
            readings.setdefault(message.device_id, []).append(decode_object(message.payload))
    live, found = Live(), dict[str, int]()
    for device_id, objects in readings.items():
        row = live.add()
        live.spot[row] = mine[device_id].kind in SPOT_KINDS
        for trigger in judge(
            live,
            np.full(len(objects), row),
            np.array([int(str(one.ts)) * 1000 for one in objects]),
            np.array([[getattr(one, name) for name in NAMES] for one in objects]),
            np.array([PRESENCE.index(o.presence) if o.presence else -1 for o in objects]),
            np.ones(len(objects), np.bool_),
        ):
            found[trigger.kind] = max(found.get(trigger.kind, 0), trigger.priority)
    return {kind: priority for kind, priority in found.items() if priority}


def events(sent: Iterable[Outgoing]) -> list[tuple[float, str, str]]:
    """Return (seconds since the scenario began, device, type) of each event of the person."""
    found = []
    for message in sent:
        if message.topic == "event" and message.device_id.startswith("sim-0003-"):
            event = msgspec.json.decode(message.payload)
            at_s = event["ts"] / 1000 - EVENING_S - 60
            found.append((at_s, message.device_id.rpartition("-")[2], event["type"]))
    return found


def test_sos_is_pressed_once_on_the_button() -> None:
    scene, sent = play("sos", minutes=10)
    assert [e for e in events(sent) if e[2] == "sos"] == [(0, "button", "sos")]
    assert EVENT_ALARMS["sos"].priority == HIGH
    assert triggered(sent, scene) == {}


def test_a_fall_is_felt_at_once_and_leaves_the_bed_empty() -> None:
    scene, sent = play("fall", minutes=8)
    assert (0, "watch", "fall") in events(sent)
    assert EVENT_ALARMS["fall"].priority == HIGH
    beds = [decode_object(m.payload) for m in sent if m.device_id == "sim-0003-bed" and
            m.topic == "telemetry"]  # fmt: skip
    assert beds[-1].presence == "absent"
    assert triggered(sent, scene) == {}


@pytest.mark.parametrize("speed", [30.0, 120.0])
def test_fever_raises_high_temperature_and_nothing_else(speed: float) -> None:
    scene, sent = play("fever", minutes=8 * 60 / speed + 2, speed=speed)
    assert triggered(sent, scene) == {"temperature_high": HIGH}


@pytest.mark.parametrize("speed", [30.0, 120.0])
def test_sepsis_crosses_every_vital_rule_and_goes_slowly(speed: float) -> None:
    scene, sent = play("sepsis", minutes=12 * 60 / speed + 2, speed=speed)
    found = triggered(sent, scene)
    assert found["respiration_high"] == HIGH
    assert found["heart_rate_high"] == HIGH
    assert found["temperature_high"] == HIGH
    assert found["spo2_low"] >= MEDIUM
    assert found["blood_pressure_low"] == HIGH
    assert triggered(sent[: len(sent) // 12], scene) == {}


def test_apnea_shows_no_breathing_for_longer_than_the_rule_and_an_event() -> None:
    scene, sent = play("apnea", minutes=11)
    found = triggered(sent, scene)
    assert found["apnea"] == HIGH
    assert found["respiration_low"] == HIGH
    assert sum(kind == "apnea" for _, _, kind in events(sent)) == 6
    bed = [decode_object(m.payload) for m in sent
           if m.device_id == "sim-0003-bed" and m.topic == "telemetry"]  # fmt: skip
    assert sum(one.rr == 0 for one in bed) * 5 >= 6 * 30


def test_night_wandering_leaves_the_bed_for_more_than_fifteen_minutes_at_night() -> None:
    scene, sent = play("night_wandering", minutes=60)
    bed = [decode_object(m.payload) for m in sent
           if m.device_id == "sim-0003-bed" and m.topic == "telemetry"]  # fmt: skip
    gone = [int(str(one.ts)) / 1000 for one in bed if one.presence == "absent"]
    assert gone[-1] - gone[0] > 35 * 60
    assert gone[0] - EVENING_S > 10 * 60  # ten minutes in bed come first
    kinds = [kind for _, _, kind in events(sent)]
    for kind in ("bed_exit", "door_open", "geofence_exit", "geofence_return", "bed_return"):
        assert kind in kinds
    assert kinds.index("bed_exit") < kinds.index("door_open") < kinds.index("geofence_exit")
    assert triggered(sent, scene) == {}


def test_silent_device_loses_only_the_mat_and_for_longer_than_three_minutes() -> None:
    scene, sent = play("silent_device", minutes=14)
    assert scene.cut_off(EVENING_S + 30) == frozenset()
    scene.happen(Appearance(scenario("silent_device"), PERSON, EVENING_S + 60))
    assert scene.cut_off(EVENING_S + 300) == {"sim-0003-bed"}
    bed = [int(str(decode_object(m.payload).ts)) / 1000 for m in sent
           if m.device_id == "sim-0003-bed" and m.topic == "telemetry"]  # fmt: skip
    assert np.diff(bed).max() > 9 * 60
    assert any(m.device_id == "sim-0003-button" for m in sent[len(sent) // 2 :])


def test_flat_battery_passes_both_limits() -> None:
    scene, sent = play("flat_battery", minutes=25)
    assert triggered(sent[: len(sent) * 8 // 25], scene) == {"battery_low": LOW}
    assert triggered(sent, scene) == {"battery_low": MEDIUM}


def test_a_normal_day_of_many_people_raises_nothing() -> None:
    scene = Scene(devices_of(120), seed=4, start_s=NOON_S)
    kinds = {d.id: d.kind for d in scene.devices}
    live, rows = Live(), dict[str, int]()
    for message, _ in scene.history(DAY_S):
        objects, _ = decode_telemetry(message.payload)
        row = rows.setdefault(message.device_id, -1)
        if row < 0:
            row = rows[message.device_id] = live.add()
            live.spot[row] = kinds[message.device_id] in SPOT_KINDS
        triggers = judge(
            live,
            np.full(len(objects), row),
            np.array([int(str(one.ts)) * 1000 for one in objects]),
            np.array([[getattr(one, name) for name in NAMES] for one in objects]),
            np.array([PRESENCE.index(o.presence) if o.presence else -1 for o in objects]),
            np.ones(len(objects), np.bool_),
        )
        assert triggers == [], message.device_id
    assert len(rows) > 400


def test_everybody_who_is_awake_is_seen_to_move_within_four_hours() -> None:
    scene = Scene(devices_of(120), seed=4, start_s=NOON_S + DAY_S / 2)  # the whole day before
    moved: dict[str, list[float]] = {}
    owner = {d.id: d.resident.id for d in scene.devices if d.resident}
    for message, _ in scene.history(DAY_S):
        for one in decode_telemetry(message.payload)[0]:
            if one.movement >= 0.1:  # where the platform sees activity
                at_h = (int(str(one.ts)) / 1000 - NOON_S) / 3600 + 12
                moved.setdefault(owner[message.device_id], []).append(at_h)
    assert len(moved) == 120
    for hours in moved.values():
        waking = [6.0, *sorted(hour for hour in hours if 6 <= hour <= 22), 22.0]
        assert max(np.diff(waking)) < 3.5


def test_scenarios_choose_people_who_have_the_devices() -> None:
    scene = Scene(devices_of(9), seed=1, start_s=NOON_S)
    with_door = scene.cast(frozenset({"door"}), 10)
    assert [scene.residents[person].id for person in with_door] == ["0003", "0006", "0009"]
    assert scene.cast(frozenset({"bed_sensor"}), 2, skip=4) == [4, 5]
    assert scene.cast(frozenset({"scale"}), 1) == []


def test_every_scenario_of_the_contract_exists_and_others_are_refused() -> None:
    assert list(SCENARIOS) == [
        "sos", "fall", "fever", "sepsis", "night_wandering", "apnea", "silent_device",
        "flat_battery", "normal_week",
    ]  # fmt: skip
    assert 6 * DAY_S < scenario("normal_week").history_s < 7 * DAY_S
    with pytest.raises(SettingError, match="sepsis"):
        scenario("flood")


def test_readings_are_absent_where_they_could_not_be_taken() -> None:
    scene = Scene(devices_of(30), seed=1, start_s=NOON_S)
    beds = [one for message, _ in scene.history(DAY_S) if message.device_id.endswith("-bed")
            for one in decode_telemetry(message.payload)[0]]  # fmt: skip
    assert all(math.isnan(one.hr) for one in beds if one.presence == "absent")
    lying = [one for one in beds if one.presence == "present"]
    missing = sum(math.isnan(one.hr) for one in lying) / len(lying)
    assert 0.005 < missing < 0.1

"""The pure part of the risk duty: merging, ages, one look at many, and what stands for how long."""

import numpy as np
import pytest

from models import tick
from models.policy import LAYERS, MODES
from models.tick import SIGNS, VITALS, Heard, Ward

NOW = 1_800_000_000.0
ALARMING = np.full((len(LAYERS), 1), MODES.index("alarming"), np.int8)
SICK = {"hr": 118, "rr": 26, "spo2": 91, "sbp": 98, "temp": 38.6}
WELL = {"hr": 70, "rr": 15, "spo2": 97, "sbp": 128, "temp": 36.5}


def ward(rows: int = 1) -> Ward:
    number = np.arange(1, rows + 1, dtype=np.int64)
    return Ward(
        number, number, number, np.zeros(rows, np.bool_), np.full(rows, 80.0), np.ones(rows)
    )


def heard(
    values: dict[str, float], *, device: int = 1, resident: int = 1, age_s: float = 5.0,
    late_s: float = 0.0, since_s: float = -np.inf,
) -> Heard:  # fmt: skip
    at = NOW - age_s
    value, at_s = np.full((len(SIGNS), 1), np.nan), np.full((len(SIGNS), 1), np.nan)
    for name, one in values.items():
        value[SIGNS.index(name)], at_s[SIGNS.index(name)] = one, at
    return Heard(
        np.array([device]), np.array([resident]), np.array([at]), np.array([at + late_s]),
        np.array([since_s]), np.array([2]), value, at_s,
    )  # fmt: skip


def test_the_newest_of_several_devices_counts_whichever_comes_first() -> None:
    for order in ((1, 2), (2, 1)):
        one = ward()
        for device in order:
            age = {1: 30.0, 2: 5.0}[device]
            told = heard({"hr": 60.0 + device}, device=device, age_s=age)
            tick.take(one, told, loading=False)
        assert one.value[SIGNS.index("hr"), 0] == 62


def test_what_was_told_before_is_no_news() -> None:
    one = ward()
    assert tick.take(one, heard(WELL), loading=False)[0].tolist() == [0]
    assert tick.take(one, heard(WELL), loading=False)[0].tolist() == []


def test_strangers_and_readings_of_before_the_assignment_are_left_out() -> None:
    one = ward()
    assert not len(tick.take(one, heard(WELL, resident=7), loading=False)[0])
    assert not len(tick.take(one, heard(WELL, since_s=NOW), loading=False)[0])


@pytest.mark.parametrize(("late_s", "taken"), [(599.0, True), (601.0, False)])
def test_ten_minutes_late_is_history(late_s: float, taken: bool) -> None:
    one = ward()
    rows, _ = tick.take(one, heard(WELL, late_s=late_s), loading=False)
    assert bool(len(rows)) is taken


def test_a_value_that_no_sensor_can_mean_is_set_aside_and_the_others_are_kept() -> None:
    one = ward()
    rows, findings = tick.take(one, heard({"hr": 255, "rr": 15}), loading=False)
    assert rows.tolist() == [0]
    assert [(found.metric, found.reason) for found in findings] == [("hr", "no_value")]
    assert np.isnan(one.value[SIGNS.index("hr"), 0])
    assert one.value[SIGNS.index("rr"), 0] == 15


def test_a_nurses_pulse_stands_for_an_hour_and_a_newer_reading_goes_before_it() -> None:
    one = ward()
    line = dict.fromkeys(SIGNS) | {"resident_id": 1, "at": NOW - 1800, "hr": 120.0}
    assert tick.observe(one, [line]).tolist() == [0]
    assert tick.observe(one, [line]).tolist() == []
    rows = np.array([0])
    assert tick.judge(one, rows, NOW, 12.0).news2.score[0] == 2
    assert tick.judge(one, rows, NOW + 1801, 12.0).news2.score[0] == 0
    tick.take(one, heard({"hr": 70.0}), loading=False)
    assert tick.judge(one, rows, NOW, 12.0).news2.score[0] == 0


def test_what_nobody_took_back_is_gone_with_the_line_that_held_it() -> None:
    one = ward()
    line = dict.fromkeys(SIGNS) | {"resident_id": 1, "at": NOW, "consciousness": 1}
    tick.observe(one, [line])
    assert tick.judge(one, np.array([0]), NOW, 12.0).news2.score[0] == 3
    nothing = dict.fromkeys(SIGNS) | {"resident_id": 1, "at": None}
    assert tick.observe(one, [nothing]).tolist() == [0]
    assert tick.judge(one, np.array([0]), NOW, 12.0).news2.score[0] == 0


def decide(one: Ward, now_s: float, rules: int = 0) -> tuple[int, bool]:
    judged = tick.judge(one, np.array([0]), now_s, 12.0)
    found = tick.decide(one, judged, (), np.array([rules], np.int8), ALARMING)
    return int(found.priority[0]), bool(found.tell[0])


def test_a_score_is_told_once_it_has_stood_and_only_once() -> None:
    one = ward()
    tick.take(one, heard(SICK), loading=False)
    assert decide(one, NOW) == (0, False)
    assert decide(one, NOW + 15) == (0, False)
    assert decide(one, NOW + 30) == (3, True)
    assert decide(one, NOW + 45) == (3, False)


def test_a_spike_between_two_looks_is_nothing() -> None:
    one = ward()
    tick.take(one, heard(SICK), loading=False)
    decide(one, NOW)
    tick.take(one, heard(WELL, age_s=-10), loading=False)
    decide(one, NOW + 15)
    tick.take(one, heard(SICK, age_s=-25), loading=False)
    assert decide(one, NOW + 30) == (0, False)


def test_a_parameter_that_is_no_longer_known_has_not_got_better() -> None:
    one = ward()
    tick.take(one, heard(SICK), loading=False)
    for after in (0, 30):
        decide(one, NOW + after)
    news2 = LAYERS.index("news2")
    # Breathing, pulse and oxygen are too old after a quarter of an hour: nothing is known of them.
    decide(one, NOW + 1000)
    assert not tick.recovered(one, news2, 0, NOW + 10_000)
    tick.take(one, heard(WELL, age_s=-1000), loading=False)
    decide(one, NOW + 1001)
    assert not tick.recovered(one, news2, 0, NOW + 1300)
    assert tick.recovered(one, news2, 0, NOW + 1001 + 600)


def test_the_ring_moves_with_the_hours_and_forgets_what_fell_out() -> None:
    one = ward()
    one.ring_hour = 1000
    one.fill(np.array([1, 1, 1]), np.array([999, 980, 900]), np.full((len(VITALS), 3), 7.0))
    assert (~np.isnan(one.ring[:, 0, 0])).sum() == 2
    assert one.turn(1002 * 3600.0)
    assert one.ring[tick.HOURS - 4, 0, 0] == 7
    assert one.ring[1, 0, 0] == 7
    assert not one.turn(1002 * 3600.0 + 60)
    assert one.turn(1100 * 3600.0)
    assert np.isnan(one.ring).all()


def test_who_stays_keeps_everything_and_who_comes_starts_with_nothing() -> None:
    one = ward(3)
    tick.take(one, heard(SICK, resident=2), loading=False)
    one.told.priority[1] = 3
    number = np.array([2, 3, 9])
    now = one.follow_members(
        Ward(number, number, number, np.zeros(3, np.bool_), np.ones(3), np.ones(3))
    )
    assert now.value[0].tolist()[0] == SICK["hr"]
    assert np.isnan(now.value[0, 1:]).all()
    assert now.told.priority.tolist() == [3, 0, 0]


def test_who_is_looked_at_together_changes_nobodys_score() -> None:
    several = ward(50)
    rng = np.random.default_rng(1)
    for resident in range(1, 51):
        values = {name: float(rng.integers(15, 120)) for name in ("hr", "rr", "spo2", "sbp")}
        tick.take(several, heard(values, device=resident, resident=resident), loading=False)
    together = tick.judge(several, np.arange(50), NOW, 12.0).news2.score
    shuffled = rng.permutation(50)
    alone = tick.judge(several, shuffled, NOW, 12.0).news2.score
    assert together[shuffled].tolist() == alone.tolist()


def test_an_explanation_names_the_value_its_usual_and_what_is_missing() -> None:
    one = ward()
    one.baselines.usual.hours[:] = 500
    one.baselines.usual.centre[1] = 16.0
    one.baselines.usual.spread[1] = 1.0
    tick.take(one, heard({"rr": 26.0}), loading=False)
    one.ring[tick.HOURS - 1 - tick.CHANGE_HOURS, 1, 0] = 18.0
    judged = tick.judge(one, np.array([0]), NOW, 12.0)
    found = tick.explained(one, judged, 0, model="news2")
    assert found.parts == {"rr": 3}
    breathing = found.vitals[0]
    assert (breathing.name, breathing.value, breathing.change) == ("rr", 26.0, 8.0)
    assert breathing.usual == pytest.approx(16.0, abs=0.5)
    assert breathing.z is not None
    assert breathing.z > 5
    assert "temp" in found.missing

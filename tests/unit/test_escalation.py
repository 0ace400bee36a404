"""Ladders and rosters: who is due, who is reached, and what the linter refuses."""

from datetime import UTC, datetime, timedelta

import pytest

from anxin.escalation import (
    DEFAULT_LADDERS,
    HIGH,
    LOW,
    MEDIUM,
    Contact,
    Ladder,
    People,
    Plan,
    Shift,
    Staff,
    Step,
    Timer,
    Where,
    ladder_for,
    lint,
    on_duty,
    plan,
    reached,
)

NOW = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
ROOM, FACILITY, TOWN = 9, 5, 1
WHERE = Where((ROOM, FACILITY, TOWN))
HOUR = timedelta(hours=1)


def shift(user: int, post: str, begins: float = -1, ends: float = 8, *, place: int = FACILITY,
          instead_of: int | None = None) -> Shift:  # fmt: skip
    return Shift(place, user, post, NOW + begins * HOUR, NOW + ends * HOUR, instead_of)


def timer(**more: object) -> Timer:
    values: dict[str, object] = {
        "alarm_id": 7, "round": 1, "ladder_priority": HIGH, "began_at": NOW, "next_step": 0,
        "due_at": NOW, "lease_until": None, "priority": HIGH, **more,
    }  # fmt: skip
    return Timer(**values)  # type: ignore[arg-type]  # a test's own shorthand


def climbed(made: Plan | None) -> set[tuple[int, str]]:
    assert made is not None
    return {(one.step, one.audience) for one in made.deliveries}


def test_every_default_ladder_is_in_order_and_begins_at_once_on_the_wall() -> None:
    for priority, ladder in DEFAULT_LADDERS.items():
        assert ladder.priority == priority
        assert ladder.steps[0] == Step(0, "wall", ("station",))
        times = [step.after_seconds for step in ladder.steps]
        assert times == sorted(times)
    assert [step.audience for step in DEFAULT_LADDERS[LOW].steps] == ["wall"]


def test_who_is_on_duty_is_found_at_the_nearest_place_with_somebody_on_the_post() -> None:
    people = People(
        (shift(1, "first"), shift(2, "first", place=TOWN), shift(3, "second", place=TOWN))
    )
    assert on_duty("first", WHERE.places, people, NOW) == (1,)
    assert on_duty("second", WHERE.places, people, NOW) == (3,)


def test_during_a_hand_over_both_shifts_are_on_duty_and_a_shift_ends_sharply() -> None:
    people = People((shift(1, "first", -8, 0.25), shift(2, "first", 0, 8)))
    assert on_duty("first", WHERE.places, people, NOW) == (1, 2)
    assert on_duty("first", WHERE.places, people, NOW + 0.25 * HOUR) == (2,)


def test_a_stand_in_takes_the_post_for_the_time_of_the_stand_in() -> None:
    people = People((shift(1, "first", -1, 8), shift(2, "first", 0, 2, instead_of=1)))
    assert on_duty("first", WHERE.places, people, NOW) == (2,)
    assert on_duty("first", WHERE.places, people, NOW + 3 * HOUR) == (1,)


def test_without_any_roster_the_staff_is_on_duty_and_with_one_a_gap_is_a_gap() -> None:
    staff = (Staff(1, FACILITY, "nurse"), Staff(2, FACILITY, "supervisor"), Staff(3, TOWN, "nurse"))
    assert on_duty("first", WHERE.places, People(staff=staff), NOW) == (1,)
    rostered = People((shift(4, "first", 1, 2),), staff=staff)
    assert on_duty("first", WHERE.places, rostered, NOW) == ()
    assert on_duty("supervisor", WHERE.places, rostered, NOW) == (2,)


def test_a_way_stands_for_the_first_contact_of_its_channels() -> None:
    people = People(
        (shift(1, "first"),),
        (Contact(11, "tencent_sms", 1), Contact(12, "aliyun_sms", 1), Contact(13, "voice", 2)),
    )
    ways = reached(Step(60, "first", ("phone", "sms")), WHERE, people, NOW)
    assert [(way.user_id, way.contact_id, way.channel) for way in ways] == [(1, 12, "aliyun_sms")]


def test_the_rescue_point_is_told_of_home_beds_only() -> None:
    people = People(contacts=(Contact(1, "voice", place_id=TOWN, office="rescue_point"),))
    step = Step(120, "rescue_point", ("phone",))
    assert reached(step, WHERE, people, NOW) == ()
    assert len(reached(step, Where(WHERE.places, at_home=True), people, NOW)) == 1


def test_a_ladder_holds_for_its_minutes_and_through_midnight() -> None:
    night = Ladder(HIGH, 600, (Step(0, "wall", ("station",)),), 22 * 60, 6 * 60, FACILITY)
    assert ladder_for([night], WHERE.places, HIGH, 23 * 60) is night
    assert ladder_for([night], WHERE.places, HIGH, 5 * 60 + 59) is night
    assert ladder_for([night], WHERE.places, HIGH, 6 * 60) is DEFAULT_LADDERS[HIGH]
    assert ladder_for([night], WHERE.places, MEDIUM, 0) is DEFAULT_LADDERS[MEDIUM]


def test_an_own_ladder_without_steps_never_replaces_the_default() -> None:
    empty = Ladder(HIGH, 600, (), place_id=FACILITY)
    assert ladder_for([empty], WHERE.places, HIGH, 0) is DEFAULT_LADDERS[HIGH]


@pytest.mark.parametrize(("after", "rung"), [(0, {0, 1}), (29, {0, 1}), (30, {0, 1, 2})])
def test_a_worker_that_comes_late_makes_up_for_every_rung(after: int, rung: set[int]) -> None:
    people = People((shift(1, "first"), shift(2, "second")))
    made = plan(timer(), DEFAULT_LADDERS[HIGH], WHERE, people, NOW + timedelta(seconds=after))
    assert {step for step, _ in climbed(made)} == rung


def test_nothing_is_planned_before_its_time() -> None:
    people = People((shift(1, "first"),))
    later = timer(due_at=NOW + timedelta(seconds=1))
    assert plan(later, DEFAULT_LADDERS[HIGH], WHERE, people, NOW) is None
    leased = timer(due_at=None, lease_until=NOW + timedelta(seconds=1))
    assert plan(leased, DEFAULT_LADDERS[HIGH], WHERE, people, NOW) is None


def test_a_step_called_forward_is_made_now_and_the_next_keeps_its_time() -> None:
    people = People((shift(1, "first"), shift(2, "second")))
    made = plan(timer(next_step=2), DEFAULT_LADDERS[HIGH], WHERE, people, NOW)
    assert climbed(made) == {(2, "second")}
    assert made is not None
    assert made.to_due_at == NOW + timedelta(seconds=60)


def test_a_ladder_that_reaches_nobody_says_so_once_and_begins_again_later() -> None:
    rostered = People((shift(1, "second", -5, -4),))
    made = plan(timer(), DEFAULT_LADDERS[HIGH], WHERE, rostered, NOW)
    assert made is not None
    assert made.nobody
    assert climbed(made) == {(0, "wall")}
    assert made.to_due_at == NOW + timedelta(seconds=600)
    again = timer(next_step=made.to_step, due_at=made.to_due_at)
    made = plan(again, DEFAULT_LADDERS[HIGH], WHERE, rostered, NOW + timedelta(seconds=600))
    assert made is not None
    assert made.to_round == 2


def test_the_end_of_a_ladder_that_reached_somebody_before_is_not_nobody() -> None:
    people = People((shift(1, "first"),))
    made = plan(timer(next_step=9), DEFAULT_LADDERS[HIGH], WHERE, people, NOW)
    assert made is not None
    assert not made.nobody


def test_keys_name_alarm_round_step_audience_target_and_channel() -> None:
    people = People((shift(1, "first"),))
    made = plan(timer(), DEFAULT_LADDERS[HIGH], WHERE, people, NOW)
    assert made is not None
    assert [one.key for one in made.deliveries] == ["7:1:0:wall::station", "7:1:1:first:u1:station"]


def codes(ladder: Ladder, people: People, where: Where = WHERE) -> list[str]:
    return [fault.code for fault in lint(ladder, where, people, NOW)]


ALWAYS = People((shift(1, "first", -1, 200), shift(2, "second", -1, 200)))


def test_the_linter_accepts_a_ladder_whose_steps_always_reach_somebody() -> None:
    steps = (Step(0, "wall", ("station",)), Step(0, "first", ("station",)),
             Step(30, "second", ("station",)))  # fmt: skip
    assert codes(Ladder(HIGH, 600, steps), ALWAYS) == []


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ((), "empty"),
        ((Step(10, "first", ("station",)),), "late_start"),
        ((Step(0, "first", ("station",)), Step(60, "second", ("station",)),
          Step(30, "first", ("station",))), "order"),
        ((Step(0, "neighbour", ("station",)),), "unknown_audience"),
        ((Step(0, "first", ("pigeon",)),), "unknown_channel"),
        ((Step(0, "first", ()),), "unknown_channel"),
        ((Step(0, "first", ("phone",)),), "nobody"),
        ((Step(0, "robot", ("robot",)),), "nobody"),
    ],
)  # fmt: skip
def test_the_linter_refuses_what_cannot_be_relied_on(steps: tuple[Step, ...], code: str) -> None:
    assert codes(Ladder(HIGH, 600, steps), ALWAYS) == [code]


def test_the_linter_names_the_gap_of_a_single_minute_and_a_stand_in_closes_it() -> None:
    minute = 1 / 60
    people = (shift(1, "first", -1, 24), shift(2, "first", 24 + minute, 200))
    ladder = Ladder(HIGH, 600, (Step(0, "first", ("station",)),))
    [fault] = lint(ladder, WHERE, People(people), NOW)
    assert (fault.code, fault.since, fault.until) == (
        "nobody", NOW + 24 * HOUR, NOW + (24 + minute) * HOUR,
    )  # fmt: skip
    assert "03-03 08:00" in fault.zh
    assert "03-03 08:00" in fault.en
    closed = (*people, shift(3, "first", 23, 25))
    assert lint(ladder, WHERE, People(closed), NOW) == []


def test_a_stand_in_who_is_the_only_one_absent_leaves_a_gap() -> None:
    people = People((shift(1, "first", -1, 200), shift(2, "second", 5, 6, instead_of=1)))
    ladder = Ladder(HIGH, 600, (Step(0, "first", ("station",)),))
    [fault] = lint(ladder, WHERE, people, NOW)
    assert (fault.since, fault.until) == (NOW + 5 * HOUR, NOW + 6 * HOUR)

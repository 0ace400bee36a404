"""The comparison of what people saw and were told: every claim must be able to fail."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from chaos.faults import CATALOGUE, CLOCKS, FULL_DISK, Fault, Injected, plan
from chaos.notices import Told
from chaos.report import BEGIN, END, Run, placed, report
from chaos.staff import Person
from chaos.telling import Alarm, Change, Delivery, Record, judge_telling, lateness
from chaos.verdict import Line
from chaos.viewer import Frame, Sight

T0 = datetime(2026, 1, 1, tzinfo=UTC)
A, B = "/1/", "/2/"
NURSE_A = Person("nurse-a", "first", A)
SECOND_A = Person("second-a", "second", A)
SUPERVISOR_A = Person("supervisor-a", "supervisor", A)
NURSE_B = Person("nurse-b", "first", B)
RELATIVE = Person("relative", "family", None, frozenset({7}))


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@dataclass
class World:
    """Alarm 1 of resident 7 in A climbs the whole ladder; alarm 2 of A is taken after 2 s."""

    record: Record = field(default_factory=Record)
    sights: dict[str, Sight] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    faults: list[Injected] = field(default_factory=list)
    ended_at: datetime = T0 + timedelta(seconds=60)

    def verdict(self) -> list[Line]:
        return judge_telling(
            self.record, list(self.sights.values()), self.told, self.faults, self.ended_at
        )

    def faulty(self) -> list[str]:
        return [one.claim for one in self.verdict() if one.faults]

    def deliver(self, alarm: str, step: int, audience: str, name: str, after: float) -> None:
        """Let a step be taken and its notice come a moment later."""
        channel = "webhook" if name else "station"
        key = f"{alarm}:1:{step}:{audience}:{name}:{channel}"
        self.record.deliveries.append(
            Delivery(key, alarm, 1, step, audience, name, channel, "sent", at(after))
        )
        if name:
            self.told.append(Told(name, (alarm,), key, at(after + 0.1)))

    def postpone(self, alarm: str, step: int, seconds: float) -> None:
        """Let a step be taken so much later than it was."""
        self.record.deliveries = [
            replace(one, created_at=one.created_at + timedelta(seconds=seconds))
            if (one.alarm_id, one.step) == (alarm, step)
            else one
            for one in self.record.deliveries
        ]


@pytest.fixture
def world() -> World:
    world = World()
    record = world.record
    record.alarms["1"] = Alarm("1", "sos", A, 7, at(0), "open", False, True)
    record.alarms["2"] = Alarm("2", "sos", A, 8, at(10), "acknowledged", True, True)
    record.changes += [
        Change(1, "1", "raised", "device", at(0)),
        Change(2, "2", "raised", "device", at(10)),
        Change(3, "2", "acknowledged", "nurse-a", at(12)),
    ]
    for alarm, start in (("1", 0), ("2", 10)):
        world.deliver(alarm, 0, "wall", "", start + 0.1)
        world.deliver(alarm, 1, "first", "nurse-a", start + 0.1)
    world.deliver("1", 2, "second", "second-a", 3.2)
    world.deliver("1", 3, "supervisor", "supervisor-a", 6.1)
    for person in (NURSE_A, SECOND_A, SUPERVISOR_A, NURSE_B, RELATIVE):
        sight = world.sights[person.name] = Sight(person, begins_after=0)
        for change in record.changes:
            alarm = record.alarms[change.alarm_id]
            if person.may_see(alarm.path, alarm.resident_id):
                sight.frames.append(
                    Frame(change.cursor or 0, change.change, change.alarm_id, change.at)
                )
    world.sights["nurse-a"].taken["2"] = at(12)
    return world


def test_a_kept_promise_has_no_fault(world: World) -> None:
    assert world.faulty() == []
    assert lateness(world.record, []) == pytest.approx([0.1, 0.1, 0.2, 0.1, 0.1, 0.1])


def miss_a_frame(world: World) -> None:
    del world.sights["nurse-a"].frames[1]


def never_open_the_stream(world: World) -> None:
    world.sights["nurse-b"].begins_after = None


def see_a_frame_twice(world: World) -> None:
    frames = world.sights["nurse-a"].frames
    frames.insert(1, frames[0])


def see_frames_out_of_order(world: World) -> None:
    world.sights["nurse-a"].frames.reverse()


def see_an_alarm_of_others(world: World) -> None:
    world.sights["nurse-b"].frames.append(Frame(1, "raised", "1", at(1)))


def see_an_unconsented_resident(world: World) -> None:
    world.sights["relative"].frames.append(Frame(2, "raised", "2", at(11)))


def see_another_change(world: World) -> None:
    frames = world.sights["nurse-a"].frames
    frames[0] = replace(frames[0], change="closed")


def start_over(world: World) -> None:
    world.sights["nurse-a"].resyncs = 1


def tell_a_stranger(world: World) -> None:
    world.told[0] = replace(world.told[0], name="nurse-b")


def tell_somebody_unknown(world: World) -> None:
    world.told.append(replace(world.told[0], name="stranger"))


def mean_the_wrong_post(world: World) -> None:
    one = world.record.deliveries[1]
    world.record.deliveries[1] = replace(one, audience="second")


def tell_without_a_key(world: World) -> None:
    world.told[0] = replace(world.told[0], key="")


def tell_twice(world: World) -> None:
    world.told.append(world.told[0])


def lose_a_step(world: World) -> None:
    world.record.deliveries = [one for one in world.record.deliveries if one.step != 3]
    world.told = [one for one in world.told if one.name != "supervisor-a"]


def take_a_step_late(world: World) -> None:
    world.postpone("1", 2, 2.0)


def take_a_step_early(world: World) -> None:
    world.postpone("1", 2, -1.0)


def call_nobody(world: World) -> None:
    world.told = [one for one in world.told if one.alarm_ids != ("1",)]
    world.record.deliveries = [replace(one, state="failed") for one in world.record.deliveries]


def tell_nobody(world: World) -> None:
    world.record.alarms["3"] = replace(world.record.alarms["1"], id="3", kind="smoke")


def forget_an_acknowledgement(world: World) -> None:
    world.record.changes[2] = replace(world.record.changes[2], actor="second-a")


def call_after_it_was_taken(world: World) -> None:
    world.deliver("2", 2, "second", "second-a", 13.1)


def leave_an_alarm_alone(world: World) -> None:
    world.record.alarms["1"] = replace(world.record.alarms["1"], timed=False)


MISSED = "a change reaches every viewer who may see it"
AGAIN = "no viewer sees a change twice or out of order"
OTHERS = "no viewer sees an alarm of others"
NOBODY_ELSE = "a notice is told to nobody else"
WANTED = "a notice that came was wanted, for this person and alarm"
ONCE = "a notice comes once; again only where a fault cut off its answer, under its own key"
SENT = "a notice that counts as sent has come"
IN_TIME = "a step is taken within 2 s of its time, or of the end of a fault"


@pytest.mark.parametrize(
    ("harm", "claims"),
    [
        (miss_a_frame, [MISSED]),
        (never_open_the_stream, [MISSED]),
        (see_a_frame_twice, [AGAIN]),
        (see_frames_out_of_order, [AGAIN]),
        (see_an_alarm_of_others, [OTHERS]),
        (see_an_unconsented_resident, [OTHERS]),
        (see_another_change, ["a frame says what the timeline says"]),
        (start_over, ["no viewer had to start over"]),
        (tell_a_stranger, [NOBODY_ELSE, WANTED]),
        (tell_somebody_unknown, [NOBODY_ELSE, WANTED, ONCE]),
        (mean_the_wrong_post, [NOBODY_ELSE]),
        (tell_without_a_key, [WANTED, SENT]),
        (tell_twice, [ONCE]),
        (lose_a_step, ["a step of the ladder that was due is taken"]),
        (take_a_step_late, [IN_TIME]),
        (take_a_step_early, ["no step is taken early"]),
        (tell_nobody, ["an alarm is on a screen"]),
        (call_nobody, ["an alarm that nobody took is told by telephone"]),
        (forget_an_acknowledgement, ["an alarm that somebody was told to have is theirs"]),
        (call_after_it_was_taken, ["a taken alarm calls nobody any more"]),
        (leave_an_alarm_alone, ["an alarm that is not closed has an owner or a timer"]),
    ],
)
def test_every_harm_is_seen(world: World, harm: Callable[[World], None], claims: list[str]) -> None:
    harm(world)
    assert world.faulty() == claims


def fault(kind: str, target: str, began: float, recovered: float) -> Injected:
    return Injected(Fault(kind, target), (), at(began), at(recovered))


def test_a_step_may_wait_for_the_end_of_a_fault_of_the_worker_and_2_s_more(world: World) -> None:
    world.faults = [fault("SIGSTOP", "worker", 2.5, 8.0)]
    world.postpone("1", 2, 6.7)
    world.postpone("1", 3, 3.8)
    assert world.faulty() == []
    world.postpone("1", 3, 0.2)
    assert world.faulty() == [IN_TIME]


def test_a_fault_elsewhere_excuses_no_late_step(world: World) -> None:
    world.faults = [fault("kill -9", "api", 2.5, 8.0), fault("reset", "viewers", 2.5, 8.0)]
    world.postpone("1", 2, 2.0)
    assert world.faulty() == [IN_TIME]


def test_a_step_that_falls_due_at_the_end_of_the_run_is_not_missed(world: World) -> None:
    lose_a_step(world)
    world.ended_at = at(7)
    assert "a step of the ladder that was due is taken" not in world.faulty()


def test_one_repeat_of_a_notice_is_excused_by_a_fault_of_that_moment(world: World) -> None:
    tell_twice(world)
    world.faults = [fault("kill -9", "worker", 0.0, 1.5)]
    assert world.faulty() == []
    world.told.append(world.told[0])
    assert world.faulty() == [ONCE]


def test_what_was_sent_before_a_viewer_came_was_never_promised(world: World) -> None:
    sight = world.sights["nurse-a"]
    sight.begins_after = 2
    del sight.frames[:2]
    assert world.faulty() == []


def test_a_plan_holds_every_fault_once_and_begins_with_one_of_each_family() -> None:
    dice = random.Random(3)  # noqa: S311 - repeatable, not secret
    faults = plan(dice, with_full_disk=True, with_clock=True)
    assert sorted(map(str, faults)) == sorted(map(str, CATALOGUE))
    families = {("kill -9"), ("SIGSTOP"), ("restart"), FULL_DISK.kind}
    assert families <= {one.kind for one in faults[:6]}
    assert set(CLOCKS) & set(faults[:6])
    without = plan(dice, with_full_disk=False, with_clock=False)
    assert set(CATALOGUE) - set(without) == {FULL_DISK, *CLOCKS}


def test_the_page_keeps_what_stands_around_the_section(world: World) -> None:
    run = Run(40, 600, 1, 2.0, [fault("SIGSTOP", "worker", 2.5, 8.0)], ["nothing"], 60.0)
    run.verdict = world.verdict()
    section = report(run, T0)
    assert section.startswith(BEGIN)
    assert section.endswith(f"{END}\n")
    assert "Nothing was lost, doubled or left over." in section
    assert "| SIGSTOP | worker | 1 | 0.00 | 0.00 | 5.50 |" in section
    assert "- not run: nothing" in section
    page = placed("# Page\n\nBefore.\n", section)
    again = placed(page + "After.\n", section.replace("seed 1", "seed 2"))
    assert again.count(BEGIN) == 1
    assert again.startswith("# Page\n\nBefore.\n")
    assert again.endswith("After.\n")
    assert "seed 2" in again
    assert "seed 1" not in again


def test_a_fault_of_a_claim_is_printed_and_breaks_the_promise(world: World) -> None:
    tell_twice(world)
    run = Run(40, 600, 1, 2.0, seconds=60.0)
    run.verdict = world.verdict()
    assert not run.kept
    assert "The promise was broken." in report(run, T0)
    assert f"- {ONCE}: 1:1:1:first:nurse-a:webhook: 2 times" in report(run, T0)

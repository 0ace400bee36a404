"""The life of an alarm: one table, one function."""

from datetime import UTC, datetime, timedelta

import pytest

from anxin.alarms import (
    AUTOMATIC,
    TRANSITIONS,
    Deed,
    Episode,
    Happening,
    Passing,
    Policy,
    Recovery,
    Trigger,
    state_diagram,
    step,
)
from tests import docs

NOW = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
MEDIUM_ALARM = Trigger("physiological", 2)


def after(*happenings: Happening, at: datetime = NOW) -> tuple[Episode, list[str]]:
    """Return what happenings make of nothing, and everything told on the way."""
    state: Episode | None = None
    told: list[str] = []
    for one in happenings:
        state, changes = step(state, one, at)
        told += changes
    assert state is not None
    return state, told


def test_an_alarm_goes_from_raised_to_closed_with_its_owner_and_outcome() -> None:
    state, told = after(
        MEDIUM_ALARM, Deed("acknowledge", 1), Deed("arrive", 2), Deed("close", 2, outcome="real")
    )
    assert told == ["raised", "acknowledged", "on_site", "closed"]
    assert (state.handling, state.owner, state.outcome) == ("closed", 1, "real")


def test_a_trigger_after_the_end_is_a_new_episode() -> None:
    state, told = after(
        MEDIUM_ALARM, MEDIUM_ALARM, Deed("arrive", 1), Deed("close", 1, outcome="false"),
        MEDIUM_ALARM,
    )  # fmt: skip
    assert told == ["raised", "repeated", "on_site", "closed", "raised"]
    assert (state.count, state.handling, state.owner) == (1, "open", None)


def test_a_rise_asks_the_owner_again_and_ends_a_snooze_but_never_calls_back_from_the_bed() -> None:
    until = NOW + timedelta(hours=1)
    rise = Trigger("physiological", 3)
    state, told = after(MEDIUM_ALARM, Deed("acknowledge", 1), Deed("snooze", 1, until=until), rise)
    assert told[-1] == "priority"
    assert (state.handling, state.owner, state.snoozed_until) == ("open", 1, None)
    state, _ = after(MEDIUM_ALARM, Deed("arrive", 1), rise)
    assert (state.handling, state.priority) == ("on_site", 3)


@pytest.mark.parametrize(("class_", "falls"), [("physiological", True), ("emergency", False)])
def test_a_priority_falls_by_one_level_only_after_a_calmer_while(class_: str, falls: bool) -> None:
    state, _ = step(None, Trigger(class_, 3), NOW)
    lower = Trigger(class_, 1)
    soon, told = step(state, lower, NOW + timedelta(minutes=9, seconds=59))
    assert soon is not None
    assert (soon.priority, told) == (3, ("repeated",))
    calm, told = step(state, lower, NOW + timedelta(minutes=10))
    assert calm is not None
    assert (calm.priority, told) == ((2, ("priority",)) if falls else (3, ("repeated",)))


def test_a_lease_that_ran_out_opens_the_alarm_and_keeps_the_owner_until_another_takes_it() -> None:
    lease = Passing("lease_expired")
    state, told = after(MEDIUM_ALARM, Deed("acknowledge", 1), lease)
    assert (state.handling, state.owner, told[-1]) == ("open", 1, "lease_expired")
    state, _ = after(MEDIUM_ALARM, Deed("acknowledge", 1), lease, Deed("acknowledge", 2))
    assert state.owner == 2
    state, told = after(MEDIUM_ALARM, Deed("arrive", 1), lease)
    assert (state.handling, told) == ("on_site", ["raised", "on_site"])


def test_nobody_puts_off_an_emergency() -> None:
    until = NOW + timedelta(hours=1)
    _, told = after(Trigger("emergency", 3), Deed("snooze", 1, until=until))
    assert told == ["raised"]


def test_only_a_low_technical_alarm_that_nobody_took_ends_by_itself_and_by_policy_only() -> None:
    state, told = after(Trigger("technical", 1), Recovery())
    assert (told[-2:], state.outcome) == (["recovered", "closed"], "unknown")
    for open_one in (
        after(Trigger("technical", 2), Recovery()),
        after(Trigger("behavioural", 1), Recovery()),
        after(Trigger("technical", 1), Deed("acknowledge", 1), Recovery()),
    ):
        assert open_one[1][-1] == "recovered"
        assert open_one[0].handling != "closed"
    fresh, _ = step(None, Trigger("technical", 1), NOW)
    kept, _ = step(fresh, Recovery(), NOW, Policy(ends_low_technical=False))
    assert kept is not None
    assert kept.handling == "open"


def test_what_cannot_happen_changes_nothing() -> None:
    open_one, _ = step(None, MEDIUM_ALARM, NOW)
    for impossible in (
        Deed("close", 1, outcome="real"), Passing("lease_expired"), Passing("snooze_over"),
        Passing("owner_lost"),
    ):  # fmt: skip
        assert step(open_one, impossible, NOW) == (open_one, ())
    for on_nothing in (Recovery(), Deed("acknowledge", 1), Passing("owner_lost")):
        assert step(None, on_nothing, NOW) == (None, ())


def test_the_diagram_shows_every_arrow_of_the_table() -> None:
    drawn = state_diagram()
    for name, transition in (TRANSITIONS | AUTOMATIC).items():
        for source in transition.sources:
            arrow = f"{source} --> {transition.target}: {name}"
            assert (arrow in drawn) == (transition.target is not None)


def test_the_page_of_alarms_is_as_the_table_and_the_ladders_are() -> None:
    page = (docs.DOCS / "alarms.md").read_text("utf-8")
    for name, part in (("states", docs.states()), ("ladders", docs.ladders_table())):
        assert docs.replace_part(page, name, part) == page, "run `python -m tests.docs`"

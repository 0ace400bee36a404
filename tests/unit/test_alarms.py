"""The table of transitions."""

import itertools
from typing import get_args

import pytest

from anxin.alarms import (
    NEVER_SNOOZED,
    TRANSITIONS,
    Action,
    Handling,
    Transition,
    allowed_actions,
)

HANDLINGS: tuple[Handling, ...] = get_args(Handling)


def test_every_action_has_a_transition() -> None:
    assert set(TRANSITIONS) == set(get_args(Action))


@pytest.mark.parametrize("transition", TRANSITIONS.values())
def test_a_transition_never_goes_back(transition: Transition) -> None:
    for source in transition.sources:
        if transition.target is not None:
            assert HANDLINGS.index(transition.target) > HANDLINGS.index(source)


def test_an_open_alarm_cannot_be_closed_before_somebody_takes_it() -> None:
    assert "close" not in allowed_actions("open", "technical")
    assert "close" in allowed_actions("acknowledged", "technical")
    assert "close" in allowed_actions("on_site", "emergency")


def test_a_closed_alarm_takes_notes_only() -> None:
    assert allowed_actions("closed", "physiological") == ["note"]


def test_every_alarm_that_is_not_closed_can_reach_its_end() -> None:
    for handling in HANDLINGS[:-1]:
        reached = {handling}
        for _ in HANDLINGS:
            reached |= {
                transition.target
                for one, transition in itertools.product(reached, TRANSITIONS.values())
                if one in transition.sources and transition.target
            }
        assert "closed" in reached


@pytest.mark.parametrize("class_", sorted(NEVER_SNOOZED))
def test_emergencies_and_safety_are_never_put_off(class_: str) -> None:
    assert "snooze" not in allowed_actions("open", class_)
    assert "snooze" in allowed_actions("open", "behavioural")

"""Silence: what is found, and that it is told once."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from anxin.db.intake import Raise, Recover
from anxin.rules import HIGH, LOW, MEDIUM
from models.watch import Finding, changes, empty_beds, is_night, nobody_moving, silent_devices

ZONE = ZoneInfo("Asia/Shanghai")
MIDNIGHT = datetime(2026, 11, 24, 0, 0, tzinfo=ZONE).astimezone(UTC)
NOON = MIDNIGHT + timedelta(hours=12)


def bed(left: datetime, *, lay_minutes: float = 120, fall_risk: bool = False) -> dict[str, Any]:
    """Return an empty bed."""
    return {
        "subject": "r1", "resident_id": 1, "place_id": 2, "device_key": 3, "absent_since": left,
        "present_since": left - timedelta(minutes=lay_minutes), "fall_risk": fall_risk,
    }  # fmt: skip


def found(findings: list[Finding]) -> list[int]:
    """Return the priorities."""
    return [one.priority for one in findings]


@pytest.mark.parametrize(
    ("minutes", "priorities"), [(14, []), (15, [MEDIUM]), (59, [MEDIUM]), (60, [HIGH])]
)
def test_a_bed_left_at_night_becomes_pressing(minutes: int, priorities: list[int]) -> None:
    now = MIDNIGHT + timedelta(minutes=minutes)
    assert found(empty_beds([bed(MIDNIGHT)], now, ZONE)) == priorities


def test_a_bed_left_by_day_or_after_a_short_rest_is_nothing() -> None:
    assert empty_beds([bed(NOON)], NOON + timedelta(hours=2), ZONE) == []
    assert empty_beds([bed(MIDNIGHT, lay_minutes=9)], MIDNIGHT + timedelta(hours=2), ZONE) == []
    # Up for the day: a quarter of an hour later it is morning.
    up = MIDNIGHT + timedelta(hours=5, minutes=50)
    assert empty_beds([bed(up)], up + timedelta(minutes=16), ZONE) == []


def test_who_may_fall_is_missed_at_once() -> None:
    risky = bed(MIDNIGHT, lay_minutes=1, fall_risk=True)
    assert found(empty_beds([risky], MIDNIGHT + timedelta(seconds=5), ZONE)) == [MEDIUM]
    assert found(empty_beds([risky], MIDNIGHT + timedelta(hours=1), ZONE)) == [HIGH]


def still(since: datetime) -> dict[str, Any]:
    """Return a resident who has not moved since."""
    return {"subject": "r1", "resident_id": 1, "place_id": 2, "active_at": since}


def test_nobody_moving_for_four_waking_hours_is_found() -> None:
    assert found(nobody_moving([still(NOON - timedelta(hours=4))], NOON, ZONE)) == [MEDIUM]
    assert nobody_moving([still(NOON - timedelta(hours=3, minutes=59))], NOON, ZONE) == []
    # The night does not count: at eight in the morning only two hours were waking ones.
    eight = MIDNIGHT + timedelta(hours=8)
    assert nobody_moving([still(MIDNIGHT - timedelta(hours=2))], eight, ZONE) == []
    assert nobody_moving([still(NOON - timedelta(hours=9))], MIDNIGHT, ZONE) == []


def test_one_resident_with_two_silent_devices_is_one_finding() -> None:
    rows = [
        {"subject": "r1", "resident_id": 1, "place_id": 2, "device_key": key, "device_id": name,
         "heard_at": None, "care_level": level}
        for key, name, level in ((3, "mat", 4), (4, "watch", 4))
    ]  # fmt: skip
    (one,) = silent_devices(rows, NOON)
    assert (one.priority, one.detail["devices"]) == (MEDIUM, ["mat", "watch"])
    assert one.detail["never_heard"] is True
    assert silent_devices([rows[0] | {"care_level": 0}], NOON)[0].priority == LOW


def finding(priority: int = LOW) -> Finding:
    """Return a silent device."""
    return Finding("r1", "device_silent", priority, 1, 2, 3, NOON)


def episode(priority: int = LOW, condition: str = "present", handling: str = "open") -> Any:
    """Return its episode."""
    return {
        "subject": "r1", "kind": "device_silent", "priority": priority, "condition": condition,
        "handling": handling,
    }  # fmt: skip


def test_a_finding_is_raised_once_and_again_when_its_priority_rises() -> None:
    (raised,) = changes([finding()], [])
    assert isinstance(raised, Raise)
    assert changes([finding()], [episode()]) == []
    assert len(changes([finding(MEDIUM)], [episode()])) == 1


def test_an_episode_closed_lately_is_no_news() -> None:
    assert changes([finding()], [episode(handling="closed")]) == []
    assert len(changes([finding(MEDIUM)], [episode(handling="closed")])) == 1


def test_what_is_over_recovers_once() -> None:
    (over,) = changes([], [episode()])
    assert isinstance(over, Recover)
    assert changes([], [episode(condition="recovered")]) == []
    assert changes([], [episode(handling="closed")]) == []
    assert len(changes([finding()], [episode(condition="recovered")])) == 1


def test_night_goes_by_the_clock_of_the_place() -> None:
    assert is_night(MIDNIGHT, ZONE)
    assert not is_night(NOON, ZONE)

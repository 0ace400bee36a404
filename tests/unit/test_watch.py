"""Silence: what is found, and that it is told once."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from anxin.db.intake import Raise, Recover
from anxin.db.silence import Silence
from anxin.rules import HIGH, LOW, MEDIUM
from models.watch import (
    Finding,
    changes,
    deafness,
    empty_beds,
    is_night,
    nobody_moving,
    silent_devices,
)

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


def quiet(key: int, seconds: float = 200, **changed: Any) -> dict[str, Any]:
    """Return a bed mat of resident `key`, last heard so long before noon, that is missed."""
    return {
        "device_key": key, "device_id": f"mat-{key}", "kind": "bed_sensor", "subject": f"r{key}",
        "resident_id": key, "place_id": 2, "care_level": 0, "missed": seconds > 180,
        "clock": "heartbeat", "patience": 180, "heard_at": NOON - timedelta(seconds=seconds),
        "quiet_since": NOON - timedelta(seconds=seconds), "never_heard": False,
        "gateway_id": None, "gateway_missed": False, "site": 1, "excused": False,
    } | changed  # fmt: skip


def silent(*devices: Any, size: int = 100, behind: Any = None) -> dict[str, Finding]:
    """Return what is found in a place with so many mats, by subject."""
    silence = Silence(devices, behind or {}, {1: [(180, size)]}, ())
    return {one.subject: one for one in silent_devices(silence, NOON)}


def test_one_resident_with_two_silent_devices_is_one_finding() -> None:
    watch = quiet(1, device_id="watch-1", never_heard=True)
    one = silent(quiet(1, care_level=3), watch)["r1"]
    assert (one.priority, one.detail["devices"]) == (MEDIUM, ["mat-1", "watch-1"])
    assert one.detail["never_heard"] is True
    assert silent(quiet(1, care_level=2))["r1"].priority == LOW


def test_a_device_that_is_only_quiet_yet_is_not_missed() -> None:
    assert silent(quiet(1, 170)) == {}


def test_a_lost_gateway_names_what_stands_behind_it_and_speaks_for_it() -> None:
    gateway = quiet(9, kind="gateway", device_id="gw", subject="d9", resident_id=None)
    found = silent(
        gateway, quiet(1, gateway_missed=True), quiet(2), behind={9: [("mat-1", 4), ("mat-7", 0)]}
    )
    assert found["d9"].detail["devices"] == ["gw", "mat-1", "mat-7"]
    assert found["d9"].priority == MEDIUM
    assert [found[subject].told_elsewhere for subject in ("d9", "r1", "r2")] == [False, True, False]


def test_a_device_whose_gateway_came_back_lately_has_time_to_come_back_too() -> None:
    assert silent(quiet(1, excused=True))["r1"].told_elsewhere


def test_half_a_place_lost_at_once_is_one_finding_that_names_every_device() -> None:
    # The first is missed, the others will be within seconds.
    devices = [quiet(key, 181 - 5 * key, missed=key == 0) for key in range(6)]
    found = silent(*devices, quiet(50, 4000), size=12)
    assert found["p1"].detail == {"devices": [f"mat-{key}" for key in range(6)], "of": 12}
    assert found["r0"].told_elsewhere
    assert not found["r50"].told_elsewhere
    assert set(found) == {"p1", "r0", "r50"}


def test_few_or_scattered_losses_are_told_one_by_one() -> None:
    devices = [quiet(key) for key in range(6)]
    assert "p1" not in silent(*devices, size=13)
    assert "p1" not in silent(*devices[:4], size=4)
    assert "p1" not in silent(*(quiet(key, 200 + 60 * key) for key in range(6)), size=6)


def spell(lasts: bool, kept: bool = False) -> dict[str, Any]:
    """Return five minutes in which the platform was deaf."""
    return {
        "from_at": NOON - timedelta(minutes=6), "to_at": NOON - timedelta(minutes=1),
        "lasts": lasts, "kept": kept, "place_id": 1,
    }  # fmt: skip


def test_a_deaf_platform_is_pressing_while_it_lasts_and_told_again_when_it_is_over() -> None:
    (lasting,) = deafness([spell(lasts=True)])
    (over,) = deafness([spell(lasts=False, kept=True)])
    assert deafness([]) == []
    assert [one.priority for one in (lasting, over)] == [HIGH, MEDIUM]
    assert lasting.detail["spells"][0].endswith("/..")
    assert over.detail["spells"] == ["2026-11-24T03:54:00+00:00/2026-11-24T03:59:00+00:00"]
    assert over.detail["kept"] is True
    told = {
        "subject": "platform", "kind": "device_fault", "priority": HIGH, "condition": "present",
        "handling": "open", "closed_at": None, "detail": lasting.detail,
    }  # fmt: skip
    (again,) = changes([over], [told])
    assert isinstance(again, Raise)
    assert again.priority == HIGH


def finding(priority: int = LOW, *devices: str, **changed: Any) -> Finding:
    """Return silent devices of a resident."""
    detail = {"devices": list(devices or ("mat",))}
    return replace(Finding("r1", "device_silent", priority, 1, 2, 3, NOON, detail), **changed)


def episode(priority: int = LOW, condition: str = "present", handling: str = "open") -> Any:
    """Return the episode of the mat."""
    return {
        "subject": "r1", "kind": "device_silent", "priority": priority, "condition": condition,
        "handling": handling, "closed_at": NOON + timedelta(minutes=1),
        "detail": {"devices": ["mat"]},
    }  # fmt: skip


def test_a_finding_is_raised_once_and_again_when_its_priority_rises() -> None:
    (raised,) = changes([finding()], [])
    assert isinstance(raised, Raise)
    assert changes([finding()], [episode()]) == []
    assert len(changes([finding(MEDIUM)], [episode()])) == 1


def test_a_device_not_yet_named_is_told_and_never_lowers_the_alarm() -> None:
    (raised,) = changes([finding(LOW, "mat", "watch")], [episode(MEDIUM)])
    assert isinstance(raised, Raise)
    assert raised.priority == MEDIUM


def test_what_is_told_elsewhere_raises_nothing_and_recovers_nothing() -> None:
    elsewhere = finding(told_elsewhere=True)
    assert changes([elsewhere], []) == []
    assert changes([elsewhere], [episode()]) == []
    assert changes([elsewhere], [episode(condition="recovered")]) == []


def test_an_episode_closed_lately_is_no_news() -> None:
    assert changes([finding()], [episode(handling="closed")]) == []
    assert len(changes([finding(MEDIUM)], [episode(handling="closed")])) == 1


def test_a_device_that_came_back_and_is_lost_again_is_news() -> None:
    again = finding(since=NOON + timedelta(minutes=2))
    assert len(changes([again], [episode(handling="closed")])) == 1
    assert len(changes([finding()], [episode(condition="recovered", handling="closed")])) == 1


def test_what_is_over_recovers_once() -> None:
    (over,) = changes([], [episode()])
    assert isinstance(over, Recover)
    assert changes([], [episode(condition="recovered")]) == []
    assert changes([], [episode(handling="closed")]) == []
    assert len(changes([finding()], [episode(condition="recovered")])) == 1


def test_night_goes_by_the_clock_of_the_place() -> None:
    assert is_night(MIDNIGHT, ZONE)
    assert not is_night(NOON, ZONE)

"""When a station can call nobody, and what is told of it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from anxin.db.intake import Raise, Recover
from anxin.stations import Station, fault_of
from models.stations import changes, survey

NOW = datetime(2026, 1, 5, 3, 0, tzinfo=UTC)


def station(username: str = "nurse", **said: Any) -> Station:
    """Return a station that was well a moment ago, but for what is said."""
    a_moment_ago = NOW - timedelta(seconds=5)
    return Station(
        **{
            "id": 1,
            "user_id": 1,
            "username": username,
            "screen": "a",
            "place_id": 7,
            "path": "/1/7/",
            "seen_at": a_moment_ago,
            "sound": "on",
            "visible": True,
            "visible_at": a_moment_ago,
            "proved_at": NOW - timedelta(seconds=50),
            "on_duty": True,
        }
        | said
    )


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({}, None),
        ({"sound": "muted"}, "station_muted"),
        ({"sound": "unknown", "proved_at": None}, "station_muted"),
        ({"sound": "unknown"}, None),
        ({"proved_at": ago(181)}, "station_muted"),
        ({"visible": False, "visible_at": ago(60)}, None),
        ({"visible": False, "visible_at": ago(61)}, "station_asleep"),
        ({"seen_at": ago(30)}, None),
        ({"seen_at": ago(31), "sound": "muted"}, "station_gone"),
        ({"seen_at": ago(31), "sound": "muted", "on_duty": False}, None),
    ],
)
def test_a_station_on_duty_must_be_there_seen_and_heard(
    said: dict[str, Any], fault: str | None
) -> None:
    assert fault_of(station(**said), NOW) == fault


def test_the_only_station_of_a_place_is_a_high_fault_and_the_place_deaf() -> None:
    picture = survey([station(sound="muted")], [], NOW)
    (fault,) = picture.faults
    assert (fault.place_id, fault.priority, fault.reason) == (7, 3, "station_muted")
    assert fault.stations == {"nurse": "station_muted"}
    assert (picture.deaf, picture.well) == (("/1/7/",), ())


def test_a_second_station_or_one_above_makes_it_a_medium_fault() -> None:
    for other in (station("second"), station("above", place_id=1, path="/1/")):
        picture = survey([station(sound="muted"), other], [], NOW)
        assert [fault.priority for fault in picture.faults] == [2]
        assert picture.deaf == ()


def test_a_well_station_below_does_not_cover_the_place_above() -> None:
    picture = survey([station(seen_at=ago(60)), station("ward", path="/1/7/9/")], [], NOW)
    assert picture.faults[0].priority == 3
    assert (picture.deaf, picture.well) == (("/1/7/",), ("/1/7/9/",))


def test_an_unmanned_place_is_a_fault_unless_a_station_above_is_on_duty() -> None:
    unmanned = [{"place_id": 7, "path": "/1/7/", "since": ago(130)}]
    (fault,) = survey([], unmanned, NOW).faults
    assert (fault.priority, fault.reason, fault.stations) == (3, "station_gone", {})
    assert survey([station("above", place_id=1, path="/1/")], unmanned, NOW).faults == ()


def test_a_fault_is_told_once_again_when_it_grows_and_recovers() -> None:
    faults = survey([station(sound="muted")], [], NOW).faults
    (told,) = changes(faults, [])
    assert isinstance(told, Raise)
    assert (told.subject, told.kind, told.priority) == ("p7:station_muted", "device_fault", 3)
    episode: dict[str, Any] = {
        "subject": told.subject, "priority": 3, "condition": "present", "handling": "open",
        "detail": told.detail,
    }  # fmt: skip
    assert changes(faults, [episode]) == []
    assert changes(faults, [episode | {"handling": "closed"}]) == []
    assert len(changes(faults, [episode | {"priority": 2}])) == 1
    assert len(changes(faults, [episode | {"condition": "recovered"}])) == 1
    more = survey([station(sound="muted"), station("b", sound="muted")], [], NOW).faults
    assert len(changes(more, [episode])) == 1
    assert changes([], [episode]) == [Recover(told.subject, "device_fault", "worker")]
    assert changes([], [episode | {"handling": "closed"}]) == []


def test_each_reason_is_an_episode_of_its_own() -> None:
    (muted,) = changes(survey([station(sound="muted")], [], NOW).faults, [])
    assert isinstance(muted, Raise)
    episode: dict[str, Any] = {
        "subject": muted.subject, "priority": 3, "condition": "present", "handling": "open",
        "detail": muted.detail,
    }  # fmt: skip
    both = survey([station(sound="muted"), station("b", seen_at=ago(60))], [], NOW).faults
    (gone,) = changes(both, [episode])
    assert (gone.subject, type(gone)) == ("p7:station_gone", Raise)
    told = changes(survey([station("b", seen_at=ago(60))], [], NOW).faults, [episode])
    assert {(one.subject, type(one)) for one in told} == {
        ("p7:station_gone", Raise), ("p7:station_muted", Recover),
    }  # fmt: skip


def test_a_station_that_is_well_again_leaves_the_fault_of_the_others_once() -> None:
    two = survey([station(sound="muted"), station("b", sound="muted")], [], NOW).faults
    (told,) = changes(two, [])
    assert isinstance(told, Raise)
    episode: dict[str, Any] = {
        "subject": told.subject, "priority": 3, "condition": "present", "handling": "open",
        "detail": told.detail,
    }  # fmt: skip
    one = survey([station(sound="muted"), station("b")], [], NOW).faults
    (less,) = changes(one, [episode])
    assert isinstance(less, Raise)
    # At the priority that the episode has: a lower one would leave the old names in it.
    assert (less.priority, less.detail["stations"]) == (3, {"nurse": "station_muted"})
    assert changes(one, [episode | {"detail": less.detail}]) == []
    assert changes(one, [episode | {"handling": "closed"}]) == []

"""The rhythm of days: what is counted, and what differs from one's own usual."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anxin.rules import LOW
from models.rhythm import (
    AWAKE,
    DAY_S,
    HOUR_S,
    KINDS,
    PRIORITY,
    ROOMS,
    WORDS,
    Days,
    Events,
    Finding,
    Sensors,
    days_of,
    unusual,
)

FIRST = 20_000  # days since the epoch
Happening = tuple[int, float, str, str]
"""(resident, hours since the first day, kind, room)."""


def events(happened: list[Happening]) -> Events:
    """Return events as the functions want them."""
    ordered = sorted(happened)
    return Events(
        np.array([row for row, _, _, _ in ordered], np.int64),
        np.array([FIRST * DAY_S + hour * HOUR_S for _, hour, _, _ in ordered]),
        np.array([KINDS.index(kind) for _, _, kind, _ in ordered], np.int64),
        np.array([ROOMS.index(room) for _, _, _, room in ordered], np.int64),
    )


def sensors(people: int = 1, *, in_bed: bool = True, **have: bool) -> Sensors:
    """Return a home with every sensor but those said to be missing."""
    motion, kitchen, bed = (
        np.full(people, have.get(name, True)) for name in ("motion", "kitchen", "bed")
    )
    return Sensors(motion, kitchen, bed, np.full(people, in_bed))


def usual_day(day: int, row: int = 0) -> list[Happening]:
    """Return a quiet day: up at 6:30, kitchen at 7, 12 and 17:30, one night visit, bed at 21:30."""
    start = day * 24.0
    told = [
        (2.0, "bed_exit", "bedroom"), (2.05, "motion", "bathroom"), (2.2, "bed_return", "bedroom"),
        (6.5, "bed_exit", "bedroom"), (6.6, "motion", "bathroom"),
        (7.0 + 0.1 * (day % 5), "motion", "kitchen"),
        *((hour, "motion", "other") for hour in np.arange(8, 21, 0.75)),
        (12.0, "motion", "kitchen"), (17.5, "motion", "kitchen"), (21.5, "bed_return", "bedroom"),
    ]  # fmt: skip
    return [(row, start + float(hour), kind, room) for hour, kind, room in told]


def weeks(days: int = 14, last: Callable[[Happening], bool] = lambda _: True) -> list[Happening]:
    """Return usual days; of the last, only the events for which `last` holds."""
    before = [one for day in range(days - 1) for one in usual_day(day)]
    return before + [one for one in usual_day(days - 1) if last(one)]


def seen(happened: list[Happening], at_h: float, have: Sensors | None = None) -> Days:
    """Return the days as they are known at an hour after the first day's midnight."""
    have = have or sensors()
    return days_of(events(happened), have, FIRST, FIRST * DAY_S + at_h * HOUR_S)


def found(happened: list[Happening], at_h: float, have: Sensors | None = None) -> list[Finding]:
    """Return what is unusual at an hour after the first day's midnight."""
    have = have or sensors()
    now = FIRST * DAY_S + at_h * HOUR_S
    return unusual(days_of(events(happened), have, FIRST, now), now)


TODAY = 13 * 24.0  # midnight of the fourteenth day


@pytest.mark.parametrize("hour", np.arange(0.0, 24.0, 0.5))
def test_a_usual_day_has_no_finding_at_any_hour(hour: float) -> None:
    happened = [one for one in weeks() if one[1] <= TODAY + hour]
    assert found(happened, TODAY + hour) == []


def test_a_day_is_counted_as_it_was() -> None:
    days = seen(weeks(), TODAY + 23)
    assert (days.night_moves == 1).all()
    assert days.hours_in_bed[0, 1:] == pytest.approx(8.8)
    assert days.first_kitchen_h[0, 2] == pytest.approx(7.2)
    assert days.quiet_h[0, :5] == pytest.approx([1, 0.9, 0.8, 0.75, 0.75])
    assert days.last_sign_s[0] == (FIRST + 13) * DAY_S + 21.5 * HOUR_S
    assert days.in_bed.all()


def test_walking_about_at_night_is_told_of_in_the_morning() -> None:
    wandering = [(0, TODAY + hour, "motion", "other") for hour in (0.5, 1, 1.5, 3, 3.5, 4, 4.5)]
    happened = [one for one in weeks() if one[1] <= TODAY + 6] + wandering
    (finding,) = found(happened, TODAY + 6)
    assert (finding.code, finding.value, finding.usual) == ("night_wandering", 8, 1)
    assert finding.words() == (
        "昨夜走动 8 次，平时 1 次", "moved about 8 times last night, usually 1",
    )  # fmt: skip
    assert found(happened, TODAY + 4.9) == []


@pytest.mark.parametrize(("moves", "count"), [(3, 0), (4, 1)])
def test_a_few_steps_of_one_who_sleeps_through_are_not_wandering(moves: int, count: int) -> None:
    happened = [one for one in weeks() if one[1] <= TODAY + 6 and one[1] % 24 > 3]
    steps = [(0, TODAY + 1 + n, "motion", "other") for n in range(moves)]
    assert len(found(happened + steps, TODAY + 6)) == count


def test_a_sensor_that_chatters_for_ten_minutes_is_not_wandering() -> None:
    chatter = [(0, TODAY + 3 + n / 3600, "motion", "other") for n in range(0, 590, 5)]
    assert found([one for one in weeks() if one[1] <= TODAY + 6] + chatter, TODAY + 6) == []


def test_movement_in_the_bedroom_is_not_wandering() -> None:
    restless = [(0, TODAY + n / 6, "motion", "bedroom") for n in range(30)]
    assert found([one for one in weeks() if one[1] <= TODAY + 6] + restless, TODAY + 6) == []


def test_staying_in_bed_late_is_told_of_at_noon() -> None:
    happened = weeks(last=lambda one: one[1] < TODAY + 6)
    codes = {finding.code: finding for finding in found(happened, TODAY + 12)}
    finding = codes["long_in_bed"]
    assert [finding.value, finding.usual] == pytest.approx([14.3, 8.8])
    assert not {"days_in_bed", "quiet"} & set(codes)


def test_two_days_in_bed_are_told_of_as_days() -> None:
    happened = [one for one in weeks(16) if one[1] < TODAY]  # then two days without an event
    told = {finding.code: finding for finding in found(happened, TODAY + 2 * 24 + 12.5)}
    assert told["days_in_bed"].value == 2
    assert "long_in_bed" not in told


def test_somebody_who_always_lies_in_bed_is_not_told_of() -> None:
    turned = [
        (0, day * 24 + 9.0 + after, kind, "bedroom")
        for day in range(14)
        for after, kind in ((0, "bed_exit"), (0.5, "bed_return"))
    ]
    assert found(turned, TODAY + 20) == []


def test_no_kitchen_visit_is_told_of_beyond_ones_own_latest_hour() -> None:
    happened = weeks(last=lambda one: one[3] != "kitchen")
    assert found([one for one in happened if one[1] <= TODAY + 8], TODAY + 8) == []
    (finding,) = found([one for one in happened if one[1] <= TODAY + 9], TODAY + 9)
    assert (finding.code, finding.value, finding.usual) == ("no_kitchen_visit", 9, 8)


def test_somebody_who_is_away_is_not_missed_in_the_kitchen() -> None:
    gone = weeks(last=lambda one: one[1] < TODAY + 3)
    assert seen(gone, TODAY + 10).signs[0, -1] == 2
    assert found(gone, TODAY + 8) == []
    assert "no_kitchen_visit" not in {one.code for one in found(gone, TODAY + 10)}


def test_a_home_without_a_kitchen_sensor_has_no_kitchen_finding() -> None:
    happened = weeks(last=lambda one: one[3] != "kitchen")
    assert found(happened, TODAY + 20, sensors(kitchen=False)) == []


def test_no_sign_of_life_is_told_of_beside_the_longest_usual_quiet() -> None:
    happened = weeks(last=lambda one: one[1] < TODAY + 10.1)
    assert found(happened, TODAY + 11.4) == []
    (finding,) = found(happened, TODAY + 11.9)
    assert (finding.code, finding.usual) == ("quiet", 1)
    assert finding.value == pytest.approx(2.4)
    assert [one for one in found(happened, TODAY + 22) if one.code == "quiet"] == []  # night


def test_somebody_in_bed_is_seen_by_the_bed_sensor() -> None:
    happened = weeks(last=lambda one: one[1] < TODAY + 10.1)
    nap = [*happened, (0, TODAY + 10.2, "bed_return", "bedroom")]
    assert found(nap, TODAY + 14) == []


@pytest.mark.parametrize("known", [1, 2, 6])
def test_with_few_days_known_nothing_is_unusual(known: int) -> None:
    happened = [one for day in range(known) for one in usual_day(day)]
    happened += [(0, known * 24 + n / 6, "motion", "other") for n in range(30)]
    assert found(happened, known * 24 + 6) == []


def test_nobody_without_sensors_is_told_of() -> None:
    none = sensors(motion=False, kitchen=False, bed=False, in_bed=False)
    days = seen([], TODAY + 12, none)
    assert np.isnan(days.signs).all()
    assert found([], TODAY + 12, none) == []


def test_residents_do_not_mix() -> None:
    happened = weeks() + [
        (2, hour, kind, room) for _, hour, kind, room in weeks(last=lambda _: False)
    ]
    together, alone = seen(happened, TODAY + 23, sensors(3)), seen(weeks(), TODAY + 23)
    for name in ("night_moves", "hours_in_bed", "first_kitchen_h", "signs", "quiet_h"):
        np.testing.assert_array_equal(getattr(together, name)[0], getattr(alone, name)[0])
    assert together.signs[1].sum() == 0
    assert together.signs[2, -1] == 0


@settings(max_examples=40)
@given(
    told=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 95), st.integers(0, 3)), max_size=30),
    in_bed=st.booleans(),
    until=st.integers(73, 96),
)
def test_hours_in_bed_and_quiet_are_those_of_a_slow_walk(
    told: list[tuple[int, int, int]],
    in_bed: bool,
    until: int,
) -> None:
    kinds = ("motion", "door", "bed_exit", "bed_return")
    happened = list({(row, hour): (row, float(hour), kinds[kind], "other")
                     for row, hour, kind in told if hour <= until}.values())  # fmt: skip
    days = seen(happened, until - 1e-9 if until == 96 else until, sensors(3, in_bed=in_bed))
    for row in range(3):
        mine = sorted(one for one in happened if one[0] == row)
        lies, spent, signs = in_bed, [0.0] * 5, {one[1] for one in mine}
        for hour in range(until):
            for _, _, kind, _ in (one for one in mine if one[1] == hour):
                lies = {"bed_exit": False, "bed_return": True}.get(kind, lies)
            spent[(hour + 12) // 24] += lies
        assert days.hours_in_bed[row, 1:] == pytest.approx(spent[1:4])
        for day in range(4):
            edges = {min(day * 24 + edge, until) for edge in AWAKE}
            awake = {one for one in signs if AWAKE[0] <= one - day * 24 <= AWAKE[1]}
            steps = np.diff(sorted(edges | awake))
            assert days.quiet_h[row, day] == pytest.approx(max(steps, default=0))


def test_every_finding_is_low_and_has_words_in_both_languages() -> None:
    assert PRIORITY == LOW
    for code in WORDS:
        zh, en = Finding(0, code, 12.0, 8.0).words()
        assert "平时" in zh
        assert "usually" in en

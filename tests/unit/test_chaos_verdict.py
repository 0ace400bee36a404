"""The comparison after a chaos run: it must be able to fail."""

from collections.abc import Callable

import pytest

from chaos.ledger import METRICS, read, values
from chaos.verdict import Stored, judge

LINES = [
    "reading chaos-1 1000\n",
    "reading-ok chaos-1 1000\n",
    "reading chaos-1 1001\n",
    "reading-ok chaos-1 1001\n",
    "reading chaos-2 1000\n",
    "event button-1 sos-0\n",
    "event-ok button-1 sos-0\n",
    "event button-1 sos-1\n",
    "event-ok button-1 sos-1\n",
    "event chaosmisdated-1 sos-0\n",
    "event button-1 sos-0\n",
]
SENT_ONCE = LINES[:-1]


def stored_as_sent() -> Stored:
    """What a platform holds that kept its promise."""
    stored = Stored()
    for device, ts_us in (("chaos-1", 1_000_000), ("chaos-1", 1_001_000)):
        stored.add_reading(device, ts_us, values(device, ts_us // 1000))
    stored.events.update([("button-1", "sos-0"), ("button-1", "sos-1")])
    stored.events["chaosmisdated-1", "sos-0"] += 1
    stored.alarms.append(("button-1", 2))
    return stored


def faulty_claims(stored: Stored, lines: list[str] = SENT_ONCE) -> list[str]:
    return [line.claim for line in judge(read(lines), stored) if line.faults]


def test_a_kept_promise_has_no_fault() -> None:
    assert faulty_claims(stored_as_sent()) == []


def test_a_reading_that_was_stored_but_not_acknowledged_is_no_fault() -> None:
    stored = stored_as_sent()
    stored.add_reading("chaos-2", 1_000_000, values("chaos-2", 1000))
    assert faulty_claims(stored) == []


def lose_a_reading(stored: Stored) -> None:
    del stored.readings["chaos-1", 1_001_000]


def double_a_reading(stored: Stored) -> None:
    stored.add_reading("chaos-1", 1_000_000, values("chaos-1", 1000))


def invent_a_reading(stored: Stored) -> None:
    stored.add_reading("chaos-1", 2_000_000, values("chaos-1", 2000))


def shift_a_time_stamp(stored: Stored) -> None:
    del stored.readings["chaos-1", 1_001_000]
    stored.add_reading("chaos-1", 1_001_001, values("chaos-1", 1001))


def alter_a_value(stored: Stored) -> None:
    del stored.readings["chaos-1", 1_001_000]
    stored.add_reading("chaos-1", 1_001_000, values("chaos-1", 1001) | {"temp": 36.0})


def lose_a_value(stored: Stored) -> None:
    del stored.readings["chaos-1", 1_001_000]
    stored.add_reading("chaos-1", 1_001_000, {**values("chaos-1", 1001), "hr": None})


def lose_an_event(stored: Stored) -> None:
    del stored.events["button-1", "sos-1"]


def double_an_event(stored: Stored) -> None:
    stored.events["button-1", "sos-1"] += 1


def lose_the_alarm(stored: Stored) -> None:
    stored.alarms.clear()


def raise_a_second_episode(stored: Stored) -> None:
    stored.alarms[:] = [("button-1", 1), ("button-1", 1)]


def raise_for_a_wrong_clock(stored: Stored) -> None:
    stored.alarms.append(("chaosmisdated-1", 1))


def count_a_repeat_twice(stored: Stored) -> None:
    stored.alarms[:] = [("button-1", 3)]


def quarantine_something(stored: Stored) -> None:
    stored.quarantined = 1


@pytest.mark.parametrize(
    ("harm", "claims"),
    [
        (lose_a_reading, ["an acknowledged reading is stored"]),
        (double_a_reading, ["a reading is stored once"]),
        (invent_a_reading, ["a stored reading was sent"]),
        (
            shift_a_time_stamp,
            ["an acknowledged reading is stored", "a stored reading was sent"],
        ),
        (alter_a_value, ["values are those that were sent"]),
        (lose_a_value, ["values are those that were sent"]),
        (lose_an_event, ["an acknowledged event is stored"]),
        (double_an_event, ["an event is stored once"]),
        (lose_the_alarm, ["who pressed for help has one alarm"]),
        (raise_a_second_episode, ["who pressed for help has one alarm"]),
        (raise_for_a_wrong_clock, ["a clock ten years off raises no live alarm"]),
        (count_a_repeat_twice, ["an alarm counts every press once"]),
        (quarantine_something, ["nothing went to quarantine"]),
    ],
)
def test_every_harm_is_seen(harm: Callable[[Stored], None], claims: list[str]) -> None:
    stored = stored_as_sent()
    harm(stored)
    assert faulty_claims(stored) == claims


def test_a_press_while_the_platforms_clock_is_wrong_is_counted_apart() -> None:
    stored = stored_as_sent()
    stored.misdated |= {"button-1", "chaosmisdated-1"}
    assert stored.silenced == 0
    stored.alarms.clear()
    assert stored.silenced == 1
    assert faulty_claims(stored) == []


def test_a_line_written_twice_is_a_fault_of_the_book() -> None:
    assert faulty_claims(stored_as_sent(), LINES) == ["the book holds every event once"]
    assert faulty_claims(stored_as_sent(), [*SENT_ONCE, LINES[0]]) == [
        "the book holds every reading once"
    ]


def test_an_unfinished_last_line_was_never_written() -> None:
    assert faulty_claims(stored_as_sent(), [*SENT_ONCE, "reading-ok chaos-1 10"]) == []


def test_values_are_healthy_exact_in_32_bits_and_differ_between_readings() -> None:
    seen = [tuple(values("chaos-7", 1_700_000_000_000 + n).values()) for n in range(1000)]
    assert len(set(seen)) > 900
    for one in seen:
        assert len(one) == len(METRICS)
        assert all(value * 16 == int(value * 16) for value in one)
    hr, rr, spo2, temp, sbp, dbp, movement = zip(*seen, strict=True)
    assert min(hr) >= 60
    assert max(hr) <= 80
    assert min(rr) >= 12
    assert max(rr) <= 20
    assert min(spo2) >= 96
    assert 36 <= min(temp) <= max(temp) <= 37.5
    assert 111 <= min(sbp) <= max(sbp) <= 140
    assert 60 <= min(dbp) <= max(dbp) <= 90
    assert 0 <= min(movement) <= max(movement) <= 1

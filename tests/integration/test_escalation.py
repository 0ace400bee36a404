"""Escalation on a real Postgres: every step at its time, to the right people, none forgotten."""

import asyncio
import json
import math
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from prometheus_client import CollectorRegistry
from psycopg.conninfo import make_conninfo

from anxin.alarms import TRANSITIONS, Action
from anxin.db import alarms as stored_alarms
from anxin.db import escalation as stored
from anxin.db.alarms import Act
from anxin.db.contacts import note_broke, note_worked
from anxin.db.migrate import connect, has_timescale, migrate, scripts
from anxin.db.pool import Database
from anxin.db.scope import EVERYTHING
from anxin.escalation import DEFAULT_LADDERS
from models.escalate import Escalator, Metrics
from tests.factories import Ward
from tests.waiting import wait_until


class Home(Ward):
    """A facility with people who can be told."""

    def user(self, name: str, role: str = "nurse", place: int | None = None) -> int:
        """Add a user of the facility."""
        return self._id(
            "INSERT INTO users (username, password_hash, role, place_id)"
            " VALUES (%(name)s, '-', %(role)s, %(place)s) {}",
            {"name": name, "role": role, "place": place or self.place},
        )

    def shift(self, user: int, post: str, begins: str = "-1 hour", ends: str = "8 hours",
              **more: Any) -> int:  # fmt: skip
        """Put somebody on duty from and to so long from now."""
        return self._id(
            "INSERT INTO shifts (place_id, user_id, post, during, stands_in_for) VALUES (%(place)s,"
            " %(user)s, %(post)s, tstzrange(now() + %(begins)s::interval,"
            " now() + %(ends)s::interval), %(instead)s) {}",
            {"place": self.place, "user": user, "post": post, "begins": begins, "ends": ends,
             "instead": more.get("stands_in_for")},
        )  # fmt: skip

    def contact(self, channel: str, *, user: int | None = None, office: str | None = None) -> int:
        """Add a way to somebody."""
        return self._id(
            "INSERT INTO contacts (user_id, place_id, office, channel, address)"
            " VALUES (%(user)s, %(place)s, %(office)s, %(channel)s, 'x') {}",
            {"user": user, "place": self.place if office else None, "office": office,
             "channel": channel},
        )  # fmt: skip

    def alarm(self, priority: int = 3, kind: str = "sos", class_: str = "emergency",
              subject: str = "r1") -> int:  # fmt: skip
        """Raise an alarm at the facility."""
        self.db.execute(
            "SELECT raise_alarm(%s, NULL, %s, NULL, %s, %s, %s::smallint, clock_timestamp(), false,"
            " 1, '{}', 'test')",
            [subject, self.place, kind, class_, priority],
        )
        return int(self.value("SELECT max(id) FROM alarms"))

    def pass_time(self, seconds: float) -> None:
        """Let everything stored have happened so much earlier."""
        by = timedelta(seconds=seconds)
        self.db.execute(
            "UPDATE escalations SET began_at = began_at - %s, due_at = due_at - %s,"
            " lease_until = lease_until - %s",
            [by, by, by],
        )
        # Not a change of the alarm: its trigger must not see the snooze move.
        self.db.execute("ALTER TABLE alarms DISABLE TRIGGER keep_timer")
        self.db.execute(
            "UPDATE alarms SET snoozed_until = snoozed_until - %s, severe_at = severe_at - %s",
            [by, by],
        )
        self.db.execute("ALTER TABLE alarms ENABLE TRIGGER keep_timer")

    def told(self) -> set[tuple[int, int, str, int | None, str, str]]:
        """Return every delivery: round, step, audience, user, channel, state."""
        return {
            (row["round"], row["step"], row["audience"], row["user_id"], row["channel"],
             row["state"])
            for row in self.rows("SELECT * FROM deliveries")
        }  # fmt: skip

    def changes(self, alarm: int) -> list[str]:
        """Return the changes of the timeline, in order."""
        return [
            row["change"]
            for row in self.rows("SELECT change FROM timeline WHERE alarm_id = %s ORDER BY id",
                                 alarm)
        ]  # fmt: skip


@pytest.fixture
def home(dsn: str) -> Iterator[Home]:
    """Return an empty facility."""
    made = Home(dsn)
    yield made
    made.close()


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    """Return a pool on the test's database."""
    async with Database(dsn, role="anxin_worker", size=16) as pool:
        yield pool


@pytest.fixture
def escalator(database: Database) -> Escalator:
    """Return what a worker sweeps with."""
    return Escalator(database, ZoneInfo("Asia/Shanghai"), Metrics(CollectorRegistry()))


async def act(database: Database, alarm: int, action: Action, user: int, **more: Any) -> None:
    # Somebody's deed is not the worker's: it comes by another way than the worker's role.
    async with Database(make_conninfo(database.dsn, options=""), size=1) as people:
        await stored_alarms.act(
            people,
            EVERYTHING,
            alarm,
            TRANSITIONS[action],
            Act(action, user, "somebody", "station", **more),
        )


async def test_a_high_alarm_climbs_its_ladder_rung_by_rung(
    home: Home, escalator: Escalator
) -> None:
    first, second, boss = home.user("a"), home.user("b"), home.user("c", "supervisor")
    home.shift(first, "first")
    home.shift(second, "second")
    home.contact("voice", user=first)
    home.contact("aliyun_sms", user=first)
    home.contact("tencent_sms", user=second)
    home.contact("wecom", office="robot")
    home.contact("voice", office="rescue_centre")
    alarm = home.alarm()
    assert await escalator.sweep() == 1
    assert await escalator.sweep() == 0
    expected = {
        (1, 0, "wall", None, "station", "pending"),
        (1, 1, "first", first, "station", "pending"),
    }
    assert home.told() == expected
    for seconds, more in (
        (30, {(1, 2, "second", second, "station", "pending"),
              (1, 3, "robot", None, "wecom", "pending")}),
        (30, {(1, 4, "first", first, "voice", "pending"),
              (1, 4, "first", first, "aliyun_sms", "pending"),
              (1, 5, "second", second, "tencent_sms", "pending")}),
        (60, {(1, 6, "supervisor", boss, "station", "pending")}),
        (60, {(1, 9, "rescue_centre", None, "voice", "pending")}),
    ):  # fmt: skip
        home.pass_time(seconds - 10)
        assert await escalator.sweep() == 0
        home.pass_time(10)
        assert await escalator.sweep() == 1
        expected |= more
        assert home.told() == expected
    home.pass_time(600)
    await escalator.sweep()
    assert (2, 1, "first", first, "station", "pending") in home.told()
    assert home.changes(alarm).count("escalated") == 8 + 2


async def test_a_sweep_knows_for_how_long_nothing_comes_due(
    home: Home, escalator: Escalator
) -> None:
    assert await escalator.sweep() == 0
    assert escalator.rest_seconds() == math.inf
    home.shift(home.user("a"), "first")
    home.shift(home.user("b"), "second")
    home.alarm()
    await escalator.sweep()
    assert 20 < escalator.rest_seconds() <= 30
    home.pass_time(29.5)
    await escalator.sweep()
    assert escalator.rest_seconds() <= 0.5


async def test_steps_that_were_due_while_no_worker_ran_are_all_made_up_for(
    home: Home, escalator: Escalator
) -> None:
    home.shift(home.user("a"), "first")
    home.shift(home.user("b"), "second")
    home.alarm(2, "spo2_low", "physiological")
    home.pass_time(800)
    assert await escalator.sweep() == 1
    assert {(step, audience) for _, step, audience, *_ in home.told()} == {
        (0, "wall"), (1, "second"),
    }  # fmt: skip


async def test_acknowledging_cancels_what_waits_and_is_a_lease(
    home: Home, escalator: Escalator, database: Database
) -> None:
    nurse = home.user("a")
    home.shift(nurse, "first")
    alarm = home.alarm()
    await escalator.sweep()
    await act(database, alarm, "acknowledge", nurse)
    assert {one[-1] for one in home.told()} == {"cancelled"}
    home.pass_time(590)
    assert await escalator.sweep() == 0
    home.pass_time(10)
    assert await escalator.sweep() == 2
    row = home.alarms()[0]
    assert (row["handling"], row["owner_id"]) == ("open", nurse)
    assert "lease_expired" in home.changes(alarm)
    assert (2, 1, "first", nurse, "station", "pending") in home.told()
    await act(database, alarm, "acknowledge", nurse)
    await act(database, alarm, "arrive", nurse)
    home.pass_time(100_000)
    assert await escalator.sweep() == 0
    await act(database, alarm, "close", nurse, outcome="real")
    assert home.value("SELECT count(*) FROM escalations") == 0


async def test_another_who_takes_it_after_the_lease_is_the_new_owner(
    home: Home, escalator: Escalator, database: Database
) -> None:
    late, prompt = home.user("a"), home.user("b")
    alarm = home.alarm()
    await act(database, alarm, "acknowledge", late)
    home.pass_time(600)
    await escalator.sweep()
    await act(database, alarm, "acknowledge", prompt)
    assert home.alarms()[0]["owner_id"] == prompt


async def test_a_rise_in_priority_begins_the_higher_ladder_and_asks_the_owner_again(
    home: Home, escalator: Escalator, database: Database
) -> None:
    nurse = home.user("a")
    home.shift(nurse, "first")
    alarm = home.alarm(2, "spo2_low", "physiological")
    await escalator.sweep()
    await act(database, alarm, "acknowledge", nurse)
    home.alarm(3, "spo2_low", "physiological")
    assert home.alarms()[0]["handling"] == "open"
    await escalator.sweep()
    assert (2, 1, "first", nurse, "station", "pending") in home.told()


async def test_a_snooze_rests_until_its_end_and_no_longer(
    home: Home, escalator: Escalator, database: Database
) -> None:
    nurse = home.user("a")
    alarm = home.alarm(2, "no_activity", "behavioural")
    await escalator.sweep()
    until = await stored.clock(database) + timedelta(hours=1)
    await act(database, alarm, "snooze", nurse, until=until)
    home.pass_time(3590)
    assert await escalator.sweep() == 0
    home.pass_time(10)
    assert await escalator.sweep() == 2
    assert home.changes(alarm)[-2:] == ["snooze_over", "escalated"]
    assert home.alarms()[0]["snoozed_until"] is None


async def test_a_step_that_reaches_nobody_brings_the_next_one_forward(
    home: Home, escalator: Escalator
) -> None:
    second = home.user("b")
    home.shift(second, "second")
    alarm = home.alarm()
    await escalator.sweep()
    assert (1, 2, "second", second, "station", "pending") in home.told()
    assert "nobody_reached" in home.changes(alarm)
    assert home.value("SELECT next_step FROM escalations") == 4


async def test_a_place_where_nobody_can_be_reached_raises_one_fault_and_recovers(
    home: Home, escalator: Escalator
) -> None:
    home.alarm()
    home.alarm(3, "fall")
    await escalator.sweep()
    await escalator.sweep()
    faults = home.rows("SELECT * FROM alarms WHERE kind = 'device_fault'")
    assert [(one["subject"], one["priority"], one["count"]) for one in faults] == [
        (f"p{home.place}:nobody_reachable", 3, 1)
    ]
    nurse = home.user("a")
    home.pass_time(600)
    await escalator.sweep()
    assert any(user == nurse for *_, user, _, _ in home.told())
    [fault] = home.rows("SELECT * FROM alarms WHERE kind = 'device_fault'")
    assert fault["condition"] == "recovered"


async def test_each_fault_of_a_place_is_its_own_episode_and_recovers_alone(
    home: Home, escalator: Escalator, database: Database
) -> None:
    home.alarm()
    await escalator.sweep()
    contacts = [home.contact(channel, office="robot") for channel in ("webhook", "wecom", "wecom")]
    for contact in contacts:
        for _ in range(6):
            await note_broke(database, contact, "gone")
    assert faults_of(home) == {
        "nobody_reachable": ("present", None),
        "channel_failing:webhook": ("present", [str(contacts[0])]),
        "channel_failing:wecom": ("present", [str(one) for one in contacts[1:]]),
    }
    await note_worked(database, contacts[0])
    await note_worked(database, contacts[1])
    assert [condition for condition, _ in faults_of(home).values()] == [
        "present", "recovered", "present",
    ]  # fmt: skip
    await note_worked(database, contacts[2])
    assert faults_of(home)["channel_failing:wecom"][0] == "recovered"
    assert faults_of(home)["nobody_reachable"][0] == "present"


def faults_of(home: Home) -> dict[str, tuple[str, Any]]:
    """Return the faults of the facility by reason: condition, and the contacts they name."""
    return {
        row["subject"].removeprefix(f"p{home.place}:"): (
            row["condition"], row["detail"].get("contact_ids"),
        )
        for row in home.rows("SELECT * FROM alarms WHERE kind = 'device_fault' ORDER BY id")
    }  # fmt: skip


async def test_faults_open_under_the_old_subject_go_on_under_their_own(empty_dsn: str) -> None:
    with connect(empty_dsn) as connection:
        known = scripts(timescale=has_timescale(connection))
        older = [version for version in known if version < "0009"]
        connection.execute("CREATE TABLE schema_migrations (version text PRIMARY KEY,"
                           " applied_at timestamptz NOT NULL DEFAULT now())")  # fmt: skip
        for version in older:
            connection.execute(known[version])
            connection.execute("INSERT INTO schema_migrations VALUES (%s)", [version])
    home = Home(empty_dsn)
    dead, fine = home.contact("webhook", office="robot"), home.contact("wecom", office="robot")
    home.db.execute("UPDATE contacts SET alarmed_at = now() WHERE id = %s", [dead])
    for place, detail in (
        # Told by three in one episode: the channel that fails is known to it only from before.
        (home.place, {"reason": "station_muted", "stations": {"a": "station_muted"},
                      "channel": "webhook", "contact_id": str(dead)}),
        (home._id("INSERT INTO places (kind, name) VALUES ('home', 'B') {}"),
         {"reason": "channel_failing", "channel": "wecom", "contact_id": str(fine)}),
    ):  # fmt: skip
        home.db.execute(
            "SELECT raise_alarm('p' || %(place)s, NULL, %(place)s, NULL, 'device_fault',"
            " 'technical', 3::smallint, now(), false, 1, %(detail)s::jsonb, 'test')",
            {"place": place, "detail": json.dumps(detail)},
        )
    assert "0009_alarms" in migrate(empty_dsn)
    muted, failing = home.rows("SELECT * FROM alarms ORDER BY id")
    assert muted["subject"] == f"p{home.place}:station_muted"
    assert muted["detail"] == {"reason": "station_muted", "stations": {"a": "station_muted"}}
    assert failing["subject"] == f"p{failing['place_id']}:channel_failing:wecom"
    assert failing["detail"]["contact_ids"] == [str(fine)]
    assert home.value("SELECT count(*) FROM contacts WHERE alarmed_at IS NOT NULL") == 0
    home.close()


async def test_relatives_without_consent_and_users_who_left_are_told_nothing(
    home: Home, escalator: Escalator
) -> None:
    resident = home.resident()
    told, not_told = home.user("son", "family"), home.user("cousin", "family")
    for user, scopes in ((told, ["alarms"]), (not_told, ["status"])):
        home.contact("aliyun_sms", user=user)
        home.db.execute(
            "INSERT INTO family_links (user_id, resident_id, scopes) VALUES (%s, %s, %s)",
            [user, resident, scopes],
        )
    gone = home.user("gone")
    home.shift(gone, "first")
    home.db.execute("UPDATE users SET disabled_at = now() WHERE id = %s", [gone])
    home.db.execute(
        "SELECT raise_alarm('r' || %s, %s, %s, NULL, 'sos', 'emergency', 3::smallint, now(), false,"
        " 1, '{}', 'test')",
        [resident, resident, home.place],
    )
    await escalator.sweep()
    home.pass_time(120)
    await escalator.sweep()
    assert {user for _, _, _, user, _, _ in home.told()} == {None, told}


async def test_two_workers_at_once_make_each_step_once(dsn: str, home: Home) -> None:
    home.shift(home.user("a"), "first")
    for number in range(150):
        home.alarm(subject=f"r{number}")
    async with Database(dsn, role="anxin_worker", size=8) as one, Database(dsn, size=8) as other:
        workers = [
            Escalator(pool, ZoneInfo("Asia/Shanghai"), Metrics(CollectorRegistry()))
            for pool in (one, other, one, other)
        ]
        moved = await asyncio.gather(*(worker.sweep() for worker in workers))
        while await workers[0].sweep():
            pass
    assert sum(moved) <= 150
    assert home.value("SELECT count(*) FROM deliveries") == 300
    assert home.value("SELECT count(*) FROM timeline WHERE change = 'escalated'") == 300


async def test_a_worker_that_dies_in_its_sweep_leaves_the_timer_to_the_next(
    home: Home, escalator: Escalator, database: Database
) -> None:
    home.shift(home.user("a"), "first")
    home.alarm()
    now = await stored.clock(database)
    due, _, _ = await stored.due(database, now, limit=10)
    home.db.execute("BEGIN")
    home.db.execute("UPDATE escalations SET next_step = 2, due_at = NULL")
    home.db.execute("ROLLBACK")
    assert len(due) == 1
    assert await escalator.sweep() == 1
    assert len(home.told()) == 2


async def test_a_stopped_writer_holds_up_its_own_alarm_only(
    home: Home, escalator: Escalator, dsn: str
) -> None:
    home.shift(home.user("a"), "first")
    held = home.alarm()
    home.alarm(3, "fall")
    stopped = Ward(dsn)
    stopped.db.execute("BEGIN")
    stopped.db.execute("SELECT 1 FROM alarms WHERE id = %s FOR UPDATE", [held])
    async with asyncio.timeout(2):
        assert await escalator.sweep() == 1
    stopped.db.execute("ROLLBACK")
    stopped.close()
    assert await escalator.sweep() == 1


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ("DELETE FROM escalations", "no timer"),
        ("UPDATE escalations SET due_at = NULL", "timer stopped"),
        ("UPDATE escalations SET began_at = now() + interval '1 hour'", "timer stopped"),
    ],
)
async def test_the_watchdog_gives_an_open_alarm_its_timer_back(
    home: Home, escalator: Escalator, damage: str, why: str
) -> None:
    home.user("a")
    alarm = home.alarm()
    await escalator.sweep()
    assert await escalator.watch_over() == 0
    home.db.execute(damage.encode())
    assert await escalator.watch_over() == 1
    assert home.changes(alarm)[-1] == "rescued"
    assert home.value("SELECT note FROM timeline ORDER BY id DESC LIMIT 1") == why
    assert await escalator.sweep() == 1
    assert await escalator.watch_over() == 0


async def test_an_alarm_whose_owner_left_is_open_again(
    home: Home, escalator: Escalator, database: Database
) -> None:
    nurse = home.user("a")
    alarm = home.alarm()
    await act(database, alarm, "acknowledge", nurse)
    await act(database, alarm, "arrive", nurse)
    assert await escalator.watch_over() == 0
    home.db.execute("UPDATE users SET disabled_at = now()")
    assert await escalator.watch_over() == 1
    row = home.alarms()[0]
    assert (row["handling"], row["owner_id"]) == ("open", None)
    assert await escalator.sweep() >= 1


async def test_the_self_test_wakes_nobody(home: Home, escalator: Escalator) -> None:
    home.db.execute(
        "SELECT raise_alarm('p1', NULL, %s, NULL, 'sos', 'emergency', 3::smallint, now(), false, 1,"
        " '{\"selftest\": true}', 'test')",
        [home.place],
    )
    assert await escalator.sweep() == 0
    assert await escalator.watch_over() == 0


async def test_a_low_technical_alarm_ends_with_its_condition_and_others_do_not(
    home: Home,
) -> None:
    low = home.alarm(1, "battery_low", "technical")
    medium = home.alarm(2, "device_silent", "technical")
    unusual = home.alarm(1, "unusual", "behavioural")
    for kind in ("battery_low", "device_silent", "unusual"):
        home.db.execute("SELECT recover_alarm('r1', %s, 'test')", [kind])
    ended = {row["id"]: (row["handling"], row["outcome"]) for row in home.alarms()}
    assert ended == {
        low: ("closed", "unknown"), medium: ("open", None), unusual: ("open", None),
    }  # fmt: skip
    line = home.rows("SELECT actor, note FROM timeline WHERE change = 'closed'")
    assert line == [{"actor": "policy", "note": "recovered"}]


async def test_a_priority_falls_one_level_after_ten_calm_minutes_only(home: Home) -> None:
    home.alarm(3, "spo2_low", "physiological")
    home.alarm(2, "spo2_low", "physiological")
    assert home.alarms()[0]["priority"] == 3
    home.pass_time(600)
    home.alarm(1, "spo2_low", "physiological")
    assert home.alarms()[0]["priority"] == 2
    home.alarm(3, "fall", "emergency", "r2")
    home.pass_time(600)
    home.alarm(2, "fall", "emergency", "r2")
    assert [row["priority"] for row in home.alarms()] == [2, 3]


def test_the_lease_of_a_fresh_timer_is_that_of_the_default_ladder(home: Home) -> None:
    for priority, ladder in DEFAULT_LADDERS.items():
        usual = home.value("SELECT usual_lease_seconds(%s::smallint)", priority)
        assert usual == ladder.lease_seconds


def test_the_alarm_tells_both_delays(home: Home) -> None:
    nurse = home.user("a")
    alarm = home.alarm()
    home.db.execute("UPDATE alarms SET event_at = raised_at - interval '1.5 s'")
    home.db.execute(
        "INSERT INTO receipts (alarm_id, user_id, kind, at)"
        " SELECT %s, %s, 'displayed', raised_at + interval '250 ms' FROM alarms",
        [alarm, nurse],
    )
    seen = home.value("SELECT alarm_object(a) FROM alarms a")
    assert (seen["condition_delay_s"], seen["signal_delay_s"]) == (1.5, 0.25)


def test_a_killed_worker_s_timers_go_on_with_another(dsn: str, home: Home, data_dir: Path) -> None:
    home.shift(home.user("a"), "first")
    home.shift(home.user("b"), "second")

    def working() -> int:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'anxin doorbell'"
        return int(home.value(f"{query} AND datname = current_database()"))

    def told(count: int) -> bool:
        return int(home.value("SELECT count(*) FROM deliveries")) == count

    with ExitStack() as stack:
        workers = []
        for _ in range(2):
            process = subprocess.Popen(
                [sys.executable, "-m", "anxin.cli", "worker"],
                env=os.environ | {"ANXIN_DATABASE": dsn, "ANXIN_DATA_DIR": str(data_dir)},
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            workers.append(process)
        wait_until(lambda: working() == 2, 60, "both workers listen")
        home.alarm()
        wait_until(lambda: told(2), 2, "the first rung")
        workers[0].kill()
        home.pass_time(30)
        wait_until(lambda: told(3), 2, "the second rung, by the other worker")
        home.alarm(3, "fall")
        wait_until(lambda: told(5), 2, "the first rung of another alarm")

"""The life of alarms on a real Postgres against a small model: whatever happens, in any order.

ANXIN_MODEL_EXAMPLES sets how many histories are tried, ANXIN_MODEL_TRIGGERS how many triggers the
writers fire together. A failing history is printed with the seed that makes it again.
"""

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from prometheus_client import CollectorRegistry

from anxin.alarms import TRANSITIONS, Action, Deed, Episode, Passing, Recovery, Trigger, step
from anxin.db import alarms as stored_alarms
from anxin.db.alarms import Act, WrongState
from anxin.db.pool import Database, Parameters
from anxin.db.scope import EVERYTHING
from models.escalate import Escalator, Metrics
from tests.integration.test_escalation import Home

EXAMPLES = int(os.environ.get("ANXIN_MODEL_EXAMPLES", "300"))
TRIGGERS = int(os.environ.get("ANXIN_MODEL_TRIGGERS", "10000"))
WRITERS = 64

CLASSES = {"sos": "emergency", "spo2_low": "physiological", "battery_low": "technical"}
SUBJECTS = {"sos": "r1", "spo2_low": "r1", "battery_low": "r2"}
KINDS = sorted(CLASSES)
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
LEASES = {3: 600, 2: 1800, 1: 28800}
LADDERS = {
    # (seconds, [(step, audience)]): what the people of this test can be reached by.
    3: [(0, [(0, "wall"), (1, "first")]), (30, [(2, "second")]), (60, []),
        (120, [(6, "supervisor")]), (180, [])],
    2: [(0, [(0, "wall")]), (300, [(1, "second")]), (900, [(2, "supervisor")])],
    1: [(0, [(0, "wall")])],
}  # fmt: skip


class Crash(Exception):
    """The worker died before it could commit."""


class Dying(Database):
    """A worker's pool: what it carries out is rolled back, as when the worker is killed."""

    async def fetch_one(self, query: bytes, parameters: Parameters = None) -> Any:
        """Run the query; end the transaction of an escalation without its commit."""
        async with self.transaction() as connection:
            row = await (await connection.execute(query, parameters)).fetchone()
            if b"escalate(" in query:
                raise Crash
            return row


@dataclass
class Ladder:
    """The timer of one alarm in the model; times are seconds of the model's clock."""

    round: int
    priority: int
    began: int
    due: int | None
    rung: int = 0
    lease: int = 0
    lease_until: int | None = None
    said: list[str] = field(default_factory=list)


class Life(RuleBasedStateMachine):
    """Things that happen to alarms, each done to the database and to the model."""

    home: Home
    loop: asyncio.Runner
    database: Database
    dying: Database
    users: dict[str, int]

    def __init__(self) -> None:
        """Begin with a roster and no alarm."""
        super().__init__()
        self.clock = 0
        self.episodes: dict[tuple[str, str], Episode] = {}
        self.timers: dict[tuple[str, str], Ladder] = {}
        self.ids: dict[tuple[str, str], int] = {}
        self.ended: dict[int, tuple[Episode, list[str]]] = {}
        self.told: set[tuple[int, int, int, str]] = set()
        self.cancelled: set[tuple[int, int, int, str]] = set()
        self.on_post = {"first": True, "second": True}
        self.escalator = Escalator(
            self.database, ZoneInfo("Asia/Shanghai"), Metrics(CollectorRegistry())
        )
        self.home.db.execute("DELETE FROM alarms")
        self.home.db.execute("DELETE FROM shifts WHERE post <> 'supervisor'")
        for post in self.on_post:
            self.home.shift(self.users[post], post, "-30 days", "30 days")

    # What happens.

    @rule(kind=st.sampled_from(KINDS), priority=st.integers(1, 3), count=st.integers(1, 3))
    def trigger(self, kind: str, priority: int, count: int) -> None:
        """A rule fires: a new alarm, a repeat, a rise or a fall."""
        subject = SUBJECTS[kind]
        self.home.db.execute(
            "SELECT raise_alarm(%s, NULL, %s, NULL, %s, %s, %s::smallint, clock_timestamp(), false,"
            " %s, '{}', 'test')",
            [subject, self.home.place, kind, CLASSES[kind], priority, count],
        )
        key = (subject, kind)
        if key not in self.episodes:
            self.ids[key] = int(self.home.value("SELECT max(id) FROM alarms"))
        self._happened(key, Trigger(CLASSES[kind], priority, count))

    @rule(kind=st.sampled_from(KINDS), priority=st.integers(1, 3))
    def trigger_again(self, kind: str, priority: int) -> None:
        """The same once more: most of what happens to an alarm is this."""
        self.trigger(kind, priority, 1)

    @rule(kind=st.sampled_from(KINDS))
    def recover(self, kind: str) -> None:
        """The condition goes."""
        subject = SUBJECTS[kind]
        self.home.db.execute("SELECT recover_alarm(%s, %s, 'test')", [subject, kind])
        if (subject, kind) in self.episodes:
            self._happened((subject, kind), Recovery())

    @rule(kind=st.sampled_from(KINDS), user=st.sampled_from(["first", "second"]))
    def acknowledge(self, kind: str, user: str) -> None:
        """Somebody takes it."""
        self._act(kind, "acknowledge", user)

    @rule(
        kind=st.sampled_from(KINDS),
        action=st.sampled_from(["arrive", "close", "note"]),
        user=st.sampled_from(["first", "second"]),
    )
    def act(self, kind: str, action: Action, user: str) -> None:
        """Somebody goes on with it, allowed or not."""
        self._act(kind, action, user)

    @rule(
        kind=st.sampled_from(KINDS),
        user=st.sampled_from(["first", "second"]),
        tens=st.sampled_from([3, 60, 90, 200]),
    )
    def snooze(self, kind: str, user: str, tens: int) -> None:
        """Somebody puts it off."""
        self._act(kind, "snooze", user, tens)

    def _act(self, kind: str, action: Action, user: str, tens: int = 0) -> None:
        key = (SUBJECTS[kind], kind)
        if key not in self.episodes:
            return
        now = datetime.now(UTC)
        until = now + timedelta(seconds=tens * 10) if action == "snooze" else None
        deed = Deed(
            action,
            self.users[user],
            outcome="real" if action == "close" else None,
            until=self._moment(self.clock + tens * 10) if until else None,
        )
        before = self.episodes[key]
        after, changes = step(before, deed, self._moment())
        done = Act(action, self.users[user], user, "station", None, deed.outcome, until)
        try:
            self.loop.run(
                stored_alarms.act(
                    self.database, EVERYTHING, self.ids[key], TRANSITIONS[action], done
                )
            )
        except WrongState:
            assert changes == (), (before, deed)
            assert after == before
        else:
            assert changes, (before, deed)
            self._happened(key, deed)

    @rule(tens=st.sampled_from([3, 6, 30, 60, 60, 90, 180, 3000]))
    def time_passes(self, tens: int) -> None:
        """The clock goes on; nobody looks yet."""
        self.clock += tens * 10
        self.home.pass_time(tens * 10)

    @rule()
    def sweep(self) -> None:
        """A worker looks at every timer."""
        self.loop.run(self.escalator.sweep())
        for key in sorted(self.episodes):
            self._swept(key)

    @rule()
    def worker_dies_in_its_sweep(self) -> None:
        """A worker is killed with everything done and nothing committed."""
        escalator = Escalator(self.dying, ZoneInfo("Asia/Shanghai"), Metrics(CollectorRegistry()))
        with contextlib.suppress(Crash):
            self.loop.run(escalator.sweep())

    @rule(post=st.sampled_from(["first", "second"]))
    def roster_changes(self, post: str) -> None:
        """Somebody comes on duty, or goes and nobody comes."""
        self.on_post[post] = not self.on_post[post]
        if self.on_post[post]:
            self.home.shift(self.users[post], post, "-30 days", "30 days")
        else:
            self.home.db.execute("DELETE FROM shifts WHERE post = %s", [post])

    @rule(user=st.sampled_from(["first", "second"]))
    def owner_leaves(self, user: str) -> None:
        """A user is disabled; the watchdog opens what was theirs."""
        number = self.users[user]
        theirs = [
            key
            for key, one in self.episodes.items()
            if one.owner == number and one.handling != "open"
        ]
        self.home.db.execute("UPDATE users SET disabled_at = now() WHERE id = %s", [number])
        assert self.loop.run(self.escalator.watch_over()) == len(theirs)
        self.home.db.execute("UPDATE users SET disabled_at = NULL")
        for key in theirs:
            self._happened(key, Passing("owner_lost"))

    @rule(kind=st.sampled_from(KINDS))
    def timer_is_lost(self, kind: str) -> None:
        """A timer vanishes; the watchdog gives it back."""
        key = (SUBJECTS[kind], kind)
        if key not in self.episodes:
            return
        self.home.db.execute("DELETE FROM escalations WHERE alarm_id = %s", [self.ids[key]])
        assert self.loop.run(self.escalator.watch_over()) == 1
        rounds = [one[1] for one in self.told if one[0] == self.ids[key]]
        timer = self.timers[key]
        timer.said.append("rescued")
        timer.round = max(rounds, default=0)
        self._begin(key)
        one = self.episodes[key]
        if one.handling == "acknowledged":
            timer.lease_until = self.clock + timer.lease
        elif timer.due is not None and one.snoozed_until is not None:
            timer.due = max(timer.due, self._at(one.snoozed_until))

    # What must be true, always.

    @invariant()
    def every_alarm_is_as_the_model_says(self) -> None:
        """Compare rows, timers, timelines and deliveries."""
        rows = {row["id"]: row for row in self.home.alarms()}
        expected = {self.ids[key]: one for key, one in self.episodes.items()}
        expected |= {number: one for number, (one, _) in self.ended.items()}
        assert rows.keys() == expected.keys()
        for number, one in expected.items():
            row = rows[number]
            seen = (row["class"], row["priority"], row["condition"], row["handling"],
                    row["outcome"], row["count"], row["owner_id"])  # fmt: skip
            assert seen == (one.class_, one.priority, one.condition, one.handling,
                            one.outcome, one.count, one.owner)  # fmt: skip
            assert (row["snoozed_until"] is None) == (one.snoozed_until is None)
        timers = {row["alarm_id"]: row for row in self.home.rows("SELECT * FROM escalations")}
        assert timers.keys() == {self.ids[key] for key in self.episodes}
        for key, one in self.episodes.items():
            row, timer = timers[self.ids[key]], self.timers[key]
            assert (row["due_at"] is not None) == (one.handling == "open")
            assert (row["lease_until"] is not None) == (one.handling == "acknowledged")
            assert row["round"] == timer.round, key
            for seen, meant in (
                (row["due_at"], timer.due),
                (row["lease_until"], timer.lease_until),
            ):
                if seen is not None:
                    assert meant is not None
                    ahead = (seen - datetime.now(UTC)).total_seconds()
                    assert abs(ahead - (meant - self.clock)) < 9, key
        said: dict[int, list[str]] = {}
        for row in self.home.rows(
            "SELECT alarm_id, change FROM timeline"
            " WHERE change NOT IN ('escalated', 'nobody_reached') ORDER BY id"
        ):
            said.setdefault(row["alarm_id"], []).append(row["change"])
        assert said == {self.ids[key]: timer.said for key, timer in self.timers.items()} | {
            number: lines for number, (_, lines) in self.ended.items()
        }
        deliveries = self.home.rows("SELECT alarm_id, round, step, audience, state FROM deliveries")
        told = {(d["alarm_id"], d["round"], d["step"], d["audience"]): d["state"]
                for d in deliveries}  # fmt: skip
        assert len(told) == len(deliveries)
        assert told.keys() == self.told
        assert {one for one, state in told.items() if state == "cancelled"} == self.cancelled

    # The model.

    def _moment(self, clock: int | None = None) -> datetime:
        return BEGINNING + timedelta(seconds=self.clock if clock is None else clock)

    def _happened(self, key: tuple[str, str], happening: Any) -> None:
        before = self.episodes.get(key)
        after, changes = step(before, happening, self._moment())
        assert after is not None
        if before is None:
            self.timers[key] = Ladder(0, 0, 0, 0)
        timer = self.timers[key]
        timer.said += changes
        self.episodes[key] = after
        if after.handling == "closed":
            self._cancel(key)
            self.ended[self.ids[key]] = (after, timer.said)
            del self.episodes[key], self.timers[key], self.ids[key]
            return
        resting = after.snoozed_until is not None and after.snoozed_until > self._moment()
        if before is None or (
            after.handling == "open"
            and not resting
            and (before.handling != "open" or after.priority > before.priority
                 or (before.snoozed_until is not None and after.snoozed_until is None))
        ):  # fmt: skip
            self._begin(key)
        elif after.handling == "open" and resting and after != before:
            if before.handling != "open" or before.snoozed_until != after.snoozed_until:
                timer.due, timer.lease_until = self._at(after.snoozed_until), None
        elif after.handling == "on_site":
            timer.due = timer.lease_until = None
        elif after.handling == "acknowledged":
            if before.handling != "acknowledged":
                timer.due, timer.lease_until = None, self.clock + timer.lease
            if after.snoozed_until is not None and timer.lease_until is not None:
                timer.lease_until = max(timer.lease_until, self._at(after.snoozed_until))
        if after.handling != "open" or resting:
            self._cancel(key, only_if=before != after)

    def _at(self, moment: datetime | None) -> int:
        assert moment is not None
        return round((moment - BEGINNING).total_seconds())

    def _cancel(self, key: tuple[str, str], *, only_if: bool = True) -> None:
        if only_if:
            self.cancelled |= {one for one in self.told if one[0] == self.ids[key]}

    def _begin(self, key: tuple[str, str]) -> None:
        timer, one = self.timers[key], self.episodes[key]
        timer.round += 1
        timer.priority = one.priority
        timer.lease = LEASES[one.priority]
        timer.began, timer.rung = self.clock, 0
        timer.due = self.clock if one.handling == "open" else None
        timer.lease_until = None

    def _swept(self, key: tuple[str, str]) -> None:
        timer = self.timers[key]
        if timer.lease_until is not None and timer.lease_until <= self.clock:
            self._happened(key, Passing("lease_expired"))
        if timer.due is None or timer.due > self.clock:
            return
        if self.episodes[key].snoozed_until is not None:
            self._happened(key, Passing("snooze_over"))
        if timer.rung == len(LADDERS[timer.priority]):
            self._begin(key)
        rungs = LADDERS[timer.priority]
        reached = False
        while timer.rung < len(rungs) and (timer.due or 0) <= self.clock:
            reached = timer.rung == 0 and timer.priority < 3
            for number, audience in rungs[timer.rung][1]:
                if self.on_post.get(audience, True):
                    self.told.add((self.ids[key], timer.round, number, audience))
                    reached = reached or audience != "wall"
            timer.rung += 1
            if timer.rung < len(rungs):
                own = timer.began + rungs[timer.rung][0]
                timer.due = own if reached else min(own, self.clock)
        if timer.rung == len(rungs):
            timer.due = self.clock + timer.lease


@pytest.fixture
def life(dsn: str) -> Iterator[type[Life]]:
    """Return the machine, with a facility and a loop of its own."""
    home = Home(dsn)
    users = {post: home.user(post) for post in ("first", "second")}
    users["supervisor"] = home.user("supervisor", "supervisor")
    home.shift(users["supervisor"], "supervisor", "-30 days", "30 days")
    with asyncio.Runner() as loop:
        database, dying = Database(dsn, size=4), Dying(dsn, size=2)
        loop.run(database.__aenter__())
        loop.run(dying.__aenter__())
        Life.home, Life.users, Life.loop = home, users, loop
        Life.database, Life.dying = database, dying
        yield Life
        loop.run(dying.__aexit__())
        loop.run(database.__aexit__())
    home.close()


@pytest.mark.timeout(600 + EXAMPLES * 2)  # a failure takes up to five minutes to be made small
def test_whatever_happens_to_alarms_happens_as_in_the_model(life: type[Life]) -> None:
    run_state_machine_as_test(
        life,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            print_blob=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(max(180, TRIGGERS // 50))
def test_64_writers_at_once_make_one_episode_of_each_kind_with_the_exact_count(dsn: str) -> None:
    home = Home(dsn)
    pairs = [(subject, kind) for subject in ("r1", "r2", "r3", "r4") for kind in sorted(CLASSES)]
    seed = random.randrange(2**32)  # noqa: S311  a choice of kinds, no secret
    print(f"seed {seed}")

    def write(number: int) -> Counter[tuple[str, str]]:
        chance = random.Random(seed + number)  # noqa: S311  the same
        written: Counter[tuple[str, str]] = Counter()
        with psycopg.connect(dsn, autocommit=True) as connection:
            for _ in range(TRIGGERS // WRITERS + (number < TRIGGERS % WRITERS)):
                subject, kind = chance.choice(pairs)
                connection.execute(
                    "SELECT raise_alarm(%s, NULL, %s, NULL, %s, %s, %s::smallint,"
                    " clock_timestamp(), false, 1, '{}', 'test')",
                    [subject, home.place, kind, CLASSES[kind], chance.randint(1, 3)],
                )
                written[subject, kind] += 1
        return written

    with ThreadPoolExecutor(WRITERS) as writers:
        expected = sum(writers.map(write, range(WRITERS)), Counter())
    assert sum(expected.values()) == TRIGGERS
    alarms = home.alarms()
    assert {(row["subject"], row["kind"]): row["count"] for row in alarms} == expected
    assert len(alarms) == len(expected)
    assert home.value("SELECT count(*) FROM timeline") == TRIGGERS
    assert home.value("SELECT count(*) FROM timeline WHERE change = 'raised'") == len(expected)
    assert home.value("SELECT count(*) FROM escalations WHERE due_at IS NOT NULL") == len(expected)
    home.close()

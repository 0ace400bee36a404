"""The life of alarms on a real Postgres against a small model: whatever happens, in any order.

ANXIN_MODEL_EXAMPLES sets how many histories are tried, ANXIN_MODEL_PARTS over how many tests they
are spread (`pytest -n`), ANXIN_MODEL_TRIGGERS how many triggers the writers fire together. A
failing history is printed, with the ANXIN_MODEL_SEED that makes it again.

A history is one transaction that is rolled back, and its time is the model's own: the functions of
the database find a clock of the test before the real one, so times are compared to the second.
"""

import itertools
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, assert_never, cast, get_args
from zoneinfo import ZoneInfo

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from prometheus_client import CollectorRegistry
from psycopg.rows import DictRow
from structlog.testing import capture_logs

from anxin.alarms import (
    AUTOMATIC,
    NEVER_SNOOZED,
    PRIORITY_NUMBER,
    TRANSITIONS,
    Action,
    Automatic,
    Condition,
    Deed,
    Episode,
    Handling,
    Happening,
    Outcome,
    Passing,
    Policy,
    Recovery,
    Trigger,
    step,
)
from anxin.db import alarms as stored_alarms
from anxin.db.alarms import Act, WrongState
from anxin.db.pool import Connection, Database, Parameters
from anxin.db.scope import EVERYTHING
from anxin.rules import Class
from models.escalate import Escalator, Metrics
from tests.integration.test_escalation import Home

EXAMPLES = int(os.environ.get("ANXIN_MODEL_EXAMPLES", "300"))
PARTS = int(os.environ.get("ANXIN_MODEL_PARTS", "1"))
SEED = os.environ.get("ANXIN_MODEL_SEED")
TRIGGERS = int(os.environ.get("ANXIN_MODEL_TRIGGERS", "10000"))
WRITERS = 64
AT_A_TIME = 250
"""Histories of one seed: what Hypothesis remembers of them grows with their number."""
STEPS = 30

Result = TypeVar("Result")
Key = tuple[str, str]

CLASSES = {"sos": "emergency", "spo2_low": "physiological", "battery_low": "technical"}
KEYS: list[Key] = [(subject, kind) for subject in ("r1", "r2") for kind in sorted(CLASSES)]
BEGINNING = datetime(2026, 1, 5, tzinfo=UTC)
LEASES = {3: 600, 2: 1800, 1: 28800}
LADDERS = {
    # (seconds, [(step, audience)]): what the people of this test can be reached by.
    3: [(0, [(0, "wall"), (1, "first")]), (30, [(2, "second")]), (60, []),
        (120, [(6, "supervisor")]), (180, [])],
    2: [(0, [(0, "wall")]), (300, [(1, "second")]), (900, [(2, "supervisor")])],
    1: [(0, [(0, "wall")])],
}  # fmt: skip
POSTS = ("first", "second", "supervisor")
CARERS = ("first", "second")
PICKS = st.integers(0, 6)
"""Which of the open alarms, counted round and round."""

# Bodies of functions and the statements of `anxin/db` say `clock_timestamp()` without its schema;
# functions that fix where they look are given the model's clock before the real one, too.
_CLOCK = """
CREATE SCHEMA model;
CREATE FUNCTION model.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS
    $$ SELECT current_setting('model.now')::timestamptz $$;
GRANT USAGE ON SCHEMA model TO PUBLIC;
GRANT EXECUTE ON FUNCTION model.clock_timestamp() TO PUBLIC;
ALTER TABLE alarms ALTER severe_at SET DEFAULT model.clock_timestamp();
DO $$
DECLARE name regprocedure;
BEGIN
    FOR name IN SELECT p.oid FROM pg_proc p
                WHERE p.pronamespace = 'public'::regnamespace AND p.proconfig::text ~ 'search_path='
    LOOP
        EXECUTE format(
            'ALTER FUNCTION %s SET search_path = model, pg_catalog, public, pg_temp', name);
    END LOOP;
END $$;
"""
_EPOCH = "(extract(epoch FROM {}) - 1767571200)::bigint"
_PICTURE = (
    "SELECT json_build_array("
    " (SELECT json_agg(json_build_array(id, subject, kind, class, priority, condition, handling,"
    "   outcome, count, owner_id, {snoozed_until}, {severe_at})) FROM alarms),"
    " (SELECT json_agg(json_build_array(alarm_id, round, priority, {began_at}, {due_at},"
    "   lease_seconds, {lease_until})) FROM escalations),"
    " (SELECT json_agg(json_build_array(id, alarm_id, change) ORDER BY id) FROM timeline"
    "   WHERE id > %s AND change NOT IN ('escalated', 'nobody_reached')),"
    " (SELECT json_agg(json_build_array(alarm_id, round, step, audience, user_id, state))"
    "   FROM deliveries))::text AS picture"
).format_map({
    name: _EPOCH.format(name)
    for name in ("snoozed_until", "severe_at", "began_at", "due_at", "lease_until")
}).encode()  # fmt: skip


class Crash(Exception):
    """The process died before it could commit."""


class _Lent:
    """The one connection of a history, in the form that the code under test awaits."""

    def __init__(self, connection: psycopg.Connection[DictRow]) -> None:
        self._connection = connection

    async def execute(self, query: bytes, parameters: Parameters = None) -> "_Rows":
        return _Rows(self._connection.execute(query, parameters))


class _Rows:
    def __init__(self, cursor: psycopg.Cursor[DictRow]) -> None:
        self._cursor = cursor
        self.rowcount = cursor.rowcount

    async def fetchone(self) -> DictRow | None:
        return self._cursor.fetchone()

    async def fetchall(self) -> list[DictRow]:
        return self._cursor.fetchall()


class Inside(Database):
    """A database whose every transaction is a part of the history's own."""

    def __init__(self, connection: psycopg.Connection[DictRow]) -> None:
        """Lend this connection; it is in a transaction."""
        self.lent = connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend the connection."""
        yield cast("Connection", _Lent(self.lent))

    async def fetch(self, query: bytes, parameters: Parameters = None) -> list[DictRow]:
        """Run one query and return its rows."""
        return self.lent.execute(query, parameters).fetchall()

    async def fetch_one(self, query: bytes, parameters: Parameters = None) -> DictRow | None:
        """Run one query and return its first row, if any."""
        rows = await self.fetch(query, parameters)
        return rows[0] if rows else None


class Dying(Inside):
    """A process that is killed at a point: what it did since its last commit is rolled back.

    `plans` are those that it had made by then.
    """

    at = b""
    after = False
    plans: Parameters = None

    async def fetch(self, query: bytes, parameters: Parameters = None) -> list[DictRow]:
        """Run the query, or die."""
        if self.at not in query:
            return await super().fetch(query, parameters)
        self.plans = parameters
        if self.after:
            with undone(self.lent):
                self.lent.execute(query, parameters)
        raise Crash


@contextmanager
def undone(connection: psycopg.Connection[DictRow]) -> Iterator[None]:
    """Roll back whatever happens inside, as when the process is killed before its commit.

    Not through the driver, which forgets at a rollback what it has prepared.
    """
    connection.pgconn.exec_(b"SAVEPOINT alive")
    try:
        yield
    finally:
        connection.pgconn.exec_(b"ROLLBACK TO alive")
        connection.pgconn.exec_(b"RELEASE alive")


def done(work: Coroutine[Any, Any, Result]) -> Result:
    """Run to its end what never waits for anything."""
    try:
        work.send(None)
    except StopIteration as end:
        return cast("Result", end.value)
    raise AssertionError("It waits for something outside of its history.")


@dataclass
class Ladder:
    """The timer of one alarm in the model; times are seconds of the model's clock."""

    round: int
    priority: int
    began: int
    due: int | None
    lease: int
    rung: int = 0
    lease_until: int | None = None


@dataclass
class Case:
    """One episode and all that came of it."""

    key: Key
    episode: Episode
    timer: Ladder | None = None
    said: list[str] = field(default_factory=list)
    told: dict[tuple[int, int, str, int | None], str] = field(default_factory=dict)
    """State of each delivery, by round, step, audience and user."""
    id: int = 0


@dataclass
class Climb:
    """What a worker plans for a timer that came due."""

    case: Case
    timer: Ladder
    told: list[tuple[int, int, str, int | None]] = field(default_factory=list)
    somebody: bool = False
    nobody: bool = False


class Life(RuleBasedStateMachine):
    """Things that happen to alarms, each done to the database and to the model."""

    home: Home
    users: Mapping[str, int]
    histories = 0

    def __init__(self) -> None:
        """Begin with a roster and no alarm."""
        super().__init__()
        type(self).histories += 1
        self.clock = 0
        self.open: dict[Key, Case] = {}
        self.ended: list[Case] = []
        self.heard: dict[int, list[str]] = {}
        self.last_line = 0
        self.on_post = dict.fromkeys(POSTS, True)
        self.enabled = dict.fromkeys(POSTS, True)
        self.fault_key = (f"p{self.home.place}:nobody_reachable", "device_fault")
        self.db = self.home.db
        self.database = Inside(self.db)
        self.escalator = self._worker(self.database)
        self.db.pgconn.exec_(b"BEGIN")
        self._set_clock(0)

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.db.pgconn.exec_(b"ROLLBACK")

    # What happens.

    @rule(
        key=st.sampled_from(KEYS),
        priority=st.integers(1, 3),
        count=st.integers(1, 3),
        dies=st.sampled_from([False, False, False, True]),
    )
    def trigger(self, key: Key, priority: int, count: int, dies: bool) -> None:
        """A rule calls, perhaps from an ingest that is killed before its commit."""
        query = (
            b"SELECT raise_alarm(%s, NULL, %s, NULL, %s, %s, %s::smallint,"
            b" clock_timestamp(), false, %s, '{}', 'test')"
        )
        subject, kind = key
        values = [subject, self.home.place, kind, CLASSES[kind], priority, count]
        if dies:
            with undone(self.db):
                self.db.execute(query, values)
            return
        self.db.execute(query, values)
        self._happened(key, Trigger(CLASSES[kind], priority, count))

    @rule(pick=PICKS, priority=st.integers(1, 3))
    def trigger_again(self, pick: int, priority: int) -> None:
        """The same once more, of what is open or has been: most of what happens is this."""
        self.trigger(self._seen(pick), priority, 1, False)

    @rule(pick=PICKS)
    def recover(self, pick: int) -> None:
        """The condition goes, if it was there."""
        key = self._seen(pick)
        self.db.execute(b"SELECT recover_alarm(%s, %s, 'test')", key)
        self._happened(key, Recovery())

    @precondition(lambda self: self.open)
    @rule(pick=PICKS, user=st.sampled_from(CARERS))
    def acknowledge(self, pick: int, user: str) -> None:
        """Somebody takes it, allowed or not."""
        self._act(pick, "acknowledge", user)

    @precondition(lambda self: self.open)
    @rule(pick=PICKS, user=st.sampled_from(CARERS))
    def close(self, pick: int, user: str) -> None:
        """Somebody closes it, allowed or not."""
        self._act(pick, "close", user)

    @precondition(lambda self: self.open)
    @rule(
        pick=PICKS,
        action=st.sampled_from(["arrive", "note", "acknowledge", "close"]),
        user=st.sampled_from(CARERS),
        dies=st.booleans(),
    )
    def act(self, pick: int, action: Action, user: str, dies: bool) -> None:
        """Somebody goes on with it, allowed or not; the API may die before its commit."""
        self._act(pick, action, user, dies=dies)

    @precondition(lambda self: self.open)
    @rule(
        pick=PICKS,
        user=st.sampled_from(CARERS),
        seconds=st.sampled_from([30, 600, 900, 2000]),
    )
    def snooze(self, pick: int, user: str, seconds: int) -> None:
        """Somebody puts it off."""
        self._act(pick, "snooze", user, seconds)

    @rule(seconds=st.sampled_from([29, 30, 60, 300, 599, 600, 900, 1800, 30000]))
    def time_passes(self, seconds: int) -> None:
        """The clock goes on; nobody looks yet."""
        self._set_clock(self.clock + seconds)

    @rule(seconds=st.sampled_from([5, 60, 1000, 3600]))
    def clock_is_set_back(self, seconds: int) -> None:
        """The clock jumps: what was planned now lies ahead."""
        self._set_clock(self.clock - seconds)

    @rule()
    def sweep(self) -> None:
        """A worker looks at every timer."""
        done(self.escalator.sweep())
        while self._swept():
            pass

    @rule(at=st.sampled_from(["planned", "done"]))
    def worker_dies_in_its_sweep(self, at: str) -> None:
        """A worker is killed before it carries out its plans, or with nothing committed of it."""
        self._die(after=at == "done")

    @rule()
    def worker_wakes_with_old_plans(self) -> None:
        """A worker stands still; another does the work; the first goes on where it was."""
        plans = self._die(after=False)
        self.sweep()
        if plans is not None:
            row = self.db.execute(b"SELECT escalate(%(plans)s::jsonb) AS done", plans).fetchone()
            assert row == {"done": []}

    @rule()
    def watch_over(self) -> None:
        """The watchdog looks for alarms that nobody would be told of again."""
        with capture_logs():
            assert done(self.escalator.watch_over()) == self._rescued()

    @rule(post=st.sampled_from(POSTS))
    def roster_changes(self, post: str) -> None:
        """Somebody comes on duty, or goes and nobody comes."""
        self.on_post[post] = not self.on_post[post]
        if self.on_post[post]:
            put_on(self.home, self.users[post], post)
        else:
            self.db.execute(b"DELETE FROM shifts WHERE post = %s", [post])

    @rule(user=st.sampled_from(POSTS))
    def user_leaves_or_returns(self, user: str) -> None:
        """A user is disabled, or may work again."""
        self.enabled[user] = not self.enabled[user]
        self.db.execute(
            b"UPDATE users SET disabled_at = CASE WHEN %s THEN NULL::timestamptz ELSE now() END"
            b" WHERE id = %s",
            [self.enabled[user], self.users[user]],
        )

    @precondition(lambda self: self.open)
    @rule(pick=PICKS)
    def timer_is_lost(self, pick: int) -> None:
        """A timer vanishes; only the watchdog can give it back."""
        case = self._picked(pick)
        self.db.execute(b"DELETE FROM escalations WHERE alarm_id = %s", [case.id])
        case.timer = None

    # What must be true, always.

    @invariant()
    def every_alarm_is_as_the_model_says(self) -> None:
        """Compare rows, timers, timelines and deliveries."""
        row = self.db.execute(_PICTURE, [self.last_line]).fetchone()
        assert row is not None
        alarms, timers, lines, deliveries = (
            one or [] for one in msgspec.json.decode(row["picture"])
        )
        cases = self.cases()
        known = {case.id for case in cases}
        for id_, subject, kind, *_ in alarms:
            new = self.open.get((subject, kind))
            if new is not None and id_ not in known:
                new.id = id_
        assert {one[0]: tuple(one[1:]) for one in alarms} == {
            case.id: self._row(case) for case in cases
        }
        assert {one[0]: tuple(one[1:]) for one in timers} == {
            case.id: (t.round, t.priority, t.began, t.due, t.lease, t.lease_until)
            for case in cases if (t := case.timer) is not None
        }  # fmt: skip
        for line, id_, change in lines:
            self.heard.setdefault(id_, []).append(change)
            self.last_line = line
        assert self.heard == {case.id: case.said for case in cases}
        told = {(id_, *rest): state for id_, *rest, state in deliveries}
        assert len(told) == len(deliveries)
        assert told == {
            (case.id, *which): state for case in cases for which, state in case.told.items()
        }
        for case in self.open.values():
            if case.timer is not None and case.episode.handling == "open":
                assert case.timer.due is not None

    def cases(self) -> list[Case]:
        """Return every episode of this history."""
        return [*self.ended, *self.open.values()]

    def _row(self, case: Case) -> tuple[object, ...]:
        one = case.episode
        return (
            *case.key, one.class_, one.priority, one.condition, one.handling, one.outcome,
            one.count, one.owner, self._seconds(one.snoozed_until), self._seconds(one.severe_at),
        )  # fmt: skip

    # The model.

    def _picked(self, pick: int) -> Case:
        return self.open[sorted(self.open)[pick % len(self.open)]]

    def _seen(self, pick: int) -> Key:
        seen = sorted({case.key for case in self.cases() if case.key != self.fault_key})
        return seen[pick % len(seen)] if seen else KEYS[0]

    def _act(
        self, pick: int, action: Action, user: str, seconds: int = 0, *, dies: bool = False
    ) -> None:
        case = self._picked(pick)
        until = self._moment() + timedelta(seconds=seconds) if action == "snooze" else None
        outcome = "real" if action == "close" else None
        deed = Deed(action, self.users[user], outcome, until)  # type: ignore[arg-type]
        after, changes = step(case.episode, deed, self._moment())
        act = Act(action, self.users[user], user, "station", None, deed.outcome, until)
        work = stored_alarms.act(self.database, EVERYTHING, case.id, TRANSITIONS[action], act)
        try:
            if dies:
                with undone(self.db):
                    done(work)
                return
            done(work)
        except WrongState:
            assert changes == (), (case.episode, deed)
            assert after == case.episode
        else:
            assert changes, (case.episode, deed)
            self._happened(case.key, deed)

    def _happened(self, key: Key, happening: Any) -> None:
        case = self.open.get(key)
        before = None if case is None else case.episode
        after, changes = step(before, happening, self._moment())
        if after is None:
            return
        if case is None:
            case = self.open[key] = Case(key, after)
            self._begin(case)
        case.said += changes
        case.episode = after
        if before is not None:
            self._keep_timer(case, before)
        if after.handling == "closed":
            self.ended.append(self.open.pop(key))

    def _keep_timer(self, case: Case, before: Episode) -> None:
        """A timer follows its alarm."""
        one, timer = case.episode, case.timer
        moved = (before.handling, before.priority, before.snoozed_until)
        if (one.handling, one.priority, one.snoozed_until) == moved:
            return
        rests = one.snoozed_until is not None and one.snoozed_until > self._moment()
        if one.handling == "closed":
            case.timer = None
        elif one.handling == "open" and not rests:
            snooze_moved = before.snoozed_until != one.snoozed_until
            if before.handling != "open" or one.priority > before.priority or snooze_moved:
                self._begin(case)
        elif timer is not None and one.handling == "on_site":
            timer.due = timer.lease_until = None
        elif timer is not None and one.handling == "acknowledged":
            first = before.handling != "acknowledged"
            lease = self.clock + timer.lease if first else timer.lease_until
            assert lease is not None
            timer.due, timer.lease_until = None, self._at_least(lease, one.snoozed_until)
        elif timer is not None:
            timer.due, timer.lease_until = self._seconds(one.snoozed_until), None
        if one.handling != "open" or rests:
            case.told = dict.fromkeys(case.told, "cancelled")

    def _begin(self, case: Case) -> None:
        case.timer = self._begun(case)

    def _begun(self, case: Case) -> Ladder:
        """A ladder begins, or begins again: never with the number of a round before."""
        one = case.episode
        if case.timer is None:
            number = 1 + max((which[0] for which in case.told), default=0)
        else:
            number = case.timer.round + 1
        timer = Ladder(number, one.priority, self.clock, None, LEASES[one.priority])
        if one.handling == "open":
            timer.due = self._at_least(self.clock, one.snoozed_until)
        if one.handling == "acknowledged":
            timer.lease_until = self.clock + timer.lease
        return timer

    def _swept(self, *, dies: bool = False) -> bool:
        """One round of a sweep: plan what is due, tell faults, carry the plans out, if not dead."""
        due = [case for case in self.open.values() if self._is_due(case)]
        climbs = [
            self._climb(case) for case in due
            if case.timer and case.timer.lease_until is None and not self._snooze_is_over(case)
        ]  # fmt: skip
        opens = [case for case in due if all(case is not climb.case for climb in climbs)]
        telling = [climb for climb in climbs if climb.case.key != self.fault_key]
        fault = self.open.get(self.fault_key)
        if any(climb.nobody for climb in telling) and (
            fault is None or fault.episode.condition == "recovered"
        ):
            self._happened(self.fault_key, Trigger("technical", 3))
        if any(climb.somebody for climb in telling):
            self._happened(self.fault_key, Recovery())
        if dies:
            return bool(due)
        for climb in climbs:
            climb.case.timer = climb.timer
            climb.case.told |= dict.fromkeys(climb.told, "pending")
        for case in opens:
            leased = case.timer is not None and case.timer.lease_until is not None
            self._happened(case.key, Passing("lease_expired" if leased else "snooze_over"))
        return bool(due)

    def _is_due(self, case: Case) -> bool:
        timer = case.timer
        return timer is not None and any(
            moment is not None and moment <= self.clock for moment in (timer.due, timer.lease_until)
        )

    def _snooze_is_over(self, case: Case) -> bool:
        until = case.episode.snoozed_until
        return until is not None and until <= self._moment()

    def _climb(self, case: Case) -> "Climb":
        """Climb every rung that is due."""
        assert case.timer is not None
        timer = replace(case.timer)
        assert timer.due is not None
        if timer.rung == len(LADDERS[timer.priority]):
            timer = self._begun(case)
            assert timer.due is not None
        rungs = LADDERS[timer.priority]
        climb = Climb(case, timer)
        first_call = timer.rung == 0 or (timer.rung == 1 and timer.priority < 3)
        while timer.rung < len(rungs) and timer.due is not None and timer.due <= self.clock:
            only_wall, people = timer.rung == 0 and timer.priority < 3, False
            for number, audience in rungs[timer.rung][1]:
                for user in self._reached(audience):
                    climb.told.append((timer.round, number, audience, user))
                    people = people or user is not None
            climb.somebody = climb.somebody or people
            timer.rung += 1
            if timer.rung < len(rungs):
                own = timer.began + rungs[timer.rung][0]
                timer.due = own if people or only_wall else min(own, self.clock)
        if timer.rung == len(rungs):
            timer.due = self.clock + timer.lease
            climb.nobody = timer.priority > 1 and first_call and not climb.somebody
        return climb

    def _reached(self, audience: str) -> list[int | None]:
        if audience == "wall":
            return [None]
        on_duty = {post for post in POSTS if self.on_post[post] and self.enabled[post]}
        if audience in on_duty:
            return [self.users[audience]]
        if audience == "supervisor":
            return [self.users[audience]] if self.enabled[audience] else []
        # Without any roster the nurses of the place count.
        return [] if on_duty else [self.users[one] for one in POSTS[:2] if self.enabled[one]]

    def _rescued(self) -> int:
        """What the watchdog finds gets its timer back, and a living owner; return how many."""
        rescued = 0
        names = {number: name for name, number in self.users.items()}
        for case in self.open.values():
            one, timer = case.episode, case.timer
            owner = names.get(one.owner or 0)
            if one.handling != "open" and (owner is None or not self.enabled[owner]):
                self._happened(case.key, Passing("owner_lost"))
            elif timer is None or self._stands_still(case, timer):
                self._begin(case)
                case.said.append("rescued")
            else:
                continue
            rescued += 1
        return rescued

    def _stands_still(self, case: Case, timer: Ladder) -> bool:
        one = case.episode
        if one.handling == "open":
            return timer.due is None or timer.began > self.clock + 5
        if one.handling != "acknowledged":
            return False
        latest = self._at_least(self.clock + timer.lease, one.snoozed_until)
        return timer.lease_until is None or timer.lease_until > latest + 5

    def _die(self, *, after: bool) -> Parameters:
        """A worker's sweep until it is killed; return the plans it had made."""
        worker = Dying(self.db)
        worker.at, worker.after = b"escalate(", after
        try:
            done(self._worker(worker).sweep())
        except Crash:
            # Faults are told before plans are carried out, in a transaction of their own.
            assert self._swept(dies=True)
            return worker.plans
        assert not any(map(self._is_due, self.open.values()))
        return None

    def _worker(self, database: Database) -> Escalator:
        return Escalator(database, ZoneInfo("Asia/Shanghai"), Metrics(CollectorRegistry()))

    def _set_clock(self, clock: int) -> None:
        self.clock = clock
        self.db.execute(b"SELECT set_config('model.now', %s, true)", [self._moment().isoformat()])

    def _at_least(self, clock: int, moment: datetime | None) -> int:
        seconds = self._seconds(moment)
        return clock if seconds is None else max(clock, seconds)

    def _moment(self) -> datetime:
        return BEGINNING + timedelta(seconds=self.clock)

    def _seconds(self, moment: datetime | None) -> int | None:
        return None if moment is None else round((moment - BEGINNING).total_seconds())


def put_on(home: Home, user: int, post: str) -> None:
    """Put somebody on a post, for as long as any history lasts."""
    home.db.execute(
        b"INSERT INTO shifts (place_id, user_id, post, during)"
        b" VALUES (%s, %s, %s, tstzrange(NULL, NULL))",
        [home.place, user, post],
    )


@pytest.fixture
def life(dsn: str) -> Iterator[type[Life]]:
    """Return the machine, with a facility whose clock is the model's."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_CLOCK.encode())
    home = Home(f"{dsn}?options=-csearch_path%3Dmodel,pg_catalog,public")
    home.db.prepare_threshold = 2
    Life.home = home
    Life.users = {
        post: home.user(post, "supervisor" if post == "supervisor" else "nurse") for post in POSTS
    }
    for post, user in Life.users.items():
        put_on(home, user, post)
    yield Life
    home.close()


@pytest.mark.timeout(600 + EXAMPLES)  # a failure takes up to five minutes to be made small
@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_happens_to_alarms_happens_as_in_the_model(life: type[Life], part: int) -> None:
    most = AT_A_TIME if SEED else EXAMPLES // PARTS
    began = time.monotonic()
    first = int(SEED) if SEED else random.randrange(2**32)  # noqa: S311  no secret
    for number, begun in enumerate(range(0, most, AT_A_TIME)):
        rate = begun / (time.monotonic() - began)
        print(
            f"part {part}: {begun} histories of {most}, {rate:.1f} a second; seed {first + number}",
            flush=True,
        )
        try:
            run_state_machine_as_test(
                seed(first + number)(life),
                settings=settings(
                    max_examples=min(AT_A_TIME, most - begun),
                    stateful_step_count=STEPS,
                    deadline=None,
                    print_blob=True,
                    database=None,
                    phases=(Phase.generate, Phase.shrink),
                    suppress_health_check=list(HealthCheck),
                ),
            )
        except BaseException as error:
            error.add_note(f"ANXIN_MODEL_SEED={first + number} tries these histories again.")
            raise
        # Histories that were rolled back leave their dead rows behind.
        life.home.db.execute("TRUNCATE alarms CASCADE")
    assert life.histories >= most


CARER, OTHER = CARERS
HAPPENINGS: list[Happening] = [
    *(Trigger("", priority) for priority in PRIORITY_NUMBER.values()),
    Recovery(),
    *(Deed(action, 0) for action in TRANSITIONS),
    *(Passing(what) for what in get_args(Passing.__annotations__["what"])),
]
"""Everything that can happen; the model's words of class and user are filled in below."""


def every_state(owner: int, severe_ats: Sequence[datetime]) -> Iterator[Episode]:
    """Yield every state that an episode can be in, as far as its life depends on it."""
    hour = timedelta(hours=1)
    for class_, handling, priority, condition, severe_at in itertools.product(
        get_args(Class), get_args(Handling), PRIORITY_NUMBER.values(), get_args(Condition),
        severe_ats,
    ):  # fmt: skip
        owners = (owner, None) if handling == "open" else (owner,)
        ended = handling == "closed"
        may_rest = class_ not in NEVER_SNOOZED and not ended
        snoozes = (None, BEGINNING - hour, BEGINNING + hour) if may_rest else (None,)
        for owner_, snoozed_until in itertools.product(owners, snoozes):
            outcome: Outcome | None = "real" if ended else None
            yield Episode(
                class_, priority, severe_at, condition, handling, outcome, 3, owner_, snoozed_until
            )


def test_what_happens_by_itself_is_all_tried() -> None:
    # A rise comes with a trigger, the end by policy with a recovery.
    by_itself = {one.what for one in HAPPENINGS if isinstance(one, Passing)}
    assert by_itself | {"rise", "end_by_policy"} == AUTOMATIC.keys() == set(get_args(Automatic))


@pytest.mark.parametrize("happening", HAPPENINGS, ids=str)
def test_in_every_state_the_database_does_what_the_table_says(
    life: type[Life], happening: Happening
) -> None:
    home, user, other = life.home, life.users[CARER], life.users[OTHER]
    home.db.pgconn.exec_(b"BEGIN")
    home.db.execute(b"SELECT set_config('model.now', %s, true)", [BEGINNING.isoformat()])
    calm = BEGINNING - Policy().calm
    # How long it has been calm matters to a trigger only.
    severe_ats = [calm, calm + timedelta(seconds=1)][: 1 + isinstance(happening, Trigger)]
    tried = 0
    for state in every_state(user, severe_ats):
        with undone(home.db):
            words = fill_in(happening, state, other)
            anew = state.handling == "closed" and isinstance(words, Trigger)
            expected = [state] if anew else []
            after, changes = step(state, words, BEGINNING)
            assert after is not None
            number = stored(home, state)
            carried_out(home, number, words, user)
            rows = home.rows("SELECT * FROM alarms ORDER BY id")
            assert [episode_of(row) for row in rows] == [*expected, after], (state, words)
            lines = home.rows("SELECT change FROM timeline ORDER BY id")
            assert tuple(line["change"] for line in lines) == changes, (state, words)
        tried += 1
    home.db.pgconn.exec_(b"ROLLBACK")
    assert tried == 294 * len(severe_ats)


def fill_in(happening: Happening, state: Episode, user: int) -> Happening:
    """Return what happens, to an alarm of this class, by this user."""
    match happening:
        case Trigger():
            return msgspec.structs.replace(happening, class_=state.class_)
        case Deed("close"):
            return msgspec.structs.replace(happening, user=user, outcome="false")
        case Deed("snooze"):
            until = BEGINNING + timedelta(hours=2)
            return msgspec.structs.replace(happening, user=user, until=until)
        case Deed():
            return msgspec.structs.replace(happening, user=user)
        case _:
            return happening


def stored(home: Home, state: Episode) -> int:
    """Put an alarm into the database in this state, with its timer; return its id."""
    return home._id(
        "INSERT INTO alarms (subject, place_id, kind, class, priority, severe_at, condition,"
        " handling, outcome, count, owner_id, snoozed_until, raised_at, last_at, event_at,"
        " closed_at) VALUES ('r1', %(place)s, 'sos', %(class_)s, %(priority)s, %(severe_at)s,"
        " %(condition)s, %(handling)s, %(outcome)s, %(count)s, %(owner)s, %(snoozed_until)s,"
        " now(), now(), now(), CASE WHEN %(outcome)s::text IS NOT NULL THEN now() END) {}",
        {"place": home.place, **msgspec.structs.asdict(state)},
    )


def episode_of(row: Mapping[str, Any]) -> Episode:
    """Return what the database says of an alarm, in the words of the model."""
    renamed = {"class_": row["class"], "owner": row["owner_id"]}
    return Episode(**{name: ({**row, **renamed})[name] for name in Episode.__struct_fields__})


def carried_out(home: Home, number: int, happening: Happening, owner: int) -> None:
    """Let it happen in the database, by the way that it has there."""
    match happening:
        case Trigger():
            home.db.execute(
                b"SELECT raise_alarm('r1', NULL, %s, NULL, 'sos', %s, %s::smallint, now(), false,"
                b" %s, '{}', 'test')",
                [home.place, happening.class_, happening.priority, happening.count],
            )
        case Recovery():
            home.db.execute(b"SELECT recover_alarm('r1', 'sos', 'test')")
        case Deed(action):
            act = Act(
                action, happening.user, "b", "station", None, happening.outcome, happening.until
            )
            with suppress(WrongState):
                done(
                    stored_alarms.act(Inside(home.db), EVERYTHING, number, TRANSITIONS[action], act)
                )
        case Passing("owner_lost"):
            home.db.execute(b"UPDATE users SET disabled_at = now() WHERE id = %s", [owner])
            home.db.execute(b"SELECT rescue_alarms()")
        case Passing(what):
            # The plan holds for the timer, so that only the alarm's own state can refuse it.
            home.db.execute(
                b"SELECT escalate(jsonb_build_array(jsonb_build_object('does', %s::text,"
                b" 'alarm_id', alarm_id, 'round', round, 'step', next_step, 'due_at', due_at,"
                b" 'lease_until', lease_until, 'deliveries', '[]'::jsonb, 'lines',"
                b" jsonb_build_array(jsonb_build_object('change', %s::text, 'note', '')))))"
                b" FROM escalations",
                [what, what],
            )
        case _:
            assert_never(happening)


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

    began = time.monotonic()
    with ThreadPoolExecutor(WRITERS) as writers:
        expected = sum(writers.map(write, range(WRITERS)), Counter())
    print(f"{TRIGGERS} triggers, {TRIGGERS / (time.monotonic() - began):.0f} a second")
    assert sum(expected.values()) == TRIGGERS
    alarms = home.alarms()
    assert {(row["subject"], row["kind"]): row["count"] for row in alarms} == expected
    assert len(alarms) == len(expected)
    assert home.value("SELECT count(*) FROM timeline") == TRIGGERS
    assert home.value("SELECT count(*) FROM timeline WHERE change = 'raised'") == len(expected)
    assert home.value("SELECT count(*) FROM escalations WHERE due_at IS NOT NULL") == len(expected)
    home.close()


def test_only_a_repeat_hard_on_the_heels_of_another_does_not_ring(dsn: str) -> None:
    home = Home(dsn)
    again = (
        "BEGIN; UPDATE alarms SET last_at = clock_timestamp() - interval '{} ms', condition = '{}';"
        f" SELECT raise_alarm('r1', NULL, {home.place}, NULL, 'sos', 'emergency',"
        " {}::smallint, now(), false, 1, '{{}}', 'test');"
        " SELECT pg_notify('anxin_alarm', '{}'); COMMIT"
    )
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute("LISTEN anxin_alarm")
        for moment, condition, priority, name in (
            (0, "present", 2, "raised"),
            (1, "present", 2, "at once"),
            (1000, "present", 2, "after a second"),
            (-3_600_000, "present", 2, "after the clock was set back"),
            (1, "recovered", 2, "present again"),
            (1, "present", 3, "of a higher priority"),
        ):
            home.db.execute(again.format(moment, condition, priority, name).encode())
        home.db.execute("SELECT pg_notify('anxin_alarm', 'end')")
        heard: list[str] = []
        for notice in listener.notifies(timeout=10):
            heard.append(notice.payload)
            if notice.payload == "end":
                break
    # The ring itself has no word with it, and comes before the word of its transaction.
    silent = [name for before, name in itertools.pairwise(["", *heard]) if name and before]
    assert silent == ["at once", "end"]
    assert home.value("SELECT count FROM alarms") == 6
    assert home.value("SELECT count(*) FROM timeline") == 6
    home.close()

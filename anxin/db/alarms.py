"""Alarms: read, acted on, streamed, and confirmed as received."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from anxin.alarms import (
    NEVER_SNOOZED,
    PRIORITY_NUMBER,
    Action,
    Handling,
    Outcome,
    Priority,
    Transition,
)
from anxin.db.pool import Connection, Database, blocks, translated
from anxin.db.scope import Scope
from anxin.errors import Conflict, NotFound

AlarmObject = dict[str, Any]
"""The alarm object of the API, without `actions`, as the SQL function `alarm_object` makes it."""


class WrongState(Conflict):
    """The alarm is in a state in which this cannot be done."""

    def __init__(self, message: str, alarm: AlarmObject) -> None:
        """Keep the alarm as it is now, so that the caller can be shown it."""
        super().__init__(message)
        self.alarm = alarm


@dataclass(frozen=True, slots=True)
class Act:
    """What somebody does with an alarm: who, through which channel, with which words."""

    action: Action
    user_id: int
    username: str
    channel: str
    note: str | None = None
    outcome: Outcome | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class TimelineLine:
    """One change of an alarm: when, what, who, through which channel, and what it left behind."""

    id: str
    at: datetime
    change: str
    actor: str
    channel: str
    note: str | None
    cursor: int | None
    handling: Handling
    priority: Priority
    condition: str


@dataclass(frozen=True, slots=True)
class Notice:
    """One change in the order of the stream, with what decides who may see it."""

    cursor: int
    change: str
    at: datetime
    alarm: AlarmObject
    resident_id: int | None
    path: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """A viewer says that it received a cursor or displayed an alarm; a family has no path."""

    kind: str
    user_id: int
    path: str | None
    cursor: int = 0
    alarm_id: int = 0


async def alarms(
    database: Database,
    scope: Scope,
    *,
    handling: Sequence[Handling] | None,
    priority: Sequence[Priority] | None,
    kind: Sequence[str] | None,
    resident_id: int | None,
    place_id: int | None,
    before: int | None,
    limit: int,
) -> list[tuple[int, AlarmObject]]:
    """Return alarms with their numbers, newest first."""
    rows = await database.fetch(
        blocks("alarms")["list"],
        {
            **scope.parameters(),
            "handling": handling and list(handling),
            "priority": priority and [PRIORITY_NUMBER[one] for one in priority],
            "kind": kind and list(kind),
            "resident_id": resident_id,
            "place_id": place_id,
            "before": before,
            "limit": limit,
        },
    )
    return [(row["id"], row["alarm"]) for row in rows]


async def alarm(database: Database, scope: Scope, alarm_id: int) -> AlarmObject:
    """Return one alarm; raise NotFound."""
    row = await database.fetch_one(blocks("alarms")["get"], {**scope.parameters(), "id": alarm_id})
    if row is None:
        raise missing(alarm_id)
    seen: AlarmObject = row["alarm"]
    return seen


async def act(
    database: Database, scope: Scope, alarm_id: int, transition: Transition, act_: Act
) -> AlarmObject:
    """Carry out one action with its line of the timeline, both or neither.

    Raise NotFound, or WrongState when somebody was first.
    """
    sql = blocks("alarms")
    parameters = {"id": alarm_id, "user_id": act_.user_id}
    async with database.transaction() as connection:
        await connection.execute(sql["lock"], parameters)
        seen = await connection.execute(sql["get"], {**scope.parameters(), **parameters})
        row = await seen.fetchone()
        if row is None:
            raise missing(alarm_id)
        if act_.action == "snooze" and row["alarm"]["class"] in NEVER_SNOOZED:
            raise WrongState("An emergency or safety alarm is never put off.", row["alarm"])
        if act_.action != "note":
            changed = await connection.execute(
                sql["change"],
                {
                    **parameters,
                    "target": transition.target,
                    "sources": list(transition.sources),
                    "outcome": act_.outcome,
                    "until": act_.until,
                },
            )
            if changed.rowcount == 0:
                raise WrongState(transition.refusal, row["alarm"])
        recorded = await connection.execute(
            sql["record"],
            {
                **parameters,
                "change": transition.change,
                "username": act_.username,
                "channel": act_.channel,
                "note": act_.note,
            },
        )
        after = await recorded.fetchone()
        if after is None:
            raise missing(alarm_id)
        result: AlarmObject = after["alarm"]
    return result


async def timeline(
    database: Database, scope: Scope, alarm_id: int, *, after: int, limit: int
) -> list[TimelineLine]:
    """Return the changes of an alarm, oldest first; raise NotFound."""
    await alarm(database, scope, alarm_id)
    rows = await database.fetch(
        blocks("alarms")["timeline"], {"id": alarm_id, "after": after, "limit": limit}
    )
    return [TimelineLine(**row) for row in rows]


async def open_by_priority(database: Database) -> dict[int, int]:
    """Return how many alarms are not closed, by priority."""
    rows = await database.fetch(blocks("alarms")["open"])
    return {row["priority"]: row["alarms"] for row in rows}


async def advance(connection: Connection) -> int:
    """Give committed changes their place in the stream and return the last place given.

    The connection must be in autocommit mode: everything up to that place is then committed.
    """
    async with translated():
        row = await (await connection.execute(blocks("alarms")["advance"])).fetchone()
    return int(row["cursor"]) if row else 0


async def oldest_cursor(database: Database) -> int | None:
    """Return the oldest place of the stream that is still kept."""
    row = await database.fetch_one(blocks("alarms")["oldest"])
    return row["cursor"] if row else None


async def notices(
    source: Database | Connection, scope: Scope, *, after: int, upto: int, limit: int
) -> list[Notice]:
    """Return changes in the order of the stream, after one place and up to another."""
    parameters = {**scope.parameters(), "after": after, "upto": upto, "limit": limit}
    query = blocks("alarms")["stream"]
    if isinstance(source, Database):
        rows = await source.fetch(query, parameters)
    else:
        async with translated():
            rows = await (await source.execute(query, parameters)).fetchall()
    return [Notice(**row) for row in rows]


async def keep_receipts(database: Database, receipts: Sequence[Receipt]) -> None:
    """Store what viewers confirmed; what is known already or was not theirs to see is left out."""
    await database.execute(
        blocks("alarms")["receive"],
        {
            "kinds": [one.kind for one in receipts],
            "cursors": [one.cursor for one in receipts],
            "alarms": [one.alarm_id for one in receipts],
            "users": [one.user_id for one in receipts],
            "paths": [one.path for one in receipts],
        },
    )


def missing(alarm_id: int) -> NotFound:
    """Return the answer for an alarm that does not exist or may not be seen."""
    return NotFound(f"There is no alarm {alarm_id}, or you may not see it.")

"""Two facilities with their people: who is on duty, who may see whom, how each is reached.

    facility A, B: nurse (first on duty), second, supervisor; a relative of some residents of A

The ladder is a fast one, so that a run of a minute climbs all of it.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from anxin.config import Address
from anxin.db.pool import Connection, connect
from anxin.db.users import Role, ensure_user
from bench.population import Enrolled, enrol

PASSWORD: Final = "only-for-this-run"  # noqa: S105 - of a throw-away database on loopback
FACILITIES: Final = ("A", "B")
STEPS: Final = ((0, "wall"), (0, "first"), (3, "second"), (6, "supervisor"))
"""Seconds after which each audience is called."""

_BUTTON: Final = "oximeter"
"""A kind that waits to be used: thousands of buttons that nobody has pressed yet are not missed."""
_POSTS: Final[tuple[tuple[str, Role, str], ...]] = (
    ("nurse", "nurse", "first"),
    ("second", "nurse", "second"),
    ("supervisor", "supervisor", "supervisor"),
)
_USER = b"SELECT id FROM users WHERE username = %(name)s"
_PLACE = b"SELECT id, path FROM places WHERE name = %(name)s"
_SHIFT = b"""
    INSERT INTO shifts (place_id, user_id, post, during)
    VALUES (%(place)s, %(user)s, %(post)s,
            tstzrange(now() - interval '1 day', now() + interval '1 day'))
"""
_CONTACT = b"""
    INSERT INTO contacts (user_id, channel, address, secret)
    VALUES (%(user)s, 'webhook', %(address)s, 'chaos')
"""
_LADDER = b"""
    INSERT INTO ladders (place_id, priority, lease_seconds, steps)
    VALUES (%(place)s, 3, 600, %(steps)s)
"""
_LINK = b"""
    INSERT INTO family_links (user_id, resident_id, scopes)
    SELECT %(user)s, unnest(%(residents)s::bigint[]), '{status,alarms}'
"""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is told of alarms, and whose: those of a place, or of some residents."""

    name: str
    post: str
    path: str | None = None
    residents: frozenset[int] = frozenset()

    def may_see(self, path: str, resident_id: int | None) -> bool:
        """Tell whether an alarm at `path` about a resident is any business of this person."""
        if self.path is not None:
            return path.startswith(self.path)
        return resident_id in self.residents


@dataclass(frozen=True, slots=True)
class Town:
    """Everybody in this run."""

    people: tuple[Person, ...]
    steady: tuple[Enrolled, ...]
    buttons: tuple[Enrolled, ...]
    misdated: tuple[Enrolled, ...]
    """Call buttons whose clocks are ten years off."""


async def found(dsn: str, notices: Address, *, steady: int, buttons: int) -> Town:
    """Write both facilities, their people, devices, shifts, ladders and contacts."""
    devices = await enrol(dsn, "chaos", steady)
    # Assigned since long ago they would be missed at once, before anybody could press one.
    since = datetime.now(UTC) - timedelta(minutes=1)
    presses = [
        await enrol(dsn, f"chaosbutton{facility}", buttons // 2, kind=_BUTTON, since=since)
        for facility in FACILITIES
    ]
    misdated = await enrol(dsn, "chaosmisdated", 4, kind="call_button")
    people = []
    async with await connect(dsn, autocommit=True, application="anxin chaos") as database:
        for facility, residents in zip(FACILITIES, presses, strict=True):
            people += await _staff(dsn, database, facility, notices)
            if facility == "A":
                people.append(await _relative(dsn, database, residents[::5]))
    mixed = [button for pair in zip(*presses, strict=True) for button in pair]
    return Town(tuple(people), tuple(devices), tuple(mixed), tuple(misdated))


async def _staff(dsn: str, database: Connection, facility: str, notices: Address) -> list[Person]:
    row = await _one(database, _PLACE, {"name": f"chaosbutton{facility}"})
    place, path = int(row["id"]), str(row["path"])
    people = []
    for word, role, post in _POSTS:
        name = f"{word}-{facility.lower()}"
        await asyncio.to_thread(ensure_user, dsn, name, PASSWORD, role, place)
        user = int((await _one(database, _USER, {"name": name}))["id"])
        await database.execute(_SHIFT, {"place": place, "user": user, "post": post})
        await database.execute(_CONTACT, {"user": user, "address": f"http://{notices}/{name}"})
        people.append(Person(name, post, path))
    steps = [
        {
            "after_seconds": after,
            "audience": audience,
            "channels": ["station"] if audience == "wall" else ["station", "webhook"],
        }
        for after, audience in STEPS
    ]
    await database.execute(_LADDER, {"place": place, "steps": json.dumps(steps)})
    return people


async def _relative(dsn: str, database: Connection, of: Sequence[Enrolled]) -> Person:
    residents = [button.resident_id for button in of]
    await asyncio.to_thread(ensure_user, dsn, "relative", PASSWORD, "family")
    user = int((await _one(database, _USER, {"name": "relative"}))["id"])
    await database.execute(_LINK, {"user": user, "residents": residents})
    return Person("relative", "family", None, frozenset(residents))


async def _one(database: Connection, query: bytes, parameters: dict[str, object]) -> dict[str, Any]:
    row = await (await database.execute(query, parameters)).fetchone()
    assert row is not None  # noqa: S101 - it was written a moment ago
    return row

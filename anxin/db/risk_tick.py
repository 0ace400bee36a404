"""What the worker's risk duty reads and writes, on one connection that also holds its shards.

A shard is the residents whose number leaves the same rest. Whoever holds a shard's lock judges
them; the lock goes with the connection, so everything is written on that very connection: a worker
that has lost its locks cannot write any more.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from psycopg.rows import DictRow

from anxin.db import arrays
from anxin.db.arrays import Texts
from anxin.db.intake import Raise, Recover, Transaction
from anxin.db.pool import Connection, blocks, broken_off, connect, translated
from anxin.db.risk import Mode, Model
from anxin.errors import DatabaseUnavailable

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

SHARDS: Final = 16
CHUNK: Final = 4096
STALLED_SECONDS: Final = 30.0
LAYOUT: Final = "float64"
_SQL = blocks("risk_tick")


@dataclass(frozen=True, slots=True)
class Members:
    """Residents in order of id: arrays of one length; `sex` 1 male, 0 female, NaN unknown."""

    id: Ints
    place: Ints
    station: Ints
    scale2: Floats
    age: Floats
    sex: Floats


@dataclass(frozen=True, slots=True)
class Score:
    """One resident's row of scores; `remember`: also a line of the history."""

    resident_id: int
    data_at_s: float | None
    score: int
    possible_max: int
    complete: bool
    band: str
    deterioration: float | None
    novelty: float | None
    priority: int
    model: str
    explanation: str
    remember: bool


class RiskTick:
    """The one connection of a risk duty; `shares` opens it and raises when it was lost."""

    def __init__(self, dsn: str) -> None:
        """Prepare; nothing connects before the first `shares`."""
        self._dsn = dsn
        self._connection: Connection | None = None
        self._mine: frozenset[int] = frozenset()

    async def close(self) -> None:
        """Give everything up; others take it over."""
        self._mine = frozenset()
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    @property
    def lost(self) -> bool:
        """Whether there is no connection, and so no shard."""
        return self._connection is None or self._connection.closed

    async def shares(self) -> frozenset[int]:
        """Take the shards that are one's due and free, give back what is too many; return one's."""
        if self.lost:
            await self._begin()
        held: set[int] = set()
        async with self._transaction() as connection:
            row = await (await connection.execute(_SQL["shares"])).fetchone()
            assert row is not None  # noqa: S101  an aggregate has one row
            held = set(row["mine"])
            due = ceil(SHARDS / max(1, row["workers"]))
            for shard in sorted(held)[due:]:
                await connection.execute(_SQL["give_back"], {"shard": shard})
                held.discard(shard)
            for shard in sorted(set(range(SHARDS)) - held - set(row["others"])):
                if len(held) >= due:
                    break
                taken = await (await connection.execute(_SQL["take"], {"shard": shard})).fetchone()
                if taken and taken["taken"]:
                    held.add(shard)
        self._mine = frozenset(held)
        return self._mine

    async def now(self) -> datetime:
        """Return the database's time."""
        (row,) = await self._rows("alive")
        now: datetime = row["now"]
        return now

    async def members(self) -> Members:
        """Return who is judged here."""
        (row,) = await self._rows("members")
        return Members(**row)

    async def newest(self, since: datetime) -> list[Mapping[str, Any]]:
        """Return what devices heard since then measured last: arrays, some thousand a row."""
        return [*await self._rows("newest", since=since, chunk=CHUNK)]

    async def observed(self, since: datetime) -> list[DictRow]:
        """Return what counts of residents about whom staff wrote since then, oldest first."""
        return await self._rows("observed", since=since)

    async def hours(
        self, residents: Sequence[int], start: datetime, end: datetime
    ) -> Mapping[str, Any]:
        """Return hourly means as arrays: resident, hour (since the epoch) and six vital signs."""
        (row,) = await self._rows(
            "hours", **{"residents": list(residents), "from": start, "to": end}
        )
        return row

    async def episodes(self, bundle_seconds: float) -> list[DictRow]:
        """Return the model's alarms that are open or were closed so lately."""
        return await self._rows("episodes", bundle=bundle_seconds)

    async def alarmed(self) -> tuple[Ints, Ints]:
        """Return who has an open alarm of the body, and the highest priority of those of rules."""
        (row,) = await self._rows("alarmed")
        return row["resident"], row["rules"]

    async def modes(self) -> list[DictRow]:
        """Return what each model may do, from everywhere to the narrowest place."""
        return await self._rows("modes")

    async def peaks(self, bundle_seconds: float) -> Mapping[str, Any]:
        """Return the highest learned scores of a week: resident, block, deterioration, novelty."""
        (row,) = await self._rows("peaks", bundle=bundle_seconds)
        return row

    async def told(self, bundle_seconds: float) -> Mapping[str, Any]:
        """Return learned layers' alarms of a week: resident, block, rising (else unusual)."""
        (row,) = await self._rows("told", bundle=bundle_seconds)
        return row

    async def labels(self, days: float) -> list[DictRow]:
        """Return by station what came of alarms: resident, of_model (else of NEWS2), real."""
        return await self._rows("labels", days=days)

    async def baselines(self, numbers: int) -> tuple[Ints, Floats, Floats]:
        """Return residents, since when, and (numbers, residents) of what is known of them."""
        (row,) = await self._rows("baselines", layout=LAYOUT, size=8 * numbers)
        state = np.frombuffer(row["state"], np.float64).reshape(-1, numbers)
        return row["resident"], row["at"], state.T.copy()

    async def last_scores(self) -> Mapping[str, Any]:
        """Return how each stood when it was last written: resident, at, priority, band."""
        (row,) = await self._rows("last_scores")
        return row

    async def keep_baselines(
        self, residents: Ints, at_s: Floats, numbers: Floats, usuals: Sequence[str]
    ) -> None:
        """Store what is known of some residents: `numbers` (numbers, residents)."""
        async with self._transaction() as connection:
            await connection.execute(
                _SQL["keep_baselines"],
                {
                    "residents": residents,
                    "ats": at_s.tolist(),
                    "layout": LAYOUT,
                    "states": [column.tobytes() for column in numbers.T],
                    "usuals": Texts(usuals),
                },
            )

    async def keep(self, scores: Sequence[Score], alarms: Sequence[Raise | Recover]) -> None:
        """Write scores and what follows from them, in one transaction."""
        async with self._transaction() as connection:
            if scores:
                await connection.execute(_SQL["keep_scores"], _columns(scores))
            if alarms:
                await Transaction(connection).alarms(alarms)

    async def keep_state(
        self, model: Model, *, version: str, fault: str | None, state: str
    ) -> None:
        """Store how a model does; `state` is JSON."""
        async with self._transaction() as connection:
            await connection.execute(
                _SQL["keep_state"],
                {"model": model, "version": version, "fault": fault, "state": state},
            )

    async def set_mode(self, model: Model, place_id: int, mode: Mode, why: str) -> bool:
        """Make a model more careful at a place where it may alarm; return whether it did."""
        async with self._transaction() as connection:
            done = await connection.execute(
                _SQL["set_mode"],
                {"model": model, "place_id": place_id, "mode": mode, "why": why},
            )
            return done.rowcount > 0

    async def _begin(self) -> None:
        await self.close()
        self._connection = await connect(self._dsn, application="anxin worker risk")
        arrays.register(self._connection)
        arrays.register_columns(self._connection)
        async with self._transaction() as connection:
            await connection.execute(_SQL["join"])

    async def _rows(self, name: str, **parameters: object) -> list[DictRow]:
        parameters |= {"shards": SHARDS, "mine": sorted(self._mine)}
        # Arrays come in the binary form: columns, not thousands of objects.
        async with self._transaction() as connection, connection.cursor(binary=True) as cursor:
            await cursor.execute(_SQL[name], parameters)
            return await cursor.fetchall()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        connection = self._connection
        if connection is None or connection.closed:
            raise DatabaseUnavailable
        try:
            async with translated():
                with broken_off(connection, STALLED_SECONDS):
                    async with connection.transaction():
                        yield connection
        except DatabaseUnavailable:
            await self.close()
            raise


def _columns(scores: Sequence[Score]) -> dict[str, Any]:
    return {
        "residents": np.array([one.resident_id for one in scores], np.int64),
        "data_ats": [one.data_at_s for one in scores],
        "scores": [one.score for one in scores],
        "mosts": [one.possible_max for one in scores],
        "completes": [one.complete for one in scores],
        "bands": Texts(one.band for one in scores),
        "deteriorations": [one.deterioration for one in scores],
        "novelties": [one.novelty for one in scores],
        "priorities": [one.priority for one in scores],
        "models": Texts(one.model for one in scores),
        "explanations": Texts(one.explanation for one in scores),
        "remember": [one.remember for one in scores],
    }

"""Everything about one resident, read page by page."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from anxin.db.pool import Database, blocks
from anxin.db.residents import missing
from anxin.db.scope import Scope

PAGE: Final = 2_000
_SQL: Final = blocks("export")
_BEGINNING: Final = datetime(1, 1, 2, tzinfo=UTC)

Row = dict[str, Any]


class Source:
    """One resident as seen through a handle of the database and a scope."""

    def __init__(
        self, database: Database, scope: Scope, resident_id: int, *, operator: bool
    ) -> None:
        """Prepare; an `operator` reads the tables, anybody else what the database hands out."""
        self._database = database
        self._scope = scope
        self.resident_id = resident_id
        self._readings = _SQL["readings" if operator else "exported"]

    async def person(self) -> Row:
        """Return the resident with the names of its places; raise NotFound."""
        row = await self._database.fetch_one(
            _SQL["person"], {"path": self._scope.path, "id": self.resident_id}
        )
        if row is None:
            raise missing(self.resident_id)
        return row

    async def assignments(self) -> list[Row]:
        """Return which devices the resident had when: id, device_id, kind, name, since, until."""
        return await self._database.fetch(_SQL["assignments"], {"id": self.resident_id})

    async def visits(self) -> list[Row]:
        """Return visits and services: kind, at, minutes, note, recorded_at."""
        return await self._database.fetch(_SQL["visits"], {"id": self.resident_id})

    async def observations(self) -> list[Row]:
        """Return what staff observed: at, recorded_at, the values, withdrawn, corrected."""
        return await self._database.fetch(_SQL["observations"], {"id": self.resident_id})

    async def count(self) -> int:
        """Return how many readings there are; for operators."""
        row = await self._database.fetch_one(_SQL["count"], {"id": self.resident_id})
        return int(row["readings"]) if row else 0

    async def readings(self, assignment_id: int) -> AsyncIterator[list[Row]]:
        """Yield the readings of one assignment in order of time, in pages."""
        start = _BEGINNING
        while True:
            rows = await self._database.fetch(
                self._readings, {"assignment": assignment_id, "from": start, "most": PAGE}
            )
            if rows:
                yield rows
            if len(rows) < PAGE:
                return
            start = rows[-1]["ts"] + timedelta(microseconds=1)

    async def events(self) -> AsyncIterator[list[Row]]:
        """Yield the events of the resident's devices in order of time, in pages."""
        after: tuple[datetime, int, str] = (_BEGINNING, 0, "")
        while True:
            ts, key, event = after
            rows = await self._database.fetch(
                _SQL["events"],
                {"id": self.resident_id, "ts": ts, "key": key, "event": event, "most": PAGE},
            )
            if rows:
                yield rows
            if len(rows) < PAGE:
                return
            after = (rows[-1]["ts"], rows[-1]["device_key"], rows[-1]["id"])

    async def alarms(self) -> AsyncIterator[list[Row]]:
        """Yield the resident's alarms, each with its timeline and notices, in pages."""
        after = 0
        while True:
            rows = await self._database.fetch(
                _SQL["alarms"], {"id": self.resident_id, "after": after, "most": PAGE // 10}
            )
            if rows:
                yield rows
            if len(rows) < PAGE // 10:
                return
            after = int(rows[-1]["id"])

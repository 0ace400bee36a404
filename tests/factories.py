"""Rows for tests, written the short way: places, residents, devices, assignments."""

from typing import Any

import psycopg
from psycopg.rows import dict_row

from anxin.device_secret import new_secret

Row = dict[str, Any]


class Ward:
    """A facility in a fresh database, and short questions to it."""

    def __init__(self, dsn: str) -> None:
        """Make one facility."""
        self.db = psycopg.connect(dsn, autocommit=True, row_factory=dict_row)
        self.place = self._id("INSERT INTO places (kind, name) VALUES ('facility', '安心') {}")

    def resident(self, name: str = "王秀英", **columns: Any) -> int:
        """Add a resident."""
        columns = {"name": name, "place_id": self.place, **columns}
        names = ", ".join(columns)
        marks = ", ".join(f"%({name})s" for name in columns)
        return self._id(f"INSERT INTO residents ({names}) VALUES ({marks}) {{}}", columns)

    def device(
        self,
        device_id: str,
        kind: str = "bed_sensor",
        *,
        resident: int | None = None,
        since: str = "-infinity",
        place: int | None = None,
    ) -> str:
        """Add a device, assigned from `since` on when a resident is given; return its secret."""
        secret, salt, hashed = new_secret()
        key = self._id(
            "INSERT INTO devices (id, kind, salt, secret_hash, place_id)"
            " VALUES (%(id)s, %(kind)s, %(salt)s, %(hash)s, %(place)s) RETURNING key AS id",
            {"id": device_id, "kind": kind, "salt": salt, "hash": hashed, "place": place},
        )
        if resident is not None:
            self.db.execute(
                "INSERT INTO assignments (device_key, resident_id, during)"
                " VALUES (%s, %s, tstzrange(%s::timestamptz, NULL))",
                [key, resident, since],
            )
        return secret

    def rows(self, query: str, *parameters: Any) -> list[Row]:
        """Return the rows of a query."""
        return self.db.execute(query.encode(), parameters).fetchall()

    def value(self, query: str, *parameters: Any) -> Any:
        """Return the first column of the first row, or None."""
        row = self.db.execute(query.encode(), parameters).fetchone()
        return None if row is None else next(iter(row.values()))

    def alarms(self) -> list[Row]:
        """Return all alarms, oldest first."""
        return self.rows("SELECT * FROM alarms ORDER BY id")

    def close(self) -> None:
        """Close the connection."""
        self.db.close()

    def _id(self, query: str, parameters: Row | None = None) -> int:
        text = query.format("RETURNING id").encode()
        row = self.db.execute(text, parameters).fetchone()
        assert row is not None
        return int(row["id"])

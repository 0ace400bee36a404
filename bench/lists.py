"""`python -m bench.lists`: what row security costs the lists of a large installation.

Twenty facilities with a thousand residents, devices and alarms each; the questions of the API, put
as it puts them, by a nurse of one facility, by an administrator, and past row security.
"""

import argparse
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil
import psycopg
from psycopg.rows import dict_row

from anxin.db.migrate import migrate
from anxin.db.pool import blocks
from anxin.db.sessions import hash_token
from anxin.embedded import EmbeddedPostgres

FACILITIES: Final = 20
_FILL: Final = """
INSERT INTO places (kind, name) VALUES ('district', 'district');
INSERT INTO places (kind, name, parent_id)
    SELECT 'town', 'town', id FROM places WHERE kind = 'district';
INSERT INTO places (kind, name, parent_id)
    SELECT 'facility', 'facility ' || n, id FROM places, generate_series(1, {facilities}) AS n
    WHERE kind = 'town';
INSERT INTO places (kind, name, parent_id)
    SELECT 'bed', f.name || ' ' || n, f.id FROM places f, generate_series(1, {each}) AS n
    WHERE f.kind = 'facility';
INSERT INTO residents (name, place_id)
    SELECT name, id FROM places WHERE kind = 'bed' ORDER BY random();
INSERT INTO devices (id, kind, place_id, salt, secret_hash)
    SELECT 'mat-' || id, 'bed_sensor', CASE WHEN id % 2 = 0 THEN place_id END, 'x', 'x'
    FROM residents ORDER BY random();
INSERT INTO assignments (device_key, resident_id, during)
    SELECT d.key, r.id, tstzrange(now() - interval '1 day', NULL)
    FROM devices d JOIN residents r ON d.id = 'mat-' || r.id;
INSERT INTO device_states (device_key, heard_at) SELECT key, now() FROM devices;
INSERT INTO alarms (subject, resident_id, kind, class, priority, raised_at, last_at, event_at,
                    handling, outcome, closed_at)
    SELECT 'r' || id, id, 'bed_exit', 'behavioural', 2, now(), now(), now(),
           CASE WHEN id % 20 = 0 THEN 'open' ELSE 'closed' END,
           CASE WHEN id % 20 <> 0 THEN 'real' END, CASE WHEN id % 20 <> 0 THEN now() END
    FROM residents ORDER BY random();
INSERT INTO users (username, password_hash, role, place_id)
    SELECT 'nurse', 'x', 'nurse', id FROM places WHERE name = 'facility 7'
    UNION ALL SELECT 'admin', 'x', 'admin', NULL;
"""
_NONE: Final = dict.fromkeys(
    ("resident_id", "place_id", "gateway_id", "handling", "priority", "kind")
)
LISTS: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    ("100 devices", "devices", {"revoked": False, "after": 0, "limit": 100}),
    ("100 devices, page 6", "devices", {"revoked": False, "after": 10_000, "limit": 100}),
    ("50 alarms", "alarms", {"before": None, "limit": 50}),
    ("50 open alarms", "alarms",
     {"before": None, "limit": 50, "handling": ["open", "acknowledged", "on_site"]}),
)  # fmt: skip


def main() -> int:
    """Fill a database, ask, and print milliseconds of processor time of the database's process."""
    parser = argparse.ArgumentParser(prog="python -m bench.lists", description=__doc__)
    parser.add_argument("--each", type=int, default=1000, help="residents of a facility")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--explain", action="store_true", help="print the plans of the nurse")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="anxin-lists-"))
    directory.chmod(0o711)
    try:
        with EmbeddedPostgres(directory, options={"fsync": "off"}) as server:
            migrate(server.dsn)
            _measure(server.dsn, options)
    finally:
        shutil.rmtree(directory)
    return 0


def _measure(dsn: str, options: argparse.Namespace) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_FILL.format(facilities=FACILITIES, each=options.each).encode())
        connection.execute("VACUUM ANALYZE")
        tokens = {name: secrets.token_urlsafe(32) for name in ("nurse", "admin")}
        for name, token in tokens.items():
            connection.execute(
                "INSERT INTO sessions (token_hash, user_id, expires_at)"
                " SELECT %s, id, now() + interval '1 hour' FROM users WHERE username = %s",
                [hash_token(token), name],
            )
        row = connection.execute("SELECT path FROM places WHERE name = 'facility 7'").fetchone()
    assert row is not None  # noqa: S101  just made
    views = (
        ("past row security", None, None, row[0]),
        ("administrator", "anxin_api", tokens["admin"], "/"),
        ("nurse", "anxin_api", tokens["nurse"], row[0]),
    )
    total = FACILITIES * options.each
    print(f"{total} residents, devices and alarms; milliseconds of processor time (by the clock)")
    print(f"{'':<22}" + "".join(f"{name:>24}" for name, *_ in views))
    for name, noun, parameters in LISTS:
        cells = []
        for _, role, session, path in views:
            with psycopg.connect(dsn, row_factory=dict_row) as connection:
                if role:
                    connection.execute(f"SET ROLE {role}".encode())
                    connection.commit()
                values = _NONE | {"path": path, "residents": []} | parameters
                ask = _Question(connection, session, blocks(noun)["list"], values)
                cells.append(ask.cost(options.rounds))
                if options.explain and role and path != "/":
                    print("\n".join(ask.plan()), file=sys.stderr)
        print(f"{name:<22}" + "".join(f"{cpu:>14.1f} ({wall:6.1f})" for cpu, wall in cells))


class _Question:
    """One statement as the API runs it: prepared, in a transaction that names its session."""

    def __init__(
        self,
        connection: psycopg.Connection[dict[str, Any]],
        token: str | None,
        query: bytes,
        values: dict[str, Any],
    ) -> None:
        self._connection = connection
        self._session = hash_token(token).hex() if token else ""
        self._query = query
        self._values = values

    def cost(self, rounds: int) -> tuple[float, float]:
        """Return milliseconds of the database's processor, and the median by the clock."""
        server = psutil.Process(self._connection.info.backend_pid)
        for _ in range(6):  # until its plan is settled
            self._ask(self._query)
        before, taken = sum(server.cpu_times()[:2]), []
        for _ in range(rounds):
            began = time.perf_counter()
            self._ask(self._query)
            taken.append((time.perf_counter() - began) * 1000)
        spent = sum(server.cpu_times()[:2]) - before
        return spent / rounds * 1000, median(taken)

    def plan(self) -> Sequence[str]:
        """Return how the server goes about it."""
        rows = self._ask(b"EXPLAIN (ANALYZE, BUFFERS) " + self._query)
        return [str(row["QUERY PLAN"]) for row in rows]

    def _ask(self, query: bytes) -> list[dict[str, Any]]:
        with self._connection.transaction():
            self._connection.execute(
                "SELECT set_config('anxin.session', %s, true)", [self._session]
            )
            return self._connection.execute(query, self._values, prepare=True).fetchall()


if __name__ == "__main__":
    sys.exit(main())

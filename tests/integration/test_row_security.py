"""The database itself holds who may see and change what: tried row by row, and by breaking it."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from anxin.db.pool import Database
from anxin.db.sessions import hash_token
from anxin.embedded import EmbeddedPostgres
from tests.conftest import database_of
from tests.integration import row_catalogue, row_world
from tests.integration.api_world import World
from tests.integration.row_catalogue import PUBLIC_FACTS, Connection, holes
from tests.integration.row_world import VISIBLE, Viewer, acting

OPEN_ON_PURPOSE = PUBLIC_FACTS | {"listening", "model_states", "backups"}
"""Tables that are read whole: rights, versions, when the platform was deaf, how models do,
which backups there are."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A filled database, everybody who has a session in it, and what they should see."""

    world: World
    connection: Connection
    tables: dict[str, list[str]]
    people: list[Viewer]
    expected: dict[tuple[str, str], set[str]]

    def misread(self, *tables: str) -> Iterator[str]:
        """Yield what somebody sees of these tables, or of all, and should not, or the reverse."""
        chosen = {name: self.tables[name] for name in tables or self.tables}
        return row_world.wrong_reads(
            self.connection, self.world, self.people, chosen, self.expected
        )

    def misused(self, table: str | None = None) -> Iterator[str]:
        """Yield every change of this table, or of any, that reaches beyond somebody's rows."""
        return itertools.chain(
            row_world.wrong_changes(self.connection, self.world, self.people, table),
            row_world.wrong_additions(self.connection, self.world, self.people, table),
        )

    @contextmanager
    def broken(self, statement: str | sql.Composable) -> Iterator[None]:
        """Break the database by one statement, for the length of a block."""
        text = statement.encode() if isinstance(statement, str) else statement
        with self.connection.transaction(force_rollback=True):
            self.connection.execute(text)
            yield


@pytest.fixture(scope="module")
def scene(postgres: EmbeddedPostgres, template: str) -> Iterator[Scene]:
    """Return one filled database for all tests here; each leaves it as it was."""
    with database_of(postgres, template) as dsn:
        world = row_world.populate(dsn)
        with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
            tables = row_world.readable(connection)
            missing = sorted(set(tables) - VISIBLE.keys())
            assert not missing, f"say in row_world.VISIBLE who should see {missing}"
            stored = row_world.read(connection, tables)
            people = row_world.viewers(world, stored)
            expected = row_world.expectations(people, tables)
            yield Scene(world, connection, tables, people, expected)


def first(found: Iterator[str]) -> str | None:
    """Return the first finding, and look no further."""
    return next(found, None)


def test_the_catalogue_holds_nothing_that_is_not_covered(scene: Scene) -> None:
    print(row_catalogue.counts(scene.connection))
    assert holes(scene.connection) == []


def test_a_migrated_database_lets_only_the_services_in(scene: Scene, template: str) -> None:
    query = b"""
        SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END AS role,
               array_agg(a.privilege_type ORDER BY a.privilege_type) AS rights
        FROM pg_database d CROSS JOIN aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
        WHERE d.datname = %s AND a.grantee <> d.datdba GROUP BY 1
    """
    rows = scene.connection.execute(query, [template]).fetchall()
    assert {row["role"]: row["rights"] for row in rows} == {
        "anxin_api": ["CONNECT"],
        "anxin_door": ["CONNECT"],
        "anxin_ingest": ["CONNECT", "TEMPORARY"],
        "anxin_worker": ["CONNECT", "TEMPORARY"],
    }


def test_a_request_of_nobody_sees_no_row_of_any_table(scene: Scene) -> None:
    for name in ("nobody", "forged"):
        with scene.connection.transaction(), acting(scene.connection, scene.world, name):
            for table in scene.tables.keys() - PUBLIC_FACTS:
                query = sql.SQL("SELECT count(*) AS n FROM {}").format(sql.Identifier(table))
                assert scene.connection.execute(query).fetchone() == {"n": 0}, (name, table)


def test_a_service_is_refused_every_table_that_it_has_no_use_for(scene: Scene) -> None:
    refused = []
    for role in row_catalogue.SERVICES:
        for one in row_catalogue.relations(scene.connection):
            query = (
                b"SELECT has_table_privilege(%(role)s, %(oid)s::oid, 'SELECT')"
                b" OR has_any_column_privilege(%(role)s, %(oid)s::oid, 'SELECT') AS may"
            )
            asked = {"role": role, "oid": one["oid"]}
            may = scene.connection.execute(query, asked).fetchone()
            if one["relkind"] == "S" or (may and may["may"]):
                continue
            with scene.connection.transaction(force_rollback=True):
                scene.connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    scene.connection.execute(f"SELECT 1 FROM {one['name']} LIMIT 1".encode())
            refused.append((role, one["name"]))
    print(f"{len(refused)} pairs of service and table are refused")
    assert {"anxin_api", "anxin_door"} <= {role for role, name in refused if name == "telemetry"}


def test_everybody_sees_exactly_the_rows_that_they_should_see(scene: Scene) -> None:
    assert list(scene.misread()) == []
    shown = sum(map(len, scene.expected.values()))
    print(f"{len(scene.people)} users, {len(scene.expected)} views of a table, {shown} rows shown")
    # The scene tells apart: of each table somebody sees something, and nobody but the admin all.
    for table in scene.tables.keys() - OPEN_ON_PURPOSE - {"deaf_spells", "quiet_hours"}:
        sizes = {one.name: len(scene.expected[one.name, table]) for one in scene.people}
        assert sizes["admin"] > max(n for name, n in sizes.items() if name != "admin") > 0, table


def test_nobody_changes_removes_or_adds_a_row_that_is_not_theirs(scene: Scene) -> None:
    missing = row_world.writable(scene.connection, "UPDATE").keys() - row_world.CHANGES.keys()
    assert not missing, f"say in row_world.CHANGES how to change {sorted(missing)}"
    assert list(scene.misused()) == []


def test_functions_show_readings_and_accesses_of_those_only_whom_one_sees(scene: Scene) -> None:
    residents = {name: int(scene.world.ids[name]) for name in ("anna", "ada", "bela")}
    until = datetime.now(UTC) + timedelta(minutes=1)
    since = until - timedelta(days=1)
    series = "SELECT 1 FROM {}(%(r)s, %(since)s, %(until)s, interval '1 minute', 1000, 1000)"
    asked: dict[str, Callable[[Viewer, int], bool]] = {
        series.format("series_of_readings"): _sees_vitals,
        series.format("series_of_minutes"): _sees_vitals,
        series.format("series_of_hours"): _sees_vitals,
        "SELECT 1 WHERE count_series(%(r)s, %(since)s, %(until)s) > 0": _sees_vitals,
        "SELECT 1 FROM assignments a CROSS JOIN exported_readings(a.id, '-infinity', 9)"
        " WHERE a.resident_id = %(r)s": _exports,
        "SELECT 1 FROM access_to(%(r)s, %(since)s, %(until)s, NULL, 99)": (
            lambda v, r: v.may("access.read") and v.sees(r, "status")
        ),
        "SELECT 1 FROM station_of(%(r)s)": (
            lambda v, r: v.may("residents.read") and v.sees(r, "status")
        ),
        "SELECT 1 FROM alarms a CROSS JOIN answers_to(a.id) WHERE a.resident_id = %(r)s": (
            lambda v, r: v.may("alarms.read") and v.sees(r, "alarms")
        ),
    }
    for viewer in scene.people:
        for query, should in asked.items():
            for name, number in residents.items():
                with scene.connection.transaction(force_rollback=True):
                    try:
                        with acting(scene.connection, scene.world, viewer.name):
                            cursor = scene.connection.execute(
                                query.encode(), {"r": number, "since": since, "until": until}
                            )
                            seen = cursor.fetchone() is not None
                    except psycopg.errors.InsufficientPrivilege:
                        seen = False
                assert seen == should(viewer, number), (viewer.name, query, name)


def test_an_alarm_is_described_to_whoever_has_its_row_and_not_from_a_made_up_one(
    scene: Scene,
) -> None:
    described = b"SELECT count(*) AS n, count(alarm_object(a)) AS told FROM alarms a"
    with scene.connection.transaction(), acting(scene.connection, scene.world, "nurse-b"):
        row = scene.connection.execute(described).fetchone()
        assert row is not None
        assert row["n"] == row["told"] == len(scene.expected["nurse-b", "alarms"])
        guess = b"SELECT alarm_object(jsonb_populate_record(NULL::alarms, %s::jsonb)) AS told"
        told = scene.connection.execute(guess, ['{"id": 1}']).fetchone()
        assert told == {"told": None}


async def test_two_users_over_one_connection_see_their_own_and_leave_nothing_behind(
    scene: Scene,
) -> None:
    query = b"SELECT pg_backend_pid() AS pid, array_agg(name ORDER BY name) AS names FROM residents"
    left = b"SELECT pg_backend_pid() AS pid, current_setting('anxin.session', true) AS session,"
    left += b" (SELECT count(*) FROM residents) AS seen"
    tokens = scene.world.tokens
    async with Database(scene.world.dsn, role="anxin_api", size=1) as database:
        bound = {
            name: database.on_behalf_of(hash_token(tokens[name])) for name in ("nurse", "nurse-b")
        }
        pids = set()
        for _ in range(3):
            for name, names in (("nurse", ["ada", "anna"]), ("nurse-b", ["bela"])):
                row = await bound[name].fetch_one(query)
                assert row is not None
                assert row["names"] == names
                async with bound[name].transaction() as connection:
                    again = await (await connection.execute(query)).fetchone()
                assert again == row
                with suppress(ZeroDivisionError):
                    async with bound[name].transaction() as connection:
                        await connection.execute(query)
                        raise ZeroDivisionError
                clean = await database.fetch_one(left)
                assert clean is not None
                assert (clean["session"], clean["seen"]) == ("", 0)
                pids |= {row["pid"], clean["pid"]}
        assert len(pids) == 1


def test_row_security_taken_off_one_table_is_found(scene: Scene) -> None:
    tables = [
        one["name"]
        for one in row_catalogue.relations(scene.connection)
        if one["relkind"] in "rp" and not one["telemetry"]
    ]
    for table in tables:
        for how in ("DISABLE", "NO FORCE"):
            with scene.broken(f"ALTER TABLE {table} {how} ROW LEVEL SECURITY"):
                assert any(said.startswith(f"{table}:") for said in holes(scene.connection)), table
                if how == "DISABLE" and table in scene.tables.keys() - PUBLIC_FACTS:
                    assert first(scene.misread(table)), f"nobody sees too much of {table}"
    print(f"{len(tables)} tables, each without row security once, and once not for its owner")


def test_one_policy_dropped_is_found(scene: Scene) -> None:
    names = {one["oid"]: one["name"] for one in row_catalogue.relations(scene.connection)}
    rules = row_catalogue.policies(scene.connection)
    for rule in rules:
        table = names[rule["oid"]]
        dropped = sql.SQL("DROP POLICY {} ON {}").format(
            sql.Identifier(rule["name"]), sql.Identifier(table)
        )
        if rule["roles"] == [row_catalogue.OWNER]:
            continue
        with scene.broken(dropped):
            assert row_catalogue.relation_holes(scene.connection) or first(scene.misread(table)), (
                f"{rule['name']} of {table} may go"
            )
    print(f"{len(rules)} policies, each dropped once")


def test_one_policy_opened_to_every_row_is_found_by_what_somebody_sees_or_reaches(
    scene: Scene,
) -> None:
    names = {one["oid"]: one["name"] for one in row_catalogue.relations(scene.connection)}
    rules = [
        one
        for one in row_catalogue.policies(scene.connection)
        if one["roles"] == ["anxin_api"] and names[one["oid"]] not in PUBLIC_FACTS
    ]
    for rule in rules:
        table = names[rule["oid"]]
        with scene.broken(row_world.weakened(table, rule)):
            found = scene.misread(table) if rule["command"] in "r*" else scene.misused(table)
            assert first(found), f"{rule['name']} of {table} may be open"
    print(f"{len(rules)} policies of requests, each opened once")


CONDITIONS = [
    ("acting_user()", "s.expires_at > now()"),
    ("acting_user()", "u.disabled_at IS NULL"),
    ("acting_user()", "s.limited IS NULL"),
    ("acting_path()", "u.role = 'family'"),
    ("acting_residents(text)", "scope = ANY(scopes_in_force(f.scopes, f.ends))"),
    ("acting_residents(text)", "u.id = acting_user()"),
    ("acting_may(text)", "r.right_ = acting_may.right_"),
    ("place_is_under(bigint, text)", "starts_with(p.path, path_)"),
    ("resident_is_under(bigint, text)", "starts_with(p.path, path_)"),
    ("device_is_under(integer, text)", "s.during @> now()"),
    ("device_stands_under(integer, text)", "starts_with(p.path, path_)"),
    ("device_is_with(integer, bigint[])", "s.during @> now()"),
    ("sees_event(integer, timestamptz)", "s.during @> moment"),
]


@pytest.mark.parametrize(("function", "condition"), CONDITIONS)
def test_a_function_of_the_policies_without_one_of_its_conditions_is_found(
    scene: Scene, function: str, condition: str
) -> None:
    query = b"SELECT pg_get_functiondef(%s::regprocedure) AS text"
    row = scene.connection.execute(query, [function]).fetchone()
    assert row is not None
    assert condition in row["text"]
    opened = "true"
    if condition == "s.during @> moment":
        opened = "s.during @> now()"
    if condition == "u.role = 'family'":
        opened = "false"
    with scene.broken(row["text"].replace(condition, opened)):
        assert first(scene.misread())


BROKEN = [
    "GRANT SELECT ON telemetry TO anxin_api",
    "GRANT SELECT (hr) ON telemetry TO anxin_door",
    "GRANT SELECT ON residents TO PUBLIC",
    "GRANT TRUNCATE ON residents TO anxin_worker",
    "GRANT SELECT ON tickets TO anxin_api",
    "GRANT SELECT (password_hash) ON users TO anxin_worker",
    "GRANT SELECT (secret_hash) ON devices TO anxin_api",
    "GRANT CREATE ON SCHEMA public TO anxin_gate",
    "GRANT USAGE ON SCHEMA public TO PUBLIC",
    "GRANT EXECUTE ON FUNCTION acting_user() TO PUBLIC",
    "GRANT USAGE ON SEQUENCE stream_cursor TO anxin_api",
    "GRANT anxin_owner TO anxin_api",
    "ALTER ROLE anxin_worker BYPASSRLS",
    "ALTER TABLE residents OWNER TO CURRENT_USER",
    "ALTER VIEW device_monitoring RESET (security_invoker)",
    "ALTER FUNCTION acting_user() RESET search_path",
    "ALTER FUNCTION acting_user() OWNER TO CURRENT_USER",
    "ALTER FUNCTION deaf_since(timestamptz) SECURITY DEFINER",
    "CREATE TABLE forgotten (id bigint)",
    "CREATE VIEW forgotten AS SELECT * FROM residents",
    "CREATE MATERIALIZED VIEW forgotten AS SELECT * FROM residents",
    "CREATE FUNCTION forgotten() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'",
    "CREATE POLICY forgotten ON residents USING (true)",
    "CREATE POLICY forgotten ON residents TO anxin_api USING (true)",
    "CREATE SCHEMA forgotten; GRANT USAGE ON SCHEMA forgotten TO anxin_api",
]


@pytest.mark.parametrize("statement", BROKEN)
def test_the_catalogue_finds_what_somebody_forgot(scene: Scene, statement: str) -> None:
    with scene.broken(statement):
        assert holes(scene.connection)


def _sees_vitals(viewer: Viewer, resident: int) -> bool:
    return viewer.may("vitals.read") and viewer.sees(resident, "vitals")


def _exports(viewer: Viewer, resident: int) -> bool:
    return viewer.may("export") and viewer.sees(resident, "vitals")

"""An erased person is in no row, no dump and no spool any more; everybody else stays."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from anxin.config import Settings
from anxin.db import erasure, people
from anxin.db.pool import Database
from anxin.db.scope import EVERYTHING
from anxin.embedded import binaries_directory
from anxin.erase import erase
from anxin.errors import NotFound
from anxin.seal import DataKeys, key_line
from ingest.inbound import Kind
from ingest.spool import Spool, Spooled
from models.worker import Worker
from tests.integration.api_world import Api, World, running, settle

KEYS = DataKeys.parse("\n".join(key_line(kind, datetime.now(UTC)) for kind in ("master", "index")))
CANARY = "canary"
CARD, PHONE, RELATIVE_PHONE = "11010519491231002X", "+8613812345678", "+8613900139000"
NUMBERS = {"lat": 29.987654321, "lon": 105.987654321, "hr": 123.456}
"""Values of readings that nobody else has."""

PLANTED = {
    "residents.name", "residents.note", "residents.limits", "residents.sex",
    "identities.id_card", "identities.id_card_index", "identities.phone", "identities.phone_index",
    "relatives.relation", "relatives.name", "relatives.phone", "relatives.phone_index",
    "consents.relation", "consents.scopes", "consents.purpose", "consents.given_by", "consents.how",
    "person_keys.wrapped", "person_keys.master_id", "person_keys.index_id",
    "family_links.scopes", "users.username", "users.password_hash", "users.role",
    "sessions.token_hash", "tickets.token_hash", "tickets.session_hash",
    "login_attempts.username", "login_attempts.address",
    "contacts.office", "contacts.channel", "contacts.address", "contacts.secret",
    "contacts.last_error", "stations.screen", "stations.sound",
    "places.name", "devices.name", "telemetry.extra", "latest.metrics",
    "events.id", "events.type", "events.detail", "commands.name", "commands.args",
    "commands.result", "quarantine.payload", "quarantine.reason", "quarantine.kind",
    "quarantine.device_id", "alarms.subject", "alarms.kind", "alarms.class", "alarms.condition",
    "alarms.handling", "alarms.outcome", "alarms.detail", "timeline.change", "timeline.actor",
    "timeline.channel", "timeline.note", "timeline.alarm", "outbox.channel", "receipts.kind",
    "deliveries.key", "deliveries.audience", "deliveries.channel", "deliveries.state",
    "deliveries.provider_id", "deliveries.error",
    "risk.explanation", "risk.model", "risk_history.model", "baselines.usual",
}  # fmt: skip
"""Text, JSON and bytes that can tell of a resident: each is planted below, or goes with its row."""
NOBODYS = {
    "schema_migrations": "versions",
    "model_modes": "what models may do",
    "model_states": "how models do",
    "role_rights": "what roles may do",
    "shifts": "of staff",
    "limit_templates": "limits of a place under a name; residents hold copies",
    "backups": "when and how large; of a copy that was made before, the page about privacy tells",
    "ladders": "of places",
    "self_tests": "of the platform",
    "device_states": "of devices: battery, signal, firmware",
    "erasures": "what stays: numbers of rows",
    "places": "kind and path of places",
    "devices": "id, kind, secrets of devices",
    "login_attempts": "what is planted there goes by the account's name, with the whole row",
    "outside_logins": "random numbers of logins under way, minutes old",
    "audit": "ids and names of fields, kept for the audit's own time",
    "audit_waiting": "the same",
    "audit_checkpoints": "the same",
}
"""Tables whose texts tell of no resident, beside what is planted in them."""


@pytest_asyncio.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    async with running(settle(dsn)) as serving:
        yield serving


class Person:
    """Somebody about whom something stands in every table; the canary says whose it is."""

    def __init__(self, world: World, name: str, home: str, device: int, since: datetime) -> None:
        """Plant a canary wherever text, JSON, bytes or numbers can stand."""
        self.world, self.name, self.device, self.since = world, name, device, since
        self.id = int(world.ids[name])
        self.mark = f"{CANARY}-{name}"
        self.ask("UPDATE residents SET name = $1, note = $1, limits = $2 WHERE id = $3",
                 self.mark, json.dumps({self.mark: 1}), self.id)  # fmt: skip
        self.ask("UPDATE places SET name = $1 WHERE id = $2", self.mark, int(world.ids[home]))
        self.ask("UPDATE devices SET name = $1 WHERE key = $2", self.mark, device)
        self.relative()
        self.readings(since + timedelta(minutes=5))
        self.care()

    def ask(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Run a query whose parameters stand as $1, $2 and may be used twice."""
        named = {f"p{number}": value for number, value in enumerate(values, 1)}
        for number in named:
            query = query.replace(f"${number[1:]}", f"%({number})s")
        with self.world.sql() as connection:
            cursor = connection.execute(query.encode(), named)
            return cursor.fetchall() if cursor.description else []

    async def seal(self) -> None:
        """Store what only the keys open."""
        async with Database(self.world.dsn, size=1) as database:
            await people.set_identity(
                database, EVERYTHING, KEYS, self.id, {"id_card": CARD, "phone": PHONE}
            )
            await people.add_relative(
                database, EVERYTHING, KEYS, self.id, name=self.mark, relation=self.mark,
                phone=RELATIVE_PHONE, guardian=True,
            )  # fmt: skip

    def relative(self) -> None:
        """Give the person a relative with an account, a session, contacts and a screen."""
        account = f"{self.mark}-son"
        self.world.user(account, "family")
        user = int(self.world.ids[account])
        self.ask("INSERT INTO consents (resident_id, purpose, user_id, scopes, given_by, relation,"
                 " how) VALUES ($1, 'family', $2, '{status,alarms}', 'guardian', $3, 'paper')",
                 self.id, user, self.mark)  # fmt: skip
        self.ask("INSERT INTO contacts (user_id, channel, address, secret, last_error)"
                 " VALUES ($1, 'webhook', $2, $2, $2)", user, self.mark)  # fmt: skip
        self.ask("INSERT INTO stations (user_id, screen, seen_at) VALUES ($1, $2, now())",
                 user, self.mark)  # fmt: skip
        self.ask("INSERT INTO login_attempts VALUES (lower($1), $2)", account, self.mark)
        self.ask("INSERT INTO tickets SELECT $1, token_hash, now() FROM sessions"
                 " WHERE user_id = $2", self.mark.encode(), user)  # fmt: skip

    def readings(self, at: datetime, tag: str = "") -> None:
        """Store what the device sent at a time."""
        mark = self.mark + tag
        extra = json.dumps({mark: 1})
        self.ask("INSERT INTO telemetry (ts, received_at, device_key, lat, lon, hr, extra)"
                 " VALUES ($1, $1, $2, $3, $4, $5, $6)", at, self.device, NUMBERS["lat"],
                 NUMBERS["lon"], NUMBERS["hr"], extra)  # fmt: skip
        for table, unit in (("minute_rollup", "minute"), ("hour_rollup", "hour")):
            self.ask(f"INSERT INTO {table} (device_key, bucket, hr_n, hr_mean, hr_min, hr_max)"
                     " VALUES ($1, date_trunc($4, $2::timestamptz), 1, $3, $3, $3)"
                     " ON CONFLICT DO NOTHING", self.device, at, NUMBERS["hr"], unit)  # fmt: skip
        self.ask(
            "INSERT INTO rollup_due (device_key, minute)"
            " VALUES ($1, date_trunc('minute', $2::timestamptz))",
            self.device,
            at,
        )
        self.ask("INSERT INTO events (device_key, id, type, ts, received_at, detail)"
                 " VALUES ($1, $2, 'sos', $3, $3, $4)", self.device, mark, at, extra)  # fmt: skip
        self.ask("INSERT INTO quarantine (received_at, device_id, kind, reason, size, payload)"
                 " SELECT $1, id, 'event', $2, 1, $3 FROM devices WHERE key = $4",
                 at, mark, mark.encode(), self.device)  # fmt: skip
        self.ask("INSERT INTO commands (device_key, name, args, result, created_at)"
                 " VALUES ($1, $2, $3, $3, $4)", self.device, mark, extra, at)  # fmt: skip
        newest = json.dumps({"hr": [NUMBERS["hr"], int(at.timestamp() * 1000)]})
        self.ask("INSERT INTO latest (device_key, ts, received_at, metrics) VALUES ($1, $2, $2, $3)"
                 " ON CONFLICT (device_key) DO UPDATE SET ts = excluded.ts,"
                 " metrics = excluded.metrics", self.device, at, newest)  # fmt: skip

    def care(self) -> None:
        """Judge them; raise alarms, one of them closed, with all that hangs on them."""
        extra = json.dumps({self.mark: 1})
        self.ask("INSERT INTO risk (resident_id, at, score, possible_max, complete, band, model,"
                 " explanation) VALUES ($1, now(), 0, 20, false, 'low', $2, $3)",
                 self.id, self.mark, extra)  # fmt: skip
        self.ask("INSERT INTO risk_history (resident_id, at, score, possible_max, complete, band,"
                 " priority, model) VALUES ($1, now(), 0, 20, false, 'low', 0, $2)",
                 self.id, self.mark)  # fmt: skip
        self.ask("INSERT INTO baselines (resident_id, at, layout, state, usual)"
                 " VALUES ($1, now(), $2, $3, $4)",
                 self.id, self.mark, self.mark.encode(), extra)  # fmt: skip
        for kind in ("sos", "fall"):
            alarm = int(self.world.alarm(self.name, kind))
            self.ask("UPDATE alarms SET detail = $1, device_key = $2 WHERE id = $3",
                     json.dumps({self.mark: 1}), self.device, alarm)  # fmt: skip
            self.ask("INSERT INTO timeline (alarm_id, change, actor, channel, note, alarm)"
                     " VALUES ($1, 'note', $2, 'api', $2, '{}')", alarm, self.mark)  # fmt: skip
            self.ask("INSERT INTO deliveries (key, alarm_id, audience, channel, due_at, error,"
                     " provider_id) VALUES ($1, $2, 'family', 'webhook', now(), $1, $1)",
                     f"{self.mark}-{kind}", alarm)  # fmt: skip
            self.ask("INSERT INTO receipts (alarm_id, user_id, kind) VALUES ($1, $2, 'displayed')",
                     alarm, int(self.world.ids["nurse"]))  # fmt: skip
        self.ask("UPDATE alarms SET handling = 'closed', outcome = 'real', closed_at = now()"
                 " WHERE resident_id = $1 AND kind = 'fall'", self.id)  # fmt: skip


def plant(dsn: str) -> tuple[World, Person, Person]:
    """Return a world with two people in homes of their own; one device was with both, in turn."""
    world = settle(dsn)
    now = datetime.now(UTC)
    for name in ("dora", "emma"):
        world.place(f"home of {name}", "A", "home")
        world.resident(name, f"home of {name}")
    shared = world.device("shared", "A")
    own = world.device("own", "A", "emma")
    # In the middle of a minute: its rollup holds readings of both.
    handed_over = now.replace(second=30) - timedelta(days=5)
    for name, begin, end in (
        ("dora", now - timedelta(days=20), handed_over),
        ("emma", handed_over, None),
    ):
        world.ask(
            "INSERT INTO assignments (device_key, resident_id, during)"
            " VALUES (%s, %s, tstzrange(%s, %s))",
            shared, int(world.ids[name]), begin, end,
        )  # fmt: skip
    dora = Person(world, "dora", "home of dora", shared, now - timedelta(days=20))
    for days in (19, 18, 10, 6):
        dora.readings(now - timedelta(days=days), f"-{days}")
    dora.readings(handed_over - timedelta(seconds=10), "-last")
    emma = Person(world, "emma", "home of emma", own, now - timedelta(hours=20))
    emma.device = shared
    emma.readings(handed_over + timedelta(seconds=10), "-shared")
    return world, dora, emma


def dump(dsn: str) -> bytes:
    """Return what pg_dump says of the whole database, as SQL."""
    program = binaries_directory() / "pg_dump"
    return subprocess.run([program, "--inserts", dsn], check=True, capture_output=True).stdout


def traces(text: bytes, person: Person) -> list[bytes]:
    """Return the lines in which something of a person still stands."""
    words = [person.mark, CARD, CARD[6:14], PHONE, PHONE[3:], RELATIVE_PHONE[3:]]
    shapes = [word.encode() for word in words]
    shapes += [word.encode().hex().encode() for word in words]
    shapes += [str(NUMBERS[name]).encode() for name in ("lat", "lon")]
    return [line for line in text.splitlines() if any(shape in line for shape in shapes)]


async def test_canaries_stand_in_every_field_that_can_tell_of_somebody(dsn: str) -> None:
    world, _, emma = plant(dsn)
    await emma.seal()
    columns = world.ask(
        "SELECT table_name || '.' || column_name AS name, table_name"
        " FROM information_schema.columns"
        " JOIN information_schema.tables USING (table_schema, table_name)"
        " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
        " AND data_type IN ('text', 'jsonb', 'bytea', 'ARRAY') AND table_name !~ '^telemetry_'"
    )
    there = {one["name"]: one["table_name"] for one in columns}
    # A row that hangs on the resident, or on a relative's account, goes with it by the schema.
    hanging = world.one(
        "WITH RECURSIVE goes (name) AS (SELECT unnest(ARRAY['residents', 'users']::regclass[])"
        " UNION SELECT c.conrelid FROM pg_constraint c JOIN goes ON c.confrelid = goes.name::oid"
        " WHERE c.contype = 'f' AND c.confdeltype = 'c')"
        " SELECT array_agg(name::regclass::text) FROM goes"
    )
    forgotten = {
        name
        for name, table in there.items()
        if name not in PLANTED and table not in NOBODYS and table not in hanging
    }
    assert forgotten == set(), "plant a canary there and erase it, or say whose it is"
    assert there.keys() >= PLANTED
    before = dump(dsn)
    assert len(traces(before, emma)) > 25
    tables = {line.split()[2].removeprefix(b"public.") for line in traces(before, emma)
              if line.startswith(b"INSERT INTO")}  # fmt: skip
    planted = {name.split(".")[0].encode() for name in PLANTED}
    told_by_id = {b"family_links", b"sessions", b"outbox", b"receipts", b"person_keys", b"latest",
                  b"identities"}  # fmt: skip
    assert planted - {b"telemetry"} - tables <= told_by_id
    # What is sealed is in no dump to begin with.
    assert CARD.encode() not in before
    assert PHONE.encode() not in before


async def test_nothing_of_an_erased_person_is_left_in_a_dump_and_everything_of_the_other(
    dsn: str,
) -> None:
    world, dora, emma = plant(dsn)
    await dora.seal()
    await emma.seal()
    before = traces(dump(dsn).replace(b"canary-dora", b""), emma)
    swept = await erase(dsn, dora.id)
    after = dump(dsn)
    left = [line for line in traces(after, dora) if b"canary-emma" not in line]
    assert [line for line in left if dora.mark.encode() in line] == []
    assert sorted(set(traces(after, emma)) - set(before)) == []
    about = {"telemetry": 6, "events": 6, "quarantine": 6, "commands": 6, "alarms": 2}
    assert {name: swept[name] for name in about} == about
    world.ask("SELECT roll_up(now() + interval '1 second', 1000)")
    # Emma's reading of the shared device, five days ago, and those of her own.
    rows = "SELECT device_key, count(*)::int AS n FROM {} GROUP BY 1 ORDER BY 1"
    shared, own = dora.device, world.one("SELECT key FROM devices WHERE id = 'own'")
    for table in ("telemetry", "events", "quarantine", "minute_rollup", "hour_rollup"):
        query = rows.format(table) if table != "quarantine" else (
            "SELECT d.key AS device_key, count(*)::int AS n FROM quarantine q"
            " JOIN devices d ON d.id = q.device_id GROUP BY 1 ORDER BY 1"
        )  # fmt: skip
        assert [tuple(row.values()) for row in world.ask(query)] == [(shared, 1), (own, 1)], table
    for table in ("minute_rollup", "hour_rollup"):
        assert world.one(f"SELECT hr_n FROM {table} WHERE device_key = %s", shared) == 1
    for table in ("person_keys", "identities", "relatives"):
        assert world.one(f"SELECT array_agg(resident_id) FROM {table}") == [emma.id]
    assert world.one("SELECT count(*) FROM users WHERE username LIKE 'canary%%'") == 1
    async with Database(dsn, size=1) as database:
        kept = await people.identity(database, EVERYTHING, KEYS, emma.id)
        assert (kept.id_card, kept.phone) == (CARD, PHONE)
    (entry,) = world.ask("SELECT * FROM erasures")
    assert entry["finished_at"] is not None
    assert CANARY not in str(entry)
    with pytest.raises(NotFound):
        await erase(dsn, dora.id)


async def test_what_a_spool_hands_in_late_goes_too(dsn: str, data_dir: Path) -> None:
    world, dora, _ = plant(dsn)
    payload = msgspec.json.encode({"ts": 0, f"{dora.mark}-late": 1})
    at = datetime.now(UTC) - timedelta(days=7)
    async with Spool(data_dir / "spool", 8) as spool:
        run = Spooled("shared", Kind.TELEMETRY, int(at.timestamp() * 1e6), [payload])
        await spool.put([run] * 200, urgent=False)
        await erase(dsn, dora.id)
        # Ingest stores what was kept, and takes it out of the spool, part by part.
        dora.readings(at, "-late")
        while taken := await spool.take(60, urgent=False):
            await spool.remove([number for number, _ in taken], urgent=False)
    assert traces(dump(dsn), dora) != []
    async with Database(dsn, role="anxin_worker", size=1) as database:
        await Worker(database, Settings(database=dsn)).upkeep()
    assert [line for line in traces(dump(dsn), dora) if dora.mark.encode() in line] == []
    for file in (data_dir / "spool").iterdir():
        assert CANARY.encode() not in file.read_bytes(), file.name
    assert world.one("SELECT (swept ->> 'telemetry')::int FROM erasures") == 7


async def test_one_asks_another_approves_and_the_worker_does_it(api: Api) -> None:
    world = api.world
    world.user("second", "admin")
    path = f"/residents/{world.ids['anna']}/erase"
    for role, status in (("supervisor", 403), ("nurse", 403), ("family", 403)):
        assert (await api[role].post(path)).status_code == status
    asked = await api["admin"].post(path)
    assert asked.status_code == 202
    assert (await api["admin"].post(path)).status_code == 409
    one = f"/erasures/{asked.json()['id']}"
    assert (await api["admin"].post(f"{one}/approve")).status_code == 409
    async with Database(world.dsn, role="anxin_worker", size=1) as database:
        worker = Worker(database, Settings(database=world.dsn))
        assert await worker.erase() == 0
        assert (await api["nurse"].get(f"/residents/{world.ids['anna']}")).status_code == 200
        assert (await api["second"].post(f"{one}/approve")).status_code == 200
        assert (await api["second"].post(f"{one}/refuse")).status_code == 409
        async with api.stream("nurse") as stream:
            await stream.next("ready")
            world.alarm("anna")
            await stream.next("alarm")
            await worker.erase()
            # Screens learn that it is over before the rows go.
            assert (await stream.next("alarm"))["change"] == "closed"
        assert world.one("SELECT count(*) FROM residents WHERE name = 'anna'") == 1
        assert world.one("SELECT count(*) FROM assignments") == 0
        world.ask("UPDATE erasures SET began_at = began_at - interval '1 minute'")
        await worker.erase()
    assert world.one("SELECT count(*) FROM residents WHERE name = 'anna'") == 0
    (seen,) = (await api["admin"].get("/erasures")).json()["items"]
    assert (seen["requested_by"], seen["approved_by"]) == ("admin", "second")
    assert seen["finished_at"] is not None


async def test_an_erasure_can_be_refused_and_asked_for_again(api: Api) -> None:
    path = f"/residents/{api.world.ids['anna']}/erase"
    first = (await api["admin"].post(path)).json()
    assert (await api["admin"].post(f"/erasures/{first['id']}/refuse")).status_code == 200
    assert (await api["admin"].post(f"/erasures/{first['id']}/approve")).status_code == 409
    assert (await api["admin"].post(path)).status_code == 202


async def test_an_erasure_that_is_stopped_anywhere_goes_on(dsn: str) -> None:
    _, dora, _ = plant(dsn)
    async with Database(dsn, size=1) as database:
        id_ = await erasure.decide(database, dora.id)
        for _ in range(20):
            # Each time only the next step, as if the process had ended after it.
            async for _rows in erasure.carry_on(database, id_, pause_seconds=0):
                break
            if await erasure.finished(database, id_) is not None:
                break
        assert await erasure.finished(database, id_) is not None
    assert [line for line in traces(dump(dsn), dora) if dora.mark.encode() in line] == []


async def test_two_workers_share_an_erasure(dsn: str) -> None:
    world, dora, _ = plant(dsn)
    async with (
        Database(dsn, role="anxin_worker", size=1) as one,
        Database(dsn, role="anxin_worker", size=1) as other,
    ):
        async with Database(dsn, size=1) as operator:
            await erasure.decide(operator, dora.id)

        async def work(database: Database) -> None:
            async for _ in erasure.carry_on(database, pause_seconds=0):
                pass

        await asyncio.gather(work(one), work(other))
    assert [line for line in traces(dump(dsn), dora) if dora.mark.encode() in line] == []
    assert world.one("SELECT (swept ->> 'telemetry')::int FROM erasures") == 6

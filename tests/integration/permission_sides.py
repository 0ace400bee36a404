"""Two sides of one platform: an own and a foreign one of everything, the foreign with canaries."""

import io
import itertools
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import httpx
import psycopg
from psycopg.types.range import TimestamptzRange

from anxin.enrolment import new_code
from tests.integration.api_world import World, settle

CANARY: Final = "kanari"
"""In every text of the foreign side, and nowhere else."""
VITAL: Final = "173.625"
"""Every vital sign of the foreign side."""
SIDES: Final = ("own", "foreign", "absent")
STAFF: Final = ("admin-a", "supervisor", "nurse", "integrator")
ROLES: Final = ("admin", *STAFF, "family", "aunt", "stranger", "nobody", "disabled", "ended")
"""`admin` is everywhere; `admin-a` and the other staff are of facility A; `aunt` may see alarms
only; `stranger` is a relative of nobody."""
UNKNOWN: Final = ("nobody", "disabled", "ended")
PHONES: Final = {"own": "13800138000", "foreign": "13800138111", "absent": "13800138222"}
_NAMES: Final = {"own": ("anna", "A"), "foreign": ("bela", "B")}
_codes = itertools.count(1)


@dataclass
class Sides:
    """The rows of both sides, by kind; `fresh` makes another one."""

    world: World
    standing: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    rows: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """The ids that lists give of each kind and side."""
    foreign_ids: set[str] = field(default_factory=set)
    asking: str = "nurse"
    """Whose account the own side of what is private belongs to."""

    def fresh(self, kind: str, side: str) -> dict[str, str]:
        """Make one of a kind and return the ids that address it."""
        made: dict[str, str] = getattr(self, f"_{kind}")(side)
        if side == "foreign":
            self.foreign_ids |= {one for one in made.values() if len(one) > 6}
        return made

    def one(self, kind: str, side: str) -> dict[str, str]:
        """Return what addresses the one that is there, or nothing that is."""
        if side == "absent":
            return {
                "place_id": "999000001", "resident_id": "999000002", "device_id": "mat-absent",
                "user_id": "999000003", "alarm_id": "999000004", "contact_id": "999000005",
                "shift_id": "999000006", "ladder_id": "999000007", "consent_id": "999000008",
                "rejected_id": "999000009", "enrolment_id": "999000010",
                "erasure_id": "999000011", "phone": PHONES["absent"], "token": "x",
                "colleague": "999000003", "session_id": "999000012", "template_id": "999000013",
                "import_id": "3f0b8c1e-0000-4000-8000-000000000001", "identity_id": "999000013",
                "provider": "nowhere",
                "relative_id": "3f0b8c1e-0000-4000-8000-000000000000", "channel": "aliyun_sms",
                "visit_id": "999000013",
            }  # fmt: skip
        if kind == "import":
            return self.fresh(kind, side)  # everybody's own
        if (kind, side) not in self.standing:
            self.standing[kind, side] = self.fresh(kind, side)
        return self.standing[kind, side]

    def own(self) -> dict[str, str]:
        """Return what bodies are filled with: the own side, and names that are new each time."""
        number = next(_codes)
        begins = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(days=number)
        return {
            "place_id": self.world.ids["A"], "resident_id": self.world.ids["anna"],
            "colleague": self.world.ids["nurse"], "kin": self.standing["user", "own"]["user_id"],
            "model_id": "novelty", "kind": "residents", "new": f"new-{number}",
            "code": new_code(), "begins": begins.isoformat(),
            "ends": (begins + timedelta(hours=8)).isoformat(),
        }  # fmt: skip

    def leaks(self, role: str, answer: httpx.Response, sent: str, *, echoes: bool) -> list[str]:
        """Return what an answer tells of the foreign side beyond what was sent."""
        if role == "admin":
            return []
        said = f"{read(answer)} {' '.join(answer.headers.values())}".lower()
        ids = set() if echoes else self.foreign_ids
        words = set(re.findall(r"[\w-]+", said))
        texts = [one for one in (CANARY, VITAL) if one in said and one not in sent.lower()]
        return texts + [one for one in ids if one in words and one not in sent]

    def _insert(self, table: str, returning: str = "id", **values: Any) -> str:
        names, marks = ", ".join(values), ", ".join(["%s"] * len(values))
        query = f"INSERT INTO {table} ({names}) VALUES ({marks}) RETURNING {returning}"
        return str(self.world.one(query, *values.values()))

    def _place(self, side: str) -> dict[str, str]:
        colleague = self.world.ids["nurse" if side == "own" else f"{CANARY}-nurse"]
        return {"place_id": self.world.ids[_NAMES[side][1]], "colleague": colleague}

    def _resident(self, side: str) -> dict[str, str]:
        if ("resident", side) not in self.standing:
            return {"resident_id": self.world.ids[_NAMES[side][0]]}
        name, place = _text(side), self._at(side)
        return {"resident_id": self._insert("residents", name=name, note=name, place_id=place)}

    def _at(self, side: str) -> int:
        return int(self._place(side)["place_id"])

    def _phone(self, side: str) -> dict[str, str]:
        return {"phone": PHONES[side]}

    def _session(self, side: str) -> dict[str, str]:
        user = self.asking if side == "own" and self.asking not in UNKNOWN else "nurse"
        return {"session_id": self._insert(
            "sessions", token_hash=uuid4().bytes * 2, device=_text(side),
            user_id=int(self.world.ids[user if side == "own" else f"{CANARY}-nurse"]),
            expires_at=datetime.now(UTC) + timedelta(hours=1),
        )}  # fmt: skip

    def _outsider(self, side: str) -> dict[str, str]:
        made = self._user(side)
        made["identity_id"] = self._insert(
            "outside_identities", user_id=int(made["user_id"]), provider="hospital",
            issuer="https://id.example.cn", subject=f"{_text(side)}-{next(_codes)}",
        )  # fmt: skip
        return made

    def _provider(self, _: str) -> dict[str, str]:
        return {"provider": "nowhere"}

    def _import(self, side: str) -> dict[str, str]:
        # Taken over already: what it held is gone, as only the platform's keys would seal it.
        user = self.asking if side == "own" and self.asking not in UNKNOWN else "nurse"
        return {"import_id": self._insert(
            "imports", id=uuid4(), kind="residents", name=_text(side),
            created_by=int(self.world.ids[user if side == "own" else f"{CANARY}-nurse"]),
            expires_at=datetime.now(UTC) + timedelta(hours=1), applied_at=datetime.now(UTC),
        )}  # fmt: skip

    def _template(self, side: str) -> dict[str, str]:
        return {"template_id": self._insert(
            "limit_templates", place_id=self._at(side), name=f"{_text(side)} {next(_codes)}",
            limits='{"hr_high": 110}',
        )}  # fmt: skip

    def _report(self, _: str) -> dict[str, str]:
        return {"channel": "aliyun_sms", "token": "x"}

    def _device(self, side: str) -> dict[str, str]:
        name = f"mat-{'far' if side == 'foreign' else 'near'}-{next(_codes)}"
        self.world.device(name, _NAMES[side][1], _NAMES[side][0])
        self.world.ask("UPDATE devices SET name = %s WHERE id = %s", _text(side), name)
        return {"device_id": name}

    def _alarm(self, side: str) -> dict[str, str]:
        resident = int(self._insert("residents", name=_text(side), place_id=self._at(side)))
        if ("alarm", side) not in self.standing:
            resident = int(self.world.ids[_NAMES[side][0]])
        subject = f"r{resident}"
        self.world.ask(
            "SELECT raise_alarm(%s, %s, NULL, NULL, 'bed_exit_long', 'behavioural', 2::smallint,"
            " now(), false, 1, jsonb_build_object('value', %s::numeric, 'text', %s::text), 'test')",
            subject, resident, VITAL if side == "foreign" else "70", _text(side),
        )  # fmt: skip
        return {
            "alarm_id": str(self.world.one("SELECT id FROM alarms WHERE subject = %s", subject))
        }

    def _taken(self, side: str) -> dict[str, str]:
        self.one("alarm", side)
        made = self._alarm(side)
        owner = int(self.world.ids["nurse" if side == "own" else f"{CANARY}-nurse"])
        self.world.ask(
            "UPDATE alarms SET handling = 'acknowledged', owner_id = %s WHERE id = %s",
            owner, int(made["alarm_id"]),
        )  # fmt: skip
        return made

    def _user(self, side: str) -> dict[str, str]:
        name = f"{_text(side)}-kin-{next(_codes)}"
        values: dict[str, Any] = {"username": name, "password_hash": "-", "role": "family",
                  "place_id": self._at(side)}  # fmt: skip
        return {"user_id": self._insert("users", **values)}

    def _visitor(self, side: str) -> dict[str, str]:
        made = self._user(side)
        self._insert("sessions", token_hash=uuid4().bytes * 2, device=_text(side),
                     user_id=int(made["user_id"]),
                     expires_at=datetime.now(UTC) + timedelta(hours=1))  # fmt: skip
        return made

    def _guarded(self, side: str) -> dict[str, str]:
        made = self._user(side)
        self._guard(made["user_id"])
        return made

    def _factor(self, side: str) -> dict[str, str]:
        user = self.asking if side == "own" and self.asking not in UNKNOWN else "nurse"
        self._guard(self.world.ids[user if side == "own" else f"{CANARY}-nurse"])
        return {}

    def _guard(self, user_id: str) -> None:
        self.world.ask("DELETE FROM second_factors WHERE user_id = %s", int(user_id))
        self._insert("second_factors", "user_id", user_id=int(user_id), master_id="m",
                     secret=b"x", confirmed_at=datetime.now(UTC))  # fmt: skip

    def _link(self, side: str) -> dict[str, str]:
        made = self._resident(side) | self._user(side)
        self.world.ids |= {"linked": made["user_id"], "linking": made["resident_id"]}
        self.world.link("linked", "linking", "status")
        return made

    def _relative(self, side: str) -> dict[str, str]:
        # Of somebody else: what is not sealed cannot be read in the lists of Anna and Bela.
        resident = self._insert("residents", name=_text(side), place_id=self._at(side))
        made = {"resident_id": resident}
        made["relative_id"] = self._insert(
            "relatives", id=uuid4(), resident_id=int(made["resident_id"]), relation=_text(side),
            name=b"",
        )  # fmt: skip
        return made

    def _consent(self, side: str) -> dict[str, str]:
        made = self._resident(side)
        made["consent_id"] = self._insert(
            "consents", resident_id=int(made["resident_id"]), purpose="care", scopes=["status"],
            given_by="guardian", relation=_text(side), how="paper",
        )  # fmt: skip
        return made

    def _visit(self, side: str) -> dict[str, str]:
        made = self._resident(side)
        made["visit_id"] = self._insert(
            "visits", resident_id=int(made["resident_id"]), kind="bath", note=_text(side),
            at=datetime.now(UTC),
        )  # fmt: skip
        return made

    def _contact(self, side: str) -> dict[str, str]:
        user = self.world.ids["supervisor" if side == "own" else f"{CANARY}-nurse"]
        if side == "own":
            values: dict[str, Any] = {"place_id": self._at(side), "office": "robot"}
        else:
            values = {"user_id": int(user)}
        address = f"http://127.0.0.1:9/{_text(side)}/{next(_codes)}"
        return {
            "contact_id": self._insert("contacts", channel="webhook", address=address, **values)
        }

    def _shift(self, side: str) -> dict[str, str]:
        user = int(self.world.ids["nurse" if side == "own" else f"{CANARY}-nurse"])
        begins = datetime.now(UTC) + timedelta(minutes=10 * next(_codes))
        return {"shift_id": self._insert(
            "shifts", place_id=self._at(side), user_id=user, post="second", note=_text(side),
            during=TimestamptzRange(begins, begins + timedelta(minutes=5)),
        )}  # fmt: skip

    def _ladder(self, side: str) -> dict[str, str]:
        self.world.ask("DELETE FROM ladders WHERE place_id = %s", self._at(side))
        return {"ladder_id": self._insert(
            "ladders", place_id=self._at(side), priority=2, steps="[]")}  # fmt: skip

    def _rejected(self, side: str) -> dict[str, str]:
        device = self.one("device", side)["device_id"]
        return {"rejected_id": self._insert(
            "quarantine", received_at=datetime.now(UTC), device_id=device, kind="telemetry",
            reason=_text(side), size=1, payload=_text(side).encode(),
        )}  # fmt: skip

    def _enrolment(self, side: str) -> dict[str, str]:
        return {"enrolment_id": self._insert(
            "enrolments", code_hash=uuid4().bytes * 2, kind="cuff", place_id=self._at(side),
            name=_text(side), created_by=int(self.world.ids["admin"]),
            expires_at=datetime.now(UTC) + timedelta(hours=1),
        )}  # fmt: skip

    def _erasure(self, side: str) -> dict[str, str]:
        resident = self._insert("residents", name=_text(side), place_id=self._at(side))
        return {"erasure_id": self._insert(
            "erasures", resident_id=int(resident), place_id=self._at(side),
            requested_by=int(self.world.ids["integrator"]),
        )}  # fmt: skip

    def _station(self, side: str) -> dict[str, str]:
        user = self.world.ids["nurse" if side == "own" else f"{CANARY}-nurse"]
        return {"station_id": self._insert(
            "stations", user_id=int(user), screen=_text(side), place_id=self._at(side),
            seen_at=datetime.now(UTC),
        )}  # fmt: skip

    def _self_test(self, side: str) -> dict[str, str]:
        return {"self_test_id": self._insert("self_tests", place_id=self._at(side))}


KINDS: Final = (
    "place", "device", "alarm", "user", "link", "relative", "consent", "visit", "contact", "shift",
    "ladder",    "rejected", "enrolment", "erasure", "station", "self_test", "template",
)  # fmt: skip


def populate(dsn: str) -> Sides:
    """Fill a database; ids of different tables and sides are never alike."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        columns = connection.execute(
            b"SELECT table_name, column_name FROM information_schema.columns"
            b" WHERE table_schema = 'public' AND is_identity = 'YES' ORDER BY 1"
        ).fetchall()
        # Of as many digits each, so that none of them is a part of another.
        for number, (table, column) in enumerate(columns, 12):
            statement = f"ALTER TABLE {table} ALTER {column} RESTART WITH {number * 1_000_000 + 7}"
            connection.execute(statement.encode())
    world = settle(dsn)
    sides = Sides(world)
    for name, role, place in (
        ("admin-a", "admin", "A"), ("disabled", "nurse", "A"), ("ended", "nurse", "A"),
        (f"{CANARY}-nurse", "nurse", "B"), ("aunt", "family", None), ("stranger", "family", None),
    ):  # fmt: skip
        world.user(name, role, place)
    world.ask("UPDATE places SET name = %s WHERE id = %s", f"B {CANARY}", int(world.ids["B"]))
    world.ask("UPDATE users SET username = %s WHERE username = 'nurse-b'", f"{CANARY}-b")
    world.link("aunt", "anna", "alarms")
    world.ask("UPDATE residents SET name = %s, note = %s WHERE id = %s", CANARY, CANARY,
              int(world.ids["bela"]))  # fmt: skip
    world.ask("UPDATE users SET disabled_at = now() WHERE username = 'disabled'")
    world.ask("UPDATE sessions SET expires_at = now() - interval '1 second' WHERE user_id = %s",
              int(world.ids["ended"]))  # fmt: skip
    for kind in ("resident", *KINDS):
        for side in ("own", "foreign"):
            made = sides.fresh(kind, side)
            sides.standing[kind, side] = made
            key = "user_id" if kind == "link" else f"{kind}_id"
            sides.rows[kind, side] = {made[key]}
    for side in ("own", "foreign"):
        _fill(sides, side)
    sides.foreign_ids |= {world.ids[name] for name in ("bela", "B", f"{CANARY}-nurse", "nurse-b")}
    return sides


def _fill(sides: Sides, side: str) -> None:
    """Give the device and the alarm of a side what hangs on them."""
    world, value = sides.world, float(VITAL) if side == "foreign" else 70.0
    key = world.one("SELECT key FROM devices WHERE id = %s", sides.one("device", side)["device_id"])
    text = _text(side)
    latest = (
        "INSERT INTO latest (device_key, ts, received_at, metrics) VALUES (%s, now(), now(),"
        " jsonb_build_object('hr', jsonb_build_array(%s::numeric,"
        " (extract(epoch FROM now()) * 1000)::bigint)))"
    )
    event = (
        "INSERT INTO events (device_key, id, type, ts, received_at, detail)"
        " VALUES (%s, %s, 'sos', now() - interval '1 hour', now(), '{}')"
    )
    reading = (
        "INSERT INTO telemetry (device_key, ts, received_at, hr)"
        " VALUES (%s, now() - interval '1 hour', now(), %s)"
    )
    command = "INSERT INTO commands (device_key, name, created_by) VALUES (%s, %s, %s)"
    delivery = (
        "INSERT INTO deliveries (key, alarm_id, audience, channel, due_at)"
        " VALUES (%s, %s, 'first', 'station', now())"
    )
    visit = "INSERT INTO visits (resident_id, kind, at, note) VALUES (%s, 'bath', now(), %s)"
    observation = "INSERT INTO observations (resident_id, at, hr) VALUES (%s, now(), %s)"
    for statement, values in (
        ("INSERT INTO device_states (device_key, heard_at) VALUES (%s, now())", [key]),
        (latest, [key, value]),
        (event, [key, text]),
        (reading, [key, value]),
        (command, [key, text, int(world.ids["admin"])]),
        (delivery, [text, int(sides.one("alarm", side)["alarm_id"])]),
        (observation, [int(world.ids[_NAMES[side][0]]), value]),
        (visit, [int(world.ids[_NAMES[side][0]]), text]),
    ):
        world.ask(statement, *values)


def _text(side: str) -> str:
    return CANARY if side == "foreign" else "plain"


def read(answer: httpx.Response) -> str:
    """Return the text of an answer, of a ZIP that of all its files."""
    if answer.headers.get("content-type") != "application/zip":
        return answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as files:
        return " ".join(f"{one} {files.read(one).decode()}" for one in files.namelist())


def walk(schema: Any, components: dict[str, Any]) -> Iterator[str]:
    """Yield the names of the fields of a schema, at any depth."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield from walk(components[schema["$ref"].rpartition("/")[2]], components)
        yield from schema.get("properties", {})
        for inner in schema.values():
            yield from walk(inner, components)
    elif isinstance(schema, list):
        for inner in schema:
            yield from walk(inner, components)

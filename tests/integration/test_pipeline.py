"""The pipeline on a real Postgres: stored once, judged once, acknowledged after the commit."""

import asyncio
import gc
import json
import random
import resource
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from anxin.config import Settings
from anxin.device_secret import new_secret
from ingest.inbound import Device, Inbound, Kind, Peer
from ingest.service import IngestService
from tests.factories import Ward
from tests.waiting import eventually

MINUTE, HOUR = 60_000, 3_600_000


@pytest.fixture
def ward(dsn: str) -> Iterator[Ward]:
    """Return a facility with one resident, 1, who has a bed mat."""
    made = Ward(dsn)
    made.device("mat", resident=made.resident())
    yield made
    made.close()


def now_ms() -> int:
    """Return the present as devices tell it."""
    return time.time_ns() // 1_000_000


class Sender:
    """A source of messages that waits for its acknowledgements, and a way down that records."""

    def __init__(self, service: IngestService) -> None:
        """Send into this service."""
        self.service = service
        self.sent_down: list[tuple[str, bytes]] = []
        self.closed: list[str] = []
        self.peer = Peer()
        self.secret: bytes | None = None

    async def send(self, device_id: str, kind: Kind, *payloads: Any) -> None:
        """Submit payloads and wait until they are acknowledged."""
        await asyncio.wait_for(await self.submit(device_id, kind, *payloads), 20)

    async def submit(self, device_id: str, kind: Kind, *payloads: Any) -> asyncio.Future[None]:
        """Submit payloads; the future is done at their acknowledgement."""
        device = await self.service.find(device_id) or Device(device_id, 0, 0)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        encoded = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in payloads]
        self.service.submit(
            Inbound(device, kind, encoded, time.time_ns() // 1000, lambda _: done.set_result(None))
        )
        return done

    async def telemetry(self, *objects: Any, device: str = "mat") -> None:
        """Send telemetry and wait."""
        await self.send(device, Kind.TELEMETRY, *objects)

    async def event(self, id_: str, type_: str, device: str = "mat", **fields: Any) -> None:
        """Send an event and wait."""
        await self.send(device, Kind.EVENT, {"id": id_, "type": type_, **fields})

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,  # noqa: ARG002
        delivered: Callable[[], None] | None = None,
    ) -> bool:
        """Record what goes down to a device."""
        self.sent_down.append((topic, payload))
        if delivered is not None:
            delivered()
        return True

    def close(self, reason: str) -> None:
        """Record that the connection was ended."""
        self.closed.append(reason)


@asynccontextmanager
async def serving(dsn: str, **settings: Any) -> AsyncIterator[Sender]:
    """Run an ingest service without a listener, and without a spool unless it is asked for."""
    settings = {"spool_mebibytes": 0} | settings
    async with IngestService(Settings(database=dsn, **settings)) as service:
        yield Sender(service)


async def test_a_reading_is_stored_before_it_is_acknowledged(dsn: str, ward: Ward) -> None:
    at = now_ms()
    async with serving(dsn) as sender:
        await sender.telemetry(
            {"ts": at, "seq": 7, "hr": 72, "temp": 36.6, "presence": "present", "oxygen": False,
             "consciousness": "A", "steps": 12, "lat": 29.35, "lon": 105.9, "pm25": 31.5}
        )  # fmt: skip
        (row,) = ward.rows("SELECT *, extract(epoch FROM ts) * 1000 AS ms FROM telemetry")
    assert row["ms"] == at
    assert (row["hr"], row["steps"], row["seq"], row["lat"]) == (72, 12, 7, 29.35)
    assert (row["presence"], row["consciousness"], row["oxygen"]) == (2, 0, False)
    assert row["temp"] == pytest.approx(36.6)
    assert (row["rr"], row["extra"]) == (None, {"pm25": 31.5})
    latest = ward.value("SELECT metrics FROM latest")
    assert latest["hr"] == [72, at]
    assert latest["presence"] == ["present", at]


async def test_a_reading_sent_again_is_stored_once_and_missing_fields_are_filled_in(
    dsn: str, ward: Ward
) -> None:
    at = now_ms()
    async with serving(dsn) as sender:
        await sender.telemetry({"ts": at, "sbp": 120})
        await sender.telemetry({"ts": at, "sbp": 120})
        await sender.telemetry({"ts": at, "sbp": 199, "hr": 66, "x": 1}, {"ts": at + 1, "hr": 67})
        await sender.telemetry({"ts": at, "x": 2, "y": 3})
    first, second = ward.rows("SELECT sbp, hr, extra FROM telemetry ORDER BY ts")
    assert first == {"sbp": 120, "hr": 66, "extra": {"x": 1, "y": 3}}
    assert second["hr"] == 67


async def test_an_emergency_sent_again_is_one_event_and_one_alarm(dsn: str, ward: Ward) -> None:
    async with serving(dsn) as sender:
        device = await sender.service.find("mat")
        assert device is not None
        sender.service.connected(device, sender)
        for _ in range(3):
            await sender.event("e1", "sos")
        await sender.event("e2", "sos")
        assert sender.sent_down == [
            ("anxin/v1/mat/receipt", f'{{"id":"{id_}"}}'.encode()) for id_ in ("e1",) * 3 + ("e2",)
        ]
    assert ward.value("SELECT count(*) FROM events") == 2
    (alarm,) = ward.alarms()
    assert (alarm["kind"], alarm["priority"], alarm["count"]) == ("sos", 3, 2)
    assert [row["change"] for row in ward.rows("SELECT change FROM timeline ORDER BY id")] == [
        "raised", "repeated",
    ]  # fmt: skip
    assert ward.value("SELECT count(*) FROM outbox") == 1


@pytest.mark.parametrize(
    ("offset_ms", "raised", "late"),
    [
        (0, 1, False), (-9 * MINUTE, 1, False), (-11 * MINUTE, 1, True), (-23 * HOUR, 1, True),
        (-25 * HOUR, 0, None), (-8 * 24 * HOUR, 0, None), (MINUTE, 1, False), (3 * MINUTE, 0, None),
    ],
)  # fmt: skip
async def test_an_emergency_raises_its_alarm_up_to_a_day_late(
    dsn: str, ward: Ward, offset_ms: int, raised: int, late: bool | None
) -> None:
    async with serving(dsn) as sender:
        await sender.event("e1", "fall", ts=now_ms() + offset_ms)
    assert ward.value("SELECT count(*) FROM events") == 1
    alarms = ward.alarms()
    assert len(alarms) == raised
    if alarms:
        assert alarms[0]["late"] is late
        assert (alarms[0]["raised_at"] - alarms[0]["event_at"]).total_seconds() == pytest.approx(
            -offset_ms / 1000, abs=5
        )


@pytest.mark.parametrize("offset_ms", [-11 * MINUTE, -8 * 24 * HOUR, 3 * MINUTE])
async def test_a_late_or_misdated_reading_is_kept_and_raises_nothing(
    dsn: str, ward: Ward, offset_ms: int
) -> None:
    async with serving(dsn) as sender:
        await sender.telemetry({"ts": now_ms() + offset_ms, "temp": 40})
    assert ward.value("SELECT flags FROM telemetry") > 0
    assert ward.alarms() == []


async def test_help_cancelled_recovers_the_condition_and_leaves_the_handling_open(
    dsn: str, ward: Ward
) -> None:
    async with serving(dsn) as sender:
        await sender.event("e1", "sos")
        await sender.event("e2", "help_cancelled")
    (alarm,) = ward.alarms()
    assert (alarm["condition"], alarm["handling"]) == ("recovered", "open")


async def test_a_corridor_device_raises_the_alarm_of_its_place(dsn: str, ward: Ward) -> None:
    ward.device("corridor", "smoke", place=ward.place)
    async with serving(dsn) as sender:
        await sender.event("e1", "smoke", device="corridor")
    (alarm,) = ward.alarms()
    assert (alarm["subject"], alarm["resident_id"]) == (f"p{ward.place}", None)


async def test_persistence_lives_on_through_a_restart(dsn: str, ward: Ward) -> None:
    start = now_ms() - 65_000
    readings = [{"ts": start + 5000 * n, "hr": 125} for n in range(13)]
    async with serving(dsn) as sender:
        await sender.telemetry(*readings[:10])
    assert ward.alarms() == []
    async with serving(dsn) as sender:
        await sender.telemetry(*readings[10:])
    (alarm,) = ward.alarms()
    assert (alarm["kind"], alarm["priority"]) == ("heart_rate_high", 2)
    assert alarm["detail"]["value"] == 125
    # The same readings once more, to a process that never saw them: nothing is raised again.
    async with serving(dsn) as sender:
        await sender.telemetry(*readings)
        await sender.telemetry({"ts": now_ms(), "hr": 100})
    (alarm,) = ward.alarms()
    assert (alarm["count"], alarm["condition"]) == (1, "recovered")


async def test_newest_values_do_not_go_back_in_time(dsn: str, ward: Ward) -> None:
    at = now_ms()
    async with serving(dsn) as sender:
        await sender.telemetry({"ts": at, "hr": 80})
        await sender.telemetry({"ts": at - 4000, "hr": 60, "temp": 36.5})
        await sender.telemetry({"ts": at + 10 * 365 * 24 * HOUR, "hr": 90})
    metrics = ward.value("SELECT metrics FROM latest")
    assert metrics["hr"] == [80, at]
    assert metrics["temp"] == [36.5, at - 4000]


async def test_what_cannot_be_used_is_in_quarantine_with_its_reason(dsn: str, ward: Ward) -> None:
    async with serving(dsn) as sender:
        await sender.telemetry(b"{broken", {"hr": 70, "temp": 0}, b"x" * 70_000, {"hr": 71})
        await sender.send("mat", Kind.EVENT, b'{"type":"sos"}', {"id": "e1", "type": "fall"})
        await sender.send("mat", Kind.STATE, {"battery": 900})
        await sender.send("mat", Kind.RESULT, {"id": "abc", "ok": True})
        await sender.send("stranger", Kind.TELEMETRY, {"hr": 70})
    found = {row["reason"].split(":")[0] for row in ward.rows("SELECT reason FROM quarantine")}
    assert found == {
        "bad JSON", "temp", "over 64 KiB", "wrong type", "battery", "id", "unknown device",
    }  # fmt: skip
    assert ward.value("SELECT count(*) FROM telemetry") == 2
    assert len(ward.alarms()) == 1
    assert ward.value("SELECT max(length(payload)) FROM quarantine") == 65_536


async def test_a_payload_that_the_database_refuses_stops_nobody(dsn: str, ward: Ward) -> None:
    ward.device("ghost", resident=1)
    async with serving(dsn) as sender:
        await sender.event("e0", "motion", device="ghost")
        ward.db.execute("DELETE FROM events")
        # The row vanishes behind the back of ingest: its foreign key now refuses the device.
        ward.db.execute("SET session_replication_role = replica")  # and so no trigger tells
        ward.db.execute("DELETE FROM devices WHERE id = 'ghost'")
        await sender.event("hold", "motion")
        waiting = [
            await sender.submit("mat", Kind.EVENT, {"id": "e1", "type": "sos"}),
            await sender.submit("ghost", Kind.EVENT, {"id": "e2", "type": "sos"}),
            await sender.submit("mat", Kind.EVENT, {"id": "e3", "type": "fall"}),
        ]
        await asyncio.wait_for(asyncio.gather(*waiting), 20)
        assert sender.service.pipeline.queued_bytes == 0
    assert [alarm["kind"] for alarm in ward.alarms()] == ["sos", "fall"]
    assert ward.rows("SELECT device_id, reason FROM quarantine") == [
        {"device_id": "ghost", "reason": "cannot be stored: RefusedByDatabase"}
    ]


async def test_nothing_is_acknowledged_while_the_database_is_away(dsn: str, ward: Ward) -> None:
    name = ward.value("SELECT current_database()")
    admin = psycopg.connect(dsn.replace(f"/{name}", "/postgres"), autocommit=True)
    async with serving(dsn, queue_mebibytes=1) as sender:
        await sender.telemetry({"ts": now_ms(), "hr": 70})
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                      [name])  # fmt: skip
        start = now_ms() - 60_000
        reading = await sender.submit(
            "mat", Kind.TELEMETRY, *({"ts": start + n, "hr": 70, "x": n} for n in range(100))
        )
        emergency = await sender.submit("mat", Kind.EVENT, {"id": "e1", "type": "sos"})
        again = await sender.submit("mat", Kind.TELEMETRY, *[b'{"hr":1}' + b" " * 60_000] * 20)
        resumed = asyncio.Event()
        assert not sender.service.has_room
        sender.service.call_when_room(resumed.set)
        await eventually(lambda: sender.service.pipeline.counters.retries >= 4)
        assert not any(future.done() for future in (reading, emergency, again))
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await asyncio.wait_for(asyncio.gather(reading, emergency, again, resumed.wait()), 20)
    admin.close()
    fresh = psycopg.connect(dsn)
    assert fresh.execute("SELECT count(*) FROM telemetry").fetchone() == (121,)
    assert fresh.execute("SELECT count(*) FROM alarms").fetchone() == (1,)
    fresh.close()


async def test_a_changed_assignment_and_a_revoked_secret_take_effect_at_once(
    dsn: str, ward: Ward
) -> None:
    async with serving(dsn) as sender:
        device = await sender.service.find("mat")
        assert device is not None
        sender.service.connected(device, sender)
        other = ward.resident("李国强", limits=json.dumps({"temp_high": 38.9}))
        ward.db.execute("UPDATE assignments SET during = tstzrange(lower(during), now())")
        ward.db.execute(
            "INSERT INTO assignments (device_key, resident_id, during)"
            " VALUES (%s, %s, tstzrange(now(), NULL))", [device.key, other],
        )  # fmt: skip
        registry = sender.service.registry
        await eventually(lambda: registry.card(device).resident_id == other)
        await sender.telemetry({"temp": 38.4})
        await sender.event("e1", "sos")
        ward.db.execute("UPDATE devices SET revoked_at = now()")
        await eventually(lambda: bool(sender.closed))
        assert await sender.service.authenticate("mat", b"whatever") is None
    kinds = {(alarm["subject"], alarm["kind"], alarm["priority"]) for alarm in ward.alarms()}
    assert kinds == {(f"r{other}", "sos", 3), (f"r{other}", "temperature_high", 1)}


async def test_a_renewed_secret_opens_at_once_and_ends_the_older_connection(
    dsn: str, ward: Ward
) -> None:
    old = ward.device("watch", "wearable")
    async with serving(dsn) as sender:
        device = await sender.service.authenticate("watch", old.encode())
        assert device is not None
        sender.secret = old.encode()
        sender.service.connected(device, sender)
        new, salt, hashed = new_secret()
        ward.db.execute(
            "UPDATE devices SET salt = %s, secret_hash = %s WHERE id = 'watch'", [salt, hashed]
        )
        assert await sender.service.authenticate("watch", new.encode()) is device
        assert await sender.service.authenticate("watch", old.encode()) is None
        await eventually(lambda: bool(sender.closed))


async def test_a_command_reaches_the_device_and_its_result_comes_back(dsn: str, ward: Ward) -> None:
    async with serving(dsn) as sender:
        device = await sender.service.find("mat")
        assert device is not None
        sender.service.connected(device, sender)
        ward.db.execute(
            "INSERT INTO commands (device_key, name, args) VALUES (%s, 'blink', '{\"times\": 3}')",
            [device.key],
        )
        await eventually(lambda: bool(sender.sent_down))
        topic, payload = sender.sent_down[0]
        command = json.loads(payload)
        assert (topic, command["name"]) == ("anxin/v1/mat/command", "blink")
        await eventually(lambda: ward.value("SELECT delivered_at FROM commands"))
        await sender.send("mat", Kind.RESULT, {"id": command["id"], "ok": True})
    assert ward.value("SELECT ok FROM commands") is True


async def test_a_device_connected_twice_is_reached_until_the_last_way_closes(
    dsn: str, ward: Ward
) -> None:
    async with serving(dsn) as first:
        second = Sender(first.service)
        device = await first.service.find("mat")
        assert device is not None
        first.service.connected(device, first)
        first.service.connected(device, second)
        await first.event("e1", "sos")
        assert len(first.sent_down) == len(second.sent_down) == 1
        first.service.disconnected(device, second, clean=True)
        await first.event("e2", "sos")
        assert (len(first.sent_down), len(second.sent_down)) == (2, 1)
        await first.telemetry({"hr": 70})  # states and readings share a lane: both are stored now
        assert ward.value("SELECT online FROM device_states") is True
        first.service.disconnected(device, first, clean=True)
        await first.telemetry({"hr": 71})
        assert ward.value("SELECT online FROM device_states") is False


async def test_beds_are_followed_through_readings_and_events(dsn: str, ward: Ward) -> None:
    at = now_ms() - 5 * MINUTE
    async with serving(dsn) as sender:
        await sender.telemetry({"ts": at, "presence": "present"})
        await sender.telemetry({"ts": at + 1000, "presence": "absent"})
        await sender.telemetry({"ts": at + 6000, "presence": "absent"})
        (row,) = ward.rows("SELECT * FROM latest")
        assert (row["absent_since"] - row["present_since"]).total_seconds() == 1
        await sender.event("e1", "bed_return", ts=at + 9000)
        (row,) = ward.rows("SELECT * FROM latest")
    assert row["absent_since"] is None
    assert row["metrics"]["presence"] == ["present", at + 9000]


async def test_mutated_payloads_crash_nothing_and_are_readable_with_their_reason(
    dsn: str, ward: Ward
) -> None:
    dice = random.Random(7)  # noqa: S311  repeatable on purpose
    ward.device("neighbour", resident=ward.resident())
    good = [
        b'{"ts":%d,"seq":7,"hr":72,"rr":15,"spo2":97,"temp":36.6,"presence":"present"}',
        b'[{"ts":%d,"hr":70},{"rr":12,"extra":{"a":1}}]',
    ]
    rounds, a_round = 100, 2_000

    def mutated(number: int) -> bytes:
        payload = bytearray(dice.choice(good) % (now_ms() - number))
        for _ in range(dice.randint(1, 5)):
            place = dice.randrange(len(payload) + 1)
            payload[place : place + dice.randint(0, 3)] = dice.randbytes(dice.randint(0, 3))
        return bytes(payload)

    peaks = []
    async with serving(dsn) as sender:
        for number in range(rounds):
            bad = await sender.submit(
                "mat", Kind.TELEMETRY, *(mutated(number * a_round + n) for n in range(a_round))
            )
            await sender.telemetry({"hr": 70 + number % 10}, device="neighbour")
            await asyncio.wait_for(bad, 30)
            gc.collect()
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        counters = sender.service.pipeline.counters
        assert counters.payloads == rounds * (a_round + 1)
    assert ward.value("SELECT count(*) FROM quarantine") == counters.quarantined > 100_000
    assert ward.value("SELECT count(*) FROM quarantine WHERE reason = '' OR payload = ''") == 0
    key = ward.value("SELECT key FROM devices WHERE id = 'neighbour'")
    assert ward.value("SELECT count(*) FROM telemetry WHERE device_key = %s", key) == rounds
    assert peaks[-1] - peaks[rounds // 4] < 64 * 1024, "memory grows with bad payloads"

"""The spool: acknowledged while the database is away, stored exactly once when it is back."""

import asyncio
import json
import os
import random
import signal
import stat
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import psutil
import psycopg
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from anxin.config import Settings
from anxin.db import pool
from anxin.db.intake import Intake
from anxin.db.migrate import migrate
from anxin.embedded import EmbeddedPostgres
from anxin.errors import DatabaseUnavailable, SettingError
from ingest.inbound import Kind
from ingest.metrics import IngestCollector
from ingest.remembered import FILE, Remembered
from ingest.service import IngestService
from ingest.spool import Spool, Spooled, SpoolFull
from tests.factories import Ward
from tests.integration.ingest_alone import IngestAlone
from tests.integration.test_pipeline import Sender, now_ms
from tests.waiting import eventually, wait_until

QUEUED = int(os.environ.get("ANXIN_TEST_SPOOLED", "60000"))
RATE = 3_000
FREEZES = int(os.environ.get("ANXIN_TEST_FREEZES", "3"))
FROZEN_SECONDS = float(os.environ.get("ANXIN_TEST_FROZEN_SECONDS", "3"))
SEED = int(os.environ.get("ANXIN_TEST_SEED", "0")) or time.time_ns() % 1_000_000
DICE = random.Random(SEED)  # noqa: S311  repeatable, not secret
OUTAGE_SECONDS = int(os.environ.get("ANXIN_TEST_OUTAGE_SECONDS", "5"))


@pytest.fixture
def ward(dsn: str) -> Iterator[Ward]:
    """Return a facility with one resident, 1, who has a bed mat."""
    made = Ward(dsn)
    made.device("mat", resident=made.resident())
    yield made
    made.close()


@asynccontextmanager
async def serving(dsn: str, directory: Path, mebibytes: int = 64) -> AsyncIterator[Sender]:
    """Run an ingest service without a listener, with a spool in this directory."""
    settings = Settings(database=dsn, spool_dir=str(directory), spool_mebibytes=mebibytes)
    async with IngestService(settings) as service:
        yield Sender(service)


class Away:
    """A database that refuses connections until `back` is called."""

    def __init__(self, dsn: str) -> None:
        """Cut every connection and let none in."""
        self.dsn, self._name = dsn, dsn.rpartition("/")[2]
        self._admin = psycopg.connect(f"{dsn.rpartition('/')[0]}/postgres", autocommit=True)
        self._allow("false")
        self._admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [self._name],
        )

    def back(self) -> None:
        """Let connections in again."""
        self._allow("true")

    def _allow(self, yes: str) -> None:
        self._admin.execute(f'ALTER DATABASE "{self._name}" ALLOW_CONNECTIONS {yes}'.encode())

    def close(self) -> None:
        """Leave the database as it is found: open."""
        self._allow("true")
        self._admin.close()


@contextmanager
def away(dsn: str) -> Iterator[Away]:
    """Take the database away for a while."""
    outage = Away(dsn)
    try:
        yield outage
    finally:
        outage.close()


def value(dsn: str, query: str) -> Any:
    """Return one value, by a connection of its own: older ones were cut."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query.encode()).fetchone()
    return None if row is None else row[0]


def change(dsn: str, statement: str) -> None:
    """Change one row, by a connection of its own."""
    with psycopg.connect(dsn) as connection:
        assert connection.execute(statement.encode()).rowcount == 1


async def drained(sender: Sender) -> None:
    """Wait until nothing is left in the spool."""
    pipeline = sender.service.pipeline
    await eventually(lambda: pipeline.counters.drained >= pipeline.counters.spooled, 60)


@pytest.mark.usefixtures("ward")
async def test_what_arrives_in_an_outage_is_acknowledged_and_later_stored_once(
    dsn: str, data_dir: Path
) -> None:
    async with serving(dsn, data_dir) as sender:
        await sender.telemetry({"ts": now_ms(), "hr": 70})
        device = await sender.service.find("mat")
        assert device is not None
        sender.service.connected(device, sender)
        with away(dsn) as outage:
            start = now_ms() - 60_000
            # These are prepared for the database and then again from the spool.
            await sender.telemetry({"hr": 71}, {"hr": 72}, {"hr": 73})
            await sender.telemetry(*({"ts": start + n, "hr": 70, "x": n} for n in range(100)))
            await sender.event("e1", "sos")
            await sender.event("e1", "sos")
            await sender.telemetry(b"{broken")
            assert sender.sent_down == []
            outage.back()
            await drained(sender)
        await sender.telemetry({"ts": now_ms(), "hr": 74})
        assert sender.service.pipeline.queued_bytes == 0
        assert sender.service.pipeline.spool_bytes < 100_000
    # The receipt says that it is committed, so it came with the database.
    assert sender.sent_down[0] == ("anxin/v1/mat/receipt", b'{"id":"e1"}')
    assert value(dsn, "SELECT count(*) FROM telemetry") == 105
    # A reading without a time gets the same one however often it is prepared.
    query = "SELECT extract(epoch FROM ts - received_at) * 1e6 FROM telemetry WHERE hr = {}"
    assert [value(dsn, query.format(hr)) for hr in (71, 72, 73)] == [0, 1, 2]
    assert value(dsn, "SELECT count(*) FROM events") == 1
    assert value(dsn, "SELECT count FROM alarms WHERE kind = 'sos'") == 1
    assert value(dsn, "SELECT count(*) FROM quarantine") == 1
    assert value(dsn, "SELECT online FROM device_states") is True


@pytest.mark.usefixtures("ward")
async def test_rules_go_on_through_an_outage(dsn: str, data_dir: Path) -> None:
    start = now_ms() - 65_000
    readings = [{"ts": start + 5000 * n, "hr": 125} for n in range(13)]
    async with serving(dsn, data_dir) as sender:
        await sender.telemetry(*readings[:6])
        with away(dsn) as outage:
            # The rule fires in an attempt that fails, and must fire again from the spool.
            await sender.telemetry(*readings[6:])
            outage.back()
            await drained(sender)
    assert value(dsn, "SELECT count(*) FROM telemetry") == 13
    assert value(dsn, "SELECT string_agg(kind || count, ',') FROM alarms") == "heart_rate_high1"


@pytest.mark.usefixtures("ward")
async def test_an_emergency_overtakes_all_readings_of_the_outage(dsn: str, data_dir: Path) -> None:
    async with serving(dsn, data_dir, 256) as sender:
        await sender.telemetry({"ts": now_ms(), "hr": 70})
        start = now_ms() - 300_000
        with away(dsn) as outage:
            for first in range(0, QUEUED, 1000):
                await sender.telemetry(
                    *({"ts": start + n, "hr": 70 + n % 9} for n in range(first, first + 1000))
                )
            await sender.event("e1", "sos")
            outage.back()
            began = time.monotonic()
            query = "SELECT count(*) FROM alarms WHERE kind = 'sos'"
            await eventually(lambda: value(dsn, query), 10)
            took = time.monotonic() - began
            waiting = QUEUED + 1 - sender.service.pipeline.counters.drained
            await drained(sender)
    print(f"SOS raised {took:.2f} s after the database was back, {waiting} readings waiting")
    assert waiting > QUEUED // 2
    assert value(dsn, "SELECT count(*) FROM telemetry") == QUEUED + 1


@pytest.mark.usefixtures("ward")
async def test_a_full_spool_acknowledges_nothing_and_says_so(dsn: str, data_dir: Path) -> None:
    async with serving(dsn, data_dir, 1) as sender:
        await sender.telemetry({"ts": now_ms(), "hr": 70})
        with away(dsn) as outage:
            pending = [
                await sender.submit("mat", Kind.TELEMETRY, *[b'{"hr":1}' + b" " * 60_000] * 5)
                for _ in range(5)
            ]
            pipeline = sender.service.pipeline
            await eventually(lambda: pipeline.spool_full)
            collector = IngestCollector(sender.service, [])
            told = {one.name: one.samples[0].value for one in collector.collect() if one.samples}
            assert told["anxin_ingest_spool_full"] == 1
            assert not all(future.done() for future in pending)
            # A part is kept for emergencies.
            await sender.event("e1", "sos")
            outage.back()
            await asyncio.wait_for(asyncio.gather(*pending), 30)
            await drained(sender)
            assert not pipeline.spool_full
    assert value(dsn, "SELECT count(*) FROM telemetry") == 26
    assert value(dsn, "SELECT count(*) FROM alarms") == 1


@pytest.mark.usefixtures("ward")
async def test_more_than_the_whole_spool_waits_for_the_database(dsn: str, data_dir: Path) -> None:
    async with serving(dsn, data_dir, 1) as sender:
        await sender.telemetry({"ts": now_ms(), "hr": 70})
        with away(dsn) as outage:
            much = await sender.submit("mat", Kind.TELEMETRY, *[b'{"hr":1}' + b" " * 60_000] * 30)
            await eventually(lambda: sender.service.pipeline.spool_full)
            outage.back()
            await asyncio.wait_for(much, 30)
    assert value(dsn, "SELECT count(*) FROM telemetry") == 31


async def test_known_devices_are_let_in_during_an_outage_and_unknown_ones_are_told_to_wait(
    dsn: str, ward: Ward, data_dir: Path
) -> None:
    secret = ward.device("watch", "wearable")
    ward.device("other", "wearable")
    async with serving(dsn, data_dir) as sender:
        assert await sender.service.authenticate("watch", secret.encode())
        with away(dsn):
            assert await sender.service.authenticate("watch", secret.encode())
            with pytest.raises(DatabaseUnavailable):
                await sender.service.authenticate("other", b"whatever")


async def test_what_lay_long_raises_no_live_alarm_and_a_late_emergency_does(
    dsn: str, ward: Ward, data_dir: Path
) -> None:
    then_us = time.time_ns() // 1000 - 3_600_000_000
    async with Spool(data_dir, 1) as spool:
        hot = json.dumps({"ts": then_us // 1000, "temp": 40}).encode()
        await spool.put([Spooled("mat", Kind.TELEMETRY, then_us, [hot])], urgent=False)
        sos = json.dumps({"id": "e1", "type": "sos", "ts": then_us // 1000}).encode()
        await spool.put([Spooled("mat", Kind.EVENT, then_us, [sos])], urgent=True)
        gone = Spooled("gone", Kind.TELEMETRY, then_us, [b'{"hr":70}'])
        await spool.put([gone], urgent=False)
    async with Spool(data_dir, 1) as spool:
        offline = Spooled("mat", Kind.STATE, then_us, [b'{"online":false,"battery":50}'])
        await spool.put([offline], urgent=False)
    # Another ingest has heard the device since.
    ward.db.execute(
        "INSERT INTO device_states (device_key, online, heard_at)"
        " SELECT key, true, now() FROM devices"
    )
    async with serving(dsn, data_dir) as sender:
        await eventually(lambda: sender.service.pipeline.counters.drained == 4)
    ((reading,), (alarm,)) = ward.rows("SELECT * FROM telemetry"), ward.alarms()
    assert (reading["flags"], reading["received_at"].timestamp() * 1e6) == (0, then_us)
    assert (alarm["kind"], alarm["late"]) == ("sos", True)
    assert ward.rows("SELECT online, battery FROM device_states") == [
        {"online": True, "battery": 50}
    ]
    assert ward.rows("SELECT device_id, reason FROM quarantine") == [
        {"device_id": "gone", "reason": "unknown device"}
    ]


def modes(directory: Path) -> set[int]:
    """Return who may read the files of a spool: they hold what devices say of people."""
    return {file.stat().st_mode & 0o777 for file in directory.glob("[0-9].*")}


async def test_two_processes_have_two_files_and_the_next_takes_over_what_one_left(
    data_dir: Path,
) -> None:
    run = Spooled("mat", Kind.TELEMETRY, 1, [b"{}", b"{}"])
    async with Spool(data_dir, 1) as first:
        async with Spool(data_dir, 1) as second:
            await first.put([run], urgent=False)
            await second.put([run, run], urgent=False)
            assert (first.holds(urgent=False), second.holds(urgent=False)) == (2, 4)
        async with Spool(data_dir, 1) as again:
            assert again.holds(urgent=False) == 4
    async with Spool(data_dir, 1) as heir:
        assert heir.holds(urgent=False) == 6
        found = await heir.take(100, urgent=False)
        assert [one for _, one in found] == [run] * 3
        await heir.remove([number for number, _ in found], urgent=False)
    async with Spool(data_dir, 1) as empty:
        assert empty.holds(urgent=False) == 0
        assert modes(data_dir) == {0o600}


@pytest.mark.usefixtures("ward")
async def test_what_a_process_left_that_died_is_stored_by_one_that_runs(
    dsn: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.pipeline.ADOPT_SECONDS", 0.1)
    monkeypatch.setattr("ingest.spool.ADOPTED_AT_ONCE", 2)
    start = now_ms() - 60_000
    runs = [
        Spooled("mat", Kind.TELEMETRY, start * 1000, [json.dumps({"ts": start + n}).encode()])
        for n in range(7)
    ]
    press = Spooled("mat", Kind.EVENT, now_ms() * 1000, [b'{"id":"e1","type":"sos"}'])
    async with serving(dsn, data_dir) as sender, serving(dsn, data_dir) as other:
        await sender.telemetry({"ts": now_ms(), "hr": 70})
        async with Spool(data_dir, 1) as dying:
            await dying.put(runs, urgent=False)
            await dying.put([press], urgent=True)
        counters = [one.service.pipeline.counters for one in (sender, other)]
        await eventually(lambda: sum(one.drained for one in counters) >= 8, 15)
        await sender.telemetry({"ts": now_ms(), "hr": 71})
        # It may have lined up behind the last of what was adopted.
        await eventually(lambda: sum(one.drained - one.spooled for one in counters) == 8, 15)
    assert value(dsn, "SELECT count(*) FROM telemetry") == 9
    assert value(dsn, "SELECT sum(count) FROM alarms") == 1
    async with Spool(data_dir, 1) as heir:
        assert heir.holds(urgent=True) == heir.holds(urgent=False) == 0


async def test_a_broken_file_of_another_process_is_left_alone(data_dir: Path) -> None:
    (data_dir / "7.sqlite").write_bytes(b"not a database, and longer than a header of SQLite" * 9)
    async with Spool(data_dir, 1) as spool:
        assert await spool.adopt() == 0
    assert (data_dir / "7.sqlite").exists()


async def test_a_spool_keeps_order_by_urgency_and_its_bounds(data_dir: Path) -> None:
    async with Spool(data_dir, 1) as spool:
        for number in range(5):
            await spool.put([Spooled("mat", Kind.STATE, number, [b"{}"] * 10)], urgent=False)
        await spool.put([Spooled("mat", Kind.EVENT, 9, [b"{}"])], urgent=True)
        few = await spool.take(25, urgent=False)
        assert [one.received_us for _, one in few] == [0, 1]
        await spool.remove([number for number, _ in few], urgent=False)
        rest = await spool.take(1, urgent=False)
        assert [one.received_us for _, one in rest] == [2]
        assert len(await spool.take(100, urgent=True)) == 1
        with pytest.raises(SpoolFull):
            await spool.put([Spooled("mat", Kind.STATE, 1, [b"x" * 2**20])], urgent=True)


async def test_a_directory_that_cannot_be_written_is_named(data_dir: Path) -> None:
    (data_dir / "file").touch()
    with pytest.raises(SettingError, match="ANXIN_SPOOL_DIR"):
        async with Spool(data_dir / "file" / "spool", 1):
            pass


def remembered(directory: Path) -> Path:
    """Return the file with the keys of devices."""
    return directory / "spool" / FILE


def test_ingest_killed_and_started_in_an_outage_takes_known_devices_and_loses_nothing(
    dsn: str, ward: Ward, data_dir: Path, free_port: int
) -> None:
    secret = ward.device("watch", "wearable", resident=ward.resident())
    with IngestAlone(dsn, free_port, data_dir / "log") as ingest:
        wait_until(remembered(data_dir).exists, 10)
        assert stat.S_IMODE(remembered(data_dir).stat().st_mode) == 0o600
        with away(dsn) as outage:
            ingest.stop(signal.SIGKILL)
            ingest.start()
            with pytest.raises(AssertionError, match="not true"):
                Publisher(ingest.mqtt, "watch", "wrong", patience_seconds=4)
            publisher = Publisher(ingest.mqtt, "watch", secret)
            for number in range(100):
                publisher.send("telemetry", ts=now_ms() + number, hr=70)
            publisher.send("event", id="e1", type="sos")
            wait_until(lambda: publisher.acknowledged == 101, 20)
            outage.back()
        wait_until(lambda: value(dsn, "SELECT count(*) FROM telemetry") == 100, 20)
        wait_until(lambda: value(dsn, "SELECT count(*) FROM alarms") == 1, 10)
        publisher.send("event", id="e2", type="sos")
        wait_until(lambda: value(dsn, "SELECT sum(count) FROM alarms") == 2, 10)
        publisher.close()
    # It is the resident's alarm, not one of a device that nobody has.
    assert value(dsn, "SELECT resident_id FROM alarms") == 2
    assert value(dsn, "SELECT count(*) FROM quarantine") == 0


@pytest.mark.usefixtures("ward")
async def test_who_was_let_in_from_memory_and_is_revoked_is_cut_off_when_the_database_is_back(
    dsn: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.service.START_SECONDS", 0.5)
    monkeypatch.setattr("ingest.registry.ASK_SECONDS", 0.2)
    with closing(Ward(dsn)) as more:
        secrets = {id_: more.device(id_).encode() for id_ in ("kept", "revoked", "renewed", "gone")}
    async with serving(dsn, data_dir):
        await eventually((data_dir / FILE).exists, 10)
    with away(dsn) as outage:
        async with serving(dsn, data_dir) as sender:
            service = sender.service
            assert service.health.startswith("not ready: the database")
            devices = {}
            for id_, secret in secrets.items():
                device = await service.authenticate(id_, secret)
                assert device is not None
                outlet = devices[id_] = Sender(service)
                outlet.secret = secret
                service.connected(device, outlet)
                again = await service.authenticate(id_, secret)
                assert again is device
            with pytest.raises((DatabaseUnavailable, TimeoutError)):
                await asyncio.wait_for(service.authenticate("kept", b"wrong"), 1)
            outage.back()
            change(dsn, "UPDATE devices SET revoked_at = now() WHERE id = 'revoked'")
            change(dsn, "UPDATE devices SET secret_hash = 'x' WHERE id = 'renewed'")
            change(dsn, "DELETE FROM devices WHERE id = 'gone'")
            await eventually(lambda: sum(bool(one.closed) for one in devices.values()) == 3, 15)
            assert not devices["kept"].closed
            assert service.health == "ready"
            assert await service.authenticate("revoked", secrets["revoked"]) is None
            await drained(sender)


async def test_keys_too_old_too_new_or_unreadable_open_nothing(
    dsn: str, ward: Ward, data_dir: Path
) -> None:
    secret = ward.device("watch").encode()
    fresh = Remembered(data_dir, 1)
    async with pool.Database(dsn) as database:
        await fresh.renew(database)
    assert fresh.recall("watch", secret) is not None
    assert fresh.recall("watch", b"wrong") is None
    for hours, moves, opens in ((1, 0, True), (1, 3590, True), (1, 3610, False), (1, -60, False)):
        later = Remembered(data_dir, hours)
        later.load()
        later._confirmed_at -= moves
        assert (later.recall("watch", secret) is not None) is opens
    (data_dir / FILE).write_bytes(b"\x93broken")
    broken = Remembered(data_dir, 1)
    broken.load()
    assert len(broken) == 0
    Remembered(data_dir, 0).load()
    assert not (data_dir / FILE).exists()


class Publisher:
    """A device that publishes over MQTT and counts what was acknowledged."""

    def __init__(
        self, address: str, device_id: str, secret: str, patience_seconds: float = 10
    ) -> None:
        """Connect."""
        host, _, port = address.rpartition(":")
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=device_id)
        self.client.username_pw_set(device_id, secret)
        self.client.max_inflight_messages_set(10_000)
        self.acknowledged = 0
        self.client.on_publish = self._on_publish
        self.client.connect(host, int(port))
        self.client.loop_start()
        try:
            wait_until(self.client.is_connected, patience_seconds)
        except BaseException:
            self.close()
            raise
        self.topic = f"anxin/v1/{device_id}/"

    def _on_publish(self, *_: object) -> None:
        self.acknowledged += 1

    def send(self, kind: str, **fields: object) -> None:
        """Publish one object with QoS 1."""
        self.client.publish(self.topic + kind, json.dumps(fields), qos=1)

    def close(self) -> None:
        """Leave."""
        self.client.disconnect()
        self.client.loop_stop()


def test_ingest_killed_with_a_full_spool_loses_nothing(
    dsn: str, ward: Ward, data_dir: Path, free_port: int
) -> None:
    secret = ward.device("watch", "wearable", resident=ward.resident())
    with IngestAlone(dsn, free_port, data_dir / "log") as ingest:
        publisher = Publisher(ingest.mqtt, "watch", secret)
        publisher.send("telemetry", ts=now_ms(), hr=70)
        wait_until(lambda: publisher.acknowledged == 1)
        with away(dsn) as outage:
            start = now_ms() - 60_000
            for number in range(2000):
                publisher.send("telemetry", ts=start + number, hr=70)
            publisher.send("event", id="e1", type="fall")
            wait_until(lambda: publisher.acknowledged == 2002, 20)
            ingest.stop(signal.SIGKILL)
            publisher.close()
            outage.back()
        ingest.start()
        wait_until(lambda: value(dsn, "SELECT count(*) FROM telemetry") == 2001, 20)
        wait_until(lambda: value(dsn, "SELECT count(*) FROM alarms") == 1, 10)


async def test_postgres_killed_under_load_every_message_is_acknowledged_and_stored_once(
    data_dir: Path,
) -> None:
    with EmbeddedPostgres(data_dir) as server:
        await _kill_under_load(server, data_dir / "spool")


async def _kill_under_load(server: EmbeddedPostgres, directory: Path) -> None:
    migrate(server.dsn)
    ward = Ward(server.dsn)
    for number in range(20):
        ward.device(f"mat-{number}", resident=ward.resident())
    ward.close()
    async with serving(server.dsn, directory, 256) as sender:
        start, sent, waits = now_ms() - 300_000, 0, list[asyncio.Future[None]]()

        async def load(seconds: float) -> None:
            nonlocal sent
            until = time.monotonic() + seconds
            while (began := time.monotonic()) < until:
                for number in range(20):
                    objects = ({"ts": start + sent + n, "hr": 70} for n in range(RATE // 200))
                    waits.append(await sender.submit(f"mat-{number}", Kind.TELEMETRY, *objects))
                    sent += RATE // 200
                await asyncio.sleep(max(0, began + 0.1 - time.monotonic()))

        await load(1)
        os.kill(server.pid, signal.SIGKILL)
        await load(OUTAGE_SECONDS)
        # All is on disk, and acknowledged, while the database is still away.
        await asyncio.wait_for(asyncio.gather(*waits), 5)
        spooled = sender.service.pipeline.counters.spooled
        await asyncio.to_thread(server.wait)
        await asyncio.to_thread(server.start)
        await load(1)
        await asyncio.wait_for(asyncio.gather(*waits), 30)
        await drained(sender)
    assert spooled >= (OUTAGE_SECONDS - 3) * RATE
    print(f"{sent} sent, {spooled} spooled")
    assert value(server.dsn, "SELECT count(*) FROM telemetry") == sent


@pytest.mark.usefixtures("ward")
async def test_a_database_that_hangs_is_broken_off_and_the_spool_takes_over(
    dsn: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.pipeline.STALLED_SECONDS", 0.5)
    async with serving(dsn, data_dir) as sender:
        await sender.telemetry({"ts": now_ms(), "hr": 70})
        with psycopg.connect(dsn) as blocker:
            # As a stopped server looks to its client: connected, and never an answer.
            blocker.execute("LOCK TABLE telemetry, events IN ACCESS EXCLUSIVE MODE")
            await sender.telemetry({"ts": now_ms() + 1, "hr": 71})
            await sender.event("e1", "sos")
            assert sender.service.pipeline.counters.spooled == 2
        await drained(sender)
    assert value(dsn, "SELECT count(*) FROM telemetry") == 2
    assert value(dsn, "SELECT count(*) FROM alarms WHERE count = 1") == 1


@pytest.mark.usefixtures("ward")
async def test_readings_that_hang_go_to_the_spool_while_emergencies_do_not_hang(
    dsn: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.pipeline.STALLED_SECONDS", 0.5)
    async with serving(dsn, data_dir) as sender:
        await sender.telemetry({"ts": now_ms(), "hr": 70})
        with psycopg.connect(dsn) as blocker:
            blocker.execute("LOCK TABLE telemetry IN ACCESS EXCLUSIVE MODE")
            reading = asyncio.create_task(sender.telemetry({"ts": now_ms() + 1, "hr": 71}))
            pressed, until = 0, time.monotonic() + 10
            while not reading.done() and time.monotonic() < until:
                await sender.event(f"e{pressed}", "sos")
                pressed += 1
                await asyncio.sleep(0.05)
            assert reading.done()
            assert sender.service.pipeline.counters.spooled == 1
        await drained(sender)
    assert value(dsn, "SELECT count(*) FROM telemetry") == 2
    assert value(dsn, "SELECT sum(count) FROM alarms") == pressed


async def test_a_connection_that_the_driver_lost_without_a_reason_counts_as_away() -> None:
    with pytest.raises(DatabaseUnavailable):
        async with pool.translated():
            raise psycopg.DatabaseError("lost")


async def test_a_task_cancelled_in_a_transaction_ends_also_when_the_connection_is_lost(
    dsn: str,
) -> None:
    intake = Intake(dsn)
    begun = asyncio.Event()

    async def work() -> None:
        while True:
            try:
                async with await intake.transaction() as transaction:
                    await transaction.waiting_commands([1])
                    begun.set()
                    await asyncio.Event().wait()
            except DatabaseUnavailable:
                continue

    working = asyncio.create_task(work())
    await begun.wait()
    with away(dsn) as outage:
        outage.back()
        working.cancel()
        await asyncio.wait({working}, timeout=5)
    assert working.cancelled()
    await intake.close()


@pytest.mark.usefixtures("ward")
async def test_ingest_ends_while_a_transaction_of_it_hangs(dsn: str, data_dir: Path) -> None:
    with psycopg.connect(dsn) as blocker:
        async with asyncio.timeout(15):
            async with serving(dsn, data_dir) as sender:
                await sender.telemetry({"ts": now_ms(), "hr": 70})
                blocker.execute("LOCK TABLE telemetry IN ACCESS EXCLUSIVE MODE")
                await sender.submit("mat", Kind.TELEMETRY, {"ts": now_ms() + 1, "hr": 71})
                waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
                await eventually(lambda: value(dsn, waiting) == 1)


@pytest.mark.usefixtures("ward")
async def test_a_question_that_hangs_is_broken_off_and_the_next_is_answered(dsn: str) -> None:
    async with pool.Database(dsn, size=1, stalled_seconds=0.5) as database:
        with psycopg.connect(dsn) as blocker:
            blocker.execute("LOCK TABLE devices IN ACCESS EXCLUSIVE MODE")
            async with asyncio.timeout(5):
                with pytest.raises(DatabaseUnavailable):
                    await database.fetch(b"SELECT id FROM devices")
        assert await database.fetch(b"SELECT id FROM devices") == [{"id": "mat"}]


@pytest.mark.usefixtures("ward")
async def test_a_broken_off_client_leaves_no_backend_waiting_for_a_lock(dsn: str) -> None:
    async with pool.Database(dsn, size=1, stalled_seconds=0.2) as database:
        with psycopg.connect(dsn) as blocker:
            blocker.execute("LOCK TABLE devices IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(DatabaseUnavailable):
                await database.fetch(b"LOCK TABLE devices IN SHARE MODE")
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            await eventually(lambda: value(dsn, waiting) == 0, 8)


async def test_a_database_frozen_again_and_again_holds_up_no_acknowledgement_for_long(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.pipeline.STALLED_SECONDS", 1.0)
    monkeypatch.setitem(pool._WIRE, "connect_timeout", 2)
    with EmbeddedPostgres(data_dir) as server:
        migrate(server.dsn)
        ward = Ward(server.dsn)
        for number in range(20):
            ward.device(f"mat-{number}", resident=ward.resident())
        for number in range(FREEZES * 20):
            ward.device(f"button-{number}", "call_button", resident=ward.resident())
        ward.close()
        async with serving(server.dsn, data_dir / "spool", 256) as sender:
            load = Load(sender)
            for number in range(20):
                await sender.service.find(f"mat-{number}")
            async with asyncio.TaskGroup() as tasks:
                flowing = tasks.create_task(load.flow())
                for number in range(FREEZES):
                    await asyncio.sleep(DICE.uniform(0, 0.5))
                    with frozen(server.pid):
                        for press in range(20):
                            tasks.create_task(load.press(20 * number + press))
                        await asyncio.sleep(FROZEN_SECONDS * DICE.uniform(0.3, 1.2))
                    sent = load.sent
                    await eventually(lambda: load.acknowledged >= sent, 15)  # noqa: B023
                flowing.cancel()
            await eventually(lambda: load.acknowledged == load.sent, 15)
            await drained(sender)
        assert value(server.dsn, "SELECT count(*) FROM telemetry") == load.readings
        assert value(server.dsn, "SELECT sum(count) FROM alarms") == FREEZES * 20


@contextmanager
def frozen(leader: int) -> Iterator[None]:
    """Stop a process and its children during the block."""
    processes = [psutil.Process(leader), *psutil.Process(leader).children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in reversed(processes):
            with suppress(psutil.NoSuchProcess):
                process.resume()


class Load:
    """Mats that report without a pause and buttons that are pressed; counts what was told OK."""

    def __init__(self, sender: Sender) -> None:
        """Send nothing yet."""
        self.sent = self.acknowledged = self.readings = 0
        self._sender = sender
        self._start = now_ms() - 3_600_000

    async def flow(self) -> None:
        """Report about 1,000 times a second, until cancelled."""
        while True:
            for number in range(20):
                reading = {"ts": self._start + self.readings, "hr": 70}
                await self._send(f"mat-{number}", Kind.TELEMETRY, reading)
                self.readings += 1
            await asyncio.sleep(0.02)

    async def press(self, number: int) -> None:
        """Press a button that this process has not heard of yet, as stubbornly as a device."""
        while True:
            try:
                await self._sender.service.find(f"button-{number}")
                break
            except DatabaseUnavailable:
                await asyncio.sleep(0.1)
        await self._send(f"button-{number}", Kind.EVENT, {"id": "1", "type": "sos"})

    async def _send(self, device_id: str, kind: Kind, payload: dict[str, Any]) -> None:
        done = await self._sender.submit(device_id, kind, payload)
        self.sent += 1
        done.add_done_callback(self._count)

    def _count(self, _: asyncio.Future[None]) -> None:
        self.acknowledged += 1

"""Simulated devices against a real ingest: nothing acknowledged is missing, whatever is killed."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from anxin.config import Address
from device_sim.fleet import IN_FLIGHT, Fleet
from device_sim.payload import EVENT, TELEMETRY, Outgoing, encode
from device_sim.provision import Roster, read_roster, write_roster
from device_sim.ward import plan_ward
from ingest.inbound import Kind
from tests.integration.ingest_alone import IngestAlone, anxin, enrol
from tests.integration.recording_gate import SECRET, listening
from tests.waiting import eventually, wait_until


@pytest.fixture
def ingest(dsn: str, free_port: int, tmp_path: Path) -> Iterator[IngestAlone]:
    """Return a running ingest."""
    with IngestAlone(dsn, free_port, tmp_path / "ingest.log") as running:
        yield running


@pytest.fixture
def file(dsn: str, ingest: IngestAlone, tmp_path: Path) -> Path:
    """Return the devices file of an enrolled ward of 24."""
    path = tmp_path / "devices.json"
    devices = [(d.id, d.kind, d.resident) for d in plan_ward(24, 1).devices]
    enrol(dsn, devices, path, ingest.mqtt)
    return path


def test_every_reading_arrives_although_ingest_is_killed_in_between(
    dsn: str, ingest: IngestAlone, file: Path
) -> None:
    command = [sys.executable, "-m", "anxin.cli", "simulate", "--devices", str(file)]
    command += ["--rate", "400", "--duration", "12s", "--scenario", "sos", "--after", "1s"]
    with (
        psycopg.connect(dsn, autocommit=True) as connection,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as simulator,
    ):

        def stored() -> int:
            row = connection.execute("SELECT count(*) FROM telemetry").fetchone()
            return row[0] if row else 0

        for readings in (200, 800):
            wait_until(lambda wanted=readings: stored() > wanted, 30, "readings arrive")
            ingest.stop(signal.SIGKILL)
            ingest.start()
        output, errors = simulator.communicate(timeout=90)
        assert simulator.returncode == 0, (output, errors)
        assert b"unacknowledged=0" in output
        gaps = connection.execute(
            "SELECT device_key FROM telemetry GROUP BY device_key"
            " HAVING max(seq) <> count(*) OR min(seq) <> 1"
        ).fetchall()
        assert gaps == []
        assert stored() > 3_000
        sos = connection.execute("SELECT count(*), sum(count) FROM alarms WHERE kind = 'sos'")
        assert sos.fetchone() == (1, 1)


def test_a_wrong_secret_ends_with_one_sentence(file: Path) -> None:
    roster = read_roster(file)
    wrong = [type(d)(d.id, "x" * 43, d.kind, d.resident) for d in roster.devices]
    write_roster(file, Roster(tuple(wrong), roster.mqtt))
    done = anxin("simulate", "--devices", str(file), "--duration", "5s")
    assert done.returncode == 1
    assert "refused" in done.stderr.splitlines()[-1]
    assert "--provision" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_sigterm_ends_with_everything_acknowledged(dsn: str, file: Path) -> None:
    command = [sys.executable, "-m", "anxin.cli", "simulate", "--devices", str(file)]
    with (
        psycopg.connect(dsn, autocommit=True) as connection,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as simulator,
    ):
        online = "SELECT count(*) FROM device_states WHERE online"
        devices = len(read_roster(file).devices)
        wait_until(lambda: connection.execute(online).fetchone() == (devices,), 30, "all online")
        simulator.terminate()
        output, errors = simulator.communicate(timeout=30)
        assert simulator.returncode == 0, (output, errors)
        assert f"devices={devices} ".encode() in output
        assert b"unacknowledged=0" in output


@pytest.mark.parametrize("protocol", [4, 5])
async def test_leaving_says_goodbye_and_a_cut_does_not(protocol: int) -> None:
    async with listening() as (gate, listener):
        address = Address("127.0.0.1", listener.port)
        async with Fleet(address, {"d": SECRET}, hello=_hello, protocol=protocol) as fleet:
            await eventually(lambda: gate.payloads("d", Kind.STATE))
            fleet.cut(["d"])
            await eventually(lambda: gate.left == [("d", False)])
            assert b'{"online":false}' in gate.payloads("d", Kind.STATE)
            fleet.cut([])
            await eventually(lambda: fleet.connected == 1)
        await eventually(lambda: gate.left == [("d", False), ("d", True)])
        assert gate.payloads("d", Kind.STATE).count(b'{"online":false}') == 1


async def test_events_overtake_the_readings_that_wait() -> None:
    async with listening() as (gate, listener):
        gate.commits = False
        async with Fleet(Address("127.0.0.1", listener.port), {"d": SECRET}) as fleet:
            for n in range(100):
                fleet.send(Outgoing("d", TELEMETRY, b"%d" % n))
            await eventually(lambda: len(gate.payloads("d")) == IN_FLIGHT)
            fleet.send(Outgoing("d", EVENT, b"sos"))
            gate.commit()
            assert await fleet.drain(10)
        kinds = [inbound.kind for inbound in gate.inbounds for _ in inbound.payloads]
        assert kinds.index(Kind.EVENT) <= 2 * IN_FLIGHT
        assert gate.payloads("d") == [b"%d" % n for n in range(100)]


async def test_a_command_is_answered() -> None:
    async with listening() as (gate, listener):
        async with Fleet(Address("127.0.0.1", listener.port), {"d": SECRET}) as fleet:
            await eventually(lambda: "d" in gate.outlets)
            payload = b'{"id":"7","name":"blink","args":{}}'
            await eventually(
                lambda: gate.outlets["d"].publish("anxin/v1/d/command", payload),
                what="the device listens",
            )
            await eventually(lambda: gate.payloads("d", Kind.RESULT))
            assert await fleet.drain(5)
        assert gate.payloads("d", Kind.RESULT) == [b'{"id":"7","ok":true}']


async def test_a_thousand_devices_share_one_thread() -> None:
    names = [f"d{n}" for n in range(1_000)]
    async with listening() as (gate, listener):
        address = Address("127.0.0.1", listener.port)
        async with Fleet(address, dict.fromkeys(names, SECRET)) as fleet:
            await eventually(lambda: fleet.connected == len(names), 60)
            for n in range(5_000):
                fleet.send(Outgoing(names[n % 1_000], TELEMETRY, b"%d" % n))
            assert await fleet.drain(60)
        assert fleet.tally.acked == 5_000
        assert fleet.tally.complete
        await eventually(lambda: len(gate.left) == len(names), 30)
        assert all(clean for _, clean in gate.left)


@pytest.mark.parametrize("protocol", [4, 5])
async def test_a_device_cut_off_leaves_its_will_and_sends_the_rest_when_it_is_back(
    dsn: str, ingest: IngestAlone, file: Path, protocol: int
) -> None:
    device = next(d for d in read_roster(file).devices if d.kind == "call_button")

    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:

        async def online() -> bool | None:
            rows = await connection.execute("SELECT online FROM device_states")
            row = await rows.fetchone()
            return row[0] if row else None

        async def is_online() -> bool:
            return await online() is True

        async def is_offline() -> bool:
            return await online() is False

        fleet = Fleet(
            Address.parse(ingest.mqtt), {device.id: device.secret}, hello=_hello, protocol=protocol
        )
        async with fleet:
            await eventually(is_online)
            assert await fleet.drain(10)  # its first state too, or that would count below
            fleet.cut([device.id])
            await eventually(is_offline)
            fleet.send(Outgoing(device.id, TELEMETRY, encode({"ts": "2025-01-01T00:00:00Z"})))
            fleet.send(Outgoing(device.id, EVENT, encode({"id": "e1", "type": "sos"})))
            assert fleet.tally.unacknowledged == 2
            fleet.cut([])
            assert await fleet.drain(20)
            await eventually(lambda: fleet.tally.receipts == 1)
            assert fleet.tally.reconnects == 1
            await eventually(is_online)
        rows = await connection.execute("SELECT count(*) FROM events WHERE type = 'sos'")
        assert await rows.fetchone() == (1,)


async def test_a_full_memory_forgets_the_oldest_reading_but_no_event(free_port: int) -> None:
    fleet = Fleet(Address("127.0.0.1", free_port), {"d": "secret"})
    async with fleet:
        for n in range(2_010):
            fleet.send(Outgoing("d", TELEMETRY, b"%d" % n))
            if n < 50:
                fleet.send(Outgoing("d", EVENT, b"event"))
        assert fleet.tally.forgotten == 10
        assert fleet.tally.unacknowledged == 2_050
        assert not fleet.tally.complete
        assert not await fleet.drain(0.01)


def _hello(device_id: str) -> Outgoing:
    return Outgoing(device_id, "state", encode({"online": True}))

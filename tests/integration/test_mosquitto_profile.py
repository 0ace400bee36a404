"""The mosquitto profile of docs/mosquitto, in the mosquitto that is installed."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import psycopg
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from anxin import embedded
from tests import npm
from tests.waiting import wait_until

PROFILE = Path(__file__).parent.parent.parent / "docs" / "mosquitto"
QUEUED = 1_200
"""More than the 1,000 that mosquitto keeps by default."""
WINDOW = 50
"""Messages under way at once: what a crash can cost at most, see the profile's README."""


class Mosquitto:
    """One broker with the profile, on a free port and with a directory of its own."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory, self.port = directory, port
        self._process: subprocess.Popen[bytes] | None = None
        profile = (PROFILE / "mosquitto.conf").read_text(encoding="utf-8")
        for pattern, value in (
            (r"^listener 1883$", f"listener {port} 127.0.0.1"),
            (r"^password_file .*$", f"password_file {directory}/passwords"),
            (r"^acl_file .*$", f"acl_file {PROFILE}/acl"),
            (r"^persistence_location .*$", f"persistence_location {directory}/"),
        ):
            profile, changed = re.subn(pattern, value, profile, flags=re.MULTILINE)
            assert changed == 1, pattern
        if os.geteuid() == 0:
            profile += "\nuser root\n"
        (directory / "mosquitto.conf").write_text(profile, encoding="utf-8")
        (directory / "passwords").touch(mode=0o600)
        for user in ("anxin-bridge", "bed-1"):
            passwords = ["mosquitto_passwd", "-b", str(directory / "passwords"), user, "secret"]
            subprocess.run(passwords, check=True)

    def start(self) -> None:
        program = ["mosquitto", "-c", str(self.directory / "mosquitto.conf")]
        self._process = subprocess.Popen(program, stderr=subprocess.DEVNULL, env=_environment())
        wait_until(self._answers, 10, "mosquitto listens")

    def end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(10)
        self._process = None

    def close(self) -> None:
        if self._process is not None:
            self.end(signal.SIGKILL)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def broker(tmp_path: Path, free_port: int) -> Iterator[Mosquitto]:
    """Return a running broker where the bridge has subscribed and gone away."""
    if shutil.which("mosquitto", path=_environment()["PATH"]) is None:
        npm.not_here("mosquitto is not installed")
    broker = Mosquitto(tmp_path, free_port)
    try:
        broker.start()
        collect(broker, 0)
        yield broker
    finally:
        broker.close()


def test_what_was_queued_beyond_the_default_limit_is_kept_over_a_restart(
    broker: Mosquitto,
) -> None:
    acknowledged = publish(broker, QUEUED)
    broker.end(signal.SIGTERM)
    broker.start()
    assert collect(broker, QUEUED) == acknowledged


def test_after_a_kill_no_more_is_missing_than_was_under_way(broker: Mosquitto) -> None:
    acknowledged = publish(broker, QUEUED)
    broker.end(signal.SIGKILL)
    broker.start()
    kept = collect(broker, QUEUED - WINDOW)
    assert kept <= acknowledged
    assert len(acknowledged - kept) <= WINDOW


def test_a_device_reaches_nobody_under_the_id_of_another(broker: Mosquitto) -> None:
    publish(broker, 1, topic="anxin/v1/bed-2/telemetry")
    publish(broker, 1, topic="anxin/v1/bed-1/command")
    own = publish(broker, 1)
    assert collect(broker, 1) == own


def test_the_bridge_takes_over_what_waited_with_the_settings_of_the_compose_file(
    broker: Mosquitto, dsn: str, tmp_path: Path
) -> None:
    _enrol(dsn, "bed-1")
    (tmp_path / "database").write_text(dsn, encoding="utf-8")
    address = f"mqtt://anxin-bridge:secret@127.0.0.1:{broker.port}\n"
    (tmp_path / "broker").write_text(address, encoding="utf-8")
    metrics = f"127.0.0.1:{embedded.free_port('127.0.0.1')}"
    settings = {
        "ANXIN_DATA_DIR": str(tmp_path / "data"),
        "ANXIN_DATABASE_FILE": str(tmp_path / "database"),
        "ANXIN_BROKER_FILE": str(tmp_path / "broker"),
        "ANXIN_INGEST_METRICS": metrics,
    }
    publish(broker, 200)
    bridge = subprocess.Popen(
        [sys.executable, "-m", "anxin.cli", "bridge"],
        env={**_environment(), **settings},
        stdin=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _stored(dsn) == 200, 30, "200 readings in the database")
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=5) as answer:
            assert b"anxin_ingest_readings_total 200.0" in answer.read()
    finally:
        bridge.terminate()
        assert bridge.wait(20) == 0


def _enrol(dsn: str, device_id: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "INSERT INTO devices (id, kind, salt, secret_hash) VALUES (%s, 'bed_sensor', '', '')",
            [device_id],
        )


def _stored(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT count(*) FROM telemetry").fetchone()
    assert row is not None
    count: int = row[0]
    return count


def publish(broker: Mosquitto, count: int, topic: str = "anxin/v1/bed-1/telemetry") -> set[bytes]:
    """Publish readings as bed-1 with QoS 1, wait for every PUBACK and return the payloads."""
    client = _client("a bed", "bed-1", clean=True)
    client.max_inflight_messages_set(WINDOW)
    acknowledged: set[int] = set()
    client.on_publish = lambda _client, _data, mid, *_: acknowledged.add(mid)
    payloads = {b'{"ts":%d,"hr":70}' % (1_700_000_000_000 + n) for n in range(count)}
    with _connected(client, broker):
        for payload in payloads:
            client.publish(topic, payload, qos=1)
        wait_until(lambda: len(acknowledged) == count, 60, f"{count} PUBACKs")
    return payloads


def collect(broker: Mosquitto, count: int) -> set[bytes]:
    """Return what waits for the bridge, at least `count` payloads and all that follow at once."""
    client = _client("anxin-bridge", "anxin-bridge", clean=False)
    received: set[bytes] = set()
    subscribed = threading.Event()
    marked = threading.Event()

    def on_message(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        if message.topic.endswith("/event"):
            marked.set()
        else:
            received.add(bytes(message.payload))

    client.on_message = on_message
    client.on_subscribe = lambda *_: subscribed.set()
    with _connected(client, broker):
        client.subscribe(
            [("anxin/v1/+/telemetry", 1), ("anxin/v1/+/command", 1), ("anxin/v1/+/event", 1)]
        )
        assert subscribed.wait(10)
        wait_until(lambda: len(received) >= count, 30, f"{count} messages from the queue")
        # Messages keep their order, so behind this one nothing of the queue is left.
        end = _client("a mark", "bed-1", clean=True)
        with _connected(end, broker):
            end.publish("anxin/v1/bed-1/event", b"{}", qos=1).wait_for_publish(10)
        assert marked.wait(10)
    return received


class _connected:  # noqa: N801 - reads as a phrase: with _connected(client, broker)
    """A client whose network thread runs inside the block and has ended after it."""

    def __init__(self, client: mqtt.Client, broker: Mosquitto) -> None:
        self._client, self._broker = client, broker

    def __enter__(self) -> None:
        accepted = threading.Event()
        self._client.on_connect = lambda *_: accepted.set()
        self._client.connect("127.0.0.1", self._broker.port)
        self._client.loop_start()
        assert accepted.wait(10)

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def _client(name: str, user: str, *, clean: bool) -> mqtt.Client:
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=clean)
    client.username_pw_set(user, "secret")
    return client


def _environment() -> dict[str, str]:
    """Debian keeps mosquitto in /usr/sbin, which is not in every PATH."""
    return {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin"}

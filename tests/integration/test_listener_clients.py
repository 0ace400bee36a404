"""The listener towards the clients that devices really use: paho-mqtt and mosquitto's."""

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client, MQTTMessage, MQTTMessageInfo, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from ingest.inbound import Kind
from tests.integration.recording_gate import SECRET, listening, stored
from tests.waiting import eventually

COMMAND = "anxin/v1/bed-1/command"
TELEMETRY = "anxin/v1/bed-1/telemetry"
STATE = "anxin/v1/bed-1/state"
OFFLINE = b'{"online":false}'

both = pytest.mark.parametrize("version", [MQTTv311, MQTTv5], ids=["3.1.1", "5"])


class Paho:
    """A paho client in its own thread, with what it was told."""

    def __init__(self, version: int, user: str = "bed-1", secret: str = SECRET) -> None:
        options: dict[str, Any] = {} if version == MQTTv5 else {"clean_session": True}
        self.client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{user}-client",
            protocol=version,  # type: ignore[arg-type]
            reconnect_on_failure=False,
            **options,
        )
        self.client.username_pw_set(user, secret)
        self.connected: list[ReasonCode] = []
        self.gone: list[ReasonCode] = []
        self.messages: list[tuple[str, bytes]] = []
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = self._on_disconnect
        self.client.on_message = self._on_message

    def _on_connect(self, _: Client, __: Any, ___: Any, reason: ReasonCode, ____: Any) -> None:
        self.connected.append(reason)

    def _on_disconnect(self, _: Client, __: Any, ___: Any, reason: ReasonCode, ____: Any) -> None:
        self.gone.append(reason)

    def _on_message(self, _: Client, __: Any, message: MQTTMessage) -> None:
        self.messages.append((message.topic, bytes(message.payload)))

    async def enter(self, port: int, keepalive: int = 60) -> "Paho":
        """Connect and wait for the answer."""
        await asyncio.to_thread(self.client.connect, "127.0.0.1", port, keepalive)
        self.client.loop_start()
        await eventually(lambda: self.connected)
        return self

    def publish(self, payload: bytes, qos: int = 1, topic: str = TELEMETRY) -> MQTTMessageInfo:
        """Publish without waiting."""
        return self.client.publish(topic, payload, qos)

    def vanish(self) -> None:
        """Close the socket without a farewell, as a device that lost its power."""
        connection = self.client.socket()
        assert isinstance(connection, socket.socket)
        connection.shutdown(socket.SHUT_RDWR)

    async def leave(self) -> None:
        """Say farewell and end the thread."""
        self.client.disconnect()
        await asyncio.to_thread(self.client.loop_stop)


async def run(*command: str | int | Path, stdin: bytes | None = None) -> tuple[int, str]:
    """Run a program; return its exit code and everything it printed."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    async with asyncio.timeout(20):
        output, _ = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.fixture
def mosquitto() -> None:
    """Need mosquitto's clients: skip without them, except where they must be there."""
    if shutil.which("mosquitto_pub") and shutil.which("mosquitto_sub"):
        return
    text = "mosquitto_pub and mosquitto_sub are not installed (Debian: mosquitto-clients)."
    if os.environ.get("CI") == "true":
        pytest.fail(text)
    pytest.skip(text)


# paho


@both
@pytest.mark.parametrize("qos", [1, 2])
async def test_paho_is_told_published_only_after_the_commit(version: int, qos: int) -> None:
    async with listening() as (gate, listener):
        gate.commits = False
        device = await Paho(version).enter(listener.port)
        infos = [device.publish(b"%d" % number, qos) for number in range(20)]
        await stored(gate, "bed-1", 20)
        assert not any(info.is_published() for info in infos)
        gate.commit()
        await eventually(lambda: all(info.is_published() for info in infos))
        assert gate.payloads("bed-1") == [b"%d" % number for number in range(20)]
        await device.leave()


@both
async def test_paho_takes_the_acknowledgement_of_an_event_before_that_of_older_telemetry(
    version: int,
) -> None:
    async with listening() as (gate, listener):
        gate.commits = False
        device = await Paho(version).enter(listener.port)
        reading = device.publish(b"{}")
        emergency = device.publish(b"{}", topic="anxin/v1/bed-1/event")
        await stored(gate, "bed-1", 1, Kind.EVENT)
        gate.inbounds[1].done(gate.inbounds[1])
        await eventually(emergency.is_published)
        assert not reading.is_published()
        gate.inbounds[0].done(gate.inbounds[0])
        await eventually(reading.is_published)
        await device.leave()


@both
async def test_paho_sends_qos_0_and_says_farewell(version: int) -> None:
    async with listening() as (gate, listener):
        device = await Paho(version).enter(listener.port)
        device.publish(b"{}", 0)
        await stored(gate, "bed-1", 1)
        await device.leave()
        await eventually(lambda: gate.left == [("bed-1", True)])
        assert not listener.protocol_errors


@both
async def test_paho_with_a_wrong_secret_is_refused(version: int) -> None:
    async with listening() as (_, listener):
        device = await Paho(version, secret="guess").enter(listener.port)
        assert device.connected[0].value == 0x86  # paho maps return code 4 to this
        assert listener.refused == {"bad_user_name_or_password": 1}
        await device.leave()


@both
async def test_paho_gets_commands_and_their_arrival_is_known(version: int) -> None:
    async with listening() as (gate, listener):
        device = await Paho(version).enter(listener.port)
        device.client.subscribe([(COMMAND, 1), ("anxin/v1/bed-1/receipt", 0)])
        arrived: list[bool] = []
        await eventually(lambda: gate.outlets["bed-1"].publish("anxin/v1/bed-1/receipt", b"r"))
        assert gate.outlets["bed-1"].publish(COMMAND, b"c", delivered=lambda: arrived.append(True))
        await eventually(lambda: arrived)
        await eventually(
            lambda: device.messages == [("anxin/v1/bed-1/receipt", b"r"), (COMMAND, b"c")]
        )
        await device.leave()


@both
async def test_will_of_paho_arrives_when_it_vanishes(version: int) -> None:
    async with listening() as (gate, listener):
        device = Paho(version)
        device.client.will_set(STATE, OFFLINE, 1)
        await device.enter(listener.port)
        device.vanish()
        await stored(gate, "bed-1", 1, Kind.STATE)
        assert gate.payloads("bed-1", Kind.STATE) == [OFFLINE]
        await device.leave()


@both
async def test_second_paho_with_the_same_identifier_takes_over(version: int) -> None:
    async with listening() as (gate, listener):
        old = await Paho(version).enter(listener.port)
        new = await Paho(version).enter(listener.port)
        await eventually(lambda: old.gone)
        if version == MQTTv5:
            assert old.gone[0].value == 0x8E
        new.publish(b"{}")
        await stored(gate, "bed-1", 1)
        await old.leave()
        await new.leave()


@both
async def test_foreign_topic_cuts_paho_off_and_a_neighbour_feels_nothing(version: int) -> None:
    async with listening() as (gate, listener):
        neighbour = await Paho(version, "bed-2").enter(listener.port)
        intruder = await Paho(version).enter(listener.port)
        infos = []
        for number in range(200):
            infos.append(neighbour.publish(b"%d" % number, topic="anxin/v1/bed-2/telemetry"))
            intruder.publish(b"0", topic="anxin/v1/bed-2/telemetry")
        await eventually(lambda: intruder.gone)
        if version == MQTTv5:
            assert intruder.gone[0].value == 0x87
        await eventually(lambda: all(info.is_published() for info in infos))
        assert gate.payloads("bed-2") == [b"%d" % number for number in range(200)]
        assert listener.protocol_errors == {"not_authorized": 1}
        assert not neighbour.gone
        await neighbour.leave()
        await intruder.leave()


async def test_paho_of_5_uses_aliases_user_properties_and_its_assigned_name() -> None:
    async with listening() as (gate, listener):
        device = Paho(MQTTv5)
        device.client._client_id = b""
        await device.enter(listener.port)
        alias = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        alias.TopicAlias = 1
        alias.UserProperty = ("model", "mat-2")
        device.client.publish(TELEMETRY, b"1", 1, properties=alias)
        device.client.publish("", b"2", 1, properties=alias)
        await stored(gate, "bed-1", 2)
        assert gate.payloads("bed-1") == [b"1", b"2"]
        assert len(next(iter(listener.clients))[1]) == 24
        await device.leave()


@both
async def test_paho_keeps_a_quiet_connection_alive(version: int) -> None:
    async with listening() as (gate, listener):
        device = await Paho(version).enter(listener.port, keepalive=1)
        link = next(iter(listener._links))
        joined_at = link._heard_at
        await eventually(lambda: link._heard_at - joined_at > 2.5)
        assert not device.gone
        assert not gate.left
        await device.leave()


@both
async def test_paho_slowed_down_gets_everything_through(version: int) -> None:
    async with listening(device_rate=400, device_burst=100) as (gate, listener):
        device = await Paho(version).enter(listener.port)
        infos = [device.publish(b"%d" % number) for number in range(500)]
        await eventually(lambda: all(info.is_published() for info in infos))
        assert gate.payloads("bed-1") == [b"%d" % number for number in range(500)]
        await device.leave()


# mosquitto


@pytest.mark.usefixtures("mosquitto")
@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_mosquitto_pub_stores_its_lines(version: str, qos: int) -> None:
    async with listening() as (gate, listener):
        lines = [b'{"hr":%d}' % rate for rate in range(50, 80)]
        code, output = await run(
            *("mosquitto_pub", "-V", version, "-p", listener.port, "-u", "bed-1", "-P", SECRET),
            *("-t", TELEMETRY, "-q", qos, "-l"),
            stdin=b"\n".join(lines) + b"\n",
        )
        assert (code, output) == (0, "")
        await stored(gate, "bed-1", len(lines))
        assert gate.payloads("bed-1") == lines
        await eventually(lambda: gate.left == [("bed-1", True)])


@pytest.mark.usefixtures("mosquitto")
@pytest.mark.parametrize(("version", "code"), [("mqttv311", 4), ("mqttv5", 0x86)])
async def test_mosquitto_pub_with_a_wrong_secret_fails(version: str, code: int) -> None:
    async with listening() as (_, listener):
        seen, output = await run(
            *("mosquitto_pub", "-V", version, "-p", listener.port, "-u", "bed-1", "-P", "guess"),
            *("-t", TELEMETRY, "-m", "{}"),
        )
        assert seen == code
        assert "user name or password" in output.lower()


@pytest.mark.usefixtures("mosquitto")
@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
async def test_mosquitto_sub_gets_its_command_and_nothing_foreign(version: str) -> None:
    async with listening() as (gate, listener):
        watching = asyncio.create_task(
            run(
                *("mosquitto_sub", "-V", version, "-p", listener.port, "-u", "bed-1"),
                *("-P", SECRET, "-q", 1, "-C", 1, "-F", "%t %p"),
                *("-t", "anxin/v1/bed-1/+", "-t", "anxin/v1/bed-2/command"),
            ),
            name="mosquitto_sub",
        )
        await eventually(
            lambda: "bed-1" in gate.outlets and gate.outlets["bed-1"].publish(COMMAND, b"go")
        )
        code, output = await watching
        assert code == 0
        assert output.splitlines()[-1] == f"{COMMAND} go"


@pytest.mark.usefixtures("mosquitto")
@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
async def test_mosquitto_will_arrives_after_a_kill(version: str) -> None:
    async with listening() as (gate, listener):
        process = await asyncio.create_subprocess_exec(
            *("mosquitto_sub", "-V", version, "-p", str(listener.port), "-u", "bed-1"),
            *("-P", SECRET, "-t", COMMAND),
            *("--will-topic", STATE, "--will-payload", OFFLINE.decode(), "--will-qos", "1"),
        )
        await eventually(lambda: "bed-1" in gate.outlets)
        process.kill()
        await process.wait()
        await stored(gate, "bed-1", 1, Kind.STATE)
        assert gate.payloads("bed-1", Kind.STATE) == [OFFLINE]


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make a certificate for this machine; return its file and that of its key."""
    directory = tmp_path_factory.mktemp("tls")
    cert, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


def server_context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    """Return what the listener needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(*certificate)
    return context


@pytest.mark.usefixtures("mosquitto")
async def test_mosquitto_pub_over_tls_is_stored(certificate: tuple[Path, Path]) -> None:
    async with listening(ssl_context=server_context(certificate)) as (gate, listener):
        code, output = await run(
            *("mosquitto_pub", "-V", "mqttv5", "-h", "localhost", "-p", listener.port),
            *("--cafile", certificate[0], "-u", "bed-1", "-P", SECRET, "-t", TELEMETRY),
            *("-q", 1, "-m", "{}"),
        )
        assert (code, output) == (0, "")
        assert gate.payloads("bed-1") == [b"{}"]


async def test_paho_over_tls_is_stored_and_told_why_it_is_cut_off(
    certificate: tuple[Path, Path],
) -> None:
    async with listening(ssl_context=server_context(certificate)) as (gate, listener):
        device = Paho(MQTTv5)
        device.client.tls_set(ca_certs=str(certificate[0]))
        await device.enter(listener.port)
        info = device.publish(b"x" * 100_000)
        await eventually(info.is_published)
        assert gate.payloads("bed-1") == [b"x" * 100_000]
        device.publish(b"{}", topic="anxin/v1/bed-2/telemetry")
        await eventually(lambda: device.gone)
        assert device.gone[0].value == 0x87
        await device.leave()


async def test_plain_client_at_the_tls_port_harms_nothing(certificate: tuple[Path, Path]) -> None:
    async with listening(ssl_context=server_context(certificate)) as (_, listener):
        plain = Paho(MQTTv5)
        await asyncio.to_thread(plain.client.connect, "127.0.0.1", listener.port)
        plain.client.loop_start()
        await eventually(lambda: plain.gone)
        assert not plain.connected
        await plain.leave()
        device = Paho(MQTTv5)
        device.client.tls_set(ca_certs=str(certificate[0]))
        await device.enter(listener.port)
        assert device.connected[0].value == 0
        await device.leave()

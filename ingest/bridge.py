"""`anxin bridge`: the same pipeline, fed from an existing MQTT broker.

A message is acknowledged to the broker after its commit. The session is persistent, so what
arrives while the bridge is away waits at the broker (as far as the broker keeps its promises:
`docs/mosquitto/` has a profile that does).
"""

import argparse
import asyncio
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
import uvloop
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from anxin.config import Address, Settings
from anxin.db.migrate import migrate
from anxin.errors import AnxinError, DatabaseUnavailable, SettingError
from anxin.logs import log
from ingest.inbound import KINDS, Device, Inbound
from ingest.metrics import serve_metrics
from ingest.service import IngestService

FILTERS: Final = tuple(f"anxin/v1/+/{kind}" for kind in KINDS)
RECEIVE_MAXIMUM: Final = 65_535
KEEP_ALIVE_SECONDS: Final = 60
FOREVER: Final = 0xFFFF_FFFF
_V5, _V311 = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311
_VERSIONS: Final = {"5": _V5, "3.1.1": _V311}
_log = log(__name__)


class BrokerRefused(AnxinError):
    """The broker refuses this connection. Check the user, the password and its access rules."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where and as whom to connect."""

    host: str
    port: int
    tls: bool
    username: str | None
    password: str | None

    @classmethod
    def parse(cls, url: str) -> "Broker":
        """Read `mqtt://user:pass@host:1883` or `mqtts://…`; raise SettingError."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise SettingError("The broker's port is not a number.") from error
        if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname:
            raise SettingError("Name the broker as mqtt://user:password@host:1883 or mqtts://….")
        tls = parts.scheme == "mqtts"
        return cls(
            parts.hostname,
            port or (8883 if tls else 1883),
            tls,
            unquote(parts.username) if parts.username else None,
            unquote(parts.password) if parts.password else None,
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options beside the common ones."""
    parser.add_argument(
        "--broker",
        help="mqtt://user:password@host:1883, or mqtts://…; better as ANXIN_BROKER_FILE, "
        "because other users of the machine can read a command line",
    )
    parser.add_argument(
        "--mqtt-version", choices=sorted(_VERSIONS), default="5", help="protocol (default 5)"
    )
    parser.add_argument(
        "--client-id",
        default="anxin-bridge",
        help="name of the persistent session; each bridge needs its own (default %(default)s)",
    )
    parser.add_argument(
        "--share",
        metavar="GROUP",
        help="take a share of the messages together with other bridges of this group",
    )
    parser.add_argument("--ca", help="file of certificates to trust with mqtts://")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Serve until told to stop."""
    if not settings.database:
        raise SettingError("Set ANXIN_DATABASE: the bridge needs the database of the platform.")
    url = args.broker or settings.broker
    if not url:
        raise SettingError("Name the broker with --broker or ANXIN_BROKER_FILE.")
    broker = Broker.parse(url)
    migrate(settings.database)
    uvloop.run(
        serve(
            settings,
            broker,
            version=_VERSIONS[args.mqtt_version],
            client_id=args.client_id,
            share=args.share,
            ca=args.ca,
        )
    )
    return 0


async def serve(
    settings: Settings,
    broker: Broker,
    *,
    version: MQTTProtocolVersion,
    client_id: str,
    share: str | None = None,
    ca: str | None = None,
) -> None:
    """Carry messages from the broker into the pipeline until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(IngestService(settings))
        if settings.ingest_metrics:
            where = Address.parse(settings.ingest_metrics)
            stack.callback(serve_metrics(where, service, []))
        bridge = Bridge(service, broker, version=version, client_id=client_id, share=share, ca=ca)
        stopping = asyncio.create_task(stop.wait(), name="stop")
        carrying = asyncio.create_task(bridge.carry(), name="bridge")
        await asyncio.wait({stopping, carrying}, return_when=asyncio.FIRST_COMPLETED)
        bridge.leave()
        stopping.cancel()
        carrying.cancel()
        outcome = await asyncio.gather(carrying, return_exceptions=True)
    if isinstance(outcome[0], Exception):
        raise outcome[0]


class Bridge:
    """One connection to a broker, driven by paho's own thread.

    The thread only puts messages into `_arrived`; all else happens on the event loop.
    """

    def __init__(
        self,
        service: IngestService,
        broker: Broker,
        *,
        version: MQTTProtocolVersion,
        client_id: str,
        share: str | None,
        ca: str | None,
    ) -> None:
        """Prepare the client; `carry` connects."""
        self._service = service
        self._broker = broker
        self._filters = [f"$share/{share}/{one}" if share else one for one in FILTERS]
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[tuple[int, paho.MQTTMessage, int]] = deque()
        self._wake = asyncio.Event()
        self._room = threading.Event()
        self._room.set()
        self._generation = 0
        self._refused: str | None = None
        self._version = version
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if version is _V5 else False,
            protocol=version,
            manual_ack=True,
        )
        if broker.username:
            self._client.username_pw_set(broker.username, broker.password)
        if broker.tls:
            self._client.tls_set(ca_certs=ca)
        self._client.reconnect_delay_set(1, 30)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message

    async def carry(self) -> None:
        """Connect, reconnect, and submit what arrives, in order."""
        properties = None
        options: dict[str, Any] = {}
        if self._version is _V5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's
            properties.ReceiveMaximum = RECEIVE_MAXIMUM
            properties.SessionExpiryInterval = FOREVER
            options = {"clean_start": False, "properties": properties}
        self._client.connect_async(
            self._broker.host, self._broker.port, KEEP_ALIVE_SECONDS, **options
        )
        self._client.loop_start()
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._refused is not None:
                raise BrokerRefused(f"The broker refuses this connection: {self._refused}.")
            while self._arrived:
                await self._submit_run()
            if self._service.has_room:
                self._room.set()
            else:
                self._service.call_when_room(self._room.set)

    def leave(self) -> None:
        """Disconnect; the session stays at the broker."""
        self._room.set()
        self._client.disconnect()
        self._client.loop_stop()

    async def _submit_run(self) -> None:
        """Submit the messages of one device and kind that stand together at the head."""
        received_us, first, generation = self._arrived.popleft()
        payloads, packet_ids = [bytes(first.payload)], [first.mid]
        while self._arrived:
            _, message, its_generation = self._arrived[0]
            if (message.topic, message.qos, its_generation) != (
                first.topic, first.qos, generation
            ):  # fmt: skip
                break
            self._arrived.popleft()
            payloads.append(bytes(message.payload))
            packet_ids.append(message.mid)
        _, _, device_id, kind = first.topic.split("/", 3)
        device = await self._device(device_id)
        self._service.submit(
            Inbound(
                device,
                KINDS[kind],
                payloads,
                received_us,
                self._done(generation),
                packet_ids=packet_ids,
                qos=first.qos,
            )
        )

    async def _device(self, device_id: str) -> Device:
        while True:
            try:
                device = await self._service.find(device_id)
            except DatabaseUnavailable:
                await asyncio.sleep(0.5)
                continue
            if device is None:
                # Its payloads go to quarantine: the broker let it in, we do not know it.
                return Device(id=device_id[:64], key=0, row=0)
            self._service.reach(device, self)
            return device

    def _done(self, generation: int) -> Callable[[Inbound], None]:
        def acknowledge(inbound: Inbound) -> None:
            # After a reconnection the broker sends again what we had not acknowledged, maybe
            # under other packet ids: an acknowledgement from before could hit another message.
            if inbound.qos and generation == self._generation:
                for packet_id in inbound.packet_ids or ():
                    self._client.ack(packet_id, inbound.qos)

        return acknowledge

    # --- Outlet: the way down goes through the broker

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        delivered: Callable[[], None] | None = None,
    ) -> bool:
        """Hand a message for a device to the broker, which answers for it from then on."""
        if not self._client.is_connected():
            return False
        self._client.publish(topic, payload, qos)
        if delivered is not None:
            self._loop.call_soon(delivered)
        return True

    def close(self, reason: str) -> None:
        """A device's connection is the broker's business."""

    # --- called by paho's thread

    def _on_connect(
        self,
        client: paho.Client,
        userdata: object,  # noqa: ARG002  paho's signature, here and below
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,  # noqa: ARG002
    ) -> None:
        if reason.is_failure:
            if reason.value in _FINAL:
                self._refused = str(reason)
                self._loop.call_soon_threadsafe(self._wake.set)
            return
        _log.info("broker_connected", session_present=flags.session_present)
        client.subscribe([(one, 1) for one in self._filters])

    def _on_disconnect(
        self,
        client: paho.Client,  # noqa: ARG002
        userdata: object,  # noqa: ARG002
        flags: paho.DisconnectFlags,  # noqa: ARG002
        reason: ReasonCode,
        properties: Properties | None,  # noqa: ARG002
    ) -> None:
        self._generation += 1
        _log.warning("broker_disconnected", reason=str(reason))

    def _on_message(
        self,
        client: paho.Client,  # noqa: ARG002
        userdata: object,  # noqa: ARG002
        message: paho.MQTTMessage,
    ) -> None:
        # While the database is away this thread waits, and so does the broker.
        self._room.wait()
        self._arrived.append((time.time_ns() // 1000, message, self._generation))
        if not self._service.has_room:
            self._room.clear()
        self._loop.call_soon_threadsafe(self._wake.set)


_FINAL: Final = frozenset({0x81, 0x84, 0x85, 0x86, 0x87, 0x8A, 0x9D})
"""Reasons that no later attempt will mend."""

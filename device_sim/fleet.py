"""Thousands of devices in one thread: real MQTT clients driven by one event loop.

Each device is one paho client used the way its documentation gives for foreign event loops
(`loop_read`, `loop_write`, `loop_misc` on `socket()`); only the blocking TCP connect runs in a
helper thread. What waits for a connection waits here, in a bounded outbox; what was sent and not
acknowledged is paho's to send again after a reconnect.
"""

import asyncio
import contextlib
import random
import resource
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import msgspec
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from anxin.config import Address
from anxin.errors import SettingError
from anxin.logs import log
from device_sim.devices import WILL
from device_sim.payload import RESULT, STATE, Outgoing, encode

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike  # exists for type checkers only

_log = log(__name__)

KEEPALIVE_S: Final = 60
CONNECT_S: Final = 15.0
"""A server that has not answered CONNECT after this long is tried again."""
DIALLING_AT_ONCE: Final = 32
IN_FLIGHT: Final = 20
"""Messages that one device has sent and not yet seen acknowledged."""
OUTBOX: Final = 2_000
"""Messages that one device remembers while it cannot send; then the oldest readings go."""
BACKOFF_S: Final = (0.5, 30.0)
GOODBYE_S: Final = 3.0
DOWN: Final = ("receipt", "command")


class Tally:
    """What happened so far, over all devices."""

    __slots__ = (
        "acked",
        "commands",
        "forgotten",
        "receipts",
        "reconnects",
        "refused",
        "rejected",
        "sent",
    )

    def __init__(self) -> None:
        """Start at nothing."""
        self.sent = self.acked = self.rejected = self.forgotten = 0
        self.reconnects = self.refused = self.receipts = self.commands = 0

    @property
    def unacknowledged(self) -> int:
        """Messages that a device still holds or has sent without an answer."""
        return self.sent - self.acked - self.rejected - self.forgotten

    @property
    def complete(self) -> bool:
        """Whether everything that devices had to say is known to be stored."""
        return self.sent == self.acked


class _Command(msgspec.Struct):
    id: str


class Fleet:
    """The devices' connections; an async context manager.

    Entering it begins to connect them all; call `drain` before leaving to wait for what is not yet
    acknowledged. `hello(device_id)` gives the state to send on each connect; None means no state
    and no will, as for a recording.
    """

    def __init__(
        self,
        address: Address,
        secrets: Mapping[str, str],
        *,
        hello: Callable[[str], Outgoing] | None = None,
        protocol: int = 4,
        tally: Tally | None = None,
    ) -> None:
        """Prepare one connection for each device id in `secrets`; nothing is opened yet.

        `protocol` is 4 for MQTT 3.1.1 or 5. `tally` goes on counting where another fleet ended.
        """
        self.tally: Final = tally or Tally()
        self.address: Final = address
        self.protocol: Final = MQTTProtocolVersion(protocol)
        self.hello: Final = hello
        self.chance: Final = random.Random()  # noqa: S311 - spreads reconnects, guards nothing
        self.dialling: Final = asyncio.Semaphore(DIALLING_AT_ONCE)
        self.leaving: Final = asyncio.Event()
        self.refused: Final[dict[str, str]] = {}
        """Device id -> the server's reason, for those that may not connect."""
        self._changed = asyncio.Event()
        self._lines = {device: _Line(self, device, secret) for device, secret in secrets.items()}
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        """Begin to connect all devices."""
        _raise_file_limit(len(self._lines))
        await self._group.__aenter__()
        for device, line in self._lines.items():
            self._group.create_task(line.live(), name=f"device-{device}")
        self._group.create_task(self._keep_alive(), name="fleet-keep-alive")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Disconnect all devices with a goodbye and wait for them."""
        self.leaving.set()
        for line in self._lines.values():
            line.wake()
        if kind is None or not issubclass(kind, asyncio.CancelledError):
            # The lines end by themselves now; another error passes through as it is.
            kind = error = trace = None
        await self._group.__aexit__(kind, error, trace)

    @property
    def connected(self) -> int:
        """How many devices the server has accepted and not lost."""
        return sum(line.up for line in self._lines.values())

    def send(self, message: Outgoing) -> None:
        """Give a device something to publish with QoS 1; events overtake readings."""
        self._lines[message.device_id].put(message)

    def cut(self, device_ids: Iterable[str]) -> None:
        """Let exactly these devices be without connection, as if their radio had died."""
        gone = frozenset(device_ids)
        for device, line in self._lines.items():
            if line.cut != (device in gone):
                line.cut = device in gone
                line.wake()

    async def room(self, limit: int) -> None:
        """Wait until fewer than `limit` messages of all devices are unacknowledged."""
        while self.tally.unacknowledged >= limit:
            self._changed.clear()
            await self._changed.wait()

    async def drain(self, within_s: float) -> bool:
        """Wait until nothing is unacknowledged; False when `within_s` was not enough."""
        try:
            async with asyncio.timeout(within_s):
                await self.room(1)
        except TimeoutError:
            return False
        return True

    def note_change(self) -> None:
        """Wake whoever waits for acknowledgements."""
        self._changed.set()

    async def _keep_alive(self) -> None:
        """Let paho send its pings and notice dead connections."""
        while not self.leaving.is_set():
            for line in self._lines.values():
                line.tick()
            await _wait(self.leaving, KEEPALIVE_S / 12)


class _Line:
    """One device's connection and what waits for it."""

    def __init__(self, fleet: Fleet, device: str, secret: str) -> None:
        self.up = False
        self.cut = False
        self._fleet, self._device = fleet, device
        self._events: deque[Outgoing] = deque()
        self._readings: deque[Outgoing] = deque()
        self._in_flight = 0
        self._open = False
        """Whether a socket is open, accepted by the server or not."""
        self._accepted_before = False
        self._news = asyncio.Event()
        """Set whenever `live` should look again at what is going on."""
        self._writing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=device,
            protocol=fleet.protocol,
            reconnect_on_failure=False,
        )
        client.username_pw_set(device, secret)
        client.max_inflight_messages_set(0)  # the window is kept here
        if fleet.hello is not None:
            client.will_set(f"anxin/v1/{device}/{STATE}", encode(WILL), qos=1)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_socket_close = self._on_socket_close
        self._client = client

    async def live(self) -> None:
        """Keep the device connected until the fleet leaves, then say goodbye."""
        self._loop = asyncio.get_running_loop()
        leaving, pause_s = self._fleet.leaving, BACKOFF_S[0]
        try:
            while not leaving.is_set():
                if self.cut:
                    await self._hear_news()
                    continue
                if await self._connect():
                    pause_s = BACKOFF_S[0]
                    while self.up and not self.cut and not leaving.is_set():
                        await self._hear_news()
                if leaving.is_set():
                    await self._say_goodbye()
                elif not self.cut:
                    self._drop()
                    await _wait(leaving, pause_s * self._fleet.chance.uniform(0.5, 1.5))
                    pause_s = min(pause_s * 2, BACKOFF_S[1])
                self._drop()
        finally:
            self._drop()

    def put(self, message: Outgoing) -> None:
        """Take a message; when the memory is full, the oldest reading is forgotten."""
        self._fleet.tally.sent += 1
        if message.urgent:
            self._events.append(message)
        else:
            if len(self._readings) >= OUTBOX:
                self._readings.popleft()
                self._fleet.tally.forgotten += 1
            self._readings.append(message)
        if self.up:
            self._pump()

    def wake(self) -> None:
        """Make `live` look at what has changed."""
        self._news.set()

    def tick(self) -> None:
        """Do what is due by time."""
        if self.up:
            self._client.loop_misc()
            self._settle()

    async def _hear_news(self) -> None:
        await self._news.wait()
        self._news.clear()

    async def _connect(self) -> bool:
        """Open a connection; return whether the server accepted the device."""
        async with self._fleet.dialling:
            if self._fleet.leaving.is_set():
                return False
            self._drop()
            self._open = True
            try:
                # Only the TCP connect blocks; nothing else touches the client meanwhile.
                await asyncio.to_thread(self._client.reconnect)
            except OSError:
                self._open = False
                return False
            sock = self._client.socket()
            if sock is None or self._loop is None:
                return False
            self._loop.add_reader(sock, self._readable)
            self._settle()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CONNECT_S):
                    while self._open and not self.up:
                        await self._hear_news()
        return self.up

    def _drop(self) -> None:
        """Close the socket, if there is one, without a goodbye."""
        self.up = False
        self._open = False
        # Telling paho where to connect next ends what is open at once.
        self._client.connect_async(self._fleet.address.host, self._fleet.address.port, KEEPALIVE_S)

    async def _say_goodbye(self) -> None:
        """Disconnect so that no will is published, and let the server close first."""
        if not self.up:
            return
        self.up = False
        self._client.disconnect()
        self._settle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                while self._open:
                    await self._hear_news()

    def _pump(self) -> None:
        """Send while the window has room, events first."""
        while self.up and self._in_flight < IN_FLIGHT and (self._events or self._readings):
            message = self._events.popleft() if self._events else self._readings.popleft()
            self._in_flight += 1
            self._client.publish(f"anxin/v1/{self._device}/{message.topic}", message.payload, qos=1)
        self._settle()

    def _settle(self) -> None:
        """Ask the loop to say when unsent bytes can go out, and to stop saying so after."""
        sock = self._client.socket()
        if sock is None or self._loop is None:
            return
        wants = self._client.want_write()
        if wants and not self._writing:
            self._loop.add_writer(sock, self._writable)
        elif not wants and self._writing:
            self._loop.remove_writer(sock)
        self._writing = wants

    def _readable(self) -> None:
        self._client.loop_read()
        self._pump()

    def _writable(self) -> None:
        self._client.loop_write()
        self._settle()

    def _on_connect(
        self,
        client: Client,
        userdata: object,
        flags: ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        del userdata, flags, properties
        tally = self._fleet.tally
        if reason.is_failure:
            self._fleet.refused[self._device] = str(reason)
            tally.refused += 1
        else:
            self._fleet.refused.pop(self._device, None)
            self.up = True
            tally.reconnects += self._accepted_before
            self._accepted_before = True
            client.subscribe([(f"anxin/v1/{self._device}/{leaf}", 1) for leaf in DOWN])
            if self._fleet.hello is not None:
                self._events.appendleft(self._fleet.hello(self._device))
                tally.sent += 1
        self.wake()

    def _on_disconnect(
        self,
        client: Client,
        userdata: object,
        flags: DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        del client, userdata, flags, properties
        if self.up:
            _log.debug("disconnected", device=self._device, reason=str(reason))
        self.up = self._open = False
        self.wake()

    def _on_publish(
        self,
        client: Client,
        userdata: object,
        packet_id: int,
        reason: ReasonCode,
        properties: Properties,
    ) -> None:
        del client, userdata, packet_id, properties
        self._in_flight -= 1
        if reason.is_failure:
            self._fleet.tally.rejected += 1
        else:
            self._fleet.tally.acked += 1
        self._fleet.note_change()

    def _on_message(self, client: Client, userdata: object, message: MQTTMessage) -> None:
        del client, userdata
        if message.topic.endswith("/receipt"):
            self._fleet.tally.receipts += 1
            return
        try:
            command = msgspec.json.decode(message.payload, type=_Command)
        except msgspec.MsgspecError:
            _log.warning("command_unreadable", device=self._device)
            return
        self._fleet.tally.commands += 1
        answer = encode({"id": command.id, "ok": True})
        self.put(Outgoing(self._device, RESULT, answer))

    def _on_socket_close(self, client: Client, userdata: object, sock: "SocketLike") -> None:
        del client, userdata
        self._writing = False
        if self._loop is not None:
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)


async def _wait(event: asyncio.Event, within_s: float) -> None:
    """Wait for the event, but no longer than so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await event.wait()


def _raise_file_limit(connections: int) -> None:
    """Allow this process a socket for each device, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 200
    if soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < wanted:
            raise SettingError(
                f"{connections} devices need {wanted} open files, the system allows {hard}. "
                "Raise the limit (ulimit -n) or simulate fewer residents."
            )

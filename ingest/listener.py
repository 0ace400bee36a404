"""The MQTT front door: sockets, TLS, credentials, clocks and wills around `ingest.mqtt`.

    async with Listener(gate, Address("0.0.0.0", 1883)) as listener:
        ...

A message is acknowledged when the gate has called `Inbound.done`, never before. A device that
sends faster than it may, or than the gate can take, is read more slowly; nothing is dropped.
"""

import asyncio
import errno
import secrets
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from enum import Flag, auto
from typing import Self, assert_never, cast

import msgspec

from anxin.bucket import Bucket, Buckets
from anxin.config import Address
from anxin.errors import DatabaseUnavailable, PortTaken
from anxin.logs import log
from ingest.door import Door
from ingest.inbound import Device, Gate, Inbound, Peer
from ingest.mqtt.connection import (
    Closed,
    Connect,
    Connection,
    Delivered,
    LastWill,
    Publishes,
    Subscribed,
)
from ingest.mqtt.reasons import Reason
from ingest.mqtt.session import Session
from ingest.peer import peer_of

CONNECT_TIMEOUT_S = 10.0
AUTHENTICATE_TIMEOUT_S = 10.0
UNREAD_LIMIT_BYTES = 256 * 1024
"""What may wait to be written to one device before we stop reading from it."""
UNREAD_TIMEOUT_S = 10.0
"""How long a device may leave that much unread before it is cut off."""
LINGER_S = 2.0
"""How long a closing connection stays open so that the client can read why."""
MOST_CONNECTIONS = 16
"""Connections of one device at a time, each with a client identifier of its own."""
KEPT_SESSIONS = 50_000
"""Sessions without a connection that are kept; beyond that the oldest end early."""

logger = log(__name__)


class Listener:
    """Accepts devices and hands what they publish to the gate.

    `device_rate` (messages/s for long, 0 = no limit) and `device_burst` bound one device over
    all its connections, `address_rate` (with ten seconds of it at once) all devices of one address;
    `connect_rate` and `connect_burst` bound its new connections. `revoked` is asked of a client's
    certificate (DER) whether it was taken back. `reuse_port` lets several
    processes share the port. On leaving, no more is read; what was submitted may still be
    acknowledged for `stop_within_s`.
    """

    def __init__(
        self,
        gate: Gate,
        address: Address,
        *,
        ssl_context: ssl.SSLContext | None = None,
        revoked: Callable[[bytes], bool] | None = None,
        device_rate: int = 200,
        device_burst: int = 5000,
        address_rate: int = 0,
        connect_rate: int = 0,
        connect_burst: int = 1,
        reuse_port: bool = False,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        stop_within_s: float = 10.0,
    ) -> None:
        """Prepare; entering the context opens the port."""
        self.gate = gate
        self.address = address
        self.ssl_context = ssl_context
        self.revoked = revoked
        self.of_device = Buckets(device_rate, device_burst)
        self.of_address = Buckets(address_rate, 10 * address_rate)
        self.door = Door(connect_rate, connect_burst)
        self.reuse_port = reuse_port
        self.connect_timeout_s = connect_timeout_s
        self.stop_within_s = stop_within_s
        self.port = address.port
        # Plain counters, read by whoever exports metrics.
        self.connections = 0
        """Devices connected now."""
        self.accepted = 0
        self.refused: Counter[str] = Counter()
        """CONNECTs turned down, by reason."""
        self.packets = 0
        """Messages received."""
        self.protocol_errors: Counter[str] = Counter()
        """Accepted connections ended for what the device did or left undone, by reason."""
        self.stopping = False
        self.tasks = asyncio.TaskGroup()
        self.clients: dict[tuple[str, str], Client] = {}
        self._connected: Counter[str] = Counter()
        self._idle: dict[tuple[str, str], Client] = {}
        self._links: set[Link] = set()
        self._pending = 0
        self._settled = asyncio.Event()
        self._unsent: list[Link] = []
        self._crowded: list[Link] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Open the port; raise PortTaken when another program has it."""
        self.loop = asyncio.get_running_loop()
        try:
            self._server = await self.loop.create_server(
                lambda: Link(self),
                self.address.host,
                self.address.port,
                ssl=self.ssl_context,
                ssl_handshake_timeout=self.connect_timeout_s if self.ssl_context else None,
                ssl_shutdown_timeout=LINGER_S if self.ssl_context else None,
                reuse_port=self.reuse_port or None,
                backlog=2048,
            )
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise PortTaken(
                f"{self.address} is in use. Stop the other program or set ANXIN_MQTT."
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]
        await self.tasks.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop accepting, let what was submitted be acknowledged, take leave of every device."""
        self.stopping = True
        if self._server is not None:
            self._server.close()
        for client in list(self.clients.values()):
            client.send_late_will()
        for link in list(self._links):
            link.hold(Hold.STOPPING)
        try:
            async with asyncio.timeout(self.stop_within_s):
                await self._settle(lambda: not self._pending)
        except TimeoutError:
            logger.warning("stopped_unacknowledged", runs=self._pending)
        for link in list(self._links):
            link.end(Reason.SERVER_SHUTTING_DOWN, "The server stops. Connect again.")
        for client in self.clients.values():
            client.forget_timers()
        try:
            async with asyncio.timeout(LINGER_S):
                await self._settle(lambda: not self._links)
        except TimeoutError:
            for link in list(self._links):
                link.abort()
        await self.tasks.__aexit__(None, None, None)

    async def _settle(self, reached: Callable[[], bool]) -> None:
        """Wait until a condition on pending work or open links holds."""
        while not reached():
            self._settled.clear()
            await self._settled.wait()

    # What links and clients ask for

    def opened(self, link: "Link") -> None:
        """Note a new socket."""
        self._links.add(link)

    def gone(self, link: "Link") -> None:
        """Forget a socket."""
        self._links.discard(link)
        self._settled.set()

    def submit(self, inbound: Inbound) -> None:
        """Hand a run to the gate and remember that its acknowledgement is owed."""
        self._pending += 1
        self.packets += len(inbound.payloads)
        self.gate.submit(inbound)

    def committed(self) -> None:
        """Note that one submitted run is done."""
        self._pending -= 1
        if not self._pending:
            self._settled.set()

    def send_soon(self, link: "Link") -> None:
        """Write what a link has to say once the callbacks of this moment are through.

        One commit acknowledges many runs; this makes them one write per connection.
        """
        if not self._unsent:
            self.loop.call_soon(self._send)
        self._unsent.append(link)

    def _send(self) -> None:
        """Write for every link that asked."""
        links, self._unsent = self._unsent, []
        for link in links:
            link.send()

    def wait_for_room(self, link: "Link") -> None:
        """Hold a link until the gate has room again."""
        self._crowded.append(link)
        if len(self._crowded) == 1:
            self.gate.call_when_room(self._resume_crowded)

    def _resume_crowded(self) -> None:
        """Read again from every link that waited for room."""
        links, self._crowded = self._crowded, []
        for link in links:
            link.release(Hold.ROOM)

    def has_room_for(self, device: Device, client_id: str) -> bool:
        """Tell whether a device may have this connection beside those it has."""
        client = self.clients.get((device.id, client_id))
        takes_over = client is not None and client.link is not None
        return takes_over or self._connected[device.id] < MOST_CONNECTIONS

    def enter(self, link: "Link", device: Device, connect: Connect, client_id: str) -> bool:
        """Give the link its client, ending an older connection; True when a session goes on."""
        key = (device.id, client_id)
        older = self.clients.get(key)
        if older is not None and older.link is not None:
            older.link.end(Reason.SESSION_TAKEN_OVER, "The same client identifier connected again.")
        # The older connection's end may have been its session's end too.
        client = self.clients.get(key)
        present = client is not None and client.resume(device, clean_start=connect.clean_start)
        if client is None:
            client = self.clients[key] = Client(self, device, client_id)
        self._idle.pop(key, None)
        client.link = link
        link.client = client
        self.connections += 1
        self._connected[device.id] += 1
        self.accepted += 1
        return present

    def left(self, device: Device) -> None:
        """Note that a connection of a device has ended."""
        self.connections -= 1
        self._connected[device.id] -= 1
        if not self._connected[device.id]:
            del self._connected[device.id]

    def keep(self, client: "Client") -> None:
        """Keep the session of a client that is away; the oldest makes room."""
        self._idle[client.key] = client
        if len(self._idle) > KEPT_SESSIONS:
            next(iter(self._idle.values())).end_session()

    def forget(self, client: "Client") -> None:
        """Drop a client whose session has ended."""
        self._idle.pop(client.key, None)
        if self.clients.get(client.key) is client:
            del self.clients[client.key]


class Client:
    """One client identifier of one device: its session, and the link that serves it, if any."""

    __slots__ = (
        "_expiry",
        "_late_will",
        "_listener",
        "_will_timer",
        "device",
        "key",
        "link",
        "session",
    )

    def __init__(self, listener: Listener, device: Device, client_id: str) -> None:
        """Begin a session."""
        self._listener = listener
        self.key = (device.id, client_id)
        self.device = device
        self.session = Session()
        self.link: Link | None = None
        self._late_will: LastWill | None = None
        self._will_timer: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None

    def resume(self, device: Device, *, clean_start: bool) -> bool:
        """Come back; True when the session goes on, False when the client wants a new one.

        A will that still waits is void when the session goes on, and due when it ends
        (MQTT 5.0, section 3.1.2.5).
        """
        if clean_start:
            self.send_late_will()
            self.session = Session()
        self.forget_timers()
        self.device = device
        return not clean_start

    def left(self, will: LastWill | None, session_expiry_s: int) -> None:
        """Note that the link is gone; keep the session and a delayed will for their time."""
        self.link = None
        loop = self._listener.loop
        self._late_will = will
        delay_s = min(will.delay_s, session_expiry_s) if will else 0
        if not delay_s or self._listener.stopping:
            self.send_late_will()
        else:
            self._will_timer = loop.call_later(delay_s, self.send_late_will)
        if not session_expiry_s or self._listener.stopping:
            self.end_session()
        else:
            self._expiry = loop.call_later(session_expiry_s, self.end_session)
            self._listener.keep(self)

    def send_late_will(self) -> None:
        """Submit the will that waits for its delay, if there is one."""
        will, self._late_will = self._late_will, None
        if will is not None:
            self._listener.submit(
                Inbound(
                    self.device, will.kind, [will.payload], _now_us(), self._will_done, qos=will.qos
                )
            )

    def _will_done(self, _: Inbound) -> None:
        """Nobody waits for the acknowledgement of a will, except a stop."""
        self._listener.committed()

    def end_session(self) -> None:
        """End the session, and with it the wait of a delayed will."""
        self.send_late_will()
        self.forget_timers()
        self._listener.forget(self)

    def forget_timers(self) -> None:
        """Cancel what was planned for an absent device."""
        self._late_will = None
        for timer in (self._will_timer, self._expiry):
            if timer is not None:
                timer.cancel()
        self._will_timer = self._expiry = None


class Hold(Flag):
    """Why a link is not being read."""

    DECIDING = auto()
    RATE = auto()
    ROOM = auto()
    UNREAD = auto()
    STOPPING = auto()


class Link(asyncio.Protocol):
    """One socket, and the way down to its device (`ingest.inbound.Line`)."""

    def __init__(self, listener: Listener) -> None:
        """Wait for the socket."""
        self.listener = listener
        self.client: Client | None = None
        self.session: Session | None = None
        self.peer = Peer()
        self.secret: bytes | None = None
        self._loop = listener.loop
        self._connection = Connection()
        self._transport: asyncio.Transport | None = None
        self._device: Device | None = None
        self._buckets: list[Bucket] = []
        self._connect: Connect | None = None
        self._admission: asyncio.Task[None] | None = None
        self._entered = False
        self._ended = False
        self._holds = Hold(0)
        self._send_planned = False
        self._heard_at = 0.0
        # One timer, one meaning at a time: CONNECT is due, then keep-alive, then the end.
        self._timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    # The socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give the stranger a little time for its CONNECT."""
        self._transport = cast("asyncio.Transport", transport)
        self.listener.opened(self)
        if self.listener.stopping:
            self._transport.abort()
            return
        wrapped = transport.get_extra_info("ssl_object")
        self.peer = peer_of(
            transport.get_extra_info("peername"),
            wrapped and wrapped.version(),
            wrapped and wrapped.getpeercert(),
        )
        revoked = self.listener.revoked
        certificate = wrapped and revoked and wrapped.getpeercert(binary_form=True)
        if revoked and certificate and revoked(certificate):
            logger.warning("certificate_revoked", names=sorted(self.peer.names))
            self.listener.refused["certificate_revoked"] += 1
            self._ended = True
            self._transport.abort()
            return
        if not self.listener.door.lets_connect(self.peer.address, self._loop.time()):
            self.listener.refused["connect_rate"] += 1
            self._ended = True
            self._transport.abort()
            return
        self._connection = Connection(self.peer.names)
        self._transport.set_write_buffer_limits(high=UNREAD_LIMIT_BYTES)
        # A device may switch MQTT's own keep-alive off; TCP's then finds the dead.
        self._transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1
        )
        self._timer = self._loop.call_later(self.listener.connect_timeout_s, self._no_connect)

    def data_received(self, data: bytes) -> None:
        """Read what came, unless the connection is only waiting for its end."""
        if not self._ended:
            self._heard_at = self._loop.time()
            self._read(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        """Clean up; a device that did not say farewell leaves its will."""
        self._transport = None
        self._leave(clean=False, void_will=False)
        self.listener.gone(self)

    def pause_writing(self) -> None:
        """The device does not read its acknowledgements: do not read from it either."""
        if self._ended:
            return
        self.hold(Hold.UNREAD)
        self._unread_timer = self._loop.call_later(UNREAD_TIMEOUT_S, self._unread)

    def resume_writing(self) -> None:
        """The device reads again."""
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None
        self.release(Hold.UNREAD)

    # The way down: ingest.inbound.Outlet

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        delivered: Callable[[], None] | None = None,
    ) -> bool:
        """Send a message to a topic that the device subscribed; False when it cannot be sent."""
        if self._ended or (not qos and Hold.UNREAD in self._holds):
            return False
        if qos and self._connection.congested:
            self._blame(Reason.QUOTA_EXCEEDED, "Read and acknowledge what is sent to you.")
            return False
        sent = self._connection.publish(topic, payload, qos=qos, token=delivered)
        self.send_soon()
        return sent

    def close(self, reason: str) -> None:
        """End the connection because someone decided so, for example revoked the secret."""
        self.end(Reason.NOT_AUTHORIZED, reason)

    # Reading

    def _read(self, data: bytes) -> None:
        """Act on every event that these bytes complete, then slow down if need be."""
        messages = 0
        for event in self._connection.receive(data):
            match event:
                case Publishes():
                    messages += len(event.payloads)
                    self._submit(event)
                case Subscribed():
                    if self._device is not None:
                        self.listener.gate.subscribed(self._device)
                case Delivered():
                    cast("Callable[[], None]", event.token)()
                case Connect():
                    self._admit(event)
                case Closed():
                    self._closed(event)
                case _:
                    assert_never(event)
        self.send()
        if messages and not self._ended:
            self._slow_down(messages)

    def _submit(self, event: Publishes) -> None:
        """Hand a run of messages to the gate."""
        if self._device is None or self._ended:
            return
        if self._device.revoked:
            # The gate closes it too; this may be earlier.
            self.close("The secret was changed or revoked.")
            return
        device = self._device
        if event.child:
            # A child may be taken from a gateway that still has its topic, or an alias for it.
            child = device.children.get(event.child)
            if child is None or child.revoked:
                self._blame(Reason.NOT_AUTHORIZED, "This device is not behind the gateway.")
                return
            device = child
        self.listener.submit(
            Inbound(
                device,
                event.kind,
                event.payloads,
                _now_us(),
                self._committed,
                event.packet_ids,
                event.qos,
            )
        )

    def _committed(self, inbound: Inbound) -> None:
        """Acknowledge a run that is in the database."""
        self.listener.committed()
        if not inbound.qos or inbound.packet_ids is None:
            return
        link = self
        heir = self.client.link if self.client is not None else None
        if inbound.qos == 2 and heir is not None and heir.session is self.session:
            # The device came back meanwhile: its session goes on there, and so does QoS 2.
            link = heir
        link._connection.acknowledge(inbound.packet_ids, inbound.qos)  # noqa: SLF001  own class
        link.send_soon()

    def _slow_down(self, messages: int) -> None:
        """Stop reading from a device that is too fast, or while the gate is full."""
        now = self._loop.time()
        wait_s = max((bucket.take(messages, now) for bucket in self._buckets), default=0.0)
        if wait_s:
            self.hold(Hold.RATE)
            self._loop.call_later(wait_s, self.release, Hold.RATE)
        # Only who has just sent something is held: a call button that was quiet gets through
        # even while the gate is full.
        if not self.listener.gate.has_room and Hold.ROOM not in self._holds:
            self.hold(Hold.ROOM)
            self.listener.wait_for_room(self)

    def hold(self, why: Hold) -> None:
        """Stop reading for one more reason, unless the link only waits for its client to close."""
        if self._ended:
            return
        if not self._holds and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
        self._holds |= why

    def release(self, why: Hold) -> None:
        """Read again when this was the last reason not to."""
        if not self._holds:
            return
        self._holds &= ~why
        if not self._holds and self._transport is not None and not self._transport.is_closing():
            self._heard_at = self._loop.time()
            self._transport.resume_reading()

    # Writing

    def send_soon(self) -> None:
        """Plan one write for everything that this moment's callbacks add."""
        if not self._send_planned:
            self._send_planned = True
            self.listener.send_soon(self)

    def send(self) -> None:
        """Write what the connection has to say."""
        self._send_planned = False
        data = self._connection.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    # Coming

    def _no_connect(self) -> None:
        """End a connection whose CONNECT did not come in time."""
        self.listener.refused["connect_timeout"] += 1
        self._ended = True
        self.abort()

    def _admit(self, connect: Connect) -> None:
        """Stop reading until the gate knows who this is."""
        self._connect = connect
        self._drop_timers()
        self.hold(Hold.DECIDING)
        self._admission = self.listener.tasks.create_task(
            self._decide(connect), name=f"admit {connect.device_id}"
        )

    async def _decide(self, connect: Connect) -> None:
        """Ask the gate, then accept or refuse."""
        door, address = self.listener.door, self.peer.address
        who = connect.device_id, connect.secret, self._issued_at(connect.device_id)
        try:
            device = self.listener.gate.recognise(*who)
            if device is None:
                if not await self._wait_at_door(connect.device_id):
                    text = "Too many log-ins failed from here. Try again in a minute."
                    self._refuse(Reason.CONNECTION_RATE_EXCEEDED, text)
                    return
                async with asyncio.timeout(AUTHENTICATE_TIMEOUT_S):
                    device = await self.listener.gate.authenticate(*who)
            if device is None or device.revoked:
                door.failed(address, connect.device_id, self._loop.time())
                text = "Check the device id and its secret."
                self._refuse(Reason.BAD_USER_NAME_OR_PASSWORD, text)
                return
            door.succeeded(address, connect.device_id)
            self._accept(connect, device)
        except (TimeoutError, DatabaseUnavailable):
            self._refuse(Reason.SERVER_UNAVAILABLE, "Try again in a moment.")
        except Exception:
            # A fault behind the gate must not take the door down with it.
            logger.exception("admission_failed", device=connect.device_id)
            self._refuse(Reason.UNSPECIFIED_ERROR, "Try again in a moment.")

    def _issued_at(self, device_id: str) -> datetime | None:
        """Return when the certificate was issued that names this device, if one does."""
        return self.peer.issued_at if device_id in self.peer.names else None

    async def _wait_at_door(self, device_id: str) -> bool:
        """Wait as long as failures from there ask for; False when too many wait already."""
        door, address = self.listener.door, self.peer.address
        wait_s = door.wait_s(address, device_id, self._loop.time())
        if not wait_s:
            return True
        if not door.begin_wait(address):
            return False
        try:
            await asyncio.sleep(wait_s)
        finally:
            door.end_wait(address)
        return True

    def _refuse(self, reason: Reason, text: str) -> None:
        """Turn the device away."""
        self.listener.refused[reason.name.lower()] += 1
        self.end(reason, text)

    def _accept(self, connect: Connect, device: Device) -> None:
        """Let the device in."""
        if self._ended or self._transport is None:
            return
        client_id = connect.client_id or secrets.token_hex(12)
        if not self.listener.has_room_for(device, client_id):
            text = f"A device has at most {MOST_CONNECTIONS} connections at a time."
            self._refuse(Reason.QUOTA_EXCEEDED, text)
            return
        self._device = device
        self.secret = connect.secret
        now = self._loop.time()
        shared = (
            self.listener.of_device.of(device.id, now),
            self.listener.of_address.of(self.peer.address, now),
        )
        self._buckets = [bucket for bucket in shared if bucket is not None]
        present = self.listener.enter(self, device, connect, client_id)
        self._entered = True
        if self.client is not None:
            self.session = self.client.session
            self._connection.accept(
                self.session, present=present, client_id=client_id, children=device.children
            )
        self._heard_at = self._loop.time()
        if connect.keep_alive_s:
            self._check_alive()
        self.listener.gate.connected(device, self)
        self.release(Hold.DECIDING)
        self._read(b"")

    def _check_alive(self) -> None:
        """End the connection after one and a half times its keep-alive without a sign of life.

        Armed anew only when it fires, so that a packet costs no timer.
        """
        if self._connect is None:
            return
        now = self._loop.time()
        if self._holds:
            self._heard_at = now  # nobody listened, so silence proves nothing
        due = self._heard_at + 1.5 * self._connect.keep_alive_s
        if now < due:
            self._timer = self._loop.call_at(due, self._check_alive)
        else:
            self._blame(Reason.KEEP_ALIVE_TIMEOUT, "Nothing was heard for too long.")

    # Going

    def _closed(self, event: Closed) -> None:
        """Act on the end of the protocol: a farewell, or something that the device did wrong."""
        if self._connect is not None and event.session_expiry_s is not None:
            self._connect = msgspec.structs.replace(
                self._connect, session_expiry_s=event.session_expiry_s
            )
        if event.reason is Reason.SUCCESS:
            self._leave(clean=event.clean, void_will=event.clean)
            if self._transport is not None:
                self._transport.close()
        elif self._entered:
            self._blame(event.reason, event.text)
        else:
            self._refuse(event.reason, event.text)

    def _blame(self, reason: Reason, text: str) -> None:
        """End the connection for what the device did, and count it."""
        device_id = self._device.id if self._device else None
        self.listener.protocol_errors[reason.name.lower()] += 1
        logger.info("device_cut_off", device=device_id, reason=reason.name.lower())
        self.end(reason, text)

    def _unread(self) -> None:
        """Cut off a device that leaves too much unread for too long."""
        self._blame(Reason.QUOTA_EXCEEDED, "Read what is sent to you.")
        self.abort()

    def end(self, reason: Reason, text: str) -> None:
        """Tell the device why and close; linger a little so that it can read that."""
        if self._ended:
            return
        self._connection.disconnect(reason, text)
        self.send()
        stopping = reason is Reason.SERVER_SHUTTING_DOWN
        revoked = self._device is not None and self._device.revoked
        self._leave(clean=False, void_will=stopping or revoked)
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if not transport.can_write_eof():
            transport.close()
            return
        # Closing with unread input would reset the connection and the reason would be lost:
        # read on, into nothing, until the client closes.
        try:
            transport.write_eof()
        except OSError:  # the client was quicker and its socket is gone
            transport.abort()
            return
        self._holds = Hold(0)
        transport.resume_reading()
        self._timer = self._loop.call_later(LINGER_S, self.abort)

    def abort(self) -> None:
        """Close the socket now."""
        if self._transport is not None:
            self._transport.abort()

    def _leave(self, *, clean: bool, void_will: bool) -> None:
        """Note, once, that this link no longer serves its device."""
        self._ended = True
        self._drop_timers()
        if self._admission is not None and self._admission is not asyncio.current_task():
            self._admission.cancel()
        if not self._entered:
            return
        self._entered = False
        if self.client is not None and self._connect is not None and self._device is not None:
            self.listener.left(self._device)
            will = None if void_will else self._connect.will
            self.client.left(will, self._connect.session_expiry_s)
            self.listener.gate.disconnected(self._device, self, clean=clean)

    def _drop_timers(self) -> None:
        """Cancel whatever was planned."""
        for timer in (self._timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._unread_timer = None


def _now_us() -> int:
    """Return the wall clock in microseconds since 1970."""
    return time.time_ns() // 1000

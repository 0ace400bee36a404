"""One ingest process: registry and pipeline behind a gate, and the way down to devices."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from anxin.config import Settings
from anxin.db.intake import Intake, RefusedByDatabase
from anxin.db.migrate import migrate
from anxin.db.pool import Database, as_role, connect, doorbell
from anxin.db.registry import Arrival, changes_since, note_arrivals
from anxin.db.silence import note_listening
from anxin.errors import Conflict, DatabaseUnavailable
from anxin.logs import log
from ingest.inbound import Device, Inbound, Kind, Line, Outlet, Peer
from ingest.pipeline import Pipeline
from ingest.registry import Registry
from ingest.remembered import Remembered
from ingest.spool import Spool

STALLED_SECONDS: Final = 20.0
"""A question to the database that takes longer is broken off and asked again."""
START_SECONDS: Final = 5.0
"""So long a start waits for the database before it goes on without."""
ASK_AGAIN_SECONDS: Final = 0.5
REMEMBER_AGAIN_SECONDS: Final = 3600.0
HEARTBEAT_SECONDS: Final = 30.0
LISTEN_SECONDS: Final = 5.0
LOOK_AGAIN_SECONDS: Final = 5.0
_log = log(__name__)


class IngestService:
    """The gate that listeners and the bridge hand messages to: an async context manager."""

    def __init__(self, settings: Settings) -> None:
        """Prepare; nothing connects before `async with`."""
        self._as_given = settings.database
        self._dsn = as_role(settings.database, "anxin_ingest")
        self._db = Database(
            self._dsn, size=4, application="anxin ingest", stalled_seconds=STALLED_SECONDS
        )
        self.ready = asyncio.Event()
        """Set once the database was there and its schema is ours; it may go away again."""
        directory = Path(settings.spool_dir or Path(settings.data_dir) / "spool")
        self._spool: Spool | None = None
        self.remembered: Remembered | None = None
        if settings.spool_mebibytes:
            self._spool = Spool(directory, settings.spool_mebibytes)
            self.remembered = Remembered(directory, settings.remember_hours)
        self.registry = Registry(self._db, self.remembered)
        self.pipeline = Pipeline(
            self._dsn,
            self.registry,
            queue_bytes=settings.queue_mebibytes * 1024 * 1024,
            timezone=settings.timezone,
            receipt=self._send_receipt,
            spool=self._spool,
            ready=self.ready,
        )
        # A device may be connected more than once, under several client ids.
        self._outlets: dict[int, list[Line]] = {}
        self._through_broker: dict[int, Outlet] = {}
        self._sent: set[int] = set()
        self._arrivals: dict[int, Peer] = {}
        self._arrived = asyncio.Event()
        self._notes: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()
        self._commands_wake = asyncio.Event()
        self._devices_changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Start, also while the database is away; raise SettingError when the spool is unusable.

        The schema is brought up to date before anything else looks at the database; until then
        what remembered devices send goes to the spool.
        """
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _start(self) -> None:
        if self._spool is not None:
            await self._stack.enter_async_context(self._spool)
        if self.remembered is not None:
            await asyncio.to_thread(self.remembered.load)
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._make_ready()
        except (DatabaseUnavailable, TimeoutError):
            _log.warning(
                "waits_for_database",
                devices=0 if self.remembered is None else len(self.remembered),
            )
        await self._stack.enter_async_context(self._db)
        group = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._tasks = [
            group.create_task(self._become_ready(), name="schema"),
            group.create_task(self.pipeline.run(), name="pipeline"),
        ]
        for name, work in (
            ("registry", self.registry.serve),
            ("watch devices", self._watch_devices),
            ("watch commands", self._watch_commands),
            ("heartbeat", self._heartbeat),
            ("listening", self._listen),
            ("remember devices", self._remember),
            ("arrivals", self._note_arrivals),
        ):
            self._tasks.append(group.create_task(self._when_ready(work), name=name))

    async def _make_ready(self) -> None:
        # Asked first, because a thread that waits for an answer cannot be cancelled.
        async with await connect(self._as_given, application="anxin ingest"):
            pass
        await asyncio.to_thread(migrate, self._as_given)
        self.ready.set()

    async def _become_ready(self) -> None:
        while not self.ready.is_set():
            try:
                await self._make_ready()
            except DatabaseUnavailable:
                await asyncio.sleep(ASK_AGAIN_SECONDS)

    async def _when_ready(self, work: Callable[[], Awaitable[None]]) -> None:
        await self.ready.wait()
        await work()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop; what was submitted and not yet acknowledged will be sent again by its devices."""
        for task in self._tasks:
            task.cancel()
        await self._stack.__aexit__(kind, error, trace)

    @property
    def health(self) -> str:
        """Say in a few words whether all is as it should be: `ready`, or `not ready` and why."""
        if self.pipeline.spool_full:
            return "not ready: the spool is full, nothing is acknowledged"
        if self.ready.is_set():
            return "ready"
        known = 0 if self.remembered is None else len(self.remembered)
        return (
            "not ready: the database has not answered since the start; "
            f"{known} devices are remembered and let in, what they send is kept on disk"
        )

    # --- Gate

    async def authenticate(
        self, device_id: str, secret: bytes | None, issued_at: datetime | None = None
    ) -> Device | None:
        """Return the device when this opens it; raise DatabaseUnavailable when unknowable."""
        return await self.registry.authenticate(device_id, secret, issued_at)

    def recognise(
        self, device_id: str, secret: bytes | None, issued_at: datetime | None
    ) -> Device | None:
        """Return the device when that can be told without asking the database."""
        return self.registry.recognise(device_id, secret, issued_at)

    async def find(self, device_id: str) -> Device | None:
        """Return a device by its id alone, for messages that a broker has let in."""
        return await self.registry.find(device_id)

    def submit(self, inbound: Inbound) -> None:
        """Take payloads; see `Pipeline.submit`."""
        self.pipeline.submit(inbound)

    @property
    def has_room(self) -> bool:
        """False while sources should stop reading."""
        return self.pipeline.has_room

    def call_when_room(self, resume: Callable[[], None]) -> None:
        """Call `resume` once there is room again."""
        self.pipeline.call_when_room(resume)

    def connected(self, device: Device, outlet: Line) -> None:
        """Note the way down to a device, that it is online, and from where."""
        self._outlets.setdefault(device.key, []).append(outlet)
        self._note_state(device, online=True)
        self._arrivals[device.key] = outlet.peer
        self._arrived.set()
        self._commands_wake.set()

    def disconnected(self, device: Device, outlet: Line, *, clean: bool) -> None:  # noqa: ARG002
        """Note that a device is offline, unless it is connected another way as well."""
        outlets = self._outlets.get(device.key, [])
        if outlet in outlets:
            outlets.remove(outlet)
            if not outlets:
                del self._outlets[device.key]
                self._note_state(device, online=False)

    def subscribed(self, device: Device) -> None:  # noqa: ARG002
        """Look for commands that wait for a device that can now be told."""
        self._commands_wake.set()

    def reach(self, device: Device, outlet: Outlet) -> None:
        """Note that a device listens at a broker; whether it is connected there is not known."""
        if device.key not in self._through_broker:
            self._through_broker[device.key] = outlet
            self._commands_wake.set()

    def _publish(
        self, key: int, topic: str, payload: bytes, delivered: Callable[[], None] | None = None
    ) -> bool:
        """Send down every way on which the device listens, its gateway's too; False without one."""
        ways: list[Outlet] = list(self._outlets.get(key, ()))
        if (linked := self.registry.linked(key)) is not None:
            ways += self._outlets.get(linked[1].key, ())
        if not ways and key in self._through_broker:
            ways = [self._through_broker[key]]
        took = [way.publish(topic, payload, delivered=delivered) for way in ways]
        return any(took)

    def _note_state(self, device: Device, *, online: bool) -> None:
        """Go through the pipeline, so that it keeps its place among the device's own messages."""
        payload = b'{"online":true}' if online else b'{"online":false}'
        now = time.time_ns() // 1000
        self.submit(Inbound(device, Kind.STATE, [payload], now, _noted, qos=0))

    # --- down to devices

    def _send_receipt(self, inbound: Inbound, event_id: str) -> None:
        topic = f"anxin/v1/{inbound.device.id}/receipt"
        self._publish(inbound.device.key, topic, msgspec.json.encode({"id": event_id}))

    async def _watch_commands(self) -> None:
        intake = Intake(self._dsn)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ring_commands(), name="command doorbell")
                while True:
                    await self._commands_wake.wait()
                    self._commands_wake.clear()
                    keys = [*self._reached(), *self._through_broker]
                    if not keys:
                        continue
                    try:
                        async with await intake.transaction() as transaction:
                            waiting = await transaction.waiting_commands(keys)
                    except DatabaseUnavailable:
                        continue  # the doorbell rings again by the clock
                    for command in waiting:
                        self._send_command(command)
        finally:
            await intake.close()

    def _reached(self) -> Iterable[int]:
        """Return the keys of the devices that are connected, or stand behind one that is."""
        for key in self._outlets:
            yield key
            device = self.registry.by_key.get(key)
            if device is not None:
                yield from (child.key for child in device.children.values())

    async def _ring_commands(self) -> None:
        async for _ in doorbell(self._dsn, ["anxin_command"], LOOK_AGAIN_SECONDS):
            self._commands_wake.set()

    def _send_command(self, command: dict[str, object]) -> None:
        number, key = command["id"], command["device_key"]
        assert isinstance(number, int)  # noqa: S101  the columns' types
        assert isinstance(key, int)  # noqa: S101
        device = self.registry.by_key.get(key)
        if device is None and (linked := self.registry.linked(key)) is not None:
            device = linked[0]
        if device is None or number in self._sent:
            return
        payload = msgspec.json.encode(
            {"id": str(number), "name": command["name"], "args": command["args"]}
        )

        def delivered() -> None:
            self._sent.discard(number)
            task = asyncio.get_running_loop().create_task(
                self._note_delivered(number), name=f"command {number} delivered"
            )
            self._notes.add(task)
            task.add_done_callback(self._notes.discard)

        if self._publish(key, f"anxin/v1/{device.id}/command", payload, delivered):
            self._sent.add(number)

    async def _note_delivered(self, number: int) -> None:
        intake = Intake(self._dsn)
        try:
            async with await intake.transaction() as transaction:
                await transaction.command_delivered(number)
        except DatabaseUnavailable:
            _log.warning("command_delivery_not_noted", command=number)
        finally:
            await intake.close()

    # --- watching

    async def _watch_devices(self) -> None:
        """Renew devices that changed; end the connections of those that were revoked."""
        horizon = "0"
        async for _ in doorbell(self._dsn, ["anxin_device"], LOOK_AGAIN_SECONDS):
            try:
                keys, next_horizon = await changes_since(self._db, horizon)
                # The first look knows no "since": what was loaded before it is read again.
                changed = keys if horizon != "0" else list(self.registry.by_key)
                changed_devices = await self.registry.renew(changed)
            except DatabaseUnavailable:
                continue
            horizon = next_horizon
            if keys:
                self._devices_changed.set()
            for device in changed_devices:
                for outlet in list(self._outlets.get(device.key, ())):
                    issued_at = outlet.peer.issued_at if outlet.secret is None else None
                    if not self.registry.still_opens(device, outlet.secret, issued_at):
                        _log.info("device_cut_off", device=device.id)
                        outlet.close("The secret was changed or revoked.")

    async def _remember(self) -> None:
        """Keep the keys of all devices for the time in which the database cannot be asked."""
        if self.remembered is None:
            return
        while True:
            self._devices_changed.clear()
            try:
                await self.remembered.renew(self._db)
            except DatabaseUnavailable:
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(REMEMBER_AGAIN_SECONDS):
                    await self._devices_changed.wait()
            await asyncio.sleep(LOOK_AGAIN_SECONDS)  # many changes, one reading

    async def _note_arrivals(self) -> None:
        """Keep from where, and how, devices were last connected; many arrivals, one writing."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            await asyncio.sleep(ASK_AGAIN_SECONDS)
            arrivals, self._arrivals = self._arrivals, {}
            try:
                await note_arrivals(
                    self._db,
                    [
                        Arrival(key, peer.network, peer.tls, peer.until)
                        for key, peer in sorted(arrivals.items())
                    ],
                )
            except (DatabaseUnavailable, Conflict):
                _log.warning("arrivals_not_noted", devices=len(arrivals))

    async def _listen(self) -> None:
        """Note that devices are being heard, so that a silence of ours is not taken for theirs."""
        kept = away = False
        while True:
            try:
                await note_listening(self._db, kept=kept)
            except DatabaseUnavailable:
                keeps = self._spool is not None and not self.pipeline.spool_full
                kept = keeps and (kept or not away)
                away = True
            else:
                kept = away = False
            await asyncio.sleep(LISTEN_SECONDS)

    async def _heartbeat(self) -> None:
        """Note from time to time who is connected: a connection kept alive is a sign of life."""
        intake = Intake(self._dsn)
        try:
            while True:
                await asyncio.sleep(HEARTBEAT_SECONDS)
                keys = sorted(self._outlets)
                if not keys:
                    continue
                now, count = time.time_ns() // 1000, len(keys)
                try:
                    async with await intake.transaction() as transaction:
                        await transaction.states(
                            {
                                "keys": keys,
                                "onlines": [True] * count,
                                "ats": [now] * count,
                                "heards": [True] * count,
                                "batteries": [None] * count,
                                "rssis": [None] * count,
                                "firmwares": [None] * count,
                            }
                        )
                except (DatabaseUnavailable, RefusedByDatabase):
                    continue  # the next beat tells the same, without a device that was deleted
        finally:
            await intake.close()


def _noted(_: Inbound) -> None:
    """Nobody waits to hear that the state of a connection was stored."""

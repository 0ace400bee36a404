"""One ingest process: registry and pipeline behind a gate, and the way down to devices."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from anxin.config import Settings
from anxin.db.intake import Intake
from anxin.db.pool import Database, doorbell
from anxin.db.registry import changes_since
from anxin.db.silence import note_listening
from anxin.errors import DatabaseUnavailable
from anxin.logs import log
from ingest.inbound import Device, Inbound, Kind, Outlet
from ingest.pipeline import Pipeline
from ingest.registry import Registry
from ingest.spool import Spool

STALLED_SECONDS: Final = 20.0
"""A question to the database that takes longer is broken off and asked again."""
HEARTBEAT_SECONDS: Final = 30.0
LISTEN_SECONDS: Final = 5.0
LOOK_AGAIN_SECONDS: Final = 5.0
_log = log(__name__)


class IngestService:
    """The gate that listeners and the bridge hand messages to: an async context manager."""

    def __init__(self, settings: Settings) -> None:
        """Prepare; nothing connects before `async with`."""
        self._dsn = settings.database
        self._db = Database(
            settings.database, size=4, application="anxin ingest", stalled_seconds=STALLED_SECONDS
        )
        self._spool = _spool_of(settings)
        self.registry = Registry(self._db)
        self.pipeline = Pipeline(
            settings.database,
            self.registry,
            queue_bytes=settings.queue_mebibytes * 1024 * 1024,
            timezone=settings.timezone,
            receipt=self._send_receipt,
            spool=self._spool,
        )
        # A device may be connected more than once, under several client ids.
        self._outlets: dict[int, list[Outlet]] = {}
        self._through_broker: dict[int, Outlet] = {}
        self._sent: set[int] = set()
        self._notes: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()
        self._commands_wake = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Start the pipeline and the watchers; raise SettingError when the spool is unusable."""
        if self._spool is not None:
            await self._stack.enter_async_context(self._spool)
        await self._stack.enter_async_context(self._db)
        group = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._tasks = [
            group.create_task(self.registry.serve(), name="registry"),
            group.create_task(self.pipeline.run(), name="pipeline"),
            group.create_task(self._watch_devices(), name="watch devices"),
            group.create_task(self._watch_commands(), name="watch commands"),
            group.create_task(self._heartbeat(), name="heartbeat"),
            group.create_task(self._listen(), name="listening"),
        ]
        return self

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

    # --- Gate

    async def authenticate(self, device_id: str, secret: bytes) -> Device | None:
        """Return the device when the secret is right; raise DatabaseUnavailable when unknowable."""
        return await self.registry.authenticate(device_id, secret)

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

    def connected(self, device: Device, outlet: Outlet) -> None:
        """Note the way down to a device, and that it is online."""
        self._outlets.setdefault(device.key, []).append(outlet)
        self._note_state(device, online=True)
        self._commands_wake.set()

    def disconnected(self, device: Device, outlet: Outlet, *, clean: bool) -> None:  # noqa: ARG002
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
        """Send down every way on which the device listens; False when there is none."""
        ways = list(self._outlets.get(key, ()))
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
                    keys = [*self._outlets, *self._through_broker]
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

    async def _ring_commands(self) -> None:
        async for _ in doorbell(self._dsn, ["anxin_command"], LOOK_AGAIN_SECONDS):
            self._commands_wake.set()

    def _send_command(self, command: dict[str, object]) -> None:
        number, key = command["id"], command["device_key"]
        assert isinstance(number, int)  # noqa: S101  the columns' types
        assert isinstance(key, int)  # noqa: S101
        device = self.registry.by_key.get(key)
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
                closed = await self.registry.renew(changed)
            except DatabaseUnavailable:
                continue
            horizon = next_horizon
            for device in closed:
                for outlet in list(self._outlets.get(device.key, ())):
                    _log.info("device_cut_off", device=device.id)
                    outlet.close("The secret was changed or revoked.")

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
                except DatabaseUnavailable:
                    continue  # the next beat tells the same
        finally:
            await intake.close()


def _spool_of(settings: Settings) -> Spool | None:
    if not settings.spool_mebibytes:
        return None
    directory = settings.spool_dir or Path(settings.data_dir) / "spool"
    return Spool(Path(directory), settings.spool_mebibytes)


def _noted(_: Inbound) -> None:
    """Nobody waits to hear that the state of a connection was stored."""

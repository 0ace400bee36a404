"""One open stream: what waits to be sent to it, and the frames it may send."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from enum import IntEnum
from typing import Annotated, Final

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from anxin.db.sessions import Authority
from anxin.stations import Sound
from api.alarm_view import View, staff_view
from api.wire import Wire, text_frame

PING: Final = text_frame(b'{"type":"ping"}')
SEND_TIMEOUT_S: Final = 10.0

Cursor = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
AlarmId = Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]{0,17}$")]


class CloseCode(IntEnum):
    """Why the server ends a stream."""

    LOGGED_OUT = 4001
    MALFORMED = 4002
    TOO_SLOW = 4008
    RESTART = 1012
    TRY_AGAIN = 1013


class Hello(msgspec.Struct, tag_field="type", tag="hello"):
    """The first frame of a client: its ticket, and the last cursor it knows."""

    ticket: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    cursor: Cursor | None = None


class Received(msgspec.Struct, tag_field="type", tag="received"):
    """Everything up to this cursor has arrived."""

    cursor: Cursor


class Displayed(msgspec.Struct, tag_field="type", tag="displayed"):
    """A person can see this alarm now."""

    alarm_id: AlarmId


class StationReport(msgspec.Struct, tag_field="type", tag="station"):
    """What a screen says of itself: every 15 s, and when it changes."""

    screen: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    sound: Sound
    visible: bool
    on_duty: bool
    proved_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class Ended(Exception):
    """The server ends this stream, with a code that tells the client why."""

    def __init__(self, code: CloseCode) -> None:
        """Keep the code."""
        super().__init__(code.name)
        self.code = code


class Viewer:
    """What one client is yet to be sent: alarms in order, and the newest status of each resident.

    While the client keeps up nothing waits: a frame goes straight into its connection. `position`
    is the last cursor taken before the stream is live; from then on the hub counts for all.
    """

    user: Authority
    view: View | None
    """How this viewer sees every alarm; None for a relative, who sees each by its own consent."""
    on_change: "Callable[[Viewer], None] | None"
    """Called when `descriptor` may differ."""

    def __init__(self, wire: Wire, user: Authority, *, capacity: int) -> None:
        """Prepare for a client whose hello was accepted."""
        self.become(user)
        self.position = 0
        self.on_change = None
        self._wire = wire
        self._capacity = capacity
        self._alarms: deque[bytes] = deque()
        self._statuses: dict[int, bytes] = {}
        self._pinging = False
        self._patience: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._end: asyncio.Future[CloseCode] = self._loop.create_future()
        wire.on_change = self._look_at_wire

    def become(self, user: Authority) -> None:
        """Take over what this user may see from now on."""
        self.user = user
        self.view = staff_view(user)

    @property
    def depth(self) -> int:
        """How many alarm frames wait to be sent."""
        return len(self._alarms)

    @property
    def descriptor(self) -> int | None:
        """Where to write while this viewer is abreast: nothing waits for it, and it goes on."""
        if self._waits or self._end.done() or not self._wire.bare:
            return None
        return self._wire.descriptor

    def offer_alarms(self, frames: Sequence[bytes]) -> None:
        """Send alarm frames; too many that wait end the stream, for nothing may be left out."""
        for frame in frames:
            if self._end.done():
                return
            if self._flows:
                self._wire.put(frame)
            elif len(self._alarms) >= self._capacity:
                self.end(CloseCode.TOO_SLOW)
            else:
                self._alarms.append(frame)

    def offer_statuses(self, frames: dict[int, bytes]) -> None:
        """Send the statuses of residents, or let each wait in place of an older one."""
        if self._flows:
            self._wire.put(b"".join(frames.values()))
        else:
            self._statuses.update(frames)

    def ping(self) -> None:
        """Send a ping, unless one still waits."""
        if self._flows:
            self._wire.put(PING)
        else:
            self._pinging = True

    def put(self, rest: memoryview) -> None:
        """Send what the socket has not taken of frames that were written to `descriptor`."""
        self._wire.put(rest)

    def end(self, code: CloseCode) -> None:
        """End the stream; the first reason counts."""
        if not self._end.done():
            self._end.set_result(code)
            self._tell_change()

    async def ended(self) -> None:
        """Wait until somebody ends the stream, then raise Ended."""
        raise Ended(await asyncio.shield(self._end))

    async def send(self, frame: bytes) -> None:
        """Send one frame when there is room; raise Ended when there is none in time."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._wire.room()
        except TimeoutError:
            raise Ended(CloseCode.TOO_SLOW) from None
        self._wire.put(frame)

    def leave(self) -> None:
        """Send nothing more."""
        self._wire.on_change = None
        self._stop_waiting()

    @property
    def _waits(self) -> bool:
        return bool(self._alarms or self._pinging or self._statuses)

    @property
    def _flows(self) -> bool:
        """Whether a frame can go now; else the client has so long to make room again."""
        if self._wire.has_room:
            return True
        if self._patience is None:
            self._patience = self._loop.call_later(SEND_TIMEOUT_S, self.end, CloseCode.TOO_SLOW)
        return False

    def _look_at_wire(self) -> None:
        if self._wire.has_room:
            self._catch_up()
        self._tell_change()

    def _catch_up(self) -> None:
        """Send what waited, for as long as there is room: alarms before anything else."""
        self._stop_waiting()
        while self._waits and self._flows:
            self._wire.put(self._next())

    def _next(self) -> bytes:
        if self._alarms:
            return self._alarms.popleft()
        if self._pinging:
            self._pinging = False
            return PING
        return self._statuses.pop(next(iter(self._statuses)))

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _tell_change(self) -> None:
        if self.on_change is not None:
            self.on_change(self)


async def receive(socket: WebSocket) -> bytes:
    """Return the next text frame; raise Ended for a binary one, WebSocketDisconnect at the end."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    text = message.get("text")
    if text is None:
        raise Ended(CloseCode.MALFORMED)
    return bytes(text, "utf-8", "replace")

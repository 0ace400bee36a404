"""One open stream: what waits to be sent to it, and the frames it may send."""

import asyncio
from collections import deque
from enum import IntEnum
from typing import Annotated, Final

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from anxin.db.sessions import Authority

PING: Final = '{"type":"ping"}'
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


class Ended(Exception):
    """The server ends this stream, with a code that tells the client why."""

    def __init__(self, code: CloseCode) -> None:
        """Keep the code."""
        super().__init__(code.name)
        self.code = code


class Viewer:
    """What one client is yet to be sent: alarms in order, and the newest status of each resident.

    `position` is the last cursor taken into the queue: what is offered again is not sent again.
    """

    def __init__(self, socket: WebSocket, user: Authority, *, capacity: int) -> None:
        """Prepare for a client whose hello was accepted."""
        self.user = user
        self.position = 0
        self._socket = socket
        self._capacity = capacity
        self._alarms: deque[str] = deque()
        self._statuses: dict[int, str] = {}
        self._pinging = False
        self._waiting = asyncio.Event()
        self._end: asyncio.Future[CloseCode] = asyncio.get_running_loop().create_future()

    @property
    def depth(self) -> int:
        """How many alarm frames wait to be sent."""
        return len(self._alarms)

    def offer_alarm(self, cursor: int, frame: str) -> None:
        """Queue an alarm frame; a full queue ends the stream, for nothing may be left out."""
        if cursor <= self.position or self._end.done():
            return
        if len(self._alarms) >= self._capacity:
            self.end(CloseCode.TOO_SLOW)
            return
        self.position = cursor
        self._alarms.append(frame)
        self._waiting.set()

    def offer_status(self, resident_id: int, frame: str) -> None:
        """Queue the status of a resident in place of one that still waits."""
        self._statuses[resident_id] = frame
        self._waiting.set()

    def ping(self) -> None:
        """Queue a ping, unless one still waits."""
        self._pinging = True
        self._waiting.set()

    def end(self, code: CloseCode) -> None:
        """End the stream; the first reason counts."""
        if not self._end.done():
            self._end.set_result(code)

    async def ended(self) -> None:
        """Wait until somebody ends the stream, then raise Ended."""
        raise Ended(await asyncio.shield(self._end))

    async def send(self, frame: str) -> None:
        """Send one frame; raise Ended when the client does not take it in time."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._socket.send_text(frame)
        except TimeoutError:
            raise Ended(CloseCode.TOO_SLOW) from None

    async def write(self) -> None:
        """Send what is queued for as long as the stream lasts, alarms before anything else."""
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            while (frame := self._next()) is not None:
                await self.send(frame)

    def _next(self) -> str | None:
        if self._alarms:
            return self._alarms.popleft()
        if self._pinging:
            self._pinging = False
            return PING
        if self._statuses:
            return self._statuses.pop(next(iter(self._statuses)))
        return None


async def receive(socket: WebSocket) -> bytes:
    """Return the next text frame; raise Ended for a binary one, WebSocketDisconnect at the end."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    text = message.get("text")
    if text is None:
        raise Ended(CloseCode.MALFORMED)
    return bytes(text, "utf-8", "replace")

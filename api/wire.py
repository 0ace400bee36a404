"""A WebSocket as uvicorn serves it, which also takes frames that are ready to be sent.

A frame of the server is not masked, so the same bytes serve every viewer: an alarm is encoded once,
and reaching one more viewer is one write into its transport, without a coroutine or a queue of its
own. The way in and the handshake stay uvicorn's.
"""

from collections.abc import Callable
from typing import Final

from starlette.websockets import WebSocket
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode

_PLACE: Final = "anxin.wire"


class Wire(WebSocketsSansIOProtocol):
    """The connection of one viewer; `on_room` is called when it takes frames again."""

    on_room: Callable[[], None] | None = None

    @property
    def has_room(self) -> bool:
        """Whether the peer keeps up: what was written has left, or nearly so."""
        return self.writable.is_set()

    async def room(self) -> None:
        """Wait until there is room, or the peer is gone."""
        await self.writable.wait()

    def put(self, frame: bytes) -> None:
        """Send one frame from `text_frame`; a connection that is ending takes nothing more."""
        if not (self.close_sent or self.disconnected or self.transport.is_closing()):
            self.transport.write(frame)

    def resume_writing(self) -> None:
        """Take frames again."""
        super().resume_writing()
        if self.on_room is not None:
            self.on_room()

    async def run_asgi(self) -> None:
        """Serve the connection, letting the application find it in the scope."""
        self.scope["state"][_PLACE] = self
        await super().run_asgi()


def wire_of(socket: WebSocket) -> Wire:
    """Return the connection behind a WebSocket that was accepted."""
    wire: Wire = socket.scope["state"][_PLACE]
    return wire


def text_frame(text: bytes) -> bytes:
    """Return a text as the bytes that carry it from a server, uncompressed."""
    return Frame(Opcode.TEXT, text).serialize(mask=False)

"""A WebSocket as uvicorn serves it, which also takes frames that are ready to be sent.

A frame of the server is not masked, so the same bytes serve every viewer: an alarm is encoded once,
and reaching one more viewer is one write into its socket, without a coroutine or a queue of its
own. The way in and the handshake stay uvicorn's.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from starlette.websockets import WebSocket
from uvicorn.protocols.utils import is_ssl
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode

_PLACE: Final = "anxin.wire"


class Wire(WebSocketsSansIOProtocol):
    """The connection of one viewer; `on_change` is called when `bare` or `has_room` may differ."""

    on_change: Callable[[], None] | None = None
    descriptor: int | None = None
    """Where frames may be written past the transport while it is `bare`; None under TLS."""

    @property
    def has_room(self) -> bool:
        """Whether the peer keeps up: all that was written has left."""
        return self.writable.is_set()

    @property
    def bare(self) -> bool:
        """Whether a whole frame may be written to the descriptor now.

        Nothing waits in the transport, which a frame would cut in two, and no end was said yet.
        """
        return self.descriptor is not None and self.has_room and self._open

    async def room(self) -> None:
        """Wait until there is room, or the peer is gone."""
        await self.writable.wait()

    def put(self, frames: bytes | memoryview) -> None:
        """Send frames from `text_frame`; a connection that is ending takes nothing more."""
        if self._open:
            self.transport.write(frames)

    @property
    def _open(self) -> bool:
        return not (self.close_sent or self.disconnected or self.transport.is_closing())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be told from the first byte on that the transport has to keep."""
        super().connection_made(transport)
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=0)
        if not is_ssl(self.transport):
            self.descriptor = transport.get_extra_info("socket").fileno()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the descriptor up: it is closed next, and then another's."""
        super().connection_lost(exc)
        self.descriptor = None
        self._changed()

    def pause_writing(self) -> None:
        """Take no more frames for now."""
        super().pause_writing()
        self._changed()

    def resume_writing(self) -> None:
        """Take frames again."""
        super().resume_writing()
        self._changed()

    # Nothing may follow a close frame. Those of the application come after its viewer has left.

    def handle_close(self, event: Frame) -> None:
        """The peer says that it leaves."""
        super().handle_close(event)
        self._changed()

    def handle_parser_exception(self) -> None:
        """The peer does not speak WebSocket."""
        super().handle_parser_exception()
        self._changed()

    def keepalive_timeout(self) -> None:
        """The peer has not answered."""
        super().keepalive_timeout()
        self._changed()

    def shutdown(self) -> None:
        """The server ends."""
        super().shutdown()
        self._changed()

    async def run_asgi(self) -> None:
        """Serve the connection, letting the application find it in the scope."""
        self.scope["state"][_PLACE] = self
        await super().run_asgi()

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()


def wire_of(socket: WebSocket) -> Wire:
    """Return the connection behind a WebSocket that was accepted."""
    wire: Wire = socket.scope["state"][_PLACE]
    return wire


def text_frame(text: bytes) -> bytes:
    """Return a text as the bytes that carry it from a server, uncompressed."""
    return Frame(Opcode.TEXT, text).serialize(mask=False)

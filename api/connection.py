"""An HTTP connection as uvicorn serves it, that must say within a while what it wants.

A client that sends its headers a byte at a time, or nothing at all, would hold a connection for as
long as it likes: uvicorn waits for ever, except between two requests. What a body may take is
limited where it is read (api/edge.py).
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.edge import SECURITY

HEAD_S: Final = 10.0
"""So long the line and headers of a request may take."""
MOST_HEAD: Final = 32 * 1024


class Connection(HttpToolsProtocol):
    """One connection, with a limit to the time and size of what comes before a body."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401  # uvicorn's own
        """Prepare."""
        super().__init__(*args, **options)
        self._due: asyncio.TimerHandle | None = None
        self._size = 0
        self._gathered = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Wait for the first request."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; those between requests begin another, or what pretends to be one."""
        if self._due is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()
        super().data_received(data)
        if self._due is not None and not self.transport.is_closing():
            # One header without end is not counted as one: the parser still gathers it.
            self._gathered += len(data)
            if self._gathered > MOST_HEAD:
                self.send_400_response("The head of this request is too large.")

    def on_message_begin(self) -> None:
        """Count the bytes of another head."""
        self._size = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take part of the path."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self._count(len(name) + len(value) + len(": \r\n"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Serve the request: what it still may take is the body's matter."""
        self._expect_nothing()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, or too much of it, as every answer is sent."""
        head = [b"HTTP/1.1 400 Bad Request\r\n"]
        head += [b"%b: %b\r\n" % header for header in SECURITY]
        text = msg.encode("ascii")
        head.append(b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\n")
        head.append(b"content-length: %d\r\n\r\n" % len(text))
        self.transport.write(b"".join([*head, text]))
        self.transport.close()

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > MOST_HEAD:
            # The parser gives up, and the connection is answered 400 and closed.
            raise ValueError("The head of this request is too large.")

    def _expect_head(self) -> None:
        self._gathered = 0
        self._due = self.loop.call_later(HEAD_S, self._give_up)

    def _expect_nothing(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _give_up(self) -> None:
        self._due = None
        if not self.transport.is_closing():
            self.transport.close()

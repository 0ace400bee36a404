"""The people's own telephones: takes every notice over HTTP and writes down who got which."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

from anxin.config import Address

_MOST_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Told:
    """One notice as it arrived at one person."""

    name: str
    alarm_ids: tuple[str, ...]
    key: str
    at: datetime


class Telephones:
    """Answers OK to every POST on `/<person>`; an async context manager."""

    def __init__(self) -> None:
        """Prepare; nothing listens before `async with`."""
        self.told: list[Told] = []
        self.address = Address("127.0.0.1", 0)
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Listen on a free port of loopback."""
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.address = Address("127.0.0.1", self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    await self._take(reader)
                    writer.write(
                        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                        b"content-length: 2\r\n\r\n{}"
                    )
                    await writer.drain()
        finally:
            writer.close()

    async def _take(self, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        name = head[0].split(" ")[1].strip("/")
        headers = {
            word.lower(): value.strip() for word, _, value in (line.partition(":") for line in head)
        }
        length = min(int(headers.get("content-length", "0")), _MOST_BYTES)
        body: dict[str, Any] = json.loads(await reader.readexactly(length))
        self.told.append(
            Told(
                name,
                tuple(str(one) for one in body["alarm_ids"]),
                headers.get("idempotency-key", ""),
                datetime.now(UTC),
            )
        )

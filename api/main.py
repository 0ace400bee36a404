"""`anxin api`: serve the API, the alarm stream and the pages."""

import argparse
import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator

import uvicorn
import uvloop

from anxin.config import Address, Settings
from anxin.errors import AnxinError, PortTaken, SettingError
from anxin.logs import log
from api.app import create_app
from api.connection import Connection
from api.wire import Wire

GRACE_S = 5
GIVE_UP_MS = 30_000
"""A peer that takes nothing for so long is cut off by the system."""

_log = log(__name__)


class PartStopped(AnxinError):
    """The API ends with one of its parts that stopped by a defect; the log says which."""


def run(_args: argparse.Namespace, settings: Settings) -> int:
    """Serve until a signal comes; raise PortTaken, SettingError, PartStopped."""
    if not settings.database:
        raise SettingError("The API needs a database: set ANXIN_DATABASE or give --database.")
    with _listener(Address.parse(settings.http)) as listener:
        uvloop.run(_serve(settings, listener))
    return 0


async def _serve(settings: Settings, listener: socket.socket) -> None:
    app = create_app(settings)
    proxies = settings.trusted_proxies
    server = _Server(
        uvicorn.Config(
            app,
            http=Connection,
            ws=Wire,
            ws_max_size=64 * 1024,
            ws_per_message_deflate=False,  # one frame serves all viewers; each would deflate anew
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(proxies),
            forwarded_allow_ips=proxies or None,
            timeout_graceful_shutdown=GRACE_S,
        )
    )

    async def stop_with_a_part() -> None:
        if app.state.services.stopped():
            server.should_exit = True

    server.config.callback_notify = stop_with_a_part
    server.config.timeout_notify = 1
    _log.info("api_serves", http=settings.http)
    await server.serve(sockets=[listener])
    if server.stopped_by is None:
        raise PartStopped


class _Server(uvicorn.Server):
    """Ends quietly on a signal: uvicorn would raise the signal again when it is done."""

    stopped_by: int | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM as the wish to end; a second one as the wish to end now."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, number)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _stop(self, number: int) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self.stopped_by = number


@contextlib.contextmanager
def _listener(address: Address) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listener = socket.create_server((address.host, address.port), family=family, backlog=2048)
    except OSError as error:
        raise PortTaken(
            f"{address} cannot be listened on: {error.strerror}. "
            "Stop the other program or choose another address with --http."
        ) from error
    with listener:
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GIVE_UP_MS)
        yield listener

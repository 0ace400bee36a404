"""`anxin ingest`: the MQTT front door and the commit pipeline, as one process."""

import argparse
import asyncio
import resource
import signal
from contextlib import AsyncExitStack

import uvloop

from anxin.config import Address, Settings
from anxin.errors import SettingError
from anxin.logs import log
from ingest.listener import Listener
from ingest.metrics import serve_metrics
from ingest.service import IngestService
from ingest.tls import Credentials

_log = log(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything is a setting."""
    parser.description = (
        "Take messages from devices over MQTT, commit them, then acknowledge. "
        "Several may run; set ANXIN_INGEST_SHARE_PORT=true to share one port on one machine."
    )


def run(args: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001  every command's form
    """Serve until told to stop."""
    if not settings.database:
        raise SettingError("Set ANXIN_DATABASE, or run everything with `anxin up`.")
    # A connection is an open file: take all that the system allows.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(serve(settings))
    return 0


async def serve(settings: Settings) -> None:
    """Open the listeners and work until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(IngestService(settings))
        credentials = Credentials(settings) if settings.mqtts else None
        listeners = [
            await stack.enter_async_context(
                Listener(
                    service,
                    Address.parse(address),
                    ssl_context=credentials.context if tls and credentials else None,
                    revoked=credentials.revoked if tls and credentials else None,
                    device_rate=settings.device_rate,
                    device_burst=settings.device_burst,
                    address_rate=settings.address_rate,
                    connect_rate=settings.connect_rate,
                    connect_burst=settings.connect_burst,
                    reuse_port=settings.ingest_share_port,
                )
            )
            for address, tls in _addresses(settings)
        ]
        if settings.ingest_metrics:
            where = Address.parse(settings.ingest_metrics)
            stack.callback(serve_metrics(where, service, listeners))
        _log.info(
            "ingest_ready" if service.ready.is_set() else "ingest_listens",
            ports=[listener.port for listener in listeners],
        )
        keeper: asyncio.Task[None] | None = None
        if credentials is not None:
            keeper = asyncio.create_task(credentials.keep(), name="certificate")
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, credentials.look)
        await stop.wait()
        if keeper is not None:
            keeper.cancel()


def _addresses(settings: Settings) -> list[tuple[str, bool]]:
    """Return where to listen, and whether with TLS."""
    addresses = [
        (text, tls) for text, tls in ((settings.mqtt, False), (settings.mqtts, True)) if text
    ]
    if not addresses:
        raise SettingError("Set ANXIN_MQTT or ANXIN_MQTTS: there is nowhere to listen.")
    return addresses

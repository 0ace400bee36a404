"""TLS for devices: versions, ciphers, whose certificates; and a new one without a restart."""

import asyncio
import ssl
from pathlib import Path
from typing import Final

from anxin.config import Settings
from anxin.errors import SettingError
from anxin.logs import log

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only. TLS 1.3 knows no others."""
LOOK_SECONDS: Final = 10.0
_log = log(__name__)


def server_context(settings: Settings) -> ssl.SSLContext:
    """Return what the TLS listener uses; raise SettingError when a file cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key or None)
    except (OSError, ssl.SSLError) as error:
        raise SettingError(
            f"ANXIN_TLS_CERT and ANXIN_TLS_KEY cannot be used: {error.strerror or error}."
        ) from error
    if settings.tls_client_ca:
        try:
            context.load_verify_locations(settings.tls_client_ca)
        except (OSError, ssl.SSLError) as error:
            raise SettingError(
                f"ANXIN_TLS_CLIENT_CA cannot be used: {error.strerror or error}."
            ) from error
        required = settings.tls_client_required
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    elif settings.tls_client_required:
        raise SettingError("ANXIN_TLS_CLIENT_REQUIRED needs ANXIN_TLS_CLIENT_CA.")
    return context


async def keep_certificate(
    context: ssl.SSLContext, settings: Settings, every_s: float = LOOK_SECONDS
) -> None:
    """Take up the certificate anew whenever its files change; connections go on. Never ends.

    Files that do not fit together, as while they are being replaced, are looked at again.
    """
    taken = _stamp(settings)
    while True:
        await asyncio.sleep(every_s)
        stamp = _stamp(settings)
        if stamp == taken:
            continue
        try:
            # Tried on another context first: the one in use must not be left with half of it.
            server_context(settings)
            context.load_cert_chain(settings.tls_cert, settings.tls_key or None)
        except (SettingError, OSError, ssl.SSLError) as error:
            _log.warning("certificate_not_taken_up", error=str(error))
        else:
            taken = stamp
            _log.info("certificate_taken_up")


def _stamp(settings: Settings) -> list[tuple[int, int]]:
    """Return what changes when a file is written or replaced."""
    stamps = []
    for path in filter(None, (settings.tls_cert, settings.tls_key)):
        try:
            status = Path(path).stat()
        except OSError:
            stamps.append((0, 0))
        else:
            stamps.append((status.st_mtime_ns, status.st_ino))
    return stamps

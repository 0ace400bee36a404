"""TLS for devices: versions, ciphers, whose certificates; and new files without a restart."""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Final

from anxin.certificates import Revocations
from anxin.config import Settings
from anxin.errors import SettingError
from anxin.logs import log

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only. TLS 1.3 knows no others."""
LOOK_SECONDS: Final = 10.0
_log = log(__name__)


class Credentials:
    """What the TLS listener works with; its files are taken up anew when they change.

    Connections go on. Files that cannot be used, as while they are being replaced, are left for
    the next look, and what was there before is in use as long.
    """

    def __init__(self, settings: Settings) -> None:
        """Read every file; raise SettingError when one cannot be used."""
        self._settings = settings
        self._asked = asyncio.Event()
        self._taken = _stamp(settings)
        self._newest = self.context = server_context(settings)
        self._revocations = Revocations.read(settings)
        # A context only ever learns: an authority that is gone takes another one.
        self.context.sni_callback = self._hand_over

    def revoked(self, certificate: bytes) -> bool:
        """Tell whether the authority has taken a certificate (DER) back."""
        return self._revocations.take_back(certificate)

    @property
    def asked(self) -> bool:
        """Whether a look is due."""
        return self._asked.is_set()

    def look(self) -> None:
        """Have the files taken up now."""
        self._asked.set()

    async def keep(self, every_s: float = LOOK_SECONDS) -> None:
        """Look at the files again and again. Never ends."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), every_s)
            if self._asked.is_set() or _stamp(self._settings) != self._taken:
                self._asked.clear()
                self._renew()

    def _renew(self) -> None:
        stamp = _stamp(self._settings)
        try:
            context, revocations = server_context(self._settings), Revocations.read(self._settings)
        except SettingError as error:
            _log.warning("certificate_not_taken_up", error=str(error))
            return
        self._newest, self._revocations, self._taken = context, revocations, stamp
        _log.info("certificate_taken_up", revoked=len(revocations), overdue=revocations.overdue())

    def _hand_over(
        self,
        wrapped: ssl.SSLObject,
        _name: str | None,
        _context: ssl.SSLContext,
    ) -> None:
        """Let a handshake go on with what is newest; it has asked for no certificate yet."""
        wrapped.context = self._newest


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
        # Who resumes a session is not asked for a certificate again. A session of TLS 1.2 by its
        # number cannot be switched off here; what was taken back is looked up for it as well.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    elif settings.tls_client_required:
        raise SettingError("ANXIN_TLS_CLIENT_REQUIRED needs ANXIN_TLS_CLIENT_CA.")
    return context


def _stamp(settings: Settings) -> list[tuple[int, int]]:
    """Return what changes when a file is written or replaced."""
    stamps = []
    files = (
        settings.tls_cert, settings.tls_key, settings.tls_client_ca, settings.tls_client_crl,
    )  # fmt: skip
    for path in filter(None, files):
        try:
            status = Path(path).stat()
        except OSError:
            stamps.append((0, 0))
        else:
            stamps.append((status.st_mtime_ns, status.st_ino))
    return stamps

"""What ingest remembers of devices on disk: enough to let them in while the database is away.

One file beside the spool, whole or not there, readable by its owner only. It holds numbers, ids and
salted hashes of secrets; no names, no places, nothing of residents.
"""

import asyncio
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from anxin.db import registry as cards_of
from anxin.db.pool import Database
from anxin.db.registry import Key
from anxin.device_secret import proof_of
from anxin.logs import log

FILE: Final = "devices.remembered"
MOST_DEVICES: Final = 500_000
"""About 70 MB on disk; a larger house connects the rest once the database is back."""
_VERSION: Final = 2
_log = log(__name__)


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """The file: everything in it was so in the database at `confirmed_at` (epoch seconds)."""

    version: int
    confirmed_at: float
    devices: list[Key]


class Remembered:
    """Credentials of all devices that were not revoked when the database was last heard."""

    def __init__(self, directory: Path, hours: float) -> None:
        """Prepare; nothing is read before `load`. With 0 `hours` nothing is remembered."""
        self._file = directory / FILE
        self._seconds = hours * 3600
        self._devices: dict[str, Key] = {}
        self._behind: dict[int, list[Key]] = {}
        self._confirmed_at = 0.0

    def load(self) -> None:
        """Read what this or another process of this machine kept; a file not ours counts as none.

        Blocks; raise OSError when the file is there and cannot be read.
        """
        if not self._seconds:
            self._file.unlink(missing_ok=True)
            return
        try:
            kept = msgspec.msgpack.decode(self._file.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return
        except msgspec.DecodeError as error:
            _log.warning("remembered_devices_unreadable", error=str(error))
            return
        if kept.version == _VERSION:
            self._take(kept)

    async def renew(self, db: Database) -> None:
        """Read all devices again and keep them; raise DatabaseUnavailable.

        A disk that takes nothing is logged: memory goes on until this process ends.
        """
        if not self._seconds:
            return
        now = time.time()
        devices = await cards_of.keys(db, MOST_DEVICES)
        if len(devices) == MOST_DEVICES:
            _log.warning("not_all_devices_remembered", devices=MOST_DEVICES)
        kept = _Kept(_VERSION, now, devices)
        self._take(kept)
        try:
            await asyncio.to_thread(self._write, msgspec.msgpack.encode(kept))
        except OSError as error:
            _log.warning("devices_not_remembered", error=str(error))

    def recall(
        self, device_id: str, secret: bytes | None, issued_at: datetime | None = None
    ) -> Key | None:
        """Return the device when this opened it, and that is not too long ago."""
        key = self._devices.get(device_id)
        if key is None or not 0 <= self.age_seconds <= self._seconds:
            return None
        return key if proof_of(key, secret, issued_at, datetime.now(UTC)) else None

    def behind(self, gateway_key: int) -> list[Key]:
        """Return the devices that a gateway may speak for."""
        return self._behind.get(gateway_key, [])

    def forget(self, device_id: str) -> None:
        """Forget a device that was revoked or has another secret now."""
        self._devices.pop(device_id, None)

    @property
    def age_seconds(self) -> float:
        """How long ago all this was confirmed by the database."""
        return time.time() - self._confirmed_at

    def __len__(self) -> int:
        """Return how many devices could be let in without the database."""
        return len(self._devices)

    def _take(self, kept: _Kept) -> None:
        self._devices = {one.id: one for one in kept.devices}
        self._behind = {}
        for one in kept.devices:
            if one.gateway_key is not None:
                self._behind.setdefault(one.gateway_key, []).append(one)
        self._confirmed_at = kept.confirmed_at

    def _write(self, content: bytes) -> None:
        # Written beside and put in its place, so that nobody ever reads a part. Made for its
        # owner only.
        number, name = tempfile.mkstemp(prefix=f"{FILE}.", dir=self._file.parent)
        try:
            with os.fdopen(number, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

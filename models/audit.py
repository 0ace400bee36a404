"""The worker's part in the audit: chains what was written, keeps the heads, lets go what is old."""

import asyncio
import time
from typing import Final

from anxin.audit_files import keep_head, last_head, signer
from anxin.config import Settings
from anxin.db.audit import Chainer
from anxin.db.pool import Database
from anxin.logs import log

HEAD_SECONDS: Final = 60.0
"""So often the head goes into a file and into the log; what is cut off after it is not proven."""
_log = log(__name__)


class AuditKeeper:
    """One worker's hold on the chain."""

    def __init__(self, database: Database, settings: Settings) -> None:
        """The key is read, or made, when there is something to do."""
        self._database = database
        self._settings = settings
        self._chainer: Chainer | None = None
        self._kept_place = 0
        self._kept_at = float("-inf")

    async def tick(self) -> None:
        """Chain what waits, and keep the head; raise ChainBroken, which is not to be got over."""
        chainer = await self._ready()
        sealed = await chainer.chain(self._database)
        if sealed is None or sealed.place == self._kept_place:
            return
        if time.monotonic() - self._kept_at < HEAD_SECONDS:
            return
        await asyncio.to_thread(keep_head, self._settings, sealed)
        self._kept_place, self._kept_at = sealed.place, time.monotonic()
        # A log that is shipped elsewhere is one more witness.
        _log.info("audit_head", place=sealed.place, hash=sealed.hash.hex(), seal=sealed.seal.hex())

    async def forget(self) -> int:
        """Remove what is older than ANXIN_AUDIT_DAYS; return how many entries went."""
        chainer = await self._ready()
        return await chainer.forget(self._database, days=self._settings.audit_days)

    async def _ready(self) -> Chainer:
        if self._chainer is None:
            known = await asyncio.to_thread(last_head, self._settings)
            sealing = await asyncio.to_thread(signer, self._settings)
            self._chainer = Chainer(sealing, known)
            self._kept_place = known.place if known else 0
        return self._chainer

"""The worker's part in the audit: chains what was written, keeps the heads, lets go what is old.

It also goes through the chain all the time: a broken one is an alarm.
"""

import asyncio
import time
from contextlib import suppress
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from anxin.audit import Fault, Signer
from anxin.audit_files import heads_path, keep_head, last_head, signer
from anxin.config import Settings
from anxin.db.audit import ChainBroken, Chainer, Patrol, tell_broken, tell_whole
from anxin.db.pool import Database
from anxin.logs import log

HEAD_SECONDS: Final = 60.0
"""So often the head goes into a file and into the log; what is cut off after it is not proven."""
_log = log(__name__)


class Metrics:
    """What Prometheus reads of the audit."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register on the worker's registry."""
        self.broken = Gauge(
            "anxin_audit_broken", "1: the audit was changed or cut", registry=registry
        )
        self.verified = Gauge(
            "anxin_audit_verified_time", "when the whole chain was last found good",
            registry=registry,
        )  # fmt: skip


class AuditKeeper:
    """One worker's hold on the chain."""

    def __init__(
        self, database: Database, settings: Settings, metrics: Metrics | None = None
    ) -> None:
        """The key is read, or made, when there is something to do."""
        self._database = database
        self._settings = settings
        self._metrics = metrics or Metrics(CollectorRegistry())
        self._signer: Signer | None = None
        self._chainer: Chainer | None = None
        self._patrol: Patrol | None = None
        self._heads: int | None = None
        self._kept_place = 0
        self._kept_at = float("-inf")
        self._end_is_good = False
        self._fault: Fault | None = None

    async def tick(self) -> None:
        """Chain what waits, and keep the head; raise ChainBroken, which is not to be got over."""
        chainer = await self._ready()
        try:
            sealed = await chainer.chain(self._database)
        except ChainBroken:
            self._end_is_good = False
            await self._broken(chainer)
            raise
        self._end_is_good = True
        if sealed is None or sealed.place == self._kept_place:
            return
        if time.monotonic() - self._kept_at < HEAD_SECONDS:
            return
        await asyncio.to_thread(keep_head, self._settings, sealed)
        self._heads = _file(self._settings)
        self._kept_place, self._kept_at = sealed.place, time.monotonic()
        # A log that is shipped elsewhere is one more witness.
        _log.info("audit_head", place=sealed.place, hash=sealed.hash.hex(), seal=sealed.seal.hex())

    async def verify(self) -> None:
        """Check the next piece of the chain; raise ChainBroken."""
        chainer = await self._ready()
        if self._patrol is None:
            self._patrol = Patrol(await self._sealing())
        found = await self._patrol.go_on(self._database, chainer.known)
        if isinstance(found, Fault):
            self._fault = found
            await self._broken(chainer)
            raise ChainBroken(f"The audit: {found.en}. Run `anxin audit verify`.")
        if found:
            self._fault = None
            self._metrics.verified.set_to_current_time()
            if self._end_is_good:
                self._metrics.broken.set(0)
                await tell_whole(self._database)

    async def forget(self) -> int:
        """Remove what is older than ANXIN_AUDIT_DAYS; return how many entries went."""
        chainer = await self._ready()
        return await chainer.forget(self._database, days=self._settings.audit_days)

    async def _broken(self, chainer: Chainer) -> None:
        self._metrics.broken.set(1)
        # What only we know stays known, also when somebody starts us anew.
        if chainer.known is not None and chainer.known.place > self._kept_place:
            await asyncio.to_thread(keep_head, self._settings, chainer.known)
            self._heads, self._kept_place = _file(self._settings), chainer.known.place
        await tell_broken(self._database, self._fault)

    async def _ready(self) -> Chainer:
        # Heads that were put aside, after a restore, are not waited for any longer.
        if self._chainer is None or self._heads != _file(self._settings):
            self._heads = _file(self._settings)
            known = await asyncio.to_thread(last_head, self._settings)
            self._chainer = Chainer(await self._sealing(), known)
            self._patrol = None
            self._kept_place = known.place if known else 0
        return self._chainer

    async def _sealing(self) -> Signer:
        if self._signer is None:
            self._signer = await asyncio.to_thread(signer, self._settings)
        return self._signer


def _file(settings: Settings) -> int | None:
    """Return what tells whether another file of heads was put in the place of ours."""
    with suppress(OSError):
        return heads_path(settings).stat().st_ino
    return None

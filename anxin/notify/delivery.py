"""The delivery worker: takes what is due, sends it, and sees to it that somebody was reached.

Several may run; each delivery is in the hands of one. A worker that dies between sending and
noting it leaves a claim without a living holder: another sends that notice again at once, with the
same key. So a notice is sent at least once, and after a crash at most once more.
"""

import asyncio
import random
import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self
from zoneinfo import ZoneInfo

from prometheus_client import CollectorRegistry, Counter, Histogram

from anxin.config import Settings
from anxin.db import contacts, deliveries
from anxin.db.deliveries import Letter
from anxin.db.pool import Connection, Database, connect
from anxin.errors import DatabaseUnavailable
from anxin.logs import log
from anxin.notify.channel import Channel, Contact, DeliveryError, Sent
from anxin.notify.channels import open_channels
from anxin.notify.notice import Notice, build_notice, summarise

MOST_URGENT: Final = 64
MOST_CALM: Final = 24
"""Messages that leave at once; what is urgent never waits for what is not."""
MOST_GATHERED: Final = 200
"""Calm deliveries taken at a time: the more are seen together, the fewer messages they need."""
SEND_SECONDS: Final = 10.0
MOST_ATTEMPTS: Final = 8
FIRST_REST_SECONDS: Final = 2.0
LONGEST_REST_SECONDS: Final = 60.0
SUMMARY_FROM: Final = 3
"""So many calm notices for one robot at once become one message."""
SPARE_FOR_URGENT: Final = 5
"""So many messages of a robot's minute are left to what may not wait."""
GATHER_SECONDS: Final = 5.0
LEAVE_SECONDS: Final = 5.0
"""How long what is being sent may take when the worker is told to stop."""

_log = log(__name__)


class Metrics:
    """What Prometheus reads of delivery."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register beside the worker's other metrics."""
        self.outcomes = Counter(
            "anxin_deliveries", "attempts to deliver", ["channel", "outcome"], registry=registry
        )
        self.seconds = Histogram(
            "anxin_delivery_seconds", "from a delivery being written to its being sent",
            buckets=(0.1, 0.5, 1, 2, 5, 10, 20, 60, 300), registry=registry,
        )  # fmt: skip


class Delivery:
    """Sends what is due: an async context manager with a `tick` to call every half second."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        metrics: Metrics,
        *,
        channels: Mapping[str, Channel] | None = None,
        dice: random.Random | None = None,
    ) -> None:
        """`channels` replaces those of the settings."""
        self._database = database
        self._settings = settings
        self._metrics = metrics
        self._zone = ZoneInfo(settings.timezone)
        self._channels = channels
        self._dice = dice or random.Random()  # noqa: S311  spreads load, guards nothing
        self._stack = AsyncExitStack()
        self._worker = 0
        self._sign: Connection | None = None
        self._hands: dict[asyncio.Task[None], Sequence[Letter]] = {}
        self._calm = asyncio.Semaphore(MOST_CALM)
        self._more = False
        self.room = asyncio.Event()
        """Set when a hand is free again and more is due than could be taken: tick at once."""

    async def __aenter__(self) -> Self:
        """Open the channels."""
        if self._channels is None:
            self._channels = await self._stack.enter_async_context(open_channels(self._settings))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let what is being sent come to its end, for a while; others go on with the rest."""
        if self._hands:
            _, late = await asyncio.wait(self._hands, timeout=LEAVE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._sign is not None:
            await self._sign.close()
        await self._stack.aclose()

    async def tick(self) -> int:
        """Take what is due and begin to send it; return how many. Raise DatabaseUnavailable."""
        self._look_at_hands()
        await self._show_life()
        shown = await deliveries.show_on_screens(self._database)
        self._metrics.outcomes.labels("station", "sent").inc(shown)
        await deliveries.bridge_receipts(self._database)
        await deliveries.try_next_ways(self._database)
        await deliveries.cancel_unwanted(self._database)
        local = datetime.now(self._zone).time()
        taken = shown
        self._more = False
        for urgent, most in ((True, MOST_URGENT), (False, MOST_CALM)):
            in_hand = sum(letters[0].urgent is urgent for letters in self._hands.values())
            if in_hand >= most:
                self._more |= urgent
                continue
            limit = most - in_hand if urgent else MOST_GATHERED
            letters = await deliveries.claim(
                self._database,
                self._worker,
                busy=[letter.id for hand in self._hands.values() for letter in hand],
                urgent=urgent,
                limit=limit,
                local=local,
            )
            self._more |= urgent and len(letters) == limit
            for together in self._shaped(letters):
                task = asyncio.create_task(
                    self._deliver(together), name=f"deliver-{together[0].id}"
                )
                self._hands[task] = together
            taken += len(letters)
        return taken

    async def idle(self) -> None:
        """Wait until nothing is in hand any more."""
        while self._hands:
            await asyncio.wait(self._hands)
            self._look_at_hands()

    def _look_at_hands(self) -> None:
        """Forget what has ended; what failed by a defect of ours ends the worker, as it must."""
        for task in [one for one in self._hands if one.done()]:
            del self._hands[task]
            task.result()

    async def _show_life(self) -> None:
        """Hold the lock that says whose claims ours are; without it others take them over."""
        try:
            if self._sign is not None and await deliveries.hold(self._sign, self._worker):
                return
        except DatabaseUnavailable:
            _log.warning("delivery_lost_its_lock")
        if self._sign is not None:
            await self._sign.close()
        self._sign = await connect(
            self._database.dsn, autocommit=True, application="anxin delivery"
        )
        self._worker = secrets.randbelow(2**31 - 1) + 1
        while not await deliveries.hold(self._sign, self._worker):
            self._worker = secrets.randbelow(2**31 - 1) + 1

    def _channel(self, name: str) -> Channel | None:
        return (self._channels or {}).get(name)

    def _shaped(self, letters: Sequence[Letter]) -> list[list[Letter]]:
        """Put calm letters to one robot together; an urgent one always goes alone."""
        alone: list[list[Letter]] = []
        robots: dict[int, list[Letter]] = defaultdict(list)
        for letter in letters:
            channel = self._channel(letter.channel)
            bounded = channel is not None and channel.most_per_minute is not None
            if bounded and not letter.urgent and letter.contact_id is not None:
                robots[letter.contact_id].append(letter)
            else:
                alone.append([letter])
        for calm in robots.values():
            alone += [calm] if len(calm) >= SUMMARY_FROM else [[one] for one in calm]
        return alone

    async def _deliver(self, letters: Sequence[Letter]) -> None:
        """Send one message that carries these letters, in its turn."""
        if letters[0].urgent:
            try:
                await self._try(letters)
            finally:
                if self._more:
                    self.room.set()
        else:
            async with self._calm:
                await self._try(letters)

    async def _try(self, letters: Sequence[Letter]) -> None:
        """Send if it is still due, and note what came of it."""
        first = letters[0]
        channel = self._channel(first.channel)
        contact = Contact(first.address or "", first.secret or "")
        if channel is None:
            fault: str | None = f"There is no channel {first.channel!r}."
        elif channel.name == "station":
            fault = None
        elif not first.usable:
            fault = "There is no such contact, or it is switched off."
        else:
            fault = channel.fault(contact)
        try:
            if channel is None or fault:
                await self._note_failure(
                    letters, DeliveryError(fault or "", permanent=True), blame=first.usable
                )
                return
            if await self._must_wait(channel, letters):
                await deliveries.put_off(
                    self._database, [one.id for one in letters], GATHER_SECONDS
                )
                return
            due = await deliveries.still_due(
                self._database, self._worker, [one.id for one in letters]
            )
            letters = [letter for letter in letters if letter.id in due]
            if letters:
                await self._send(channel, letters, contact)
        except DatabaseUnavailable:
            # Nothing was sent yet, or its outcome is noted below until it is stored: the claim
            # runs out and the delivery is taken again.
            _log.warning("delivery_waits_for_database", deliveries=len(letters))

    async def _must_wait(self, channel: Channel, letters: Sequence[Letter]) -> bool:
        """Tell whether a robot has said so much this minute that the calm must gather."""
        first = letters[0]
        if channel.most_per_minute is None or first.urgent or first.contact_id is None:
            return False
        said = await deliveries.messages_in_a_minute(self._database, first.contact_id)
        return said >= channel.most_per_minute - SPARE_FOR_URGENT

    async def _send(self, channel: Channel, letters: Sequence[Letter], contact: Contact) -> None:
        first = letters[0]
        try:
            async with asyncio.timeout(SEND_SECONDS):
                sent = await channel.send(self._notice(letters), contact, key=first.key)
        except TimeoutError:
            await self._note_failure(letters, DeliveryError("No answer in time.", permanent=False))
        except DeliveryError as error:
            await self._note_failure(letters, error)
        except Exception:  # noqa: BLE001  one provider's surprise must not silence the others
            _log.exception("channel_defect", channel=channel.name, delivery=first.id)
            await self._note_failure(
                letters, DeliveryError("The channel has a defect; see the log.", permanent=False)
            )
        else:
            await self._note_success(channel, letters, sent)

    def _notice(self, letters: Sequence[Letter]) -> Notice:
        notices = [
            build_notice(
                letter,
                zone=self._zone,
                full_names=self._settings.notice_full_names,
                public_url=self._settings.public_url,
            )
            for letter in letters
        ]
        if len(notices) == 1:
            return notices[0]
        return summarise(notices, public_url=self._settings.public_url)

    async def _note_success(self, channel: Channel, letters: Sequence[Letter], sent: Sent) -> None:
        """Store that it went out; for as long as the database is away this is tried again."""
        contact_id = letters[0].contact_id
        tells = bool(channel.receipts - {"sent"})
        now = datetime.now(UTC)
        while True:
            try:
                await deliveries.note_sent(
                    self._database,
                    [letter.id for letter in letters],
                    provider_id=sent.provider_id,
                    tells=tells,
                    now=now,
                )
                if contact_id is not None:
                    await contacts.note_worked(self._database, contact_id)
            except DatabaseUnavailable:
                await asyncio.sleep(0.5)
            else:
                break
        self._metrics.outcomes.labels(channel.name, "sent").inc(len(letters))
        for letter in letters:
            self._metrics.seconds.observe(max((now - letter.created_at).total_seconds(), 0.0))
        _log.info("delivered", channel=channel.name, deliveries=[one.id for one in letters])

    async def _note_failure(
        self, letters: Sequence[Letter], error: DeliveryError, *, blame: bool = True
    ) -> None:
        """Store why not, and when again; `blame` counts it against the contact."""
        first = letters[0]
        ends = error.permanent or first.attempts >= MOST_ATTEMPTS
        await deliveries.note_failed(
            self._database,
            [letter.id for letter in letters],
            str(error),
            permanent=ends,
            rest_seconds=self._rest(first.attempts, error.retry_after_seconds),
        )
        if blame and first.contact_id is not None:
            await contacts.note_broke(self._database, first.contact_id, str(error))
        if ends:
            await deliveries.try_next_ways(self._database)
        outcome = "failed" if ends else "again"
        self._metrics.outcomes.labels(first.channel, outcome).inc(len(letters))
        _log.warning(
            "not_delivered",
            channel=first.channel,
            deliveries=[one.id for one in letters],
            attempt=first.attempts,
            ended=ends,
            error=str(error),
        )

    def _rest(self, attempts: int, asked_seconds: float | None) -> float:
        """Return the seconds until the next attempt: doubled each time, spread by a quarter."""
        rest = min(FIRST_REST_SECONDS * 2.0 ** (attempts - 1), LONGEST_REST_SECONDS)
        return max(rest, asked_seconds or 0.0) * self._dice.uniform(1.0, 1.25)

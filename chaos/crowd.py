"""Every device of a run: the steady ones, and the buttons that are pressed once or twice."""

import asyncio
import random
import time
from collections.abc import Sequence

from bench.population import Enrolled
from chaos.ledger import Ledger
from chaos.publisher import Publisher, readings, sos

TICK_SECONDS = 0.02
_TEN_YEARS_MS = 3653 * 86_400_000


class Crowd:
    """Publishers under one clock; what they send is written down in one ledger."""

    def __init__(
        self,
        steady: Sequence[Enrolled],
        buttons: Sequence[Enrolled],
        address: tuple[str, int],
        ledger: Ledger,
        tasks: asyncio.TaskGroup,
        dice: random.Random,
    ) -> None:
        """Connect the steady devices; the buttons connect when they are pressed."""
        self.ledger = ledger
        self._address = address
        self._tasks = tasks
        self._dice = dice
        self._buttons = list(buttons)
        self._last_ms: dict[str, int] = {}
        self._steady = [self._start(device) for device in steady]
        self._all = list(self._steady)

    @property
    def pending(self) -> int:
        """How many messages of all devices are not acknowledged yet."""
        return sum(publisher.pending for publisher in self._all)

    @property
    def sent_again(self) -> int:
        """How many messages were sent again because a connection broke."""
        return sum(publisher.sent_again for publisher in self._all)

    async def publish(self, rate: float) -> None:
        """Offer `rate` messages a second, evenly over the steady devices, until cancelled."""
        began = time.monotonic()
        offered = 0
        while True:
            due = int((time.monotonic() - began) * rate)
            while offered < due:
                self._offer(self._steady[offered % len(self._steady)], offered)
                offered += 1
            await asyncio.sleep(TICK_SECONDS)

    async def press_now_and_then(self, every_seconds: float) -> None:
        """Press a fresh button again and again, until cancelled."""
        while True:
            self.press()
            await asyncio.sleep(self._dice.uniform(0.5, 1.5) * every_seconds)

    async def misdate(self, devices: Sequence[Enrolled], every_seconds: float) -> None:
        """Let devices report with clocks ten years off, one press each, until cancelled.

        A clock also jumps while its device is connected: every second report is in time.
        """
        publishers = [self._start(device) for device in devices]
        self._all += publishers
        number = 0
        while True:
            for place, publisher in enumerate(publishers):
                off_ms = (1 if place % 2 else -1) * _TEN_YEARS_MS
                now_ms = time.time_ns() // 1_000_000 + (off_ms if number % 2 == 0 else 0)
                publisher.offer(readings(publisher.device, [now_ms]))
                if number == 0:
                    publisher.offer(sos(publisher.device, "sos-0", now_ms))
            number += 1
            await asyncio.sleep(every_seconds)

    def press(self) -> None:
        """A resident calls for help: once or twice, and sometimes the device repeats itself."""
        if not self._buttons:
            return
        button = self._buttons.pop()
        publisher = self._start(button)
        self._all.append(publisher)
        now_ms = time.time_ns() // 1_000_000
        for number in range(self._dice.choice((1, 1, 2))):
            publisher.offer(sos(button.id, f"sos-{number}", now_ms + number))
        if self._dice.random() < 0.2:
            publisher.offer(sos(button.id, "sos-0", now_ms, again=True))
        publisher.close()

    def close(self) -> None:
        """Let every device end once it has nothing left to send."""
        for publisher in self._all:
            publisher.close()

    def _start(self, device: Enrolled) -> Publisher:
        publisher = Publisher(device.id, device.secret, self._address, self.ledger)
        self._tasks.create_task(publisher.run(), name=device.id)
        return publisher

    def _offer(self, publisher: Publisher, number: int) -> None:
        """A reading of this moment; now and then an array, or one that was sent before."""
        device = publisher.device
        last_ms = self._last_ms.get(device, 0)
        if last_ms and self._dice.random() < 0.01:
            publisher.offer(readings(device, [last_ms], again=True))
            return
        start_ms = max(last_ms + 1, time.time_ns() // 1_000_000)
        count = 5 if number % 20 == 0 else 1
        times_ms = range(start_ms, start_ms + count)
        publisher.offer(readings(device, times_ms))
        self._last_ms[device] = times_ms[-1]

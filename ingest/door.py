"""What the door allows one address and one stranger: new connections, and failed log-ins.

Whoever shows a right secret is never slowed by what others behind the same address do, as long as
ingest knows the device; it is the asking and the answering of strangers that is slowed.
"""

from typing import Final

from anxin.bucket import Buckets

FREE_FAILURES: Final = 3
"""So often a device may fail from one address before its next log-in there waits."""
FAILURES_PER_DEVICE_S: Final = 1 / 10
FREE_FAILURES_OF_ADDRESS: Final = 100
FAILURES_PER_ADDRESS_S: Final = 5.0
LONGEST_WAIT_S: Final = 30.0
MOST_WAITING: Final = 1_000
"""Log-ins that wait at a time, in all; those beyond are refused at once."""
MOST_WAITING_PER_ADDRESS: Final = 50


class Door:
    """Counts per address; `now` is always seconds of one steady clock."""

    def __init__(self, connect_rate: float = 0, connect_burst: float = 1) -> None:
        """Prepare; `connect_rate` in new connections/s from one address, 0 means no limit."""
        self._connects = Buckets(connect_rate, connect_burst)
        self._of_address = Buckets(FAILURES_PER_ADDRESS_S, FREE_FAILURES_OF_ADDRESS)
        self._of_device = Buckets(FAILURES_PER_DEVICE_S, FREE_FAILURES)
        self._waiting: dict[str, int] = {}
        self.waiting = 0
        """Log-ins that wait now."""

    def lets_connect(self, address: str, now: float) -> bool:
        """Take note of a new connection; False when there are too many from there."""
        return self._connects.allows(address, now)

    def failed(self, address: str, device_id: str, now: float) -> None:
        """Take note of a failed log-in."""
        self._of_address.take(address, now)
        self._of_device.take((address, device_id), now)

    def succeeded(self, address: str, device_id: str) -> None:
        """Forget the failures of a device that has shown its secret from there."""
        self._of_device.forget((address, device_id))

    def wait_s(self, address: str, device_id: str, now: float) -> float:
        """Return how long a log-in has to wait before anybody is asked about it."""
        of_address = self._of_address.take(address, now, 0)
        return min(
            max(of_address, self._of_device.take((address, device_id), now, 0)), LONGEST_WAIT_S
        )

    def begin_wait(self, address: str) -> bool:
        """Take a place among those who wait; False when there is none."""
        here = self._waiting.get(address, 0)
        if self.waiting >= MOST_WAITING or here >= MOST_WAITING_PER_ADDRESS:
            return False
        self._waiting[address] = here + 1
        self.waiting += 1
        return True

    def end_wait(self, address: str) -> None:
        """Give the place back."""
        self.waiting -= 1
        here = self._waiting.pop(address) - 1
        if here:
            self._waiting[address] = here

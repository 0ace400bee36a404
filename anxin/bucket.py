"""How much of something one party may have: so much for long, and more for a moment."""


class Bucket:
    """A token bucket that goes into debt: it says how long to wait, it never says no."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """Start full; `rate` in tokens/s, `now` in seconds of any steady clock."""
        self._rate, self._burst = rate, burst
        self._tokens, self._at = burst, now

    def take(self, count: int, now: float) -> float:
        """Take `count` tokens and return the seconds until the bucket is out of debt.

        With 0 nothing is taken: how long somebody would have to wait now.
        """
        filled = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._tokens, self._at = filled - count, now
        return max(0.0, -self._tokens / self._rate)


class Buckets:
    """A bucket for each of many parties; those unused for longest are forgotten, as if full."""

    def __init__(self, rate: float, burst: float, *, most: int = 50_000) -> None:
        """Prepare; a `rate` of 0 means no limit."""
        self._rate, self._burst, self._most = rate, max(1.0, burst), most
        self._buckets: dict[object, Bucket] = {}

    def of(self, party: object, now: float) -> Bucket | None:
        """Return the bucket of one party, None when there is no limit."""
        if not self._rate:
            return None
        bucket = self._buckets.pop(party, None) or Bucket(self._rate, self._burst, now)
        self._buckets[party] = bucket  # at the end: the front is the one unused for longest
        if len(self._buckets) > self._most:
            del self._buckets[next(iter(self._buckets))]
        return bucket

    def take(self, party: object, now: float, count: int = 1) -> float:
        """Take from the bucket of one party; return the seconds until it is out of debt."""
        bucket = self.of(party, now)
        return bucket.take(count, now) if bucket else 0.0

    def allows(self, party: object, now: float) -> bool:
        """Take one, unless the party is in debt: what is refused costs it nothing."""
        bucket = self.of(party, now)
        if bucket is None:
            return True
        if bucket.take(0, now):
            return False
        bucket.take(1, now)
        return True

    def forget(self, party: object) -> None:
        """Start afresh with one party."""
        self._buckets.pop(party, None)

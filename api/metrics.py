"""What Prometheus reads of one API process; labels are routes, never ids."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_LAG = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 5, 30)


class Metrics:
    """The instruments of one process."""

    def __init__(self) -> None:
        """Make them in a registry of their own."""
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "anxin_http_requests", "Requests answered.", ["method", "route", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.latency_s = Histogram(
            "anxin_http_seconds", "Time to answer.", ["route"], buckets=_LATENCY,
            registry=self.registry,
        )  # fmt: skip
        self.viewers = Gauge("anxin_stream_viewers", "Open alarm streams.", registry=self.registry)
        self.queue_depth = Gauge(
            "anxin_stream_queue_depth", "Alarm frames waiting in the fullest queue of a viewer.",
            registry=self.registry,
        )  # fmt: skip
        self.lag_s = Histogram(
            "anxin_stream_lag_seconds", "From an alarm's change to its frames being queued.",
            buckets=_LAG, registry=self.registry,
        )  # fmt: skip
        self.writing_s = Counter(
            "anxin_stream_write_seconds", "Processor time spent on writing alarms to viewers.",
            registry=self.registry,
        )  # fmt: skip
        self.closed = Counter(
            "anxin_stream_closed", "Streams closed by the server.", ["code"],
            registry=self.registry,
        )  # fmt: skip
        self.receipts = Counter(
            "anxin_stream_receipts", "Receipts that viewers sent.", registry=self.registry
        )
        self.open_alarms = Gauge(
            "anxin_alarms_open", "Alarms that are not closed.", ["priority"],
            registry=self.registry,
        )  # fmt: skip

    def text(self) -> bytes:
        """Return everything in the format of Prometheus."""
        return generate_latest(self.registry)

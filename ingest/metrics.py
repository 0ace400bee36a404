"""What Prometheus reads of an ingest process: counts, never contents."""

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ingest.listener import Listener
from ingest.service import IngestService


class IngestCollector(Collector):
    """Reads the plain counters of the service at the moment of a scrape."""

    def __init__(self, service: IngestService, listeners: Sequence[Listener]) -> None:
        """Remember whom to ask."""
        self._service = service
        self._listeners = listeners

    @classmethod
    def registry(cls, service: IngestService, listeners: Sequence[Listener]) -> CollectorRegistry:
        """Return a registry that holds this collector alone."""
        registry = CollectorRegistry()
        registry.register(cls(service, listeners))
        return registry

    def collect(self) -> Iterable[Metric]:
        """Return the figures of now."""
        counters = self._service.pipeline.counters
        for name in counters.__slots__:
            yield _count(f"anxin_ingest_{name}", getattr(counters, name))
        yield GaugeMetricFamily(
            "anxin_ingest_queued_bytes", "taken from devices and not yet committed",
            value=self._service.pipeline.queued_bytes,
        )  # fmt: skip
        yield GaugeMetricFamily(
            "anxin_ingest_spool_bytes", "disk in use by what waits for the database",
            value=self._service.pipeline.spool_bytes,
        )  # fmt: skip
        yield GaugeMetricFamily(
            "anxin_ingest_spool_full", "1 while nothing is acknowledged for want of disk",
            value=self._service.pipeline.spool_full,
        )  # fmt: skip
        yield GaugeMetricFamily(
            "anxin_mqtt_connections", "devices connected now",
            value=sum(one.connections for one in self._listeners),
        )  # fmt: skip
        yield _count("anxin_mqtt_packets", sum(one.packets for one in self._listeners))
        for name in ("refused", "protocol_errors"):
            family = CounterMetricFamily(f"anxin_mqtt_{name}", "by reason", labels=["reason"])
            for listener in self._listeners:
                for reason, count in getattr(listener, name).items():
                    family.add_metric([reason], count)
            yield family


def _count(name: str, value: int) -> CounterMetricFamily:
    return CounterMetricFamily(name, name.removeprefix("anxin_").replace("_", " "), value=value)

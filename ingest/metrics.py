"""What Prometheus reads of an ingest process: counts, never contents."""

import threading
from collections.abc import Callable, Iterable, Sequence
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from anxin.config import Address
from ingest.listener import Listener
from ingest.service import IngestService


def serve_metrics(
    where: Address, service: IngestService, listeners: Sequence[Listener]
) -> Callable[[], None]:
    """Answer `/metrics`, `/healthz` and `/readyz` in threads; return what ends that."""
    metrics = make_wsgi_app(IngestCollector.registry(service, listeners))

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] not in {"/healthz", "/readyz"}:
            return metrics(environ, start)  # type: ignore[no-any-return]  # untyped there
        said = service.health if environ["PATH_INFO"] == "/readyz" else "ok"
        status = "503 Service Unavailable" if said.startswith("not ") else "200 OK"
        start(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{said}\n".encode()]

    server = make_server(where.host, where.port, answer, _Server, _Silent)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()

    def end() -> None:
        server.shutdown()
        server.server_close()

    return end


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401  its signature
        """A scrape is no news."""


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
            "anxin_ingest_ready", "0 while the database has not answered since the start",
            value=self._service.ready.is_set(),
        )  # fmt: skip
        remembered = self._service.remembered
        if remembered is not None:
            yield GaugeMetricFamily(
                "anxin_ingest_remembered_devices", "can be let in without the database",
                value=len(remembered),
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

"""What is counted. Label values are bounded: a repository or a digest is never a label."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from mirror import __version__

# From a hit in memory to a layer over a slow line, in seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Metrics:
    """All metrics of one mirror, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        Gauge("registry_mirror_info", "Always 1.", ["version"], registry=registry).labels(__version__).set(1)
        self.requests = Counter(
            "registry_mirror_requests_total",
            "Requests answered, by kind of content and outcome (hit, join, miss, stale, error).",
            ["kind", "outcome"],
            registry=registry,
        )
        self.client_bytes = Counter(
            "registry_mirror_client_bytes_total", "Body bytes sent to clients.", ["kind"], registry=registry
        )
        self.upstream_bytes = Counter(
            "registry_mirror_upstream_bytes_total",
            "Body bytes received from upstreams.",
            ["upstream"],
            registry=registry,
        )
        self.upstream_requests = Counter(
            "registry_mirror_upstream_requests_total",
            "Requests to upstreams, by status or by what went wrong instead of one.",
            ["upstream", "status"],
            registry=registry,
        )
        self.fills_running = Gauge(
            "registry_mirror_fills_running", "Blobs being downloaded now.", registry=registry
        )
        self.fill_failures = Counter(
            "registry_mirror_fill_failures_total",
            "Downloads that failed, by reason.",
            ["reason"],
            registry=registry,
        )
        self.source_up = self._of_source("up", "1 while the source is used, 0 while it is left alone.")
        self.source_latency = self._of_source("latency_seconds", "To the first byte, averaged.")
        self.source_speed = self._of_source("bytes_per_second", "Of one connection, averaged.")
        self.source_connections = self._of_source("connections", "Connections that bring blobs now.")
        self.source_lies = Counter(
            "registry_mirror_source_wrong_bytes_total",
            "Downloads that did not match their digest because of what the source sent.",
            ["upstream", "source"],
            registry=registry,
        )
        self.first_byte_seconds = self._seconds("first_byte", "From a request to the head of its answer.")
        self.request_seconds = self._seconds("request", "From a request to the end of its answer.")
        self.cache_bytes = Gauge("registry_mirror_cache_bytes", "Bytes of blobs cached.", registry=registry)
        self.cache_entries = Gauge("registry_mirror_cache_entries", "Blobs cached.", registry=registry)

    def render(self) -> tuple[bytes, str]:
        """Body and Content-Type for a Prometheus scrape."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def _of_source(self, name: str, documentation: str) -> Gauge:
        return Gauge(
            f"registry_mirror_source_{name}", documentation, ["upstream", "source"], registry=self._registry
        )

    def _seconds(self, name: str, documentation: str) -> Histogram:
        return Histogram(
            f"registry_mirror_{name}_seconds",
            documentation,
            ["kind", "outcome"],
            buckets=BUCKETS,
            registry=self._registry,
        )

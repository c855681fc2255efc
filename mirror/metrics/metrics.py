"""Prometheus metrics. Label values are bounded: a repository or a digest is never a label."""

import time
from collections.abc import Callable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Metric,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from mirror import __version__
from mirror.metrics.families import REQUEST_ID, Family
from mirror.metrics.request_stats import Latency, RequestStatsTable

LABELS = ("kind", "outcome")
SOURCE = ("upstream", "source")
ACCOUNT = ("upstream", "account")


class Metrics:
    """All metrics of one mirror, in a registry of its own. `lines_dropped`: lines that its log has lost."""

    def __init__(self, lines_dropped: Callable[[], int] = lambda: 0) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._gauge("info", "Version of this mirror; the value is always 1.", "version").labels(
            __version__
        ).set(1)
        self.requests = RequestStatsTable()
        registry.register(RequestCollector(self.requests))
        self._add_line_metrics(lines_dropped)
        self._refused_connections = self._counter(
            "refused_connections_total",
            "Connections closed before their first request, by reason (certificate, proxy).",
            "reason",
        )
        self._add_upstream_metrics()
        self.fills_running = self._gauge("fills_running", "Blobs that are being downloaded now.")
        self.fill_failures = self._counter(
            "fill_failures_total", "Downloads that failed, by reason.", "reason"
        )
        self.pushed_bytes = self._counter(
            "pushed_bytes_total", "Bytes of uploads that clients sent to hosted registries."
        )
        self.passed_through = self._counter(
            "passed_through_total",
            "Transfers that passed a blob through to a client because it could not be cached.",
        )
        self.cache_trouble = self._gauge(
            "cache_trouble",
            "1 while the cache folder has a fault, by the operation that fails and the kind of fault.",
            "what",
            "kind",
        )
        self.tasks = self._gauge("tasks", "Background tasks that run now, downloads included.")
        self.lookups_waiting = self._gauge(
            "lookups_waiting", "Requests to upstreams that wait because this mirror is saturated."
        )
        self.prefetched = self._counter(
            "prefetched_blobs_total",
            "Blobs queued for prefetch, by outcome (stored, joined, failed, cancelled, dropped).",
            "outcome",
        )
        self.limited = self._counter(
            "limited_total", "Requests refused by a limit, by the limit and what it bounds.", "limit", "bound"
        )
        self._add_verification_metrics()
        self._add_warm_metrics()
        self._add_source_metrics()
        self._add_storage_metrics()
        self._add_shared_metrics()

    def _add_line_metrics(self, lines_dropped: Callable[[], int]) -> None:
        self.audit_lines_dropped: Callable[[], int] = lambda: 0
        self._registry.register(
            LinesCollector(
                "log_lines_dropped",
                "Lines of the log that were dropped because standard error could not be written.",
                lines_dropped,
            )
        )
        self._registry.register(
            LinesCollector(
                "audit_lines_dropped",
                "Lines of the audit log that were dropped because its file could not be written.",
                lambda: self.audit_lines_dropped(),  # noqa: PLW0108  # it is set later
            )
        )

    def _add_upstream_metrics(self) -> None:
        self.upstream_bytes = self._counter(
            "upstream_bytes_total", "Body bytes received from upstreams.", "upstream"
        )
        self.upstream_requests = self._counter(
            "upstream_requests_total",
            "Requests to upstreams, by HTTP status or, without a response, by kind of error.",
            "upstream",
            "status",
        )

    def count_refused_connection(self, reason: str) -> None:
        """Count a connection that is closed before its first request; `reason`: certificate or proxy."""
        self._refused_connections.labels(reason).inc()

    def received_bytes(self) -> int:
        """Return the body bytes that this process has received from all upstreams."""
        return sum(self.received_bytes_of().values())

    def received_bytes_of(self) -> dict[str, int]:
        """Return the body bytes that this process has received, by upstream."""
        samples = (sample for family in self.upstream_bytes.collect() for sample in family.samples)
        return {each.labels["upstream"]: int(each.value) for each in samples if each.name.endswith("_total")}

    def render(self) -> tuple[bytes, str]:
        """Return body and Content-Type for a Prometheus scrape of this process alone."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def families(self) -> list[Family]:
        """Return the metrics of this process, for merging with other processes. Reads files in /proc."""
        return [Family.of(each) for each in self._registry.collect()]

    def _add_verification_metrics(self) -> None:
        self.scrubbed_bytes = self._counter(
            "scrubbed_bytes_total", "Bytes read and verified by the scrubber."
        )
        self.scrub_progress = self._gauge(
            "scrub_progress", "Share of the scrub's pass that is done, from 0 to 1; 1 between two passes."
        )
        self.scrub_wrong = self._counter("scrub_wrong_total", "Corrupt blobs found by the scrubber.")
        self.proofs = self._counter(
            "proofs_total",
            "Large blobs verified while in use, by reason (retry, use) and result (right, wrong).",
            "reason",
            "result",
        )

    def _add_warm_metrics(self) -> None:
        self.warm_next = self._gauge(
            "warm_next_run_timestamp_seconds", "Time of the next scheduled fetch of a list.", "list"
        )
        self.warm_last = self._gauge(
            "warm_last_run_timestamp_seconds",
            "End of the last scheduled fetch of a list, 0 for none.",
            "list",
        )
        self.warm_failed = self._gauge(
            "warm_failed_images", "Images of a list that were not complete after its last fetch.", "list"
        )

    def _add_source_metrics(self) -> None:
        self.source_up = self._gauge(
            "source_up", "1 while the mirror uses the source, 0 while its circuit breaker is open.", *SOURCE
        )
        self.source_latency = self._gauge(
            "source_latency_seconds", "Average seconds to the first byte of a response.", *SOURCE
        )
        self.source_speed = self._gauge(
            "source_bytes_per_second", "Average throughput of one connection to the source.", *SOURCE
        )
        self.source_connections = self._gauge(
            "source_connections", "Connections that download blobs from the source now.", *SOURCE
        )
        self.source_wrong_bytes = self._counter(
            "source_wrong_bytes_total",
            "Downloads that did not match their digest because the source sent wrong bytes.",
            "upstream",
            "source",
        )
        self.ratelimit_limit = self._gauge(
            "ratelimit_limit", "Requests that the upstream allows the account in one window.", *ACCOUNT
        )
        self.ratelimit_remaining = self._gauge(
            "ratelimit_remaining", "Requests remaining in the account's rate-limit window.", *ACCOUNT
        )
        self.account_refused = self._gauge(
            "account_refused",
            "1 after the upstream refused the password, or while its source fails and there is none; else 0.",
            *ACCOUNT,
        )

    def _add_storage_metrics(self) -> None:
        self.gone_served = self._counter(
            "gone_served_total",
            "Answers with content that is gone upstream and kept by tags.on_gone.",
            "upstream",
        )
        self.evicted_blobs = self._counter(
            "evicted_blobs_total", "Blobs evicted, by reason (room, used, age).", "reason"
        )
        self.evicted_bytes = self._counter(
            "evicted_bytes_total", "Bytes of evicted blobs, by reason (room, used, age).", "reason"
        )
        self.cache_bytes = self._gauge("cache_bytes", "Bytes of blobs in the cache.")
        self.cache_entries = self._gauge("cache_entries", "Number of blobs in the cache.")
        self.cache_allowed = self._gauge(
            "cache_allowed_bytes",
            "Bytes the cache may hold: cache.max_size, or less where cache.min_free leaves less.",
        )
        self.cache_min_free = self._gauge(
            "cache_min_free_bytes", "Bytes the cache leaves free on its file system (cache.min_free)."
        )
        self.cache_retained = self._gauge(
            "cache_retained_bytes", "Bytes of blobs that hosted registries keep; they are never evicted."
        )
        self.cache_pinned = self._gauge(
            "cache_pinned_bytes", "Bytes of pinned images as far as known, cached or not."
        )
        self._add_hosted_metrics()

    def _add_hosted_metrics(self) -> None:
        self.hosted_bytes = self._gauge(
            "hosted_bytes", "Bytes of blobs in a hosted registry, each blob once.", "registry"
        )
        self.replicated = self._counter(
            "hosted_replicated_total",
            "Tags and manifests for other registries (hosted.mirror_to), by outcome: sent; present, which "
            "were there; failed, which are tried again; dropped.",
            "registry",
            "target",
            "outcome",
        )
        self.replication_waiting = self._gauge(
            "hosted_replication_waiting",
            "Tags and manifests that wait to be sent to another registry.",
            "registry",
            "target",
        )
        self.webhooks = self._counter(
            "webhooks_total",
            "Notifications to webhooks, by outcome (sent, failed, dropped).",
            "registry",
            "outcome",
        )
        self.open_uploads = self._gauge("hosted_uploads", "Pushes of blobs that are not finished.")
        self.upload_bytes = self._gauge("hosted_upload_bytes", "Bytes of the blobs that are being pushed.")

    def _add_shared_metrics(self) -> None:
        self.shared_up = self._gauge(
            "shared_up", "1 while the engine of the shared tier (objects, leases) answers, else 0.", "engine"
        )
        self.shared_requests = self._counter(
            "shared_requests_total",
            "Requests to the engines of the shared tier, by outcome (ok, or the kind of failure).",
            "engine",
            "operation",
            "outcome",
        )
        self.shared_bytes = self._counter(
            "shared_bytes_total", "Bytes of blobs received from the object store or sent there.", "direction"
        )
        self.shared_fills = self._counter(
            "shared_fills_total",
            "Downloads with a shared tier, by what brought the blob: tier; peer, a mirror that was followed; "
            "upstream, for all mirrors; alone, beside another mirror or without a coordinator.",
            "outcome",
        )
        self.shared_pending = self._gauge(
            "shared_pending_uploads", "Blobs that wait to be written to the object store."
        )
        self.shared_redirects = self._counter(
            "shared_redirects_total",
            "Clients sent to the object store (sent), and those that came back, answered here (refused).",
            "outcome",
        )
        self.shared_size = self._gauge(
            "shared_size_bytes",
            "Size of all blobs in the object store, after this mirror's last upkeep of it.",
        )
        self.shared_removed = self._counter(
            "shared_removed_total", "Blobs that this mirror's upkeep has removed from the object store."
        )

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"registry_mirror_{name}", documentation, labels, registry=self._registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(f"registry_mirror_{name}", documentation, labels, registry=self._registry)


class RequestCollector(Collector):
    """A collector that turns the request statistics into Prometheus families at each scrape."""

    def __init__(self, table: RequestStatsTable) -> None:
        self._table = table

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "registry_mirror_requests",
            "Requests answered, by kind of content and outcome (hit, join, miss, stale, passed, denied, "
            "limited, error).",
            labels=LABELS,
        )
        sent = CounterMetricFamily(
            "registry_mirror_client_bytes", "Body bytes sent to clients.", labels=LABELS[:1]
        )
        first_byte = _seconds("first_byte", "Seconds from a request to the head of its response.")
        whole = _seconds("request", "Seconds from a request to the end of its response.")
        lengths: dict[str, tuple[int, float]] = {}
        for labels, stats in self._table.rows():
            requests.add_metric(labels, stats.requests, created=stats.created)
            length, created = lengths.get(labels[0], (0, stats.created))
            lengths[labels[0]] = length + stats.bytes, min(created, stats.created)
            _add_latency(first_byte, labels, stats.first_byte, stats.created)
            _add_latency(whole, labels, stats.whole, stats.created)
        for kind, (length, created) in lengths.items():
            sent.add_metric([kind], length, created=created)
        yield from (requests, sent, first_byte, whole)


class LinesCollector(Collector):
    """A collector of the lines that this process could not write."""

    def __init__(self, name: str, documentation: str, lines_dropped: Callable[[], int]) -> None:
        self._name = f"registry_mirror_{name}"
        self._documentation = documentation
        self._lines_dropped = lines_dropped
        self._created = time.time()

    def collect(self) -> Iterator[Metric]:
        value = self._lines_dropped()
        yield CounterMetricFamily(self._name, self._documentation, value=value, created=self._created)


def _seconds(name: str, documentation: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"registry_mirror_{name}_seconds", documentation, labels=LABELS)


def _add_latency(
    family: HistogramMetricFamily, labels: tuple[str, str], latency: Latency, created: float
) -> None:
    """Add a histogram, with the last known request of each bucket."""
    buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = [
        (bound, total) if known is None else (bound, total, Exemplar({REQUEST_ID: known[0]}, *known[1:]))
        for (bound, total), known in zip(latency.buckets(), latency.exemplars(), strict=True)
    ]
    family.add_metric(labels, buckets, latency.seconds)
    family.add_sample(f"{family.name}_created", dict(zip(LABELS, labels, strict=True)), created)

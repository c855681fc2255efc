"""What is counted. Label values are bounded: a repository or a digest is never a label."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

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

from mirror import __version__
from mirror.metrics.request_stats import RequestStatsTable

LABELS = ("kind", "outcome")
SOURCE = ("upstream", "source")
ACCOUNT = ("upstream", "account")


class Metrics:
    """All metrics of one mirror, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._gauge("info", "Version of this mirror; the value is always 1.", "version").labels(
            __version__
        ).set(1)
        self.requests = RequestStatsTable()
        registry.register(RequestCollector(self.requests))
        self.upstream_bytes = self._counter(
            "upstream_bytes_total", "Body bytes received from upstreams.", "upstream"
        )
        self.upstream_requests = self._counter(
            "upstream_requests_total",
            "Requests to upstreams, by status or by what went wrong instead of one.",
            "upstream",
            "status",
        )
        self.fills_running = self._gauge("fills_running", "Blobs being downloaded now.")
        self.fill_failures = self._counter(
            "fill_failures_total", "Downloads that failed, by reason.", "reason"
        )
        self.passed_through = self._counter(
            "passed_through_total",
            "Blobs sent as they came because they could not be kept, one transfer for each client.",
        )
        self.cache_trouble = self._gauge(
            "cache_trouble",
            "1 while something is wrong with the cache folder, by what does not work and why.",
            "what",
            "kind",
        )
        self.scrubbed_bytes = self._counter("scrubbed_bytes_total", "Bytes read to prove what is cached.")
        self.scrub_wrong = self._counter("scrub_wrong_total", "Blobs found wrong by that.")
        self.tasks = self._gauge("tasks", "Background tasks running now, downloads included.")
        self.prefetched = self._counter(
            "prefetched_blobs_total",
            "Blobs to be fetched ahead, by how that ended (stored, joined, failed, cancelled, dropped).",
            "outcome",
        )
        self._about_sources()
        self._about_room()

    def render(self) -> tuple[bytes, str]:
        """Body and Content-Type for a Prometheus scrape."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def families(self) -> list["Family"]:
        """What this process has counted, to be added to what others have. Reads files."""
        return [
            Family(
                each.name,
                each.type,
                each.documentation,
                {(name, tuple(labels.items())): value for name, labels, value, *_ in each.samples},
            )
            for each in self._registry.collect()
        ]

    def _about_sources(self) -> None:
        self.source_up = self._gauge(
            "source_up", "1 while the source is used, 0 while it is left alone.", *SOURCE
        )
        self.source_latency = self._gauge("source_latency_seconds", "To the first byte, averaged.", *SOURCE)
        self.source_speed = self._gauge("source_bytes_per_second", "Of one connection, averaged.", *SOURCE)
        self.source_connections = self._gauge(
            "source_connections", "Connections that bring blobs now.", *SOURCE
        )
        self.source_lies = self._counter(
            "source_wrong_bytes_total",
            "Downloads that did not match their digest because of what the source sent.",
            "upstream",
            "source",
        )
        self.ratelimit_limit = self._gauge(
            "ratelimit_limit", "Requests that the upstream allows the account.", *ACCOUNT
        )
        self.ratelimit_remaining = self._gauge(
            "ratelimit_remaining", "Requests that it has left of them.", *ACCOUNT
        )
        self.account_refused = self._gauge(
            "account_refused",
            "1 after the upstream refused the password of the account, 0 otherwise.",
            *ACCOUNT,
        )

    def _about_room(self) -> None:
        self.evicted_blobs = self._counter(
            "evicted_blobs_total", "Blobs removed to make room, or for their age.", "reason"
        )
        self.evicted_bytes = self._counter("evicted_bytes_total", "Their bytes.", "reason")
        self.cache_bytes = self._gauge("cache_bytes", "Bytes of blobs cached.")
        self.cache_entries = self._gauge("cache_entries", "Blobs cached.")

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"registry_mirror_{name}", documentation, labels, registry=self._registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(f"registry_mirror_{name}", documentation, labels, registry=self._registry)


# Kinds of metrics that are added up, over processes and over those that are dead.
COUNTED = ("counter", "histogram")

# Gauges of which the largest counts: what is wrong for one process is wrong.
LARGEST = ("registry_mirror_account_refused", "registry_mirror_cache_trouble")

# Gauges that are added up over the living. Of others one process' word is as good as another's.
ADDED = (
    "registry_mirror_fills_running",
    "registry_mirror_source_connections",
    "registry_mirror_tasks",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
)


@dataclass(frozen=True, slots=True)
class Family:
    """A metric with its samples: (name, labels) -> value."""

    name: str
    kind: str
    documentation: str
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float]

    def plain(self) -> list[Any]:
        """As JSON has it."""
        rows = [[name, labels, value] for (name, labels), value in self.samples.items()]
        return [self.name, self.kind, self.documentation, rows]

    @classmethod
    def parsed(cls, plain: list[Any]) -> Self:
        """From `plain`."""
        name, kind, documentation, rows = plain
        samples = {(row[0], tuple((label, value) for label, value in row[1])): float(row[2]) for row in rows}
        return cls(name, kind, documentation, samples)

    def plus(self, other: "Family") -> "Family":
        """What two processes have counted; of what is not added up what this one says, or else the other."""
        samples = {**other.samples, **self.samples}
        if self.kind in COUNTED or self.name in ADDED:
            for key in self.samples.keys() & other.samples.keys():
                values = self.samples[key], other.samples[key]
                samples[key] = min(values) if key[0].endswith("_created") else sum(values)
        if self.name in LARGEST:
            for key in self.samples.keys() & other.samples.keys():
                samples[key] = max(self.samples[key], other.samples[key])
        return Family(self.name, self.kind, self.documentation, samples)


def added(first: Iterable[Family], second: Iterable[Family]) -> list[Family]:
    """Both, those of one name added up."""
    families = {each.name: each for each in first}
    for each in second:
        families[each.name] = families[each.name].plus(each) if each.name in families else each
    return list(families.values())


def render(families: Iterable[Family]) -> tuple[bytes, str]:
    """As `Metrics.render`."""
    registry = CollectorRegistry()
    registry.register(_FixedCollector(families))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _FixedCollector(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.documentation, family.kind)
            for (name, labels), value in family.samples.items():
                metric.add_sample(name, dict(labels), value)
            yield metric


class RequestCollector(Collector):
    """The tallies of requests as Prometheus knows such things."""

    def __init__(self, tallies: RequestStatsTable) -> None:
        self._tallies = tallies

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "registry_mirror_requests",
            "Requests answered, by kind of content and outcome (hit, join, miss, stale, error).",
            labels=LABELS,
        )
        sent = CounterMetricFamily(
            "registry_mirror_client_bytes", "Body bytes sent to clients.", labels=LABELS[:1]
        )
        first_byte = _seconds("first_byte", "From a request to the head of its answer.")
        whole = _seconds("request", "From a request to the end of its answer.")
        lengths: dict[str, int] = {}
        for labels, tally in self._tallies.rows():
            requests.add_metric(labels, tally.requests)
            lengths[labels[0]] = lengths.get(labels[0], 0) + tally.bytes
            first_byte.add_metric(labels, tally.first_byte.buckets(), tally.first_byte.seconds)
            whole.add_metric(labels, tally.whole.buckets(), tally.whole.seconds)
        for kind, length in lengths.items():
            sent.add_metric([kind], length)
        yield from (requests, sent, first_byte, whole)


def _seconds(name: str, documentation: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"registry_mirror_{name}_seconds", documentation, labels=LABELS)

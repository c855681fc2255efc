"""Metric families as plain values: summed over processes, and rendered for a scrape."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Self

from msgspec import Struct
from prometheus_client import Metric, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST, choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

# The label of an exemplar: the `id` of a request in the access log.
REQUEST_ID = "request_id"

# The end of the name of a sample that says when a counter began.
CREATED = "_created"

# The media type of OpenMetrics, and units at the end of names.
OPENMETRICS, UNITS = "application/openmetrics-text", ("seconds", "bytes")

# Kinds of metrics that are summed over all processes, including dead ones.
CUMULATIVE = ("counter", "histogram")

# Gauges of which the maximum counts: a fault of one process is a fault of the mirror.
MAXIMUM_GAUGES = ("registry_mirror_account_refused", "registry_mirror_cache_trouble")

# Gauges that are summed over the live processes. All processes have the same value for any other gauge.
SUMMED_GAUGES = (
    "registry_mirror_fills_running",
    "registry_mirror_lookups_waiting",
    "registry_mirror_shared_pending_uploads",
    "registry_mirror_source_connections",
    "registry_mirror_tasks",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
)


# A sample: its name and its labels.
Key = tuple[str, tuple[tuple[str, str], ...]]


class Family(Struct, frozen=True):
    """A metric family with its samples: (name, labels) -> value.

    `exemplars`: of some samples, the id of a request, its value, and when that was.
    """

    name: str
    kind: str
    documentation: str
    samples: dict[Key, float]
    exemplars: dict[Key, tuple[str, float, float]] = {}

    @classmethod
    def of(cls, metric: Metric) -> Self:
        """Return the family of a metric of prometheus_client."""
        samples, exemplars = {}, {}
        for each in metric.samples:
            key = (each.name, tuple(each.labels.items()))
            samples[key] = each.value
            if each.exemplar is not None:
                found = each.exemplar
                exemplars[key] = (found.labels[REQUEST_ID], found.value, float(found.timestamp or 0.0))
        return cls(metric.name, metric.type, metric.documentation, samples, exemplars)

    def to_json(self) -> list[Any]:
        """Return the family as lists and scalars for `json.dumps`."""
        rows = [
            [*key, value, *([self.exemplars[key]] if key in self.exemplars else ())]
            for key, value in self.samples.items()
        ]
        return [self.name, self.kind, self.documentation, rows]

    @classmethod
    def from_json(cls, document: list[Any]) -> Self:
        """Return the family that `to_json` has written."""
        name, kind, documentation, rows = document
        samples, exemplars = {}, {}
        for sample, labels, value, *exemplar in rows:
            key = (sample, tuple((label, text) for label, text in labels))
            samples[key] = float(value)
            for request, seconds, moment in exemplar:
                exemplars[key] = (request, seconds, moment)
        return cls(name, kind, documentation, samples, exemplars)

    def merge(self, other: "Family") -> "Family":
        """Merge two processes' samples: sum counters and SUMMED_GAUGES; for other gauges prefer ours."""
        samples = {**other.samples, **self.samples}
        if self.kind in CUMULATIVE or self.name in SUMMED_GAUGES:
            for key in self.samples.keys() & other.samples.keys():
                began = key[0].endswith(CREATED)  # of what counted first
                added = self.samples[key] + other.samples[key]
                samples[key] = min(self.samples[key], other.samples[key]) if began else added
        if self.name in MAXIMUM_GAUGES:
            for key in self.samples.keys() & other.samples.keys():
                samples[key] = max(self.samples[key], other.samples[key])
        return Family(self.name, self.kind, self.documentation, samples, self._exemplars_with(other))

    def _exemplars_with(self, other: "Family") -> dict[Key, tuple[str, float, float]]:
        """Return the latest exemplar of each sample."""
        if not other.exemplars:
            return self.exemplars
        found = dict(other.exemplars)
        for key, mine in self.exemplars.items():
            if key not in found or mine[2] >= found[key][2]:
                found[key] = mine
        return found


def merge(first: Iterable[Family], second: Iterable[Family]) -> list[Family]:
    """Merge the families of two processes by name."""
    families = {each.name: each for each in first}
    for each in second:
        families[each.name] = families[each.name].merge(each) if each.name in families else each
    return list(families.values())


def render(families: Iterable[Family], accept: str = "") -> tuple[bytes, str]:
    """Return body and Content-Type for a Prometheus scrape of `families`.

    `accept`: the header of that name. With application/openmetrics-text the page has exemplars, units, and
    the time at which each counter began.
    """
    if OPENMETRICS in accept:
        with suppress(ValueError, TypeError):  # a version that is no version
            encode, content_type = choose_encoder(accept)
            if content_type.startswith(OPENMETRICS):
                return encode(_FixedCollector(families, openmetrics=True)), content_type
    return generate_latest(_FixedCollector(families, openmetrics=False)), CONTENT_TYPE_LATEST


class _FixedCollector(Collector):
    """A collector of families that are complete already.

    Without `openmetrics` it leaves out the `_created` samples, which would double a page and which Prometheus
    does not use in that format.
    """

    def __init__(self, families: Iterable[Family], *, openmetrics: bool) -> None:
        self._families = families
        self._openmetrics = openmetrics

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            yield self._metric(family)

    def _metric(self, family: Family) -> Metric:
        unit = next((each for each in UNITS if family.name.endswith(f"_{each}")), "")
        metric = Metric(family.name, family.documentation, family.kind, unit if self._openmetrics else "")
        for key, value in family.samples.items():
            name, labels = key
            if not self._openmetrics and name.endswith(CREATED):
                continue
            exemplar = None
            if self._openmetrics and key in family.exemplars:
                request, seconds, moment = family.exemplars[key]
                exemplar = Exemplar({REQUEST_ID: request}, seconds, moment)
            metric.add_sample(name, dict(labels), value, exemplar=exemplar)
        return metric

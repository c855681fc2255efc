"""All configured upstreams."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any

from mirror.config.endpoints import UpstreamSettings
from mirror.config.schema import Config
from mirror.metrics.metrics import Metrics
from mirror.upstream.combined.report import details_of, state_of
from mirror.upstream.errors import UpstreamError
from mirror.upstream.health import BreakerState
from mirror.upstream.registry_client import RegistryClient
from mirror.upstream.source import Source, SourceOptions
from mirror.upstream.upstream import Upstream
from mirror.util.log import get_logger
from mirror.util.slots import SlotGroup, SlotPool
from mirror.util.tasks import Tasks

log = get_logger(__name__)


class UpstreamSet(Mapping[str, Upstream]):
    """All configured upstreams by canonical name, in the order of the configuration.

    No upstream is added because a client named it (invariant 7).
    """

    def __init__(self, config: Config, metrics: Metrics, tasks: Tasks) -> None:
        offline, self.slots = config.server.offline, SlotPool(config.fill.connections)
        self._upstreams = {
            each.name: Upstream(
                each.name,
                _sources(each, metrics, self.slots, offline),
                tasks,
                metrics,
                offline=offline,
                recheck_access=each.recheck_access,
                private=each.private,
            )
            for each in config.upstreams
        }

    def __getitem__(self, name: str) -> Upstream:
        return self._upstreams[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._upstreams)

    def __len__(self) -> int:
        return len(self._upstreams)

    def turns(self, connections: int) -> dict[str, SlotGroup]:
        """Return the turns of the small fills of each upstream; all together have one for each connection."""
        pool = SlotPool(connections)
        return {name: SlotGroup(pool, upstream.max_connections) for name, upstream in self.items()}

    def blob_turns(self, connections: int) -> dict[str, SlotGroup]:
        """Return the turns of the large fills of each upstream, which leave some of its connections free."""
        pool = SlotPool(connections)
        return {name: SlotGroup(pool, upstream.max_blob_connections) for name, upstream in self.items()}

    @property
    def use_accounts(self) -> bool:
        """True if any upstream or source is asked with an account."""
        return any(
            source.registry.accounts.configured
            for upstream in self._upstreams.values()
            for source in upstream.sources
        )

    def state(self) -> dict[str, Any]:
        """Return the state of all upstreams for /readyz."""
        now = time.monotonic()
        return {
            upstream.name: {
                "offline": upstream.offline,
                "sources": [state_of(source, now) for source in upstream.sources],
            }
            for upstream in self._upstreams.values()
        }

    def details(self) -> list[dict[str, Any]]:
        """Return the state of all upstreams for people."""
        now = time.monotonic()
        return [
            {
                "name": upstream.name,
                "offline": upstream.offline,
                "sources": [details_of(source, now) for source in upstream.sources],
            }
            for upstream in self._upstreams.values()
        ]

    def report(self, metrics: Metrics) -> None:
        """Set the gauges of sources and accounts."""
        now = time.monotonic()
        # A reading that is too old has no gauge: its value would be taken for what is left now.
        metrics.ratelimit_limit.clear()
        metrics.ratelimit_remaining.clear()
        for upstream in self._upstreams.values():
            for account in upstream.own.registry.accounts.all:
                account.report(metrics, upstream.name)
            for source in upstream.sources:
                labels = (upstream.name, source.name)
                metrics.source_up.labels(*labels).set(source.health.state(now) is BreakerState.CLOSED)
                metrics.source_latency.labels(*labels).set(source.health.latency)
                metrics.source_speed.labels(*labels).set(source.health.speed)
                metrics.source_connections.labels(*labels).set(source.slots.active)

    async def warm_up(self) -> None:
        """Prepare for the first requests without dialling; log sources that cannot be used."""
        for upstream in self._upstreams.values():
            for source in upstream.sources:
                try:
                    await source.registry.warm_up()
                except UpstreamError as error:
                    log.warning(
                        "source not usable", upstream=upstream.name, source=source.name, reason=str(error)
                    )

    async def close(self) -> None:
        """Close the connections of all upstreams."""
        await asyncio.gather(*(upstream.close() for upstream in self._upstreams.values()))


def _sources(settings: UpstreamSettings, metrics: Metrics, total: SlotPool, offline: bool) -> list[Source]:
    """Return the upstream's own endpoint, then its other sources."""
    sources = [
        Source(
            _label(settings.url),
            RegistryClient(settings, metrics, offline=offline),
            SourceOptions(settings.prefix),
            total,
        )
    ]
    for each in settings.sources:
        # A source gets its own credentials only, none of the upstream's (invariant 6).
        endpoint = UpstreamSettings(name=settings.name, **each.endpoint())
        registry = RegistryClient(endpoint, metrics, offline=offline)
        options = SourceOptions(each.prefix, each.weight, each.tags)
        sources.append(Source(_label(each.url), registry, options, total))
    return sources


def _label(url: str) -> str:
    """Return host and path of a URL: the name of a source in logs and metrics."""
    return url.partition("://")[2]

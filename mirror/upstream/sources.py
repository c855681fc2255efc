"""All configured upstreams, by canonical name. None is made later because a client named it (invariant 7)."""

import asyncio
from collections.abc import Iterator, Mapping

from mirror.config import Config
from mirror.metrics import Metrics
from mirror.upstream.registry import Registry


class Upstreams(Mapping[str, Registry]):
    """Canonical name -> registry, in the order of the configuration."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        self._registries = {settings.name: Registry(settings, metrics) for settings in config.upstreams}

    def __getitem__(self, name: str) -> Registry:
        return self._registries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._registries)

    def __len__(self) -> int:
        return len(self._registries)

    async def close(self) -> None:
        """Close the connections of all of them."""
        await asyncio.gather(*(registry.close() for registry in self._registries.values()))

"""Log lines about upstreams that refuse this mirror, so that cached content is served unconfirmed."""

import time
from collections import defaultdict
from collections.abc import Callable

from mirror.upstream.outage import Outage
from mirror.util.log import get_logger

log = get_logger(__name__)


class RefusalLog:
    """Warns once when an upstream begins to refuse, and says once when it answers again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._outages: defaultdict[str, Outage] = defaultdict(Outage)

    def refused(self, upstream: str, reason: str) -> None:
        """Record a refusal that is not the registry's own word about a repository."""
        if self._outages[upstream].failed(self._clock()) is not None:
            log.warning(
                "upstream refuses this mirror, stale content served", upstream=upstream, reason=reason
            )

    def answered(self, upstream: str) -> None:
        """Record that the upstream has confirmed something."""
        outage = self._outages.get(upstream)
        if outage is not None and (seconds := outage.ended(self._clock())) is not None:
            log.info("upstream accepts this mirror again", upstream=upstream, seconds=round(seconds, 1))

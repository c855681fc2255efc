"""Patience with upstreams: how long a client waits for one, and what its waiting tells about it."""

from mirror.cache.origins.origin_table import OriginTable
from mirror.oci.reference import Repository
from mirror.upstream.upstream_set import UpstreamSet


class UpstreamPatience:
    """Time limits for answers; a hosted registry has no upstream to wait for."""

    def __init__(self, upstreams: UpstreamSet, origins: OriginTable, fallback_after: float) -> None:
        self._upstreams = upstreams
        self._origins = origins
        self._fallback_after = fallback_after

    def limit(self, repository: Repository, seconds: float) -> float:
        """Return the seconds to wait for an answer: `seconds`, or less if the upstream is unresponsive.

        The request to the upstream goes on after the limit, so a later client may find it answered.
        """
        if self._origins.is_hosted(repository):
            return seconds
        unresponsive = self._upstreams[repository.upstream].health.unresponsive
        return min(seconds, self._fallback_after) if unresponsive else seconds

    def report_timeout(self, repository: Repository, seconds: float) -> bool:
        """Record that a client has waited for `seconds`; return whether it waited for the upstream."""
        if self._origins.is_hosted(repository):
            return False
        return self._upstreams[repository.upstream].health.report_timeout(seconds)

"""Health of an upstream: whether it is worth asking, by the breakers of its sources."""

import time
from collections.abc import Sequence

from mirror.oci.digest import Digest
from mirror.oci.reference import Tag
from mirror.upstream.combined.ranking import speakers_of, usable_first
from mirror.upstream.errors import UpstreamError
from mirror.upstream.health import BreakerState
from mirror.upstream.source import Source


class UpstreamHealth:
    """The health of the sources of one upstream; the first is its own endpoint."""

    def __init__(self, sources: Sequence[Source], *, offline: bool) -> None:
        self._sources = sources
        self._speakers = speakers_of(sources)
        self._offline = offline

    @property
    def available(self) -> bool:
        """True if it is worth waiting for: the breaker of a source that speaks for it about tags is closed.

        Wrong bytes do not count: a digest proves content.
        """
        return not self._offline and _any_closed(self._speakers)

    @property
    def has_content(self) -> bool:
        """True if the breaker of any source is closed, so that blobs that a manifest names can be had."""
        return not self._offline and _any_closed(self._sources)

    @property
    def unresponsive(self) -> bool:
        """True if none of the sources that speak for it about tags has answered lately."""
        return all(source.answers.unresponsive for source in self._speakers)

    @property
    def allows_request(self) -> bool:
        """True if a request may be sent, also one that probes whether the upstream answers again."""
        now = time.monotonic()
        return not self._offline and any(source.health.allows_request(now) for source in self._speakers)

    def report_timeout(self, seconds: float) -> bool:
        """Open the breakers of the sources that a client waited `seconds` for; return True for any."""
        waited_for = [source.answers.report_timeout(seconds) for source in self._sources]
        return any(waited_for)

    def raise_if_unresponsive(self, reference: Tag | Digest) -> None:
        """Raise the error that a new request for a manifest would get, before joining one in flight."""
        errors = []
        for source in self._asked_for(reference):
            try:
                source.answers.raise_if_unresponsive()
            except UpstreamError as error:
                errors.append(error)
            else:
                return
        raise errors[-1]

    def _asked_for(self, reference: Tag | Digest) -> list[Source]:
        """Return the sources that would be asked for a manifest; for a digest the own endpoint is one."""
        usable = usable_first(self._sources)
        if isinstance(reference, Tag):
            return [source for source in usable if source.trusted_for_tags] or self._speakers
        return usable if self._sources[0] in usable else [*usable, self._sources[0]]


def _any_closed(sources: Sequence[Source]) -> bool:
    now = time.monotonic()
    return any(source.health.breaker(now) is BreakerState.CLOSED for source in sources)

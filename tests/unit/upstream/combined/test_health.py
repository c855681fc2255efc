"""Health of an upstream, by the breakers of its sources."""

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Tag
from mirror.upstream.combined.health import UpstreamHealth
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.health import FAILURES
from mirror.upstream.source import Source
from mirror.upstream.upstream import Upstream


def silent(source: Source) -> None:
    """Let a source fail without an answer, until its breaker is open."""
    error = UpstreamError(Failure.TIMEOUT, f"{source.name} is silent")
    error.unanswered = True
    source.record_failure(error, FAILURES)


def test_upstream_is_available_by_those_that_speak_for_it(upstream: Upstream) -> None:
    """Another mirror has content still while the own endpoint is silent, and knows no tag."""
    assert (upstream.health.available, upstream.health.has_content) == (True, True)
    silent(upstream.own)
    assert (upstream.health.available, upstream.health.has_content) == (False, True)
    assert (upstream.health.unresponsive, upstream.health.allows_request) == (True, False)
    upstream.health.raise_if_unresponsive(Digest.of(b"x"))
    with pytest.raises(UpstreamError, match="tried again soon"):
        upstream.health.raise_if_unresponsive(Tag("t"))
    silent(upstream.sources[1])
    assert not upstream.health.has_content
    with pytest.raises(UpstreamError, match="tried again soon"):
        upstream.health.raise_if_unresponsive(Digest.of(b"x"))


def test_upstream_that_is_offline_is_asked_for_nothing(upstream: Upstream) -> None:
    health = UpstreamHealth(upstream.sources, offline=True)
    assert (health.available, health.has_content, health.allows_request) == (False, False, False)
    assert not health.report_timeout(0.0)

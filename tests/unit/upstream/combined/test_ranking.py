"""The order of the sources of an upstream."""

from mirror.upstream.combined.ranking import speakers_of, usable_first
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.health import FAILURES
from mirror.upstream.upstream import Upstream


def test_usable_sources_are_ranked_by_latency_and_all_are_if_none_is_usable(upstream: Upstream) -> None:
    own, other = upstream.sources
    own.health.record_success(60.0)
    assert usable_first(upstream.sources) == [other, own]
    other.record_failure(UpstreamError(Failure.SERVER_ERROR, "503"), FAILURES)
    assert usable_first(upstream.sources) == [own]
    own.record_failure(UpstreamError(Failure.SERVER_ERROR, "503"), FAILURES)
    assert set(usable_first(upstream.sources)) == {own, other}


def test_speakers_are_the_sources_that_are_trusted_with_tags(upstream: Upstream) -> None:
    assert speakers_of(upstream.sources) == [upstream.own]

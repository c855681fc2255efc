"""Source selection."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.config.endpoints import SourceSettings
from mirror.config.schema import CacheSettings, Config
from mirror.metrics.metrics import Metrics
from mirror.transfer.source_selector import SourceSelector
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.upstream import Upstream
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.tasks import Tasks
from tests.fakes.upstream import settings

BROKEN = UpstreamError(Failure.UNREACHABLE, "broken")


@pytest.fixture
async def upstream(tmp_path: Path, tasks: Tasks) -> AsyncIterator[Upstream]:
    """An upstream with a mirror of it that is ten times as fast."""
    source = SourceSettings(url="http://127.0.0.1:2", prefix="docker.io")
    config = Config(
        cache=CacheSettings(dir=tmp_path),
        upstreams=(settings("http://127.0.0.1:1", sources=(source,)),),
    )
    upstreams = UpstreamSet(config, Metrics(), tasks)
    own, other = upstreams["docker.io"].sources
    for _ in range(20):
        own.health.record_transfer(10_000_000, 1.0)
        other.health.record_transfer(100_000_000, 1.0)
    yield upstreams["docker.io"]
    await upstreams.close()


async def test_source_selector_asks_the_own_endpoint_for_an_unlinked_blob(upstream: Upstream) -> None:
    """The own endpoint confirms the blob (invariant 5); from then on the fastest source is asked."""
    own, other = upstream.sources
    selector = SourceSelector(upstream, linked=False)
    assert selector.pick({}) is own
    selector.blob_confirmed = True
    assert selector.pick({}) is other


async def test_source_selector_shares_by_speed(upstream: Upstream) -> None:
    """Ten connections to the source that is ten times as fast, then one to the other."""
    own, other = upstream.sources
    selector = SourceSelector(upstream, linked=True)
    own.ranges.confirm()
    other.ranges.confirm()
    assert selector.pick({other: 8}) is other
    assert selector.pick({other: 10}) is own


async def test_source_selector_gives_unproven_sources_one_connection(upstream: Upstream) -> None:
    """An unproven source gets no second connection unless there is no other source."""
    own, other = upstream.sources
    own.ranges.confirm()
    other.ranges.confirm()
    selector = SourceSelector(upstream, linked=True)
    assert selector.pick({own: 1, other: 1}, {other}) is own
    assert selector.pick({own: 1, other: 1}, {own, other}) is other


async def test_source_selector_backs_off_from_a_silent_source(upstream: Upstream) -> None:
    """A silent source comes last afterwards; the only source left is asked all the same."""
    own, other = upstream.sources
    selector = SourceSelector(upstream, linked=True)
    selector.back_off(other)
    assert selector.pick({}) is own
    assert (selector.back_offs(), selector.back_offs(other), selector.back_offs(own)) == (1, 1, 0)
    selector.back_off(own)
    assert selector.pick({}) is other


async def test_source_selector_excludes_a_refusing_source(upstream: Upstream) -> None:
    """The error of the own endpoint, which knows best, is raised when all sources are excluded."""
    own, other = upstream.sources
    selector = SourceSelector(upstream, linked=True)
    selector.exclude(own, BROKEN)
    assert selector.candidates() == [other]
    with pytest.raises(UpstreamError, match="broken"):
        selector.exclude(other, UpstreamError(Failure.INVALID, "elsewhere"))


async def test_source_selector_asks_one_by_one(upstream: Upstream) -> None:
    """One source at a time, so that each byte is known to be of one source."""
    own, other = upstream.sources
    selector = SourceSelector(upstream, linked=True, one_by_one=[other, own])
    assert selector.candidates() == [other]
    selector.exclude(other, BROKEN)
    assert selector.candidates() == [own]

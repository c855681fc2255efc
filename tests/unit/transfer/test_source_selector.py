"""Which source is asked next."""

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
    """With a mirror of it, which is ten times as fast."""
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


async def test_what_is_not_known_to_be_there_is_asked_of_the_upstream_itself(upstream: Upstream) -> None:
    """Invariant 5: it confirms the blob; from then on, the fastest one is asked."""
    own, other = upstream.sources
    selector = SourceSelector(upstream, linked=False)
    assert selector.pick({}) is own
    selector.blob_confirmed = True
    assert selector.pick({}) is other


async def test_each_has_what_its_speed_is_worth(upstream: Upstream) -> None:
    """Ten connections to the one that is ten times as fast, then one to the other."""
    own, other = upstream.sources
    selector = SourceSelector(upstream, linked=True)
    own.supports_ranges = other.supports_ranges = True
    assert selector.pick({other: 8}) is other
    assert selector.pick({other: 10}) is own


async def test_who_is_still_to_show_what_it_is_worth(upstream: Upstream) -> None:
    """Has one connection, and no second one unless there is nobody else."""
    own, other = upstream.sources
    own.supports_ranges = other.supports_ranges = True
    selector = SourceSelector(upstream, linked=True)
    assert selector.pick({own: 1, other: 1}, {other}) is own
    assert selector.pick({own: 1, other: 1}, {own, other}) is other


async def test_who_fell_silent_is_left_alone_for_a_while(upstream: Upstream) -> None:
    """And comes last afterwards; but who is all there is, is asked."""
    own, other = upstream.sources
    selector = SourceSelector(upstream, linked=True)
    selector.back_off(other)
    assert selector.pick({}) is own
    assert (selector.back_offs(), selector.back_offs(other), selector.back_offs(own)) == (1, 1, 0)
    selector.back_off(own)
    assert selector.pick({}) is other


async def test_who_refuses_is_not_asked_again(upstream: Upstream) -> None:
    """The last one's refusal is the upstream's own, which knows best."""
    own, other = upstream.sources
    selector = SourceSelector(upstream, linked=True)
    selector.exclude(own, BROKEN)
    assert selector.candidates() == [other]
    with pytest.raises(UpstreamError, match="broken"):
        selector.exclude(other, UpstreamError(Failure.INVALID, "elsewhere"))


async def test_alone_one_after_another(upstream: Upstream) -> None:
    """So that it is known who sent what was wrong."""
    own, other = upstream.sources
    selector = SourceSelector(upstream, linked=True, one_by_one=[other, own])
    assert selector.candidates() == [other]
    selector.exclude(other, BROKEN)
    assert selector.candidates() == [own]

"""The download order: the span of the first request."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.config.schema import CacheSettings, Config, FillSettings
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.oci.reference import Repository
from mirror.transfer.download_order import ENDLESS, DownloadOrder
from mirror.transfer.plan import PlanLimits
from mirror.upstream.source import Source
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.tasks import Tasks
from tests.fakes.upstream import settings

CHUNK = 10
FILL = FillSettings(parallel=4, parallel_above=100, chunk_size=CHUNK)


@pytest.fixture
async def source(tmp_path: Path, tasks: Tasks) -> AsyncIterator[Source]:
    """A source that supports ranges, of unknown speed."""
    config = Config(cache=CacheSettings(dir=tmp_path), upstreams=(settings("http://127.0.0.1:1"),))
    upstreams = UpstreamSet(config, Metrics(), tasks)
    yield upstreams["docker.io"].own
    await upstreams.close()


def order(size: int | None, missing: list[Span] | None = None, fill: FillSettings = FILL) -> DownloadOrder:
    limits = PlanLimits(first_span=200)
    return DownloadOrder(
        Repository("docker.io", "library/x"), Digest.of(b"x"), size, missing, True, fill, limits
    )


async def test_first_span_of_a_blob_of_unknown_size(source: Source) -> None:
    """A range, whose response has the size; the whole blob where ranges are refused or of no use."""
    assert order(None).first_span(source) == Span(0, 200)
    assert order(None).first_span(source, without_range=True) == Span(0, ENDLESS)
    single = FILL.model_copy(update={"parallel": 1})
    assert order(None, fill=single).first_span(source) == Span(0, ENDLESS)
    source.ranges.refuse()
    assert order(None).first_span(source) == Span(0, ENDLESS)


async def test_first_span_of_a_blob_of_known_size(source: Source) -> None:
    """A small blob in one request; of a large blob as much as the planner gives to one connection."""
    assert order(100).first_span(source) == Span(0, 100)
    assert order(1000).first_span(source) == Span(0, 200)
    source.ranges.refuse()
    assert order(1000).first_span(source) == Span(0, 1000)


async def test_first_span_of_a_resumed_download(source: Source) -> None:
    """The first gap, up to the end of a chunk where several connections share the rest."""
    assert order(1000, [Span(5, 50), Span(60, 100)]).first_span(source) == Span(5, 50)
    assert order(1000, [Span(5, 1000)]).first_span(source) == Span(5, 200)
    assert order(1000, [Span(5, 30), Span(40, 1000)]).first_span(source) == Span(5, 30)


async def test_download_order_log_fields(source: Source) -> None:
    """Source, repository and digest of a request."""
    assert order(1).log_fields(source) == {
        "source": source.name,
        "repository": "docker.io/library/x",
        "digest": str(Digest.of(b"x")),
    }

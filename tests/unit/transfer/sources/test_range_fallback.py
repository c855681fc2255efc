"""The way back from a range to the plain request."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from mirror.config.schema import CacheSettings, Config
from mirror.metrics.metrics import Metrics
from mirror.oci.ranges import Span
from mirror.transfer.sources.range_fallback import REREAD_BYTES, RangeFallback
from mirror.upstream.body import BlobBody, BodyReaders
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.source import Source
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.tasks import Tasks
from tests.fakes.upstream import settings

SPAN = Span(10, 20)
REFUSED = UpstreamError(Failure.INVALID, "refused", status=400)
BROKEN = UpstreamError(Failure.UNREACHABLE, "broken")


@pytest.fixture
def source(tmp_path: Path, tasks: Tasks) -> Source:
    config = Config(cache=CacheSettings(dir=tmp_path), upstreams=(settings("http://127.0.0.1:1"),))
    return UpstreamSet(config, Metrics(), tasks)["docker.io"].own


def whole(total: int | None = 100) -> BlobBody:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b""

    return BlobBody("x", BodyReaders(chunks, lambda: None), (0, total), total, whole=True)


async def test_refused_range_is_remembered_once_the_plain_request_is_answered(source: Source) -> None:
    ranges = RangeFallback()
    assert not ranges.plain(source)
    assert ranges.record_failure(source, SPAN, REFUSED)
    assert ranges.plain(source)
    assert source.ranges.available
    assert ranges.accept_whole(source, whole(), 10)
    assert not source.ranges.available
    assert RangeFallback().plain(source)


async def test_failure_of_everything_says_nothing_about_ranges(source: Source) -> None:
    """A rate limit, an offline mirror, and a source whose plain answer fails as well."""
    ranges = RangeFallback()
    for failure in (Failure.RATE_LIMITED, Failure.OFFLINE):
        assert not ranges.record_failure(source, SPAN, UpstreamError(failure, ""))
    assert ranges.record_failure(source, SPAN, BROKEN)
    ranges.record_plain_failure(source)
    assert not ranges.plain(source)


async def test_temporary_failure_after_good_ranges(source: Source) -> None:
    """The range is asked for again, as long as the transfer survives another failure."""
    ranges = RangeFallback()
    ranges.record_range(source)
    assert not ranges.record_failure(source, SPAN, BROKEN)
    assert ranges.record_failure(source, SPAN, BROKEN, last=True)
    ranges.record_range(source)
    assert ranges.record_failure(source, SPAN, REFUSED)


async def test_range_that_ends_after_the_blob_is_not_held_against_others(source: Source) -> None:
    ranges, too_long = RangeFallback(), UpstreamError(Failure.INVALID, "", status=416)
    ranges.record_failure(source, Span(0, 200), too_long)
    assert ranges.accept_whole(source, whole(100), 0)
    assert source.ranges.available
    assert not ranges.plain(source)


async def test_much_is_read_past_only_after_a_second_range(source: Source) -> None:
    """A restart of the source looks like a failed range: gigabytes are not read again for that."""
    ranges = RangeFallback()
    ranges.record_failure(source, SPAN, BROKEN)
    assert not ranges.accept_whole(source, whole(), REREAD_BYTES + 1)
    assert not ranges.plain(source)
    ranges.record_failure(source, SPAN, BROKEN)
    assert ranges.accept_whole(source, whole(), REREAD_BYTES + 1)
    assert not source.ranges.available

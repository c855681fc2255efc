"""Corruption tracking: the source of wrong bytes is known once the right blob is here."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.config.endpoints import SourceSettings
from mirror.config.schema import CacheSettings, Config
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.oci.reference import Repository
from mirror.store.memory.store import MemoryStore
from mirror.store.partial.growing_writer import GrowingWriter
from mirror.transfer import corruption
from mirror.transfer.corruption import CorruptionTracker, Parts, sole_supplier
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.health import FAILURES
from mirror.upstream.source import Source
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.tasks import Tasks
from tests.fakes.faults import flipped
from tests.fakes.upstream import settings

RIGHT = bytes(range(256)) * 1024
THIRD = len(RIGHT) // 3
REPOSITORY = Repository("docker.io", "library/x")


@pytest.fixture
async def sources(tmp_path: Path, tasks: Tasks) -> AsyncIterator[tuple[Source, ...]]:
    """An upstream's own endpoint and two mirrors."""
    mirrors = tuple(SourceSettings(url=f"http://127.0.0.1:{port}") for port in (2, 3))
    upstream = settings("http://127.0.0.1:1", sources=mirrors)
    upstreams = UpstreamSet(
        Config(cache=CacheSettings(dir=tmp_path), upstreams=(upstream,)), Metrics(), tasks
    )
    yield upstreams["docker.io"].sources
    await upstreams.close()


@pytest.fixture
async def writer() -> AsyncIterator[GrowingWriter]:
    """A growing file that is to become RIGHT."""
    store = await MemoryStore.open()
    partial, _ = await store.transfers.lock_partial(REPOSITORY, Digest.of(RIGHT))
    assert partial is not None
    yield await store.transfers.open_growing_file(partial, len(RIGHT), 64 * 1024)
    await store.transfers.release_partial(partial)
    await store.close()


async def test_corruption_verdicts_by_part(sources: tuple[Source, ...], writer: GrowingWriter) -> None:
    """A part that differs in the right blob convicts its source; equal parts clear theirs."""
    own, first, second = sources
    parts: Parts = {
        own: [Span(0, THIRD)],
        first: [Span(THIRD, 2 * THIRD)],
        second: [Span(2 * THIRD, len(RIGHT))],
    }
    tracker = CorruptionTracker()
    await writer.write(0, [flipped(RIGHT, THIRD + 7)])
    await tracker.record_parts(writer.verifier, parts)
    await writer.restart()
    await writer.write(0, [RIGHT])
    assert await tracker.verdicts(writer.verifier) == {own: False, first: True, second: False}
    assert await tracker.verdicts(writer.verifier) == {}


async def test_corruption_tracker_is_bounded(
    sources: tuple[Source, ...], writer: GrowingWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest corrupt blob is forgotten first."""
    tracker = CorruptionTracker()
    await writer.write(0, [RIGHT])
    monkeypatch.setattr(corruption, "MOST", 1)
    await tracker.record_parts(writer.verifier, {sources[0]: [Span(0, 1)]})
    tracker.record_culprit(Digest.of(b"another one"), sources[1])
    assert tracker.sources_to_try(writer.file.digest, sources) == []
    assert await tracker.verdicts(writer.verifier) == {}


async def test_corruption_tries_sources_one_by_one(
    sources: tuple[Source, ...], writer: GrowingWriter
) -> None:
    """One after another, until the blob is right, or all were wrong; a right blob leaves no suspicion."""
    own, first, second = sources
    tracker = CorruptionTracker()
    assert tracker.sources_to_try(writer.file.digest, sources) == []
    await writer.write(0, [flipped(RIGHT)])
    await tracker.record_parts(writer.verifier, {own: [Span(0, THIRD)], first: [Span(THIRD, len(RIGHT))]})
    assert tracker.sources_to_try(writer.file.digest, sources) == [own, first, second]
    assert tracker.record_culprit(writer.file.digest, own) == [first]
    first.record_failure(UpstreamError(Failure.UNREACHABLE, "down"), FAILURES)
    assert tracker.sources_to_try(writer.file.digest, sources) == [second, first]
    assert tracker.record_culprit(writer.file.digest, second) == [first]
    assert tracker.sources_to_try(writer.file.digest, sources) == [first]
    await writer.restart()
    await writer.write(0, [RIGHT])
    assert await tracker.verdicts(writer.verifier) == {first: False}
    assert tracker.sources_to_try(writer.file.digest, sources) == []


def test_corruption_retries_end(sources: tuple[Source, ...]) -> None:
    """Once all sources have been asked, the blob is treated as if nothing were known."""
    tracker, digest = CorruptionTracker(), Digest.of(b"wrong")
    for source in sources:
        tracker.record_culprit(digest, source)
    assert tracker.sources_to_try(digest, sources) == []


def test_sole_supplier_is_the_culprit(sources: tuple[Source, ...]) -> None:
    """Unless some parts were here before: an earlier process may have had them from any source."""
    own, first, _ = sources
    assert sole_supplier({own: [Span(0, 60), Span(60, 100)]}, 100) is own
    assert sole_supplier({own: [Span(60, 100)]}, 100) is None
    assert sole_supplier({own: [Span(0, 60)], first: [Span(60, 100)]}, 100) is None

"""Doubts: who sent the wrong bytes is found out when the right ones are here."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.config.endpoints import SourceSettings
from mirror.config.schema import CacheSettings, Config
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.oci.reference import Repository
from mirror.store.partial.growing import GrowingFile
from mirror.store.store import Store
from mirror.transfer import corruption
from mirror.transfer.corruption import CorruptionTracker, sole_supplier
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
async def growing(tmp_path: Path) -> AsyncIterator[GrowingFile]:
    """A file that is to become RIGHT."""
    store = await Store.open(tmp_path / "store")
    partial, _ = await store.lock_partial(REPOSITORY, Digest.of(RIGHT))
    assert partial is not None
    yield await store.open_growing_file(partial, len(RIGHT), 64 * 1024)
    await store.release_partial(partial)
    await store.close()


async def test_the_liar_is_told_from_the_others(sources: tuple[Source, ...], growing: GrowingFile) -> None:
    """By the part that is other in the right blob; those that are the same clear who brought them."""
    own, first, second = sources
    parts = {own: [Span(0, THIRD)], first: [Span(THIRD, 2 * THIRD)], second: [Span(2 * THIRD, len(RIGHT))]}
    kept = CorruptionTracker()
    await growing.write(0, [flipped(RIGHT, THIRD + 7)])
    await kept.record_parts(growing, parts)
    await growing.restart()
    await growing.write(0, [RIGHT])
    assert await kept.verdicts(growing) == {own: False, first: True, second: False}
    assert await kept.verdicts(growing) == {}


async def test_only_so_many_are_remembered(
    sources: tuple[Source, ...], growing: GrowingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest doubt is given up first."""
    kept = CorruptionTracker()
    await growing.write(0, [RIGHT])
    monkeypatch.setattr(corruption, "MOST", 1)
    await kept.record_parts(growing, {sources[0]: [Span(0, 1)]})
    kept.record_culprit(Digest.of(b"another one"), sources[1])
    assert kept.sources_to_try(growing.digest, sources) == []
    assert await kept.verdicts(growing) == {}


async def test_those_who_were_not_wrong_are_asked_alone(
    sources: tuple[Source, ...], growing: GrowingFile
) -> None:
    """One after another, until it is right, or all were wrong; of what was right nobody is doubted."""
    own, first, second = sources
    kept = CorruptionTracker()
    assert kept.sources_to_try(growing.digest, sources) == []
    await growing.write(0, [flipped(RIGHT)])
    await kept.record_parts(growing, {own: [Span(0, THIRD)], first: [Span(THIRD, len(RIGHT))]})
    assert kept.sources_to_try(growing.digest, sources) == [own, first, second]
    assert kept.record_culprit(growing.digest, own) == [first]
    first.record_failure(UpstreamError(Failure.UNREACHABLE, "down"), FAILURES)
    assert kept.sources_to_try(growing.digest, sources) == [second, first]
    assert kept.record_culprit(growing.digest, second) == [first]
    assert kept.sources_to_try(growing.digest, sources) == [first]
    await growing.restart()
    await growing.write(0, [RIGHT])
    assert await kept.verdicts(growing) == {first: False}
    assert kept.sources_to_try(growing.digest, sources) == []


def test_nobody_is_asked_for_ever(sources: tuple[Source, ...]) -> None:
    """Once all have had their turn it is as if nothing were known."""
    kept, digest = CorruptionTracker(), Digest.of(b"wrong")
    for source in sources:
        kept.record_culprit(digest, source)
    assert kept.sources_to_try(digest, sources) == []


def test_who_brought_everything_needs_no_comparison(sources: tuple[Source, ...]) -> None:
    """Unless something was here before: an earlier process may have had it from anybody."""
    own, first, _ = sources
    assert sole_supplier({own: [Span(0, 60), Span(60, 100)]}, 100) is own
    assert sole_supplier({own: [Span(60, 100)]}, 100) is None
    assert sole_supplier({own: [Span(0, 60)], first: [Span(60, 100)]}, 100) is None

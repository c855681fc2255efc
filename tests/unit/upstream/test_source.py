"""One source: what it costs when it gives no answer, and whom."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.config.schema import CacheSettings, Config
from mirror.metrics.metrics import Metrics
from mirror.oci.reference import Tag
from mirror.upstream.errors import UpstreamError
from mirror.upstream.http_client import DirectLocation
from mirror.upstream.source import Source
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.tasks import Tasks
from tests.fakes.registry import FakeRegistry
from tests.fakes.upstream import settings

T = Tag("t")


@pytest.fixture
async def fake() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        yield fake


@pytest.fixture
async def source(
    fake: FakeRegistry, tmp_path: Path, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Source]:
    """The own endpoint of docker.io, which is `fake`; left alone for longer than a test takes."""
    monkeypatch.setattr("mirror.upstream.health.FIRST_PAUSE", 60.0)
    config = Config(cache=CacheSettings(dir=tmp_path), upstreams=(settings(fake.url, attempts=1),))
    upstreams = UpstreamSet(config, Metrics(), tasks)
    yield upstreams["docker.io"].own
    await upstreams.close()


async def ask(source: Source) -> str:
    """What came of a question: an answer, or that the source is not asked."""
    try:
        await source.head_manifest("x", T)
    except UpstreamError as error:
        return "refused" if "tried again soon" in error.message else error.failure.value
    return "answered"


async def test_who_comes_after_one_that_waited_in_vain_does_not_wait(
    fake: FakeRegistry, source: Source
) -> None:
    """For a while; and what was being asked may still be answered, which ends it."""
    fake.add_image("x", "t", [])
    gate = fake.hold("manifests/t", after=-1, method="HEAD")
    asking = asyncio.ensure_future(ask(source))
    await gate.reached.wait()
    source.report_timeout(0.0)
    assert await ask(source) == "refused"
    with pytest.raises(UpstreamError, match="tried again soon"):
        source.raise_if_unresponsive()
    gate.release()
    assert await asking == "answered"
    assert await ask(source) == "answered"


async def test_it_is_not_silent_that_answers_others(fake: FakeRegistry, source: Source) -> None:
    """One question that hangs, asked before the last answer, says nothing about the source."""
    image = fake.add_image("x", "t", [b"layer"])
    gate = fake.hold("manifests/t", after=-1, method="HEAD")
    asking = asyncio.ensure_future(ask(source))
    await gate.reached.wait()
    async with source.open_blob("x", image.layers[0], (0, None), DirectLocation()):
        source.report_timeout(0.0)
    assert await ask(source) == "answered"
    gate.release()
    assert await asking == "answered"


async def test_it_is_not_silent_that_was_not_waited_for(fake: FakeRegistry, source: Source) -> None:
    """A client whose time went elsewhere, or mostly so, does not shut it for others."""
    fake.add_image("x", "t", [])
    source.report_timeout(0.0)
    gate = fake.hold("manifests/t", after=-1, method="HEAD")
    asking = asyncio.ensure_future(ask(source))
    await gate.reached.wait()
    source.report_timeout(3600.0)
    assert await ask(source) == "answered"
    gate.release()
    assert await asking == "answered"

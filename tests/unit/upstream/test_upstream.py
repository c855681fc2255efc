"""Sources of one upstream."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirror.config.endpoints import SourceSettings
from mirror.config.schema import CacheSettings, Config, FillSettings
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Tag
from mirror.upstream.errors import Failure, UpstreamError, WrongBytes
from mirror.upstream.health import FAILURES
from mirror.upstream.http_client import DirectLocation
from mirror.upstream.registry_client import RegistryClient
from mirror.upstream.source import Source
from mirror.upstream.upstream import Upstream
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.tasks import Tasks
from tests.fakes.faults import Fault, Gate
from tests.fakes.registry import FakeRegistry
from tests.fakes.upstream import settings


@dataclass
class Two:
    """Own endpoint of an upstream, and a mirror of it that has everything under docker.io/."""

    own: FakeRegistry
    other: FakeRegistry
    upstream: Upstream

    def image_in_both(self) -> Digest:
        self.other.add_image("docker.io/library/a", "latest", [])
        digest = self.own.add_image("library/a", "latest", []).manifest
        mirrored = self.other.repository("docker.io/library/a").manifests
        mirrored.update(self.own.repository("library/a").manifests)
        return digest

    def prefer_other(self, usually: float = 60.0) -> Source:
        """Make the mirror the fastest source; its answers are late after `usually` seconds."""
        for _ in range(20):
            self.upstream.sources[0].health.record_success(600.0)
            self.upstream.sources[1].health.record_success(usually)
        return self.upstream.sources[1]


@pytest.fixture
async def two(tmp_path: Path, tasks: Tasks) -> AsyncIterator[Two]:
    async with AsyncExitStack() as stack:
        own = await stack.enter_async_context(FakeRegistry())
        other = await stack.enter_async_context(FakeRegistry())
        source = SourceSettings(url=other.url, prefix="docker.io", attempts=1)
        config = Config(
            cache=CacheSettings(dir=tmp_path),
            fill=FillSettings(connections=3),
            upstreams=(settings(own.url, sources=(source,), attempts=1, max_connections=2),),
        )
        upstreams = UpstreamSet(config, Metrics(), tasks)
        yield Two(own, other, upstreams["docker.io"])
        await upstreams.close()


async def test_tag_comes_from_the_own_endpoint(two: Two) -> None:
    """A mirror may be days behind, or wrong: only a digest proves itself."""
    digest = two.image_in_both()
    two.prefer_other()
    assert (await two.upstream.get_manifest("library/a", Tag("latest"))).digest == digest
    assert (await two.upstream.head_manifest("library/a", Tag("latest"))).digest == digest
    assert two.other.requests() == 0


async def test_tag_comes_from_a_trusted_source(two: Two) -> None:
    """A source that the configuration trusts with tags counts as much as the upstream."""
    two.image_in_both()
    digest = two.other.repository("docker.io/library/a").tags["latest"]
    two.prefer_other().trusted_for_tags = True
    assert str((await two.upstream.get_manifest("library/a", Tag("latest"))).digest) == digest
    assert str((await two.upstream.head_manifest("library/a", Tag("latest"))).digest) == digest
    assert two.own.requests() == 0
    with pytest.raises(UpstreamError, match="404"):
        await two.upstream.head_manifest("library/a", Tag("other"))


async def test_tag_of_a_failing_upstream_comes_from_no_other_source(two: Two) -> None:
    """No other source is asked for tags unless the configuration says so."""
    two.image_in_both()
    two.own.fault(Fault(status=503), times=99)
    for _ in range(FAILURES + 1):
        with pytest.raises(UpstreamError, match="503"):
            await two.upstream.head_manifest("library/a", Tag("latest"))
    assert two.other.requests() == 0


async def test_small_request_overtakes_blobs(two: Two, tasks: Tasks) -> None:
    """A tag can be revalidated while all slots for blobs are taken."""
    two.image_in_both()
    digest = two.own.add_blob("library/a", b"blob")
    gates = [two.own.hold(digest, after=1) for _ in range(3)]
    own = two.upstream.own

    async def fetch() -> int:
        async with (
            own.slots.hold(),
            own.open_blob("library/a", digest, (0, None), DirectLocation()) as body,
        ):
            return sum([len(piece) async for piece in body.chunks()])

    fetching = [tasks.spawn(fetch(), name="fetch") for _ in gates]
    await gates[0].reached.wait()
    assert (own.slots.saturated, own.slots.active) == (True, 1)
    assert await two.upstream.head_manifest("library/a", Tag("latest"))
    for gate in gates:
        gate.release()
    assert await asyncio.gather(*fetching) == [4, 4, 4]


async def test_manifest_by_digest_comes_from_the_fastest_source(two: Two) -> None:
    """The source is asked under its own prefix."""
    digest = two.image_in_both()
    two.prefer_other()
    assert (await two.upstream.get_manifest("library/a", digest)).digest == digest
    assert two.own.requests() == 0
    assert two.other.requests("GET", f"/v2/docker.io/library/a/manifests/{digest}") == 1


async def test_manifest_that_one_source_lacks_comes_from_another(two: Two) -> None:
    """A manifest that all sources lack is reported in the words of the upstream itself."""
    digest = two.own.add_image("library/a", "latest", []).manifest
    two.prefer_other()
    assert (await two.upstream.get_manifest("library/a", digest)).digest == digest
    with pytest.raises(UpstreamError) as caught:
        await two.upstream.get_manifest("library/a", Digest.of(b"nowhere"))
    assert caught.value.failure is Failure.NOT_FOUND


async def test_corrupt_source_is_not_used(two: Two) -> None:
    """Wrong manifests and small blobs count alike; the upstream itself stays in use."""
    digest = two.image_in_both()
    other = two.prefer_other()
    two.other.fault(Fault(data=b"{}"), times=9)
    assert (await two.upstream.get_manifest("library/a", digest)).digest == digest
    assert not other.health.usable(time.monotonic())

    blob = two.own.add_blob("library/a", b"blob")
    two.own.fault(Fault(data=b"bloB"))
    with pytest.raises(WrongBytes):
        await two.upstream.get_blob("library/a", blob, 100)
    assert two.other.requests("GET", blob) == 0
    assert await two.upstream.get_blob("library/a", blob, 100) == b"blob"


async def test_hedged_request_to_the_next_source(two: Two) -> None:
    """A source later than usual: the next one is asked too, and the first answer is taken."""
    digest = two.image_in_both()
    two.prefer_other(usually=0.0)
    gate = two.other.hold(digest, after=-1)
    assert (await two.upstream.get_manifest("library/a", digest)).digest == digest
    assert gate.reached.is_set()
    assert (two.own.requests("GET", digest), two.other.requests("GET", digest)) == (1, 1)
    gate.release()


async def test_head_blob_of_another_source_while_the_upstream_fails(two: Two) -> None:
    """The upstream's 404 counts, its failure does not."""
    digest = two.other.add_blob("docker.io/library/a", b"x")
    with pytest.raises(UpstreamError, match="404"):
        await two.upstream.head_blob("library/a", digest)
    two.own.fault(Fault(status=503), times=9)
    assert await two.upstream.head_blob("library/a", digest) == 1
    with pytest.raises(UpstreamError, match="503"):
        await two.upstream.head_blob("library/a", Digest.of(b"nowhere"))


async def test_breaker_keeps_a_failing_source_out_of_use(two: Two) -> None:
    """Only the other sources are asked after failures in a row; all are if all fail."""
    two.other.fault(Fault(status=503), times=2 * FAILURES)  # of HEAD and GET
    for _ in range(FAILURES):
        with pytest.raises(UpstreamError):
            await two.upstream.sources[1].head_blob("library/a", Digest.of(b"x"))
    assert two.upstream.usable_sources() == [two.upstream.own]
    for _ in range(FAILURES):
        two.upstream.own.record_failure(UpstreamError(Failure.TIMEOUT, "late"))
    assert set(two.upstream.usable_sources()) == set(two.upstream.sources)


async def test_throttled_source_gets_fewer_connections(two: Two) -> None:
    """A 429 halves the connections and prevents a second one for its Retry-After."""
    source = two.upstream.own
    source.concurrency = 8
    source.record_failure(UpstreamError(Failure.RATE_LIMITED, "slow down", retry_after=10))
    now = time.monotonic()
    assert (source.concurrency, source.throttled(now + 5), source.throttled(now + 11)) == (4, True, False)


@pytest.mark.parametrize("known", [True, False])
async def test_breaker_ignores_silence_before_the_last_answer(two: Two, tasks: Tasks, known: bool) -> None:
    """A request without an answer, sent before another one was answered, even with 404, opens no breaker."""
    two.image_in_both()
    begun, over = asyncio.Event(), asyncio.Event()

    async def without_answer(_: RegistryClient) -> None:
        begun.set()
        await over.wait()
        error = UpstreamError(Failure.TIMEOUT, "no byte came for too long")
        error.unanswered = True
        raise error

    async def old() -> None:
        with pytest.raises(UpstreamError):
            await two.upstream.own.ask(without_answer)

    waiting = tasks.spawn(old(), name="old")
    await begun.wait()
    if known:
        assert (await two.upstream.head_manifest("library/a", Tag("latest"))).size
    else:
        with pytest.raises(UpstreamError, match="404"):
            await two.upstream.head_blob("library/a", Digest.of(b"nowhere"))
    over.set()
    await waiting
    assert two.upstream.health.available


async def test_breaker_ignores_transfers_that_hung_before_the_last_answer(
    tmp_path: Path, tasks: Tasks
) -> None:
    """Blobs that were asked for before another request was answered do not count."""
    async with FakeRegistry() as fake:
        config = Config(cache=CacheSettings(dir=tmp_path), upstreams=(settings(fake.url, attempts=1),))
        upstreams = UpstreamSet(config, Metrics(), tasks)
        source = upstreams["docker.io"].own
        digest = fake.add_blob("library/a", b"x")
        gates = [Gate() for _ in range(FAILURES)]
        for gate in gates:
            fake.fault(Fault(hold=gate, after=-1, raw=b""), digest, "GET")
        fake.fault(Fault(raw=b""), digest, "GET", times=FAILURES)  # aiohttp asks once more

        async def hang() -> None:
            with pytest.raises(UpstreamError, match="without an answer"):
                async with source.open_blob("library/a", digest, (0, None), DirectLocation()):
                    raise AssertionError("answered")

        hanging = [tasks.spawn(hang(), name="hang") for _ in gates]
        for gate in gates:
            await gate.reached.wait()
        assert await source.head_blob("library/a", digest) == 1
        for gate in gates:
            gate.release()
        await asyncio.gather(*hanging)
        assert upstreams["docker.io"].health.available
        await upstreams.close()


async def test_corrupt_upstream_is_still_asked_for_tags(two: Two) -> None:
    """There is no other source to ask, and a digest proves itself."""
    two.image_in_both()
    two.upstream.own.report_corruption("sha256:...")
    assert (two.upstream.health.available, two.upstream.health.allows_request) == (True, True)
    assert (await two.upstream.head_manifest("library/a", Tag("latest"))).size

"""One source: timeouts, its breaker, and the log of its outages."""

import asyncio
import os
import resource
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from yarl import URL

from mirror.config.schema import CacheSettings, Config
from mirror.metrics.metrics import Metrics
from mirror.oci.reference import Tag
from mirror.upstream.errors import UpstreamError
from mirror.upstream.health import FAILURES, BreakerState, SourceHealth
from mirror.upstream.http_client import DirectLocation
from mirror.upstream.source import Source
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.tasks import Tasks
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.fakes.tls import Authority
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
    """Own endpoint of docker.io, which is `fake`; its breaker stays open for longer than a test takes."""
    monkeypatch.setattr("mirror.upstream.health.FIRST_PAUSE", 60.0)
    config = Config(cache=CacheSettings(dir=tmp_path), upstreams=(settings(fake.url, attempts=1),))
    upstreams = UpstreamSet(config, Metrics(), tasks)
    yield upstreams["docker.io"].own
    await upstreams.close()


async def ask(source: Source) -> str:
    """Return the outcome of a request: the failure, "answered", or "refused" without a request."""
    try:
        await source.head_manifest("x", T)
    except UpstreamError as error:
        return "refused" if "tried again soon" in error.message else error.failure.value
    return "answered"


async def test_timeout_of_one_client_spares_the_next(fake: FakeRegistry, source: Source) -> None:
    """Requests are refused for a while; the pending one may still be answered, which ends that."""
    fake.add_image("x", "t", [])
    gate = fake.hold("manifests/t", after=-1, method="HEAD")
    asking = asyncio.ensure_future(ask(source))
    await gate.reached.wait()
    source.answers.report_timeout(0.0)
    assert await ask(source) == "refused"
    with pytest.raises(UpstreamError, match="tried again soon"):
        source.answers.raise_if_unresponsive()
    gate.release()
    assert await asking == "answered"
    assert await ask(source) == "answered"


async def test_timeout_does_not_count_for_a_source_that_answers(fake: FakeRegistry, source: Source) -> None:
    """One request that hangs, sent before the last answer, tells nothing about the source."""
    image = fake.add_image("x", "t", [b"layer"])
    gate = fake.hold("manifests/t", after=-1, method="HEAD")
    asking = asyncio.ensure_future(ask(source))
    await gate.reached.wait()
    async with source.open_blob("x", image.layers[0], (0, None), DirectLocation()):
        source.answers.report_timeout(0.0)
    assert await ask(source) == "answered"
    gate.release()
    assert await asking == "answered"


async def test_timeout_does_not_count_for_a_source_that_was_not_waited_for(
    fake: FakeRegistry, source: Source
) -> None:
    """A client whose time went elsewhere, or mostly so, does not open the breaker."""
    fake.add_image("x", "t", [])
    source.answers.report_timeout(0.0)
    gate = fake.hold("manifests/t", after=-1, method="HEAD")
    asking = asyncio.ensure_future(ask(source))
    await gate.reached.wait()
    source.answers.report_timeout(3600.0)
    assert await ask(source) == "answered"
    gate.release()
    assert await asking == "answered"


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the pauses of breakers to zero: each lets a request through at once."""
    monkeypatch.setattr("mirror.upstream.health.FIRST_PAUSE", 0.0)
    monkeypatch.setattr("mirror.upstream.health.LONGEST_PAUSE", 0.0)


async def open_source(stack: AsyncExitStack, tmp_path: Path, tasks: Tasks, url: str) -> Source:
    """Return the own endpoint of docker.io at `url`."""
    config = Config(cache=CacheSettings(dir=tmp_path), upstreams=(settings(url, attempts=1),))
    upstreams = UpstreamSet(config, Metrics(), tasks)
    stack.push_async_callback(upstreams.close)
    return upstreams["docker.io"].own


async def test_outage_is_logged_once_and_its_end_once(
    fake: FakeRegistry, tmp_path: Path, tasks: Tasks, no_pause: None
) -> None:
    """One warning with the reason when the breaker opens, one line when the source answers again."""
    fake.add_image("x", "t", [])
    async with AsyncExitStack() as stack:
        source = await open_source(stack, tmp_path, tasks, fake.url)
        with capture_logs() as lines:
            assert await ask(source) == "answered"
            fake.fault(Fault(status=503), times=2 * 2 * FAILURES)  # of HEAD and GET
            assert [await ask(source) for _ in range(2 * FAILURES)] == ["server_error"] * 2 * FAILURES
            assert [await ask(source), await ask(source)] == ["answered", "answered"]
    down, up = lines
    place = {"upstream": "docker.io", "source": source.name}
    assert down == {
        "event": "source fails, not used until it answers again",
        "log_level": "warning",
        "component": "upstream.source",
        "reason": f"docker.io: {URL(fake.url).authority} answered 503",
        **place,
    }
    assert isinstance(up.pop("seconds"), float)
    assert up == {
        "event": "source answers again",
        "log_level": "info",
        "component": "upstream.source",
        **place,
    }


async def test_outage_of_a_source_that_flaps_is_logged_once(
    fake: FakeRegistry, tmp_path: Path, tasks: Tasks, no_pause: None
) -> None:
    """Nine outages in a row are one warning and one line about its end."""
    fake.add_image("x", "t", [])
    async with AsyncExitStack() as stack:
        source = await open_source(stack, tmp_path, tasks, fake.url)
        with capture_logs() as lines:
            for _ in range(9):
                fake.fault(Fault(status=503), times=2 * FAILURES)
                for _ in range(FAILURES):
                    await ask(source)
                assert await ask(source) == "answered"
    assert [line["log_level"] for line in lines] == ["warning", "info"]


async def test_outage_names_a_refused_connection(
    tmp_path: Path, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused connection opens the breaker at once; the next request is not sent."""
    monkeypatch.setattr("mirror.upstream.health.FIRST_PAUSE", 60.0)
    async with AsyncExitStack() as stack:
        source = await open_source(stack, tmp_path, tasks, "http://127.0.0.1:1")
        with capture_logs() as lines:
            assert await ask(source) == "unreachable"
            assert await ask(source) == "refused"
    assert [line["reason"] for line in lines] == ["docker.io: http://127.0.0.1:1: Connection refused"]


async def test_outage_names_a_certificate_that_is_not_trusted(tmp_path: Path, tasks: Tasks) -> None:
    """The reason says which host, why, and which option to set."""
    authority = await asyncio.to_thread(Authority, tmp_path)
    async with FakeRegistry(tls=authority.server_context()) as fake, AsyncExitStack() as stack:
        source = await open_source(stack, tmp_path, tasks, fake.url)
        with capture_logs() as lines:
            assert await ask(source) == "unreachable"
    (line,) = lines
    assert "the TLS certificate of 127.0.0.1 is not trusted" in line["reason"]
    assert "ca_file" in line["reason"]


async def test_outage_names_a_client_that_waited_too_long(fake: FakeRegistry, source: Source) -> None:
    """A source that hangs is logged as one that does not answer in time."""
    gate = fake.hold("manifests/t", after=-1, method="HEAD")
    asking = asyncio.ensure_future(ask(source))
    await gate.reached.wait()
    with capture_logs() as lines:
        source.answers.report_timeout(0.0)
        source.answers.report_timeout(0.0)
    gate.release()
    await asking
    assert [line["reason"] for line in lines] == ["docker.io: no answer within 0 s"]


async def test_outage_is_not_a_refusal(fake: FakeRegistry, source: Source) -> None:
    """A 404 is an answer: no breaker opens, and nothing is logged."""
    with capture_logs() as lines:
        assert [await ask(source) for _ in range(2 * FAILURES)] == ["not_found"] * 2 * FAILURES
    assert lines == []


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Leave no free descriptor to this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.open(os.devnull, os.O_RDONLY)
    os.close(spare)  # the lowest free one
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_want_of_descriptors_is_no_failure_of_the_source(
    fake: FakeRegistry, host: str, tmp_path: Path, tasks: Tasks
) -> None:
    """Requests that could not be sent open no breaker; the next one is sent and answered."""
    fake.add_image("x", "t", [])
    at = settings(fake.url.replace("127.0.0.1", host), attempts=1)
    upstreams = UpstreamSet(Config(cache=CacheSettings(dir=tmp_path), upstreams=(at,)), Metrics(), tasks)
    source = upstreams["docker.io"].own
    await source.registry.warm_up()
    with no_descriptors():
        assert [await ask(source) for _ in range(FAILURES + 1)] == ["unreachable"] * (FAILURES + 1)
    assert source.health.breaker(time.monotonic()) is BreakerState.CLOSED
    assert not source.answers.unresponsive
    assert await ask(source) == "answered"
    await upstreams.close()


async def test_probe_that_could_not_be_sent_is_not_waited_for() -> None:
    """A half-open breaker lets the next request through in place of one that was not sent."""
    health = SourceHealth(lambda: 0.0)
    health.record_failure(0.0, FAILURES)
    health.record_request(2.0)
    assert not health.allows_request(3.0)
    health.forget_request()
    assert health.allows_request(3.0)

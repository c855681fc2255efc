"""Tags: fresh, revalidated with a HEAD, stale when the upstream fails, gone when deleted."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import Repository, Tag
from mirror.store.metadata.index import TagEntry
from tests.fakes.faults import Fault
from tests.fakes.limit import RateLimit
from tests.fakes.registry import FakeRegistry
from tests.running import NEVER, Running, configured, serving
from tests.wire import Reply, get, head

TAG = "/v2/docker.io/library/x/manifests/t"


def is_stale(reply: Reply) -> bool:
    return reply.status == 200 and reply.headers.get("warning", "").startswith("110 ")


async def test_tag_fresh_is_served_without_a_request(hub: FakeRegistry, mirror: Running) -> None:
    """GET and HEAD are answered from the cache within `fresh`, without a warning."""
    image = hub.add_image("library/x", "t", [b"a"])
    await get(mirror.address, TAG)
    asked = len(hub.log)
    reply = await get(mirror.address, TAG)
    assert (reply.body, "warning" in reply.headers) == (image.manifest_data, False)
    assert (await head(mirror.address, TAG)).header("docker-content-digest") == str(image.manifest)
    assert len(hub.log) == asked


async def test_tag_revalidation_uses_head(hub: FakeRegistry, forgetful: Running) -> None:
    """HEAD is free of Docker Hub's rate limit; an unchanged tag costs no GET."""
    image = hub.add_image("library/x", "t", [b"a"])
    for _ in range(3):
        assert (await get(forgetful.address, TAG)).body == image.manifest_data
    assert (hub.requests("GET"), hub.requests("HEAD")) == (1, 2)


async def test_tag_revalidation_follows_a_moved_tag(hub: FakeRegistry, forgetful: Running) -> None:
    """The HEAD has a new digest, and a GET by tag tells the new manifest."""
    hub.add_image("library/x", "t", [b"a"])
    await get(forgetful.address, TAG)
    moved = hub.add_image("library/x", "t", [b"b"])
    assert (await get(forgetful.address, TAG)).body == moved.manifest_data
    assert (hub.requests("GET", "manifests/t"), hub.requests("GET", moved.manifest)) == (2, 0)


async def test_tag_revalidated_is_repeated_no_longer_than_it_is_fresh(
    hub: FakeRegistry, forgetful: Running
) -> None:
    """The same request again and again: the response cache must not answer what the upstream is asked for."""
    hub.add_image("library/x", "t", [b"a"])
    for _ in range(4):
        await get(forgetful.address, TAG)
    assert hub.requests("HEAD") == 3
    moved = hub.add_image("library/x", "t", [b"b"])
    assert (await get(forgetful.address, TAG)).body == moved.manifest_data


async def test_tag_head_and_then_get_by_digest(hub: FakeRegistry, mirror: Running) -> None:
    """A HEAD of an unknown tag is a GET upstream; the GETs that follow are answered from the cache."""
    image = hub.add_image("library/x", "t", [b"a"])
    reply = await head(mirror.address, TAG)
    assert reply.header("content-length") == str(len(image.manifest_data))
    assert reply.header("content-type") == OCI_MANIFEST
    assert (await get(mirror.address, TAG)).body == image.manifest_data
    assert (hub.requests("GET"), hub.requests("HEAD")) == (1, 0)


async def test_tag_head_is_a_head_where_pulls_count(hub: FakeRegistry, mirror: Running) -> None:
    """An upstream that reports a rate limit is asked with a HEAD, whose word is kept for a new tag."""
    hub.limit = RateLimit(limit=100)
    hub.add_image("library/x", "known", [b"a"])
    image = hub.add_image("library/x", "t", [b"a"])
    await get(mirror.address, TAG.replace("/t", "/known"))
    reply = await head(mirror.address, TAG)
    assert reply.header("docker-content-digest") == str(image.manifest)
    assert (hub.requests("GET", "manifests/t"), hub.requests("HEAD")) == (0, 1)
    by_digest = TAG.replace("/t", f"/{image.manifest}")
    assert (await get(mirror.address, by_digest)).body == image.manifest_data
    hub.fault(Fault(status=429), "manifests", times=9)
    assert (await head(mirror.address, TAG)).status == 200
    assert (await get(mirror.address, TAG)).body == image.manifest_data
    assert (hub.requests("GET", "manifests/t"), hub.requests("HEAD")) == (0, 1)


async def test_tag_head_without_a_digest_becomes_a_get(hub: FakeRegistry, mirror: Running) -> None:
    """The digest is then computed from the bytes."""
    hub.digest_header = False
    image = hub.add_image("library/x", "t", [b"a"])
    assert (await head(mirror.address, TAG)).header("docker-content-digest") == str(image.manifest)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_tag_stale_while_the_upstream_fails(hub: FakeRegistry, forgetful: Running, status: int) -> None:
    """The known manifest is served, with a warning that it is not confirmed."""
    image = hub.add_image("library/x", "t", [b"a"])
    await get(forgetful.address, TAG)
    hub.fault(Fault(status=status), "manifests/t", times=2 if status == 429 else 4)
    reply = await get(forgetful.address, TAG)
    assert is_stale(reply)
    assert reply.body == image.manifest_data
    assert is_stale(await head(forgetful.address, TAG))
    assert await forgetful.metric('registry_mirror_requests_total{kind="manifest",outcome="stale"}') == 2


async def test_tag_stale_after_fallback_time(hub: FakeRegistry, impatient: Running) -> None:
    """A client with a fallback waits no longer than `fallback_after`; the request goes on."""
    image = hub.add_image("library/x", "t", [b"a"])
    await get(impatient.address, TAG)
    gate = hub.hold("manifests/t", after=-1, method="HEAD")
    assert is_stale(await get(impatient.address, TAG))
    assert is_stale(await head(impatient.address, TAG))
    assert hub.requests("HEAD") == 1
    gate.release()
    assert (await get(impatient.address, TAG)).body == image.manifest_data


@pytest.mark.parametrize("method", [get, head])
async def test_tag_without_a_fallback_waits_for_a_slow_upstream(
    hub: FakeRegistry, impatient: Running, method: Callable[[str, str], Awaitable[Reply]]
) -> None:
    """The manifest of a known tag is not here: the client waits as for an unknown tag, for one request."""
    image = hub.add_image("library/x", "t", [b"a"])
    known = TagEntry(str(image.manifest), OCI_MANIFEST, len(image.manifest_data), time.time())
    await impatient.service._store.metadata.put_tag(Repository("docker.io", "library/x"), Tag("t"), known)
    gate = hub.hold("manifests/t", after=-1, method="HEAD")
    asking = asyncio.ensure_future(method(impatient.address, TAG))
    await gate.reached.wait()
    over, _ = await asyncio.wait([asking], timeout=0.3)
    assert not over
    gate.release()
    assert ((await asking).status, hub.requests("HEAD")) == (200, 1)


async def test_tag_deleted_upstream_is_not_served_stale(hub: FakeRegistry, forgetful: Running) -> None:
    """404 is an answer, not a failure: the old manifest is not served in its place."""
    hub.add_image("library/x", "t", [b"a"])
    await get(forgetful.address, TAG)
    del hub.repository("library/x").tags["t"]
    assert (await get(forgetful.address, TAG)).status == 404
    assert (await head(forgetful.address, TAG)).status == 404


async def test_tag_moved_to_an_unavailable_manifest_keeps_the_old_one(
    hub: FakeRegistry, forgetful: Running
) -> None:
    """The HEAD works and the GET is rate limited: the previous image is better than none."""
    old = hub.add_image("library/x", "t", [b"a"])
    await get(forgetful.address, TAG)
    new = hub.add_image("library/x", "t", [b"b"])
    hub.fault(Fault(status=429), "manifests/t", "GET", times=2)
    for _ in range(2):
        reply = await get(forgetful.address, TAG)
        assert is_stale(reply)
        assert reply.body == old.manifest_data
    assert (await get(forgetful.address, TAG)).body == new.manifest_data


async def test_tag_head_of_a_moved_tag_keeps_the_old_image(hub: FakeRegistry, forgetful: Running) -> None:
    """containerd HEADs first: the new digest is reported, and stored once its manifest is here."""
    hub.limit = RateLimit(limit=100)
    old = hub.add_image("library/x", "t", [b"a"])
    await get(forgetful.address, TAG)
    new = hub.add_image("library/x", "t", [b"b"])
    assert (await head(forgetful.address, TAG)).header("docker-content-digest") == str(new.manifest)
    hub.fault(Fault(status=503), "manifests/t", times=2)
    assert (await get(forgetful.address, TAG)).body == old.manifest_data
    await get(forgetful.address, f"/v2/docker.io/library/x/manifests/{new.manifest}")
    await head(forgetful.address, TAG)
    hub.fault(Fault(status=503), "manifests/t")
    assert (await get(forgetful.address, TAG)).body == new.manifest_data


async def test_tag_that_is_not_cached_reports_the_failure(hub: FakeRegistry, forgetful: Running) -> None:
    """A prefix leaves no other mirror to try: the status is the upstream's, with its Retry-After."""
    hub.add_image("library/x", "t", [b"a"])
    hub.fault(Fault(status=429, headers={"Retry-After": "77"}), "manifests/t", times=2)
    reply = await get(forgetful.address, TAG)
    assert (reply.status, reply.header("retry-after")) == (429, "77")
    root = await get(forgetful.address, "/v2/library/x/manifests/t")
    assert root.status == 404
    assert b"429" in root.body


class Clock:
    """Seconds since the epoch, set by the test."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def with_terms(hub: FakeRegistry, cache: Path, clock: Clock, **terms: object) -> AsyncIterator[Running]:
    tags = {"fresh": 60, "fallback_after": NEVER, **terms}
    async with serving(configured(cache, {"docker.io": hub.url}, tags=tags), clock) as running:
        yield running


async def test_tag_stale_while_revalidate(hub: FakeRegistry, tmp_path: Path, clock: Clock) -> None:
    """No client waits within stale_while_revalidate; the next one has the new answer."""
    async with with_terms(hub, tmp_path, clock, stale_while_revalidate=10) as mirror:
        old = hub.add_image("library/x", "t", [b"a"])
        await get(mirror.address, TAG)
        new = hub.add_image("library/x", "t", [b"b"])
        clock.now += 65
        gate = hub.hold("manifests/t", after=-1, method="HEAD")
        reply = await get(mirror.address, TAG)
        assert (reply.body, is_stale(reply), reply.header("age")) == (old.manifest_data, True, "65")
        await gate.reached.wait()
        gate.release()
        while is_stale(reply):
            reply = await get(mirror.address, TAG)
        assert reply.body == new.manifest_data
        assert hub.requests("HEAD", "manifests/t") == 1


async def test_tag_older_than_stale_while_revalidate_is_revalidated_first(
    hub: FakeRegistry, tmp_path: Path, clock: Clock
) -> None:
    """A tag that has not been used for long is not served stale when the upstream answers."""
    async with with_terms(hub, tmp_path, clock, stale_while_revalidate=10) as mirror:
        hub.add_image("library/x", "t", [b"a"])
        await get(mirror.address, TAG)
        new = hub.add_image("library/x", "t", [b"b"])
        clock.now += 71
        assert (await get(mirror.address, TAG)).body == new.manifest_data


async def test_tag_older_than_stale_if_error_is_an_error(
    hub: FakeRegistry, tmp_path: Path, clock: Clock
) -> None:
    """stale_if_error has an end, if the operator wants one."""
    async with with_terms(hub, tmp_path, clock, stale_if_error=100) as mirror:
        hub.add_image("library/x", "t", [b"a"])
        await get(mirror.address, TAG)
        hub.fault(Fault(status=503), "manifests/t", times=8)
        clock.now += 159
        assert is_stale(await get(mirror.address, TAG))
        assert is_stale(await head(mirror.address, TAG))
        clock.now += 1
        assert (await get(mirror.address, TAG)).status == 424
        assert (await head(mirror.address, TAG)).status == 424


async def test_tag_immutable_is_never_revalidated(hub: FakeRegistry, tmp_path: Path, clock: Clock) -> None:
    """One request, the first one, whatever the age."""
    async with with_terms(hub, tmp_path, clock, immutable=["t"]) as mirror:
        image = hub.add_image("library/x", "t", [b"a"])
        await get(mirror.address, TAG)
        asked = len(hub.log)
        clock.now += 10**8
        assert (await get(mirror.address, TAG)).body == image.manifest_data
        assert len(hub.log) == asked


async def test_tag_confirmed_in_the_future_is_revalidated(
    hub: FakeRegistry, tmp_path: Path, clock: Clock
) -> None:
    """A clock that was set back makes nothing fresh, and loses nothing."""
    async with with_terms(hub, tmp_path, clock) as mirror:
        image = hub.add_image("library/x", "t", [b"a"])
        await get(mirror.address, TAG)
        clock.now -= 10**6
        assert (await get(mirror.address, TAG)).body == image.manifest_data
        assert hub.requests("HEAD", "manifests/t") == 1
        clock.now -= 10**6
        hub.fault(Fault(status=503), "manifests/t", times=2)
        reply = await get(mirror.address, TAG)
        assert (is_stale(reply), reply.header("age")) == (True, "0")


async def test_tag_stale_at_once_while_the_upstream_is_unresponsive(
    hub: FakeRegistry, tmp_path: Path, clock: Clock
) -> None:
    """The first client waits; later ones get the stale answer at once, and the upstream is probed."""
    async with with_terms(hub, tmp_path, clock, fallback_after=0.05, serve_incomplete=True) as mirror:
        image = hub.add_image("library/x", "t", [b"a"])
        await get(mirror.address, TAG)
        clock.now += 61
        hub.fault(Fault(raw=b""), "manifests/t", times=4)
        assert is_stale(await get(mirror.address, TAG))
        upstream = mirror.service._upstreams["docker.io"]
        while upstream.health.available:
            assert is_stale(await get(mirror.address, TAG))
        asked = len(hub.log)
        for method in (get, head):
            assert is_stale(await method(mirror.address, TAG))
        assert len(hub.log) == asked
        missing = await get(mirror.address, "/v2/docker.io/library/x/manifests/other")
        assert (missing.status, b"tried again soon" in missing.body) == (424, True)
        assert len(hub.log) == asked
        upstream.own.health._open_until = 0.0  # some time later
        while is_stale(reply := await get(mirror.address, TAG)):
            pass
        assert reply.body == image.manifest_data

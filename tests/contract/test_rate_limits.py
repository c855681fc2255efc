"""Upstream with Docker Hub's rate limit: the mirror spares it, and provokes no 429."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fakes.access import TokenAuth
from tests.fakes.content import some_layers
from tests.fakes.faults import Fault
from tests.fakes.limit import RateLimit
from tests.fakes.registry import FakeRegistry
from tests.running import NEVER, Running, configured, mirror_of, serving
from tests.wire import Reply, get, head

X = "/v2/docker.io/library/x"
TAG = f"{X}/manifests/t"


class Clock:
    """Clock of a test, in seconds since the epoch."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        yield fake


@asynccontextmanager
async def with_terms(hub: FakeRegistry, cache: Path, clock: Clock, **terms: object) -> AsyncIterator[Running]:
    tags = {"fresh": 60, "fallback_after": NEVER, **terms}
    async with serving(configured(cache, {"docker.io": hub.url}, tags=tags), clock) as running:
        yield running


def is_stale(reply: Reply) -> bool:
    return reply.status == 200 and reply.headers.get("warning", "").startswith("110 ")


def limited(hub: FakeRegistry, used: int) -> RateLimit:
    """Limit the hub to 20 manifests, `used` of them spent; the mirror learns of it with its next request."""
    hub.limit = RateLimit(20)
    hub.limit.used[""] = used
    return hub.limit


@pytest.mark.parametrize(("used", "times"), [(9, 4), (14, 16)])
async def test_rate_limit_stretches_the_ttl_of_tags(
    hub: FakeRegistry, tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str], used: int, times: int
) -> None:
    """An answer beyond `fresh` is stale and says so; the log says why."""
    limited(hub, used)
    async with with_terms(hub, tmp_path, clock) as mirror:
        hub.add_image("library/x", "t", [b"a"])
        await get(mirror.address, TAG)
        clock.now += 59
        assert not is_stale(await get(mirror.address, TAG))
        clock.now += 60 * (times - 1)
        asked = len(hub.log)
        for method in (get, head):
            reply = await method(mirror.address, TAG)
            assert (is_stale(reply), reply.header("age")) == (True, str(60 * times - 1))
        assert capsys.readouterr().out.count("not asked, to save the rate limit of docker.io") == 2
        assert len(hub.log) == asked
        clock.now += 1
        assert not is_stale(await get(mirror.address, TAG))
        assert len(hub.log) == asked + 1


async def test_rate_limit_serves_stale_before_the_first_429(
    hub: FakeRegistry, tmp_path: Path, clock: Clock
) -> None:
    """The last tenth of the limit is for uncached content: cached tags are not revalidated at all."""
    limit = limited(hub, 0)
    async with with_terms(hub, tmp_path, clock, fresh=0) as mirror:
        image = hub.add_image("library/x", "t", [b"a"])
        await get(mirror.address, TAG)
        for number in range(17):
            hub.add_image("library/x", f"t{number}", [b"%d" % number])
            await get(mirror.address, f"{TAG}{number}")
        asked = len(hub.log)
        clock.now += 3600
        for number in range(17):
            assert is_stale(await get(mirror.address, f"{TAG}{number}"))
            assert is_stale(await head(mirror.address, f"{TAG}{number}"))
        assert (await get(mirror.address, TAG)).body == image.manifest_data
        assert (len(hub.log), limit.left(), limit.refused.total()) == (asked, 2, 0)
        new = hub.add_image("library/x", "new", [b"b"])
        reply = await get(mirror.address, "/v2/docker.io/library/x/manifests/new")
        assert (reply.body, limit.left()) == (new.manifest_data, 1)


async def test_rate_limit_retry_after_is_kept(hub: FakeRegistry, tmp_path: Path, clock: Clock) -> None:
    """No request is sent that the cache can answer, after a 429 with Retry-After."""
    async with with_terms(hub, tmp_path, clock) as mirror:
        hub.add_image("library/x", "t", [b"a"])
        await get(mirror.address, TAG)
        hub.fault(Fault(status=429, headers={"Retry-After": "600"}), "manifests/other")
        await get(mirror.address, "/v2/docker.io/library/x/manifests/other")
        clock.now += 61
        asked = len(hub.log)
        assert is_stale(await get(mirror.address, TAG))
        assert len(hub.log) == asked


async def test_rate_limit_does_not_extend_stale_if_error(
    hub: FakeRegistry, tmp_path: Path, clock: Clock
) -> None:
    """`stale_if_error` bounds unconfirmed answers, also while the limit is spared."""
    limited(hub, 18)
    async with with_terms(hub, tmp_path, clock, stale_if_error=100) as mirror:
        hub.add_image("library/x", "t", [b"a"])
        await get(mirror.address, TAG)
        clock.now += 159
        assert is_stale(await get(mirror.address, TAG))
        clock.now += 1
        assert not is_stale(await get(mirror.address, TAG))
        assert hub.requests("HEAD", "manifests/t") == 1


async def test_rate_limit_spares_the_get_of_a_cached_manifest(
    hub: FakeRegistry, tmp_path: Path, clock: Clock
) -> None:
    """A HEAD tells first what a new tag is, while the limit is spared."""
    limit = limited(hub, 9)
    async with with_terms(hub, tmp_path, clock) as mirror:
        image = hub.add_image("library/x", "t", [b"a"])
        await get(mirror.address, TAG)
        hub.repository("library/x").tags["same"] = str(image.manifest)
        reply = await get(mirror.address, "/v2/docker.io/library/x/manifests/same")
        assert (reply.body, limit.left()) == (image.manifest_data, 10)
        other = hub.add_image("library/x", "other", [b"b"])
        reply = await get(mirror.address, "/v2/docker.io/library/x/manifests/other")
        assert (reply.body, limit.left()) == (other.manifest_data, 9)
        assert (await get(mirror.address, "/v2/docker.io/library/x/manifests/none")).status == 404


async def test_rate_limit_does_not_stop_probes_of_a_failing_upstream(
    hub: FakeRegistry, tmp_path: Path, clock: Clock
) -> None:
    """An upstream that is spared is still found to answer again."""
    limited(hub, 9)
    async with with_terms(hub, tmp_path, clock, serve_incomplete=True) as mirror:
        hub.add_image("library/x", "t", [b"a"])
        await get(mirror.address, TAG)
        clock.now += 61
        upstream = mirror.service._upstreams["docker.io"]
        upstream.own.health.record_failure(0.0, 3)
        assert is_stale(await get(mirror.address, TAG))
        while is_stale(await get(mirror.address, TAG)):
            pass
        assert upstream.health.available


@pytest.mark.parametrize(("used", "prefetched"), [(10, True), (14, False), (18, False)])
async def test_rate_limit_stops_prefetch(
    hub: FakeRegistry, tmp_path: Path, used: int, prefetched: bool
) -> None:
    """Prefetch is the first thing that is given up."""
    limited(hub, used)
    image = hub.add_image("library/x", "t", some_layers(2))
    config = configured(tmp_path, {"docker.io": hub.url}, fill={"prefetch": 1})
    async with serving(config) as mirror:
        assert (await get(mirror.address, TAG)).body == image.manifest_data
        for task in [each for each in mirror.service._tasks._running if each.get_name() == "prefetch"]:
            await task
        assert hub.requests("GET", "/blobs/") == (3 if prefetched else 0)
        assert (await get(mirror.address, f"{X}/blobs/{image.layers[0]}")).body == image.layers_data[0]


TWO = {
    "username": "ann",
    "password": "geheim-a",
    "accounts": [{"username": "bob", "password": "geheim-b"}],
    "private": "everybody",
}


async def test_accounts_one_after_the_other(hub: FakeRegistry, tmp_path: Path) -> None:
    """Clients see no 429 as long as one account has requests left; a private repository sees one only."""
    for name in ("library/x", "org/private"):
        for number in range(30):
            hub.add_image(name, f"t{number}", [b"%d" % number])
    hub.auth = TokenAuth(users={"ann": "geheim-a", "bob": "geheim-b"}, private={"org/private"})
    limit = limited(hub, 0)
    async with serving(configured(tmp_path, {"docker.io": hub.url}, upstream=TWO)) as mirror:
        assert (await get(mirror.address, "/v2/docker.io/org/private/manifests/t0")).status == 200
        for number in range(30):
            assert (await get(mirror.address, f"{X}/manifests/t{number}")).status == 200
        assert (limit.left("ann"), limit.left("bob"), limit.refused.total()) == (2, 7, 0)
        statuses = [
            (await get(mirror.address, f"/v2/docker.io/org/private/manifests/t{number}")).status
            for number in range(1, 4)
        ]
        assert statuses == [200, 200, 429]
        assert hub.askers("org/private") == {"ann", ""}
        body = (await get(mirror.address, "/metrics")).body.decode()
        assert 'registry_mirror_ratelimit_remaining{account="ann",upstream="docker.io"} 0.0' in body
        assert 'registry_mirror_ratelimit_remaining{account="bob",upstream="docker.io"} 7.0' in body
        assert "geheim" not in body


async def test_rate_limit_serves_stale_listings(hub: FakeRegistry, tmp_path: Path, clock: Clock) -> None:
    """Cached tags and referrers are served as stale; uncached ones are asked for."""
    limit = limited(hub, 0)
    async with with_terms(hub, tmp_path, clock) as mirror:
        image = hub.add_image("library/x", "t", [b"a"])
        paths = (f"{X}/tags/list", f"{X}/referrers/{image.manifest}")
        await get(mirror.address, TAG)
        assert [is_stale(await get(mirror.address, path)) for path in paths] == [False, False]
        limit.used[""] = 18
        clock.now += 3600
        hub.add_image("library/x", "u", [b"b"])
        await get(mirror.address, f"{X}/manifests/u")
        asked = len(hub.log)
        replies = [await get(mirror.address, path) for path in paths]
        assert [is_stale(reply) for reply in replies] == [True, True]
        assert replies[0].body == b'{"name":"library/x","tags":["t","u"]}'
        assert replies[1].header("age") == "3600"
        assert len(hub.log) == asked
        for path in ("/v2/docker.io/library/y/tags/list", f"{X}/referrers/sha256:{'0' * 64}"):
            assert (await get(mirror.address, path)).status in (200, 404)
        assert len(hub.log) > asked + 1


async def test_rate_limit_stretches_the_ttl_of_referrers(
    hub: FakeRegistry, tmp_path: Path, clock: Clock
) -> None:
    """Referrers have an age as tags have; a list of tags has none and is asked for while a little is left."""
    limited(hub, 9)
    async with with_terms(hub, tmp_path, clock) as mirror:
        image = hub.add_image("library/x", "t", [b"a"])
        path = f"{X}/referrers/{image.manifest}"
        await get(mirror.address, TAG)
        await get(mirror.address, path)
        clock.now += 239
        assert is_stale(await get(mirror.address, path))
        assert not is_stale(await get(mirror.address, f"{X}/tags/list"))
        clock.now += 1
        assert not is_stale(await get(mirror.address, path))


async def test_rate_limit_wait_in_the_words_of_the_error_is_kept(hub: FakeRegistry, tmp_path: Path) -> None:
    """ghcr.io names the wait in the message alone: the request is repeated after it, not after a minute."""
    words = (
        b'{"errors":[{"code":"TOOMANYREQUESTS","message":"retry-after: 1.16676ms, allowed: 44000/minute"}]}'
    )
    hub.fault(Fault(status=429, body=words, headers={"Content-Type": "application/json"}), "/manifests/")
    hub.add_image("library/x", "t", [b"a"])
    async with mirror_of(hub, tmp_path, upstream={"attempts": 2}) as mirror:
        assert (await get(mirror.address, f"{X}/manifests/t")).status == 200
        source = mirror.service._upstreams["docker.io"].own
        assert not source.throttled(time.monotonic())


async def test_rate_limit_wait_of_years_is_not_passed_on(hub: FakeRegistry, tmp_path: Path) -> None:
    """A client is told to wait for an hour at most."""
    hub.fault(Fault(status=429, headers={"Retry-After": "Mon, 23 Nov 2099 12:00:00 GMT"}), "/manifests/")
    async with mirror_of(hub, tmp_path) as mirror:
        reply = await get(mirror.address, f"{X}/manifests/t")
        assert (reply.status, reply.header("retry-after")) == (429, "3600")

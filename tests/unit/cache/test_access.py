"""Access: how long a link is believed, and what the upstream's answers do to it."""

import asyncio
import math

import pytest

from mirror.cache.access import AccessChecker
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.metadata.index import Link
from mirror.upstream.errors import Failure, UpstreamError
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import Running

X = Repository("docker.io", "library/x")
DATA = b"a layer"
LAYER = Digest.of(DATA)
LONG_AGO = Link(size=7, confirmed=5.0, account=True)


@pytest.fixture
def access(mirror: Running) -> AccessChecker:
    return mirror.service.cache._blobs._access


async def link(mirror: Running) -> Link | None:
    return await mirror.service._store.metadata.links.read_again(X, LAYER)


def test_link_ttl(access: AccessChecker) -> None:
    """Links hold for good without an account, for a day with one, and not into the future."""
    now = access._context.clock()
    assert access.ttl(X, Link()) == math.inf
    assert access.ttl(X, Link(confirmed=1.0)) == math.inf
    assert 0 < access.ttl(X, Link(confirmed=now, account=True)) <= 24 * 3600
    assert access.ttl(X, LONG_AGO) <= 0
    assert access.ttl(X, Link(confirmed=now + 1000, account=True)) == 0


async def test_old_link_is_confirmed_by_an_answer(
    hub: FakeRegistry, mirror: Running, access: AccessChecker
) -> None:
    """One HEAD for all who wait, and the link is new; the upstream of a public repository needs no other."""
    hub.add_blob("library/x", DATA)
    await mirror.service._store.metadata.links.add(X, LAYER, LONG_AGO)
    assert await asyncio.gather(*(access.check(X, LAYER, LONG_AGO) for _ in range(5))) == [None] * 5
    assert hub.requests("HEAD", LAYER) == 1
    found = await link(mirror)
    assert found is not None
    assert (found.account, access.ttl(X, found)) == (False, math.inf)


async def test_old_link_is_withdrawn_by_a_refusal(
    hub: FakeRegistry, mirror: Running, access: AccessChecker
) -> None:
    """The upstream does not have the digest any more."""
    hub.repository("library/x")
    await mirror.service._store.metadata.links.add(X, LAYER, LONG_AGO)
    with pytest.raises(UpstreamError) as refused:
        await access.check(X, LAYER, LONG_AGO)
    assert refused.value.failure is Failure.NOT_FOUND
    assert await link(mirror) is None


async def test_old_link_survives_an_outage(hub: FakeRegistry, mirror: Running, access: AccessChecker) -> None:
    """The answer is stale, and an upstream that fails is not asked for each request."""
    await mirror.service._store.metadata.links.add(X, LAYER, LONG_AGO)
    hub.fault(Fault(status=503), times=100)
    for _ in range(3):
        stale = await access.check(X, LAYER, LONG_AGO)
        assert stale is not None
        assert stale.age is not None
    assert hub.requests("HEAD", LAYER) == 1
    assert await link(mirror) == LONG_AGO


async def test_refusal_to_confirm_is_remembered(
    hub: FakeRegistry, mirror: Running, access: AccessChecker
) -> None:
    """Repeated requests for content that a repository does not have cost its upstream one request."""
    hub.repository("library/x")
    for _ in range(3):
        with pytest.raises(UpstreamError):
            await access.confirm_blob(X, LAYER)
    assert hub.requests("HEAD", LAYER) == 1

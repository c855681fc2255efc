"""Flights: boarding, landing, and nobody left waiting."""

import asyncio

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.errors import StoreError
from mirror.transfer.flight import Flight
from mirror.upstream.errors import Failure, UpstreamError
from tests.fakes.registry import FakeRegistry
from tests.running import Running
from tests.wire import get

D = Digest.of(b"x")
X = Repository("docker.io", "library/x")


async def test_passengers_wait_for_the_file() -> None:
    """Or hear that the blob is in the store already."""
    flight = Flight(D, X)
    boarding = asyncio.ensure_future(flight.wait_content())
    await asyncio.sleep(0)
    assert not boarding.done()
    flight.publish(None)
    assert await boarding is None
    flight.finish(None)
    await flight.wait_done()
    assert await flight.wait_content() is None


@pytest.mark.parametrize("error", [UpstreamError(Failure.NOT_FOUND, "no"), StoreError("no")])
async def test_a_flight_that_never_starts_tells_why(error: UpstreamError | StoreError) -> None:
    """Everybody who waits, and everybody who comes later."""
    flight = Flight(D, X)
    boarding = asyncio.ensure_future(flight.wait_content())
    flight.finish(error)
    for each in (boarding, flight.wait_content()):
        with pytest.raises(type(error), match="no"):
            await each


async def test_shutting_down_in_mid_flight_cuts_its_passengers(hub: FakeRegistry, mirror: Running) -> None:
    """A fill that is cancelled ends those who wait for it: with an error, not in silence."""
    digest = hub.add_blob("library/x", b"0123456789")
    gate = hub.hold(digest, after=5)
    asking = asyncio.ensure_future(get(mirror.address, f"/v2/docker.io/library/x/blobs/{digest}"))
    await gate.reached.wait()
    await mirror.service._tasks.close()
    reply = await asking
    assert reply.status == 503
    assert b"shutting down" in reply.body

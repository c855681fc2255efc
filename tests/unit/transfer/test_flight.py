"""Flights: waiting for content, ending, and no client left waiting."""

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


async def test_flight_clients_wait_for_content() -> None:
    """Clients wait until there is content, or until the blob is in the store (None)."""
    flight = Flight(D, X)
    waiting = asyncio.ensure_future(flight.wait_content())
    await asyncio.sleep(0)
    assert not waiting.done()
    flight.publish(None)
    assert await waiting is None
    flight.finish(None)
    await flight.wait_done()
    assert await flight.wait_content() is None


@pytest.mark.parametrize("error", [UpstreamError(Failure.NOT_FOUND, "no"), StoreError("no")])
async def test_flight_that_fails_early_raises_for_all_clients(error: UpstreamError | StoreError) -> None:
    """Clients that wait and clients that come later receive the same error."""
    flight = Flight(D, X)
    waiting = asyncio.ensure_future(flight.wait_content())
    flight.finish(error)
    for each in (waiting, flight.wait_content()):
        with pytest.raises(type(error), match="no"):
            await each


async def test_flight_cancelled_by_shutdown_answers_its_clients(hub: FakeRegistry, mirror: Running) -> None:
    """A fill that is cancelled ends its clients' requests with an error, not in silence."""
    digest = hub.add_blob("library/x", b"0123456789")
    gate = hub.hold(digest, after=5)
    asking = asyncio.ensure_future(get(mirror.address, f"/v2/docker.io/library/x/blobs/{digest}"))
    await gate.reached.wait()
    await mirror.service._tasks.close()
    reply = await asking
    assert reply.status == 503
    assert b"shutting down" in reply.body

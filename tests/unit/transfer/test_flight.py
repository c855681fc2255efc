"""Flights: waiting for content, ending, and no client left waiting."""

import asyncio

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.transfer.flight import Flight
from mirror.transfer.transfer import Phase
from mirror.util.time_limit import TimeLimit
from tests.fakes.registry import FakeRegistry
from tests.running import Running
from tests.wire import get

D = Digest.of(b"x")
X = Repository("docker.io", "library/x")


def test_flight_is_joined_and_left() -> None:
    """The first client ends a prefetch; the last one is told from the others."""
    flight, first, second = Flight(D, X, prefetch=True), TimeLimit(), TimeLimit()
    assert not flight.is_urgent()
    assert flight.join(first)
    assert not flight.join(second)
    assert (flight.prefetch, flight.asked_for, flight.is_urgent()) == (False, True, True)
    assert not flight.leave(first)
    assert flight.leave(second)
    flight.finish(None)
    assert not flight.join(first)
    assert not flight.leave(first)


def test_flight_without_clients_is_urgent_while_it_needs_no_connection() -> None:
    """A download may give way, unless a client waits for it in another process; a verification may not."""
    flight = Flight(D, X)
    flight.begin()
    assert not flight.is_urgent()
    flight.phase = Phase.DOWNLOADING
    assert not flight.is_urgent()
    flight.urgent = True
    assert flight.is_urgent()
    flight.defer()
    assert not flight.is_urgent()
    flight.phase = Phase.KEEPING
    assert flight.is_urgent()
    flight.parked = True
    assert not flight.is_urgent()


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

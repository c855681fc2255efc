"""Places of a blob: the object store, a mirror that fetches it, the upstream."""

import asyncio

import pytest

from mirror.shared.content import verified
from mirror.shared.interfaces import Holder
from mirror.shared.lease_text import new_holder
from mirror.shared.memory import MemoryLeases, MemoryTier
from mirror.shared.tier import SharedTier
from mirror.transfer.shared import coordination
from mirror.transfer.shared.coordination import FAR_BEHIND, HANDICAP, Coordination, Place
from tests.bench.swarm import clock as simulated
from tests.unit.shared.test_tier import DATA, DIGEST, Late, chunks, started, tier_of

KEY = f"fill/sha256/{DIGEST.encoded}"
OTHER = "http://10.0.0.2:5002"


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> MemoryLeases:
    monkeypatch.setattr(coordination, "POLL_SECONDS", 0.0)
    return MemoryLeases(lambda: clock[0])


clock = [0.0]


async def mirror(leases: MemoryLeases, objects: MemoryTier | None = None) -> SharedTier:
    shared = await started(tier_of(objects, leases, limit=5))
    shared.address = "http://10.0.0.1:5002"
    return shared


def of(shared: SharedTier, *, follows: bool = True) -> Coordination:
    return Coordination(shared, DIGEST, lambda _: shared.usable, follows=follows, clock=lambda: clock[0])


async def hold(leases: MemoryLeases, address: str = OTHER) -> Holder:
    holder = new_holder(address)
    assert await leases.acquire(KEY, holder, 60) == holder
    return holder


async def test_place_is_the_object_store_first(leases: MemoryLeases) -> None:
    """A stored blob needs no claim; when reading fails, the next question decides again."""
    objects = MemoryTier()
    shared = await mirror(leases, objects)
    await shared.publish(verified(DIGEST, len(DATA), chunks))
    known = of(shared)
    place = await known.place()
    assert place == Place()
    assert await known.place() is place
    assert known.claim is None
    await objects.remove(DIGEST)
    known.record_failure(Place())
    assert await known.place() is place  # about another place
    known.record_failure(place)
    assert await known.place() is None
    assert known.claim is not None
    await shared.close()


async def test_place_is_the_mirror_that_fetches(leases: MemoryLeases) -> None:
    """A holder with an address is followed; one that is this mirror, or has none, is not."""
    shared = await mirror(leases)
    holder = await hold(leases)
    known = of(shared)
    assert await known.place() == Place(holder)
    assert known.left_to_another
    assert await of(shared, follows=False).place() is None
    for address in (shared.address, ""):
        await leases.release(KEY, holder)
        holder = await hold(leases, address)
        assert await of(shared).place() is None
    await shared.close()


async def test_place_after_the_death_of_a_mirror_is_the_upstream_for_one(leases: MemoryLeases) -> None:
    """A mirror with the next claim goes to the upstream, the others follow that one."""
    shared = await mirror(leases)
    holder = await hold(leases)
    known = of(shared)
    dead = await known.place()
    assert dead is not None
    known.record_failure(dead)
    await leases.release(KEY, holder)
    next_holder = await hold(leases, "http://10.0.0.3:5002")
    again = await known.place()
    assert again == Place(next_holder)
    known.record_failure(again)
    await leases.release(KEY, next_holder)
    assert await known.place() is None
    assert (known.claim is not None, known.left_to_another) == (True, False)
    await shared.close()


@pytest.mark.parametrize("behind", [FAR_BEHIND + 1, None])
async def test_lease_of_a_dead_mirror_is_left_to_one_that_has_more(
    leases: MemoryLeases, behind: int | None
) -> None:
    """A mirror far behind, or new, looks, and follows who claims it; after a while it claims the blob."""
    shared = await mirror(leases)
    holder = await hold(leases)
    known = of(shared)
    dead = await known.place()
    assert dead is not None
    known.record_failure(dead, behind)
    await leases.release(KEY, holder)
    asking = asyncio.ensure_future(known.place())
    for _ in range(20):
        await asyncio.sleep(0)
    assert await leases.holder(KEY) is None
    next_holder = await hold(leases, "http://10.0.0.3:5002")
    again = await asking
    assert again == Place(next_holder)
    known.record_failure(again, behind)
    await leases.release(KEY, next_holder)
    asking = asyncio.ensure_future(known.place())
    await asyncio.sleep(0)
    clock[0] += HANDICAP
    assert await asking is None
    assert known.claim is not None
    await shared.close()


async def test_lease_that_lapses_during_a_claim_is_claimed_again(
    leases: MemoryLeases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claim again after a claim that came too early for the lease, and too late to see who had it."""
    shared = await mirror(leases)
    answers = [Holder(""), Holder("")]
    acquire = leases.acquire

    async def early(key: str, holder: Holder, seconds: float) -> Holder:
        return answers.pop() if answers else await acquire(key, holder, seconds)

    monkeypatch.setattr(leases, "acquire", early)
    known = of(shared)
    assert await known.place() is None
    assert (known.claim is not None, answers) == (True, [])
    await shared.close()


async def test_lease_of_a_dead_mirror_is_for_one_that_was_in_front(leases: MemoryLeases) -> None:
    """A mirror that nobody was ahead of claims at once."""
    shared = await mirror(leases)
    holder = await hold(leases)
    known = of(shared)
    dead = await known.place()
    assert dead is not None
    known.record_failure(dead, FAR_BEHIND)
    await leases.release(KEY, holder)
    assert await known.place() is None
    assert known.claim is not None
    await shared.close()


async def test_place_of_a_silent_mirror_is_not_waited_for_without_end(leases: MemoryLeases) -> None:
    """A holder that renews and does not answer: after a while this mirror goes on alone."""
    shared = await mirror(leases)
    await hold(leases)
    known = of(shared)
    place = await known.place()
    assert place is not None
    known.record_failure(place)
    clock[0] += 1

    class Later(list[float]):
        """A clock that goes on by itself."""

        def __getitem__(self, index: object) -> float:  # type: ignore[override]
            self[0:1] = [list.__getitem__(self, 0) + 0.5]
            return list.__getitem__(self, 0)

    later = Later(clock)
    known._clock = lambda: later[0]
    assert await known.place() is None
    assert known.claim is None
    await shared.close()


async def test_place_once_alone_stays(leases: MemoryLeases) -> None:
    """A fill that was sent to the upstream is not sent elsewhere."""
    shared = await mirror(leases)
    known = of(shared)
    known.go_alone()
    assert await known.place() is None
    assert known.claim is None
    await shared.close()


def test_place_costs_one_limit_for_each_engine_however_many_questions_it_takes() -> None:
    """Store and coordinator answer late, but each time in time: the blob comes from the upstream then."""

    async def work() -> None:
        clock, late = asyncio.get_running_loop().time, Late(0.0)
        shared = await started(late.tier(limit=2.0))
        late.seconds, began = 1.9, clock()
        known = Coordination(shared, DIGEST, lambda _: shared.usable, follows=True, clock=clock)
        assert await known.place() is None
        assert known.claim is not None
        assert clock() - began <= 4.0
        await shared.close()

    simulated.run(work())


async def test_place_is_no_longer_a_store_that_gave_nothing_for_the_limit(leases: MemoryLeases) -> None:
    """A store says that it has the blob, and stalls: the fill asks it no more, while others may."""
    shared = await mirror(leases)
    await shared.publish(verified(DIGEST, len(DATA), chunks))
    known = of(shared)
    for lost in (0.0, shared.limit / 2, shared.limit / 2):
        place = await known.place()
        assert place == Place()
        known.record_failure(place, lost=lost)
    assert await known.place() is None
    assert await of(shared).place() == Place()
    await shared.close()

"""Slots: who gets one first, who gives way, and that none is lost or given twice."""

import asyncio
import random
from contextlib import suppress

import pytest

from mirror.util.fairness.client import set_client
from mirror.util.slots import RESERVE, WAITING_PER_SLOT, SlotClaim, SlotGroup, SlotPool
from mirror.util.tasks import Tasks


class Work:
    """Work that is urgent or not, and that notes when it is asked to give way."""

    def __init__(self, group: SlotGroup, *, urgent: bool) -> None:
        self.urgent = urgent
        self.asked = 0
        self.claim: SlotClaim = group.claim(lambda: self.urgent, self._give_way)

    def _give_way(self) -> None:
        self.asked += 1


def test_slots_go_to_urgent_work_first() -> None:
    """Equals get them in the order of arrival."""
    group = SlotGroup(SlotPool(1), 1)
    first = group.claim()
    waiting = [Work(group, urgent=urgent) for urgent in (False, True, False, True)]
    order = []
    first.release()
    for _ in waiting:
        granted = next(each for each in waiting if each.claim.granted and each not in order)
        order.append(granted)
        granted.claim.release()
    assert [waiting.index(each) for each in order] == [1, 3, 0, 2]


def test_slots_go_to_clients_in_turn() -> None:
    """A client with one claim waits for one turn of a client with many."""
    group = SlotGroup(SlotPool(1), 1)
    first, order = group.claim(), list[str]()
    claims = dict[str, SlotClaim]()
    for client, names in (
        ("192.0.2.1", ("a0", "a1", "a2")),
        ("192.0.2.2", ("b0",)),
        ("192.0.2.3", ("c0", "c1")),
    ):
        set_client(client)
        claims |= {name: group.claim() for name in names}
    first.release()
    while len(order) < len(claims):
        order.append(next(name for name, each in claims.items() if each.granted and name not in order))
        claims[order[-1]].release()
    assert order == ["a0", "b0", "c0", "a1", "c1", "a2"]


def test_slots_keep_a_reserve_for_urgent_work() -> None:
    """Work that is not urgent never holds the last slots of a group or of the pool."""
    pool = SlotPool(2 * RESERVE)
    one, two = SlotGroup(pool, RESERVE), SlotGroup(pool, 2 * RESERVE)
    background = [Work(one, urgent=False) for _ in range(RESERVE)]
    assert [each.claim.granted for each in background] == [True] * (RESERVE - 1) + [False]
    more = [Work(two, urgent=False) for _ in range(2 * RESERVE)]
    assert sum(each.claim.granted for each in more) == 2 * RESERVE - 2 - (RESERVE - 1)
    assert all(Work(group, urgent=True).claim.granted for group in (one, two))


def test_slot_of_background_work_is_reclaimed() -> None:
    """One holder gives way for each urgent claim: the latest of the same group if the group is full."""
    pool = SlotPool(3)
    one, two = SlotGroup(pool, 2), SlotGroup(pool, 2)
    holders = [Work(one, urgent=False), Work(one, urgent=False), Work(two, urgent=False)]
    urgent = Work(one, urgent=True)
    assert [each.asked for each in holders] == [0, 1, 0]
    pool.reassign()
    assert [each.asked for each in holders] == [0, 1, 0]
    holders[1].claim.release()
    assert urgent.claim.granted
    also = Work(two, urgent=True)
    assert [each.asked for each in holders] == [0, 1, 1]
    holders[2].claim.release()
    assert also.claim.granted


def test_slots_follow_a_change_of_urgency() -> None:
    """`reassign` looks again: a client has come to work that waits, or has left work that holds a slot."""
    group = SlotGroup(SlotPool(1), 1)
    holder, waiter = Work(group, urgent=True), Work(group, urgent=True)
    holder.urgent = False
    group.pool.reassign()
    assert holder.asked == 1
    holder.claim.release()
    assert waiter.claim.granted


def test_slot_pool_is_crowded() -> None:
    """A pool in which many claims wait is crowded: further ones are to be refused."""
    group = SlotGroup(SlotPool(2), 2)
    claims = [group.claim() for _ in range(2 + 2 * WAITING_PER_SLOT)]
    assert (group.pool.crowded, group.pool.waiting) == (True, 2 * WAITING_PER_SLOT)
    claims[-1].release()
    assert not group.pool.crowded
    assert group.saturated


async def test_slot_reports_a_wait_and_its_end(tasks: Tasks) -> None:
    """A cancelled wait is reported too; without a wait there is no report."""
    group = SlotGroup(SlotPool(1), 1)
    reports: list[bool] = []

    async def hold() -> None:
        async with group.slot(on_wait=reports.append):
            pass

    await hold()
    assert reports == []
    for cancelled in (True, False):
        async with group.slot():
            waiting = tasks.spawn(hold(), name="wait")
            await asyncio.sleep(0)
            if cancelled:
                waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
    assert reports == [True, False] * 2
    assert (group.held, group.pool.held, group.pool.waiting) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(20))
def test_slots_under_random_claims(seed: int) -> None:
    """No limit is exceeded, no slot idles while an urgent claim could have it, none waits for background."""
    chance = random.Random(seed)
    pool = SlotPool(chance.randint(1, 12))
    groups = [SlotGroup(pool, chance.randint(1, 8)) for _ in range(3)]
    works: list[Work] = []
    for _ in range(400):
        action = chance.random()
        if action < 0.4 or not works:
            works.append(Work(chance.choice(groups), urgent=chance.random() < 0.5))
        elif action < 0.7:
            works.pop(chance.randrange(len(works))).claim.release()
        else:
            work = chance.choice(works)
            work.urgent = not work.urgent
            pool.reassign()
        for asked in [each for each in works if each.asked]:  # it ends soon
            works.remove(asked)
            asked.claim.release()
        held = [each for each in works if each.claim.granted]
        assert pool.held == len(held) <= pool._limit
        assert pool.waiting == len(works) - len(held)
        for group in groups:
            mine = [each for each in held if each.claim.group is group]
            assert group.held == len(mine) <= group.limit
        for work in works:
            if work.urgent and not work.claim.granted and not any(each.asked for each in works):
                group = work.claim.group
                rivals = [each for each in held if each.claim.group is group or group.held < group.limit]
                assert rivals
                assert all(each.urgent for each in rivals)


def test_slots_tell_for_how_long_no_work_was_urgent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that holds or waits for a slot counts until its end, or until it is urgent no more."""
    now = [0.0]
    monkeypatch.setattr("mirror.util.slots.time.monotonic", lambda: now[0])
    pool = SlotPool(2)
    group = SlotGroup(pool, 1)
    assert pool.idle_seconds() > 1e9
    first, second = Work(group, urgent=True), Work(group, urgent=True)
    assert pool.idle_seconds() == 0
    now[0] = 5.0
    first.claim.release()
    second.urgent = False
    now[0] = 7.0
    assert pool.idle_seconds() == 2
    second.claim.release()
    assert pool.idle_seconds() == 2

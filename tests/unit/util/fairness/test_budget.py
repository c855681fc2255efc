"""The budget that tasks inherit."""

import asyncio
from collections.abc import Callable

import pytest

from mirror.oci.errors import Code, RegistryError
from mirror.util.fairness.budget import begin_fill, check_budget, current_budget, set_budget, wait_for_fill


class Nothing:
    """A budget of nothing."""

    def __init__(self) -> None:
        self.fills = 0

    def add(self, size: int) -> None:
        raise AssertionError("nothing is fetched")

    def check(self) -> None:
        raise RegistryError(Code.TOOMANYREQUESTS, "used up")

    async def wait_for_fill(self) -> None:
        raise AssertionError("nothing is fetched")

    def begin_fill(self) -> Callable[[], object]:
        self.fills += 1
        return lambda: setattr(self, "fills", self.fills - 1)


async def test_work_without_a_budget_is_free() -> None:
    assert current_budget() is None
    check_budget()
    await wait_for_fill()
    begin_fill()()


async def test_tasks_inherit_the_budget_and_others_do_not() -> None:
    budget = Nothing()

    async def start() -> asyncio.Task[object]:
        set_budget(budget)

        async def fetch() -> object:
            return current_budget()

        return asyncio.create_task(fetch())

    assert await (await asyncio.create_task(start())) is budget
    assert current_budget() is None


async def test_budget_that_is_used_up_refuses() -> None:
    budget = Nothing()
    set_budget(budget)
    with pytest.raises(RegistryError):
        check_budget()
    with pytest.raises(RegistryError):
        await wait_for_fill()
    end = begin_fill()
    assert budget.fills == 1
    end()
    assert budget.fills == 0

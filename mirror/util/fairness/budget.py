"""The budget of downloads that a task spends: that of the client which has asked first.

Where limits bound what is fetched for a client, its requests carry a budget. Tasks inherit it, so that a
download counts for the client that started it, however many join.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Protocol

from mirror.util.callbacks import ignore


class DownloadBudget(Protocol):
    """Bounds on downloads from upstreams for one client."""

    def add(self, size: int) -> None:
        """Count bytes that came from an upstream."""
        ...

    def check(self) -> None:
        """Raise RegistryError, 429, if nothing more may be fetched for now."""
        ...

    async def wait_for_fill(self) -> None:
        """Wait until one more download may begin. Raises RegistryError, 429, if that takes too long.

        Where none is needed, there is no turn of the event loop.
        """
        ...

    def begin_fill(self) -> Callable[[], object]:
        """Count a download that begins; return the function to call when the client leaves it."""
        ...


# None for what no client has asked for, and where nothing is limited.
_budget: ContextVar[DownloadBudget | None] = ContextVar("budget", default=None)


def set_budget(budget: DownloadBudget | None) -> None:
    """Set the budget for the running task, and for tasks that it starts."""
    _budget.set(budget)


def current_budget() -> DownloadBudget | None:
    """Return the budget that the running task spends."""
    return _budget.get()


def check_budget() -> None:
    """Raise RegistryError, 429, if nothing more may be fetched for the running task."""
    if (budget := current_budget()) is not None:
        budget.check()


async def wait_for_fill() -> None:
    """Wait until the running task may start a download. Raises RegistryError, 429, if it may not."""
    if (budget := current_budget()) is not None:
        budget.check()
        await budget.wait_for_fill()


def begin_fill() -> Callable[[], object]:
    """Count a download of the running task; return the function to call when its client leaves it."""
    budget = current_budget()
    return ignore if budget is None else budget.begin_fill()

"""Pull budget: the last pulls of a rate limit are left to others."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mirror.cache.pull.budget import LeaveTooLarge, Pause, PullBudget, log_pause
from mirror.oci.reference import Repository, Tag
from mirror.upstream.errors import Failure, UpstreamError
from tests.fakes.faults import Fault
from tests.fakes.limit import RateLimit
from tests.fakes.registry import FakeRegistry
from tests.running import mirror_of

X = Repository("docker.io", "library/x")
T = Tag("t")


class Waits:
    """Records waits; the fake's limit has `more` pulls after each."""

    def __init__(self, limit: RateLimit, more: int = 100) -> None:
        self.told: list[Pause] = []
        self._limit = limit
        self._more = more

    async def sleep(self, seconds: float) -> None:
        assert self.told[-1].seconds == seconds
        self._limit.used[""] = max(0, self._limit.used[""] - self._more)


@asynccontextmanager
async def limited(
    hub: FakeRegistry, folder: Path, leave: int, limit: RateLimit, more: int = 100
) -> AsyncIterator[tuple[PullBudget, Waits]]:
    """A budget at an upstream with this limit."""
    hub.limit = limit
    hub.add_image("library/x", "t", [])
    async with mirror_of(hub, folder) as mirror:
        waits = Waits(limit, more)
        upstreams = mirror.service._upstreams
        yield PullBudget(upstreams, leave, waits.told.append, waits.sleep), waits


async def test_budget_asks_how_many_pulls_are_left_by_head(hub: FakeRegistry, tmp_path: Path) -> None:
    """The first request already leaves what is to be left."""
    async with limited(hub, tmp_path, 50, RateLimit(100)) as (budget, waits):

        async def get() -> str:
            assert hub.requests("HEAD") == 1
            return "answer"

        assert await budget.ask(X, T, get) == "answer"
        assert await budget.ask(X, T, get) == "answer"
    assert waits.told == []


async def test_budget_waits_before_the_last_pulls(hub: FakeRegistry, tmp_path: Path) -> None:
    """The request is made once the upstream has more pulls; until then it is asked by HEAD only."""
    limit = RateLimit(100)
    limit.used[""] = 60
    async with limited(hub, tmp_path, 50, limit, more=5) as (budget, waits):

        async def get() -> int:
            return limit.left()

        assert await budget.ask(X, T, get) == 55
    reasons = [each.reason for each in waits.told]
    assert reasons == ["40 of 100 pulls are left", "45 of 100 pulls are left", "50 of 100 pulls are left"]
    assert {each.seconds for each in waits.told} == {900.0}
    assert hub.requests("GET") == 0


@pytest.mark.parametrize(("said", "waited"), [(7.0, 7.0), (1e9, 900.0)])
async def test_budget_goes_on_after_a_429(
    hub: FakeRegistry, tmp_path: Path, said: float, waited: float
) -> None:
    """The wait is as long as the upstream says, but for one that says thirty years."""
    async with limited(hub, tmp_path, 0, RateLimit(100)) as (budget, waits):
        errors = [UpstreamError(Failure.RATE_LIMITED, "too many", retry_after=said)]

        async def get() -> str:
            if errors:
                raise errors.pop()
            return "answer"

        assert await budget.ask(X, T, get) == "answer"
    assert waits.told == [Pause("docker.io", "too many", waited)]


async def test_budget_refuses_to_leave_more_than_there_is(hub: FakeRegistry, tmp_path: Path) -> None:
    """Waiting would never end."""
    async with limited(hub, tmp_path, 100, RateLimit(100)) as (budget, _):

        async def get() -> None:
            raise AssertionError("asked")

        with pytest.raises(LeaveTooLarge, match=r"docker\.io allows 100 pulls, and 100 are to be left"):
            await budget.ask(X, T, get)


async def test_budget_gives_up_after_a_window(hub: FakeRegistry, tmp_path: Path) -> None:
    """An upstream that refuses for hours is an error at last."""
    limit = RateLimit(100)
    limit.used[""] = 100
    async with limited(hub, tmp_path, 0, limit, more=0) as (budget, waits):

        async def get() -> None:
            raise AssertionError("asked")

        for _ in range(3):  # images; the second and the third are not waited for
            with pytest.raises(UpstreamError, match="0 of 100 pulls are left"):
                await budget.ask(X, T, get)
    assert sum(each.seconds for each in waits.told) == 7 * 3600


async def test_budget_does_not_wait_where_pulls_are_not_counted(hub: FakeRegistry, tmp_path: Path) -> None:
    """One HEAD shows that; a failure of it is no failure of the request."""
    hub.add_image("library/x", "t", [])
    hub.fault(Fault(status=500), "manifests", "HEAD", times=2)
    async with mirror_of(hub, tmp_path) as mirror:
        budget = PullBudget(mirror.service._upstreams, 50)

        async def get() -> str:
            return "answer"

        assert [await budget.ask(X, T, get) for _ in range(3)] == ["answer"] * 3
    assert hub.requests("HEAD") == 1


def test_budget_logs_a_wait_where_no_command_shows_it() -> None:
    with capture_logs() as lines:
        log_pause(Pause("docker.io", "3 pulls are left", 900.0))
    (line,) = lines
    assert (line["upstream"], line["reason"], line["seconds"]) == ("docker.io", "3 pulls are left", 900)

"""Scheduler of lists: due, missed, cut off; with the clock passed in."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.config.warm import WarmSettings
from mirror.manage.warm.job_state import JobState, read_states
from mirror.manage.warm.scheduler import RunOutcome, WarmScheduler, due_moment, moment_of, next_run
from mirror.util.tasks import Tasks

DAY = 86_400.0
# Midnight of a day in UTC.
START = 20_000 * DAY
DAILY = WarmSettings.model_validate({"name": "daily", "images": ["x"], "schedule": "0 3 * * * UTC"})
THREE = 3 * 3600.0


@pytest.mark.parametrize(
    ("state", "now", "due"),
    [
        (JobState(START), START + THREE - 1, None),
        (JobState(START), START + THREE, START + THREE),
        (JobState(START), START + THREE + DAY - 1, START + THREE),  # missed, and made up
        (JobState(START - 5 * DAY), START + THREE, START + THREE),  # once, however many were missed
        (JobState(START + THREE, result="done"), START + THREE + 60, None),
        (JobState(START + THREE, result="failed"), START + THREE + 60, None),
        (JobState(START + THREE, result="running"), START + THREE + 60, START + THREE),  # cut off
        (JobState(START + THREE, result="running"), START + THREE + DAY, START + THREE + DAY),
    ],
)
def test_list_is_due(state: JobState, now: float, due: float | None) -> None:
    assert due_moment(DAILY, state, now, "") == due


def test_run_missed_by_a_day_is_not_made_up() -> None:
    weekly = WarmSettings.model_validate({"name": "w", "schedule": "0 0 * * 0 UTC"})
    state = JobState(START - 30 * DAY)
    days = [START + n * DAY for n in range(7)]
    (sunday,) = [each for each in days if due_moment(weekly, state, each, "") == each]
    assert due_moment(weekly, state, sunday + DAY - 1, "") == sunday
    assert due_moment(weekly, state, sunday + DAY, "") is None


def test_jitter_delays_a_run_by_another_time_each_day() -> None:
    """The delay is the same at each look, so that a restart changes nothing."""
    spread = WarmSettings.model_validate({"name": "s", "schedule": "0 3 * * * UTC", "jitter": "1h"})
    moments = [moment_of(spread, START + THREE + n * DAY, "seed") - n * DAY for n in range(20)]
    assert len(set(moments)) == 20
    assert all(START + THREE <= each < START + THREE + 3600 for each in moments)
    state, begins = JobState(START), moments[0]
    assert due_moment(spread, state, begins - 1, "seed") is None
    assert next_run(spread, state, begins - 1, "seed") == begins
    assert due_moment(spread, state, begins, "seed") == START + THREE
    assert next_run(spread, JobState(START + THREE), begins, "seed") == moments[1] + DAY


class Lab:
    """A scheduler with a clock to set, and runs that are ended by hand."""

    def __init__(self, folder: Path, tasks: Tasks) -> None:
        self.now = START
        self.began: list[str] = []
        self.started = asyncio.Event()
        self.end = asyncio.Event()
        self.outcome = RunOutcome(2, {})
        self.folder = folder
        self.tasks = tasks
        self.scheduler = self.restarted()

    def restarted(self) -> WarmScheduler:
        self.scheduler = WarmScheduler([DAILY], self.folder, self.fetch, self.tasks, lambda: self.now)
        return self.scheduler

    async def fetch(self, settings: WarmSettings) -> RunOutcome:
        self.began.append(settings.name)
        self.started.set()
        await self.end.wait()
        return self.outcome

    async def tick(self, *, elected: bool = True) -> None:
        await self.scheduler.tick(elected=elected)

    async def finished(self) -> JobState:
        """End the running run; return the state that is on the disk then."""
        self.end.set()
        running = self.scheduler._running
        assert running is not None
        await running
        self.end.clear()
        return (await asyncio.to_thread(read_states, self.folder))["daily"]


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path, Tasks())
    yield made
    await made.tasks.close()


async def test_run_begins_at_its_moment_once(lab: Lab) -> None:
    """A list that is new is not made up."""
    await lab.tick()
    lab.now = START + THREE
    await lab.tick()
    await lab.tick()
    state = await lab.finished()
    assert (state.due, state.result, state.images) == (START + THREE, "done", 2)
    await lab.tick()
    assert lab.began == ["daily"]
    (status,) = lab.scheduler.status()
    assert status["next"] == START + THREE + DAY


async def test_run_is_begun_by_the_elected_worker_only(lab: Lab) -> None:
    """Another worker knows the state, and takes over when it is elected."""
    await lab.tick()
    lab.now = START + THREE
    await lab.tick(elected=False)
    assert lab.began == []
    assert lab.scheduler.status()[0]["result"] == "never"
    await lab.tick()
    assert (await lab.finished()).result == "done"


async def test_run_that_was_cut_off_is_made_up(lab: Lab) -> None:
    """The mirror was killed in the middle: the next one goes on."""
    await lab.tick()
    lab.now = START + THREE
    await lab.tick()
    await lab.started.wait()
    await lab.tasks.close()
    lab.tasks = Tasks()
    lab.restarted()
    await lab.tick()
    assert (await lab.finished()).result == "done"
    assert lab.began == ["daily", "daily"]


async def test_run_with_failures_says_which(lab: Lab) -> None:
    lab.outcome = RunOutcome(2, {"x:1": "gone"})
    await lab.tick()
    lab.now = START + THREE
    await lab.tick()
    state = await lab.finished()
    assert (state.result, state.failed, state.failures) == ("failed", 1, {"x:1": "gone"})

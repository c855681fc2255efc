"""Scheduler of lists that are fetched ahead: which list is due, and its run.

Every worker looks at the state; the one that runs housekeeping begins the runs, one at a time. A run that was
cut off by the end of the mirror, and one that the mirror missed because it was down, is made up once, within
MAKE_UP_SECONDS of its moment.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from mirror.config.cron import Schedule
from mirror.config.warm import WarmSettings
from mirror.manage.warm.job_state import MOST_FAILURES, JobState, read_states, write_states
from mirror.util.log import get_logger
from mirror.util.tasks import Tasks

log = get_logger(__name__)

# How late a run may be made up, in seconds: a day.
MAKE_UP_SECONDS = 24 * 3600.0


class RunOutcome(Struct, frozen=True):
    """The result of a run: the number of images, and the reasons of those that failed."""

    images: int
    failures: dict[str, str]


class Fetch(Protocol):
    """A function that carries out the run of a list."""

    async def __call__(self, settings: WarmSettings) -> RunOutcome: ...


def moment_of(settings: WarmSettings, due: float, seed: str) -> float:
    """Return when the run of a scheduled moment begins: the same for each call, another for each moment."""
    number = hashlib.sha256(f"{seed} {settings.name} {due:.0f}".encode()).digest()[:4]
    return due + settings.jitter * int.from_bytes(number) / 2**32


def due_moment(settings: WarmSettings, state: JobState, now: float, seed: str) -> float | None:
    """Return the scheduled moment whose run is to begin now; None for none. `state`: not of a running run."""
    schedule = Schedule.parse(settings.schedule)
    due = schedule.last_until(now)
    if state.result == "running" and state.due >= due:
        return state.due if now - state.due < MAKE_UP_SECONDS else None
    if due <= state.due or now - due >= MAKE_UP_SECONDS:
        return None
    return due if moment_of(settings, due, seed) <= now else None


def next_run(settings: WarmSettings, state: JobState, now: float, seed: str) -> float:
    """Return when the next run begins."""
    schedule = Schedule.parse(settings.schedule)
    due = schedule.last_until(now)
    waits = state.due < due and now < moment_of(settings, due, seed)
    return moment_of(settings, due if waits else schedule.next_after(now), seed)


class WarmScheduler:
    """The scheduled lists of one mirror."""

    def __init__(
        self,
        lists: Sequence[WarmSettings],
        folder: Path,
        fetch: Fetch,
        tasks: Tasks,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lists = lists
        self._folder = folder
        self._fetch = fetch
        self._tasks = tasks
        self._clock = clock
        self._running: asyncio.Task[None] | None = None
        self.states: dict[str, JobState] = {}

    async def tick(self, *, elected: bool) -> None:
        """Look at the state; begin the run of a list that is due, if this worker is the elected one."""
        if self._running is not None and not self._running.done():
            return
        self.states = await asyncio.to_thread(read_states, self._folder)
        if not elected:
            return
        now = self._clock()
        fresh = [each.name for each in self._lists if each.name not in self.states]
        if fresh:
            await self._write({**self.states, **{name: JobState(now) for name in fresh}})
        for settings in self._lists:
            due = due_moment(settings, self.states[settings.name], now, str(self._folder))
            if due is not None:
                self._running = self._tasks.spawn(self._run(settings, due), name=f"warm {settings.name}")
                return

    async def _run(self, settings: WarmSettings, due: float) -> None:
        state = JobState(due, began=self._clock(), result="running")
        await self._write({**self.states, settings.name: state})
        log.info("fetching images ahead", list=settings.name)
        outcome = await self._fetch(settings)
        failed = len(outcome.failures)
        ended = replace(
            state,
            ended=self._clock(),
            result="failed" if failed else "done",
            images=outcome.images,
            failed=failed,
            failures=dict(list(outcome.failures.items())[:MOST_FAILURES]),
        )
        await self._write({**self.states, settings.name: ended})
        emit = log.warning if failed else log.info
        event = "images fetched ahead, some are missing" if failed else "images fetched ahead"
        emit(event, list=settings.name, images=outcome.images, failed=failed)

    async def _write(self, states: dict[str, JobState]) -> None:
        self.states = states
        try:
            await asyncio.to_thread(write_states, self._folder, states)
        except OSError as error:
            log.warning("state of scheduled runs not written", reason=str(error))

    def status(self) -> list[dict[str, Any]]:
        """Return the state of each list, for people and programs."""
        return [status_of(each, self.states, self._clock(), str(self._folder)) for each in self._lists]


def status_of(settings: WarmSettings, states: dict[str, JobState], now: float, seed: str) -> dict[str, Any]:
    """Return the state of a list; moments in seconds since the epoch, None for none."""
    state = states.get(settings.name, JobState(now))
    return {
        "name": settings.name,
        "schedule": settings.schedule,
        "last_began": state.began or None,
        "last_ended": state.ended or None,
        "result": state.result,
        "images": state.images,
        "failed": state.failed,
        "failures": state.failures,
        "next": next_run(settings, state, now, seed),
    }

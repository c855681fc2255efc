"""The desk of the operations: this worker, the other workers, and the use cases of operators."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mirror.config.schema import Config
from mirror.manage.management import Management
from mirror.service.service import Service
from mirror.store.series.savings_book import SAVING_ERRORS, SavingsBook
from mirror.util.log import get_logger
from mirror.util.tasks import Tasks
from mirror.web.activity.activity import TRAFFIC_SECONDS, Activity
from mirror.web.activity.entries import ActivityQuestion, LogLine, LogQuestion, WorkerActivity
from mirror.web.activity.exchange import WorkerExchange
from mirror.web.activity.log_tail import LogTail
from mirror.web.activity.savings_counter import SavingsCounter
from mirror.web.activity.together import AllActivity, together

log = get_logger(__name__)

# Interval, in seconds, at which savings are written; the most that a crash loses.
SAVINGS_SECONDS = 30.0

# Streams of events that go to one address at a time: a browser has six at most.
MOST_STREAMS = 16


class Desk:
    """The desk of one worker. `fellows`: the other workers, None for a mirror of one."""

    def __init__(self, service: Service, config: Config, worker: int) -> None:
        self.service = service
        self.config = config
        self.management = Management(service.folder)
        self.activity = Activity(worker, service.metrics, service.cache.fills, service.upstream_details)
        self.log_tail = LogTail(worker)
        self.tasks = Tasks()
        self.fellows: WorkerExchange | None = None
        self._streams = Counter[str]()
        self.addresses: Sequence[str] = ()  # of the listener for clients, where they are known
        self.savings_book = SavingsBook(service.folder.path)
        self._savings = SavingsCounter()
        self.activity.on_ended = self._savings.add
        self._writing = asyncio.Lock()

    async def start(self) -> None:
        """Begin to look at the traffic, and at the log."""
        self.log_tail.open()
        self.tasks.spawn(self._sample(), name="samples of the traffic")
        self.tasks.spawn(self._keep_savings(), name="savings")
        if self.fellows is not None:
            await self.fellows.open()

    async def close(self) -> None:
        """End what runs in the background."""
        self.log_tail.close()
        if self.fellows is not None:
            await self.fellows.close()
        await self.tasks.close()
        await self.write_savings()
        await self.management.aclose()

    async def everything(self, question: ActivityQuestion) -> AllActivity:
        """Return the activity of all workers."""
        found = [self.activity.snapshot(question)]
        if self.fellows is not None:
            answers = await self.fellows.ask_others(msgspec.json.encode(question))
            found += [msgspec.json.decode(each, type=WorkerActivity) for each in answers]
        return together(found, question.recent)

    async def log_lines(self, question: LogQuestion) -> list[LogLine]:
        """Return the last lines of all workers' logs, in order."""
        found = self.log_tail.lines(question)
        if self.fellows is not None:
            wanted = msgspec.json.encode(ActivityQuestion(log=question))
            for each in await self.fellows.ask_others(wanted):
                found += msgspec.json.decode(each, type=list[LogLine])
        return sorted(found, key=lambda each: each.moment)[-question.limit :]

    async def tell(self, question: bytes) -> bytes:
        """Answer another worker."""
        wanted = msgspec.json.decode(question, type=ActivityQuestion)
        if wanted.log is not None:
            return msgspec.json.encode(self.log_tail.lines(wanted.log))
        return msgspec.json.encode(self.activity.snapshot(wanted))

    def begin_stream(self, address: str) -> Callable[[], None] | None:
        """Count a stream to an address; return what ends it, None if the address has too many."""
        if self._streams[address] >= MOST_STREAMS:
            return None
        self._streams[address] += 1

        def end() -> None:
            self._streams[address] -= 1
            if not self._streams[address]:
                del self._streams[address]

        return end

    def troubles(self) -> list[dict[str, Any]]:
        """Return what is wrong with the cache folder."""
        return self.service.state.troubles()

    async def write_savings(self) -> None:
        """Write the savings so far. On a failing disk, some figures are lost."""
        async with self._writing:
            self.service.metrics.requests.flush_pending()
            self._savings.note_received(self.service.metrics.received_bytes_of())
            if amounts := self._savings.take():
                try:
                    await asyncio.to_thread(self.savings_book.add, amounts)
                except SAVING_ERRORS as error:
                    log.debug("savings not written", reason=str(error))

    async def _keep_savings(self) -> None:
        while True:
            await asyncio.sleep(SAVINGS_SECONDS)
            await self.write_savings()

    async def _sample(self) -> None:
        while True:
            self.activity.sample_traffic()
            await asyncio.sleep(TRAFFIC_SECONDS)

"""The desk of the operations: this worker, the other workers, and the use cases of operators."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from mirror.config.schema import Config
from mirror.manage.management import Management
from mirror.service.service import Service
from mirror.store.metadata.savings_book import SAVING_ERRORS, SavingsBook
from mirror.util.log import get_logger
from mirror.util.tasks import Tasks
from mirror.web.activity.activity import TRAFFIC_SECONDS, Activity
from mirror.web.activity.entries import ActivityQuestion, LogLine, LogQuestion, WorkerActivity
from mirror.web.activity.exchange import WorkerExchange
from mirror.web.activity.log_tail import LogTail
from mirror.web.activity.savings_counter import SavingsCounter
from mirror.web.activity.shared_answers import SharedAnswers
from mirror.web.activity.together import AllActivity, together

log = get_logger(__name__)

T = TypeVar("T")

# The answer to a question of another version, which is not what any version takes for an answer.
UNKNOWN = msgspec.msgpack.encode("unknown question")

# Interval, in seconds, at which savings are written; the most that a crash loses.
SAVINGS_SECONDS = 30.0

# Interval of the events of a stream, in seconds. All streams of a worker have their events at one moment.
STREAM_SECONDS = 1.0

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
        self.latest = SharedAnswers(self.everything, STREAM_SECONDS)

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
        found += [each for each in await self._ask(question, WorkerActivity) if each is not None]
        return together(found, question.recent)

    async def log_lines(self, question: LogQuestion) -> list[LogLine]:
        """Return the last lines of all workers' logs, in order; at their end, a note if some are missing."""
        found, missing = self.log_tail.lines(question), 0
        for each in await self._ask(ActivityQuestion(log=question), list[LogLine]):
            found += each or []
            missing += each is None
        lines = sorted(found, key=lambda each: each.moment)[-question.limit :]
        return [*lines, _note(missing)] if missing else lines

    async def tell(self, question: bytes) -> bytes:
        """Answer another worker; with UNKNOWN, if it asks what this version does not know."""
        try:
            wanted = msgspec.msgpack.decode(question, type=ActivityQuestion)
        except msgspec.DecodeError:
            return UNKNOWN
        if wanted.log is not None:
            return msgspec.msgpack.encode(self.log_tail.lines(wanted.log))
        return msgspec.msgpack.encode(self.activity.snapshot(wanted))

    async def _ask(self, question: ActivityQuestion, kind: type[T]) -> list[T | None]:
        """Return the answers of the other workers; None of one of another version, during an upgrade."""
        if self.fellows is None:
            return []
        answers = await self.fellows.ask_others(msgspec.msgpack.encode(question))
        return [_understood(each, kind) for each in answers]

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
        """Take samples in the middle of each step, as all workers do: their rates are added up by steps."""
        while True:
            self.activity.sample_traffic()
            await asyncio.sleep(TRAFFIC_SECONDS - (time.time() + TRAFFIC_SECONDS / 2) % TRAFFIC_SECONDS)


def _understood(answer: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.msgpack.decode(answer, type=kind)
    except msgspec.DecodeError:
        return None


def _note(missing: int) -> LogLine:
    workers = f"{missing} worker{'s' if missing > 1 else ''}"
    return LogLine(
        moment=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        worker=-1,
        level="warning",
        component="pages",
        event=f"lines are missing here: {workers} of another version could not be asked for theirs",
        fields={"to_do": "look again after the upgrade, or into the log itself"},
    )

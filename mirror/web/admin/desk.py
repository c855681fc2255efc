"""The desk of the operations: this worker, the other workers, and the use cases of operators."""

import asyncio
from typing import Any

import msgspec

from mirror.config.schema import Config
from mirror.manage.management import Management
from mirror.service import Service
from mirror.util.tasks import Tasks
from mirror.web.activity.activity import TRAFFIC_SECONDS, Activity
from mirror.web.activity.entries import ActivityQuestion, WorkerActivity
from mirror.web.activity.exchange import WorkerExchange
from mirror.web.activity.together import AllActivity, together


class Desk:
    """The desk of one worker. `fellows`: the other workers, None for a mirror of one."""

    def __init__(self, service: Service, config: Config, worker: int) -> None:
        self.service = service
        self.config = config
        self.management = Management(service.folder)
        self.activity = Activity(worker, service.metrics, service.cache.fills, service.upstream_details)
        self.tasks = Tasks()
        self.fellows: WorkerExchange | None = None

    async def start(self) -> None:
        """Begin to look at the traffic."""
        self.tasks.spawn(self._sample(), name="samples of the traffic")
        if self.fellows is not None:
            await self.fellows.open()

    async def close(self) -> None:
        """End what runs in the background."""
        if self.fellows is not None:
            await self.fellows.close()
        await self.tasks.close()
        await self.management.aclose()

    async def everything(self, question: ActivityQuestion) -> AllActivity:
        """Return the activity of all workers."""
        found = [self.activity.snapshot(question)]
        if self.fellows is not None:
            answers = await self.fellows.ask_others(msgspec.json.encode(question))
            found += [msgspec.json.decode(each, type=WorkerActivity) for each in answers]
        return together(found, question.recent)

    async def tell(self, question: bytes) -> bytes:
        """Answer another worker."""
        wanted = msgspec.json.decode(question, type=ActivityQuestion)
        return msgspec.json.encode(self.activity.snapshot(wanted))

    def troubles(self) -> list[dict[str, Any]]:
        """Return what is wrong with the cache folder."""
        return self.service.troubles()

    async def _sample(self) -> None:
        while True:
            self.activity.sample_traffic()
            await asyncio.sleep(TRAFFIC_SECONDS)

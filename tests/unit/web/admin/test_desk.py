"""The desk of the operations; tests/contract/test_pages_activity.py has it with several workers."""

from pathlib import Path

import msgspec

from mirror.service import Service
from mirror.web.activity.entries import ActivityQuestion, WorkerActivity
from mirror.web.admin.desk import Desk
from tests.running import configured


async def test_desk_answers_another_worker(tmp_path: Path) -> None:
    config = configured(tmp_path, {"hub.test": "http://127.0.0.1:9"})
    service = await Service.open(config)
    desk = Desk(service, config, 3)
    await desk.start()
    told = await desk.tell(msgspec.json.encode(ActivityQuestion(5)))
    found = msgspec.json.decode(told, type=WorkerActivity)
    assert (found.worker, [each.name for each in found.upstreams]) == (3, ["hub.test"])
    assert (await desk.everything(ActivityQuestion())).workers == 1
    assert desk.troubles() == []
    await desk.close()
    await service.close()

"""The desk of the operations; tests/contract/test_pages_activity.py has it with several workers."""

import asyncio
import io
from pathlib import Path

import msgspec
import pytest

from mirror.config.schema import LogSettings
from mirror.service.service import Service
from mirror.util.log import configure, get_logger
from mirror.web.activity.entries import ActivityQuestion, LogLine, LogQuestion, WorkerActivity
from mirror.web.activity.exchange import WorkerExchange
from mirror.web.admin import desk as desks
from mirror.web.admin.desk import UNKNOWN, Desk
from tests.paged import paged
from tests.running import configured
from tests.wire import Wire


async def test_desk_answers_another_worker(tmp_path: Path) -> None:
    config = configured(tmp_path, {"hub.test": "http://127.0.0.1:9"})
    service = await Service.open(config)
    desk = Desk(service, config, 3)
    await desk.start()
    told = await desk.tell(msgspec.msgpack.encode(ActivityQuestion(5)))
    found = msgspec.msgpack.decode(told, type=WorkerActivity)
    assert (found.worker, [each.name for each in found.upstreams]) == (3, ["hub.test"])
    assert (await desk.everything(ActivityQuestion())).workers == 1
    assert desk.troubles() == []
    await desk.close()
    await service.close()


async def test_log_of_a_worker_of_another_version_is_left_out_with_a_note(
    own_logging: None, tmp_path: Path
) -> None:
    """During an upgrade a worker may know no such question, or answer it in another way."""
    configure(LogSettings(level="info"), io.StringIO())
    config = configured(tmp_path, {"hub.test": "http://127.0.0.1:9"})
    service = await Service.open(config)
    desk = Desk(service, config, 0)
    assert await desk.tell(b"\xc1") == await desk.tell(b'{"recent":3}') == UNKNOWN
    answers: list[bytes] = []

    async def answer(_: bytes) -> bytes:
        return answers[-1]

    desk.fellows, fellow = WorkerExchange(tmp_path, 0, desk.tell), WorkerExchange(tmp_path, 1, answer)
    await desk.start()
    await fellow.open()
    get_logger("mirror.test").warning("a line of this worker")
    for each in (UNKNOWN, b'[{"moment":"x"}]', msgspec.msgpack.encode({"worker": 1})):
        answers.append(each)
        *lines, note = await desk.log_lines(LogQuestion(text="a line of this worker"))
        assert [line.event for line in lines] == ["a line of this worker"]
        assert (note.level, "1 worker of another version" in note.event) == ("warning", True)
        assert (await desk.everything(ActivityQuestion())).workers == 1
    answers.append(msgspec.msgpack.encode(list[LogLine]()))
    assert len(await desk.log_lines(LogQuestion(text="a line of this worker"))) == 1
    await fellow.close()
    await desk.close()
    await service.close()


async def test_streams_of_one_address_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams of the API and of the pages count together, until they end."""
    monkeypatch.setattr(desks, "MOST_STREAMS", 2)
    async with (
        paged(configured(tmp_path, {"hub.test": "http://127.0.0.1:9"})) as mirror,
        asyncio.timeout(60),
        await Wire.open(mirror.admin) as first,
        await Wire.open(mirror.admin) as second,
    ):
        stream, events = "/api/v1/activity/stream", "/?part=events"
        for _ in range(3):
            assert (await mirror.ask(stream, method="HEAD")).status == 200
        for wire, path in ((first, stream), (second, events)):
            wire.send("GET", path, [f"Host: {mirror.admin}"])
            head = await wire.head()
            assert (head.status, head.header("content-type")) == (200, "text/event-stream")
        for path in (stream, events):
            assert (await mirror.ask(path, method="HEAD")).status == 429
        assert (await mirror.ask(stream, method="HEAD", client="127.0.0.2")).status == 200
        first.reset()
        while (await mirror.ask(stream, method="HEAD")).status != 200:
            pass

"""Lists of images that are fetched on a schedule."""

import asyncio
import json
from pathlib import Path

import pytest

from mirror.config.warm import WarmSettings
from mirror.manage.warm.job_state import JobState
from mirror.oci.image_pattern import Pin
from mirror.service import service
from mirror.service.service import Service
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import configured, serving
from tests.wire import get

NIGHTLY = WarmSettings.model_validate({"name": "nightly", "images": ["x:t"], "schedule": "0 3 * * * UTC"})


async def test_warm_list_is_fetched_at_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The housekeeper begins the run; /readyz and the metrics show it, and the image is served offline."""
    monkeypatch.setattr(service, "HOUSEKEEPING_SECONDS", 0.01)
    now = 20_000 * 86_400.0
    async with FakeRegistry() as hub:
        image = hub.add_image("library/x", "t", [b"a layer"])
        config = configured(tmp_path, {"docker.io": hub.url}, warm=(NIGHTLY,))
        async with serving(config, lambda: now) as mirror:
            ticks: asyncio.Queue[JobState] = asyncio.Queue()
            scheduler = mirror.service.warm._scheduler
            assert scheduler is not None
            tick = scheduler.tick

            async def noted(*, elected: bool) -> None:
                await tick(elected=elected)
                ticks.put_nowait(scheduler.states["nightly"])

            monkeypatch.setattr(scheduler, "tick", noted)
            assert (await ticks.get()).result == "never"
            assert hub.log == []
            now += 3 * 3600
            while (state := await ticks.get()).result in ("never", "running"):
                pass
            assert (state.result, state.images, state.due) == ("done", 1, now)
            hub.fault(Fault(status=500), times=99)
            assert (await get(mirror.address, f"/v2/library/x/blobs/{image.layers[0]}")).body == b"a layer"
            (shown,) = json.loads((await get(mirror.address, "/readyz")).body)["warm"]
            await get(mirror.address, "/metrics")
            name = 'registry_mirror_warm_next_run_timestamp_seconds{list="nightly"}'
            assert await mirror.metric(name) == now + 86_400
    assert (shown["name"], shown["result"], shown["next"]) == ("nightly", "done", now + 86_400)


async def test_pins_of_a_list_are_kept(tmp_path: Path) -> None:
    """A command pins what its list names, by the same door as the schedule; nothing is scheduled here."""
    service_of_a_command = await Service.open_beside(
        configured(tmp_path, {"docker.io": "http://127.0.0.1:9"})
    )
    await service_of_a_command.warm.pin([Pin.of("x:1", [], {})])
    pins = await asyncio.to_thread(service_of_a_command.folder.pins.all)
    assert [str(each.pin) for each in pins] == ["docker.io/library/x:1"]
    assert service_of_a_command.warm.status() == []
    await service_of_a_command.close()

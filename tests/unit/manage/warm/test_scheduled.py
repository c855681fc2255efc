"""Runs of lists of the configuration."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from mirror.config.warm import WarmSettings
from mirror.manage.warm.plan import WarmPlan
from mirror.manage.warm.run import WarmRun
from mirror.manage.warm.scheduled import fetch_list
from mirror.oci.image_pattern import Pin
from mirror.store.errors import StoreError
from mirror.util.progress.amounts import ImageProgress

NAMES = {"docker.io": "docker.io"}


class Plans:
    """Plans as runs, of a source without images: each pattern fails, and single images are not asked for."""

    def __init__(self, failure: StoreError | None = None) -> None:
        self.plans: list[WarmPlan] = []
        self.pins: list[str] = []
        self._failure = failure

    def begin(self, plan: WarmPlan) -> WarmRun:
        self.plans.append(plan)
        return Present()

    async def pin(self, pins: Sequence[Pin]) -> None:
        self.pins += map(str, pins)
        if self._failure is not None:
            raise self._failure


class Present(WarmRun):
    """A run whose images are all here."""

    def __init__(self) -> None:
        super().__init__(None)  # type: ignore[arg-type]

    async def _pull(self, image: object, queue: "asyncio.Queue[ImageProgress | None]") -> None:
        queue.put_nowait(self._note(ImageProgress(str(image), state="present")))


async def test_list_has_its_images_and_those_of_its_files(tmp_path: Path) -> None:
    """A file that is missing, and a line that is no image, are failures; the rest is fetched."""
    file = tmp_path / "images.txt"
    await asyncio.to_thread(file.write_text, "y:1\nUPPER\n")
    compose, values = tmp_path / "compose.yaml", tmp_path / "values"
    await asyncio.to_thread(compose.write_text, "services:\n  a:\n    image: z:$TAG\n")
    await asyncio.to_thread(values.write_text, "TAG=1\n")
    settings = WarmSettings.model_validate(
        {
            "name": "n",
            "images": ["x:1", "ghcr.io/org/app"],
            "files": [str(file), str(tmp_path / "none"), str(compose)],
            "env_files": [str(values), str(tmp_path / "no-values")],
            "platforms": ["all"],
            "pin": True,
            "leave": 7,
            "schedule": "0 3 * * * UTC",
        }
    )
    plans = Plans()
    outcome = await fetch_list(settings, NAMES, plans.begin, plans.pin)
    (plan,) = plans.plans
    assert [str(each) for each in plan.images] == [f"docker.io/library/{each}:1" for each in "xyz"]
    assert (plan.platforms, plan.pin, plan.leave) == ((), True, 7)
    assert plans.pins == [f"docker.io/library/{each}:1" for each in "xyz"]
    assert outcome.images == 3
    assert list(outcome.failures) == [
        str(tmp_path / "no-values"),
        str(tmp_path / "none"),
        "ghcr.io/org/app",
        f"{file}:2",
    ]


async def test_list_that_cannot_be_pinned_is_fetched_nevertheless() -> None:
    settings = WarmSettings.model_validate(
        {"name": "n", "images": ["x:1"], "pin": True, "schedule": "0 3 * * * UTC"}
    )
    plans = Plans(StoreError("too large"))
    outcome = await fetch_list(settings, NAMES, plans.begin, plans.pin)
    assert (outcome.images, outcome.failures) == (1, {"pins": "too large"})

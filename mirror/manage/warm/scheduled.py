"""The run of a list of the configuration: its images and files are read, and fetched."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing

from mirror.config.warm import WarmSettings
from mirror.manage.warm.images import WarmImage, parse_image
from mirror.manage.warm.listed import Listed, ListEntry, ListError
from mirror.manage.warm.plan import WarmPlan
from mirror.manage.warm.run import WarmRun
from mirror.manage.warm.scheduler import RunOutcome
from mirror.manage.warm.source import read_source, read_values
from mirror.oci.image_pattern import Pin
from mirror.store.errors import StoreError


async def fetch_list(
    settings: WarmSettings,
    names: Mapping[str, str],
    begin: Callable[[WarmPlan], WarmRun],
    pin: Callable[[Sequence[Pin]], Awaitable[None]],
) -> RunOutcome:
    """Fetch the images of a list; what is no image of a file, and what is missing, is a failure.

    `names` maps the names of upstreams to canonical ones.
    """
    failures: dict[str, str] = {}
    images = _parsed(await asyncio.to_thread(_listed, settings, failures), names, failures)
    plan = WarmPlan.of(
        images, settings.platforms, referrers=settings.referrers, pin=settings.pin, leave=settings.leave
    )
    run = begin(plan)
    found = [each async for each in run.resolve(plan.images) if isinstance(each, WarmImage)]
    try:
        await pin(plan.pins(found))
    except StoreError as error:
        failures["pins"] = str(error)
    async with aclosing(run.steps(found)) as steps:
        async for _ in steps:
            pass
    failures.update((each.name, each.reason) for each in run.failed)
    return RunOutcome(len(run.results), failures)


def _listed(settings: WarmSettings, failures: dict[str, str]) -> Listed:
    found, values = Listed([ListEntry(each, "") for each in settings.images]), dict[str, str]()
    for file in settings.env_files:
        try:
            values |= read_values(file)
        except ListError as error:
            failures[file] = str(error)
    for file in settings.files:
        try:
            found.add(read_source(file, values))
        except ListError as error:
            failures[file] = str(error)
    failures.update((each.place, each.reason) for each in found.notes if each.wrong)
    return found


def _parsed(listed: Listed, names: Mapping[str, str], failures: dict[str, str]) -> list[WarmImage]:
    images = []
    for each in listed.entries:
        try:
            images.append(parse_image(each.text, names))
        except ValueError as error:
            failures[each.place or each.text] = str(error)
    return images

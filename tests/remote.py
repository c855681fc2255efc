"""A running mirror with an image, and the connection of a command to its API as an administrator."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mirror.access.rules import Action
from mirror.cli.remote.admin_client import AdminClient, PagesPlace
from mirror.cli.remote.connection import Remote
from mirror.config.schema import LogSettings
from mirror.util.log import configure
from tests.contract.test_pages_access import token
from tests.fakes.registry import FakeRegistry
from tests.paged import Paged, paged
from tests.running import configured
from tests.wire import Wire


@asynccontextmanager
async def holding(folder: Path, tags: int = 1) -> AsyncIterator[tuple[Paged, Remote]]:
    """Serve a mirror whose cache has `tags` manifests of alpine: 3.20 and further ones.

    Nothing is logged to the output of the command: for tests with `own_logging`.
    """
    configure(LogSettings(), io.StringIO())
    async with FakeRegistry() as hub:
        config = configured(folder, {"docker.io": hub.url})
        async with paged(config) as mirror, await Wire.open(mirror.address) as wire:
            for number in range(20, 20 + tags):
                hub.add_image("library/alpine", f"3.{number}", [f"layer {number}".encode()])
                wire.send("GET", f"/v2/library/alpine/manifests/3.{number}")
                assert (await wire.reply()).status == 200
            secret = (await token(mirror, "me", Action.ADMIN)).rpartition(" ")[2]
            client = AdminClient(PagesPlace(f"http://{mirror.admin}"), secret)
            try:
                yield mirror, Remote(client, config)
            finally:
                client.close()


async def asked(remote: Remote, command: Callable[..., Any], *arguments: object, **flags: object) -> Any:
    """Run a command in a thread, as the loop serves the mirror."""
    return await asyncio.to_thread(command, remote, *arguments, **flags)

"""A mirror with its pages, in the test's process: both listeners on free ports of loopback."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mirror.config.schema import Config
from mirror.service.service import Service
from mirror.system.sockets import bind_all, format_address
from mirror.util.tasks import Tasks
from mirror.web.serving.server import Listeners, serve
from tests.running import Running
from tests.wire import Reply, Wire

LOCAL = "127.0.0.1:0"


class Paged(Running):
    """A mirror with pages at `admin`."""

    admin: str

    async def ask(
        self,
        path: str,
        *headers: str,
        method: str = "GET",
        body: bytes | None = None,
        client: str | None = None,
        host: str | None = None,
    ) -> Reply:
        """Return the pages' reply to a request from `client`, an address of loopback."""
        async with await Wire.open(self.admin, client=client) as wire:
            length = [f"Content-Length: {len(body)}"] if body is not None else []
            wire.send(method, path, [f"Host: {host or self.admin}", *headers, *length])
            if body:
                wire.writer.write(body)
            return await wire.reply(method)

    async def api(self, path: str, *headers: str, client: str | None = None) -> Any:
        """Return the value of a reply of the API with status 200."""
        reply = await self.ask(f"/api/v1/{path}", *headers, client=client)
        assert reply.status == 200, reply.body
        return json.loads(reply.body)


@asynccontextmanager
async def paged(config: Config, workers: tuple[Path, int] | None = None) -> AsyncIterator[Paged]:
    """Serve `config` with pages. `workers`: the folder of several workers, and the number of this one."""
    stop, tasks, ready = asyncio.Event(), Tasks(), asyncio.Event()
    service = await Service.open(config)
    sockets, admin = bind_all([LOCAL]), bind_all([LOCAL])
    listeners = Listeners(sockets, None, admin=admin, workers=workers)
    server = tasks.spawn(serve(service, config, lambda _: ready.set(), stop, listeners), name="serve")
    await ready.wait()
    mirror = Paged(format_address(sockets[0]), service, config, stop)
    mirror.admin = format_address(admin[0])
    try:
        yield mirror
    finally:
        stop.set()
        await server
        await service.close()
        await tasks.close()

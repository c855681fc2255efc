"""For operators and their machines: /healthz, /readyz, /metrics."""

import asyncio
import json
from contextlib import suppress

from aiohttp import web

from mirror.service import Service
from mirror.store.errors import StoreError


class Probes:
    def __init__(self, service: Service) -> None:
        self._service = service
        self.draining = False
        self._paths = {"/healthz": self._health, "/readyz": self._ready, "/metrics": self._metrics}

    async def answer(self, request: web.BaseRequest) -> web.Response | None:
        """The probe's answer; None when the request is for something else."""
        probe = self._paths.get(request.path)
        if probe is None or request.method not in ("GET", "HEAD"):
            return None
        return await probe()

    async def _health(self) -> web.Response:
        """The process is alive and its event loop turns."""
        return web.Response(text="ok\n")

    async def _ready(self) -> web.Response:
        """Whether to send requests here: not while the last ones are finishing.

        An upstream that fails or limits does not change that: there is a cache to serve from.
        """
        state = {"ready": not self.draining, "upstreams": self._service.upstreams()}
        body = json.dumps(state).encode()
        return web.Response(status=503 if self.draining else 200, body=body, content_type="application/json")

    async def _metrics(self) -> web.Response:
        # With a bad disk the other metrics are what tells the operator.
        with suppress(StoreError):
            await self._service.refresh_stats()
        # In a thread: what is told about the process is read from files.
        body, content_type = await asyncio.to_thread(self._service.metrics.render)
        return web.Response(body=body, headers={"Content-Type": content_type})

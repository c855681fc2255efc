"""Endpoints for operators and their tools: /healthz, /readyz, /metrics."""

import json
from typing import Any

from aiohttp import web

from mirror.service.service import Service
from mirror.util.log_writer import is_losing_lines, lines_dropped
from mirror.web.responses import SERVER


class Probes:
    """Handler of the three endpoints. `draining` makes /readyz answer 503.

    `own_listener`: operators have an address of their own, and clients get /healthz alone.
    """

    def __init__(self, service: Service, *, own_listener: bool = False) -> None:
        self._service = service
        self._own_listener = own_listener
        self.draining = False
        self._paths = {"/healthz": self._health, "/readyz": self._ready, "/metrics": self._metrics}

    async def answer(self, request: web.BaseRequest, *, operators: bool = False) -> web.Response | None:
        """Return the probe's response; None when the request is for something else.

        `operators`: the request came to their listener.
        """
        probe = self._paths.get(request.path)
        if probe is None or request.method not in ("GET", "HEAD"):
            return None
        if self._own_listener and not operators and probe != self._health:
            return None
        return await probe(request)

    async def _health(self, _: web.BaseRequest) -> web.Response:
        """Answer 200: the process is alive and its event loop turns."""
        return web.Response(text="ok\n", headers=SERVER)

    async def _ready(self, _: web.BaseRequest) -> web.Response:
        """Answer 200 while requests may be sent here, 503 during the drain.

        A failing or limiting upstream does not change the status: the cache still serves. Nor does trouble
        with the cache: the mirror still passes requests through. Nor does a log that loses lines.
        """
        state: dict[str, Any] = {
            "ready": not self.draining,
            "cache": {"trouble": self._service.state.troubles()},
            "log": {"losing_lines": is_losing_lines(), "lines_dropped": lines_dropped()},
            "upstreams": self._service.state.upstreams(),
        }
        if warm := self._service.warm.status():
            state["warm"] = warm
        if (shared := self._service.state.shared()) is not None:
            state["shared"] = shared
        body = json.dumps(state).encode()
        status = 503 if self.draining else 200
        return web.Response(status=status, body=body, content_type="application/json", headers=SERVER)

    async def _metrics(self, request: web.BaseRequest) -> web.Response:
        body, content_type = await self._service.statistics.exposition(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={**SERVER, "Content-Type": content_type})

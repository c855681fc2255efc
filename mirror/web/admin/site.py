"""The site: which request is for the API, and which for a page."""

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from mirror.util.log import get_logger
from mirror.web.admin.api.dispatch import PREFIX, Dispatcher
from mirror.web.admin.api.images import Images
from mirror.web.admin.api.live import Live
from mirror.web.admin.api.openapi import document
from mirror.web.admin.api.operation import Audience, NoParameters, Operation
from mirror.web.admin.desk import Desk
from mirror.web.admin.headers import API_HEADERS
from mirror.web.admin.visitors import FrontDoor, PageVisitor
from mirror.web.identity.gate import Gate

log = get_logger(__name__)

FOREIGN = (
    "this is not a name of these pages: open them by an address, or add the name to admin.hosts in the "
    "configuration\n"
)


class Site:
    """All that the listener of the pages answers."""

    def __init__(self, desk: Desk, gate: Gate, hosts: Sequence[str]) -> None:
        self._door = FrontDoor(gate, hosts)
        self._document: dict[str, Any] | None = None
        openapi = Operation(
            method="GET",
            path=f"{PREFIX}openapi.json",
            summary="This document",
            audience=Audience.ANYBODY,
            call=self._describe,
            answer=dict[str, Any],
        )
        operations = [*Live(desk).operations(), *Images(desk).operations(), openapi]
        self.api = Dispatcher(operations, self._door)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request."""
        try:
            if self._door.is_foreign(request):
                return web.Response(status=421, text=FOREIGN, headers=API_HEADERS)
            if request.path.startswith(PREFIX):
                return await self.api.answer(request)
            if request.path == "/healthz":
                return web.Response(text="ok\n", headers=API_HEADERS)
            return web.Response(status=404, text="there is no such page\n", headers=API_HEADERS)
        except (ConnectionError, web.HTTPException):
            raise
        except Exception:
            log.exception("unexpected error on the pages", path=request.path[:200])
            text = "unexpected error in this mirror; see its log\n"
            return web.Response(status=500, text=text, headers=API_HEADERS)

    async def _describe(self, _visitor: PageVisitor, _: NoParameters) -> dict[str, Any]:
        if self._document is None:
            self._document = document(self.api.operations)
        return self._document

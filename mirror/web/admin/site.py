"""The site: which request is for the API, and which for a page."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aiohttp import web

from mirror.util.log import get_logger
from mirror.web.admin.api.actions import Actions
from mirror.web.admin.api.dispatch import PREFIX, Dispatcher
from mirror.web.admin.api.images import Images
from mirror.web.admin.api.live import Live
from mirror.web.admin.api.openapi import document
from mirror.web.admin.api.operation import Audience, NoParameters, Operation
from mirror.web.admin.api.savings import SavingsOperations
from mirror.web.admin.api.settings import SettingsOperations
from mirror.web.admin.api.upkeep import Upkeep
from mirror.web.admin.desk import Desk
from mirror.web.admin.headers import API_HEADERS
from mirror.web.admin.visitors import FrontDoor, PageVisitor
from mirror.web.identity.gate import Gate

if TYPE_CHECKING:
    from mirror.web.admin.pages.site_pages import Pages

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
        images = Images(desk)
        parts = (
            Live(desk),
            images,
            Actions(desk, images),
            SavingsOperations(desk),
            SettingsOperations(desk),
            Upkeep(desk),
        )
        operations = [each for part in parts for each in part.operations()]
        self.api = Dispatcher([*operations, openapi], self._door)
        self._desk = desk
        self._pages: Pages | None = None

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request."""
        try:
            if self._door.is_foreign(request):
                return web.Response(status=421, text=FOREIGN, headers=API_HEADERS)
            if request.path.startswith(PREFIX):
                return await self.api.answer(request)
            if request.path == "/healthz":
                return web.Response(text="ok\n", headers=API_HEADERS)
            return await self._page(request)
        except (ConnectionError, web.HTTPException):
            raise
        except Exception:
            log.exception("unexpected error on the pages", path=request.path[:200])
            text = "unexpected error in this mirror; see its log\n"
            return web.Response(status=500, text=text, headers=API_HEADERS)

    async def _page(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer with a page. What renders pages is imported with the first one."""
        if self._pages is None:
            self._pages = await asyncio.to_thread(_open_pages, self._desk, self._door)
        return await self._pages.answer(request)

    async def _describe(self, _visitor: PageVisitor, _: NoParameters) -> dict[str, Any]:
        if self._document is None:
            self._document = document(self.api.operations)
        return self._document


def _open_pages(desk: Desk, door: FrontDoor) -> "Pages":
    from mirror.web.admin.pages.site_pages import Pages

    return Pages(desk, door)

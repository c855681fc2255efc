"""Requests for pages: language, sign-in, files, and what becomes of errors."""

import asyncio
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from aiohttp import web

from mirror.oci.errors import RegistryError
from mirror.store.errors import StoreError
from mirror.web.admin.api.dispatch import send
from mirror.web.admin.api.live import event_stream
from mirror.web.admin.api.operation import ApiError
from mirror.web.admin.desk import Desk
from mirror.web.admin.headers import PAGE_HEADERS, STATIC_HEADERS
from mirror.web.admin.pages.render import LANGUAGES, Renderer
from mirror.web.admin.pages.views import View, Views
from mirror.web.admin.visitors import FrontDoor, PageVisitor

# How long a chosen language is remembered, in seconds.
YEAR = 365 * 24 * 3600

CHINESE = re.compile(r"(?:^|,)\s*(zh|en)\b", re.IGNORECASE)

# Where a sign-in may lead to: a path of these pages.
PATH = re.compile(r"/[A-Za-z0-9._@:-][A-Za-z0-9._@:/-]{0,600}|/")


class Pages:
    """All pages of one worker. Templates are read when the first page is asked for."""

    def __init__(self, desk: Desk, door: FrontDoor) -> None:
        self._desk = desk
        self._views = Views(desk)
        self._door = door
        self._renderer: Renderer | None = None
        self._opening = asyncio.Lock()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request that is not for the API."""
        renderer = await self._open()
        if request.path.startswith("/static/"):
            return _static(renderer, request)
        language = _language(request)
        try:
            if request.method not in ("GET", "HEAD"):
                raise ApiError(405, f"{request.method} is for the API alone")
            visitor = await self._door.admit(request)
            if request.path == "/login":
                return _login(visitor, request)
            view = self._views.find(request.path)
            if view is None:
                raise ApiError(404, "there is no such page")
            self._views.check(request.path, visitor)
            render = partial(self._render, renderer, request, visitor, language)
            return await self._page(view, render, visitor, request, language)
        except ApiError as error:
            return self._error(renderer, request, language, error)
        except RegistryError as error:
            return self._error(renderer, request, language, ApiError(error.status, error.message))
        except StoreError as error:
            text = f"the cache cannot be read: {error}"
            return self._error(renderer, request, language, ApiError(503, text))

    async def _page(
        self,
        view: View,
        render: Callable[[str, Mapping[str, Any]], str],
        visitor: PageVisitor,
        request: web.BaseRequest,
        language: str,
    ) -> web.StreamResponse:
        if request.query.get("part") == "events" and self._views.has_events(request.path):
            events = self._views.events(render, visitor, request, language)
            return await send(request, event_stream(self._desk, visitor, events, {}))
        name, values = await view(visitor, request)
        return _html(200, render(name, values), request)

    async def _open(self) -> Renderer:
        async with self._opening:
            if self._renderer is None:
                self._renderer = await asyncio.to_thread(Renderer)
            return self._renderer

    def _render(
        self,
        renderer: Renderer,
        request: web.BaseRequest,
        visitor: PageVisitor,
        language: str,
        name: str,
        values: Mapping[str, Any],
    ) -> str:
        here = "/images" if request.path.startswith("/images") else request.path
        return renderer.render(name, language, {"visitor": visitor, "here": here, **values})

    def _error(
        self, renderer: Renderer, request: web.BaseRequest, language: str, error: ApiError
    ) -> web.Response:
        values = {
            "status": error.status,
            "message": error.message,
            "to_do": error.to_do,
            "here": request.path if PATH.fullmatch(request.path) else "/",
            "visitor": NOBODY,
        }
        return _html(error.status, renderer.render("error.html", language, values), request)


class _Nobody:
    """An unknown visitor."""

    names: tuple[str, ...] = ()
    is_admin = is_operator = False


NOBODY = _Nobody()


def _html(status: int, text: str, request: web.BaseRequest) -> web.Response:
    response = web.Response(
        status=status, text=text, content_type="text/html", charset="utf-8", headers=PAGE_HEADERS
    )
    if request.query.get("lang") in LANGUAGES:
        response.set_cookie("lang", request.query["lang"], max_age=YEAR, samesite="Strict", httponly=True)
    return response


def _static(renderer: Renderer, request: web.BaseRequest) -> web.Response:
    found = renderer.static.get(request.path.removeprefix("/static/"))
    if found is None or request.method not in ("GET", "HEAD"):
        return web.Response(status=404, text="there is no such file\n", headers=PAGE_HEADERS)
    return web.Response(
        body=found.data, content_type=found.media_type, charset="utf-8", headers=STATIC_HEADERS
    )


def _language(request: web.BaseRequest) -> str:
    """Return the language of a page: chosen, or the first of ours that the browser names."""
    for chosen in (request.query.get("lang"), request.cookies.get("lang")):
        if chosen in LANGUAGES:
            return str(chosen)
    found = CHINESE.search(request.headers.get("Accept-Language", "")[:500])
    return "en" if found is None else found[1].lower()


def _login(visitor: PageVisitor, request: web.BaseRequest) -> web.Response:
    """Have the browser ask for user and password, once; a token is the password of any user."""
    if not visitor.names:
        headers = {**PAGE_HEADERS, "WWW-Authenticate": 'Basic realm="registry-mirror", charset="UTF-8"'}
        text = "sign in with any user, and a token as the password (registry-mirror token create)\n"
        return web.Response(status=401, text=text, headers=headers)
    to = request.query.get("to", "/")
    target = to if PATH.fullmatch(to) and not to.startswith("//") else "/"
    return web.Response(status=303, headers={**PAGE_HEADERS, "Location": target})

"""Views: which page is at which path, and which operations it shows."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, get_args
from urllib.parse import unquote

import msgspec
from aiohttp import web

from mirror.oci.registries import split_port
from mirror.web.activity.entries import Level
from mirror.web.activity.shared_answers import SharedAnswers
from mirror.web.activity.together import AllActivity
from mirror.web.admin.api.dispatch import check_audience
from mirror.web.admin.api.images import ImageParameters, Images, ListParameters, TagParameters
from mirror.web.admin.api.live import STREAM_RECENT, ActivityParameters, Live, pause
from mirror.web.admin.api.operation import ApiError, Audience, NoParameters
from mirror.web.admin.api.savings import SavingsOperations, SavingsParameters
from mirror.web.admin.api.settings import AccessQuestion, LogParameters, SettingsOperations
from mirror.web.admin.desk import Desk
from mirror.web.admin.pages.parts import (
    OPERATOR_PARTS,
    OWN_PARTS,
    VISITOR_PARTS,
    RenderedParts,
    Rendering,
    changes,
)
from mirror.web.admin.pages.setups import setups
from mirror.web.admin.visitors import PageVisitor
from mirror.web.connections.request_target import host_of

NOTHING = NoParameters()

# Time, in seconds, for which the page Now shows the same room of the cache: counting it asks the index.
DISK_SECONDS = 5.0

# Samples of the traffic that an event needs, for the last rates.
LAST_SAMPLES = 3

# Fields of the form that tries the rules.
ASKED = ("address", "identities", "action", "reference")

# A view returns the name of its template and the values for it.
View = Callable[[PageVisitor, web.BaseRequest], Awaitable[tuple[str, Mapping[str, Any]]]]


class Views:
    """The pages of one worker."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._live = Live(desk)
        self._images = Images(desk)
        self._savings = SavingsOperations(desk)
        self._settings = SettingsOperations(desk)
        self._shared: dict[str, RenderedParts] = {}
        self._disk = SharedAnswers(self._live.disk_state, DISK_SECONDS)

    def has_events(self, path: str) -> bool:
        """Return whether parts of a page renew themselves."""
        return path in ("/", "/me")

    def find(self, path: str) -> View | None:
        """Return the view of a path; None if it has none."""
        if path.startswith("/images/"):
            return self.image
        fixed: Mapping[str, View] = {
            "/": self.now,
            "/images": self.images,
            "/savings": self.savings,
            "/me": self.me,
            "/settings": self.settings,
        }
        return fixed.get(path)

    async def now(self, visitor: PageVisitor, request: web.BaseRequest) -> tuple[str, Mapping[str, Any]]:
        """Return what is going on now."""
        activity = await self._live.activity(visitor, ActivityParameters(STREAM_RECENT))
        points = [[each.moment, round(each.received), round(each.sent)] for each in activity.traffic]
        return "now.html", {
            **await self._now(visitor, activity),
            "points": json.dumps(points if visitor.is_operator else []),
            "parts": list(OPERATOR_PARTS if visitor.is_operator else VISITOR_PARTS),
        }

    async def _now(self, visitor: PageVisitor, activity: AllActivity) -> dict[str, Any]:
        """Return the values that the parts of the page Now show."""
        values = {"requests": activity.requests, "recent": activity.recent}
        if not visitor.is_operator:
            return values
        return {
            **values,
            "workers": activity.workers,
            "downloads": activity.downloads,
            "upstreams": activity.upstreams,
            "rates": activity.traffic[-1] if activity.traffic else None,
            "troubles": self._live.troubles_with(activity.upstreams),
            "disk": await self._disk.get(NOTHING),
        }

    async def images(self, visitor: PageVisitor, request: web.BaseRequest) -> tuple[str, Mapping[str, Any]]:
        """Return repositories and, for a search, tags."""
        query, search = request.query, request.query.get("search", "")[:200]
        repositories = await self._images.repositories(
            visitor, ListParameters(search, query.get("after", "")[:600])
        )
        tags = None
        if search:
            tags = await self._images.tags(visitor, TagParameters(search, query.get("from", "")[:600]))
        return _rows(request), {
            "repositories": repositories,
            "tags": tags,
            "search": search,
            "repository": "",
        }

    async def image(self, visitor: PageVisitor, request: web.BaseRequest) -> tuple[str, Mapping[str, Any]]:
        """Return the tags of a repository, or one image."""
        name = unquote(request.path.removeprefix("/images/"))
        if "@" in name or ":" in name.rpartition("/")[2]:
            return "image.html", {"image": await self._images.image(visitor, ImageParameters(name[:600]))}
        query, search = request.query, request.query.get("search", "")[:200]
        tags = await self._images.tags(
            visitor, TagParameters(search, query.get("from", "")[:600], repository=name[:400])
        )
        if not tags.rows and not search:
            raise ApiError(404, f"{name:.200} is not known here")
        return _rows(request), {"repositories": None, "tags": tags, "search": search, "repository": name}

    async def me(self, visitor: PageVisitor, request: web.BaseRequest) -> tuple[str, Mapping[str, Any]]:
        """Return the visitor's own requests, and how its client is set up."""
        own = await self._live.own(visitor, NOTHING)
        server = self._desk.config.server
        encrypted = server.tls_certificate is not None
        host, listen = split_port(host_of(request))[0], self._desk.addresses or list(server.listen)
        local_only = all(each.startswith(("127.", "localhost", "[::1]")) for each in listen)
        mirror = f"{host}:{listen[0].rpartition(':')[2]}"
        names = [each.name for each in self._desk.config.upstreams]
        return "me.html", {
            "own": own,
            "mirror": mirror,
            "encrypted": encrypted,
            "local_only": local_only,
            "setups": setups(mirror, "https" if encrypted else "http", names),
        }

    async def savings(self, visitor: PageVisitor, request: web.BaseRequest) -> tuple[str, Mapping[str, Any]]:
        """Return the savings of the last days."""
        wanted = request.query.get("days", "30")
        days = int(wanted) if wanted in ("7", "30", "90", "365") else 30
        savings = await self._savings.savings(visitor, SavingsParameters(days))
        points = json.dumps([[each.moment, each.saved, each.received] for each in savings.days])
        return "savings.html", {"savings": savings, "chosen": days, "points": points}

    async def settings(self, visitor: PageVisitor, request: web.BaseRequest) -> tuple[str, Mapping[str, Any]]:
        """Return the settings, and what the rules say to a question."""
        asked = {name: request.query.get(name, "")[:600] for name in ASKED}
        decision, wrong = None, ""
        if asked["address"] and asked["reference"]:
            try:
                wanted = msgspec.convert({**asked, "action": asked["action"] or "pull"}, AccessQuestion)
                decision = await self._settings.test(visitor, wanted)
            except (msgspec.ValidationError, ApiError) as error:
                wrong = str(error)
        return "settings.html", {
            "settings": await self._settings.settings(visitor, NOTHING),
            "rules": await self._settings.rules(visitor, NOTHING),
            "tokens": await self._settings.tokens(visitor, NOTHING),
            "warm": await self._settings.warm(visitor, NOTHING),
            "levels": get_args(Level),
            **await self._log(visitor, request),
            "asked": asked,
            "decision": decision,
            "wrong": wrong,
        }

    async def _log(self, visitor: PageVisitor, request: web.BaseRequest) -> dict[str, Any]:
        """Return the end of the log, for those who may read it, and how it was filtered."""
        given = {name: request.query.get(name, "")[:100] for name in ("level", "component", "text")}
        given["level"] = given["level"] if given["level"] in get_args(Level) else "info"
        wanted = msgspec.convert(given, LogParameters)
        lines = reversed(await self._settings.log(visitor, wanted)) if visitor.is_admin else None
        return {"log": lines and list(lines), "filter": wanted}

    async def events(
        self, render: Rendering, visitor: PageVisitor, request: web.BaseRequest, language: str
    ) -> AsyncGenerator[bytes]:
        """Yield what has changed in the parts of a page once a second, as events."""
        sent: dict[str, str] = {}
        is_own, parts = request.path == "/me", self._parts_for(visitor, language, request.path)
        while True:
            if is_own:
                values: dict[str, Any] = {"own": await self._live.own(visitor, NOTHING)}
            else:
                values = await self._now(visitor, await self._live.latest(visitor, LAST_SAMPLES))
            event = {"now": time.time(), "parts": changes(parts.renew(values, render), sent)}
            yield b"data: " + msgspec.json.encode(event) + b"\n\n"
            await asyncio.sleep(pause(time.monotonic()))

    def _parts_for(self, visitor: PageVisitor, language: str, path: str) -> RenderedParts:
        """Return the parts of a page; visitors who see everything share theirs in each language."""
        if path == "/me":
            return RenderedParts(OWN_PARTS)
        if not visitor.is_operator or not visitor.sees_all:
            return RenderedParts(OPERATOR_PARTS if visitor.is_operator else VISITOR_PARTS)
        return self._shared.setdefault(language, RenderedParts(OPERATOR_PARTS))

    def check(self, path: str, visitor: PageVisitor) -> None:
        """Raise ApiError if the page is not for the visitor."""
        if path == "/settings":
            check_audience(Audience.OPERATORS, visitor)


def _rows(request: web.BaseRequest) -> str:
    return "rows.html" if request.query.get("part") else "images.html"

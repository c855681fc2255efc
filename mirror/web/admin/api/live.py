"""Operations about now: requests and downloads that run, upstreams, disk, troubles, the visitor itself."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from mirror import __version__
from mirror.oci.reference import Repository
from mirror.util.log_writer import is_losing_lines, lines_dropped
from mirror.web.activity.entries import MOST_SAMPLES, ActivityQuestion, EndedRequest, UpstreamState
from mirror.web.activity.together import AllActivity
from mirror.web.admin.api.operation import (
    EVENTS,
    ApiError,
    Audience,
    NoParameters,
    Operation,
    StreamAnswer,
)
from mirror.web.admin.desk import MOST_STREAMS, STREAM_SECONDS, Desk
from mirror.web.admin.visitors import PageVisitor

# Pause after an event, in seconds, where making it has taken the interval.
LEAST_PAUSE = 0.2

# Ended requests that an event of a stream has.
STREAM_RECENT = 20


class ActivityParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """`recent`: the most ended requests to return."""

    recent: Annotated[int, Meta(ge=0, le=500)] = 50


class Trouble(Struct, frozen=True):
    """Something that is wrong. `since`: in seconds since the epoch, None if that is not known."""

    what: str
    reason: str
    to_do: str
    since: float | None = None


class DiskState(Struct, frozen=True, kw_only=True):
    """The room of the cache, in bytes. `blobs`: their number; `downloads`: bytes of unfinished ones.

    `free`, `total`: of the file system. `allowed`: what the cache may hold.
    """

    cached: int
    blobs: int
    downloads: int
    pinned: int
    allowed: int
    free: int
    total: int
    index: int
    scrubbed: float | None


class About(Struct, frozen=True, kw_only=True):
    """The visitor, and what it may do here."""

    version: str
    address: str
    names: list[str]
    admin: bool
    operator: bool


class OwnRequests(Struct, frozen=True):
    """The requests of the visitor's address in the last minutes, the latest first."""

    address: str
    now: float
    requests: list[EndedRequest]
    running: int


def pause(now: float) -> float:
    """Return the seconds until the next event of all streams, at least LEAST_PAUSE."""
    rest = STREAM_SECONDS - now % STREAM_SECONDS
    return rest if rest >= LEAST_PAUSE else rest + STREAM_SECONDS


class Live:
    """The operations about now."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def operations(self) -> Sequence[Operation]:
        """Return the operations."""
        readers, operators = Audience.READERS, Audience.OPERATORS
        return (
            _get("about", "The visitor, and what it may do here", Audience.ANYBODY, self.about, About),
            _get(
                "activity",
                "Requests and downloads that run, and requests that have ended",
                readers,
                self.activity,
                AllActivity,
                ActivityParameters,
            ),
            Operation(
                method="GET",
                path="/api/v1/activity/stream",
                summary="The activity once a second, as server-sent events",
                audience=readers,
                call=self.stream,
                media_type=EVENTS,
                errors=(429,),
            ),
            _get(
                "own-requests", "Requests of the visitor's address", Audience.ANYBODY, self.own, OwnRequests
            ),
            _get("upstreams", "State of the upstreams", operators, self.upstreams, list[UpstreamState]),
            _get("disk", "Room of the cache", operators, self.disk, DiskState),
            _get("troubles", "What is wrong, and what to do", operators, self.troubles, list[Trouble]),
        )

    async def about(self, visitor: PageVisitor, _: NoParameters) -> About:
        """Return who the visitor is."""
        return About(
            version=__version__,
            address=visitor.address,
            names=list(visitor.names),
            admin=visitor.is_admin,
            operator=visitor.is_operator,
        )

    async def activity(self, visitor: PageVisitor, wanted: ActivityParameters) -> AllActivity:
        """Return the activity, as far as the visitor may know of it."""
        client = None if visitor.is_operator else visitor.address
        found = await self._desk.everything(ActivityQuestion(wanted.recent, client))
        return await _shown(found, visitor)

    async def latest(self, visitor: PageVisitor, samples: int) -> AllActivity:
        """Return the activity for a stream, from the one look of this second at all workers."""
        client = None if visitor.is_operator else visitor.address
        found = await self._desk.latest.get(ActivityQuestion(STREAM_RECENT, client, samples=samples))
        return await _shown(found, visitor)

    async def stream(self, visitor: PageVisitor, _: NoParameters) -> StreamAnswer:
        """Return the activity as a stream of events."""
        return event_stream(self._desk, visitor, self._events(visitor), {"Cache-Control": "no-store"})

    async def _events(self, visitor: PageVisitor) -> AsyncGenerator[bytes]:
        while True:
            found = await self.latest(visitor, MOST_SAMPLES)
            yield b"data: " + msgspec.json.encode(found) + b"\n\n"
            await asyncio.sleep(pause(time.monotonic()))

    async def own(self, visitor: PageVisitor, _: NoParameters) -> OwnRequests:
        """Return the requests of the visitor's address."""
        address = visitor.address
        found = await self._desk.everything(ActivityQuestion(200, address))
        running = sum(each.client == address for each in found.requests)
        # Who is behind one address with others learns no more than that there were requests.
        requests = (await _shown(found, visitor)).recent
        return OwnRequests(address, time.time(), requests, running)

    async def upstreams(self, _visitor: PageVisitor, _: NoParameters) -> list[UpstreamState]:
        """Return the state of the upstreams, of all workers together."""
        return (await self._desk.everything(ActivityQuestion())).upstreams

    async def disk(self, _visitor: PageVisitor, nothing: NoParameters) -> DiskState:
        """Return the room of the cache."""
        return await self.disk_state(nothing)

    async def disk_state(self, _: NoParameters) -> DiskState:
        """Return the room of the cache, without regard to a visitor."""
        totals = await self._desk.management.disk.totals()
        room = await self._desk.management.disk.room()
        return DiskState(
            cached=totals.blobs,
            blobs=totals.count,
            downloads=totals.downloads,
            pinned=totals.pinned,
            allowed=totals.allowed,
            free=room.free,
            total=room.total,
            index=totals.index,
            scrubbed=None if totals.scrub is None else totals.scrub.share,
        )

    async def troubles(self, _visitor: PageVisitor, _: NoParameters) -> list[Trouble]:
        """Return what is wrong."""
        return self.troubles_with((await self._desk.everything(ActivityQuestion())).upstreams)

    def troubles_with(self, upstreams: Sequence[UpstreamState]) -> list[Trouble]:
        """Return what is wrong, with the `upstreams` in the state that all workers have just told."""
        found = [
            Trouble(str(each["what"]), str(each["reason"]), str(each["to_do"]), each["since"])
            for each in self._desk.troubles()
        ]
        if is_losing_lines():
            to_do = "look at what reads the standard error of the mirror"
            found.append(Trouble("log", f"{lines_dropped()} lines could not be written", to_do))
        for upstream in upstreams:
            found += _upstream_troubles(upstream)
        for each in self._desk.service.warm.status():
            if each["failed"]:
                reason = f"{each['failed']} of {each['images']} images of the list are not complete"
                to_do = "see the list on the page Settings"
                found.append(Trouble(f"warm {each['name']}", reason, to_do, each["last_ended"]))
        return found


def event_stream(
    desk: Desk, visitor: PageVisitor, events: AsyncGenerator[bytes], headers: dict[str, str]
) -> StreamAnswer:
    """Return a stream of events to a visitor. Raises ApiError if its address has too many."""
    end = desk.begin_stream(visitor.address)
    if end is None:
        raise ApiError(429, f"{MOST_STREAMS} streams of events go to {visitor.address}", "close some pages")
    return StreamAnswer(EVENTS, events, headers, end)


def _upstream_troubles(upstream: UpstreamState) -> list[Trouble]:
    found = []
    for source in upstream.sources:
        what = upstream.name if source is upstream.sources[0] else f"{upstream.name} ({source.source})"
        if source.breaker != "closed" and not upstream.offline:
            reason = "it does not answer, or answers with errors: it is not asked for a while"
            to_do = f"registry-mirror doctor --upstream {upstream.name}, on this machine"
            found.append(Trouble(what, reason, to_do))
        for account in source.accounts:
            if account.refused:
                reason = f"it refuses the password of the account {account.account}"
                found.append(Trouble(what, reason, "correct the account, then reload the mirror (SIGHUP)"))
            elif account.budget == "out":
                reason = f"the rate limit of {account.account} is used up, but for what is not cached"
                found.append(Trouble(what, reason, "wait, or add an account: docs/upstreams.md"))
    return found


async def _shown(found: AllActivity, visitor: PageVisitor) -> AllActivity:
    """Return what of the activity the visitor may know."""
    mine = visitor.is_operator
    requests = [each for each in found.requests if mine or each.client == visitor.address]
    upstreams = found.upstreams if mine else []
    downloads = found.downloads if mine else []
    if visitor.sees_all:
        return replace(found, requests=requests, downloads=downloads, upstreams=upstreams)
    names = {f"{each.upstream}/{each.repository}" for each in downloads}
    names |= {f"{each.upstream}/{each.repository}" for each in requests if each.repository is not None}
    names |= {each.name for each in found.recent if each.name is not None}
    known = await visitor.visible(names)
    return replace(
        found,
        requests=[
            each
            for each in requests
            if _is_known(visitor, known, each.upstream, each.repository, each.reference)
        ],
        downloads=[
            each for each in downloads if _is_known(visitor, known, each.upstream, each.repository, None)
        ],
        recent=[
            each
            for each in found.recent
            if _is_known(visitor, known, each.upstream, each.repository, each.reference)
        ],
        upstreams=upstreams,
    )


def _is_known(
    visitor: PageVisitor, known: set[str], upstream: str | None, repository: str | None, reference: str | None
) -> bool:
    if repository is None or upstream is None:
        return True
    if f"{upstream}/{repository}" not in known:
        return False
    is_tag = reference is not None and ":" not in reference
    return not is_tag or visitor.may_know_tag(Repository(upstream, repository), str(reference))


def _get(
    name: str,
    summary: str,
    audience: Audience,
    call: object,
    answer: object,
    parameters: type[Struct] = NoParameters,
) -> Operation:
    return Operation(
        method="GET",
        path=f"/api/v1/{name}",
        summary=summary,
        audience=audience,
        call=call,  # type: ignore[arg-type]
        answer=answer,
        parameters=parameters,
    )

"""The response cache is invisible: a mirror with the cache behaves like a mirror without.

So a client never gets what only other clients may have, in whatever order they ask, from where and as whom;
and a right that is taken away ends with the next request.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.config.schema import LogSettings
from mirror.util.log import configure
from mirror.web.app import App
from tests.fakes.badge import Badge
from tests.fakes.registry import FakeRegistry
from tests.running import NEVER, Running, configured, serving
from tests.wire import Wire, request_head

pytestmark = pytest.mark.usefixtures("own_logging")

BIG = bytes(range(256)) * 2000  # not a small blob: sent from its file
HEADERS = (
    "Authorization: Bearer abc",
    "Range: bytes=2-5",
    "Range: bytes=0-1,4-5",
    "Accept: */*",
    "Connection: close",
)
# Ways in which a request travels: alone, in two segments, or in one segment with the next request.
WAYS = ("alone", "split", "joined")
# Clients that the rules treat alike, one that may not have a repository, and one that may not have a tag.
CLIENTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")
RULES = [
    {"name": "no x", "effect": "deny", "networks": ["127.0.0.3"], "repositories": ["docker.io/library/x"]},
    {"name": "no t", "effect": "deny", "networks": ["127.0.0.4"], "tags": ["t"]},
    {
        "name": "alice not from there",
        "effect": "deny",
        "identities": ["user:alice"],
        "networks": ["127.0.0.2"],
        "repositories": ["docker.io/library/x"],
    },
    {"name": "not bob", "effect": "deny", "identities": ["user:b*"], "repositories": ["*/x"]},
]
# Carol and Dave have the same rights, so that they share what is remembered.
USERS = ("alice", "bob", "carol", "dave")
BADGES = tuple(f"Authorization: Badge {name}" for name in (*USERS, "mallory"))
VARYING = ("id", "timestamp", "first_byte_ms", "total_ms")


@dataclass(frozen=True)
class Ask:
    method: str
    path: str
    headers: tuple[str, ...]
    way: str
    client: str = "127.0.0.1"
    change: str | None = None  # a user who is admitted or expelled before this request


@dataclass
class Side:
    """One mirror and its observable behaviour."""

    mirror: Running
    app: App
    badge: Badge
    log: StringIO

    def change(self, user: str) -> None:
        """Expel the user, or admit the user again; tell all workers."""
        self.badge.known ^= {user}
        self.mirror.service._store.folder.epoch.note_access_change()

    def observations(self) -> tuple[object, ...]:
        """Return metrics, access lines and last uses since the previous call."""
        self.app.response_cache.flush()
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        self.log.seek(0)
        self.log.truncate()
        for line in lines:
            for name in VARYING:
                assert line.pop(name) is not None
        counts = {
            labels: (stats.requests, stats.bytes, sum(stats.whole.counts), sum(stats.first_byte.counts))
            for labels, stats in self.mirror.service.metrics.requests.rows()
        }
        used = set(self.mirror.service._store._last_use.used)
        self.mirror.service._store._last_use.used.clear()
        return counts, Counter(json.dumps(line) for line in lines), used


async def replies(side: Side, asks: Sequence[Ask]) -> list[object]:
    """Return the responses to `asks`, with a new connection after each closed one and for each client."""
    seen: list[object] = []
    async with AsyncExitStack() as stack:
        wire: Wire | None = None
        waiting: list[Ask] = []
        for number, ask in enumerate(asks):
            if wire is None:
                opened = await Wire.open(side.mirror.address, client=ask.client)
                wire = await stack.enter_async_context(opened)
            if ask.change is not None:
                side.change(ask.change)
            waiting.append(ask)
            data = request_head(ask.method, ask.path, ask.headers)
            if ask.way == "split":
                wire.writer.write(data[:20])
                await asyncio.sleep(0)
                data = data[20:]
            wire.writer.write(data)
            closing = "Connection: close" in ask.headers
            after = asks[number + 1] if number + 1 < len(asks) else None
            last = after is None or after.client != ask.client or after.change is not None
            if ask.way == "joined" and not closing and not last:
                continue
            for each in waiting:
                reply = await wire.reply(each.method)
                headers = [(name, value) for name, value in reply.raw_headers if name != "date"]
                assert reply.complete
                assert "date" in reply.headers
                if "multipart" not in reply.headers.get("content-type", ""):  # its boundary is random
                    seen.append((reply.status, headers, reply.body))
            waiting.clear()
            wire = None if closing or last else wire
    return seen


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[tuple[asyncio.Runner, list[Side], list[str]]]:
    """Two mirrors of one registry with everything cached; the second has no memory cache."""
    apps: list[App] = []
    with asyncio.Runner() as runner, pytest.MonkeyPatch.context() as patch:
        original = App.__init__

        def collect(self: App, *arguments: object, **named: object) -> None:
            original(self, *arguments, **named)  # type: ignore[arg-type]
            self.gate.identification.authenticators.append(Badge())
            apps.append(self)

        patch.setattr(App, "__init__", collect)
        # Housekeeping writes the last uses, which this compares: on a slow machine it came in the middle.
        patch.setattr("mirror.service.service.HOUSEKEEPING_SECONDS", NEVER)
        stack = AsyncExitStack()
        found = runner.run(_start(stack, tmp_path, apps))
        yield runner, *found
        runner.run(stack.aclose())


async def _start(stack: AsyncExitStack, folder: Path, apps: list[App]) -> tuple[list[Side], list[str]]:
    hub = await stack.enter_async_context(FakeRegistry())
    image = hub.add_image("library/x", "t", [b"0123456789", BIG])
    paths = [
        "/v2/",
        "/v2/library/x/manifests/t",
        f"/v2/x/manifests/{image.manifest}",
        *(f"/v2/library/x/blobs/{digest}" for digest in image.layers),
        f"/v2/other/blobs/{image.layers[0]}",
        "/v2/library/x/manifests/%",
    ]
    sides = []
    for name, memory in (("with", 1 << 24), ("without", 0)):
        log = StringIO()
        configure(LogSettings(format="json"), log)
        config = configured(folder / name, {"docker.io": hub.url}, tags={"fresh": 3600}, rules=RULES)
        cache = config.cache.model_copy(update={"memory": memory})
        mirror = await stack.enter_async_context(serving(config.model_copy(update={"cache": cache})))
        if not memory:
            apps[-1].response_cache.close()  # whole blobs and ranges are remembered beside it
        *_, badge = apps[-1].gate.identification.authenticators
        assert isinstance(badge, Badge)
        side = Side(mirror, apps[-1], badge, log)
        for path in paths:
            await replies(side, [Ask("GET", path, (), "alone")])
            for digest in image.layers:  # else the next request may join the fill on one side only
                await mirror.landed(digest)
        await replies(side, [Ask("GET", paths[4], (), "alone")] * 2)
        while mirror.service.cache._blobs._prover.is_pending(image.layers[1]):  # noqa: ASYNC110  # of a retry
            await asyncio.sleep(0.01)
        sides.append(side)
    return sides, paths


def test_response_cache_is_invisible_to_clients_and_operators(
    sides: tuple[asyncio.Runner, list[Side], list[str]],
) -> None:
    """Responses, metrics, access lines and last uses are equal, however the requests travel."""
    runner, both, paths = sides
    ask = st.builds(
        Ask,
        st.sampled_from(("GET", "GET", "HEAD")),
        st.sampled_from(paths),
        st.lists(st.sampled_from((*HEADERS, *BADGES, *BADGES)), max_size=1).map(tuple),
        st.sampled_from(WAYS),
        st.sampled_from(CLIENTS),
        st.one_of(st.none(), st.none(), st.none(), st.sampled_from(USERS)),
    )
    answered = kept = shared = 0  # the last two at most: a change of users empties both
    cache = both[0].app.response_cache

    @settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.tuples(ask, st.integers(1, 4)), min_size=1, max_size=8))
    def same(script: list[tuple[Ask, int]]) -> None:
        nonlocal answered, kept, shared
        asks = [
            replace(each, change=None if time else each.change)
            for each, times in script
            for time in range(times)
        ]
        seen = []
        for side in both:
            for user in set(USERS) - side.badge.known:  # expelled by the script before
                side.change(user)
            configure(LogSettings(format="json"), side.log)
            seen.append((runner.run(replies(side, asks)), *side.observations()))
        for one, other in zip(*seen, strict=True):
            assert one == other
        answered += len(asks)
        kept, shared = max(kept, len(cache._responses)), max(shared, len(cache.shared.heads))

    for side in both:
        configure(LogSettings(format="json"), side.log)
        side.observations()
    same()
    assert answered > kept > 5
    assert shared
    assert cache.blobs.sent > 0
    assert not len(both[1].app.response_cache._responses)

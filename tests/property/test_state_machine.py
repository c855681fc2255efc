"""Invariants 1 to 5, 8 and 10 over clients, upstreams, time and restarts in any order.

The subject is a whole mirror with a real store, in front of two fake registries that share blobs. After each
step everything runs until nothing more happens without a further step: a client that still waits then waits
for a held upstream. The examples are always the same. For more examples, different each time:

    STATE_MACHINE_EXAMPLES=500 .venv/bin/pytest tests/property/test_state_machine.py

A failure prints the steps that lead to the failure.
"""

import asyncio
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from mirror.oci.digest import Digest
from mirror.transfer.plan import PlanLimits
from tests.fakes.faults import Fault, Gate, flipped
from tests.fakes.registry import FakeRegistry
from tests.running import CHUNK, LARGE, LARGE_DATA, Running, configured, serving
from tests.wire import Wire

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("STATE_MACHINE_EXAMPLES", "0"))

SMALL = b"a small layer"
BIG = LARGE_DATA
HOLDBACK = CHUNK  # holdback of BIG; smaller blobs are held back entirely
FRESH = 60.0
# Seconds after which a step counts as stuck; anything else ends earlier on the slowest machine.
STUCK_SECONDS = 60.0
# Timeout of the mirror, in seconds, that is never reached: a held upstream must not become a failure.
LONG = 3600.0
# No segment is given up because of a pause of the test.
PATIENT = PlanLimits(grace=LONG, stall_seconds=LONG)

# Content of each repository. The first two share an upstream, all share blobs, two share a manifest.
HAS = {
    "docker.io/library/a": {"tag", "old", "new", "small", "large"},
    "docker.io/library/b": {"large"},
    "quay.io/org/c": {"new", "small", "large"},
}
BLOBS = ("small", "large")
MANIFESTS = ("old", "new")
CONTENTS = ("tag", *MANIFESTS, *BLOBS)
# Requested ranges by content: first and last byte.
RANGES = {"small": [(2, 5)], "large": [(0, 99), (CHUNK + 5, 3 * CHUNK), (LARGE - 10, LARGE - 1)]}
# Offsets at which transfers are held, cut or corrupted.
PLACES = {"small": [0, 3], "large": [0, LARGE // 2, LARGE - 1]}


@dataclass(eq=False)
class Client:
    """One request on a connection of its own, and its result so far."""

    number: int
    repository: str
    content: str
    span: tuple[int, int] | None
    excused: bool  # the upstream failed, or the mirror stopped, while the client waited
    status: int | None = None
    length: int = 0
    body: bytearray = field(default_factory=bytearray)
    reset: bool = False
    task: "asyncio.Task[None] | None" = None

    @property
    def over(self) -> bool:
        return self.task is None or self.task.done()

    @property
    def whole(self) -> bool:
        """True once the announced length has arrived."""
        return self.status in (200, 206) and len(self.body) == self.length

    async def ask(self, address: str, path: str) -> None:
        headers = [] if self.span is None else [f"Range: bytes={self.span[0]}-{self.span[1]}"]
        try:
            async with await Wire.open(address) as wire:
                wire.send("GET", path, headers)
                head = await wire.head()
                self.status, self.length = head.status, int(head.headers["content-length"])
                while len(self.body) < self.length and (data := await wire.reader.read(CHUNK)):
                    self.body += data
        except ConnectionResetError:
            self.reset = True
        except asyncio.IncompleteReadError:
            pass  # the mirror stopped before it had a response

    def __repr__(self) -> str:
        return f"client {self.number}: {self.content} of {self.repository}, {self.status}"


class World:
    """The mirror, its upstreams and its clients, and the expected facts about them."""

    def __init__(self, folder: Path, prefetch: int) -> None:
        self.folder = folder
        self.prefetch = prefetch
        self.now = time.time()
        self.fakes: dict[str, FakeRegistry] = {}
        self.upstreams, self.life = AsyncExitStack(), AsyncExitStack()
        self.mirror: Running
        self.clients: list[Client] = []
        self.asked = 0
        self.gates: list[tuple[str, Gate]] = []
        self.data: dict[str, bytes] = {}
        self.names = {"tag": "moving"}  # a name that occurs in no other path
        self.pointed: list[tuple[float, str]] = []  # history of the tag: time and manifest
        self.faults: Counter[str] = Counter()  # planned faults by content
        self.interrupted: Counter[str] = Counter()  # transfers that a stop has ended, by content

    async def begin(self) -> None:
        for name in ("docker.io", "quay.io"):
            self.fakes[name] = await self.upstreams.enter_async_context(FakeRegistry())
        hub, quay = self.fakes.values()
        images = {tag: hub.add_image("library/a", tag, [SMALL, BIG]) for tag in MANIFESTS}
        self.data = {"small": SMALL, "large": BIG, **{tag: images[tag].manifest_data for tag in MANIFESTS}}
        self.names |= {content: str(Digest.of(data)) for content, data in self.data.items()}
        hub.add_blob("library/b", BIG)
        quay.add_manifest("org/c", self.data["new"])
        for data in (SMALL, BIG, images["new"].config_data):
            quay.add_blob("org/c", data)
        self.point("old")
        await self.start()

    async def start(self) -> None:
        config = configured(
            self.folder,
            {name: fake.url for name, fake in self.fakes.items()},
            fill={"prefetch": self.prefetch},
            tags={"fresh": FRESH, "fallback_after": LONG},
            server={"shutdown_timeout": 0, "header_timeout": LONG},
            upstream={"connect_timeout": LONG, "read_timeout": LONG},
        )
        self.mirror = await self.life.enter_async_context(serving(config, lambda: self.now, PATIENT))

    async def stop(self) -> None:
        for client in self.clients:
            client.excused = True
        self.interrupted.update({content: self.transfers(content) for content in self.names})
        await self.life.aclose()

    async def end(self) -> None:
        await self.life.aclose()
        for client in self.clients:
            await self.leave(client)
        await self.upstreams.aclose()

    def point(self, to: str) -> None:
        self.fakes["docker.io"].repository("library/a").tags[self.names["tag"]] = self.names[to]
        self.pointed.append((self.now, to))

    def ask(self, repository: str, content: str, span: tuple[int, int] | None = None) -> Client:
        client = Client(self.asked, repository, content, span, self.in_trouble(content))
        self.asked += 1
        kind = "blobs" if content in BLOBS else "manifests"
        path = f"/v2/{repository}/{kind}/{self.names[content]}"
        client.task = asyncio.ensure_future(client.ask(self.mirror.address, path))
        self.clients.append(client)
        return client

    async def leave(self, client: Client) -> None:
        self.clients.remove(client)
        if client.task is not None:
            client.task.cancel()
            await asyncio.wait([client.task])

    def plan(self, upstream: str, content: str, fault: Fault) -> None:
        """Make the upstream's next response for the content faulty."""
        self.fakes[upstream].fault(fault, self.names[content], "GET")
        if fault.hold is not None:
            self.gates.append((content, fault.hold))
            return
        self.faults[content] += 1
        for client in self.clients:
            client.excused = client.excused or content in dependencies(client.content)

    def release(self) -> None:
        for _, gate in self.gates:
            gate.release()
        self.gates.clear()

    def heal(self) -> None:
        """Drop all planned faults."""
        self.release()
        for fake in self.fakes.values():
            fake._planned.clear()

    def in_trouble(self, content: str) -> bool:
        """Return whether a fetch that the content needs is failing or will fail."""
        planned = [plan for fake in self.fakes.values() for plan in fake._planned if plan.times > 0]
        trouble = {plan.match for plan in planned if plan.fault.hold is None}
        waiting = any(client.excused and not client.over for client in self.clients)
        return waiting or any(self.names[each] in trouble for each in dependencies(content))

    def held(self, content: str) -> bool:
        """Return whether an upstream withholds its response."""
        return any(gate.waiting and each in dependencies(content) for each, gate in self.gates)

    def transfers(self, content: str) -> int:
        """Return the number of running responses of upstreams with this content."""
        return sum(not seen.finished.is_set() for seen in self.requests(content))

    def fetched(self, content: str) -> float:
        """Return the number of times the content was fetched; a range counts as its share of the whole."""
        size = len(self.data.get(content, b"-"))  # the manifest of a tag counts under its own name
        ranges = [seen.headers.get("Range", "bytes=0-") for seen in self.requests(content)]
        spans = [each.removeprefix("bytes=").partition("-") for each in ranges]
        return sum(min(size, int(last or size) + 1) - int(first) for first, _, last in spans) / size

    def requests(self, content: str) -> list[Any]:
        log = [seen for fake in self.fakes.values() for seen in fake.log]
        got = [seen for seen in log if seen.method == "GET" and seen.status != 404]
        return [seen for seen in got if seen.path.endswith(self.names[content])]

    def restless(self) -> Iterator[object]:
        """Yield everything that still happens without a further step."""
        yield from (client for client in self.clients if not client.over and not self.held(client.content))
        cache = self.mirror.service.cache
        flights = cache._blobs._flights._running
        held = {self.names[content] for content in BLOBS if self.held(content)}
        yield from (digest for digest in flights if str(digest) not in held)
        # A busy prefetch worker has a fill or is about to start one.
        yield from range(cache.prefetch._workers - len(cache.prefetch._unjoined))
        yield from (content for content in self.names if self.transfers(content) > self.held(content))

    async def settle(self) -> None:
        """Wait until nothing happens without a further step. Fails after STUCK_SECONDS."""
        deadline = time.monotonic() + STUCK_SECONDS
        while left := list(self.restless()):
            assert time.monotonic() < deadline, f"stuck: {left}"
            await asyncio.sleep(0.001)
        # Let the loop deliver the sent bytes to the clients.
        for _ in range(5):
            await asyncio.sleep(0)
        assert await self.mirror.service._store.upkeep.check() == []  # invariant 8


def dependencies(content: str) -> tuple[str, ...]:
    """Return the contents that may have to be fetched for `content`."""
    return ("tag", *MANIFESTS) if content == "tag" else (content,)


class Machine(RuleBasedStateMachine):
    """The steps. Invariants are checked after each."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="state-machine-"))
        self.world: World

    @initialize(prefetch=st.sampled_from([0, 2]))
    def begin(self, prefetch: int) -> None:
        self.world = World(self.folder, prefetch)
        self.runner.run(self.world.begin())

    @rule(repository=st.sampled_from(sorted(HAS)), content=st.sampled_from(CONTENTS))
    def ask(self, repository: str, content: str) -> None:
        self.step(lambda: self.world.ask(repository, content))

    @rule(
        repository=st.sampled_from(sorted(HAS)),
        of=st.sampled_from([(content, span) for content, spans in RANGES.items() for span in spans]),
    )
    def ask_for_a_range(self, repository: str, of: tuple[str, tuple[int, int]]) -> None:
        self.step(lambda: self.world.ask(repository, *of))

    @rule(content=st.sampled_from(BLOBS))
    def all_ask_at_once(self, content: str) -> None:
        self.step(lambda: [self.world.ask(repository, content) for repository in sorted(HAS) * 2])

    @rule(which=st.integers(0, 5))
    def one_leaves(self, which: int) -> None:
        waiting = [client for client in self.world.clients if not client.over]
        if waiting:
            self.runner.run(self.world.leave(waiting[which % len(waiting)]))
        self.step()

    @rule(upstream=st.sampled_from(["docker.io", "quay.io"]), content=st.sampled_from(BLOBS), data=st.data())
    def upstream_will_hold(self, upstream: str, content: str, data: st.DataObject) -> None:
        after = data.draw(st.sampled_from([-1, *PLACES[content]]), label="after")
        self.world.plan(upstream, content, Fault(hold=Gate(), after=after))

    @rule(upstream=st.sampled_from(["docker.io", "quay.io"]), content=st.sampled_from(BLOBS), data=st.data())
    def upstream_will_cut(self, upstream: str, content: str, data: st.DataObject) -> None:
        at = data.draw(st.sampled_from(PLACES[content]), label="at")
        self.world.plan(upstream, content, Fault(cut_at=at))

    @rule(upstream=st.sampled_from(["docker.io", "quay.io"]), content=st.sampled_from(CONTENTS[1:]))
    def upstream_will_send_wrong_bytes(self, upstream: str, content: str) -> None:
        data = self.world.data[content]
        self.world.plan(upstream, content, Fault(data=flipped(data, len(data) // 2)))

    @rule(upstream=st.sampled_from(["docker.io", "quay.io"]), content=st.sampled_from(CONTENTS))
    def upstream_will_fail(self, upstream: str, content: str) -> None:
        self.world.plan(upstream, content, Fault(status=503))

    @rule()
    def upstreams_go_on(self) -> None:
        self.step(self.world.release)

    @rule()
    def upstreams_are_well_again(self) -> None:
        self.step(self.world.heal)

    @rule(to=st.sampled_from(MANIFESTS))
    def the_tag_moves(self, to: str) -> None:
        self.world.point(to)

    @rule(seconds=st.sampled_from([FRESH / 2, FRESH + 1]))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds

    @rule()
    def the_mirror_restarts(self) -> None:
        self.runner.run(self.world.stop())
        self.check()
        leftovers = {path.suffix for path in (self.folder / "partial").iterdir()}
        assert leftovers <= {".map", ".data"}  # invariant 10
        self.runner.run(self.world.start())
        self.step()

    def step(self, action: Callable[[], object] = lambda: None) -> None:
        self.runner.run(self._step(action))
        self.check()

    async def _step(self, action: Callable[[], object]) -> None:
        action()
        await self.world.settle()

    def check(self) -> None:
        for path in (self.folder / "blobs" / "sha256").glob("*/*"):
            encoded = path.parent.name + path.name.partition(".")[0]
            assert Digest.of(path.read_bytes()).encoded == encoded  # invariant 1
        for content in self.world.names:
            allowed = 1 + self.world.faults[content] + self.world.interrupted[content]
            assert self.world.fetched(content) <= allowed, f"{content} was fetched too often"
            assert self.world.transfers(content) <= 1  # invariant 2
        for client in list(self.world.clients):
            if client.over:
                self.world.clients.remove(client)
                judge(self.world, client)
            else:
                assert len(client.body) <= sendable(client), f"{client} got the holdback"  # invariant 4

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                self.check_recovery()
            finally:
                self.runner.run(self.world.end())
        self.runner.close()
        shutil.rmtree(self.folder)

    def check_recovery(self) -> None:
        """Check that healed upstreams serve every client everything, and that no partial file is left."""
        self.step(self.world.heal)
        everything = [(repository, content) for repository in sorted(HAS) for content in CONTENTS]
        self.step(lambda: [self.world.ask(*each) for each in everything])
        assert list((self.folder / "partial").iterdir()) == []


def sendable(client: Client) -> int:
    """Return the number of unverified bytes that a client may have received."""
    if client.content != "large":
        return 0
    return max(0, LARGE - HOLDBACK - (client.span[0] if client.span else 0))


def judge(world: World, client: Client) -> None:
    """Check the response that a client has received."""
    if client.content not in HAS[client.repository]:
        assert client.status == 404 or client.excused, f"{client}: the repository has no such content"
        assert client.status not in (200, 206), f"{client}: the repository has no such content"  # invariant 5
    elif client.status not in (200, 206):
        assert client.excused, f"{client}: nothing went wrong"  # invariant 3
    elif client.whole:
        wrong = bytes(client.body) not in rightful(world, client)
        # A range that ends before the holdback may be complete and wrong; the whole blob never is.
        early = client.span is not None and client.content == "large" and client.span[1] < LARGE - HOLDBACK
        assert not wrong or (client.excused and early), f"{client}: wrong bytes"  # invariant 4
    else:
        assert client.excused, f"{client}: cut short, and nothing went wrong"
        right = any(each.startswith(bytes(client.body)) for each in rightful(world, client))
        assert right or len(client.body) <= sendable(client), f"{client}: wrong bytes"


def rightful(world: World, client: Client) -> list[bytes]:
    """Return the bodies that are right for the client."""
    if client.content != "tag":
        start, last = client.span or (0, LARGE)
        return [world.data[client.content][start : last + 1]]
    # A fresh tag entry may be as old as FRESH. After a failure any earlier manifest is right.
    ends = [since for since, _ in world.pointed[1:]] + [world.now]
    trouble = client.excused or world.faults["tag"] + world.faults["old"] + world.faults["new"]
    used = [
        to for (_, to), end in zip(world.pointed, ends, strict=True) if trouble or end > world.now - FRESH
    ]
    return [world.data[to] for to in {*used, world.pointed[-1][1]}]


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.timeout(0)  # `settle` finds what is stuck
def test_invariants_hold_after_any_steps() -> None:
    """The invariants hold after every step, no client is stuck, and in the end everything is served."""
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES or 20,
            stateful_step_count=50 if EXAMPLES else 15,
            derandomize=not EXAMPLES,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        ),
    )

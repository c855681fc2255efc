"""Invariant 5 over names, clients, accounts, revocations, outages, restarts and interrupted downloads.

The subject are two mirrors on one folder, as two workers, in front of two fake registries. One of these is
read with an account. A rule names one of two clients for it. What the logs of the registries say that they
have confirmed, and what to nobody, decides what a client may get. The examples are always the same. For
more examples, different each time:

    STATE_MACHINE_EXAMPLES=500 .venv/bin/pytest tests/property/test_access_machine.py

A failure prints the steps that lead to the failure.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from mirror.cache.private.visibility import PUBLIC_SECONDS
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX
from mirror.oci.reference import Repository
from mirror.store.blobs.entries import Origin
from tests.fakes.access import TokenAuth
from tests.fakes.content import image_index, image_manifest
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.fakes.site import Seen
from tests.running import CHUNK, LARGE, LARGE_DATA, NEVER, Running, configured, serving
from tests.wire import Reply, Wire

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("STATE_MACHINE_EXAMPLES", "0"))

START, INTERVAL = 1_700_000_000.0, 1000.0
SECRET, FREE, OPEN, BASE = (
    "quay.io/org/secret",
    "quay.io/org/free",
    "docker.io/library/open",
    "docker.io/library/base",
)
REPOSITORIES = (SECRET, FREE, OPEN, BASE)
SMALL, BIG, CONFIG = b"a small layer", LARGE_DATA, b'{"os":"linux"}'
IMAGE = image_manifest(CONFIG, [SMALL, BIG])
NAMING = image_manifest(CONFIG, [SMALL, BIG, b"another layer"])
INDEX = image_index([IMAGE])
DATA = {"small": SMALL, "large": BIG, "config": CONFIG, "image": IMAGE, "naming": NAMING, "index": INDEX}
DIGESTS = {content: Digest.of(data) for content, data in DATA.items()}
MANIFESTS = {"image", "naming", "index"}
NAMES = {"image": {"config", "small", "large"}, "naming": {"config", "small", "large"}, "index": {"image"}}
# The contents that may be private; the others only name them.
CONTENTS = ("small", "large", "config", "image")
# Ways to ask: method, and a header.
WAYS = {
    "get": ("GET", ()),
    "head": ("HEAD", ()),
    "range": ("GET", ("Range: bytes=2-5",)),
    "condition": ("GET", ("If-None-Match: *",)),
}
WORKERS = st.integers(0, 1)
# The client that a rule names for all of quay.io, and one that none names.
NAMED, STRANGER = "127.0.0.1", "127.0.0.2"
CLIENTS = st.sampled_from([NAMED, STRANGER])
RULES = [{"name": "team", "effect": "allow", "networks": [NAMED], "repositories": ["quay.io/*"]}]
# How long the word of an upstream that anybody may read a repository is believed.
PUBLIC = min(PUBLIC_SECONDS, INTERVAL)


@dataclass
class Known:
    """The last answers of an upstream about one content in one repository.

    `public`: without an account, which holds for good.
    """

    confirmed: float | None = None
    refused: bool = False  # after that
    public: bool = False


@dataclass
class World:
    """The mirrors, the upstreams, and what these have confirmed."""

    folder: Path
    now: float = START
    asked: int = 0
    account: bool = True
    outages: set[str] = field(default_factory=set)
    fakes: dict[str, FakeRegistry] = field(default_factory=dict)
    workers: list[Running] = field(default_factory=list)
    upstreams: AsyncExitStack = field(default_factory=AsyncExitStack)
    life: AsyncExitStack = field(default_factory=AsyncExitStack)
    known: dict[tuple[str, str], Known] = field(default_factory=dict)
    public: set[str] = field(default_factory=set)  # contents that came without an account
    came_private: set[str] = field(default_factory=set)  # contents that came, in part, with an account
    read: dict[str, int] = field(default_factory=dict)  # lines of the logs that are in `known`
    open: dict[str, float] = field(default_factory=dict)  # repositories that nobody's request could read last

    async def begin(self) -> None:
        for name in ("docker.io", "quay.io"):
            self.fakes[name] = await self.upstreams.enter_async_context(FakeRegistry())
        self.fakes["quay.io"].auth = TokenAuth(user="u", password="p", private={"org/secret"})
        for content in CONTENTS:
            self.push(SECRET, content)
        for content in ("naming", "index"):
            self.push(OPEN, content)
            self.push(BASE, content)
        await self.start()

    async def start(self) -> None:
        login = {"username": "u", "password": "p"} if self.account else {}
        config = configured(
            self.folder,
            {name: fake.url for name, fake in self.fakes.items()},
            tags={"fresh": 60, "fallback_after": NEVER, "missing": 0},
            server={"shutdown_timeout": 0, "header_timeout": NEVER},
            upstream={"recheck_access": INTERVAL},
            upstream_of={"quay.io": login},
            rules=RULES,
        )
        for _ in range(2):
            mirror = await self.life.enter_async_context(serving(config, lambda: self.now))
            self.workers.append(mirror)

    async def stop(self) -> None:
        await self.life.aclose()
        self.workers.clear()

    def push(self, repository: str, content: str) -> None:
        fake, path = self.at(repository)
        if content in MANIFESTS:
            kind = {"media_type": OCI_INDEX} if content == "index" else {}
            fake.add_manifest(path, DATA[content], **kind)
        else:
            fake.add_blob(path, DATA[content])

    def remove(self, repository: str, content: str) -> None:
        fake, path = self.at(repository)
        place: dict[str, Any] = (
            fake.repository(path).manifests if content in MANIFESTS else fake.repository(path).blobs
        )
        place.pop(str(DIGESTS[content]), None)

    def at(self, repository: str) -> tuple[FakeRegistry, str]:
        upstream, _, path = repository.partition("/")
        return self.fakes[upstream], path

    def has_account(self, repository: str) -> bool:
        return self.account and repository.startswith("quay.io/")

    def granted(self, repository: str, content: str) -> bool:
        """Return whether the upstream would confirm the content to the mirror now."""
        fake, path = self.at(repository)
        if isinstance(fake.auth, TokenAuth) and (
            path in fake.auth.denied or (path in fake.auth.private and not self.account)
        ):
            return False
        found = fake.repository(path)
        return str(DIGESTS[content]) in (found.manifests if content in MANIFESTS else found.blobs)

    def named(self, repository: str, content: str) -> bool:
        """Return whether the mirror has read a manifest of the repository that names the content."""
        naming = (each for each, children in NAMES.items() if content in children)
        return any(self.known_of(repository, each).confirmed is not None for each in naming)

    def may_join(self, repository: str, content: str) -> bool:
        """Return whether a download for another repository may be followed."""
        named = content in self.public and self.named(repository, content)
        return (
            named
            or self.granted(repository, content)
            or self.known_of(repository, content).confirmed is not None
        )

    def known_of(self, repository: str, content: str) -> Known:
        return self.known.setdefault((repository, content), Known())

    def learn(self) -> None:
        """Read what the upstreams have answered since the last time."""
        contents = {str(digest): content for content, digest in DIGESTS.items()}
        for name, fake in self.fakes.items():
            log = fake.log[self.read.get(name, 0) :]
            self.read[name] = len(fake.log)
            for seen in log:
                parts = seen.path.split("/")
                if seen.path == "/token" and seen.status == 403:  # nobody's: users get tokens for all
                    self.open.pop(f"{name}/{parse_qs(seen.query)['scope'][0].split(':')[1]}", None)
                if self.note_nobody(fake, f"{name}/{'/'.join(parts[2:-2])}", seen):
                    continue
                content = contents.get(parts[-1])
                if content is None or (parts[-2] == "manifests") is not (content in MANIFESTS):
                    continue
                status = seen.status or (200 if seen.sent else 0)  # an answer that was cut has none
                self.note(f"{name}/{'/'.join(parts[2:-2])}", content, seen.method, status)

    def note_nobody(self, fake: FakeRegistry, repository: str, seen: Seen) -> bool:
        """Return whether a request came without the account that is there; note what it could read."""
        if not isinstance(fake.auth, TokenAuth) or not self.has_account(repository):
            return False
        authorization = seen.headers.get("Authorization")
        if authorization and fake.auth.owner(authorization):
            return False
        if authorization and seen.status in (200, 206):
            self.open[repository] = self.now
        return True

    def is_let_in(self, client: str, repository: str) -> bool:
        """Return whether the gate may let a client in: to what is public, as far as the upstream has said."""
        if client == NAMED or not self.has_account(repository):
            return True
        said = self.open.get(repository)
        outage = repository.partition("/")[0] in self.outages
        return said is not None and (outage or self.now - said < PUBLIC)

    def note(self, repository: str, content: str, method: str, status: int) -> None:
        known = self.known_of(repository, content)
        if status in (200, 206):
            known.confirmed, known.refused = self.now, False
            known.public = known.public or not self.has_account(repository)
            if not self.has_account(repository):
                self.public.add(content)
            elif method == "GET":
                self.came_private.add(content)
        elif status in (401, 403, 404):
            known.refused = True

    async def ask(self, worker: int, repository: str, content: str, way: str, client: str = NAMED) -> Reply:
        """Ask with a head that no request had before, past the response cache."""
        self.asked += 1
        method, headers = WAYS[way]
        kind = "manifests" if content in MANIFESTS else "blobs"
        path = f"/v2/{repository}/{kind}/{DIGESTS[content]}"
        async with await Wire.open(self.workers[worker].address, client=client) as wire:
            wire.send(method, path, [f"X-Asked: {self.asked}", *headers])
            return await wire.reply(method)

    async def settle(self) -> None:
        """Wait until no fill runs."""
        for mirror in self.workers:
            for digest in DIGESTS.values():
                await mirror.landed(digest)

    def forget_short_terms(self) -> None:
        """Forget what a mirror remembers for seconds or minutes of real time: these pass."""
        for mirror in self.workers:
            cache = mirror.service.cache
            visibility = cache.private._visibility
            for each in (cache._blobs._sizes, cache._blobs._access._unanswered, visibility._unanswered):
                each._entries.clear()
            for upstream in mirror.service._upstreams.values():
                for source in upstream.sources:
                    source.health.record_success(0.001)

    async def stored(self, content: str) -> Origin | None:
        """Return the origin of the content in the cache; None if it is not there."""
        store = self.workers[0].service._store
        return await store.executor.run(store.folder.blobs.origin, DIGESTS[content])

    async def leave_complete_partial(self, repository: str) -> None:
        """Leave all bytes of the large blob as a fill does that is killed before its last step."""
        store, public = self.workers[0].service._store, not self.has_account(repository)
        of = Repository(*repository.split("/", 1))
        partial, local = await store.transfers.lock_partial(of, DIGESTS["large"], public=public)
        assert partial is not None
        if not local.present:
            writer = await store.transfers.open_growing_file(partial, LARGE, CHUNK, public=public)
            await writer.write(0, [BIG])
            writer.file.close()
            self.public |= {"large"} if public else set()
        else:
            await store.transfers.discard_partial(partial)
        await store.transfers.release_partial(partial)

    def judge(
        self,
        repository: str,
        content: str,
        way: str,
        reply: Reply,
        before: Origin | None,
        client: str = NAMED,
    ) -> None:
        """Check an answer. `before`: the origin of what was in the cache when it was asked for."""
        self.learn()
        known, status = self.known_of(repository, content), reply.status
        warned = reply.headers.get("warning", "").startswith("110")
        age = INTERVAL if known.confirmed is None else self.now - known.confirmed
        sure = known.public or (age < INTERVAL and not known.refused)
        named = content in self.public and self.named(repository, content)
        outage = repository.partition("/")[0] in self.outages
        stale = known.confirmed is not None and not known.refused and outage and warned
        case = f"{way} {content} of {repository}: {status}, {reply.headers.get('warning')}, {known}, {before}"
        if status in (200, 206, 304):
            assert self.is_let_in(client, repository), f"let in {client}: {case}"
            assert sure or named or stale, f"not confirmed: {case}"
            assert not warned or not (known.public and not self.account), (
                f"a warning for public content: {case}"
            )
            if way == "get":
                assert (reply.complete, reply.body) == (True, DATA[content]), f"wrong bytes: {case}"
            return
        if client != NAMED:
            return
        assert not self.granted(repository, content) or outage, f"refused: {case}"
        assert before is None or not sure, f"refused what is here and confirmed: {case}"
        is_public = before is Origin.PUBLIC
        assert not (is_public and self.named(repository, content)), f"refused what is public: {case}"


class AccessMachine(RuleBasedStateMachine):
    """The steps. Each answer is judged."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="access-machine-"))
        self.world: World

    def run(self, step: Coroutine[Any, Any, None]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(120):
                await step

        self.runner.run(limited())

    @initialize()
    def begin(self) -> None:
        self.world = World(self.folder / "cache")
        self.run(self.world.begin())

    @rule(
        worker=WORKERS,
        repository=st.sampled_from(REPOSITORIES),
        content=st.sampled_from(CONTENTS),
        way=st.sampled_from(sorted(WAYS)),
        client=CLIENTS,
    )
    def ask(self, worker: int, repository: str, content: str, way: str, client: str) -> None:
        self.run(self._ask(worker, repository, content, way, client))

    @rule(
        worker=WORKERS,
        repository=st.sampled_from(REPOSITORIES),
        way=st.sampled_from(sorted(WAYS)),
        client=CLIENTS,
    )
    def ask_for_all(self, worker: int, repository: str, way: str, client: str) -> None:
        for content in CONTENTS:
            self.run(self._ask(worker, repository, content, way, client))

    @rule(
        worker=WORKERS, repository=st.sampled_from([OPEN, BASE]), content=st.sampled_from(["naming", "index"])
    )
    def read_names(self, worker: int, repository: str, content: str) -> None:
        self.run(self._ask(worker, repository, content, "get"))

    @rule(
        worker=WORKERS,
        filler=st.sampled_from(REPOSITORIES),
        others=st.lists(st.tuples(WORKERS, st.sampled_from(REPOSITORIES)), min_size=1, max_size=3),
    )
    def ask_during_a_download(self, worker: int, filler: str, others: list[tuple[int, str]]) -> None:
        self.run(self._ask_during_a_download(worker, filler, others))

    @rule(worker=WORKERS, repository=st.sampled_from(REPOSITORIES))
    def download_is_interrupted(self, worker: int, repository: str) -> None:
        self.run(self._interrupted(worker, repository))

    @rule(repository=st.sampled_from(REPOSITORIES))
    def download_is_killed_at_its_end(self, repository: str) -> None:
        if self.world.granted(repository, "large"):
            self.run(self.world.leave_complete_partial(repository))

    @rule(repository=st.sampled_from(REPOSITORIES), content=st.sampled_from(CONTENTS))
    def push(self, repository: str, content: str) -> None:
        self.world.push(repository, content)

    @rule(repository=st.sampled_from(REPOSITORIES), content=st.sampled_from(CONTENTS))
    def remove(self, repository: str, content: str) -> None:
        self.world.remove(repository, content)

    @rule(path=st.sampled_from(["org/secret", "org/free"]), revoked=st.booleans())
    def access_changes(self, path: str, revoked: bool) -> None:
        auth = self.world.fakes["quay.io"].auth
        assert isinstance(auth, TokenAuth)
        (auth.denied.add if revoked else auth.denied.discard)(path)

    @rule(path=st.sampled_from(["org/secret", "org/free"]), private=st.booleans())
    def visibility_changes(self, path: str, private: bool) -> None:
        auth = self.world.fakes["quay.io"].auth
        assert isinstance(auth, TokenAuth)
        (auth.private.add if private else auth.private.discard)(path)
        for token, owner in list(auth.owners.items()):
            if not owner:
                auth.issued.pop(token, None)

    @rule(name=st.sampled_from(["docker.io", "quay.io"]))
    def upstream_fails(self, name: str) -> None:
        self.world.outages.add(name)
        self.world.fakes[name].fault(Fault(status=503), times=100_000)

    @rule()
    def upstreams_are_well_again(self) -> None:
        self.world.outages.clear()
        for fake in self.world.fakes.values():
            fake._planned.clear()
        self.world.forget_short_terms()

    @rule(seconds=st.sampled_from([INTERVAL / 2, INTERVAL + 2]))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds
        self.world.forget_short_terms()

    @rule(account=st.booleans())
    def mirrors_restart(self, account: bool) -> None:
        self.run(self._restart(account))

    async def _ask(self, worker: int, repository: str, content: str, way: str, client: str = NAMED) -> None:
        before = await self.world.stored(content)
        reply = await self.world.ask(worker, repository, content, way, client)
        await self.world.settle()
        self.world.judge(repository, content, way, reply, before, client)

    async def _ask_during_a_download(self, worker: int, filler: str, others: list[tuple[int, str]]) -> None:
        """Ask for the large blob through others while half of it has come; who lacks it waits for no end."""
        world, digest = self.world, DIGESTS["large"]
        fake, _ = world.at(filler)
        if filler.partition("/")[0] in world.outages or not world.granted(filler, "large"):
            return
        before = await world.stored("large")
        await world.ask(worker, filler, "small", "head")  # with the token
        gate = fake.hold(digest, after=LARGE // 2)
        first = asyncio.create_task(world.ask(worker, filler, "large", "get"))
        reached = asyncio.create_task(gate.reached.wait())
        await asyncio.wait({first, reached}, return_when=asyncio.FIRST_COMPLETED)
        waiting: list[tuple[str, str, asyncio.Task[Reply]]] = [(filler, "get", first)]
        for number, repository in others:
            if not world.is_let_in(STRANGER, repository):
                stranger = await world.ask(number, repository, "large", "head", STRANGER)
                world.judge(repository, "large", "head", stranger, before, STRANGER)
            for way in ("head", "get"):
                reply = asyncio.create_task(world.ask(number, repository, "large", way))
                if not world.may_join(repository, "large"):
                    await asyncio.wait([reply])
                waiting.append((repository, way, reply))
        gate.release()
        for repository, way, reply in waiting:
            world.judge(repository, "large", way, await reply, before)
        reached.cancel()
        fake._planned[:] = [each for each in fake._planned if each.fault.hold is None]
        await world.settle()

    async def _interrupted(self, worker: int, repository: str) -> None:
        """Half of the large blob comes, and no more."""
        world = self.world
        fake, _ = world.at(repository)
        planned = fake._planned[:]
        fake.fault(Fault(cut_at=LARGE // 2), DIGESTS["large"], "GET")
        fake.fault(Fault(status=503), DIGESTS["large"], "GET", times=100)
        await world.ask(worker, repository, "large", "get")
        await world.settle()
        fake._planned[:] = planned
        world.forget_short_terms()
        world.learn()

    async def _restart(self, account: bool) -> None:
        await self.world.stop()
        self.world.account = account
        await self.world.start()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.run(self.world.stop())
            self.run(self.world.upstreams.aclose())
        self.runner.close()
        shutil.rmtree(self.folder)


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.timeout(0)  # each step has a limit
def test_only_what_an_upstream_confirmed_is_given_after_any_steps() -> None:
    """Private content goes to no other repository, and not after a revocation; public content to all."""
    run_state_machine_as_test(
        AccessMachine,
        settings=settings(
            max_examples=EXAMPLES or 20,
            stateful_step_count=50 if EXAMPLES else 20,
            derandomize=not EXAMPLES,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        ),
    )

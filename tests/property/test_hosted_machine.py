"""Hosted repositories of two workers against a simple model: pushes, deletions, gc, evictions, restarts.

Both workers are asked about everything after each step: each sees at once what the other has done, what was
pushed is there until it is deleted, and nothing is there that was not pushed (invariants 5 and 8). For more
examples, different each time:

    HOSTED_MACHINE_EXAMPLES=500 .venv/bin/pytest tests/property/test_hosted_machine.py
"""

import asyncio
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from msgspec import Struct, field

from mirror.config.hosting.hosted import HostedSettings
from mirror.config.schema import CacheSettings
from mirror.config.types import Amount
from mirror.hosted.registry import HostedRegistry
from mirror.manage.garbage_collector import GarbageCollector
from mirror.manage.verification import Verification
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.entries import Origin
from mirror.store.metadata.index import Link
from mirror.store.store import Store
from mirror.util.rate_limiter import RateLimiter
from mirror.util.tasks import Tasks
from tests.hosting import APP, CONFIG, OTHER, descriptor, index_of, manifest_of, push_blob

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("HOSTED_MACHINE_EXAMPLES", "0"))
T = TypeVar("T")

HUB = Repository("docker.io", "library/x")
REPOSITORIES = (APP, OTHER)
BLOBS = (CONFIG, b"one", b"two")
FIRST, SECOND = manifest_of([b"one"]), manifest_of([b"one", b"two"])
REFERRER = manifest_of(subject=descriptor(Digest.of(FIRST), len(FIRST), OCI_MANIFEST))
MANIFESTS = {FIRST: OCI_MANIFEST, SECOND: OCI_MANIFEST, REFERRER: OCI_MANIFEST, index_of([FIRST]): OCI_INDEX}
TAGS = ("latest", "v1")
SUBJECT = Digest.of(FIRST)


def named_by(data: bytes) -> set[bytes]:
    """The contents that a manifest names."""
    if MANIFESTS[data] == OCI_INDEX:
        return {FIRST}
    document = json.loads(data)
    digests = {each["digest"] for each in [document["config"], *document["layers"]]}
    return {each for each in BLOBS if str(Digest.of(each)) in digests}


class Model(Struct):
    """Expected contents of a repository."""

    blobs: set[bytes] = field(default_factory=set)
    manifests: set[bytes] = field(default_factory=set)
    tags: dict[str, bytes] = field(default_factory=dict)

    @property
    def contents(self) -> set[bytes]:
        return self.blobs | self.manifests

    @property
    def named(self) -> set[bytes]:
        return {each for data in self.manifests for each in named_by(data)}


workers = st.integers(0, 1)
repositories = st.sampled_from(REPOSITORIES)
blobs = st.sampled_from(BLOBS)
manifests = st.sampled_from(list(MANIFESTS))
tags = st.sampled_from(TAGS)


class HostedMachine(RuleBasedStateMachine):
    """Two workers on one cache folder, and the model."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="hosted-machine-"))
        self.runner = asyncio.Runner()
        self.tasks: Tasks = Tasks()
        self.models = {each: Model() for each in REPOSITORIES}
        self.stores: list[Store] = []
        self.registries: list[HostedRegistry] = []
        for number in (0, 1):
            self.open(number)
        self.run(self.stores[0].executor.run(self.registries[0].store.index.names.register, ["office"], []))

    def run(self, work: Awaitable[T]) -> T:
        async def wait() -> T:
            return await work

        return self.runner.run(wait())

    def open(self, number: int) -> None:
        kept = CacheSettings(dir=self.folder, min_free=Amount(), durability="fast")
        store = self.run(Store.open(self.folder, kept))
        self.stores[number:number] = [store]
        self.registries[number:number] = [HostedRegistry(store, [HostedSettings(name="office")], self.tasks)]

    def refused(self, work: Awaitable[object]) -> int:
        """The status of a refusal; 0 if there was none."""
        try:
            self.run(work)
        except RegistryError as error:
            return error.status
        return 0

    @rule(worker=workers, repository=repositories, data=blobs)
    def push_blob(self, worker: int, repository: Repository, data: bytes) -> None:
        self.run(push_blob(self.registries[worker], repository, data))
        self.models[repository].blobs.add(data)

    @rule(worker=workers, repository=repositories, data=manifests, tag=st.none() | tags)
    def push_manifest(self, worker: int, repository: Repository, data: bytes, tag: str | None) -> None:
        model, reference = self.models[repository], Digest.of(data) if tag is None else Tag(tag)
        registry = self.registries[worker]
        status = self.refused(registry.put_manifest(repository, reference, MANIFESTS[data], data))
        lacking = {each for each in named_by(data) if each not in model.contents}
        assert status == (400 if lacking else 0)
        if not lacking:
            model.manifests.add(data)
            model.tags.update({} if tag is None else {tag: data})

    @rule(worker=workers, repository=repositories, everything=st.permutations(list(MANIFESTS)))
    def push_all(self, worker: int, repository: Repository, everything: list[bytes]) -> None:
        """Push all blobs, and manifests in some order."""
        for data in BLOBS:
            self.push_blob(worker, repository, data)
        for data in everything:
            self.push_manifest(1 - worker, repository, data, "latest")

    @rule(worker=workers, repository=repositories, tag=tags)
    def delete_tag(self, worker: int, repository: Repository, tag: str) -> None:
        status = self.refused(self.registries[worker].delete_tag(repository, Tag(tag)))
        assert status == (0 if self.models[repository].tags.pop(tag, None) else 404)

    @rule(worker=workers, repository=repositories, data=manifests)
    def delete_manifest(self, worker: int, repository: Repository, data: bytes) -> None:
        model = self.models[repository]
        status = self.refused(self.registries[worker].delete_manifest(repository, Digest.of(data)))
        assert status == (0 if data in model.manifests else 404)
        model.manifests.discard(data)
        model.tags = {tag: each for tag, each in model.tags.items() if each != data}

    @rule(worker=workers, repository=repositories, data=blobs)
    def delete_blob(self, worker: int, repository: Repository, data: bytes) -> None:
        status = self.refused(self.registries[worker].delete_blob(repository, Digest.of(data)))
        assert status == (0 if data in self.models[repository].blobs else 404)
        self.models[repository].blobs.discard(data)

    @rule(worker=workers, data=blobs)
    def mirror_has(self, worker: int, data: bytes) -> None:
        """The mirror fetches a blob for a repository of its upstream."""
        store, digest = self.stores[worker], Digest.of(data)
        path = self.folder / "partial" / "fetched"
        path.write_bytes(data)
        self.run(store.transfers.adopt(VerifiedFile(digest, path, len(data), origin=Origin.PUBLIC)))
        self.run(store.metadata.links.add(HUB, digest, Link(None, len(data), confirmed=time.time())))

    @rule(worker=workers)
    def evict(self, worker: int) -> None:
        """The quota of the mirror takes all that it may take."""
        self.run(
            self.stores[worker].executor.run(
                self.stores[worker].folder.blobs.evictions.evict, math.inf, None, ()
            )
        )

    @rule(worker=workers, late=st.booleans())
    def collect_garbage(self, worker: int, late: bool) -> None:
        """An hour after the last push, or at once."""
        now = time.time() + (7200 if late else 0)
        collector = GarbageCollector(self.stores[worker].folder, dry_run=False, now=now)
        self.run(self.stores[worker].executor.run(lambda: list(collector.items())))
        for model in self.models.values() if late else ():
            model.blobs &= model.named

    @rule(worker=workers)
    def restart(self, worker: int) -> None:
        self.run(self.stores.pop(worker).close())
        self.registries.pop(worker)
        self.open(worker)

    @invariant()
    def both_workers_have_what_was_pushed(self) -> None:
        for registry in self.registries:
            for repository, model in self.models.items():
                self.check(registry, repository, model)

    def check(self, registry: HostedRegistry, repository: Repository, model: Model) -> None:
        for data in BLOBS:
            status = self.refused(registry.content.head_blob(repository, Digest.of(data)))
            assert status == (0 if data in model.blobs else 404)
        for data in MANIFESTS:
            status = self.refused(registry.content.get_manifest(repository, Digest.of(data)))
            assert status == (0 if data in model.manifests else 404)
        for tag in TAGS:
            expected = model.tags.get(tag)
            if expected is None:
                assert self.refused(registry.content.get_manifest(repository, Tag(tag))) == 404
            else:
                assert self.run(registry.content.get_manifest(repository, Tag(tag))).data == expected
        answer = json.loads(self.run(registry.content.referrers(repository, SUBJECT, ())).data)
        assert len(answer["manifests"]) == (REFERRER in model.manifests)

    @invariant()
    def classes_agree_with_the_model(self) -> None:
        """Linked content is retained, and nothing else; sums are those of the contents."""
        folder, index = self.stores[0].folder, self.registries[0].store.index
        contents = {each for model in self.models.values() for each in model.contents}
        retained = self.run(self.stores[0].executor.run(folder.blobs.retention.retained_after, "", 100))
        assert retained == sorted(str(Digest.of(each)) for each in contents)
        held = self.run(self.stores[0].executor.run(index.queries.held, "office"))
        assert held == sum(map(len, contents))

    def teardown(self) -> None:
        store = self.stores[0]
        run = Verification(store.folder, RateLimiter(0), quick=False, repair=False)
        self.run(store.executor.run(lambda: list(run.steps())))
        assert run.findings == []
        for each in self.stores:
            self.run(each.close())
        self.run(self.tasks.close())
        self.runner.close()
        shutil.rmtree(self.folder)


def test_hosted_repositories_are_as_the_model_says() -> None:
    """Run pushes, deletions, collections and evictions of two workers in any order."""
    run_state_machine_as_test(
        HostedMachine,
        settings=settings(
            max_examples=EXAMPLES or 8,
            stateful_step_count=15,
            deadline=None,
            derandomize=not EXAMPLES,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

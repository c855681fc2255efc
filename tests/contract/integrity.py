"""Shared parts of the tests of wrong responses: requests, what clients may see, what may be left behind."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirror.config.endpoints import SourceSettings
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from mirror.store.lock import try_lock
from mirror.transfer.plan import DEFAULT_LIMITS, PlanLimits
from mirror.web.responses import BLOB_TYPE
from tests.fakes.content import FakeImage
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE_DATA, Running, mirror_of
from tests.wire import Reply, get

X = "library/x"
SMALL = b"a small layer"
BIG = LARGE_DATA
KINDS = ("tag", "manifest", "small", "large")
BY_DIGEST = KINDS[1:]
BLOBS = KINDS[2:]

# What the client sees.
ERROR = "an OCI error"
SHORT = "a short body, ended with FIN"
RIGHT = "nothing: the right bytes"


@dataclass(frozen=True)
class Content:
    """One of the four kinds of content, and how a client requests it."""

    kind: str
    path: str
    match: str  # the part of the path that no other content has
    data: bytes


def content_of(kind: str, image: FakeImage) -> Content:
    small, large = image.layers
    paths = {
        "tag": ("manifests/t", image.manifest_data),
        "manifest": (f"manifests/{image.manifest}", image.manifest_data),
        "small": (f"blobs/{small}", SMALL),
        "large": (f"blobs/{large}", BIG),
    }
    last, data = paths[kind]
    return Content(kind, f"/v2/docker.io/{X}/{last}", last, data)


async def prepared(kind: str, fake: FakeRegistry, mirror: Running) -> Content:
    """Add an image to the fake; for blobs, request its manifest first, as clients do."""
    content = content_of(kind, fake.add_image(X, "t", [SMALL, BIG]))
    if kind in BLOBS:
        await get(mirror.address, f"/v2/docker.io/{X}/manifests/t")
    return content


def expect(reply: Reply, content: Content, seen: str) -> None:
    """Check that the client sees what it should, and in no case a complete wrong body."""
    assert not reply.reset
    if seen == RIGHT:
        assert (reply.status, reply.complete) == (200, True)
        assert reply.body == content.data
        assert reply.header("Content-Type") == (BLOB_TYPE if content.kind in BLOBS else OCI_MANIFEST)
    elif seen == SHORT:
        assert (reply.status, reply.complete) == (200, False)
    else:
        assert reply.complete
        assert reply.status in (404, 424, 429, 502, 504)
        assert reply.header("Content-Type") == "application/json"
        (error,) = json.loads(reply.body)["errors"]
        assert error["message"]


async def assert_nothing_wrong_is_kept(mirror: Running) -> None:
    """Check that files hash to their names, the index agrees, and nothing runs, is locked or orphaned."""
    cache = mirror.service.cache
    for flight in list(cache._blobs._flights._running.values()):
        await flight.wait_done()
    for single in (cache._tags._getting, cache._tags._revalidating, cache._manifests._fetching):
        assert single._running == {}
    assert await mirror.service._store.upkeep.check() == []
    await asyncio.to_thread(_check_files, mirror.config.cache.dir)


def _check_files(folder: Path) -> None:
    for path in (folder / "blobs" / "sha256").glob("*/*"):
        encoded = path.parent.name + path.name.partition(".")[0]
        assert Digest.of(path.read_bytes()).encoded == encoded
    for path in (folder / "partial").iterdir():
        assert path.suffix in (".map", ".data")
        lock = try_lock(path.with_suffix(".map"))
        assert lock is not None, f"{path.name} is locked"
        os.close(lock)


async def assert_all_is_stored(mirror: Running) -> None:
    """Check that everything is in the store, and no partial is left."""
    await assert_nothing_wrong_is_kept(mirror)
    assert await asyncio.to_thread(os.listdir, mirror.config.cache.dir / "partial") == []


def stop_faults(fake: FakeRegistry) -> None:
    """Let the next responses be right."""
    fake._planned.clear()


def close_breakers(mirror: Running) -> None:
    """Close the breakers, as if the second for which an unresponsive upstream is not used were over."""
    for source in mirror.service._upstreams["docker.io"].sources:
        source.health.record_success(0.1)


@asynccontextmanager
async def two_sources(
    fake: FakeRegistry, other: FakeRegistry, cache: Path, limits: PlanLimits = DEFAULT_LIMITS, **fill: Any
) -> AsyncIterator[Running]:
    """A mirror of docker.io, which is `fake`; `other` has all of it under hub/."""
    source = SourceSettings(url=other.url, prefix="hub", attempts=1)
    async with mirror_of(fake, cache, limits, upstream={"sources": (source,)}, fill=fill) as mirror:
        yield mirror


async def prepared_in_both(kind: str, fake: FakeRegistry, other: FakeRegistry, mirror: Running) -> Content:
    """Prepare as `prepared`, with the same content in `other`."""
    other.add_image(f"hub/{X}", "t", [SMALL, BIG])
    copy, repository = other.repository(f"hub/{X}"), fake.repository(X)
    content = await prepared(kind, fake, mirror)
    copy.manifests.update(repository.manifests)
    copy.blobs.update(repository.blobs)
    return content

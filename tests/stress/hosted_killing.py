"""Pushes, deletions and collections that are killed at their n-th disk operation.

A program of its own, because it forks: `python -m tests.stress.hosted_killing FOLDER`. Prints what went
wrong.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from mirror.config.schema import LogSettings
from mirror.manage.garbage_collector import GarbageCollector
from mirror.manage.verification import Verification
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import Tag
from mirror.store.blobs import fsck
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.entries import Origin
from mirror.store.blobs.fsck import HARMLESS
from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted.agreement import Agreement
from mirror.store.hosted.hosted_index import HostedIndex
from mirror.store.hosted.push_writer import PushWriter
from mirror.store.hosted.pushes import NO_QUOTAS, PushedManifest
from mirror.store.metadata.index import ROWS
from mirror.util.log import configure
from mirror.util.rate_limiter import RateLimiter
from tests.hosting import APP, CONFIG, OTHER, descriptor, manifest_of
from tests.stress.killing import killed_at

LAYER = b"a layer of an image"
SUBJECT = Digest.of(b"subject")
DATA = manifest_of([LAYER], subject=descriptor(SUBJECT, 7, OCI_MANIFEST))
PUSH = PushedManifest(
    APP,
    Digest.of(DATA),
    DATA,
    OCI_MANIFEST,
    (Tag("latest"),),
    (Digest.of(CONFIG), Digest.of(LAYER)),
    subject=SUBJECT,
    descriptor=json.dumps({"digest": str(Digest.of(DATA))}),
)


def push_blob(folder: CacheDirectory, data: bytes) -> None:
    path = folder.partials / "upload"
    path.write_bytes(data)
    verified = VerifiedFile(Digest.of(data), path, len(data), origin=Origin.PRIVATE, retained=True)
    PushWriter(folder, HostedIndex(folder)).commit_blob(APP, verified, NO_QUOTAS)


def push(folder: CacheDirectory) -> None:
    """Push an image with its blobs, its tag and its subject."""
    for data in (CONFIG, LAYER):
        push_blob(folder, data)
    (result,) = PushWriter(folder, HostedIndex(folder)).put_manifests([PUSH])
    assert isinstance(result, list), result


def delete_manifest(folder: CacheDirectory) -> None:
    """Delete the image that was there."""
    HostedIndex(folder).delete_manifest(APP, PUSH.digest)


def delete_blob(folder: CacheDirectory) -> None:
    """Delete a blob that another repository has too, and then there."""
    for repository in (APP, OTHER):
        HostedIndex(folder).delete_blob(repository, Digest.of(b"shared"))


def collect(folder: CacheDirectory) -> None:
    """Collect a blob that no manifest names."""
    list(GarbageCollector(folder, dry_run=False, now=time.time() + 7200).items())


OPERATIONS = (push, delete_manifest, delete_blob, collect)


def prepare(path: Path, operation: Callable[[CacheDirectory], None]) -> None:
    """Create a folder with a blob of two repositories, and the image, unless the operation pushes that."""
    shutil.rmtree(path, ignore_errors=True)
    with closing(CacheDirectory(path)) as folder:
        HostedIndex(folder).names.register(["office"], [])
        push_blob(folder, b"shared")
        PushWriter(folder, HostedIndex(folder)).link_blob(OTHER, Digest.of(b"shared"), NO_QUOTAS)
        if operation is not push:
            push(folder)


def wrong(folder: CacheDirectory) -> list[str]:
    """Return what clients could see half-done, and what `verify` finds."""
    index, found = HostedIndex(folder), list[str]()
    entry = folder.index.tag(APP, Tag("latest"))
    link = folder.index.link(APP, PUSH.digest)
    if (entry is None) != (link is None):
        found.append("the tag and its manifest came apart")
    if (link is None) != (index.queries.referrers(APP, SUBJECT, "", ())[0] == "[]"):
        found.append("the manifest and its place among referrers came apart")
    needed = [PUSH.digest, *PUSH.blobs] if link is not None else []
    found += [f"{each} is lost" for each in needed if folder.reader.read(each, 10_000) is None]
    found += [f"{each} has no link" for each in needed if folder.index.link(APP, each) is None]
    held: dict[str, dict[Digest, int]] = {"office": {}}
    for repository in (APP, OTHER):
        links = {digest: link.size or 0 for digest, link, _ in folder.index.links(repository, "", ROWS)}
        held[str(repository)] = links
        held["office"] |= links
    found += [
        f"{name} holds another sum"
        for name, sizes in held.items()
        if index.queries.held(name) != sum(sizes.values())
    ]
    rows = folder.blobs.database.cache._sql("SELECT sum(size) FROM Cache WHERE access_count > 0").fetchone()
    found += [] if folder.blobs.retention.totals()[0] == (rows[0] or 0) else ["retained bytes are miscounted"]
    run = Verification(folder, RateLimiter(0), quick=False, repair=False)
    list(run.steps())
    return found + [f"{each.subject}: {each.damage}" for each in run.findings if each.damage not in HARMLESS]


def faults_after_crash(path: Path, operation: Callable[[CacheDirectory], None]) -> list[str]:
    """Return what is wrong after a crash, after the operation was repeated, and after a collection."""
    with closing(CacheDirectory(path)) as folder:
        found = [f"trouble: {each}" for each in folder.health.faults()] + wrong(folder)
        operation(folder)
        found += [f"after doing it again: {each}" for each in wrong(folder)]
        collect(folder)
        left = list(Agreement(folder).unlinked(repair=False, now=time.time() + 7200))
        found += [f"retained without end: {each}" for each in left]
        return found + [f"after a collection: {each}" for each in wrong(folder)]


def main(path: Path) -> None:
    configure(LogSettings(), sys.stderr)
    fsck.GRACE_SECONDS = -1.0
    for operation in OPERATIONS:
        at, killed = 0, 1
        while killed:
            prepare(path, operation)
            killed = killed_at(path, operation, at)
            for each in faults_after_crash(path, operation):
                print(f"{operation.__name__}, killed at step {at}: {each}")
            at += 1
        print(f"{operation.__name__}: {at} steps", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

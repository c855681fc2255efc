"""Processes that die on purpose: at the n-th thing they ask of the disk, or with what was not synced lost.

A program of its own, because it forks: `python -m tests.stress.killing FOLDER`. Prints what went wrong.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import diskcache

from mirror.config.schema import CacheSettings, LogSettings
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs import fsck
from mirror.store.blobs.fsck import HARMLESS, Fsck, FsckCursor
from mirror.store.cache_dir import CacheDirectory, StoredManifest
from mirror.store.metadata.index import Link, TagEntry
from mirror.store.orphans import old_partials
from mirror.store.partial.partial import Hasher
from mirror.util.log import configure

X = Repository("docker.io", "library/x")
LARGE = os.urandom(300_000)
SMALL = b"a small blob"
HERE = b"a blob that was here before"
MANIFEST = StoredManifest(b'{"schemaVersion":2}', Digest.of(b'{"schemaVersion":2}'), "application/x")
CHUNK = 65536

# What a crash can come before.
CALLS = ("rename", "unlink", "open", "fdatasync", "fsync", "chmod", "pwritev", "ftruncate", "posix_fallocate")


def digest_of(data: bytes) -> Digest:
    return Digest.of(data)


def adopt(folder: CacheDirectory) -> None:
    """All that a fill does, from the lock to the link."""
    digest = digest_of(LARGE)
    partial, held = folder.lock_partial(X, digest)
    assert partial is not None
    if not held.present:
        chunks = partial.chunks
        if chunks is None:
            chunks = folder.allocate(partial, len(LARGE), CHUNK)
        for gap in chunks.missing():
            partial.write(gap.start, [LARGE[gap.start : gap.stop]], None)
            chunks.record(gap.start, gap.length)
        hasher = Hasher(digest)
        partial.hash_until(hasher, len(LARGE))
        assert hasher.matches()
        folder.adopt(partial.verified_file())
    folder.index.add_links(X, {digest: Link(size=len(LARGE))})
    partial.discard()
    partial.release()


def keep(folder: CacheDirectory) -> None:
    """A small blob."""
    (claim,) = folder.acquire_leases([digest_of(SMALL)])
    assert claim is not None
    if claim.present:
        claim.release()
    else:
        folder.put_small_blobs([(claim, SMALL)])


def put_manifest(folder: CacheDirectory) -> None:
    """A manifest with its links, and the tag that names it."""
    folder.put_manifest(X, MANIFEST, {digest_of(SMALL): Link(size=len(SMALL))})
    folder.index.put_tag(X, Tag("t"), TagEntry(str(MANIFEST.digest), MANIFEST.media_type, 19, 1.0))


def discard(folder: CacheDirectory) -> None:
    """A fill that came to nothing."""
    partial, _ = folder.lock_partial(X, digest_of(b"other"))
    assert partial is not None
    folder.allocate(partial, 5, CHUNK)
    partial.discard()
    partial.release()


def evict(folder: CacheDirectory) -> None:
    folder.blobs.evict(time.time() + 60, None, set())


def set_aside(folder: CacheDirectory) -> None:
    folder.blobs.quarantine(digest_of(HERE))


def opening(folder: CacheDirectory) -> None:
    """Nothing but opening it."""


OPERATIONS = (adopt, keep, put_manifest, discard, evict, set_aside, opening)


@contextmanager
def counted(step: Callable[[str], None]) -> Iterator[None]:
    """Call `step` before everything that is asked of disk and database."""
    kept = {name: getattr(os, name) for name in CALLS}
    sql = diskcache.Cache._sql

    def wrapped(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def work(*arguments: Any, **options: Any) -> Any:
            step(name)
            return call(*arguments, **options)

        return work

    for name, call in kept.items():
        setattr(os, name, wrapped(name, call))
    diskcache.Cache._sql = property(lambda cache: wrapped("sql", sql.fget(cache)))
    try:
        yield
    finally:
        for name, call in kept.items():
            setattr(os, name, call)
        diskcache.Cache._sql = sql


def prepared(path: Path) -> None:
    """A folder with one blob in it."""
    shutil.rmtree(path, ignore_errors=True)
    with closing(CacheDirectory(path)) as folder:
        folder.put_small_blob(digest_of(HERE), HERE)


def forked(work: Callable[[], None]) -> int:
    """Do it in a child; the signal that killed it, or 0."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("the child failed by itself")
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def dying(path: Path, operation: Callable[[CacheDirectory], None], at: int) -> int:
    """Do it in a child that is killed at its `at`-th step; the signal, 0 when it came to its end before."""
    left = [at]

    def step(_: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        if operation is opening:
            with counted(step):
                CacheDirectory(path)
            return
        folder = CacheDirectory(path)
        with counted(step):
            operation(folder)

    return forked(work)


def complaints(path: Path, operation: Callable[[CacheDirectory], None]) -> list[str]:
    """What is not as it should be after a crash: the folder as such, and doing it again."""
    found: list[str] = []
    with closing(CacheDirectory(path)) as folder:
        found += [f"trouble: {each}" for each in folder.health.faults()]
        found += wrong(folder)
        for data in (LARGE, SMALL, HERE, MANIFEST.data):
            read = folder.read(digest_of(data), len(LARGE))
            found += [f"{data[:20]!r} reads as something else"] if read not in (None, data) else []
        operation(folder)
        found += [f"after doing it again: {each}" for each in wrong(folder)]
        list(old_partials(path / "partial", time.time() + 60, remove=True))
        found += [f"left for ever: {each}" for each in os.listdir(path / "partial")]
        list(Fsck(path / "blobs", folder.blobs, FsckCursor(), repair=True).steps())
        found += [f"after repair: {each}" for each in folder.blobs.check()]
    return found


def wrong(folder: CacheDirectory) -> list[str]:
    steps = Fsck(folder.path / "blobs", folder.blobs, FsckCursor(), repair=False).steps()
    findings = [step.finding for step in steps if step.finding is not None]
    return [f"{each.subject}: {each.damage}" for each in findings if each.damage not in HARMLESS]


def kill_everywhere(path: Path, operation: Callable[[CacheDirectory], None]) -> list[str]:
    """Kill it at each of its steps in turn; what went wrong."""
    at, found = 0, list[str]()
    while True:
        prepared(path)
        killed = dying(path, operation, at)
        found += [
            f"{operation.__name__}, killed at step {at}: {each}" for each in complaints(path, operation)
        ]
        if not killed:
            print(f"{operation.__name__}: {at} steps", file=sys.stderr)
            return found
        at += 1


def lose_power(path: Path, durability: str, *, books: bool) -> list[str]:
    """A blob is adopted, and the power fails: what was not synced is lost; without `books`, entries too."""
    prepared(path)
    synced = path.with_name("synced")

    def work() -> None:
        real = {name: getattr(os, name) for name in ("fsync", "fdatasync")}

        def noting(descriptor: int) -> None:
            with open(synced, "a") as file:
                file.write(f"{os.stat(descriptor).st_ino}\n")
            real["fsync"](descriptor)

        for name in real:
            setattr(os, name, noting)
        settings = CacheSettings.model_validate({"dir": path, "durability": durability})
        adopt(CacheDirectory(path, settings))

    synced.write_text("")
    forked(work)
    kept = set(synced.read_text().split())
    for file in (path / "blobs" / "sha256").rglob("*.*"):
        if str(file.stat().st_ino) not in kept or str(file.parent.stat().st_ino) not in kept:
            file.chmod(0o600)
            os.truncate(file, 0)
    if not books:
        for name in ("cache.db-wal", "cache.db-shm"):
            (path / "blobs" / name).unlink(missing_ok=True)
    found: list[str] = []
    with closing(CacheDirectory(path)) as folder:
        blob = folder.blobs.open(digest_of(LARGE))
        if durability == "safe" and books and blob is None:
            found.append("safe: the blob is lost")
        if blob is not None:
            with blob.file:
                found += ["wrong bytes"] if blob.file.read() != LARGE else []
        if durability == "safe" and not books:
            list(Fsck(path / "blobs", folder.blobs, FsckCursor(), repair=True).steps())
            found += [] if folder.has(digest_of(LARGE)) else ["safe: the file was not taken in again"]
        adopt(folder)
        found += [] if folder.read(digest_of(LARGE), len(LARGE)) == LARGE else ["not fetched again"]
    return [f"power lost, {durability}, books={books}: {each}" for each in found]


def main(path: Path) -> None:
    configure(LogSettings(), sys.stderr)
    fsck.GRACE_SECONDS = -1.0
    found: list[str] = []
    for operation in OPERATIONS:
        found += kill_everywhere(path, operation)
    for durability in ("safe", "fast"):
        for books in (True, False):
            found += lose_power(path, durability, books=books)
    print("\n".join(found), end="")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Processes that are killed on purpose: at their n-th disk operation, or with the unsynced bytes lost.

A program of its own, because it forks: `python -m tests.stress.killing FOLDER`. Prints what went wrong.
"""

import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import diskcache

from mirror.config.schema import CacheSettings, LogSettings
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs import fsck
from mirror.store.blobs.entries import Origin
from mirror.store.blobs.fsck import HARMLESS, Fsck, FsckCursor
from mirror.store.cache_dir import CacheDirectory
from mirror.store.links.content import StoredManifest
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

# Calls that a crash can precede.
CALLS = ("rename", "unlink", "open", "fdatasync", "fsync", "chmod", "pwritev", "ftruncate", "posix_fallocate")


def digest_of(data: bytes) -> Digest:
    return Digest.of(data)


def adopt(folder: CacheDirectory) -> None:
    """Fill a blob, from the lock to the link."""
    digest = digest_of(LARGE)
    partial, found = folder.fills.lock_partial(X, digest)
    assert partial is not None
    if not found.present:
        chunks = partial.chunks
        if chunks is None:
            chunks = folder.fills.allocate(partial, len(LARGE), CHUNK)
        for gap in chunks.missing():
            partial.write(gap.start, [LARGE[gap.start : gap.stop]], None)
            chunks.record(gap.start, gap.length)
        hasher = Hasher(digest)
        partial.hash_until(hasher, len(LARGE))
        assert hasher.matches()
        folder.writer.adopt(partial.verified_file())
    folder.index.add_links(X, {digest: Link(size=len(LARGE))})
    partial.discard()
    partial.release()


def put_small(folder: CacheDirectory) -> None:
    """Store a small blob."""
    (lease,) = folder.fills.acquire_leases([digest_of(SMALL)])
    assert lease is not None
    if lease.present:
        lease.release()
    else:
        folder.writer.put_small_blobs([(lease, SMALL, Origin.PUBLIC)])


def put_manifest(folder: CacheDirectory) -> None:
    """Store a manifest with its links, and a tag that points to it."""
    folder.writer.put_manifest(X, MANIFEST, {digest_of(SMALL): Link(size=len(SMALL))})
    folder.index.put_tag(X, Tag("t"), TagEntry(str(MANIFEST.digest), MANIFEST.media_type, 19, 1.0))


def discard(folder: CacheDirectory) -> None:
    """Begin a fill and discard it."""
    partial, _ = folder.fills.lock_partial(X, digest_of(b"other"))
    assert partial is not None
    folder.fills.allocate(partial, 5, CHUNK)
    partial.discard()
    partial.release()


def evict(folder: CacheDirectory) -> None:
    """Evict everything."""
    folder.blobs.evictions.evict(time.time() + 60, None, set())


def quarantine(folder: CacheDirectory) -> None:
    """Quarantine a blob."""
    folder.blobs.quarantine(digest_of(HERE))


def open_folder(folder: CacheDirectory) -> None:
    """Open the folder, and do nothing else."""


OPERATIONS = (adopt, put_small, put_manifest, discard, evict, quarantine, open_folder)


@contextmanager
def counting_steps(step: Callable[[str], None]) -> Iterator[None]:
    """Call `step` before each call to disk and database."""
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


def prepare(path: Path) -> None:
    """Create a folder with one blob."""
    shutil.rmtree(path, ignore_errors=True)
    with closing(CacheDirectory(path)) as folder:
        folder.writer.put_small_blob(digest_of(HERE), HERE)


def run_in_child(work: Callable[[], None]) -> int:
    """Run `work` in a child; return the signal that killed it, or 0."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("the child failed by itself")
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def killed_at(path: Path, operation: Callable[[CacheDirectory], None], at: int) -> int:
    """Run the operation in a child and kill it at its `at`-th step.

    Returns the signal, 0 if the operation ended before.
    """
    left = [at]

    def step(_: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        if operation is open_folder:
            with counting_steps(step):
                CacheDirectory(path)
            return
        folder = CacheDirectory(path)
        with counting_steps(step):
            operation(folder)

    return run_in_child(work)


def faults_after_crash(path: Path, operation: Callable[[CacheDirectory], None]) -> list[str]:
    """Return what is wrong after a crash: with the folder as such, and after the operation was repeated."""
    found: list[str] = []
    with closing(CacheDirectory(path)) as folder:
        found += [f"trouble: {each}" for each in folder.health.faults()]
        found += wrong(folder)
        for data in (LARGE, SMALL, HERE, MANIFEST.data):
            read = folder.reader.read(digest_of(data), len(LARGE))
            found += [f"{data[:20]!r} reads as something else"] if read not in (None, data) else []
        operation(folder)
        found += [f"after doing it again: {each}" for each in wrong(folder)]
        if operation is adopt:
            files = list((path / "blobs").glob(f"sha256/*/{digest_of(LARGE).encoded[2:]}.*"))
            found += [f"{len(files)} files of one blob"] if len(files) != 1 else []
        list(old_partials(path / "partial", time.time() + 60, remove=True))
        found += [f"never removed: {each}" for each in os.listdir(path / "partial")]
        list(Fsck(path / "blobs", folder.blobs, FsckCursor(), repair=True).steps())
        found += [f"after repair: {each}" for each in folder.blobs.check()]
    return found


def wrong(folder: CacheDirectory) -> list[str]:
    steps = Fsck(folder.path / "blobs", folder.blobs, FsckCursor(), repair=False).steps()
    findings = [step.finding for step in steps if step.finding is not None]
    return [f"{each.subject}: {each.damage}" for each in findings if each.damage not in HARMLESS]


def kill_everywhere(path: Path, operation: Callable[[CacheDirectory], None]) -> list[str]:
    """Kill the operation at each of its steps in turn; return what went wrong."""
    at, found = 0, list[str]()
    while True:
        prepare(path)
        killed = killed_at(path, operation, at)
        found += [
            f"{operation.__name__}, killed at step {at}: {each}"
            for each in faults_after_crash(path, operation)
        ]
        if not killed:
            print(f"{operation.__name__}: {at} steps", file=sys.stderr)
            return found
        at += 1


def lose_power(path: Path, durability: str, *, wal: bool) -> list[str]:
    """Adopt a blob and lose the power, and with it all unsynced bytes.

    Without `wal` the database's last writes are lost too.
    """
    prepare(path)
    synced = path.with_name("synced")

    def work() -> None:
        real = {name: getattr(os, name) for name in ("fsync", "fdatasync")}

        def noting(descriptor: int) -> None:
            with open(synced, "a") as file:
                file.write(f"{os.stat(descriptor).st_ino}\n")
            real["fsync"](descriptor)

        for name in real:
            setattr(os, name, noting)
        # No room is kept free: the blob is adopted however full the disk is that the test runs on.
        settings = CacheSettings.model_validate({"dir": path, "durability": durability, "min_free": "0"})
        adopt(CacheDirectory(path, settings))

    synced.write_text("")
    run_in_child(work)
    kept = set(synced.read_text().split())
    for file in (path / "blobs" / "sha256").rglob("*.*"):
        if str(file.stat().st_ino) not in kept or str(file.parent.stat().st_ino) not in kept:
            file.chmod(0o600)
            os.truncate(file, 0)
    if not wal:
        for name in ("cache.db-wal", "cache.db-shm"):
            (path / "blobs" / name).unlink(missing_ok=True)
    found: list[str] = []
    with closing(CacheDirectory(path)) as folder:
        blob = folder.blobs.open(digest_of(LARGE))
        if durability == "safe" and wal and blob is None:
            found.append("safe: the blob is lost")
        if blob is not None:
            with blob.file:
                found += ["wrong bytes"] if blob.file.read() != LARGE else []
        if durability == "safe" and not wal:
            list(Fsck(path / "blobs", folder.blobs, FsckCursor(), repair=True).steps())
            found += [] if folder.reader.has(digest_of(LARGE)) else ["safe: the file got no entry again"]
        adopt(folder)
        found += [] if folder.reader.read(digest_of(LARGE), len(LARGE)) == LARGE else ["not fetched again"]
    return [f"power lost, {durability}, wal={wal}: {each}" for each in found]


def main(path: Path) -> None:
    configure(LogSettings(), sys.stderr)
    fsck.GRACE_SECONDS = -1.0
    found: list[str] = []
    for operation in OPERATIONS:
        found += kill_everywhere(path, operation)
    for durability in ("safe", "fast"):
        for wal in (True, False):
            found += lose_power(path, durability, wal=wal)
    print("\n".join(found), end="")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

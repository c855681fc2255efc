"""One of several processes that use one cache folder at random, until they are killed.

`python -m tests.stress.worker FOLDER SEED`: prints a line for each round, and stops at the first fault.
"""

import random
import sys
import time
from pathlib import Path

from mirror.config.schema import CacheSettings
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.entries import Origin
from mirror.store.cache_dir import CacheDirectory
from mirror.store.metadata.index import Link, TagEntry
from mirror.store.partial.partial import Hasher

# The cache's quota, in bytes: less than all blobs together, so that evictions never end.
ROOM = 2_000_000
SMALL = [random.Random(number).randbytes(random.Random(-number).randrange(1, 20_000)) for number in range(80)]
LARGE = [random.Random(number).randbytes(300_000 + number) for number in range(1000, 1008)]
DIGESTS = {data: Digest.of(data) for data in (*SMALL, *LARGE)}


def opened(path: Path) -> CacheDirectory:
    """Open the folder with a quota."""
    settings = {"dir": path, "max_size": ROOM, "min_free": 0, "durability": "fast"}
    return CacheDirectory(path, CacheSettings.model_validate(settings))


def put_small(folder: CacheDirectory, data: bytes) -> None:
    """Store a small blob, unless another process does."""
    (lease,) = folder.fills.acquire_leases([DIGESTS[data]])
    if lease is None:
        return
    if lease.present:
        lease.release()
    else:
        folder.writer.put_small_blobs([(lease, data, Origin.PUBLIC)])


def fill(folder: CacheDirectory, repository: Repository, data: bytes) -> None:
    """Fill a large blob from where a killed process stopped, or from the beginning."""
    digest = DIGESTS[data]
    partial, found = folder.fills.lock_partial(repository, digest)
    if partial is None:
        return
    if not found.present:
        chunks = partial.chunks or folder.fills.allocate(partial, len(data), 65536)
        for gap in chunks.missing():
            partial.write(gap.start, [data[gap.start : gap.stop]], None)
            chunks.record(gap.start, gap.length)
        hasher = Hasher(digest)
        partial.hash_until(hasher, len(data))
        assert hasher.matches(), "the resumed blob is wrong"
        folder.writer.adopt(partial.verified_file())
        folder.index.add_links(repository, {digest: Link(size=len(data))})
    partial.discard()
    partial.release()


def read(folder: CacheDirectory, repository: Repository, data: bytes) -> None:
    """Read a blob: its bytes must be right, and without a link there must be none."""
    found = folder.reader.open_blob(repository, DIGESTS[data])
    assert found.link is not None or (found.blob is None and found.data is None), "opened without a link"
    if found.blob is not None:
        with found.blob.file:
            assert found.blob.file.read() == data, "wrong bytes"
    assert found.data in (None, data), "wrong bytes"
    folder.blobs.table.touch({DIGESTS[data]: time.time() - 40.0 * random.random()})


def main(path: Path, seed: int) -> None:
    chance, folder = random.Random(seed), opened(path)
    while True:
        repository = Repository("docker.io", f"library/{chance.randrange(4)}")
        for _ in range(20):
            what = chance.random()
            if what < 0.4:
                read(folder, repository, chance.choice([*SMALL, *LARGE]))
            elif what < 0.7:
                put_small(folder, chance.choice(SMALL))
            elif what < 0.8:
                fill(folder, repository, chance.choice(LARGE))
            elif what < 0.9:
                entry = TagEntry(str(Digest.of(b"")), "x", seed, time.time())
                folder.index.put_tag(repository, Tag(f"t{chance.randrange(9)}"), entry)
            else:
                folder.evictor.evict()
        assert not folder.health.faults(), folder.health.faults()
        print("round", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

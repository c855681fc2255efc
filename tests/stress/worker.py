"""One of several processes that use one cache folder at random, until they are killed.

`python -m tests.stress.worker FOLDER SEED`: prints a line for each round, and stops at what it finds wrong.
"""

import random
import sys
import time
from pathlib import Path

from mirror.config.schema import CacheSettings
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.cache_dir import CacheDirectory
from mirror.store.metadata.index import Link, TagEntry
from mirror.store.partial.partial import Hasher

# What the cache may take: less than all the blobs there are, so that something is always evicted.
ROOM = 2_000_000
SMALL = [random.Random(number).randbytes(random.Random(-number).randrange(1, 20_000)) for number in range(80)]
LARGE = [random.Random(number).randbytes(300_000 + number) for number in range(1000, 1008)]
DIGESTS = {data: Digest.of(data) for data in (*SMALL, *LARGE)}


def opened(path: Path) -> CacheDirectory:
    settings = {"dir": path, "max_size": ROOM, "min_free": 0, "durability": "fast"}
    return CacheDirectory(path, CacheSettings.model_validate(settings))


def keep(folder: CacheDirectory, data: bytes) -> None:
    (claim,) = folder.acquire_leases([DIGESTS[data]])
    if claim is None:
        return
    if claim.present:
        claim.release()
    else:
        folder.put_small_blobs([(claim, data)])


def fill(folder: CacheDirectory, repository: Repository, data: bytes) -> None:
    """From where another one was killed, or from the beginning."""
    digest = DIGESTS[data]
    partial, held = folder.lock_partial(repository, digest)
    if partial is None:
        return
    if not held.present:
        chunks = partial.chunks or folder.allocate(partial, len(data), 65536)
        for gap in chunks.missing():
            partial.write(gap.start, [data[gap.start : gap.stop]], None)
            chunks.record(gap.start, gap.length)
        hasher = Hasher(digest)
        partial.hash_until(hasher, len(data))
        assert hasher.matches(), "what was resumed is wrong"
        folder.adopt(partial.verified_file())
        folder.index.add_links(repository, {digest: Link(size=len(data))})
    partial.discard()
    partial.release()


def read(folder: CacheDirectory, repository: Repository, data: bytes) -> None:
    """Whatever is there is right; nothing is there without a link."""
    held = folder.open_blob(repository, DIGESTS[data])
    assert held.link is not None or (held.blob is None and held.data is None), "opened without a link"
    if held.blob is not None:
        with held.blob.file:
            assert held.blob.file.read() == data, "wrong bytes"
    assert held.data in (None, data), "wrong bytes"
    folder.blobs.touch({DIGESTS[data]: time.time() - 40.0 * random.random()})


def main(path: Path, seed: int) -> None:
    chance, folder = random.Random(seed), opened(path)
    while True:
        repository = Repository("docker.io", f"library/{chance.randrange(4)}")
        for _ in range(20):
            what = chance.random()
            if what < 0.4:
                read(folder, repository, chance.choice([*SMALL, *LARGE]))
            elif what < 0.7:
                keep(folder, chance.choice(SMALL))
            elif what < 0.8:
                fill(folder, repository, chance.choice(LARGE))
            elif what < 0.9:
                entry = TagEntry(str(Digest.of(b"")), "x", seed, time.time())
                folder.index.put_tag(repository, Tag(f"t{chance.randrange(9)}"), entry)
            else:
                folder.evict()
        assert not folder.health.faults(), folder.health.faults()
        print("round", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

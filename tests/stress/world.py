"""A whole mirror, with workers, on a small disk, in front of a fake origin; and what a round may cost."""

import asyncio
import json
import random
import shutil
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.store.blobs.blobs import BlobStore
from tests.e2e.fleet import Fleet
from tests.e2e.processes import attempt, wait_until
from tests.fakes.content import FakeImage
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.fakes.site import Seen
from tests.running import LARGE
from tests.unit.cli.test_app import COMMAND
from tests.wire import get

KIB, MIB = 1024, 1024 * 1024

# In this order of size: two pinned images and what is in flight, the quota, all images, the disk.
QUOTA, DISK = 13 * MIB, 48 * MIB
WORKERS = 3

# Within so many seconds all workers find out that the disk is well: they look every ten.
HEALED = 15.0

# More than there are blobs.
MANY = 500

# What the origin sends in one go, and the pause after that: about 50 MB/s for each connection, so that what
# goes wrong goes wrong in the middle of something.
PIECE, PAUSE = 256 * KIB, 0.005

# Everything below [server] that is not as usual. Small things are on the disk, not only in memory.
CACHE = f"""
[cache]
max_size = {QUOTA}
min_free = "0"
memory = "128KiB"
[tags]
fresh = 1
[log]
level = "debug"
"""

ROOT = {"blobs", "books", "partial", "quarantine", "version", "generation", "evicting", "pins", "kept"}


@dataclass
class Round:
    """What was done that lets a blob come from the origin once more, or again."""

    before: set[str]  # what was here when it began, by digest
    mark: int  # how much the origin had been asked, and
    log: int  # how long the mirror's log was, by then
    trouble: bool = False  # the disk is full or read-only at times
    kills: int = 0
    aged: int = 0
    asked: Counter[Digest] = field(default_factory=Counter)
    destroyed: Counter[Digest] = field(default_factory=Counter)  # corrupted or removed
    collected: int = 0  # bytes that `gc` has evicted, and
    collections: int = 0  # how often it has


class World:
    """The parts, and looking at them. Everything that blocks is done in a thread."""

    def __init__(self, folder: Path, hub: FakeRegistry) -> None:
        self.hub = hub
        self.disk = folder / "disk"
        self.mirror = Fleet(folder, hub.url, WORKERS, CACHE)
        self.mirror.cache = self.disk / "cache"
        self.images = images(hub)
        self.data: dict[Digest, bytes] = {}
        for image in self.images:
            self.data[image.manifest] = image.manifest_data
            self.data |= zip(image.blobs, (image.config_data, *image.layers_data), strict=True)
        self.tags = {f"/v2/{each.repository}/manifests/{each.tag}": each.manifest for each in self.images}
        self.flipped: set[Digest] = set()  # whose file was changed: what is sent of it may be wrong
        self.corrupted: set[Digest] = set()  # what `verify` may find
        self.pinned: set[FakeImage] = set()
        self.promised: set[Digest] = set()  # what was pinned and here when the last round ended
        self.now = Round(set(), 0, 0)
        self.met: Counter[str] = Counter()

    async def begin(self) -> None:
        """A new round."""
        log = await asyncio.to_thread(self._log_size)
        self.now = Round(set(await asyncio.to_thread(self.here)), len(self.hub.log), log)

    def here(self) -> dict[str, int]:
        """Digests of all blobs and their sizes, as the books have it; each of them has its file."""
        with self.blobs() as blobs:
            rows = blobs.rows("", MANY)
            return {row.digest: row.size for row in rows if (blobs.folder / row.name).exists()}

    @contextmanager
    def blobs(self) -> Iterator[BlobStore]:
        """The blob store, beside the mirror."""
        blobs = BlobStore(self.mirror.cache / "blobs", self.mirror.cache / "quarantine")
        with closing(blobs):
            yield blobs

    async def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """`registry-mirror`, beside the running mirror. It may fail, and never falls over."""
        where = ["--config", str(self.mirror.config), "--cache-dir", str(self.mirror.cache)]
        done = await asyncio.to_thread(attempt, [*COMMAND, *arguments, *where])
        assert "Traceback" not in done.stderr, f"{arguments}: {done.stderr}"
        assert done.returncode == 0 or self.now.trouble or arguments[0] in ("rm", "verify"), (
            f"{arguments}: {done.stderr}"
        )
        self.met[arguments[0]] += 1
        return done

    async def settle(self) -> None:
        """Until no fill is running, and nothing is wrong with the disk."""
        await asyncio.to_thread(wait_until, lambda: not self.filling(), "the end of all fills")
        end = time.monotonic() + HEALED
        while trouble := await self._health():
            assert time.monotonic() < end, f"still, though the disk is well: {trouble}"
            await asyncio.sleep(0.1)

    def filling(self) -> set[int]:
        """Inodes of the partials that some process holds."""
        ours = {path.stat().st_ino for path in self._partials() if path.exists()}
        rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        device = f"{self.disk.stat().st_dev >> 8:02x}:{self.disk.stat().st_dev & 0xFF:02x}"
        held = [row[-3].rpartition(":") for row in rows if "FLOCK" in row and "->" not in row]
        return {int(inode) for where, _, inode in held if where == device} & ours

    def _partials(self) -> Iterable[Path]:
        return list((self.mirror.cache / "partial").glob("*.map"))

    async def _health(self) -> list[str]:
        """As all workers together tell it."""
        try:
            lines = (await get(self.mirror.address, "/metrics")).body.decode().splitlines()
        except (OSError, asyncio.IncompleteReadError):
            return ["no answer"]
        trouble = [each for each in lines if each.startswith("registry_mirror_cache_trouble{")]
        return [each for each in trouble if not each.endswith(" 0.0")]

    def sent(self) -> Counter[Digest]:
        """Bytes that the origin has sent of each blob and manifest in this round."""
        sent: Counter[Digest] = Counter()
        for seen in self.hub.log[self.now.mark :]:
            if seen.method == "GET" and (digest := self._digest(seen)) is not None:
                sent[digest] += seen.sent
        return sent

    def _digest(self, seen: Seen) -> Digest | None:
        if seen.path in self.tags:
            return self.tags[seen.path]
        last = seen.path.rpartition("/")[2]
        return Digest.parse(last) if last.startswith("sha256:") and seen.status in (200, 206) else None

    def evicted(self) -> dict[Digest, list[int]]:
        """What the mirror says it has evicted in this round: a size for each time."""
        found = defaultdict[Digest, list[int]](list)
        with self.mirror.log.open("rb") as log:
            log.seek(self.now.log)
            for line in log:
                if b'"event": "evicted"' in line:
                    told = json.loads(line)
                    found[Digest.parse(told["digest"])].append(int(told["bytes"]))
        return found

    def _log_size(self) -> int:
        return self.mirror.log.stat().st_size if self.mirror.log.exists() else 0

    def pull_of(self, image: FakeImage) -> list[Digest]:
        return [image.manifest, *image.blobs]

    def empty_quarantine(self) -> None:
        """It is on the small disk too."""
        shutil.rmtree(self.mirror.cache / "quarantine", ignore_errors=True)


def images(hub: FakeRegistry) -> list[FakeImage]:
    """Some of one small and one middle layer, some with a large one too, some of which share it."""
    made = []
    for number in range(10):
        layers = [noise(number, 20 * KIB), noise(100 + number, 300 * KIB + number)]
        if number % 2:
            layers.append(noise(200 + number // 4, LARGE + number // 4))
        made.append(hub.add_image(f"library/n{number}", "t", layers))
    hub.piece = PIECE
    hub.fault(Fault(drip=PAUSE), "/blobs/", "GET", times=10**9)
    return made


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)

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

# In order of size: two pinned images and a large blob, the quota, all images, the disk. Blobs that the pins
# leave no room for would be passed through, each time.
QUOTA, DISK = 14 * MIB, 48 * MIB
WORKERS = 3

# How long, in seconds, workers take at most to notice that the disk works: they test it every ten.
RECOVERY_SECONDS = 15.0

# A limit above the number of all blobs.
MORE_THAN_BLOBS = 500

# Bytes that the origin sends in one piece, and the pause after it: about 50 MB/s for each connection, so that
# things go wrong in the middle of transfers.
PIECE, PAUSE = 256 * KIB, 0.005

# Options below [server] that differ from the defaults. Small content is on the disk, not only in memory.
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

ROOT = {
    "blobs",
    "books",
    "partial",
    "quarantine",
    "version",
    "generation",
    "evicting",
    "pins",
    "kept",
    "proofs",
}


@dataclass
class Round:
    """One round: events that let a blob come from the origin once more."""

    present_before: set[str]  # digests that were here when the round began
    requests_before: int  # requests that the origin had seen by then
    log: int  # bytes of the mirror's log by then
    trouble: bool = False  # the disk is full or read-only at times
    kills: int = 0
    reloads: int = 0
    aged: int = 0
    asked: Counter[Digest] = field(default_factory=Counter)
    destroyed: Counter[Digest] = field(default_factory=Counter)  # corrupted or removed
    collected: int = 0  # bytes that `gc` has evicted
    collections: int = 0  # runs of `gc` that have evicted


class World:
    """The parts of a round and looks at them. Blocking work is done in a thread."""

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
        self.flipped: set[Digest] = set()  # changed files, of which wrong bytes may be sent
        self.corrupted: set[Digest] = set()  # damage that `verify` may find
        self.pinned: set[FakeImage] = set()
        self.promised: set[Digest] = set()  # pinned content, here when the last round ended
        self.now = Round(set(), 0, 0)
        self.met: Counter[str] = Counter()

    async def begin(self) -> None:
        """Begin a round."""
        log = await asyncio.to_thread(self._log_size)
        self.now = Round(set(await asyncio.to_thread(self.here)), len(self.hub.log), log)

    def here(self) -> dict[str, int]:
        """Return the sizes of all blobs, by digest, that have an entry and a file."""
        with self.blobs() as blobs:
            rows = blobs.table.rows("", MORE_THAN_BLOBS)
            return {row.digest: row.size for row in rows if (blobs.folder / row.name).exists()}

    @contextmanager
    def blobs(self) -> Iterator[BlobStore]:
        """Open the blob store, beside the mirror."""
        blobs = BlobStore(self.mirror.cache / "blobs", self.mirror.cache / "quarantine")
        with closing(blobs):
            yield blobs

    async def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run `registry-mirror` beside the running mirror. A command may fail, but never with a traceback."""
        where = ["--config", str(self.mirror.config), "--cache-dir", str(self.mirror.cache)]
        done = await asyncio.to_thread(attempt, [*COMMAND, *arguments, *where])
        assert "Traceback" not in done.stderr, f"{arguments}: {done.stderr}"
        assert done.returncode == 0 or self.now.trouble or arguments[0] in ("rm", "verify"), (
            f"{arguments}: {done.stderr}"
        )
        self.met[arguments[0]] += 1
        return done

    async def settle(self) -> None:
        """Wait until no fill is running and no worker reports trouble with the disk."""
        await asyncio.to_thread(wait_until, lambda: not self.filling(), "the end of all fills")
        end = time.monotonic() + RECOVERY_SECONDS
        while trouble := await self._health():
            assert time.monotonic() < end, f"still, although the disk works: {trouble}"
            await asyncio.sleep(0.1)

    def filling(self) -> set[int]:
        """Return the inodes of the partials that a process holds."""
        ours = {path.stat().st_ino for path in self._partials() if path.exists()}
        rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        device = f"{self.disk.stat().st_dev >> 8:02x}:{self.disk.stat().st_dev & 0xFF:02x}"
        held = [row[-3].rpartition(":") for row in rows if "FLOCK" in row and "->" not in row]
        return {int(inode) for where, _, inode in held if where == device} & ours

    def _partials(self) -> Iterable[Path]:
        return list((self.mirror.cache / "partial").glob("*.map"))

    async def _health(self) -> list[str]:
        """Return the troubles in the metrics of all workers."""
        try:
            lines = (await get(self.mirror.address, "/metrics")).body.decode().splitlines()
        except (OSError, asyncio.IncompleteReadError):
            return ["no answer"]
        trouble = [each for each in lines if each.startswith("registry_mirror_cache_trouble{")]
        return [each for each in trouble if not each.endswith(" 0.0")]

    def sent(self) -> Counter[Digest]:
        """Return the bytes that the origin has sent of each blob and manifest in this round."""
        sent: Counter[Digest] = Counter()
        for seen in self.hub.log[self.now.requests_before :]:
            if seen.method == "GET" and (digest := self._digest(seen)) is not None:
                sent[digest] += seen.sent
        return sent

    def _digest(self, seen: Seen) -> Digest | None:
        if seen.path in self.tags:
            return self.tags[seen.path]
        last = seen.path.rpartition("/")[2]
        return Digest.parse(last) if last.startswith("sha256:") and seen.status in (200, 206) else None

    def evicted(self) -> dict[Digest, list[int]]:
        """Return the sizes of all evictions that the mirror logged in this round, by digest."""
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
        """Return the digests of a whole pull."""
        return [image.manifest, *image.blobs]

    def empty_quarantine(self) -> None:
        """Empty the quarantine folder, which takes room on the small disk."""
        shutil.rmtree(self.mirror.cache / "quarantine", ignore_errors=True)


def images(hub: FakeRegistry) -> list[FakeImage]:
    """Add images to the origin, all with a small and a middle layer.

    Half of them have a large layer too, which two of them share.
    """
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

"""Random rounds: clients pull, an operator gives commands, and things go wrong, all at once.

All choices are drawn from one seed; the machine decides when things happen. So the checks after each round
are of conditions that hold whatever came first.
"""

import asyncio
import json
import os
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path

from mirror.config.loader import load
from mirror.oci.digest import Digest
from mirror.store.blobs.fsck import HARMLESS
from mirror.store.cache_dir import CacheDirectory
from mirror.store.health import ERRORS
from mirror.store.metadata.blob_table import BlobRow
from mirror.store.pins.pin_file import PinFile
from tests.disks import fill_up, mount, unmount
from tests.e2e.processes import await_end
from tests.fakes.content import FakeImage
from tests.stress.world import KIB, MORE_THAN_BLOBS, QUOTA, World
from tests.wire import Reply, Wire, get

CLIENTS = 6
MAX_PINS = 2

# Longer than any response takes, in seconds.
PATIENCE = 60.0

Act = Callable[[], Awaitable[None]]


class Mix:
    """A sequence of rounds in one world; `rounds` counts them."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.chance = random.Random(seed)
        self.rounds = 0
        self._over = asyncio.Event()
        self._deck: list[Act] = []
        self._is_read_only = False  # a read-only mount lies over the cache

    async def round(self) -> None:
        """Run a round in which two things go wrong, check, and run a quiet one with stricter checks."""
        await self.world.begin()
        acts = self._deal()
        self.world.now.trouble = any(each in (self._full, self._read_only) for each in acts)
        self.world.now.kills = sum(each in (self._kill_one, self._kill_all) for each in acts)
        self.world.now.reloads = acts.count(self._reload)
        self._over.clear()
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._client(random.Random(self.chance.random() + number)))
            group.create_task(self._operate())
            group.create_task(self._break_things(acts))
        await self._check()
        await self.world.begin()
        for image in self.world.pinned:
            await self._pull(image, by_tag=True)
        await self._check()
        here = set(await asyncio.to_thread(self.world.here))
        self.world.promised = self._pinned_digests()
        gone = {str(each) for each in self.world.promised} - here
        assert not gone, f"pulled just now, and not here: {gone}"
        self.rounds += 1

    def _deal(self) -> list[Act]:
        """Draw two acts like cards: at random, but all come up.

        Disk trouble comes first, the other act during it.
        """
        if len(self._deck) < 2:
            often = [self._corrupt, self._age, self._kill_one]
            self._deck = [*often, *often, self._full, self._read_only, self._kill_all, self._reload]
            self.chance.shuffle(self._deck)
        acts = [self._deck.pop(), self._deck.pop()]
        return sorted(acts, key=lambda act: act not in (self._full, self._read_only))

    async def _break_things(self, acts: list[Act]) -> None:
        for act in acts:
            await asyncio.sleep(self.chance.uniform(0, 0.4))
            self.world.met[act.__name__.strip("_")] += 1
            await act()
        await asyncio.sleep(self.chance.uniform(0, 0.4))
        await asyncio.to_thread(self._heal)
        if self.world.now.trouble and self.chance.random() < 0.8:
            await self._reload()  # otherwise the round waits until housekeeping has noticed
        self._over.set()

    # Clients.

    async def _client(self, chance: random.Random) -> None:
        while True:
            image = chance.choice(self.world.images)
            what = chance.random()
            if what < 0.5:
                await self._pull(image, by_tag=what < 0.3)
            elif what < 0.8:
                await self._range(image, chance)
            else:
                await self._leave(image, chance)
            if self._over.is_set():
                return

    async def _pull(self, image: FakeImage, *, by_tag: bool) -> None:
        reference = image.tag if by_tag else image.manifest
        await self._whole(f"/v2/{image.repository}/manifests/{reference}", image.manifest)
        for digest in image.blobs:
            await self._whole(f"/v2/{image.repository}/blobs/{digest}", digest)
        self.world.met["pulls"] += 1

    async def _whole(self, path: str, digest: Digest) -> None:
        reply = await self._get(path, digest)
        assert reply.status == 200, f"{path}: {reply.status} {reply.body[:200]!r}"
        assert reply.body == self.world.data[digest] or digest in self.world.flipped, (
            f"{path}: wrong bytes; destroyed {self.world.now.destroyed[digest]} times in this round"
        )

    async def _range(self, image: FakeImage, chance: random.Random) -> None:
        digest = chance.choice(image.blobs)
        data = self.world.data[digest]
        start = chance.randrange(len(data))
        stop = min(len(data), start + chance.randrange(1, 500 * KIB))
        path, span = f"/v2/{image.repository}/blobs/{digest}", f"Range: bytes={start}-{stop - 1}"
        reply = await self._get(path, digest, span)
        assert reply.status == 206, f"{path}, {span}: {reply.status} {reply.body[:200]!r}"
        assert reply.body == data[start:stop] or digest in self.world.flipped, f"{path}, {span}: wrong bytes"

    async def _get(self, path: str, digest: Digest, *headers: str) -> Reply:
        """Return a complete response: at the first attempt, unless a process was killed."""
        while True:
            self.world.now.asked[digest] += 1
            said = "no answer"
            with suppress(OSError, asyncio.IncompleteReadError):
                async with asyncio.timeout(PATIENCE):
                    reply = await get(self.world.mirror.address, path, *headers)
                if reply.complete:
                    return reply
                said = f"{len(reply.body)} bytes of {reply.headers.get('content-length')}"
            assert self.world.now.kills, f"{path} {headers}: {said}, and no process was killed"
            await asyncio.sleep(0.05)

    async def _leave(self, image: FakeImage, chance: random.Random) -> None:
        """Leave in the middle of the largest blob."""
        digest = max(image.blobs, key=lambda each: len(self.world.data[each]))
        self.world.now.asked[digest] += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            async with await Wire.open(self.world.mirror.address) as wire:
                wire.send("GET", f"/v2/{image.repository}/blobs/{digest}")
                async with asyncio.timeout(PATIENCE):
                    await wire.head()
                    await wire.reader.read(chance.randrange(1, 300 * KIB))

    # Commands.

    async def _operate(self) -> None:
        while True:
            await self.chance.choice([self._pin, self._unpin, self._remove, self._collect, self._list])()
            if self._over.is_set():
                return

    async def _pin(self) -> None:
        free = [each for each in self.world.images if each not in self.world.pinned]
        if len(self.world.pinned) < MAX_PINS:
            image = self.chance.choice(free)
            self.world.pinned.add(image)
            await self.world.command("pin", _name(image))

    async def _unpin(self) -> None:
        if self.world.pinned:
            image = self.chance.choice(sorted(self.world.pinned, key=_name))
            self.world.pinned.discard(image)
            self.world.promised &= self._pinned_digests()
            await self.world.command("unpin", _name(image))

    async def _remove(self) -> None:
        """Remove an image; the command refuses if it is pinned."""
        image = self.chance.choice(self.world.images)
        if image not in self.world.pinned:
            self.world.now.destroyed.update(self.world.pull_of(image))
        done = await self.world.command("rm", _name(image), "--yes")
        assert image not in self.world.pinned or done.returncode == 1 or self.world.now.trouble

    async def _collect(self) -> None:
        done = await self.world.command("gc", "--json")
        if done.returncode == 0:
            removed = json.loads(done.stdout)["removed"]
            self.world.now.collected += removed.get("over the quota", {"size": 0})["size"]
            self.world.now.collections += "over the quota" in removed

    async def _list(self) -> None:
        await self.world.command(self.chance.choice(["ls", "du", "pins"]), "--json")

    def _pinned_digests(self) -> set[Digest]:
        return {digest for image in self.world.pinned for digest in self.world.pull_of(image)}

    # Faults.

    async def _kill_one(self) -> None:
        workers = await self.world.mirror.workers()
        if workers:
            with suppress(ProcessLookupError):
                os.kill(self.chance.choice(workers), signal.SIGKILL)

    async def _kill_all(self) -> None:
        """Kill all processes and start the mirror again."""
        mirror, workers = self.world.mirror, await self.world.mirror.workers()
        mirror.signal(signal.SIGKILL)
        for pid in workers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await mirror.exit_status()
        for pid in workers:
            await asyncio.to_thread(await_end, pid)
        await mirror.start()
        await mirror.notified("READY=1")

    async def _reload(self) -> None:
        self.world.mirror.signal(signal.SIGHUP)
        await self.world.mirror.notified("RELOADING=1", "READY=1")

    async def _age(self) -> None:
        """Make all blobs look unused for long."""
        self.world.now.aged += 1
        await asyncio.to_thread(self._make_old)

    def _make_old(self) -> None:
        with suppress(*ERRORS), self.world.blobs() as blobs:
            digests = [Digest.parse(row.digest) for row in blobs.table.rows("", MORE_THAN_BLOBS)]
            blobs.table.touch(dict.fromkeys(digests, 1.0))

    async def _corrupt(self) -> None:
        """Damage files of the blob store: one gets a wrong byte, one is cut short, one is removed."""
        await asyncio.to_thread(self._corrupt_files)

    def _corrupt_files(self) -> None:
        rows: list[BlobRow] = []
        with suppress(*ERRORS), self.world.blobs() as blobs:
            rows = blobs.table.rows("", MORE_THAN_BLOBS)
        chosen = self.chance.sample(rows, min(3, len(rows)))
        for damage, row in zip((_flip, _shorten, os.unlink), chosen, strict=False):
            digest = Digest.parse(row.digest)
            self.world.now.destroyed[digest] += 1
            self.world.corrupted.add(digest)
            if damage is not os.unlink:  # a client in mid-transfer gets the changed pages
                self.world.flipped.add(digest)
            with suppress(OSError):  # evicted meanwhile, or the disk is read-only
                damage(self.world.mirror.cache / "blobs" / row.name)

    async def _full(self) -> None:
        """Fill the disk, to the last byte or but for some pages."""
        left = self.chance.choice([0, 0, 64 * KIB, 1024 * KIB])
        await asyncio.to_thread(fill_up, self.world.disk / "ballast", left)

    async def _read_only(self) -> None:
        """Make the disk read-only; open files stay writable, as on a disk that fails gradually."""
        await asyncio.to_thread(self._mount_read_only)

    def _mount_read_only(self) -> None:
        """Mount in one go, prepared elsewhere: no file can be opened for writing in between."""
        cache, elsewhere = self.world.mirror.cache, self.world.disk / "read-only"
        elsewhere.mkdir(exist_ok=True)
        mount("--bind", cache, elsewhere)
        mount("-o", "remount,bind,ro", elsewhere)
        mount("--bind", elsewhere, cache)
        self._is_read_only = True

    def _heal(self) -> None:
        (self.world.disk / "ballast").unlink(missing_ok=True)
        if self._is_read_only:
            for each in (self.world.mirror.cache, self.world.disk / "read-only"):
                unmount(each)
            self._is_read_only = False

    # Checks.

    async def _check(self) -> None:
        """Check everything, once all that was started has ended."""
        world = self.world
        await world.settle()
        if world.corrupted:
            await self._repair()
        here = await asyncio.to_thread(world.here)
        missing = {str(each) for each in world.promised if not world.now.destroyed[each]} - here.keys()
        assert not missing, f"pinned, and gone: {missing}"
        await self._check_pins()
        await self._check_traffic()
        await self._check_room()

    async def _repair(self) -> None:
        """Run `verify --repair`: only files corrupted here may be wrong."""
        findings = json.loads((await self.world.command("verify", "--repair", "--json")).stdout)["findings"]
        corrupted = {str(each) for each in self.world.corrupted}
        wrong = [each for each in findings if each["wrong"] not in HARMLESS]
        unknown = [each for each in wrong if each["what"] not in corrupted]
        assert not unknown, f"{unknown}, and not corrupted by this test"
        self.world.flipped.clear()
        self.world.corrupted.clear()
        await asyncio.to_thread(self.world.empty_quarantine)

    async def _check_pins(self) -> None:
        listed = await asyncio.to_thread(PinFile(self.world.mirror.cache / "pins").read)
        known = {f"docker.io/{_name(image)}": image for image in self.world.images}
        found = {known[str(each.pin.images)] for each in listed}
        assert found == self.world.pinned or self.world.now.trouble, f"{found}, not {self.world.pinned}"
        self.world.pinned = found

    async def _check_traffic(self) -> None:
        """Check that blobs came once, and again only after something destroyed them: each, and all."""
        now, sent, data = self.world.now, self.world.sent(), self.world.data
        evicted = await asyncio.to_thread(self.world.evicted)
        manifests = set(self.world.tags.values())
        for digest, count in sent.items():
            # A worker that ends, killed or by a reload, loses what it has not read of a fill without clients.
            excuses = now.destroyed[digest] + now.kills + now.reloads + now.aged
            excuses += now.trouble * now.asked[digest]
            excuses += len(evicted[digest]) + now.collections
            excuses += digest in manifests  # one fetch by tag and one by digest may meet
            assert count <= (1 + excuses) * len(data[digest]), (
                f"{digest} of {len(data[digest])} bytes: {count} bytes came, with {excuses} excuses"
            )
        if now.trouble or now.kills or now.reloads:
            return
        for digest in manifests:
            del sent[digest]
        new = sum(len(data[each]) for each in sent if str(each) not in now.present_before)
        destroyed = sum(count * len(data[each]) for each, count in now.destroyed.items())
        gone = sum(map(sum, evicted.values())) + now.collected
        assert sent.total() <= new + destroyed + gone, (
            f"{sent.total()} bytes came: {new} were new, {destroyed} destroyed, {gone} evicted"
        )

    async def _check_room(self) -> None:
        """Check the quota while no client reads: housekeeping evicts the excess, even if it was just used."""
        await asyncio.to_thread(self._evict)
        size = sum((await asyncio.to_thread(self.world.here)).values())
        assert size <= QUOTA, f"{size} bytes in a quota of {QUOTA}"

    def _evict(self) -> None:
        """Evict, as housekeeping does."""
        settings = load(self.world.mirror.config, {}, {}).config.cache
        with closing(CacheDirectory(self.world.mirror.cache, settings)) as folder:
            gone = folder.evictor.evict()
            self.world.now.collected += sum(each.size for each in gone)
            self.world.now.collections += bool(gone)


def _name(image: FakeImage) -> str:
    return f"{image.repository}:{image.tag}"


def _flip(path: Path) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0xFF]))


def _shorten(path: Path) -> None:
    path.chmod(0o600)
    os.truncate(path, path.stat().st_size // 2)

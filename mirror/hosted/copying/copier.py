"""A copy of one image: what is missing at the target is sent, blobs first, then manifests, the tag at last.

So a copy that breaks off leaves nothing that looks whole, and the next one sends what is still missing.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

from msgspec import Struct

from mirror.hosted.copying.places import CopiedManifest, CopyFailed, CopySource, CopyTarget
from mirror.oci.digest import Digest
from mirror.oci.manifest import Descriptor, Manifest, ManifestInvalid, parse_manifest
from mirror.oci.reference import Tag

# Blobs of one image that are on their way at a time.
AT_A_TIME = 4

# Most manifests of one image, with all that refers to it, and the depth of referrers of referrers.
MOST_MANIFESTS = 4096

# Bytes of the manifests of one image, which are in memory until it is there.
MOST_BYTES = 256 * 1024 * 1024

# Called with bytes that are done, and with all that are to be done, as far as known.
OnProgress = Callable[[int, int], object]


class Copied(Struct, frozen=True):
    """The result for one image. `sent` and `mounted`: blobs; `size`: bytes that were sent."""

    digest: Digest
    manifests: int = 0
    sent: int = 0
    mounted: int = 0
    size: int = 0

    @property
    def nothing(self) -> bool:
        """Return whether everything was there already."""
        return not (self.manifests or self.sent or self.mounted)


class Copier:
    """Copies images from one repository to another."""

    def __init__(
        self, source: CopySource, target: CopyTarget, *, referrers: bool = False, at_a_time: int = AT_A_TIME
    ) -> None:
        self._source = source
        self._target = target
        self._referrers = referrers
        self._turns = asyncio.Semaphore(at_a_time)

    async def copy(
        self, root: Digest, references: Iterable[Tag], on_progress: OnProgress = lambda *_: None
    ) -> Copied:
        """Bring an image to the target, by its digest and by tags. Raises CopyFailed and errors of the ends.

        Referrers of the image come after it, as they refer to what must not be missing for long.
        """
        tags = list(references)
        run = _Run(self, on_progress)
        standing = [await self._target.digest_of(each) == root for each in tags]
        if not all(standing) or not tags:
            await run.add(root, required=True)
            await run.carry_out(root, tags)
        if self._referrers:
            await self._copy_referrers(run, root)
        return Copied(root, run.manifests, run.sent, run.mounted, run.size)

    async def _copy_referrers(self, run: "_Run", root: Digest) -> None:
        """Copy what refers to the image, and to its platforms, and so on."""
        pending, seen = [root, *await run.platforms(root)], {root}
        while pending:
            subject = pending.pop()
            for each in await self._source.referrers(subject):
                if each in seen:
                    continue
                seen.add(each)
                if len(seen) > MOST_MANIFESTS:
                    raise CopyFailed(f"more than {MOST_MANIFESTS} manifests refer to {root}")
                if await self._target.digest_of(each) is None:
                    await run.add(each, required=False)
                    await run.carry_out(each, [])
                pending.append(each)

    async def read(self, digest: Digest) -> tuple[CopiedManifest, Manifest] | None:
        """Return a manifest of the source, with what it names; None if it is not there."""
        found = await self._source.manifest(digest)
        if found is None:
            return None
        try:
            return found, parse_manifest(found.data, found.media_type)
        except ManifestInvalid as error:
            raise CopyFailed(f"{digest} cannot be read: {error}") from None

    async def is_there(self, digest: Digest) -> bool:
        """Return whether the target has a manifest."""
        return await self._target.digest_of(digest) is not None

    async def bring(self, blob: Descriptor, run: "_Run") -> None:
        """Bring a blob to the target, unless it is there."""
        async with self._turns:
            if await self._target.has_blob(blob.digest):
                run.note(blob.size)
                return

            def body() -> AsyncIterator[bytes]:
                return proven(self._source.blob(blob.digest, blob.size), blob, run.begin(blob.digest))

            mounted = await self._target.put_blob(blob.digest, blob.size, body)
            run.end(blob, mounted=mounted)

    async def put(self, reference: Tag | Digest, manifest: CopiedManifest) -> None:
        """Bring a manifest to the target."""
        await self._target.put_manifest(reference, manifest)


class _Run:
    """The copy of one image, and its counts."""

    def __init__(self, copier: Copier, on_progress: OnProgress) -> None:
        self._copier = copier
        self._on_progress = on_progress
        self._read: dict[Digest, tuple[CopiedManifest, Manifest]] = {}
        self._held = 0
        self._order: list[Digest] = []
        self._blobs: dict[Digest, Descriptor] = {}
        self._arrived: set[Digest] = set()
        self._moving: dict[Digest, int] = {}
        self._done = 0
        self._total = 0
        self.manifests = self.sent = self.mounted = self.size = 0

    async def platforms(self, root: Digest) -> list[Digest]:
        """Return the manifests of an index."""
        found = self._read.get(root) or await self._copier.read(root)
        return [] if found is None else [each.digest for each in found[1].manifests]

    async def add(self, digest: Digest, *, required: bool) -> None:
        """Read a manifest and those that it names; children come before what names them."""
        if digest in self._read:
            return
        found = await self._copier.read(digest)
        if found is None:
            if required and not await self._copier.is_there(digest):
                raise CopyFailed(f"the manifest {digest} is not at the source")
            return
        if len(self._read) >= MOST_MANIFESTS:
            raise CopyFailed(f"the image has more than {MOST_MANIFESTS} manifests")
        self._held += len(found[0].data)
        if self._held > MOST_BYTES:
            raise CopyFailed(f"the manifests of the image have more than {MOST_BYTES} bytes")
        self._read[digest] = found
        for each in found[1].manifests:
            await self.add(each.digest, required=True)
        config = () if found[1].config is None else (found[1].config,)
        for blob in (*config, *found[1].layers):
            if blob.is_pushed and blob.digest not in self._blobs:
                self._blobs[blob.digest] = blob
                self._total += blob.size
        self._order.append(digest)
        self._on_progress(self._done, self._total)

    async def carry_out(self, root: Digest, tags: list[Tag]) -> None:
        """Send what was added and is missing, the root at last, and by its tags."""
        blobs = [each for digest, each in self._blobs.items() if digest not in self._arrived]
        await _all(self._copier.bring(each, self) for each in blobs)
        self._arrived |= {each.digest for each in blobs}
        order, self._order = self._order, []
        for digest in order:
            manifest = self._read[digest][0]
            references: list[Tag | Digest] = [*tags] if digest == root and tags else [digest]
            for reference in references:
                await self._copier.put(reference, manifest)
            self.manifests += 1

    def note(self, count: int) -> None:
        """Count bytes that are at the target."""
        self._done += count
        self._on_progress(self._done, self._total)

    def begin(self, digest: Digest) -> Callable[[int], None]:
        """Begin an attempt to send a blob; return what to call with the bytes of it."""
        self._done -= self._moving.get(digest, 0)
        self._moving[digest] = 0

        def add(count: int) -> None:
            self._moving[digest] += count
            self.note(count)

        return add

    def end(self, blob: Descriptor, *, mounted: bool) -> None:
        """Count a blob that has come."""
        self.note(blob.size - self._moving.pop(blob.digest, 0))
        if mounted:
            self.mounted += 1
        else:
            self.sent, self.size = self.sent + 1, self.size + blob.size


async def proven(
    pieces: AsyncIterator[bytes], blob: Descriptor, on_bytes: Callable[[int], None]
) -> AsyncIterator[bytes]:
    """Yield the bytes of a blob; raise CopyFailed before the last of them if they are not the digest's."""
    hasher, size, held = blob.digest.hasher(), 0, b""
    async for piece in pieces:
        hasher.update(piece)
        size += len(piece)
        if size > blob.size:
            break
        if held:
            yield held
            on_bytes(len(held))
        held = piece
    if size != blob.size or hasher.hexdigest() != blob.digest.encoded:
        raise CopyFailed(f"the source gave other bytes for {blob.digest}: {size} of {blob.size}")
    if held:
        yield held
        on_bytes(len(held))


async def _all(work: "Iterable[object]") -> None:
    """Do all of the work, several at a time; the first failure ends the rest."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)  # type: ignore[arg-type]
    except BaseExceptionGroup as failed:
        raise _first(failed) from None


def _first(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    error = failed.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error

"""Operations that change something: pin, unpin, remove, fetch ahead; and an image as a bundle."""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, BinaryIO

from msgspec import Meta, Struct

from mirror.bundle.model import BundleContents
from mirror.manage.carry.export import ExportError, targets
from mirror.manage.carry.export_run import ExportOptions
from mirror.manage.carry.held import BlobGone
from mirror.manage.carry.selection import Selection
from mirror.manage.management import Management
from mirror.manage.warm.images import WarmImage
from mirror.manage.warm.plan import WarmPlan
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern, Pin, escaped_address
from mirror.oci.reference import Tag
from mirror.store.errors import PinTooLarge, StoreError
from mirror.system.descriptors import raise_limit
from mirror.util.callbacks import ignore
from mirror.util.log import get_logger
from mirror.util.units import size
from mirror.web.admin.api.images import ImageParameters, Images, Reference
from mirror.web.admin.api.operation import (
    ApiChange,
    ApiError,
    Audience,
    Operation,
    StreamAnswer,
    change,
)
from mirror.web.admin.desk import Desk
from mirror.web.admin.visitors import PageVisitor

if TYPE_CHECKING:
    from mirror.manage.removal import RemovalStep

log = get_logger(__name__)

# Bundles that are written at a time, and images that are fetched: each holds a thread, or connections.
MOST_BUNDLES, MOST_FETCHES = 2, 4

# Bytes of a bundle that are sent at a time.
PIECE = 256 * 1024

Platforms = Annotated[list[Annotated[str, Meta(max_length=60)]], Meta(max_length=20)]


class ImageChange(Struct, frozen=True, forbid_unknown_fields=True):
    """A change of an image. `reference`: its full name. `platforms`: of several; none for all."""

    reference: Reference
    platforms: Platforms = []


class ImageRemovalWanted(Struct, frozen=True, forbid_unknown_fields=True):
    """A removal that is wanted. `forced`: of an image that is pinned, too."""

    reference: Reference
    forced: bool = False


class RemovalPlan(Struct, frozen=True):
    """Images that a removal takes away. `freed`: bytes. `pinned`: images that match too, and stay."""

    images: list[str]
    pinned: list[str]
    freed: int
    freed_text: str


class PinResult(Struct, frozen=True):
    """A pin, and the bytes that it keeps as far as they are known."""

    pattern: str
    bytes: int


class UnpinResult(Struct, frozen=True):
    """The result of removing a pin: whether there was one; those of the configuration stay."""

    removed: bool


class FetchResult(Struct, frozen=True):
    """The image that is being fetched from now on."""

    reference: str


class Actions:
    """The operations that change something."""

    def __init__(self, desk: Desk, images: Images) -> None:
        self._desk = desk
        self._images = images
        self._bundles = 0
        self._fetches: set[str] = set()

    def operations(self) -> Sequence[Operation]:
        """Return the operations."""
        pinned, unpinned = ApiChange(ImageChange, PinResult), ApiChange(ImageChange, UnpinResult)
        removed = ApiChange(ImageRemovalWanted, RemovalPlan)
        fetched = ApiChange(ImageChange, FetchResult)
        return (
            change("POST", "pins", "Pin an image", self.pin, pinned),
            change("DELETE", "pins", "Remove a pin", self.unpin, unpinned),
            change("DELETE", "image", "Remove an image", self.remove, removed),
            change("POST", "warm", "Fetch what is missing of an image", self.fetch, fetched),
            Operation(
                method="GET",
                path="/api/v1/removal",
                summary="What the removal of an image would free",
                audience=Audience.ADMINS,
                call=self.plan,
                parameters=ImageParameters,
                answer=RemovalPlan,
                errors=(404,),
            ),
            Operation(
                method="GET",
                path="/api/v1/bundle",
                summary="An image as a bundle, for import elsewhere",
                audience=Audience.READERS,
                call=self.bundle,
                parameters=ImageParameters,
                media_type="application/x-tar",
                errors=(404, 409, 429),
            ),
        )

    async def pin(self, visitor: PageVisitor, wanted: ImageChange) -> PinResult:
        """Pin an image."""
        image = await self._images.named(visitor, wanted.reference)
        try:
            pin = Pin.of(str(image), list(wanted.platforms), self._desk.config.names().names)
        except ValueError as error:
            raise ApiError(422, str(error)) from None
        try:
            kept = await self._desk.management.pins.add(pin)
        except PinTooLarge as error:
            raise ApiError(409, str(error), "raise cache.max_size, or unpin something") from None
        self._note("pinned from the pages", visitor, image)
        return PinResult(str(pin), kept)

    async def unpin(self, visitor: PageVisitor, wanted: ImageChange) -> UnpinResult:
        """Remove a pin of an image."""
        image = await self._images.named(visitor, wanted.reference)
        removed = await self._desk.management.pins.remove(_pattern(image))
        if removed:
            self._note("unpinned from the pages", visitor, image)
        return UnpinResult(removed)

    async def plan(self, visitor: PageVisitor, wanted: ImageParameters) -> RemovalPlan:
        """Return what a removal would free."""
        image = await self._images.named(visitor, wanted.reference)
        return await self._removal(image, forced=False, dry_run=True)

    async def remove(self, visitor: PageVisitor, wanted: ImageRemovalWanted) -> RemovalPlan:
        """Remove an image."""
        image = await self._images.named(visitor, wanted.reference)
        removed = await self._removal(image, forced=wanted.forced, dry_run=False)
        if removed.pinned and not removed.images:
            raise ApiError(409, f"{image} is pinned, and stays", "unpin it before")
        if not removed.images:
            raise ApiError(404, f"{image} is not known here")
        self._note("removed from the pages", visitor, image)
        return removed

    async def _removal(self, image: WarmImage, *, forced: bool, dry_run: bool) -> RemovalPlan:
        images, pinned, freed = list[str](), list[str](), 0
        management = self._desk.management
        async for step in management.images.remove(_pattern(image), forced=forced, dry_run=dry_run):
            images += step.images
            pinned += step.pinned
            freed += step.freed
            if step.hosted and not dry_run:
                await asyncio.to_thread(self._queue_deletions, step)
        return RemovalPlan(images, pinned, freed, size(freed))

    def _queue_deletions(self, step: "RemovalStep") -> None:
        """Have the targets of replication delete what was removed."""
        from mirror.hosted.replication.target import queue_deletions

        service, hosted = self._desk.service, self._desk.config.hosted
        try:
            queue_deletions(service.folder, hosted, step.repository, step.references)
        except OSError as error:
            log.error(
                "removal not queued for replication", repository=str(step.repository), reason=str(error)
            )

    async def fetch(self, visitor: PageVisitor, wanted: ImageChange) -> FetchResult:
        """Begin to fetch what is missing of an image; its downloads are in the activity."""
        image = await self._images.named(visitor, wanted.reference)
        name = str(image)
        if image.repository.upstream not in self._desk.config.names().mirrored.values():
            raise ApiError(
                422, f"{name} was pushed here: no upstream has it", "push it again if it is not whole"
            )
        if name in self._fetches or len(self._fetches) >= MOST_FETCHES:
            raise ApiError(409, "other images are being fetched from here", "try again when they have come")
        try:
            plan = WarmPlan.of([image], wanted.platforms or ["all"], referrers=True)
        except ValueError as error:
            raise ApiError(422, str(error)) from None
        self._fetches.add(name)
        self._desk.tasks.spawn(self._fetch(plan, name), name=f"fetch {name}")
        self._note("fetched from the pages", visitor, image)
        return FetchResult(name)

    async def _fetch(self, plan: WarmPlan, name: str) -> None:
        try:
            run = self._desk.service.warm.run(plan)
            found = [each async for each in run.resolve(plan.images) if isinstance(each, WarmImage)]
            async for _ in run.steps(found):
                pass
            for each in run.failed:
                log.warning("image not complete", image=each.name, reason=each.reason)
        finally:
            self._fetches.discard(name)

    async def bundle(self, visitor: PageVisitor, wanted: ImageParameters) -> StreamAnswer:
        """Return an image as the tar that `registry-mirror import` reads."""
        image = await self._images.named(visitor, wanted.reference)
        if self._bundles >= MOST_BUNDLES:
            raise ApiError(429, "other bundles are being written", "try again when they are")
        collected = await self._desk.management.exports.collect(Selection((_pattern(image),)))
        if collected.missing:
            text = f"{len(collected.missing)} parts of {image} are not here"
            raise ApiError(409, text, "fetch the image before")
        name = f"{image.repository.path.replace('/', '_')}.tar"
        (file,) = targets(name, collected.contents)
        await self._authorise_pull(visitor, image, collected.contents)
        if self._bundles >= MOST_BUNDLES:  # others have come meanwhile
            raise ApiError(429, "other bundles are being written", "try again when they are")
        self._bundles += 1
        headers = {
            "Content-Disposition": f'attachment; filename="{name}"',
            "Content-Length": str(file.size),
        }
        return StreamAnswer(
            "application/x-tar", self._written(collected.contents, name), headers, self._ended
        )

    async def _authorise_pull(self, visitor: PageVisitor, image: WarmImage, contents: BundleContents) -> None:
        """Raise RegistryError unless the visitor may pull the image, and each manifest that goes with it."""
        root = contents.images[0].root.digest
        wanted: dict[Tag | Digest, Digest] = {each: each for each in contents.manifests if each != root}
        wanted[image.reference or root] = root
        await visitor.authorise_pull(image.repository, wanted, self._desk.service.cache.images.birth)

    def _ended(self) -> None:
        self._bundles -= 1

    async def _written(self, contents: BundleContents, name: str) -> AsyncGenerator[bytes]:
        """Yield the bytes of a bundle, which a thread of its own writes into a pipe."""
        management, (read, write) = Management(self._desk.service.folder), os.pipe()
        options = ExportOptions(name, 0, 0, raise_limit(), ignore)
        work = _write(management, contents, os.fdopen(write, "wb"), options)
        self._desk.tasks.spawn(work, name="write a bundle")
        try:
            while piece := await asyncio.to_thread(os.read, read, PIECE):
                yield piece
        finally:
            os.close(read)  # what still writes ends with that

    def _note(self, event: str, visitor: PageVisitor, image: WarmImage) -> None:
        who = ", ".join(visitor.names) or visitor.address
        log.info(f"image {event}", image=str(image), by=who, client=visitor.address)


async def _write(
    management: Management, contents: BundleContents, output: BinaryIO, options: ExportOptions
) -> None:
    """Write a bundle into a pipe. The length tells the reader that one has ended early."""
    try:
        export = await management.exports.begin(contents, output, options)
        async for _ in management.exports.write(export):
            pass
    except (BlobGone, ExportError, StoreError, OSError) as error:
        log.info("bundle not sent to its end", reason=str(error))
    finally:
        with suppress(OSError):  # the reader has left
            output.close()
        await management.aclose()


def _pattern(image: WarmImage) -> ImagePattern:
    """Return the pattern of one image. Raises ApiError for several."""
    name = escaped_address(str(image.repository))
    if isinstance(image.reference, Digest):
        return ImagePattern(name, digest=image.reference)
    if image.reference is None:
        raise ApiError(422, "name one image, by its tag or digest")
    return ImagePattern(name, str(image.reference))

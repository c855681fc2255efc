"""Puller: a whole image is fetched through the cache, without a client, and with priority below clients.

    pull = puller.pull(repository, tag, Wanted(("linux/amd64",)))
    async for progress in pull:
        ...
    pull.missing                    # what could not be had, and why; empty for a complete image

First the manifests are fetched (`mirror.cache.pull.walk`), then the blobs, a few at a time, each as a flight
that no client has joined. A client that asks meanwhile joins the flight. Nothing that is here is asked for
again, so a pull that was interrupted goes on where it was. To leave the loop early, close it with
`contextlib.aclosing`: that ends the flights that no client has joined, and their partials stay.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from mirror.cache.access import AccessChecker
from mirror.cache.blobs import BlobCache
from mirror.cache.pull.other_fills import OtherFills
from mirror.cache.pull.walk import Caches, ImageWalk, Wanted
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.reference import Repository, Tag
from mirror.store.errors import StoreError
from mirror.store.metadata.index import Link
from mirror.transfer.context import TransferContext
from mirror.transfer.flight import Flight
from mirror.upstream.errors import Failure, UpstreamError
from mirror.util.progress.amounts import ImageProgress, ProgressAmount, State
from mirror.util.tasks import stop_task

# Blobs of one image that are fetched at a time, as containerd and Docker fetch them.
BLOBS_AT_A_TIME = 3

# Interval between two values of the progress, in seconds.
PROGRESS_SECONDS = 0.2

# Wait before a full queue of fills is tried again, in seconds.
QUEUE_SECONDS = 1.0

# Attempts to have one blob: a fill that ran already may have ended with its last client, or the blob may have
# been evicted at once.
ROUNDS = 8


class Puller:
    """Makes pulls."""

    def __init__(
        self, context: TransferContext, caches: Caches, blobs: BlobCache, access: AccessChecker
    ) -> None:
        self._context = context
        self._caches = caches
        self._blobs = blobs
        self._access = access
        self._others = OtherFills(context.store.transfers, blobs.is_filled)

    def pull(self, repository: Repository, reference: Tag | Digest, wanted: Wanted) -> "ImagePull":
        """Return a pull, which begins when it is iterated over."""
        walk = ImageWalk(self._caches, repository, wanted)
        return ImagePull(self, walk, repository, reference)

    def start(self, pull: "ImagePull") -> asyncio.Task[None]:
        """Start to fetch what is missing of an image."""
        return self._context.tasks.spawn(self._run(pull), name=f"pull {pull.name}")

    async def _run(self, pull: "ImagePull") -> None:
        try:
            await self._fetch(pull)
        except (UpstreamError, StoreError, RegistryError) as error:
            pull.missing[str(pull.reference)] = str(error)

    async def _fetch(self, pull: "ImagePull") -> None:
        contents = pull.walk.contents
        await pull.walk.run(pull.reference)
        absent = set(await self._context.store.content.missing_blobs(list(contents.blobs)))
        for digest in contents.blobs:
            self._context.store.content.touch(digest)
        pull.begin_blobs({each: size for each, size in contents.blobs.items() if each in absent})
        queue = deque(contents.blobs)
        async with asyncio.TaskGroup() as group:
            for _ in range(BLOBS_AT_A_TIME):
                group.create_task(self._work(pull, queue))
        await self._check_kept(pull)

    async def _work(self, pull: "ImagePull", queue: deque[Digest]) -> None:
        while queue:
            digest = queue.popleft()
            try:
                await self._get(pull, digest)
            except (UpstreamError, StoreError) as error:
                pull.walk.contents.missing[str(digest)] = str(error)
            finally:
                pull.end_blob(digest)

    async def _get(self, pull: "ImagePull", digest: Digest) -> None:
        """Have one blob here, with a link that opens it. Raises UpstreamError or StoreError."""
        repository = pull.repository
        for _ in range(ROUNDS):
            local = await self._context.store.content.look_up(repository, digest)
            if local.present and local.link is not None and not local.unconfirmed:
                return
            if local.present:
                size = None if local.link is None else local.link.size
                await self._access.confirm_blob(repository, digest, size)
            else:
                async with self._others.give_way():
                    await self._wait(pull, await self._start(repository, digest, local.link))
        raise UpstreamError(Failure.INVALID, "does not stay in the cache: it has too little room")

    async def _start(self, repository: Repository, digest: Digest, link: Link | None) -> Flight:
        """Start a fill, or return the running one, as soon as the mirror's own queue has a place."""
        while True:
            try:
                return self._blobs.pull(repository, digest, link)
            except UpstreamError as error:
                if error.failure is not Failure.RATE_LIMITED:
                    raise
            await asyncio.sleep(QUEUE_SECONDS)

    async def _wait(self, pull: "ImagePull", flight: Flight) -> None:
        pull.flights[flight.digest] = flight
        try:
            await flight.wait_done()
        finally:
            del pull.flights[flight.digest]
            self._blobs.cancel(flight)  # it runs on only if this pull was cancelled
        if flight.error is not None and flight.repository == pull.repository:
            raise flight.error

    async def _check_kept(self, pull: "ImagePull") -> None:
        """Note what was evicted before the pull was complete."""
        for digest in await self._context.store.content.missing_blobs(pull.digests()):
            reason = "evicted again: the cache has too little room, see cache.max_size"
            pull.missing.setdefault(str(digest), reason)


class ImagePull:
    """The pull of one image, for one iteration. `flights` are the running fills."""

    def __init__(
        self, puller: Puller, walk: ImageWalk, repository: Repository, reference: Tag | Digest
    ) -> None:
        self.walk = walk
        self.repository = repository
        self.reference = reference
        self.flights: dict[Digest, Flight] = {}
        self._puller = puller
        self._absent: dict[Digest, int] | None = None  # blobs to fetch, once they are known
        self._ended: set[Digest] = set()

    @property
    def missing(self) -> dict[str, str]:
        """Parts that could not be had, and why: by digest, platform, or the reference itself."""
        return self.walk.contents.missing

    @property
    def name(self) -> str:
        """The full name of the image."""
        mark = ":" if isinstance(self.reference, Tag) else "@"
        return f"{self.repository}{mark}{self.reference}"

    def digests(self) -> list[Digest]:
        """Return the digests of all manifests and blobs of the image that are known."""
        contents = self.walk.contents
        return list({**contents.manifests, **contents.blobs})

    def begin_blobs(self, absent: dict[Digest, int]) -> None:
        """Note which blobs have to be fetched."""
        self._absent = absent

    def end_blob(self, digest: Digest) -> None:
        """Note that a blob was fetched, or given up."""
        self._ended.add(digest)

    async def __aiter__(self) -> AsyncGenerator[ImageProgress]:
        """Fetch the image; yield the progress several times a second, and the result last."""
        task = self._puller.start(self)
        try:
            while not task.done():
                yield self._progress("running")
                await asyncio.wait([task], timeout=PROGRESS_SECONDS)
        finally:
            await stop_task(task)
        if task.cancelled():
            self.missing[str(self.reference)] = "the mirror is stopping"
        else:
            task.result()
        unconfirmed = self.walk.contents.unconfirmed
        if self.missing or unconfirmed:
            yield self._progress("failed", unconfirmed or self._failure())
        else:
            yield self._progress("done" if self._absent or self.walk.contents.fetched else "present")

    def _failure(self) -> str:
        """Return a sentence about what is missing."""
        what, reason = next(iter(self.missing.items()))
        if what == str(self.reference):
            return reason
        more = f", and {len(self.missing) - 1} more" if len(self.missing) > 1 else ""
        return f"{what} is missing{more}: {reason}"

    def _progress(self, state: State, reason: str = "") -> ImageProgress:
        contents, absent = self.walk.contents, self._absent or {}
        manifests = sum(contents.manifests[each] for each in contents.fetched)
        fetched = [each for each in absent if each in self._ended and str(each) not in self.missing]
        running = sum(flight.progress.received for each, flight in self.flights.items() if each in absent)
        known = self._absent is not None
        return ImageProgress(
            self.name,
            ProgressAmount(
                manifests + running + sum(absent[each] for each in fetched),
                manifests + sum(absent.values()) if known else None,
            ),
            ProgressAmount(
                len(contents.fetched) + len(fetched),
                len(contents.fetched) + len(absent) if known else None,
            ),
            state,
            reason,
        )

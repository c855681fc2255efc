"""Blobs: a hit, a flight to join, or a new fill."""

from collections.abc import Callable
from functools import partial

from mirror.cache.readers import BlobAnswer, Fallback, GrowingReader, SmallBlob, StoredReader
from mirror.cache.results import BlobInfo, Outcome
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.errors import ShuttingDown, StoreError
from mirror.store.metadata.index import Link
from mirror.store.partial.growing import HELD_WHOLE
from mirror.transfer.context import TransferContext
from mirror.transfer.fill import Fill
from mirror.transfer.flight import Flight, FlightTable, RunningFill
from mirror.transfer.passthrough import PassThroughBlob
from mirror.transfer.small_fill import SmallFill, is_small
from mirror.upstream.errors import Failure, UpstreamError, WrongBytes
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.log import get_logger
from mirror.util.single_flight import SingleFlight

log = get_logger(__name__)

# A request comes back to the start when the fill it met ended under its feet. Once per fill, and each
# time there is something new to find; more than this means that blobs vanish as fast as they come.
ROUNDS = 4


class BlobCache:
    """Content by digest for repositories that are known to have it (invariant 5)."""

    def __init__(self, context: TransferContext, upstreams: UpstreamSet) -> None:
        self._context = context
        self._upstreams = upstreams
        self._flights = FlightTable(context.tasks, context.metrics)
        self._passing: SingleFlight[tuple[Repository, Digest], bytes] = SingleFlight(context.tasks)
        self._confirming: SingleFlight[tuple[Repository, Digest], int | None] = SingleFlight(context.tasks)

    async def get(self, repository: Repository, digest: Digest) -> BlobAnswer:
        """The blob, open for reading. Raises UpstreamError or, when the mirror stops, StoreError."""
        try:
            answer = await self._kept(repository, digest)
        except ShuttingDown:
            raise
        except StoreError as error:
            log.debug("passing a blob through", digest=str(digest), reason=str(error))
            answer = None
        return answer or await self._pass(repository, digest)

    async def _kept(self, repository: Repository, digest: Digest) -> BlobAnswer | None:
        """From the disk, or by way of it; None when that is of no use."""
        store, outcome = self._context.store, Outcome.HIT
        for _ in range(ROUNDS):
            held = await store.open_blob(repository, digest)
            if held.data is not None:
                return BlobAnswer(SmallBlob(held.data), outcome)
            if held.blob is not None:
                fallback = self._fallback(repository, digest, held.blob.size)
                reading = store.begin_reading(digest)
                return BlobAnswer(StoredReader(held.blob, store.readers, fallback, reading), outcome)
            flight = self._flights.get(digest)
            if flight is None and held.present:
                await self._confirm(repository, digest)
                continue
            if flight is None and not store.is_writable:
                return None
            if flight is None:
                flight, joined = self._start(repository, digest, held.link), Outcome.MISS
            else:
                joined = Outcome.JOIN
                if held.link is None and flight.repository != repository:
                    await self._confirm(repository, digest)
            outcome = joined if outcome is Outcome.HIT else outcome
            content = await self._follow(flight, repository)
            if content is not None:
                return BlobAnswer(content, outcome)
        return None  # it could not be kept long enough to be served

    async def _pass(self, repository: Repository, digest: Digest) -> BlobAnswer:
        """Past the disk, after the upstream has confirmed that the repository has it (invariant 5)."""
        size = await self._confirm(repository, digest)
        if size is None:
            raise UpstreamError(Failure.INVALID, f"{repository.upstream} gives no size for {digest}")
        if size > HELD_WHOLE:
            return BlobAnswer(self._passed(repository, digest, size), Outcome.PASSED)
        # Nothing of it may be sent before all is verified: then it is one transfer for all who ask meanwhile.
        data = await self._passing.do((repository, digest), partial(self._fetch, repository, digest))
        return BlobAnswer(SmallBlob(data), Outcome.PASSED)

    async def _fetch(self, repository: Repository, digest: Digest) -> bytes:
        self._context.metrics.passed_through.inc()
        upstream = self._upstreams[repository.upstream]
        try:
            return await upstream.get_blob(repository.path, digest, HELD_WHOLE)
        except WrongBytes as error:
            self._context.metrics.fill_failures.labels("digest").inc()
            log.warning("wrong bytes from upstream, asking once more", reason=str(error))
            return await upstream.get_blob(repository.path, digest, HELD_WHOLE)

    def _passed(self, repository: Repository, digest: Digest, size: int) -> PassThroughBlob:
        return PassThroughBlob(self._context, self._upstreams[repository.upstream], repository, digest, size)

    def _fallback(self, repository: Repository, digest: Digest, size: int) -> Fallback:
        """For a blob that is in the store."""
        tasks, doubt = self._context.tasks, self._context.store.quarantine_if_unreadable
        return Fallback(
            self._passed(repository, digest, size), lambda: tasks.spawn(doubt(digest), name=f"doubt {digest}")
        )

    async def head(self, repository: Repository, digest: Digest) -> BlobInfo:
        """The blob's size, without a byte of it being fetched."""
        held = await self._context.store.look_up(repository, digest)
        outcome = Outcome.HIT if held.present else Outcome.MISS
        if held.link is not None and held.link.size is not None:
            return BlobInfo(held.link.size, outcome)
        size = await self._confirm(repository, digest)
        if size is None:
            raise UpstreamError(Failure.INVALID, f"{repository.upstream} gives no size for {digest}")
        return BlobInfo(size, outcome)

    def fetch_ahead(self, repository: Repository, digest: Digest, link: Link | None) -> Flight | None:
        """Start the fill of what nobody has asked for yet, in no hurry; None when it is running already."""
        if self._flights.get(digest) is not None:
            return None
        return self._start(repository, digest, link, ahead=True)

    def cancel(self, flight: Flight) -> bool:
        """End a fill that nobody waits for; False when somebody does, or it is over."""
        return self._flights.cancel(flight)

    def on_disk_trouble(self, call: Callable[[], object]) -> None:
        """`call` when a fill fails because of the disk."""
        self._flights.on_disk_trouble = call

    def _start(
        self, repository: Repository, digest: Digest, link: Link | None, *, ahead: bool = False
    ) -> Flight:
        flight = Flight(digest, repository, ahead=ahead)
        upstream = self._upstreams[repository.upstream]
        fill: RunningFill
        if link is not None and is_small(link):
            fill = SmallFill(self._context, upstream, repository, digest, link)
        else:
            fill = Fill(self._context, upstream, repository, digest, urgent=not ahead)
        self._flights.start(flight, fill)
        return flight

    async def _follow(self, flight: Flight, repository: Repository) -> GrowingReader | SmallBlob | None:
        """What the flight brings, to be read; None when it is worth looking again from the start."""
        flight.want()
        store = self._context.store
        try:
            brought = await flight.board()
        except UpstreamError:
            if flight.repository == repository:
                raise
            return None  # another repository's upstream refused: ask our own
        if isinstance(brought, bytes):
            return SmallBlob(brought)
        file = brought.open_reader() if brought is not None else None
        if brought is None or file is None:
            await flight.landed()
            return None
        reopen = partial(self.get, repository, flight.digest)
        fallback = Fallback(self._passed(repository, flight.digest, brought.size), reopen=reopen)
        return GrowingReader(brought, file, store.readers, fallback, store.begin_reading(flight.digest))

    async def _confirm(self, repository: Repository, digest: Digest) -> int | None:
        """Ask the upstream whether the repository has the digest (a HEAD), and remember that it has."""
        return await self._confirming.do(
            (repository, digest), partial(self._ask_for_link, repository, digest)
        )

    async def _ask_for_link(self, repository: Repository, digest: Digest) -> int | None:
        size = await self._upstreams[repository.upstream].head_blob(repository.path, digest)
        await self._context.store.add_link(repository, digest, Link(size=size))
        return size

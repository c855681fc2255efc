"""Blobs: a hit, a flight to join, or a new fill."""

from functools import partial

from mirror.cache.answers import BlobAnswer, BlobInfo, GrowingReader, Outcome, StoredReader
from mirror.cache.fill import Fill, Tools
from mirror.cache.flight import Flight, Flights
from mirror.cache.single import Single
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.index import Link
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.sources import Upstreams

# A request comes back to the start when the fill it met ended under its feet. Once per fill, and each
# time there is something new to find; more than this means that blobs vanish as fast as they come.
ROUNDS = 4


class Blobs:
    """Content by digest for repositories that are known to have it (invariant 5)."""

    def __init__(self, tools: Tools, upstreams: Upstreams) -> None:
        self._tools = tools
        self._upstreams = upstreams
        self._flights = Flights(tools.tasks, tools.metrics)
        self._confirming: Single[tuple[Repository, Digest], int | None] = Single(tools.tasks)

    async def get(self, repository: Repository, digest: Digest) -> BlobAnswer:
        """The blob, open for reading. Raises UpstreamError or StoreError."""
        outcome = Outcome.HIT
        for _ in range(ROUNDS):
            held = await self._tools.store.open_blob(repository, digest)
            if held.blob is not None:
                return BlobAnswer(StoredReader(held.blob, self._tools.store.readers), outcome)
            flight = self._flights.get(digest)
            if flight is None and held.present:
                await self._confirm(repository, digest)
                continue
            if flight is None:
                flight, joined = self._start(repository, digest), Outcome.MISS
            else:
                joined = Outcome.JOIN
                if held.link is None and flight.repository != repository:
                    await self._confirm(repository, digest)
            outcome = joined if outcome is Outcome.HIT else outcome
            reader = await self._follow(flight, repository)
            if reader is not None:
                return BlobAnswer(reader, outcome)
        raise UpstreamError(Failure.UNREACHABLE, f"{digest} could not be kept long enough to be served")

    async def head(self, repository: Repository, digest: Digest) -> BlobInfo:
        """The blob's size, without a byte of it being fetched."""
        held = await self._tools.store.held(repository, digest)
        outcome = Outcome.HIT if held.present else Outcome.MISS
        if held.link is not None and held.link.size is not None:
            return BlobInfo(held.link.size, outcome)
        size = await self._confirm(repository, digest)
        if size is None:
            raise UpstreamError(Failure.INVALID, f"{repository.upstream} gives no size for {digest}")
        return BlobInfo(size, outcome)

    def _start(self, repository: Repository, digest: Digest) -> Flight:
        flight = Flight(digest, repository)
        self._flights.start(
            flight, Fill(self._tools, self._upstreams[repository.upstream], repository, digest)
        )
        return flight

    async def _follow(self, flight: Flight, repository: Repository) -> GrowingReader | None:
        """A reader of the flight's growing file; None when it is worth looking again from the start."""
        try:
            growing = await flight.board()
        except UpstreamError:
            if flight.repository == repository:
                raise
            return None  # another repository's upstream refused: ask our own
        file = growing.open_reader() if growing is not None else None
        if growing is None or file is None:
            await flight.landed()
            return None
        return GrowingReader(growing, file, self._tools.store.readers)

    async def _confirm(self, repository: Repository, digest: Digest) -> int | None:
        """Ask the upstream whether the repository has the digest (a HEAD), and remember that it has."""
        return await self._confirming.once(
            (repository, digest), partial(self._ask_for_link, repository, digest)
        )

    async def _ask_for_link(self, repository: Repository, digest: Digest) -> int | None:
        size = await self._upstreams[repository.upstream].head_blob(repository.path, digest)
        await self._tools.store.add_link(repository, digest, Link(size=size))
        return size

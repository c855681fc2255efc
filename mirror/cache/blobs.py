"""Blobs: a hit, a flight to join, or a new fill."""

import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial

from mirror.cache.access import AccessChecker
from mirror.cache.readers import (
    BlobAnswer,
    BlobRequest,
    Fallback,
    GrowingReader,
    PassingContent,
    SmallBlob,
    StoredReader,
)
from mirror.cache.results import BlobInfo, Outcome, Staleness
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.blobs.entries import OpenBlob
from mirror.store.blobs.prover import PendingProof, Proof, hold_seconds
from mirror.store.errors import NoRoom, ShuttingDown, StoreError
from mirror.store.links.content import LocalContent
from mirror.store.metadata.index import Link
from mirror.store.partial.demand import Demand
from mirror.store.partial.growing import HOLDBACK_BYTES
from mirror.transfer.context import TransferContext
from mirror.transfer.flight import Flight, FlightTable, queue_full
from mirror.transfer.passthrough import PassThroughBlob
from mirror.upstream.errors import AnswerTooLong, Failure, UpstreamError, WrongBytes, too_many_requests
from mirror.upstream.guests.current import asker
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.callbacks import ignore
from mirror.util.fairness.budget import begin_fill, check_budget, wait_for_fill
from mirror.util.log import get_logger
from mirror.util.single_flight import SingleFlight
from mirror.util.time_limit import TimeLimit
from mirror.util.ttl_cache import TTLCache

log = get_logger(__name__)

# A request starts again when the fill that it joined ended before it could be followed. That happens once per
# fill, and each time something new is found; more rounds mean that blobs vanish as fast as they come.
ROUNDS = 4

# Sizes that upstreams have told by a HEAD are believed for an hour: as many as take some megabytes.
SIZE_SECONDS = 3600.0
SIZES = 10_000

QUARANTINED = (
    "; the copy here was corrupt on the disk and is in quarantine: pull again once the upstream answers"
)


class BlobCache:
    """Blobs by digest, for repositories that are known to have them (invariant 5)."""

    def __init__(self, context: TransferContext, upstreams: UpstreamSet, access: AccessChecker) -> None:
        self._context = context
        self._upstreams = upstreams
        self._access = access
        self._flights = FlightTable(context, upstreams)
        self.flights = self._flights.running
        self._prover = context.store.content.prover(context.tasks, self._on_proven)
        believed = min((SIZE_SECONDS, *(each.recheck_access for each in upstreams.values())))
        self._sizes: TTLCache[tuple[Repository, Digest], int] = TTLCache(believed, SIZES)
        self._passing: SingleFlight[tuple[Repository, Digest], bytes] = SingleFlight(
            context.tasks, refusal=too_many_requests, turns=context.lookups
        )

    async def get(
        self,
        repository: Repository,
        digest: Digest,
        limit: TimeLimit | None = None,
        request: BlobRequest | None = None,
    ) -> BlobAnswer:
        """Return the blob, open for reading. Raises UpstreamError or, when the mirror stops, StoreError.

        `limit`: the caller's time limit, which stands still while the blob waits in the mirror's own queue.
        `request`: a client's; None where the mirror itself reads.
        """
        try:
            async with self._access.withdrawing(repository, digest):
                answer = await self._get_through_store(repository, digest, limit or TimeLimit(), request)
        except ShuttingDown:
            raise
        except NoRoom as error:
            return await self._pass_through(repository, digest, str(error))
        except StoreError as error:
            log.debug("blob passed through, not stored", digest=str(digest), reason=str(error))
            answer = None
        except UpstreamError as error:
            raise await self._explained(digest, error) from error
        return answer or await self._pass_through(repository, digest)

    async def _explained(self, digest: Digest, error: UpstreamError) -> UpstreamError:
        """Return the error, with the reason why the blob is not here if it was found corrupt."""
        if not error.temporary and error.failure is not Failure.OFFLINE:
            return error
        with suppress(StoreError):
            if await self._context.store.content.is_quarantined(digest):
                error = error.copy()
                error.message += QUARANTINED
                error.args = (error.message,)
        return error

    async def _get_through_store(
        self, repository: Repository, digest: Digest, limit: TimeLimit, request: BlobRequest | None
    ) -> BlobAnswer | None:
        """Return the blob from the disk, or from a fill; None when the disk is of no use."""
        store, outcome, staleness = self._context.store, Outcome.HIT, None
        absent = self._flights.take_absent(repository, digest)
        guessed = absent is not None
        for _ in range(ROUNDS):
            if absent is None:
                local = await store.content.open_blob(repository, digest)
            else:
                local, absent = LocalContent(absent, present=False), None
            if local.is_open:
                return await self._stored(repository, digest, local, outcome, request)
            flight = self._flights.get(digest)
            if flight is None and local.present:
                await self._access.confirm_blob(repository, digest, _claimed(local.link))
                continue
            if flight is None:
                await wait_for_fill()
                flight = self._flights.get(digest)
            if flight is None and not store.room.is_writable:
                return None
            if flight is None:
                flight, joined = self._start(repository, digest, local.link, limit, request), Outcome.MISS
                leave = partial(self._leave, flight, limit, begin_fill())
            else:
                joined = Outcome.JOIN
                staleness = await self._check_join(flight, repository, local)
                flight.demand.add(request.ranges if request is not None else None)
                self._flights.join(flight, limit)
                leave = partial(self._flights.leave, flight, limit)
            outcome = joined if outcome is Outcome.HIT else outcome
            try:
                content = await self._follow(flight, repository, leave, request)
            except (StoreError, UpstreamError) as error:
                if not guessed or isinstance(error, ShuttingDown):
                    raise
                if not (await store.content.look_up(repository, digest)).present:
                    raise
                content = None  # another process has brought it, and it was not looked for
            if flight.repository == repository and flight.unanswered is not None:
                link = (await store.content.look_up(repository, digest)).link
                staleness = self._access.unanswered(repository, link, flight.unanswered)
            if content is not None:
                return BlobAnswer(content, outcome, staleness=staleness)
        return None  # the blob never stayed in the store long enough to be served

    async def _stored(
        self,
        repository: Repository,
        digest: Digest,
        local: LocalContent,
        outcome: Outcome,
        request: BlobRequest | None,
    ) -> BlobAnswer:
        """Return the answer with content that is here, unless the upstream withdraws the old link to it."""
        ttl, staleness = self._ttl(repository, local), None
        if ttl <= 0:
            staleness = await self._check(repository, digest, local)
            outcome = outcome if staleness is None else Outcome.STALE
        if outcome is not Outcome.HIT:
            ttl = 0.0
        if local.blob is None:
            return BlobAnswer(SmallBlob(local.data or b""), outcome, ttl, staleness)
        reader = self._stored_reader(repository, digest, local.blob, request)
        return BlobAnswer(reader, outcome, ttl, staleness)

    def _ttl(self, repository: Repository, local: LocalContent) -> float:
        return 0.0 if local.link is None else self._access.ttl(repository, local.link)

    async def _check(self, repository: Repository, digest: Digest, local: LocalContent) -> Staleness | None:
        """Ask about an old link; close the content if the upstream withdraws it."""
        with ExitStack() as opened:
            opened.callback(local.close)
            staleness = None
            if local.link is not None:
                staleness = await self._access.check(repository, digest, local.link)
            opened.pop_all()
        return staleness

    async def _check_join(
        self, flight: Flight, repository: Repository, local: LocalContent
    ) -> Staleness | None:
        """Raise UpstreamError unless a repository may have what is being filled, perhaps for another one."""
        if flight.repository == repository:
            return None
        link, other = local.link, flight.repository
        named_enough = not self._upstreams[other.upstream].uses_account(other.path)
        if link is None or (link.confirmed is None and not named_enough):
            await self._access.confirm_blob(repository, flight.digest, _claimed(link))
            return None
        return await self._access.check(repository, flight.digest, link)

    async def _pass_through(
        self, repository: Repository, digest: Digest, reason: str = "the cache folder is in trouble"
    ) -> BlobAnswer:
        """Return the blob past the disk, after the upstream has confirmed the link (invariant 5)."""
        check_budget()
        if self._upstreams.slots.crowded:
            raise queue_full(self._upstreams.slots.waiting)
        local = None
        with suppress(StoreError):
            local = await self._context.store.content.look_up(repository, digest)
        expected = _claimed(local.link) if local is not None else None
        size = await self._access.confirm_blob(repository, digest, expected)
        if size is None or size <= HOLDBACK_BYTES:
            # No byte may be sent before all are verified, so one transfer serves all requests meanwhile.
            with suppress(AnswerTooLong):
                data = await self._passing.do(
                    (repository, digest), partial(self._fetch, repository, digest), repository.upstream
                )
                return BlobAnswer(SmallBlob(data), Outcome.PASSED)
            size = None
        passing = PassingContent(self._pass_through_blob(repository, digest, size))
        return BlobAnswer(passing, Outcome.PASSED, note=f"passed through: {reason}")

    async def _fetch(self, repository: Repository, digest: Digest) -> bytes:
        self._context.metrics.passed_through.inc()
        upstream = self._upstreams[repository.upstream]
        try:
            return await upstream.get_blob(repository.path, digest, HOLDBACK_BYTES)
        except WrongBytes as error:
            self._context.metrics.fill_failures.labels("digest").inc()
            log.warning("wrong bytes from upstream, asking again", reason=str(error))
            return await upstream.get_blob(repository.path, digest, HOLDBACK_BYTES)

    def _pass_through_blob(self, repository: Repository, digest: Digest, size: int | None) -> PassThroughBlob:
        return PassThroughBlob(self._context, self._upstreams[repository.upstream], repository, digest, size)

    def _stored_reader(
        self, repository: Repository, digest: Digest, blob: OpenBlob, request: BlobRequest | None
    ) -> StoredReader:
        """Return a reader of a blob in the store, which may have to wait for a proof of the blob."""
        tasks, store = self._context.tasks, self._context.store
        store.room.allowance.note_request(digest)
        fallback = Fallback(
            self._pass_through_blob(repository, digest, blob.size),
            lambda: tasks.spawn(store.content.quarantine_if_unreadable(digest), name=f"doubt {digest}"),
            reopen=partial(self.get, repository, digest),
            when_crowded=self._when_crowded,
            on_sent=self._on_sent(digest, request),
        )
        proof, client = None, request.client if request is not None and request.whole else None
        awaited = self._prover.note_use(digest, client)
        if awaited or self._prover.is_pending(digest):
            status = os.fstat(blob.file.fileno())
            is_wrong = partial(store.content.is_quarantined, digest, status)
            seconds = hold_seconds(blob.size) if awaited else 0.0
            proof = PendingProof(partial(self._prover.is_pending, digest), is_wrong, seconds)
        return StoredReader(blob, store.readers, fallback, store.content.begin_reading(digest), proof)

    def _on_sent(self, digest: Digest, request: BlobRequest | None) -> Callable[[], object]:
        """Return what is called when a blob was sent to its end."""
        return ignore if request is None else partial(self._prover.note_sent, digest, request.client)

    def _on_proven(self, proof: Proof) -> None:
        self._context.metrics.proofs.labels(proof.reason.value, "right" if proof.right else "wrong").inc()

    def _when_crowded(self, call: Callable[[], object]) -> None:
        """Call `call` if the cache is over its quota and nothing but blobs in use could go."""

        async def look() -> None:
            await self._context.store.room.evict_excess()
            with suppress(StoreError):
                if await self._context.store.room.excess() > 0:
                    call()

        self._context.tasks.spawn(look(), name="look for room")

    async def head(self, repository: Repository, digest: Digest) -> BlobInfo:
        """Return the blob's size, without fetching any of its bytes.

        The size is that of the verified file, else the upstream's word: the size of a link may be a number
        that only a manifest claims.
        """
        local = await self._context.store.content.open_blob(repository, digest)
        if local.is_open:
            staleness = await self._check(repository, digest, local)
            local.close()
            found = len(local.data or b"") if local.blob is None else local.blob.size
            return BlobInfo(found, Outcome.HIT if staleness is None else Outcome.STALE, staleness)
        # A remembered size is the word of the upstream for as long as its word about the link is.
        confirmed = local.link is not None and local.link.confirmed is not None
        known = confirmed and self._ttl(repository, local) > 0
        size = self._sizes.get((repository, digest)) if known else None
        if size is None:
            async with self._access.withdrawing(repository, digest):
                size = await self._access.confirm_blob(repository, digest, _claimed(local.link))
            if size is not None:
                self._sizes.put((repository, digest), size)
        return BlobInfo(size, Outcome.HIT if local.present else Outcome.MISS)

    def prefetch(self, repository: Repository, digest: Digest, link: Link | None) -> Flight | None:
        """Start a fill that no client waits for, over one connection; None when a fill is running already.

        UpstreamError when too many fills wait.
        """
        if self._flights.get(digest) is not None:
            return None
        return self._start(repository, digest, link, None)

    def pull(self, repository: Repository, digest: Digest, link: Link | None) -> Flight:
        """Start a fill as `prefetch` does, with room made for the blob; or return the running one."""
        running = self._flights.get(digest)
        return running or self._start(repository, digest, link, None, asked_for=True)

    def is_filled(self, digest: Digest) -> bool:
        """Return whether this process fills the blob now."""
        return self._flights.get(digest) is not None

    def cancel(self, flight: Flight) -> bool:
        """End a prefetch that no client has joined; False when a client has, or the fill has ended."""
        return self._flights.cancel(flight)

    def on_disk_error(self, call: Callable[[], object]) -> None:
        """`call` when a fill fails because of the disk."""
        self._flights.on_disk_error = call

    def _start(
        self,
        repository: Repository,
        digest: Digest,
        link: Link | None,
        limit: TimeLimit | None,
        request: BlobRequest | None = None,
        *,
        asked_for: bool = False,
    ) -> Flight:
        """Start a flight, joined by the client with this time limit; by none for a prefetch.

        `asked_for`: there is to be room for the blob, although no client waits.
        """
        flight = Flight(digest, repository, link, prefetch=limit is None)
        flight.asked_for = asked_for
        if limit is not None:
            flight.demand = Demand(whole=self._context.settings.rest == "always")
            flight.demand.add(request.ranges if request is not None else None)
            flight.join(limit)
        self._flights.start(flight)
        return flight

    async def _follow(
        self, flight: Flight, repository: Repository, leave: Callable[[], object], request: BlobRequest | None
    ) -> GrowingReader | SmallBlob | None:
        """Return the content of a joined flight, and leave it with that; None to start again."""
        with ExitStack() as joined:
            joined.callback(leave)
            content = await self._content(flight, repository, request)
            if isinstance(content, GrowingReader):
                content.on_close(joined.pop_all().close)
            return content

    def _leave(self, flight: Flight, limit: TimeLimit, end_fill: Callable[[], object]) -> None:
        self._flights.leave(flight, limit)
        end_fill()

    async def _content(
        self, flight: Flight, repository: Repository, request: BlobRequest | None
    ) -> GrowingReader | SmallBlob | None:
        store = self._context.store
        try:
            content = await flight.wait_content()
        except UpstreamError:
            if flight.repository == repository and flight.asker == asker():
                raise
            return None  # another repository's upstream refused, or another client's account: ask our own
        if isinstance(content, bytes):
            return SmallBlob(content)
        file = content.open_reader() if content is not None else None
        if content is None or file is None:
            await flight.wait_done()
            return None
        fallback = Fallback(
            self._pass_through_blob(repository, flight.digest, content.size),
            reopen=partial(self.get, repository, flight.digest),
            when_crowded=self._when_crowded,
            on_sent=self._on_sent(flight.digest, request),
        )
        return GrowingReader(
            content, file, store.readers, fallback, store.content.begin_reading(flight.digest)
        )


def _claimed(link: Link | None) -> int | None:
    """Return the size that a manifest, or an earlier answer, has told."""
    return None if link is None else link.size

"""The sources of a blob whose bytes were wrong: who is taken out of use, and who is asked next."""

from collections.abc import Iterable

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.partial.growing_writer import GrowingVerifier
from mirror.transfer.blob_source import BlobSource
from mirror.transfer.context import TransferContext
from mirror.transfer.corruption import Parts, sole_supplier
from mirror.upstream.body import labelled
from mirror.upstream.errors import Failure, WrongBytes
from mirror.upstream.upstream import Upstream
from mirror.util.log import get_logger

log = get_logger(__name__)


class Blame:
    """The verdicts about one fill's sources."""

    def __init__(
        self, context: TransferContext, upstream: Upstream, repository: Repository, digest: Digest
    ) -> None:
        self._context = context
        self._upstream = upstream
        self._repository = repository
        self._digest = digest

    def sources_to_try(self) -> list[BlobSource]:
        """Return the sources to ask one after another, if the blob was corrupt before."""
        return self._context.corruption.sources_to_try(self._digest, self._upstream.sources)

    async def blame(self, verifier: GrowingVerifier, parts: Parts) -> None:
        """Take the source of wrong bytes out of use; if it is not known, all mirrors that sent a part."""
        corruption = self._context.corruption
        culprit = sole_supplier(parts, verifier.file.size)
        if culprit is not None:
            for source in corruption.record_culprit(self._digest, culprit):
                source.health.clear_suspicion()
            self._report(culprit)
            return
        suspects = [source for source in parts if source is not self._upstream.own]
        names = ", ".join(source.name for source in suspects)
        fields = {"repository": str(self._repository), "digest": str(self._digest)}
        log.error("wrong bytes from one of several sources", sources=names, **fields)
        for source in suspects:
            source.suspect()
        await corruption.record_parts(verifier, parts)

    async def judge_suspects(self, verifier: GrowingVerifier) -> None:
        """Compare with an earlier corrupt download: report the source that was wrong, clear the others."""
        verdicts = await self._context.corruption.verdicts(verifier)
        for source, corrupt in verdicts.items():
            if corrupt:
                self._report(source)
            else:
                source.health.clear_suspicion()

    def wrong_bytes(self, encodings: Iterable[str], *, retry_elsewhere: bool) -> WrongBytes:
        """Return the error of a blob that no source sent right; `encodings` were the responses' labels."""
        label = labelled(" ".join(sorted(filter(None, encodings))))
        message = f"{self._repository.upstream} sent bytes that are not {self._digest}{label}"
        error = WrongBytes(Failure.INVALID, message)
        error.retry_elsewhere = retry_elsewhere
        return error

    def _report(self, source: BlobSource) -> None:
        source.report_corruption(str(self._digest))
        self._context.metrics.source_wrong_bytes.labels(self._upstream.name, source.name).inc()

"""Bounds on what a client is given: blobs of a size, and images of which the rest may not be fetched.

Both are decided at the manifest where that is possible: clients that have a manifest do not go elsewhere for
its blobs, and some of them end there (docs/access.md).
"""

from mirror.access.limits import Limit
from mirror.cache.cache import Cache
from mirror.cache.results import ManifestAnswer
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.util import units
from mirror.web.limits.budget import ClientBudget
from mirror.web.limits.refusal import LimitExceeded


class ContentChecks:
    """The checks for one client. `largest`: the largest blob, in bytes, and the limit that says so."""

    def __init__(self, largest: tuple[int, Limit] | None, budget: ClientBudget | None) -> None:
        self._largest = largest
        self._budget = budget

    async def check_manifest(self, cache: Cache, repository: Repository, answer: ManifestAnswer) -> None:
        """Raise LimitExceeded if the client may not have a blob of the image."""
        if self._largest is not None:
            manifest = await cache.images.read_manifest(answer)
            sizes = (
                [each.size for each in manifest.children() if not each.urls] if manifest is not None else []
            )
            self._check_size(max(sizes, default=0))
        try:
            if self._budget is not None:
                self._budget.check()
        except LimitExceeded:
            if await cache.images.missing_blobs(repository, answer.digest):
                raise

    async def check_blob(self, cache: Cache, repository: Repository, digest: Digest) -> None:
        """Raise LimitExceeded if the blob is too large. Asks the upstream with a HEAD if no size is known."""
        if self._largest is not None:
            self._check_size((await cache.origin(repository).head_blob(repository, digest)).size or 0)

    def _check_size(self, size: int) -> None:
        if self._largest is not None and size > self._largest[0]:
            most, limit = self._largest
            message = f"a blob of {units.size(size)} is larger than the {units.size(most)} that you may pull"
            raise LimitExceeded(limit, "max_blob", message)

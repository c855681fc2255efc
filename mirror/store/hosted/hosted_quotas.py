"""The bytes that hosted registries and their repositories hold, and their quotas."""

from collections.abc import Iterator

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.hosted.errors import QuotaExceeded
from mirror.store.hosted.pushes import NO_QUOTAS, Quotas
from mirror.store.metadata.hosted_queries import HostedQueries
from mirror.store.metadata.index import Index


class HostedQuotas:
    """The counts in one index; a scope is a registry or a repository. Every method blocks."""

    def __init__(self, index: Index, queries: HostedQueries) -> None:
        self._index = index
        self._queries = queries

    def check(self, repository: Repository, size: int, quotas: Quotas) -> dict[str, int]:
        """Raise QuotaExceeded if `size` more bytes, perhaps of a new blob, would not fit.

        Returns what is left beside them, by registry and repository, as far as these have quotas.
        """
        left = {}
        for scope, allowed in _scopes(repository, quotas):
            used = self._queries.held(scope)
            if allowed and used + size > allowed:
                raise QuotaExceeded(scope, allowed, used, size)
            if allowed:
                left[scope] = allowed - used - size
        return left

    def check_coming(self, repository: Repository, coming: dict[Digest, int], quotas: Quotas) -> None:
        """Raise QuotaExceeded if contents that are new to a scope do not fit there."""
        if quotas == NO_QUOTAS:
            return
        new = {digest: set(self.new_to(repository, digest)) for digest in coming}
        for scope, allowed in _scopes(repository, quotas):
            asked = sum(size for digest, size in coming.items() if scope in new[digest])
            used = self._queries.held(scope)
            if allowed and asked and used + asked > allowed:
                raise QuotaExceeded(scope, allowed, used, asked)

    def new_to(self, repository: Repository, digest: Digest) -> Iterator[str]:
        """Yield the repository, and its registry, as far as they do not link a digest."""
        if self._index.link(repository, digest) is None:
            yield from self.lacking(repository, digest)

    def lacking(self, repository: Repository, digest: Digest) -> Iterator[str]:
        """Yield a repository that does not link a digest, and its registry if that does not either."""
        yield str(repository)
        name = repository.upstream
        if not self._queries.is_linked_in(name, digest):
            yield name

    def count(self, grown: dict[str, int]) -> None:
        """Write down by how much scopes have grown, and forget it."""
        for scope, size in grown.items():
            self._index.database.cache.set(f"held:{scope}", str(self._queries.held(scope) + size))
        grown.clear()


def _scopes(repository: Repository, quotas: Quotas) -> tuple[tuple[str, int], tuple[str, int]]:
    return (repository.upstream, quotas.registry), (str(repository), quotas.repository)

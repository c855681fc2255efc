"""Mounts: a blob that is here already becomes one of a repository, if the client may read it there.

A mount that is declined is no error: the client uploads the blob (containerd ends its push at any error).
"""

from collections.abc import Awaitable, Callable

from mirror.hosted.registry import HostedRegistry
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.reference import Repository, Target, TargetKind, UpstreamNames, Via, parse_target
from mirror.web.connections.request_target import path_and_host
from mirror.web.request_log import RequestRecord

# Whether the client of a request may pull a blob of a repository, as of now.
MayPull = Callable[[RequestRecord, Target], Awaitable[bool]]


class Mounts:
    """Mounts into the hosted registries."""

    def __init__(self, registry: HostedRegistry, names: UpstreamNames, may_pull: MayPull) -> None:
        self._registry = registry
        self._names = names
        self._may_pull = may_pull

    async def mount(
        self, record: RequestRecord, target: Target, digest: str, source: str | None
    ) -> Digest | None:
        """Mount a blob; return its digest, or None if the client must upload the blob.

        `source`: the repository as the client writes it; None for any that the client may read.
        """
        try:
            wanted = Digest.parse(digest)
            found = None if source is None else self._source(record, target, source, wanted)
        except RegistryError:
            return None
        if target.repository is None:
            raise AssertionError("a mount without a repository")

        async def may_read(repository: Repository) -> bool:
            asked = Target(TargetKind.BLOB, Via.PREFIX, repository.upstream, repository, wanted)
            return await self._may_pull(record, asked)

        mounted = await self._registry.mount(target.repository, wanted, found, may_read)
        return wanted if mounted else None

    def _source(
        self, record: RequestRecord, target: Target, source: str, digest: Digest
    ) -> Repository | None:
        """Return the repository that a client names, as it names the target. Raises RegistryError."""
        _, host = path_and_host(record.request)
        ns = target.upstream if target.via is Via.NS else None
        return parse_target(self._names, f"/v2/{source}/blobs/{digest}", ns, host).repository

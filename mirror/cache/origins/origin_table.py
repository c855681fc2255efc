"""The origin of each repository: a hosted registry's own, or its upstream."""

from collections.abc import Iterable

from mirror.cache.origins.content_origin import ContentOrigin
from mirror.oci.reference import Repository


class OriginTable:
    """The origins by the names of registries; repositories of all others come from `mirrored`."""

    def __init__(self, mirrored: ContentOrigin) -> None:
        self._mirrored = mirrored
        self._hosted: dict[str, ContentOrigin] = {}

    def host(self, names: Iterable[str], origin: ContentOrigin) -> None:
        """Answer for the repositories of these registries from `origin`: they have no upstream."""
        self._hosted.update(dict.fromkeys(names, origin))

    def is_hosted(self, repository: Repository) -> bool:
        """Return whether a repository has no upstream."""
        return repository.upstream in self._hosted

    def of(self, repository: Repository) -> ContentOrigin:
        """Return the origin of a repository."""
        return self._hosted.get(repository.upstream, self._mirrored)

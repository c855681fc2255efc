"""Queries by image pattern: matching repositories and tags in the index, a page at a time."""

from collections.abc import Iterator

from mirror.oci.image_pattern import ImagePattern, is_literal, literal
from mirror.oci.reference import Repository, Tag
from mirror.store.metadata.index import ROWS, Index, TagEntry


def repositories(index: Index, images: ImagePattern) -> Iterator[Repository]:
    """Yield repositories that may match, in order; reads only the range of the pattern's literal prefix."""
    after, prefix = "", literal(images.name)
    while names := index.repositories(prefix, after, ROWS):
        for name in names:
            upstream, _, path = name.partition("/")
            repository = Repository(upstream, path)
            if images.of(repository):
                yield repository
        after = names[-1]


def tags(index: Index, repository: Repository, images: ImagePattern) -> Iterator[tuple[str, TagEntry]]:
    """Yield the tag entries of a repository that match, in order."""
    if images.digest is not None or is_literal(images.tag):
        name = images.tag
        entry = None if images.digest is not None else index.tag(repository, Tag(name))
        if entry is not None:
            yield name, entry
        return
    after, prefix = "", literal(images.tag)
    while names := index.tags(repository, after, ROWS, prefix):
        for name in names:
            entry = index.tag(repository, Tag(name))
            if entry is not None and images.match(repository, name, entry.digest):
                yield name, entry
        after = names[-1]

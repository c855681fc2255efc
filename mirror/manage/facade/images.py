"""Images of a cache folder, and its repositories and tags by name."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mirror.manage.steps import Call, Steps, StepThread
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern
from mirror.oci.reference import Repository, Tag
from mirror.store.cache_dir import CacheDirectory

if TYPE_CHECKING:
    from mirror.manage.browse.detail import ImageDetail
    from mirror.manage.browse.search import FoundTag, RepositoryRow, TagRow
    from mirror.manage.inventory import ImageSummary
    from mirror.manage.removal import RemovalStep


class ImageManagement:
    """The images of a folder."""

    def __init__(self, folder: CacheDirectory, worker: StepThread) -> None:
        self._folder = folder
        self._worker = worker

    def matching(self, wanted: ImagePattern) -> "Steps[ImageSummary]":
        """Return the images that match, by repository and tag."""

        def begin() -> "Iterator[ImageSummary]":
            from mirror.manage.inventory import Inventory

            return Inventory(self._folder).images(wanted)

        return Steps(self._worker, begin)

    def detail(
        self, repository: Repository, reference: Tag | Digest, now: float
    ) -> "Call[ImageDetail | None]":
        """Return an image in detail; None for one that is not known here."""

        def read() -> "ImageDetail | None":
            from mirror.manage.browse.detail import ImageReader

            return ImageReader(self._folder, now).read(repository, reference)

        return Call(self._worker, read)

    def remove(
        self, wanted: ImagePattern, *, forced: bool = False, dry_run: bool = False
    ) -> "Steps[RemovalStep]":
        """Remove the images that match, pinned ones only if `forced`: a step for each repository."""

        def begin() -> "Iterator[RemovalStep]":
            from mirror.manage.removal import ImageRemoval

            removal = ImageRemoval(self._folder, wanted, forced=forced)
            return removal.steps() if dry_run else removal.carry_out()

        return Steps(self._worker, begin)


class NameManagement:
    """Repositories and tags of a folder by words of their names, page by page."""

    def __init__(self, folder: CacheDirectory, worker: StepThread) -> None:
        self._folder = folder
        self._worker = worker

    def repositories(self, words: Sequence[str], after: str) -> Call[list[str]]:
        """Return the next repositories, `<upstream>/<repository>`, whose names have all words."""

        def find() -> list[str]:
            from mirror.manage.browse.search import NameSearch

            return NameSearch(self._folder.index).repositories(words, after)

        return Call(self._worker, find)

    def repository_rows(self, names: Sequence[str]) -> "Call[list[RepositoryRow]]":
        """Return what a list shows of repositories."""

        def count() -> "list[RepositoryRow]":
            from mirror.manage.browse.search import NameSearch, RepositoryRow

            counts = NameSearch(self._folder.index).count_tags(names)
            return [RepositoryRow(each, counts[each]) for each in names]

        return Call(self._worker, count)

    def tags(self, words: Sequence[str], after: str, name: str = "") -> "Call[list[FoundTag]]":
        """Return the next tags whose names have all words; of one repository, if it is named."""

        def find() -> "list[FoundTag]":
            from mirror.manage.browse.search import NameSearch

            return NameSearch(self._folder.index).tags(words, after, name)

        return Call(self._worker, find)

    def tag_rows(self, found: "Sequence[FoundTag]") -> "Call[list[TagRow]]":
        """Return what a list shows of tags."""

        def describe() -> "list[TagRow]":
            from mirror.manage.browse.search import TagDescriber

            return TagDescriber(self._folder).rows(found)

        return Call(self._worker, describe)

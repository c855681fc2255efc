"""The marks of public repositories for the event loop: shared by all processes on the cache folder."""

from mirror.oci.reference import Repository
from mirror.store.guard import DiskGuard
from mirror.store.invalidation import Epoch
from mirror.store.metadata.index import Index
from mirror.store.metadata.visibility import PublicMark, PublicRepositories


class VisibilityStore:
    """The marks of one cache folder, for the event loop."""

    def __init__(self, index: Index, epoch: Epoch, disk: DiskGuard) -> None:
        self._marks = PublicRepositories(index)
        self._epoch = epoch
        self._disk = disk

    def removals(self) -> int:
        """Return a number that changes when any process withdraws a mark (and at other removals)."""
        return self._epoch.removals()

    async def mark(self, repository: Repository) -> PublicMark | None:
        """Return the mark of a repository; None too on a failing disk."""
        return await self._disk.read_or(None, lambda: self._marks.mark(repository))

    async def put(self, repository: Repository, mark: PublicMark) -> None:
        """Write a mark, if the disk takes it."""
        await self._disk.best_effort(self._marks.put, repository, mark)

    async def withdraw(self, repository: Repository) -> None:
        """Remove a mark, and what processes remember because of it: responses, and marks in memory."""
        await self._disk.best_effort(self._marks.drop, repository)
        self._epoch.note_removal()

    async def between(self, first: str, last: str) -> dict[str, PublicMark]:
        """Return the marks of the repositories from `first` to `last`, by name; none on a failing disk."""
        none: dict[str, PublicMark] = {}
        return await self._disk.read_or(none, lambda: self._marks.between(first, last))

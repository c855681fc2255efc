"""A run over a list of images: each is pulled, a few at a time, and what is missing is known in the end."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Protocol

from mirror.manage.warm.images import WarmImage
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.util.progress.amounts import ImageProgress
from mirror.util.tasks import Tasks

# Images that are pulled at a time: while one waits for its last blob, others use the line.
IMAGES_AT_A_TIME = 3


class Pull(Protocol):
    """The pull of one image: the last value of its progress is the result."""

    @property
    def missing(self) -> Mapping[str, str]:
        """Parts that could not be had, and why."""

    def digests(self) -> list[Digest]:
        """Return the digests of all parts."""

    def __aiter__(self) -> AsyncGenerator[ImageProgress]: ...


class ImageSource(Protocol):
    """Source of images (`mirror.cache.pull.source`). The coroutines raise errors with a reason."""

    def pull(self, repository: Repository, reference: Tag | Digest) -> Pull: ...

    async def tags(self, repository: Repository) -> list[str]: ...

    async def absent(self, digests: Sequence[Digest]) -> list[Digest]: ...


class WarmRun:
    """One run. `results` has the last progress of each image that ended, `missing` its missing parts."""

    def __init__(self, source: ImageSource, errors: tuple[type[Exception], ...] = ()) -> None:
        """`errors`: those of `source`, whose text is a reason for people."""
        self.results: dict[str, ImageProgress] = {}
        self.missing: dict[str, Mapping[str, str]] = {}
        self._source = source
        self._errors = errors
        self._parts: dict[str, list[Digest]] = {}

    @property
    def failed(self) -> list[ImageProgress]:
        """The images that are not complete."""
        return [each for each in self.results.values() if each.state == "failed"]

    async def resolve(self, images: Iterable[WarmImage]) -> AsyncIterator[WarmImage | ImageProgress]:
        """Yield the single images that the list means, each once, and failures of patterns."""
        seen: set[str] = set()
        for image in images:
            try:
                found = [image] if image.tags is None else await self._matching_tags(image)
            except self._errors as error:
                yield self._note(_failed(str(image), str(error)))
                continue
            if not found:
                yield self._note(_failed(str(image), "no tag of the repository matches"))
            for each in found:
                if str(each) not in seen:
                    seen.add(str(each))
                    yield each

    async def _matching_tags(self, image: WarmImage) -> list[WarmImage]:
        tags = await self._source.tags(image.repository)
        return [image.of_tag(each) for each in (image.tags.select(iter(tags)) if image.tags else ())]

    async def steps(self, images: Iterable[WarmImage]) -> AsyncGenerator[ImageProgress]:
        """Pull single images; yield the progress of all of them, and in the end what was evicted again."""
        tasks, queue = Tasks(), asyncio.Queue[ImageProgress | None]()
        waiting = list(reversed(list(images)))
        workers = [
            tasks.spawn(self._work(waiting, queue), name="warm")
            for _ in range(min(IMAGES_AT_A_TIME, len(waiting)))
        ]
        try:
            running = len(workers)
            while running:
                found = await queue.get()
                running -= found is None
                if found is not None:
                    yield found
        finally:
            await tasks.close()
        for worker in workers:
            worker.result()
        async for each in self._evicted():
            yield each

    async def _work(self, waiting: list[WarmImage], queue: asyncio.Queue[ImageProgress | None]) -> None:
        try:
            while waiting:
                await self._pull(waiting.pop(), queue)
        finally:
            queue.put_nowait(None)

    async def _pull(self, image: WarmImage, queue: asyncio.Queue[ImageProgress | None]) -> None:
        if image.reference is None:
            raise AssertionError("a pattern is not one image")
        pull = self._source.pull(image.repository, image.reference)
        async with aclosing(pull.__aiter__()) as steps:
            async for each in steps:
                if each.ended:
                    self._parts[each.name] = pull.digests()
                    self.missing[each.name] = pull.missing
                    self._note(each)
                queue.put_nowait(each)

    async def _evicted(self) -> AsyncIterator[ImageProgress]:
        """Yield the images of which a part was evicted for the sake of later ones."""
        for name, parts in self._parts.items():
            if self.results[name].state == "failed" or not (gone := await self._source.absent(parts)):
                continue
            reason = "evicted again: the cache has too little room for all images, see cache.max_size"
            self.missing[name] = {str(each): reason for each in gone}
            yield self._note(_failed(name, reason))

    def _note(self, result: ImageProgress) -> ImageProgress:
        self.results[result.name] = result
        return result


def _failed(name: str, reason: str) -> ImageProgress:
    return ImageProgress(name, state="failed", reason=reason)

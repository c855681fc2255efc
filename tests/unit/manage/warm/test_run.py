"""Runs over lists of images."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence

from mirror.manage.warm.images import WarmImage, parse_image
from mirror.manage.warm.run import IMAGES_AT_A_TIME, WarmRun
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.util.progress.amounts import ImageProgress, State

NAMES = {"docker.io": "docker.io"}


class Refused(Exception):
    """An error of a source."""


class OnePull:
    """A pull with two steps."""

    def __init__(self, site: "Site", name: str) -> None:
        self.missing: Mapping[str, str] = {"layer": "lost"} if name in site.lost else {}
        self._site = site
        self._name = name

    def digests(self) -> list[Digest]:
        return [Digest.of(self._name.encode())]

    async def __aiter__(self) -> AsyncGenerator[ImageProgress]:
        self._site.running += 1
        self._site.most = max(self._site.most, self._site.running)
        try:
            yield ImageProgress(self._name)
            await asyncio.sleep(0)  # others have their turn, as with a real source
            state: State = "failed" if self.missing else "done"
            yield ImageProgress(self._name, state=state)
        finally:
            self._site.running -= 1


class Site:
    """A source of images in memory."""

    def __init__(self, lost: Sequence[str] = (), evicted: Sequence[str] = ()) -> None:
        self.lost = lost
        self.evicted = [Digest.of(each.encode()) for each in evicted]
        self.running = self.most = 0

    def pull(self, repository: Repository, reference: Tag | Digest) -> OnePull:
        return OnePull(self, f"{repository}:{reference}")

    async def tags(self, repository: Repository) -> list[str]:
        if repository.path == "library/refused":
            raise Refused("no list for you")
        return ["1.0", "1.1", "2.0"]

    async def absent(self, digests: Sequence[Digest]) -> list[Digest]:
        return [each for each in digests if each in self.evicted]


def images(*texts: str) -> list[WarmImage]:
    return [parse_image(each, NAMES) for each in texts]


async def resolved(run: WarmRun, *texts: str) -> list[str]:
    found = [each async for each in run.resolve(images(*texts))]
    return [str(each) for each in found if isinstance(each, WarmImage)]


async def test_run_resolves_patterns_and_repetitions() -> None:
    """Each image is pulled once; a pattern that fails, or matches nothing, is a failed image."""
    run = WarmRun(Site(), (Refused,))
    found = await resolved(run, "x:1.*", "x:1.0", "y", "x:>=2", "y", "refused:*", "x:9.*")
    assert found == [
        "docker.io/library/x:1.0",
        "docker.io/library/x:1.1",
        "docker.io/library/y:latest",
        "docker.io/library/x:2.0",
    ]
    assert {each.name: each.reason for each in run.failed} == {
        "docker.io/library/refused:*": "no list for you",
        "docker.io/library/x:9.*": "no tag of the repository matches",
    }


async def test_run_pulls_a_few_images_at_a_time() -> None:
    site = Site(lost=["docker.io/library/c:1"])
    run = WarmRun(site)
    wanted = images(*(f"{letter}:1" for letter in "abcdefgh"))
    steps = [each async for each in run.steps(wanted)]
    assert len(steps) == 16
    assert site.most == IMAGES_AT_A_TIME
    assert {name for name, each in run.results.items() if each.state == "done"} == {
        str(each) for each in wanted if str(each) != "docker.io/library/c:1"
    }
    assert run.missing["docker.io/library/c:1"] == {"layer": "lost"}


async def test_run_that_is_left_closes_its_pulls() -> None:
    site = Site()
    steps = WarmRun(site).steps(images("a:1", "b:1", "c:1", "d:1"))
    async for _ in steps:
        break
    await steps.aclose()
    assert site.running == 0


async def test_run_tells_what_was_evicted_again() -> None:
    """An image is not complete if a later one took its room."""
    run = WarmRun(Site(evicted=["docker.io/library/a:1"]))
    last = [each async for each in run.steps(images("a:1", "b:1"))][-1]
    assert (last.name, last.state) == ("docker.io/library/a:1", "failed")
    assert "too little room" in last.reason
    assert [each.name for each in run.failed] == ["docker.io/library/a:1"]


async def test_run_over_nothing_ends() -> None:
    assert [each async for each in WarmRun(Site()).steps([])] == []

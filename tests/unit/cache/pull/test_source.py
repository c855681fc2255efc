"""Source of pulls: lists of tags, and what is missing."""

from pathlib import Path

import pytest

from mirror.cache.pull.source import names_on
from mirror.cache.pull.walk import Wanted
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.upstream.errors import UpstreamError
from tests.fakes.content import some_layers
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import mirror_of

X = Repository("docker.io", "library/x")


async def test_source_lists_the_tags_of_all_pages(hub: FakeRegistry, tmp_path: Path) -> None:
    hub.page_size = 2
    names = [f"1.{number}" for number in range(7)]
    for name in names:
        hub.add_image("library/x", name, [])
    async with mirror_of(hub, tmp_path, tags={"fresh": 0}) as mirror:
        assert await mirror.service.cache.pulls.source(Wanted()).tags(X) == names
    assert hub.requests("GET", "/tags/list") == 4


@pytest.mark.parametrize(
    ("page", "names"),
    [
        (b'{"tags":["1","../../x","a\\r\\nb","\\u001b[2J",7,null,"a/b","2"]}', ["1", "2"]),
        (b'{"tags":null}', []),
        (b"[" * 200_000, []),
        (b"\xff", []),
    ],
)
def test_pages_of_a_hostile_upstream(page: bytes, names: list[str]) -> None:
    """A name that is no tag is in no request and on no terminal; deep nesting ends no run."""
    assert names_on(page) == names


async def test_source_gives_no_old_list(hub: FakeRegistry, tmp_path: Path) -> None:
    """The tags that are known here are not all there are."""
    hub.add_image("library/x", "t", [])
    async with mirror_of(hub, tmp_path, tags={"fresh": 0}) as mirror:
        source = mirror.service.cache.pulls.source(Wanted())
        assert [each async for each in source.pull(X, Tag("t"))][-1].state == "done"
        hub.fault(Fault(status=500), times=99)
        with pytest.raises(UpstreamError, match="no list of tags"):
            await source.tags(X)


async def test_source_tells_what_is_absent(hub: FakeRegistry, tmp_path: Path) -> None:
    image = hub.add_image("library/x", "t", some_layers(1))
    other = Digest.of(b"other")
    async with mirror_of(hub, tmp_path) as mirror:
        source = mirror.service.cache.pulls.source(Wanted())
        pull = source.pull(X, image.manifest)
        assert [each async for each in pull][-1].state == "done"
        assert await source.absent([*pull.digests(), other]) == [other]

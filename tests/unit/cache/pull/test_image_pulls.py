"""Pulls of the mirror itself."""

from pathlib import Path

from mirror.cache.pull.walk import Wanted
from mirror.oci.reference import Repository, Tag
from tests.fakes.content import some_layers
from tests.fakes.registry import FakeRegistry
from tests.running import mirror_of

X = Repository("docker.io", "library/x")


async def test_pulls_of_an_image_and_of_a_source_are_the_same(hub: FakeRegistry, tmp_path: Path) -> None:
    """The second one finds all here, and asks the upstream for no blob."""
    image = hub.add_image("library/x", "t", some_layers(1))
    async with mirror_of(hub, tmp_path) as mirror:
        pulls = mirror.service.cache.pulls
        assert [each async for each in pulls.pull(X, Tag("t"))][-1].state == "done"
        again = pulls.source(Wanted(budget=pulls.budget(0))).pull(X, Tag("t"))
        assert [each async for each in again][-1].state == "present"
    assert hub.requests("GET", image.layers[0]) == 1

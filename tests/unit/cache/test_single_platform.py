"""The manifest of one platform in the place of a list: outcome, and time for which the answer holds."""

import json

import pytest

from mirror.cache.results import FOREVER, ManifestAnswer, ManifestInfo, Outcome, Staleness
from mirror.cache.single_platform import SinglePlatform
from mirror.oci.digest import Digest
from mirror.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST
from mirror.oci.reference import Repository
from mirror.upstream.errors import Failure, UpstreamError
from tests.fakes.content import descriptor
from tests.fakes.registry import FakeRegistry
from tests.running import Running

REPOSITORY = Repository("docker.io", "library/x")
CHILD = json.dumps({"mediaType": DOCKER_MANIFEST, "layers": []}).encode()


def added_list(hub: FakeRegistry) -> bytes:
    hub.add_manifest("library/x", CHILD, DOCKER_MANIFEST)
    entry = {**descriptor(DOCKER_MANIFEST, CHILD), "platform": {"os": "linux", "architecture": "amd64"}}
    data = json.dumps({"mediaType": DOCKER_LIST, "manifests": [entry]}).encode()
    hub.add_manifest("library/x", data, DOCKER_LIST)
    return data


def chooser(mirror: Running, platform: str = "linux/amd64") -> SinglePlatform:
    return SinglePlatform(mirror.service.cache._manifests, platform)


@pytest.mark.parametrize(
    ("of_list", "first", "second"),
    [
        (Outcome.HIT, Outcome.MISS, Outcome.HIT),
        (Outcome.JOIN, Outcome.MISS, Outcome.JOIN),
        (Outcome.MISS, Outcome.MISS, Outcome.MISS),
        (Outcome.STALE, Outcome.STALE, Outcome.STALE),
    ],
)
async def test_single_platform_is_as_fresh_as_the_list(
    hub: FakeRegistry, mirror: Running, of_list: Outcome, first: Outcome, second: Outcome
) -> None:
    """The tag's time and staleness hold for the child too; the outcome is the costlier of the two."""
    data = added_list(hub)
    staleness = Staleness(5.0, "x") if of_list is Outcome.STALE else None
    found = ManifestAnswer(data, Digest.of(data), DOCKER_LIST, of_list, 7.0, staleness)
    for outcome, ttl in ((first, 0.0), (second, 7.0)):
        answer = await chooser(mirror).get(REPOSITORY, found)
        assert (answer.data, answer.outcome, answer.ttl) == (CHILD, outcome, ttl)
        assert answer.staleness is staleness


async def test_head_of_a_single_platform_fetches_what_the_get_needs(
    hub: FakeRegistry, mirror: Running
) -> None:
    """Type and size of the child are in the list, which is not believed: the child is fetched, once."""
    data = added_list(hub)
    found = ManifestInfo(Digest.of(data), DOCKER_LIST, len(data), Outcome.HIT, FOREVER)
    info = await chooser(mirror).head(REPOSITORY, found)
    assert (info.digest, info.media_type, info.size) == (Digest.of(CHILD), DOCKER_MANIFEST, len(CHILD))
    assert hub.requests("GET") == 2
    assert (await chooser(mirror).head(REPOSITORY, found)).digest == Digest.of(CHILD)
    assert hub.requests("GET") == 2


async def test_platform_that_the_list_lacks(hub: FakeRegistry, mirror: Running) -> None:
    """NOT_FOUND, which no client takes for an outage."""
    data = added_list(hub)
    found = ManifestAnswer(data, Digest.of(data), DOCKER_LIST, Outcome.HIT)
    with pytest.raises(UpstreamError, match=r"no image for linux/riscv64.*there are linux/amd64") as error:
        await chooser(mirror, "linux/riscv64").get(REPOSITORY, found)
    assert error.value.failure is Failure.NOT_FOUND

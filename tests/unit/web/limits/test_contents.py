"""Bounds on what a client is given; tests/contract/test_limits.py has them over a whole mirror."""

from pathlib import Path

import pytest

from mirror.access.limits import Bounds, Limit, Per
from mirror.cache.results import ManifestAnswer, Outcome
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import Repository
from mirror.web.limits.contents import ContentChecks
from mirror.web.limits.refusal import LimitExceeded
from tests.fakes.content import image_manifest
from tests.fakes.registry import FakeRegistry
from tests.running import mirror_of

LIMIT = Limit(1, "guests", Per.CLIENT, Bounds(blob=1000))
APP = Repository("docker.io", "library/app")


def answer(*layers: bytes) -> ManifestAnswer:
    data = image_manifest(b"{}", list(layers))
    return ManifestAnswer(data, Digest.of(data), OCI_MANIFEST, Outcome.HIT)


async def test_largest_blob_is_judged_by_the_manifest_and_by_the_upstream(tmp_path: Path) -> None:
    """A blob of exactly the largest size passes; one byte more does not."""
    checks = ContentChecks((1000, LIMIT), None)
    async with FakeRegistry() as hub, mirror_of(hub, tmp_path) as mirror:
        cache = mirror.service.cache
        await checks.check_manifest(cache, APP, answer(bytes(1000), b"x"))
        with pytest.raises(LimitExceeded):
            await checks.check_manifest(cache, APP, answer(b"x", bytes(1001)))
        await checks.check_blob(cache, APP, hub.add_blob("library/app", bytes(1000)))
        with pytest.raises(LimitExceeded):
            await checks.check_blob(cache, APP, hub.add_blob("library/app", bytes(1001)))


async def test_client_without_bounds_is_given_everything(tmp_path: Path) -> None:
    checks = ContentChecks(None, None)
    async with FakeRegistry() as hub, mirror_of(hub, tmp_path) as mirror:
        await checks.check_manifest(mirror.service.cache, APP, answer(bytes(10**6)))
        await checks.check_blob(mirror.service.cache, APP, Digest.of(b"anything"))
        assert hub.log == []

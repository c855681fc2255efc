"""URLs of blobs in the shared store, by the links of the repository that asks."""

from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.transfer.shared import store_urls
from tests.fakes.registry import FakeRegistry
from tests.unit.transfer.shared.test_shared_words import Site, X, pull_blobs
from tests.wire import get


async def test_store_url_is_for_large_blobs_that_the_repository_links(
    fake: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No URL for a small blob, for a blob that the store lacks, for another repository or upstream."""
    monkeypatch.setattr(store_urls, "LEAST_BYTES", 100_000)
    large, small = b"l" * 100_000, b"s" * 99_999
    image = fake.add_image("library/x", "t", [large, small])
    repository = Repository("docker.io", "library/x")
    site = Site(tmp_path, monkeypatch)
    async with site.mirror(fake.url) as first:  # whose end waits for what is written to the store
        await get(first.address, f"{X}/manifests/t")
        await pull_blobs(first, *image.layers, image.config)
    async with site.mirror(fake.url) as mirror:
        await get(mirror.address, f"{X}/manifests/t")
        assert mirror.service.shared is not None
        urls = mirror.service.shared.urls
        assert await urls.find(repository, image.layers[0]) is not None
        for other, digest in (
            (repository, image.layers[1]),
            (repository, Digest.of(b"absent")),
            (Repository("docker.io", "library/other"), image.layers[0]),
            (Repository("other.test", "library/x"), image.layers[0]),
        ):
            assert await urls.find(other, digest) is None

"""Verdicts about sources; tests/contract/test_integrity.py has the downloads that lead to them."""

from pathlib import Path
from unittest.mock import sentinel

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.service.service import Service
from mirror.transfer.sources.blame import Blame
from tests.running import configured


async def test_blame_of_nobody_asks_all_sources_as_usual(tmp_path: Path) -> None:
    """A blob that was never corrupt has no order of sources of its own."""
    service = await Service.open(configured(tmp_path / "cache", {"docker.io": "http://127.0.0.1:9"}))
    try:
        context = service.cache._blobs._context
        upstream = service.cache._blobs._upstreams["docker.io"]
        repository = Repository("docker.io", "library/x")
        blame = Blame(context, upstream, repository, Digest.of(b"x"))
        assert blame.sources_to_try() == []
        context.corruption.record_culprit(Digest.of(b"x"), sentinel.source)
        assert blame.sources_to_try() == list(upstream.sources)
    finally:
        await service.close()

"""The writer of pushes; `tests/stress/hosted_killing.py` kills it at each step."""

from contextlib import closing
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted.errors import QuotaExceeded
from mirror.store.hosted.hosted_index import HostedIndex
from mirror.store.hosted.push_writer import PushWriter
from mirror.store.hosted.pushes import NO_QUOTAS, Quotas
from tests.hosting import APP


def test_refused_blob_is_left_to_evictions(tmp_path: Path) -> None:
    """The quota is compared once more when the blob is linked: others may have pushed meanwhile."""
    with closing(CacheDirectory(tmp_path)) as folder:
        index = HostedIndex(folder)
        index.names.register(["office"], [])
        writer, digest = PushWriter(folder, index), Digest.of(b"12345")

        def verified() -> VerifiedFile:
            path = folder.partials / "incoming"
            path.write_bytes(b"12345")
            return VerifiedFile(digest, path, 5, retained=True)

        with pytest.raises(QuotaExceeded):
            writer.commit_blob(APP, verified(), Quotas(4, 0))
        assert folder.blobs.retention.totals() == (0, 0)
        assert folder.index.link(APP, digest) is None
        writer.commit_blob(APP, verified(), NO_QUOTAS)
        assert folder.blobs.retention.totals() == (5, 1)
        assert not (folder.partials / "incoming").exists()

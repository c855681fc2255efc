"""Limits of archives."""

from mirror.bundle.archives.limits import DEFAULT
from mirror.oci.manifest import MAX_MANIFEST_BYTES


def test_limits_have_room_for_real_archives() -> None:
    """The largest manifest, layers of 100 GB, an index of 20,000 images."""
    assert DEFAULT.small >= MAX_MANIFEST_BYTES
    assert DEFAULT.entry > 100 * 10**9
    assert DEFAULT.index > 20_000 * 350
    assert DEFAULT.document + DEFAULT.manifests < 100 * 1024 * 1024

"""Tag entries that are not fresh: imported tags are revalidated, and served stale in an outage.

The behaviour of tags that were confirmed once is in tests/unit/cache/test_tags.py.
"""

from pathlib import Path
from typing import Any

import pytest

from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import Repository, Tag
from mirror.store.metadata.index import NEVER, Provenance, TagEntry
from tests.fakes.content import FakeImage
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, serving
from tests.wire import get, head

X = Repository("docker.io", "library/x")
TAG = "/v2/docker.io/library/x/manifests/t"
IMPORTED = Provenance("imported", "usb.tar", 1_700_000_000.0)
# Terms under which a confirmed tag would be served unasked, and none would be served in an outage.
TERMS = {"fresh": "forever", "immutable": ["t"], "stale_if_error": 0}


async def leave_imported(hub: FakeRegistry, folder: Path) -> FakeImage:
    """Leave a cache folder with an image whose tag no upstream has confirmed."""
    image = hub.add_image("library/x", "t", [b"a"])
    async with serving(configured(folder, {"docker.io": hub.url})) as mirror:
        for path in (f"manifests/{image.manifest}", f"blobs/{image.config}", f"blobs/{image.layers[0]}"):
            assert (await get(mirror.address, f"/v2/docker.io/library/x/{path}")).status == 200
        await mirror.settled()
        entry = TagEntry(str(image.manifest), OCI_MANIFEST, len(image.manifest_data), NEVER, IMPORTED)
        await mirror.service._store.metadata.put_tag(X, Tag("t"), entry)
    hub.log.clear()
    return image


async def entry_of(mirror: Running) -> TagEntry | None:
    return await mirror.service._store.metadata.tag(X, Tag("t"))


@pytest.mark.parametrize("terms", [{}, TERMS])
async def test_expired_imported_tag_is_revalidated(
    hub: FakeRegistry, tmp_path: Path, terms: dict[str, Any]
) -> None:
    """The upstream is asked before the first use; its word makes the tag one like any other."""
    image = await leave_imported(hub, tmp_path)
    async with serving(configured(tmp_path, {"docker.io": hub.url}, tags=terms)) as mirror:
        reply = await get(mirror.address, TAG)
        assert (reply.body, "warning" in reply.headers) == (image.manifest_data, False)
        assert hub.requests("HEAD", "manifests/t") == 1
        entry = await entry_of(mirror)
        assert entry is not None
        assert (entry.provenance, entry.confirmed > NEVER) == (None, True)
        assert (await get(mirror.address, TAG)).status == 200
        assert hub.requests("HEAD", "manifests/t") == 1


async def test_expired_imported_tag_that_has_moved(hub: FakeRegistry, tmp_path: Path) -> None:
    """The upstream's manifest counts, not the imported one."""
    await leave_imported(hub, tmp_path)
    moved = hub.add_image("library/x", "t", [b"b"])
    async with serving(configured(tmp_path, {"docker.io": hub.url}, tags=TERMS)) as mirror:
        assert (await get(mirror.address, TAG)).body == moved.manifest_data


@pytest.mark.parametrize("terms", [{}, TERMS])
async def test_expired_imported_tag_in_an_outage(
    hub: FakeRegistry, tmp_path: Path, terms: dict[str, Any]
) -> None:
    """Served stale, with the reason and the date, and without an age; it stays imported."""
    image = await leave_imported(hub, tmp_path)
    async with serving(configured(tmp_path, {"docker.io": hub.url}, tags=terms)) as mirror:
        hub.fault(Fault(status=503), "manifests/t", times=9)
        for method in (get, head):
            reply = await method(mirror.address, TAG)
            assert (reply.status, "age" in reply.headers) == (200, False)
            assert "110 registry-mirror" in reply.headers["warning"]
            assert reply.header("docker-content-digest") == str(image.manifest)
        entry = await entry_of(mirror)
        assert entry is not None
        assert entry.provenance == IMPORTED


@pytest.mark.parametrize("terms", [{}, TERMS])
async def test_expired_imported_tag_offline(hub: FakeRegistry, tmp_path: Path, terms: dict[str, Any]) -> None:
    """Served and listed, marked as imported."""
    image = await leave_imported(hub, tmp_path)
    config = configured(tmp_path, {"docker.io": hub.url}, server={"offline": True}, tags=terms)
    async with serving(config) as mirror:
        reply = await get(mirror.address, TAG)
        assert reply.body == image.manifest_data
        assert (await head(mirror.address, TAG)).status == 200
        listed = await get(mirror.address, "/v2/docker.io/library/x/tags/list")
        assert b'["t"]' in listed.body
    assert hub.log == []

"""The reader of manifests."""

import json
import threading

import pytest
from structlog.testing import capture_logs

from mirror.cache import manifest_reader
from mirror.cache.manifest_reader import ManifestReader
from mirror.oci.digest import Digest
from mirror.oci.manifest import MOST_DESCRIPTORS, OCI_MANIFEST, Manifest, parse_manifest


def image(layers: int) -> bytes:
    names = [
        {"mediaType": "a/b", "digest": str(Digest.of(b"%d" % each)), "size": 1} for each in range(layers)
    ]
    return json.dumps({"schemaVersion": 2, "layers": names}).encode()


async def read(reader: ManifestReader, data: bytes) -> Manifest | None:
    return await reader.read(Digest.of(data), data, OCI_MANIFEST)


async def test_manifest_is_read_once_and_in_a_thread_if_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short manifest is read at once, a long one off the loop; neither is read twice."""
    threads = []

    def counted(data: bytes, media_type: str) -> Manifest:
        threads.append(threading.current_thread())
        return parse_manifest(data, media_type)

    monkeypatch.setattr(manifest_reader, "parse_manifest", counted)
    reader = ManifestReader()
    for layers in (2, 1000):
        for _ in range(3):
            manifest = await read(reader, image(layers))
            assert manifest is not None
            assert len(manifest.children()) == layers
    assert len(threads) == 2
    assert threads[0] is threading.current_thread()
    assert threads[1] is not threading.current_thread()


@pytest.mark.parametrize("layers", [MOST_DESCRIPTORS + 1, 20_000])
async def test_manifest_that_is_too_long_is_said_once(layers: int) -> None:
    """Manifests that are not followed are one line a minute."""
    reader = ManifestReader()
    with capture_logs() as lines:
        assert await read(reader, image(layers)) is None
        assert await read(reader, image(layers + 1)) is None
    assert [each["event"] for each in lines] == ["manifest too long to be followed, served as it is"]
    assert [each["manifests"] for each in lines] == [1]
    assert lines[0]["digest"] == str(Digest.of(image(layers)))


async def test_manifest_that_is_invalid_is_none() -> None:
    """A manifest that does not parse names nothing, and is no line of the log."""
    assert await read(ManifestReader(), b"{") is None

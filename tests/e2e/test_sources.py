"""Upstream with unequal sources beside its own endpoint, some of which fail."""

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.clients import Skopeo
from tests.e2e.conftest import Library
from tests.e2e.images import Image
from tests.e2e.mirror import Mirror
from tests.e2e.origin import Origin, origin
from tests.e2e.processes import wait_until

MIB = 1024 * 1024

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("docker-registry", "nginx", "busybox", "skopeo"),
    pytest.mark.timeout(300),
]


def mirror_with(folder: Path, hub: Origin, other: Origin) -> Mirror:
    """Return the mirror of `hub`, with `other` as a second source."""
    folder.mkdir()
    config = folder / "mirror.toml"
    config.write_text(f'[[upstream]]\nname = "docker.io"\nsources = [{{ url = "{other.url}" }}]\n')
    return Mirror(folder, hub.url, "--config", str(config))


def metric(mirror: Mirror, name: str, source: Origin) -> float:
    label = source.url.partition("://")[2]
    return mirror.metric(f'registry_mirror_source_{name}{{source="{label}",upstream="docker.io"}}')


def sent(source: Origin, image: Image) -> int:
    """Return the bytes of the image's large layer that this source's CDN sent."""
    return sum(count for digest, count, _ in source.downloads() if digest == image.blobs[-1])


def check(folder: Path, image: Image) -> None:
    layer = max(folder.iterdir(), key=lambda path: path.stat().st_size).read_bytes()
    assert f"sha256:{hashlib.sha256(layer).hexdigest()}" == image.blobs[-1]


def test_source_killed_in_mid_blob_is_unnoticed(library: Library, tmp_path: Path) -> None:
    """A fast and a slow source bring a layer; the fast one is killed, and skopeo does not notice."""
    with (
        origin(library.storage, tmp_path / "origin", "limit_rate 1m;") as hub,
        origin(library.storage, tmp_path / "near", "limit_rate 2m;") as near,
        mirror_with(tmp_path / "mirror", hub, near) as mirror,
        ThreadPoolExecutor(1) as pool,
    ):
        pulling = pool.submit(Skopeo(mirror.address).try_copy, library.large.reference, tmp_path / "copy")
        wait_until(
            lambda: mirror.received() > 6 * MIB and metric(mirror, "connections", near) > 0,
            "6 MiB received, and both asked",
        )
        near.cdn.kill()
        near.registry.kill()
        assert pulling.result() == ""
        check(tmp_path / "copy", library.large)
        assert sent(hub, library.large) > 0
        whole = sum(path.stat().st_size for path in (tmp_path / "copy").iterdir())
        assert mirror.received() < whole + 4 * MIB


def test_source_that_corrupts_is_found_out(library: Library, tmp_path: Path) -> None:
    """A client that was cut short asks again and has the right bytes; the source is named and not used."""
    shutil.copytree(library.storage, tmp_path / "wrong")
    encoded = library.large.blobs[-1].removeprefix("sha256:")
    data = tmp_path / "wrong/docker/registry/v2/blobs/sha256" / encoded[:2] / encoded / "data"
    with data.open("r+b") as layer:
        for offset in range(0, data.stat().st_size, MIB):
            layer.seek(offset)
            layer.write(b"wrong")
    with (
        origin(library.storage, tmp_path / "origin", "limit_rate 4m;") as hub,
        origin(tmp_path / "wrong", tmp_path / "corrupt", "limit_rate 8m;") as corrupt,
        mirror_with(tmp_path / "mirror", hub, corrupt) as mirror,
    ):
        skopeo = Skopeo(mirror.address)
        skopeo.try_copy(library.large.reference, tmp_path / "first")
        assert sent(corrupt, library.large) > 0
        skopeo.copy(library.large.reference, tmp_path / "second")
        check(tmp_path / "second", library.large)
        wait_until(lambda: metric(mirror, "wrong_bytes_total", corrupt) == 1, "the source is named")
        assert metric(mirror, "wrong_bytes_total", hub) == 0
        assert metric(mirror, "up", corrupt) == 0
        assert "source sent wrong bytes" in mirror.log.read_text()

"""Interrupted pulls, and origins that fail, as real clients see them."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from tests.contract.test_corrupt_on_disk import flip
from tests.e2e.clients import Skopeo, docker
from tests.e2e.conftest import Library
from tests.e2e.cutter import cutter
from tests.e2e.hub import real_hub
from tests.e2e.mirror import Mirror
from tests.e2e.origin import Origin, origin
from tests.e2e.processes import wait_until

MIB = 1024 * 1024

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("docker-registry", "nginx", "busybox", "skopeo"),
    pytest.mark.timeout(300),
]
needs_docker = pytest.mark.needs("dockerd", "docker", "containerd", "unshare", root=True)


def largest(folder: Path) -> bytes:
    """Return the content of the largest file that skopeo wrote."""
    return max(folder.iterdir(), key=lambda path: path.stat().st_size).read_bytes()


def test_resume_after_kill_in_mid_pull(library: Library, tmp_path: Path) -> None:
    """After kill -9 and a new start the next pull asks only for the missing bytes."""
    with origin(library.storage, tmp_path / "origin", "limit_rate 12m;") as hub:
        mirror = Mirror(tmp_path / "mirror", hub.url)
        skopeo = Skopeo(mirror.address)
        with mirror, ThreadPoolExecutor(1) as pool:
            first = pool.submit(skopeo.try_copy, library.large.reference, tmp_path / "first")
            wait_until(lambda: mirror.received() > 16 * MIB, "16 MiB received")
            mirror.kill()
            assert first.result() != ""
            mirror.start()
            skopeo.copy(library.large.reference, tmp_path / "second")
            resumed = mirror.received()
    layer = largest(tmp_path / "second")
    assert f"sha256:{hashlib.sha256(layer).hexdigest()}" == library.large.blobs[-1]
    # Bytes on their way to the disk are lost; on a busy machine each connection has some.
    assert resumed < len(layer) - 8 * MIB


def test_resume_after_cuts_is_unnoticed(library: Library, tmp_path: Path) -> None:
    """The CDN's connection ends twice after some megabytes; skopeo sees one whole download."""
    with (
        cutter(cuts=2, after=9 * MIB) as cut,
        origin(library.storage, tmp_path / "origin", cdn=cut) as hub,
        Mirror(tmp_path / "mirror", hub.url) as mirror,
    ):
        Skopeo(mirror.address).copy(library.large.reference, tmp_path / "copy")
        layer = largest(tmp_path / "copy")
        assert f"sha256:{hashlib.sha256(layer).hexdigest()}" == library.large.blobs[-1]
        assert cut.used
        # Tokens and redirects have bodies too; no byte of a blob came twice.
        whole = sum(path.stat().st_size for path in (tmp_path / "copy").iterdir())
        assert whole <= mirror.received() < whole + 20_000


def test_cached_image_is_served_without_its_origin(
    library: Library, hub: Origin, mirror: Mirror, tmp_path: Path
) -> None:
    """Registry and CDN are stopped, the mirror is started again, and the image is served all the same."""
    skopeo = Skopeo(mirror.address)
    skopeo.copy(library.small.reference, tmp_path / "first")
    hub.registry.stop()
    hub.cdn.stop()
    mirror.stop()
    mirror.start()
    skopeo.copy(library.small.reference, tmp_path / "second")
    assert sorted(each.name for each in (tmp_path / "first").iterdir()) == sorted(
        each.name for each in (tmp_path / "second").iterdir()
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_corrupt_layer_is_replaced_for_the_client_that_pulls_again(
    library: Library, hub: Origin, tmp_path: Path, workers: int
) -> None:
    """One byte of a layer is wrong on the disk: no operator has to do anything for the pulls after it."""
    mirror = Mirror(tmp_path / "mirror", hub.url, env={"REGISTRY_MIRROR_SERVER_WORKERS": str(workers)})
    skopeo, layer = Skopeo(mirror.address), Digest.parse(library.large.blobs[-1])
    with mirror:
        skopeo.copy(library.large.reference, tmp_path / "first")
        flip(mirror.cache, layer, 20 * MIB)
        failures = [skopeo.try_copy(library.large.reference, tmp_path / f"try{each}") for each in range(3)]
        assert failures[0] != ""
        assert failures[-1] == ""
        assert hashlib.sha256(largest(tmp_path / "try2")).hexdigest() == layer.encoded
        assert mirror.metric('registry_mirror_proofs_total{reason="retry",result="wrong"}') == 1
    assert hub.counts()[str(layer)] >= 2


@needs_docker
def test_fallback_of_docker_to_the_origin(library: Library, hub: Origin, short: Path) -> None:
    """A mirror whose upstream is unreachable answers 404 at once, and Docker asks Docker Hub itself."""
    with (
        Mirror(short / "mirror", "http://127.0.0.1:9") as mirror,
        real_hub(hub, short / "hub") as real,
        docker(short / "docker", [mirror.url], real.wrapper, real.env) as client,
    ):
        client("pull", "small:1")
        assert client.inspect("small:1")["RepoDigests"] == [f"small@{library.small.digest}"]
        assert mirror.metric('registry_mirror_requests_total{kind="manifest",outcome="error"}') >= 1
    assert hub.counts() == dict.fromkeys(library.small.blobs, 1)

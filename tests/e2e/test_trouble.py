"""What goes wrong on the way to an image, and what real clients see of it."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.clients import Skopeo, docker
from tests.e2e.conftest import Library
from tests.e2e.cutter import cutter
from tests.e2e.hub import the_real_hub
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
    """The content of the largest file that skopeo wrote."""
    return max(folder.iterdir(), key=lambda path: path.stat().st_size).read_bytes()


def test_a_mirror_killed_in_mid_pull_goes_on(library: Library, tmp_path: Path) -> None:
    """kill -9 and a new start: the next pull asks only for what is missing."""
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
    # What was on its way to the disk is lost; on a busy machine that is some of each connection's.
    assert resumed < len(layer) - 8 * MIB


def test_an_origin_that_cuts_in_mid_blob_is_unnoticed(library: Library, tmp_path: Path) -> None:
    """Twice the CDN's connection ends after some megabytes; skopeo sees one whole download."""
    with (
        cutter(cuts=2, after=9 * MIB) as cut,
        origin(library.storage, tmp_path / "origin", cdn=cut.port) as hub,
        Mirror(tmp_path / "mirror", hub.url) as mirror,
    ):
        Skopeo(mirror.address).copy(library.large.reference, tmp_path / "copy")
        layer = largest(tmp_path / "copy")
        assert f"sha256:{hashlib.sha256(layer).hexdigest()}" == library.large.blobs[-1]
        assert cut.used
        # Tokens and redirects are answers too; of the blobs no byte came twice.
        whole = sum(path.stat().st_size for path in (tmp_path / "copy").iterdir())
        assert whole <= mirror.received() < whole + 20_000


def test_an_origin_that_is_gone_does_not_matter_for_what_is_cached(
    library: Library, hub: Origin, mirror: Mirror, tmp_path: Path
) -> None:
    """Registry and CDN stopped, and the mirror started again: the image is served all the same."""
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


@needs_docker
def test_docker_goes_to_the_origin_when_the_mirror_has_nothing(
    library: Library, hub: Origin, short: Path
) -> None:
    """A mirror whose upstream is unreachable says 404 at once, and Docker asks Docker Hub itself."""
    with (
        Mirror(short / "mirror", "http://127.0.0.1:9") as mirror,
        the_real_hub(hub, short / "hub") as real,
        docker(short / "docker", [mirror.url], real.wrapper, real.env) as client,
    ):
        client("pull", "small:1")
        assert client.inspect("small:1")["RepoDigests"] == [f"small@{library.small.digest}"]
        assert mirror.metric('registry_mirror_requests_total{kind="manifest",outcome="error"}') >= 1
    assert hub.counts() == dict.fromkeys(library.small.blobs, 1)

"""Pulls by real clients: each blob is downloaded once, and the second pull asks no upstream."""

import hashlib
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clients import Containerd, Docker, Podman, Skopeo, containerd, docker
from tests.e2e.conftest import GIB, Library
from tests.e2e.images import Image
from tests.e2e.mirror import Mirror
from tests.e2e.origin import Origin

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("docker-registry", "nginx", "busybox"),
    pytest.mark.timeout(300),
]
needs_docker = pytest.mark.needs("dockerd", "docker", "containerd", root=True)
needs_containerd = pytest.mark.needs("containerd", "ctr", root=True)


@pytest.fixture
def dock(mirror: Mirror, short: Path) -> Iterator[Docker]:
    with docker(short / "docker", [mirror.url]) as client:
        yield client


@pytest.fixture
def ctr(mirror: Mirror, short: Path) -> Iterator[Containerd]:
    with containerd(short / "containerd", mirror.url) as client:
        yield client


def each_once(hub: Origin, image: Image) -> bool:
    return hub.counts() == dict.fromkeys(image.blobs, 1)


def is_identical(folder: Path, image: Image) -> bool:
    """Compare skopeo's files with the pushed image: names are digests, and files hash to their names."""
    for digest in image.blobs:
        with (folder / digest.removeprefix("sha256:")).open("rb") as file:
            if f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}" != digest:
                return False
    manifest = (folder / "manifest.json").read_bytes()
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}" == image.digest


@needs_docker
def test_docker_pulls_twice(library: Library, hub: Origin, dock: Docker) -> None:
    """The first pull fetches each blob once; the second touches neither registry nor CDN."""
    image = library.small
    dock("pull", image.reference.removeprefix("library/"))
    assert each_once(hub, image)
    found = dock.inspect("small:1")
    assert found["RepoDigests"] == [f"small@{image.digest}"]
    assert tuple(found["RootFS"]["Layers"]) == image.diff_ids
    before = hub.mark()
    dock.forget("small:1")
    dock("pull", "small:1")
    assert hub.mark() == before


@needs_containerd
def test_containerd_pulls_twice(library: Library, hub: Origin, ctr: Containerd) -> None:
    """The second pull by hosts.toml and `ns=` asks no upstream, with nothing left in containerd."""
    reference = f"docker.io/{library.small.reference}"
    ctr.pull(reference)
    assert each_once(hub, library.small)
    assert library.small.digest in ctr("images", "ls")
    before = hub.mark()
    ctr.forget(reference)
    ctr.pull(reference)
    assert hub.mark() == before


@pytest.mark.needs("podman", root=True)
def test_podman_pulls_twice(library: Library, hub: Origin, mirror: Mirror, short: Path) -> None:
    """The second pull by registries.conf asks no upstream."""
    podman = Podman(short / "podman", mirror.address)
    reference = f"docker.io/{library.small.reference}"
    podman.pull(reference)
    assert each_once(hub, library.small)
    before = hub.mark()
    podman("rmi", "--all", "--force")
    podman.pull(reference)
    assert hub.mark() == before
    assert library.small.digest in podman("images", "--digests", "--noheading")


@pytest.mark.needs("skopeo")
def test_skopeo_copies_and_inspects(library: Library, hub: Origin, mirror: Mirror, tmp_path: Path) -> None:
    """Every byte is as it was pushed, twice; an inspection lists the tags."""
    skopeo = Skopeo(mirror.address)
    for name in ("one", "two"):
        skopeo.copy(library.small.reference, tmp_path / name)
        assert is_identical(tmp_path / name, library.small)
    assert each_once(hub, library.small)
    found = skopeo.inspect(library.small.reference)
    assert (found["Digest"], found["RepoTags"]) == (library.small.digest, ["1"])


@needs_docker
def test_index_keeps_its_digest(library: Library, hub: Origin, dock: Docker, ctr: Containerd) -> None:
    """A multi-platform image is known by the digest of its index, and only one platform is fetched."""
    dock("pull", "multi:1")
    assert dock.inspect("multi:1")["RepoDigests"] == [f"multi@{library.index.digest}"]
    fetched = set(hub.counts())
    assert 0 < len(fetched) < len(set(library.index.blobs))
    ctr.pull("docker.io/library/multi:1")
    assert library.index.digest in ctr("images", "ls")
    assert set(hub.counts()) == fetched


@needs_docker
def test_pull_by_digest(library: Library, hub: Origin, dock: Docker) -> None:
    """No tag is needed."""
    dock("pull", f"small@{library.small.digest}")
    assert each_once(hub, library.small)


@needs_docker
def test_duplicate_layers_are_one_blob(library: Library, hub: Origin, dock: Docker) -> None:
    """Shared and duplicate layers are one blob each."""
    assert len(library.many.diff_ids) == 30
    assert len(library.many.blobs) == 29
    dock("pull", "small:1")
    dock("pull", "many:1")
    assert hub.counts() == dict.fromkeys({*library.small.blobs, *library.many.blobs}, 1)
    assert tuple(dock.inspect("many:1")["RootFS"]["Layers"]) == library.many.diff_ids


@pytest.mark.needs("skopeo")
def test_large_layer_of_a_gibibyte(
    library: Library, giant: Image, hub: Origin, mirror: Mirror, tmp_path: Path
) -> None:
    """A layer larger than any buffer on the way is downloaded once, and right."""
    skopeo = Skopeo(mirror.address)
    skopeo.copy(giant.reference, tmp_path / "giant")
    assert is_identical(tmp_path / "giant", giant)
    shutil.rmtree(tmp_path / "giant")
    assert each_once(hub, giant)
    assert GIB <= mirror.received() < GIB + 100_000


@needs_containerd
def test_zstd_layers(library: Library, hub: Origin, ctr: Containerd) -> None:
    """An OCI image with zstd layers passes unchanged, and containerd can unpack it."""
    ctr.pull(f"docker.io/{library.zstd.reference}")
    assert each_once(hub, library.zstd)


@pytest.mark.needs("skopeo")
def test_helm_chart(library: Library, hub: Origin, mirror: Mirror, tmp_path: Path) -> None:
    """An artifact that is no image is cached like one."""
    Skopeo(mirror.address).copy(library.chart.reference, tmp_path / "chart")
    assert is_identical(tmp_path / "chart", library.chart)
    assert each_once(hub, library.chart)


@pytest.mark.needs("debootstrap", "skopeo", root=True)
@needs_docker
def test_debian_from_debootstrap(
    debian: Image, hub: Origin, mirror: Mirror, dock: Docker, tmp_path: Path
) -> None:
    """Docker has the image that debootstrap made, and a second client has it from the cache."""
    dock("pull", "debian:1")
    assert tuple(dock.inspect("debian:1")["RootFS"]["Layers"]) == debian.diff_ids
    Skopeo(mirror.address).copy(debian.reference, tmp_path / "debian")
    assert is_identical(tmp_path / "debian", debian)
    assert each_once(hub, debian)


@pytest.mark.needs("skopeo")
@needs_docker
def test_herd_of_twenty_clients_is_one_download(
    library: Library, hub: Origin, mirror: Mirror, short: Path, tmp_path: Path
) -> None:
    """A herd on a cold cache: each has the whole image, and the origin gave each blob once."""
    skopeo = Skopeo(mirror.address)
    with ExitStack() as stack, ThreadPoolExecutor(20) as pool:
        daemons = [
            stack.enter_context(docker(short / f"docker{number}", [mirror.url])) for number in range(2)
        ]
        pulls: list[Future[Any]] = [pool.submit(daemon, "pull", "large:1") for daemon in daemons]
        copies: list[Future[Any]] = [
            pool.submit(skopeo.copy, library.large.reference, tmp_path / f"copy{number}")
            for number in range(18)
        ]
        for each in (*pulls, *copies):
            each.result()
    assert all(is_identical(tmp_path / f"copy{number}", library.large) for number in range(18))
    # Twenty programs make the machine slow, and the mirror may give up a slow connection: the bytes in its
    # buffers are sent again then. Nothing is downloaded twice.
    counts = hub.counts()
    assert counts.keys() == set(library.large.blobs)
    assert all(1 <= times < 1.25 for times in counts.values()), counts

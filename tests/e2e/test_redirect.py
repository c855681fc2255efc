"""Real clients that are sent to the object store: they follow, and have what was pushed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.clients import Podman, Skopeo, containerd, docker
from tests.e2e.conftest import Library
from tests.e2e.mirror import Mirror
from tests.e2e.origin import Origin
from tests.e2e.processes import wait_until
from tests.engines import BUCKET, Engine, client_of, running, seaweedfs, settings_of

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.needs("docker-registry", "nginx", "busybox", "skopeo"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running(seaweedfs(tmp_path_factory.mktemp("seaweedfs"))) as engine:
        yield engine


@pytest.fixture
def mirror(hub: Origin, store: Engine, tmp_path: Path) -> Iterator[Mirror]:
    """A mirror that sends its clients to the store."""
    settings = settings_of(store)
    secret = settings.secret_key.get_secret_value() if settings.secret_key is not None else ""
    file = tmp_path / "mirror.toml"
    file.write_text(
        f'[shared]\nurl = "{settings.url}"\nendpoint = "{settings.endpoint}"\n'
        f'access_key = "{settings.access_key}"\nsecret_key = "{secret}"\nredirect = ["127.0.0.0/8"]\n'
    )
    with Mirror(tmp_path / "mirror", hub.url, "--config", file) as each:
        yield each


def sent(mirror: Mirror) -> tuple[float, float]:
    """Return how many clients were sent away, and how many came back."""
    line = 'registry_mirror_shared_redirects_total{{outcome="{}"}}'
    return mirror.metric(line.format("sent")), mirror.metric(line.format("refused"))


def has(store: Engine, digest: str) -> bool:
    client = client_of(store)
    encoded = digest.removeprefix("sha256:")
    found = client.list_objects_v2(Bucket=BUCKET, Prefix=f"blobs/sha256/{encoded[:2]}/{encoded}")
    client.close()
    return bool(found.get("KeyCount"))


@pytest.mark.needs("dockerd", "docker", "containerd", "ctr", "podman", root=True)
def test_redirect_is_followed_by_real_clients(
    library: Library, mirror: Mirror, store: Engine, short: Path, tmp_path: Path
) -> None:
    """Each client gets the large layer from the store, and the rest of the image from the mirror."""
    image, skopeo = library.large, Skopeo(mirror.address)
    skopeo.copy(image.reference, tmp_path / "first")
    wait_until(lambda: all(has(store, each) for each in image.blobs), "all blobs in the store")
    assert sent(mirror) == (0, 0)
    skopeo.copy(image.reference, tmp_path / "second")
    assert sent(mirror) == (1, 0)
    reference = f"docker.io/{image.reference}"
    podman = Podman(short / "podman", mirror.address)
    podman.pull(reference)
    assert sent(mirror) == (2, 0)
    with containerd(short / "containerd", mirror.url) as ctr:
        ctr.pull(reference)
        assert image.digest in ctr("images", "ls")
    assert sent(mirror)[0] >= 3
    assert sent(mirror)[1] == 0
    before = sent(mirror)[0]
    with docker(short / "docker", [mirror.url]) as dock:
        dock("pull", image.reference.removeprefix("library/"))
        assert image.digest in str(dock.inspect(image.reference.removeprefix("library/"))["RepoDigests"])
    assert sent(mirror)[0] > before
    assert sent(mirror)[1] == 0

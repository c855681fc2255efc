"""A cache that is smaller than what is pulled through it, and what is pinned in it; with Docker itself."""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.clients import Docker, docker
from tests.e2e.images import Image, Pusher, push_image, tar_of
from tests.e2e.lab import Lab, lab
from tests.e2e.mirror import Mirror
from tests.e2e.origin import unprotected
from tests.e2e.processes import run, wait_until

KIB = 1024

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("docker-registry", "nginx", "ip", "dockerd", "docker", "containerd", root=True),
    pytest.mark.timeout(300),
]

# Size of an image's layer of noise, and of the image.
NOISE = 300 * KIB
SIZE = NOISE + 4 * KIB
COUNT, ROOM = 30, 10


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Image]]:
    """Storage folder with thirty small images, all different."""
    storage, folder = tmp_path_factory.mktemp("storage"), tmp_path_factory.mktemp("push")
    with unprotected(storage, folder) as url:
        to = Pusher(url)
        layers = [tar_of({"noise": random.Random(number).randbytes(NOISE)}) for number in range(COUNT)]
        images = [push_image(to, f"library/n{number}:1", [layer]) for number, layer in enumerate(layers)]
    return storage, images


@pytest.fixture
def hub(many: tuple[Path, list[Image]], short: Path) -> Iterator[Lab]:
    """Origin at the other end of a cable."""
    with lab(many[0], short / "lab") as running:
        yield running


def limited(folder: Path, hub: Lab) -> Mirror:
    """Return a mirror with room for ten of the images."""
    folder.mkdir(exist_ok=True)
    config = folder / "mirror.toml"
    config.write_text(f'[cache]\nmax_size = {ROOM * SIZE}\nmin_free = "0"\nmemory = "0"\n')
    return Mirror(folder, hub.url, "--config", str(config))


def times(hub: Lab, image: Image) -> int:
    """Return how often the layer of an image was sent."""
    layer = image.blobs[-1].removeprefix("sha256:")
    return sum(each.door == "cdn" and layer in each.target for each in hub.passages())


def command(mirror: Mirror, *arguments: str) -> str:
    """Run `registry-mirror` beside the running mirror; return its output."""
    config = mirror.cache.parent / "mirror.toml"
    where = ["--config", str(config), "--cache-dir", str(mirror.cache)]
    return run([sys.executable, "-m", "mirror", *arguments, *where]).stdout


def pull(client: Docker, image: Image) -> None:
    """Pull with Docker, which verifies every byte, and forget the image, so that the next pull asks again."""
    client("pull", image.reference.removeprefix("library/"))
    name = image.reference.removeprefix("library/")
    assert client.inspect(name)["RepoDigests"] == [f"{name.partition(':')[0]}@{image.digest}"]
    assert tuple(client.inspect(name)["RootFS"]["Layers"]) == image.diff_ids
    client.forget(name)


def test_quota_for_ten_of_thirty_images(many: tuple[Path, list[Image]], hub: Lab, short: Path) -> None:
    """All pulls are right, the quota holds, and a pinned image is served when the cable is out.

    Eviction spares blobs that were used in the last half minute; until then the cache is as large as needed.
    """
    _, images = many
    with limited(short / "mirror", hub) as mirror, docker(short / "docker", [mirror.url]) as client:
        command(mirror, "pin", "n0:1")
        for image in images:
            pull(client, image)
        assert json.loads(command(mirror, "ls", "n0:1", "--json"))[0]["complete"]
        wait_until(lambda: mirror.metric("registry_mirror_cache_bytes") <= ROOM * SIZE, "eviction", 120)
        for image in images[1:4]:
            pull(client, image)
        assert times(hub, images[1]) == 2
        before = hub.count()
        hub.net.unplug()
        pull(client, images[0])
        mirror.stop()
        mirror.start()
        pull(client, images[0])
        assert times(hub, images[0]) == 1
        assert hub.count() == before

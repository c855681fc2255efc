"""Fixtures of the end-to-end tests: images in a storage folder, made once, and origins in front of it."""

import random
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.images import (
    Image,
    Pusher,
    push_big,
    push_chart,
    push_image,
    push_index,
    tar_of,
    zstandarded,
)
from tests.e2e.mirror import Mirror
from tests.e2e.origin import Origin, origin, unprotected
from tests.leftovers import short_folder
from tests.programs import program

GIB = 1024**3


@dataclass(frozen=True)
class Library:
    """Images in a registry's storage folder."""

    storage: Path
    small: Image  # busybox and two documents of Debian: Docker schema 2, gzip
    zstd: Image  # the same as OCI with zstd layers
    index: Image  # small for two architectures
    many: Image  # 30 layers, some of them twice, some shared with `small`
    large: Image  # one layer of 40 MiB
    chart: Image


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Small images, pushed once for all tests."""
    storage, folder = tmp_path_factory.mktemp("storage"), tmp_path_factory.mktemp("push")
    busybox = tar_of({"busybox": Path(program("busybox")).read_bytes()})
    documents = [tar_of({f"doc/{path.parent.name}": path.read_bytes()}) for path in _documents(27)]
    noise = random.Random(1).randbytes(40 * 1024 * 1024)
    with unprotected(storage, folder) as url:
        to = Pusher(url)
        base = [busybox, *documents[:2]]
        images = {
            architecture: push_image(to, f"library/multi:{architecture}", [busybox, document])
            for architecture, document in zip(("amd64", "arm64"), documents, strict=False)
        }
        return Library(
            storage=storage,
            small=push_image(to, "library/small:1", base),
            zstd=push_image(to, "library/zstd:1", base, zstandarded, docker=False),
            index=push_index(to, "library/multi:1", images),
            many=push_image(to, "library/many:1", [*base, *documents[2:], documents[5], documents[6]]),
            large=push_image(to, "library/large:1", [busybox, tar_of({"noise": noise})]),
            chart=push_chart(to, "library/chart:1.0.0", tar_of({"chart/Chart.yaml": b"name: chart\n"})),
        )


@pytest.fixture(scope="session")
def debian(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Debian, made by debootstrap from the package mirror that this machine installs from."""
    folder = tmp_path_factory.mktemp("debian")
    suite, mirror = package_source()
    subprocess.run(
        [program("debootstrap"), "--variant=minbase", suite, folder / "root", mirror],
        check=True,
        capture_output=True,
        timeout=280,
    )
    subprocess.run(["tar", "-C", folder / "root", "-cf", folder / "layer.tar", "."], check=True, timeout=280)
    with unprotected(library.storage, folder) as url:
        return push_image(Pusher(url), "library/debian:1", [(folder / "layer.tar").read_bytes()])


@pytest.fixture(scope="session")
def giant(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Image of one layer of 1 GiB: noise, repeated, because making it all would take long."""
    folder = tmp_path_factory.mktemp("giant")
    noise = random.Random(2).randbytes(64 * 1024 * 1024)
    with (folder / "layer.tar").open("wb") as layer:
        for number in range(GIB // len(noise)):
            layer.write(number.to_bytes(8, "big") + noise[8:])
    with unprotected(library.storage, folder) as url:
        image = push_big(Pusher(url), "library/giant:1", folder / "layer.tar")
    (folder / "layer.tar").unlink()
    return image


@pytest.fixture
def short() -> Iterator[Path]:
    """Temporary folder with a short name, for the sockets of clients."""
    with short_folder() as folder:
        yield folder


@pytest.fixture
def hub(library: Library, tmp_path: Path) -> Iterator[Origin]:
    """Origin at full speed."""
    with origin(library.storage, tmp_path / "origin") as running:
        yield running


@pytest.fixture
def mirror(hub: Origin, tmp_path: Path) -> Iterator[Mirror]:
    """Mirror of `hub`."""
    with Mirror(tmp_path / "mirror", hub.url) as running:
        yield running


def _documents(count: int) -> list[Path]:
    """Return text files of Debian's own, in an order that does not change."""
    found = sorted(Path("/usr/share/doc").glob("*/copyright"))
    chosen = [path for path in found if path.is_file() and not path.is_symlink()]
    assert len(chosen) >= count, "this machine has hardly any Debian package installed"
    return chosen[:count]


def package_source() -> tuple[str, str]:
    """Return suite and package mirror from apt's configuration, in either of its formats."""
    text = "\n".join(
        path.read_text()
        for path in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("debian*")))
        if path.exists()
    )
    modern = re.search(r"^URIs:\s*(\S+).*?^Suites:\s*(\S+)", text, re.MULTILINE | re.DOTALL)
    if modern:
        return modern[2], modern[1]
    classic = re.search(r"^deb\s+(?:\[.*?\]\s+)?(\S+)\s+(\S+)", text, re.MULTILINE)
    assert classic is not None, "apt has no Debian mirror configured"
    return classic[2], classic[1]

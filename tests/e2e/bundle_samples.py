"""Bundles of each kind, for the programs that read them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from mirror.bundle.model import ContentDescriptor
from mirror.bundle.plan import make_plan
from mirror.bundle.writer import write
from tests.e2e.processes import run
from tests.fakes.bundles import Shelf
from tests.pinned import pinned

ONE, TWO, MULTI = "ex.test/org/one:1", "ex.test/org/two:1", "ex.test/org/multi:1"


def needs(*names: str) -> pytest.MarkDecorator:
    """Leave a test out where a client is missing: test_pinned_clients_are_installed names the client."""
    missing = [name for name in names if not pinned()[name].installed]
    return pytest.mark.skipif(bool(missing), reason=f"{missing} not installed: .ci/clients")


def tool(name: str, binary: str = "") -> Path:
    return pinned()[name].folder / (binary or name)


def write_bundle(shelf: Shelf, images: Mapping[str, ContentDescriptor], path: Path) -> None:
    with path.open("wb") as file:
        write(make_plan(shelf.contents(images)), shelf.open, file)


def make_bundles(folder: Path) -> Path:
    """Write one bundle of each kind, and return the folder.

    one: an image with a signature. two: two images. tags: an image of two names. digest: an image without a
    tag. multi: an index of two platforms with a signature. sparse: the same, one platform left out. mixed:
    multi and an image. chart: a Helm chart and an image.
    """
    shelf = Shelf()
    image = shelf.runnable({"one": b"1" * 3000})
    shelf.referrer(image, b"signature")
    write_bundle(shelf, {ONE: image}, folder / "one.tar")

    shelf = Shelf()
    image, other = shelf.runnable({"one": b"1" * 3000}), shelf.runnable({"two": b"2" * 3000})
    write_bundle(shelf, {ONE: image, TWO: other}, folder / "two.tar")

    shelf = Shelf()
    image = shelf.runnable({"one": b"1" * 3000})
    write_bundle(shelf, {ONE: image, "ex.test/org/one:2": image}, folder / "tags.tar")
    write_bundle(shelf, {f"ex.test/org/one@{image.digest}": image}, folder / "digest.tar")

    arm = shelf.runnable({"arm": b"a" * 3000}, "arm64")
    index = shelf.index({"amd64": image, "arm64": arm})
    shelf.referrer(index, b"signature")
    write_bundle(shelf, {MULTI: index}, folder / "multi.tar")
    write_bundle(shelf, {MULTI: index, ONE: image}, folder / "mixed.tar")

    shelf = Shelf()
    image, arm = shelf.runnable({"one": b"1" * 3000}), Shelf().runnable({"arm": b"a" * 3000}, "arm64")
    write_bundle(shelf, {MULTI: shelf.index({"amd64": image, "arm64": arm})}, folder / "sparse.tar")

    shelf = Shelf()
    chart = shelf.manifest(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": shelf.layer(
                b'{"name":"c","version":"1.0.0"}', "application/vnd.cncf.helm.config.v1+json"
            ),
            "layers": [shelf.layer(b"chart", "application/vnd.cncf.helm.chart.content.v1.tar+gzip")],
        }
    )
    write_bundle(
        shelf, {"ex.test/org/chart:1": chart, ONE: shelf.runnable({"one": b"1" * 3000})}, folder / "chart.tar"
    )
    return folder


def names_and_digests(path: Path) -> set[tuple[str, str]]:
    """Return names and digests as index.json has them."""
    done = run(["tar", "-xOf", path, "index.json"])
    entries = json.loads(done.stdout)["manifests"]
    return {(each["annotations"]["org.opencontainers.image.ref.name"], each["digest"]) for each in entries}


def digest_of(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"

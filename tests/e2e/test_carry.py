"""Images carried to a lab without a network: mirrors in two network namespaces, and a file between them."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from tests.e2e.clients import Podman, containerd, docker
from tests.e2e.conftest import Library
from tests.e2e.images import Image, Pusher, push_image, push_index, tar_of
from tests.e2e.mirror import Mirror
from tests.e2e.netns import island
from tests.e2e.origin import Origin, unprotected
from tests.e2e.processes import attempt, run
from tests.e2e.test_pull import is_identical
from tests.fakes.bundles import random_bytes
from tests.programs import program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("docker-registry", "nginx", "busybox", "skopeo", "ip", "nsenter", root=True),
    pytest.mark.timeout(600),
]

# Asks a mirror inside the namespace whether it is ready.
PROBE = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=1)"

# Writes what a mirror inside the namespace answers to a URL and an Accept header.
GET = """
import sys, urllib.request as web
request = web.Request(sys.argv[1], headers={"Accept": sys.argv[2]})
sys.stdout.buffer.write(web.urlopen(request).read())
"""

NAME = "library/carried"
MIB = 1024 * 1024


class IslandMirror(Mirror):
    """A mirror in a namespace without a route, with its usual upstreams, which cannot be reached."""

    def __init__(self, folder: Path, enter: tuple[str, ...]) -> None:
        self._enter = enter
        super().__init__(folder, "https://registry-1.docker.io", wrapper=enter)

    def _is_ready(self) -> bool:
        return attempt([*self._enter, sys.executable, "-c", PROBE, f"{self.url}/readyz"]).returncode == 0


@dataclass(frozen=True)
class Lab:
    """Both mirrors: the first one has an origin, the second one is in the lab."""

    first: Mirror
    second: IslandMirror
    enter: tuple[str, ...]
    folder: Path
    push: str

    def command(self, cache: Path, *arguments: str | Path, status: int = 0) -> list[dict[str, Any]]:
        """Run a command on the folder of a mirror; return its events."""
        command = [sys.executable, "-m", "mirror", *arguments, "--cache-dir", cache, "--json"]
        done = attempt(command)
        assert done.returncode == status, done.stdout + done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def export(self, *arguments: str | Path) -> list[Path]:
        """Export at the first mirror; return the files."""
        *_, done = self.command(self.first.cache, "export", "-o", self.folder / "lab.tar", *arguments)
        return [self.folder / name for name in done["files"]]

    def carry(self, files: list[Path], *arguments: str) -> dict[str, str]:
        """Import at the second mirror; return the results of the images."""
        events = self.command(self.second.cache, "import", *files, *arguments)
        return {each["image"]: each["result"] for each in events if each["event"] == "imported"}

    def have(self) -> Path:
        """Return the list of what the second mirror has."""
        path = self.folder / "have.txt"
        with path.open("wb") as file:
            command = [sys.executable, "-m", "mirror", "have", "--cache-dir", str(self.second.cache)]
            subprocess.run(command, stdout=file, check=True)
        return path

    def copy(self, mirror: Mirror, reference: str, to: Path) -> None:
        """Copy an image with all its platforms from a mirror, by skopeo beside that mirror."""
        enter = self.enter if mirror is self.second else ()
        options = ["--insecure-policy", "copy", "--all", "--preserve-digests", "--src-tls-verify=false"]
        run([*enter, program("skopeo"), *options, f"docker://{mirror.address}/{reference}", f"dir:{to}"])


@pytest.fixture
def lab(library: Library, hub: Origin, mirror: Mirror, tmp_path: Path) -> Iterator[Lab]:
    with ExitStack() as stack:
        push = stack.enter_context(unprotected(library.storage, tmp_path))
        enter = stack.enter_context(island())
        second = stack.enter_context(IslandMirror(tmp_path / "second", enter))
        (tmp_path / "usb").mkdir()
        yield Lab(mirror, second, enter, tmp_path / "usb", push)


def push_signed(to: Pusher, tag: str, layers: dict[str, bytes]) -> tuple[Image, str]:
    """Push an index of two platforms that share a layer, with a signature of either kind."""
    shared = tar_of({"busybox": Path(program("busybox")).read_bytes()})
    images = {
        arch: push_image(to, f"{NAME}:{tag}-{arch}", [shared, tar_of({arch: data})])
        for arch, data in layers.items()
    }
    index = push_index(to, f"{NAME}:{tag}", images)
    encoded = index.digest.removeprefix("sha256:")
    push_image(to, f"{NAME}:sha256-{encoded}.sig", [tar_of({"signature": encoded.encode()})], docker=False)
    return index, attach(to, index)


def attach(to: Pusher, index: Image) -> str:
    """Push a referrer, listed under the tag that takes the place of the referrers API; return its digest."""
    size = len(json.dumps({}))
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": to.blob(NAME, b"{}"), "size": size}
    sbom = json.dumps({"of": index.digest}).encode()
    layer = {"mediaType": "application/json", "digest": to.blob(NAME, sbom), "size": len(sbom)}
    subject = {"mediaType": OCI_INDEX, "digest": index.digest, "size": _size(to, index.digest)}
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "test/sbom",
        "config": config,
        "layers": [layer],
        "subject": subject,
    }
    data = json.dumps(manifest).encode()
    digest = to.manifest(NAME, f"sbom-{index.tag}", manifest)
    entry = {"mediaType": OCI_MANIFEST, "digest": digest, "size": len(data), "artifactType": "test/sbom"}
    listed = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    to.manifest(NAME, f"sha256-{index.digest.removeprefix('sha256:')}", listed)
    return digest


def _size(to: Pusher, digest: str) -> int:
    headers = {"Accept": OCI_INDEX}
    request = urllib.request.Request(f"{to.url}/v2/{NAME}/manifests/{digest}", headers=headers, method="HEAD")
    with urllib.request.urlopen(request) as response:
        return int(response.headers["Content-Length"])


def fill(lab: Lab, index: Image) -> None:
    """Pull an image with all its platforms and what refers to it through the first mirror."""
    encoded = index.digest.removeprefix("sha256:")
    for tag in (index.tag, f"sha256-{encoded}.sig"):
        lab.copy(lab.first, f"{NAME}:{tag}", lab.folder.parent / f"filled-{tag}")
    body = get(f"{lab.first.url}/v2/{NAME}/referrers/{index.digest}")
    for entry in json.loads(body)["manifests"]:
        manifest = json.loads(get(f"{lab.first.url}/v2/{NAME}/manifests/{entry['digest']}"))
        for blob in (manifest["config"], *manifest["layers"]):
            get(f"{lab.first.url}/v2/{NAME}/blobs/{blob['digest']}")


def get(url: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": OCI_MANIFEST})) as response:
        body: bytes = response.read()
    return body


def get_inside(lab: Lab, path: str) -> bytes:
    """Get a path of the second mirror, inside its namespace."""
    command = [*lab.enter, sys.executable, "-c", GET, f"{lab.second.url}/v2/{NAME}/{path}", OCI_MANIFEST]
    return subprocess.run(command, check=True, capture_output=True).stdout


def test_carry_images_to_a_lab(lab: Lab, tmp_path: Path) -> None:
    """All platforms and signatures arrive, byte for byte, and a second round carries one layer.

    The second mirror runs meanwhile. Nothing in its namespace can reach the origin.
    """
    to = Pusher(lab.push)
    assert run([*lab.enter, program("ip"), "route"]).stdout == ""
    layers = {"amd64": random_bytes(3 * MIB, 1), "arm64": random_bytes(2 * MIB, 2)}
    index, sbom = push_signed(to, "1", layers)
    fill(lab, index)
    files = lab.export(f"{NAME}:1", "--platform", "all", "--lacking", lab.have(), "--split", "4MiB")
    assert len(files) > 1
    assert all(each.stat().st_size < 4 * MIB for each in files)
    assert lab.command(lab.second.cache, "import", files[-1], status=1)[-1]["result"] == "lacking"
    results = lab.carry(files, "--pin")
    assert results[f"docker.io/{NAME}:1"] == "imported"

    lab.copy(lab.second, f"{NAME}:1", tmp_path / "carried")
    assert is_identical(tmp_path / "carried", index)
    filled = {each.name: each.read_bytes() for each in (tmp_path / "filled-1").iterdir()}
    assert {each.name: each.read_bytes() for each in (tmp_path / "carried").iterdir()} == filled
    encoded = index.digest.removeprefix("sha256:")
    lab.copy(lab.second, f"{NAME}:sha256-{encoded}.sig", tmp_path / "signature")
    (listed,) = json.loads(get_inside(lab, f"referrers/{index.digest}"))["manifests"]
    assert (listed["digest"], listed["artifactType"]) == (sbom, "test/sbom")
    assert get_inside(lab, f"manifests/{sbom}") == get(f"{lab.first.url}/v2/{NAME}/manifests/{sbom}")

    changed, _ = push_signed(to, "2", {**layers, "arm64": random_bytes(2 * MIB, 3)})
    fill(lab, changed)
    (delta,) = lab.export(f"{NAME}:2", "--platform", "all", "--lacking", lab.have())
    report = json.loads(run([sys.executable, "-m", "mirror", "bundle", "ls", delta, "--json"]).stdout)
    # The layer, in gzip, is hardly larger than the noise in it; configs, manifests and signatures are small.
    assert 2 * MIB < report["bytes"] < 2 * MIB + 32 * 1024
    assert delta.stat().st_size < 2 * MIB + 96 * 1024
    assert lab.carry([delta])[f"docker.io/{NAME}:2"] == "imported"
    lab.copy(lab.second, f"{NAME}:2", tmp_path / "changed")
    assert is_identical(tmp_path / "changed", changed)


@pytest.mark.needs("dockerd", "docker", "containerd", "ctr", "podman", root=True)
def test_carry_to_clients(lab: Lab, library: Library, short: Path) -> None:
    """Docker, containerd and podman pull offline what was carried, from the running mirror."""
    for image in (library.small, library.index, library.zstd):
        lab.copy(lab.first, image.reference, short / image.name.replace("/", "-"))
    lab.carry(lab.export("small:1", "multi:1", "zstd:1"))
    with docker(short / "docker", [lab.second.url], wrapper=lab.enter) as dock:
        for name in ("small:1", "multi:1"):
            assert dock.try_pull(name) == ""
        assert tuple(dock.inspect("small:1")["RootFS"]["Layers"]) == library.small.diff_ids
    with containerd(short / "containerd", lab.second.url, wrapper=lab.enter) as ctr:
        for image in (library.small, library.index, library.zstd):
            ctr.pull(f"docker.io/{image.reference}")
    podman = Podman(short / "podman", lab.second.address, wrapper=lab.enter)
    for image in (library.small, library.index):
        podman.pull(f"docker.io/{image.reference}")


@pytest.mark.needs("podman", root=True)
def test_carry_the_storage_of_a_registry(lab: Lab, library: Library, short: Path, tmp_path: Path) -> None:
    """The folder of a registry of distribution becomes the cache: each tag is served, byte for byte."""
    results = lab.carry([library.storage])
    for image in (library.small, library.zstd, library.index, library.many, library.chart):
        assert results[f"docker.io/{image.reference}"] == "imported"
        lab.copy(lab.second, image.reference, tmp_path / image.name.replace("/", "-"))
        if image is not library.index:
            assert is_identical(tmp_path / image.name.replace("/", "-"), image)
    podman = Podman(short / "podman", lab.second.address, wrapper=lab.enter)
    podman.pull(f"docker.io/{library.small.reference}")

"""Signatures and other artifacts of images, by the tools that ask for them: oras and cosign.

The upstream has no referrers API: both fall back to tags there, and find the same through the mirror, which
answers in place of the API.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.images import Image, Pusher, push_image, tar_of
from tests.e2e.matrix.stage import OTHER, Stage, Weather, stage
from tests.e2e.matrix.tools import tool
from tests.e2e.origin import unprotected
from tests.e2e.processes import run
from tests.leftovers import short_folder
from tests.pinned import pinned

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("docker-registry", "nginx", root=True),
    pytest.mark.timeout(300),
]

IMAGES = ("attached", "bare")
WEATHERS = (Weather.FAIR, Weather.DOWN, Weather.OFFLINE)


def needs(name: str) -> pytest.MarkDecorator:
    """Leave a test out where a client is missing: test_pinned_clients_are_installed names the client."""
    return pytest.mark.skipif(not pinned()[name].installed, reason=f"{name} is not installed")


@dataclass
class Shelf:
    """Images: one with an artifact and a signature, one with neither. `direct` is what oras sees upstream."""

    stage: Stage
    images: dict[str, Image]
    direct: dict[str, set[str]]
    folder: Path

    def reference(self, name: str) -> str:
        return f"{self.stage.address}/{OTHER}/{self.images[name].name}:1"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    storage, folder = tmp_path_factory.mktemp("storage"), tmp_path_factory.mktemp("push")
    with unprotected(storage, folder) as url:
        to, host = Pusher(url), url.removeprefix("http://")
        images = {
            name: push_image(to, f"library/{name}:1", [tar_of({"name": name.encode()})], docker=False)
            for name in IMAGES
        }
        (folder / "sbom.json").write_text('{"packages": []}')
        attach: list[str | Path] = [tool("oras"), "attach", "--plain-http", "--disable-path-validation"]
        file = f"{folder}/sbom.json:application/json"
        run([*attach, "--artifact-type=test/sbom", f"{host}/library/attached:1", file])
        if pinned()["cosign"].installed:
            sign(f"{host}/library/attached@{images['attached'].digest}", folder)
        direct = {name: discovered(f"{host}/library/{name}:1") for name in IMAGES}
    with short_folder() as short, stage(storage, short) as running:
        yield Shelf(running, images, direct, folder)


def discovered(reference: str) -> set[str]:
    """Return the digests of the referrers that oras finds."""
    found = run([tool("oras"), "discover", "--plain-http", "--format=json", reference]).stdout
    return {each["digest"] for each in json.loads(found).get("referrers") or ()}


def sign(reference: str, folder: Path) -> None:
    """Make a key without a password, and sign; nothing is written to a public log."""
    env = {"COSIGN_PASSWORD": "", "HOME": str(folder)}
    key = f"--output-key-prefix={folder}/cosign"
    run([tool("cosign"), "generate-key-pair", key], env)
    options = ["--yes", "--tlog-upload=false", "--use-signing-config=false", f"--key={folder}/cosign.key"]
    run([tool("cosign"), "sign", *options, reference], env)


@needs("oras")
@pytest.mark.parametrize("weather", WEATHERS)
def test_oras_discovers_what_it_discovers_upstream(shelf: Shelf, tmp_path: Path, weather: Weather) -> None:
    """An image with referrers shows them, one without shows none, also a second time without the upstream."""
    shelf.stage.become(Weather.FAIR)
    assert (bool(shelf.direct["attached"]), shelf.direct["bare"]) == (True, set())
    for name in IMAGES:
        # oras asks for the manifest with a HEAD only, and what is not wholly here is not served stale.
        pull: list[str | Path] = [tool("oras"), "copy", "--from-plain-http", "--to-oci-layout"]
        run([*pull, shelf.reference(name), f"{tmp_path}:1"])
        discovered(shelf.reference(name))
    shelf.stage.become(weather)
    for name in IMAGES:
        assert discovered(shelf.reference(name)) == shelf.direct[name]


@needs("oras")
@pytest.mark.parametrize("weather", WEATHERS)
@pytest.mark.parametrize("name", IMAGES)
def test_oras_copies_an_image_with_its_referrers(
    shelf: Shelf, tmp_path: Path, name: str, weather: Weather
) -> None:
    """A recursive copy has the image and each artifact, also a second time without the upstream."""
    shelf.stage.become(Weather.FAIR)
    copy: list[str | Path] = [tool("oras"), "copy", "--recursive", "--from-plain-http", "--to-oci-layout"]
    run([*copy, shelf.reference(name), f"{tmp_path / 'first'}:1"])
    shelf.stage.become(weather)
    run([*copy, shelf.reference(name), f"{tmp_path / 'second'}:1"])
    for digest in (shelf.images[name].digest, *shelf.direct[name]):
        assert (tmp_path / "second/blobs/sha256" / digest.removeprefix("sha256:")).is_file()


@needs("oras")
@needs("cosign")
@pytest.mark.parametrize("weather", WEATHERS)
def test_cosign_verifies_a_signature(shelf: Shelf, weather: Weather) -> None:
    """A signature is found and right, first online and then without the upstream."""
    shelf.stage.become(Weather.FAIR)
    options = [f"--key={shelf.folder}/cosign.pub", "--insecure-ignore-tlog=true"]
    verify: list[str | Path] = [tool("cosign"), "verify", *options, shelf.reference("attached")]
    env = {"HOME": str(shelf.folder)}
    run(verify, env)
    shelf.stage.become(weather)
    found = json.loads(run(verify, env).stdout)
    assert found[0]["critical"]["image"]["docker-manifest-digest"] == shelf.images["attached"].digest

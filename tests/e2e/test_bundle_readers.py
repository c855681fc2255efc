"""Bundles in the hands of other programs: the table of docs/bundles.md, row by row."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bundle_samples import MULTI, ONE, TWO, digest_of, make_bundles, names_and_digests, needs, tool
from tests.e2e.clients import Docker, Podman, docker
from tests.e2e.matrix.daemons import NEW, OLD, start_containerd
from tests.e2e.origin import unprotected
from tests.e2e.processes import attempt, run
from tests.programs import program

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# The images that each program finds in each bundle; None: it fails, and says so.
Expected = Mapping[str, set[str] | None]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one bundle of each kind."""
    return make_bundles(tmp_path_factory.mktemp("bundles"))


def found_by(load: Any, bundles: Path, expected: Expected) -> None:
    """Load each bundle and compare; all differences are shown together."""
    found = {name: load(bundles / f"{name}.tar") for name in expected}
    assert found == expected


DOCKER: Expected = {
    "one": {ONE},
    "two": {ONE, TWO},
    "tags": {ONE, "ex.test/org/one:2"},
    "digest": {"<none>"},
    "multi": None,
    "sparse": {MULTI},
    "mixed": None,
    "chart": {ONE},
}


def docker_load(client: Docker, path: Path) -> set[str] | None:
    env = {"DOCKER_HOST": client.socket, "DOCKER_CONFIG": str(client.folder / "client")}
    done = attempt([program("docker"), "load", "--input", path], env)
    names = {*client("images", "--format", "{{.Repository}}:{{.Tag}}").split()}
    for each in {*client("images", "--quiet").split()}:
        client("rmi", "--force", each)
    return {name.replace("<none>:<none>", "<none>") for name in names} if done.returncode == 0 else None


@pytest.mark.needs("dockerd", root=True)
def test_docker_loads_bundles(bundles: Path, short: Path) -> None:
    """Debian's dockerd reads manifest.json alone."""
    with docker(short / "docker", []) as client:
        found_by(lambda path: docker_load(client, path), bundles, DOCKER)


@needs("dockerd")
@pytest.mark.needs("docker", "containerd", root=True)
@pytest.mark.parametrize("store", ["graph driver", "containerd"])
def test_new_docker_loads_bundles(bundles: Path, short: Path, store: str) -> None:
    """Moby reads index.json with containerd's store."""
    features = {"containerd-snapshotter": store == "containerd"}
    storage = "native" if store == "containerd" else "vfs"
    with docker(short / "docker", [], daemon=tool("dockerd"), storage=storage, features=features) as client:
        several = {"multi": {MULTI}, "mixed": {MULTI, ONE}, "digest": {"ex.test/org/one:<none>"}}
        expected = {**DOCKER, **(several if store == "containerd" else {})}
        found_by(lambda path: docker_load(client, path), bundles, expected)


@pytest.mark.needs("podman", root=True)
def test_podman_loads_bundles(bundles: Path, short: Path) -> None:
    """index.json for one image, manifest.json for several."""
    podman = Podman(short / "podman", "127.0.0.1:1")

    def load(path: Path) -> set[str] | None:
        policy = str(short / "podman" / "policy.json")
        try:
            podman("load", "--signature-policy", policy, "--input", str(path))
        except AssertionError:
            return None
        names = {*podman("images", "--format", "{{.Repository}}:{{.Tag}}").split()}
        podman("rmi", "--all", "--force")
        return names

    found_by(
        load,
        bundles,
        {
            "one": {ONE},
            "two": {ONE, TWO},
            "tags": {ONE, "ex.test/org/one:2"},
            "digest": {"ex.test/org/one:<none>"},
            "multi": {MULTI},
            "sparse": {MULTI},
            "mixed": None,
            "chart": {ONE},
        },
    )


VERSIONS = [OLD, pytest.param(NEW, marks=needs("containerd"))]


class Nowhere:
    """The address of a mirror that is not needed: nothing is pulled."""

    address = "127.0.0.1:1"


@pytest.mark.needs("containerd", "ctr", root=True)
@pytest.mark.parametrize(
    "version", [OLD, pytest.param(NEW, marks=needs("containerd"))], ids=["debian", "new"]
)
@pytest.mark.parametrize("options", [[], ["--all-platforms"]], ids=["host", "all"])
def test_containerd_imports_bundles(bundles: Path, short: Path, version: int, options: list[str]) -> None:
    """Each image of index.json, by the name that the bundle gives, with its digest."""
    programs = program("containerd"), program("ctr")
    if version == NEW:
        programs = str(tool("containerd")), str(tool("containerd", "ctr"))
    digest = next(iter(names_and_digests(bundles / "digest.tar")))[0]
    with contextmanager(start_containerd)(Nowhere(), short / "c", programs, version) as client:

        def load(path: Path) -> set[str] | None:
            snapshotter = [] if version == NEW else ["--snapshotter", "native"]
            done = attempt(client.command("images", "import", *snapshotter, *options, path))
            rows = [line.split() for line in client("images", "ls").splitlines()[1:]]
            for row in rows:
                client("images", "rm", "--sync", row[0])
            assert {(row[0], row[2]) for row in rows} <= names_and_digests(path)
            return {row[0] for row in rows} if done.returncode == 0 else None

        found_by(
            load,
            bundles,
            {
                "one": {ONE},
                "two": {ONE, TWO},
                "tags": {ONE, "ex.test/org/one:2"},
                "digest": {digest},
                "multi": {MULTI},
                "sparse": {MULTI} if not options else None,
                "mixed": {MULTI, ONE},
                "chart": {ONE},
            },
        )


# The image that is asked for, in each bundle, and whether all of its platforms can be had.
COPIES: dict[str, tuple[str, bool]] = {
    "one": (ONE, True),
    "two": (TWO, True),
    "tags": (ONE, True),
    "multi": (MULTI, True),
    "sparse": (MULTI, False),
    "mixed": (MULTI, True),
    "chart": (ONE, True),
}


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize("name", COPIES)
def test_skopeo_copies_from_bundles(bundles: Path, tmp_path: Path, name: str) -> None:
    """An image by its full name, with the digests that it has; without a name if there is one image."""
    image, complete = COPIES[name]
    skopeo: list[str | Path] = [program("skopeo"), "--insecure-policy", "copy"]
    source = f"oci-archive:{bundles / name}.tar"
    run([*skopeo, f"{source}:{image}", f"dir:{tmp_path / 'host'}"])
    done = attempt([*skopeo, "--all", f"{source}:{image}", f"dir:{tmp_path / 'all'}"])
    assert (done.returncode == 0) == complete
    if complete:
        root = dict(names_and_digests(bundles / f"{name}.tar"))[image]
        assert digest_of(tmp_path / "all" / "manifest.json") == root
    alone = attempt([*skopeo, source, f"dir:{tmp_path / 'alone'}"])
    assert (alone.returncode == 0) == (len(names_and_digests(bundles / f"{name}.tar")) == 1)


@needs("containers-image")
@pytest.mark.parametrize("name", [name for name, (_, complete) in COPIES.items() if complete])
def test_new_skopeo_copies_from_bundles(bundles: Path, tmp_path: Path, name: str) -> None:
    """The library of Podman 6 and Skopeo 1.22, with all platforms."""
    image, _ = COPIES[name]
    run(
        [
            tool("containers-image", "copy"),
            f"oci-archive:{bundles / name}.tar:{image}",
            f"dir:{tmp_path / 'd'}",
        ]
    )
    assert (
        digest_of(tmp_path / "d" / "manifest.json") == dict(names_and_digests(bundles / f"{name}.tar"))[image]
    )


@needs("oras")
@pytest.mark.parametrize("name", COPIES)
def test_oras_copies_from_bundles(bundles: Path, tmp_path: Path, name: str) -> None:
    """oras takes a full name with the path in an option of its own; referrers are in our document alone."""
    image, complete = COPIES[name]
    oras, path = tool("oras"), bundles / f"{name}.tar"
    tags = run([oras, "repo", "tags", "--oci-layout", path]).stdout.split()
    assert set(tags) == {each for each, _ in names_and_digests(path)}
    copy: list[str | Path] = [
        "cp",
        "--from-oci-layout-path",
        path,
        "--to-oci-layout",
        image,
        f"{tmp_path / 'l'}:x",
    ]
    assert (attempt([oras, *copy]).returncode == 0) == complete
    found = run([oras, "discover", "--format", "json", "--oci-layout-path", path, image]).stdout
    assert json.loads(found)["referrers"] == []


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address and the storage folder of a registry."""
    storage = tmp_path_factory.mktemp("storage")
    with unprotected(storage, tmp_path_factory.mktemp("registry")) as url:
        yield url.removeprefix("http://"), storage


@needs("regctl")
@pytest.mark.needs("docker-registry")
@pytest.mark.parametrize("name", COPIES)
def test_regctl_imports_bundles(bundles: Path, registry: tuple[str, Path], name: str) -> None:
    """Images by `--name`, byte for byte; a platform that is left out is an error."""
    (address, _), (image, complete) = registry, COPIES[name]
    command: list[str | Path] = [tool("regctl"), "--host", f"reg={address},tls=disabled"]
    target = f"{address}/regctl/{name}:1"
    done = attempt([*command, "image", "import", "--name", image, target, bundles / f"{name}.tar"])
    assert (done.returncode == 0) == complete, done.stderr
    if complete:
        found = run([*command, "manifest", "head", target]).stdout.strip()
        assert found == dict(names_and_digests(bundles / f"{name}.tar"))[image]


@needs("crane")
@pytest.mark.needs("docker-registry")
@pytest.mark.parametrize(
    ("name", "works"), [("one", True), ("sparse", True), ("two", False), ("multi", False)]
)
def test_crane_pushes_one_image(bundles: Path, registry: tuple[str, Path], name: str, works: bool) -> None:
    """crane reads manifest.json of one image, of which it makes another manifest."""
    target = f"{registry[0]}/crane/{name}:1"
    done = attempt([tool("crane"), "push", "--insecure", bundles / f"{name}.tar", target])
    assert (done.returncode == 0) == works
    if works:
        digests = dict(names_and_digests(bundles / f"{name}.tar")).values()
        assert done.stdout.rpartition("@")[2].strip() not in digests

"""Archives that other programs write, in our reader: the second table of docs/bundles.md, row by row."""

import gzip
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import pytest
import zstandard

from mirror.bundle.archives.archive import Kind
from mirror.bundle.archives.opening import open_archive
from mirror.bundle.errors import Unsupported
from mirror.bundle.graph import Graph
from mirror.oci.digest import Digest
from tests.e2e.bundle_samples import MULTI, ONE, make_bundles, names_and_digests, needs, tool
from tests.e2e.clients import Podman, docker
from tests.e2e.matrix.daemons import OLD, start_buildkitd, start_containerd
from tests.e2e.origin import unprotected
from tests.e2e.processes import attempt, run
from tests.fakes.bundles import Taken
from tests.programs import program

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.needs("skopeo", "docker-registry")]


class Nowhere:
    """The address of a mirror that is not needed: nothing is pulled."""

    address = "127.0.0.1:1"


class Registry:
    """A registry with the images `one` and `multi`, and their digests."""

    def __init__(self, address: str, storage: Path, digests: dict[str, str]) -> None:
        self.address = address
        self.storage = storage
        self.digests = digests


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundles(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def registry(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    storage = tmp_path_factory.mktemp("storage")
    with unprotected(storage, tmp_path_factory.mktemp("registry")) as url:
        address = url.removeprefix("http://")
        push = [program("skopeo"), "--insecure-policy", "copy", "--all", "--dest-tls-verify=false"]
        digests = {}
        for name, image in (("one", ONE), ("multi", MULTI)):
            run([*push, f"oci-archive:{bundles / name}.tar:{image}", f"docker://{address}/org/{name}:1"])
            digests[name] = dict(names_and_digests(bundles / f"{name}.tar"))[image]
        yield Registry(address, storage, digests)


class Seen:
    """All that an archive has, proven."""

    def __init__(self, path: Path) -> None:
        with open_archive(path) as archive:
            self.contents = Taken().take(archive).contents
            self.kind, self.notes = archive.kind, archive.notes
            self.images = {each.name: str(each.root.digest) for each in archive.images}
            self.graph = Graph(archive.manifests)

    def lacking(self) -> set[Digest]:
        """The blobs that a manifest of the archive needs and that are not in it."""
        reach = self.graph.reach(*(Digest.parse(each) for each in self.images.values()))
        assert reach.manifests
        return set(reach.blobs) - set(self.contents)


@pytest.mark.parametrize("name", ["one", "multi"])
@pytest.mark.parametrize("form", ["oci-archive", "oci"])
def test_skopeo_archive_is_read(registry: Registry, tmp_path: Path, name: str, form: str) -> None:
    """Bare tags as names, digests as in the registry."""
    copy = [program("skopeo"), "--insecure-policy", "copy", "--all", "--src-tls-verify=false"]
    run([*copy, f"docker://{registry.address}/org/{name}:1", f"{form}:{tmp_path / 'a'}:v1"])
    seen = Seen(tmp_path / "a")
    assert (seen.kind, seen.images) == (Kind.LAYOUT, {"v1": registry.digests[name]})
    assert seen.lacking() == set()


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_compressed_archive_is_read(bundles: Path, tmp_path: Path, pack: type[bytes]) -> None:
    """The programs that people pipe archives through."""
    path = tmp_path / "a"
    path.write_bytes(pack((bundles / "multi.tar").read_bytes()))
    assert set(Seen(path).images) == {MULTI}


@pytest.mark.parametrize("program_name", ["gzip", "zstd"])
def test_archive_in_a_pipe_is_read(bundles: Path, program_name: str) -> None:
    """`zstd -c bundle.tar | registry-mirror import -`."""
    command = [program(program_name) if program_name == "gzip" else "zstd", "-c", str(bundles / "multi.tar")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as sender:
        assert sender.stdout is not None
        with open_archive(cast("BinaryIO", sender.stdout)) as archive:
            Taken().take(archive)
            assert {each.name for each in archive.images} == {MULTI}
    assert sender.returncode == 0


def test_docker_archive_of_skopeo_is_refused(registry: Registry, tmp_path: Path) -> None:
    """Links, and layers without a manifest: the message says how to get another form."""
    copy = [program("skopeo"), "--insecure-policy", "copy", "--src-tls-verify=false"]
    run([*copy, f"docker://{registry.address}/org/one:1", f"docker-archive:{tmp_path / 'a'}:{ONE}"])
    with pytest.raises(Unsupported, match="docker's old form"):
        Seen(tmp_path / "a")


@needs("crane")
@pytest.mark.parametrize("name", ["one", "multi"])
def test_crane_layout_is_read(registry: Registry, tmp_path: Path, name: str) -> None:
    """Images without a name."""
    image = f"{registry.address}/org/{name}:1"
    run([tool("crane"), "pull", "--insecure", "--format=oci", image, tmp_path / "a"])
    seen = Seen(tmp_path / "a")
    assert set(seen.images) == {""}
    assert seen.lacking() == set()


@needs("crane")
def test_crane_tarball_is_refused(registry: Registry, tmp_path: Path) -> None:
    """Docker's old form, with compressed layers."""
    run([tool("crane"), "pull", "--insecure", f"{registry.address}/org/one:1", tmp_path / "a"])
    with pytest.raises(Unsupported, match="docker's old form"):
        Seen(tmp_path / "a")


@needs("oras")
@pytest.mark.parametrize("name", ["one", "multi"])
def test_oras_layout_is_read(registry: Registry, tmp_path: Path, name: str) -> None:
    """A folder, and a tar of it; the platforms of an index are entries of their own, without a name."""
    copy: list[str | Path] = [tool("oras"), "cp", "--from-plain-http", "--to-oci-layout"]
    run([*copy, f"{registry.address}/org/{name}:1", f"{tmp_path / 'a'}:v1"])
    run(["tar", "-C", tmp_path / "a", "-cf", tmp_path / "a.tar", "."])
    for path in (tmp_path / "a", tmp_path / "a.tar"):
        seen = Seen(path)
        assert seen.images["v1"] == registry.digests[name]
        assert set(seen.images) <= {"v1", ""}
        assert seen.lacking() == set()


@needs("regctl")
@pytest.mark.parametrize("name", ["one", "multi"])
def test_regctl_export_is_read(registry: Registry, tmp_path: Path, name: str) -> None:
    """A hybrid with manifest.json."""
    command: list[str | Path] = [
        tool("regctl"),
        "--host",
        f"reg={registry.address},tls=disabled",
        "image",
        "export",
    ]
    run([*command, f"{registry.address}/org/{name}:1", tmp_path / "a"])
    seen = Seen(tmp_path / "a")
    assert list(seen.images.values()) == [registry.digests[name]]
    assert seen.lacking() == set()


@pytest.mark.needs("containerd", "ctr", root=True)
def test_ctr_export_is_read(bundles: Path, short: Path, tmp_path: Path) -> None:
    """The whole name, the digest as it was imported, and other platforms absent."""
    programs = program("containerd"), program("ctr")
    with contextmanager(start_containerd)(Nowhere(), short / "c", programs, OLD) as client:
        client("images", "import", "--snapshotter", "native", bundles / "sparse.tar")
        client("images", "export", tmp_path / "a", MULTI)
    seen = Seen(tmp_path / "a")
    assert seen.images == dict(names_and_digests(bundles / "sparse.tar"))
    assert seen.lacking() == set()


@pytest.mark.needs("podman", root=True)
@pytest.mark.parametrize("form", ["oci-archive", "docker-archive"])
def test_podman_save_is_read_or_refused(bundles: Path, short: Path, tmp_path: Path, form: str) -> None:
    """The OCI form has other digests than the registry, but whole images."""
    podman = Podman(short / "podman", "127.0.0.1:1")
    policy = str(short / "podman" / "policy.json")
    podman("load", "--signature-policy", policy, "--input", str(bundles / "one.tar"))
    podman("save", "--format", form, "--output", str(tmp_path / "a"), ONE)
    if form == "docker-archive":
        with pytest.raises(Unsupported, match="docker's old form"):
            Seen(tmp_path / "a")
        return
    seen = Seen(tmp_path / "a")
    assert set(seen.images) == {ONE}
    assert seen.lacking() == set()


@pytest.mark.needs("dockerd", root=True)
def test_old_docker_save_is_refused(bundles: Path, short: Path, tmp_path: Path) -> None:
    """Before version 25."""
    with docker(short / "docker", []) as client:
        client("load", "--input", str(bundles / "one.tar"))
        client("save", "--output", str(tmp_path / "a"), ONE)
    with pytest.raises(Unsupported, match="docker's old form"):
        Seen(tmp_path / "a")


@needs("dockerd")
@pytest.mark.needs("docker", "containerd", root=True)
@pytest.mark.parametrize("store", ["graph driver", "containerd"])
def test_new_docker_save_is_read(bundles: Path, short: Path, tmp_path: Path, store: str) -> None:
    """Version 25 and later: an OCI layout, with the registry's digests only from containerd's store."""
    features = {"containerd-snapshotter": store == "containerd"}
    storage = "native" if store == "containerd" else "vfs"
    with docker(short / "docker", [], daemon=tool("dockerd"), storage=storage, features=features) as client:
        client("load", "--input", str(bundles / "one.tar"))
        client("save", "--output", str(tmp_path / "a"), ONE)
    seen = Seen(tmp_path / "a")
    assert set(seen.images) == {ONE}
    assert seen.lacking() == set()
    digests = dict(names_and_digests(bundles / "one.tar"))
    assert (seen.images == digests) == (store == "containerd")


@needs("buildkit")
@pytest.mark.needs("runc", root=True)
@pytest.mark.parametrize("packed", ["true", "false"], ids=["tar", "folder"])
def test_buildkit_output_is_read(short: Path, tmp_path: Path, packed: str) -> None:
    """The full name by containerd's annotation, and a provenance attestation beside the image in an index."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    source = [f"--local={each}={tmp_path}" for each in ("context", "dockerfile")]
    output = f"type=oci,name={ONE},tar={packed},dest={tmp_path / 'a'}"
    with contextmanager(start_buildkitd)(Nowhere(), short / "b") as buildctl:
        more = ["--opt=attest:provenance=mode=min", "--output", output]
        run([*buildctl, "build", "--frontend=dockerfile.v0", *source, *more])
    seen = Seen(tmp_path / "a")
    assert set(seen.images) == {ONE}
    assert seen.lacking() == set()
    (root,) = (Digest.parse(each) for each in seen.images.values())
    assert len(seen.graph.images(root)) == 1
    assert len(seen.graph.reach(root).manifests) == 3


def test_storage_of_distribution_is_read(registry: Registry) -> None:
    """The folder of docker-registry 2.8, while it runs."""
    seen = Seen(registry.storage)
    assert seen.kind is Kind.DISTRIBUTION
    wanted = {f"org/{name}:1": digest for name, digest in registry.digests.items()}
    assert wanted.items() <= seen.images.items()
    assert seen.lacking() == set()
    assert seen.notes == ()


def test_archive_of_two_images_is_read(registry: Registry, tmp_path: Path) -> None:
    """`skopeo copy` into an OCI folder adds images to it."""
    copy = [program("skopeo"), "--insecure-policy", "copy", "--all", "--src-tls-verify=false"]
    for name in registry.digests:
        run([*copy, f"docker://{registry.address}/org/{name}:1", f"oci:{tmp_path / 'a'}:{name}"])
    assert Seen(tmp_path / "a").images == registry.digests


def test_tar_of_files_is_refused(tmp_path: Path) -> None:
    """GNU tar's own archive of something else."""
    (tmp_path / "file").write_text("x")
    assert attempt(["tar", "-C", tmp_path, "-cf", tmp_path / "a.tar", "file"]).returncode == 0
    with pytest.raises(Unsupported, match=r"index\.json"):
        Seen(tmp_path / "a.tar")

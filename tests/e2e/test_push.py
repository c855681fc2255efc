"""Pushes of real clients: each one logs in by the book, pushes, and pulls back what it pushed, byte for byte.

The mirror has free pulls beside pushes that need a login, at one name.
"""

import hashlib
import json
import shutil
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from tests.e2e.clients import POLICY, complaint, containerd, docker
from tests.e2e.conftest import Library
from tests.e2e.matrix.daemons import NEW, start_buildkitd, start_containerd
from tests.e2e.matrix.tools import Command, tool
from tests.e2e.mirror import Mirror
from tests.e2e.origin import Origin
from tests.pinned import pinned
from tests.programs import program
from tests.unit.cli.test_app import run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("docker-registry", "nginx", "busybox", root=True),
    pytest.mark.timeout(300),
]

PASSWORD = "wonder"
CONFIG = """
[access]
htpasswd = "{users}"
login_hosts = ["localhost"]

[[hosted]]
name = "office"

[[rule]]
name = "alice pushes"
effect = "allow"
identities = ["user:alice"]
repositories = ["office/*"]
actions = ["push", "delete"]
"""


@pytest.fixture
def mirror(hub: Origin, tmp_path: Path) -> Iterator[Mirror]:
    users, file = tmp_path / "users", tmp_path / "mirror.toml"
    users.write_text(f"alice:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(5)).decode()}\n")
    file.write_text(CONFIG.format(users=users))
    with Mirror(tmp_path / "mirror", hub.url, "--config", file) as running:
        yield running


class Place:
    """Names of one client: `host` for logins, `source` to pull, `target` to push, `folder` of its own."""

    def __init__(self, mirror: Mirror, library: Library, folder: Path) -> None:
        self.host = self.address = f"localhost:{mirror.port}"
        self.source = f"{self.host}/docker.io/{library.many.reference}"
        self.target = f"{self.host}/office/many:1"
        self.folder = folder
        self.url = mirror.url

    def pushed(self, path: str = "many", tag: str = "1") -> dict[str, Any]:
        """Return the manifest that was pushed, with all that it names read back and verified."""
        found = json.loads(self.read(f"{path}/manifests/{tag}"))
        for each in found.get("manifests", ()):
            self.pushed(path, each["digest"])
        for each in (*found.get("layers", ()), *([found["config"]] if "config" in found else ())):
            data = self.read(f"{path}/blobs/{each['digest']}")
            assert f"sha256:{hashlib.sha256(data).hexdigest()}" == each["digest"]
            assert len(data) == each["size"]
        return dict(found)

    def digest(self, path: str = "many", tag: str = "1") -> str:
        """Return the digest of the manifest that was pushed."""
        return f"sha256:{hashlib.sha256(self.read(f'{path}/manifests/{tag}')).hexdigest()}"

    def read(self, path: str) -> bytes:
        request = urllib.request.Request(f"{self.url}/v2/office/{path}", headers={"Accept": "*/*"})
        with urllib.request.urlopen(request) as answer:
            return bytes(answer.read())


@pytest.fixture
def place(mirror: Mirror, library: Library, short: Path) -> Place:
    return Place(mirror, library, short)


def installed(name: str) -> None:
    if not pinned()[name].installed:
        pytest.skip(f"{name} is not installed")


@pytest.mark.needs("docker", "dockerd")
@pytest.mark.parametrize("newest", [False, True])
def test_docker_pushes_after_a_login_and_not_without(place: Place, newest: bool) -> None:
    if newest:
        installed("dockerd")
    with docker(place.folder / "d", [], daemon=tool("dockerd") if newest else "") as daemon:
        daemon("pull", place.source)
        daemon("tag", place.source, place.target)
        push = [program("docker"), "push", place.target]
        refused = complaint(push, daemon._env)
        assert "log in at" in refused or "denied" in refused or "unauthorized" in refused
        login = [program("docker"), "login", "-u", "alice", "-p", PASSWORD, place.host]
        assert complaint(login, daemon._env) == ""
        assert complaint(push, daemon._env) == ""
        before = daemon.inspect(place.target)["Id"]
        daemon.forget(place.target)
        daemon("pull", place.target)
        assert daemon.inspect(place.target)["Id"] == before
        assert len(place.pushed()["layers"]) > 25
        mirrored = f"{place.host}/docker.io/library/mine:1"
        daemon("tag", place.target, mirrored)
        assert "pull-through mirror" in complaint([program("docker"), "push", mirrored], daemon._env)


@pytest.mark.needs("docker", "dockerd")
def test_image_of_a_docker_daemon_is_copied_after_a_login(place: Place) -> None:
    """`copy` takes an image through the daemon's socket, and pushes it with the login of docker."""
    installed("dockerd")
    login = place.folder / "login.json"
    words = {"auth": b64encode(f"alice:{PASSWORD}".encode()).decode()}
    login.write_text(json.dumps({"auths": {place.host: words}}))
    with docker(place.folder / "d", [], daemon=tool("dockerd")) as daemon:
        daemon("pull", place.source)
        source = ("copy", f"docker-daemon:{place.source}", place.target, "--docker-socket", daemon.socket)
        here = ("--config", "", "--cache-dir", str(place.folder / "none"), "--plain-http")
        refused = run(*source, *here)
        assert refused.returncode == 1
        assert f"log in at {place.host}" in refused.stdout
        done = run(*source, *here, "--authfile", str(login))
        assert (done.returncode, done.stderr) == (0, "")
        config = json.loads(place.read(f"many/blobs/{place.pushed()['config']['digest']}"))
        assert config["rootfs"]["diff_ids"] == daemon.inspect(place.source)["RootFS"]["Layers"]


@pytest.mark.needs("podman")
def test_podman_pushes_what_it_pulled(place: Place) -> None:
    (place.folder / "policy.json").write_text(POLICY)
    stores: list[str | Path] = ["--root", place.folder / "root", "--runroot", place.folder / "run"]
    podman: list[str | Path] = [program("podman"), *stores, "--storage-driver", "vfs", "--cgroup-manager"]
    podman += ["cgroupfs"]
    login = [f"--authfile={place.folder}/auth.json", "--tls-verify=false"]
    policy = f"--signature-policy={place.folder}/policy.json"
    pull = [*podman, "pull", *login[1:], policy]
    assert complaint([*pull, place.source]) == ""
    assert complaint([*podman, "login", *login, "-u", "alice", "-p", PASSWORD, place.host]) == ""
    assert complaint([*podman, "push", *login, policy, place.source, place.target]) == ""
    assert complaint([*podman, "rmi", "--all", "--force"]) == ""
    assert complaint([*pull, place.target]) == ""
    place.pushed()


def test_buildah_builds_and_pushes(place: Place) -> None:
    """An image of its own, in both formats; the second push finds its layers here."""
    if (found := shutil.which("buildah")) is None:
        pytest.skip("buildah is not installed")
    (place.folder / "policy.json").write_text(POLICY)
    stores: list[str | Path] = ["--root", place.folder / "root", "--runroot", place.folder / "run"]
    buildah: list[str | Path] = [found, *stores, "--storage-driver", "vfs"]
    login = [f"--authfile={place.folder}/auth.json", "--tls-verify=false"]
    assert complaint([*buildah, "login", *login, "-u", "alice", "-p", PASSWORD, place.host]) == ""
    (place.folder / "file").write_text("built")
    (place.folder / "Containerfile").write_text("FROM scratch\nCOPY file /\n")
    build = [*buildah, "bud", "--isolation=chroot", "-t", "built", place.folder]
    assert complaint(build) == ""
    push = [*buildah, "push", *login, f"--signature-policy={place.folder}/policy.json"]
    for kind in ("oci", "v2s2"):
        target = f"docker://{place.host}/office/built:{kind}"
        assert complaint([*push, f"--format={kind}", "built", target]) == ""
        assert len(place.pushed("built", kind)["layers"]) == 1


def test_cosign_signs_and_attests(place: Place) -> None:
    """Signature and attestation are referrers of the image; both verify from here."""
    installed("cosign")
    installed("crane")
    auth = b64encode(f"alice:{PASSWORD}".encode()).decode()
    (place.folder / "config.json").write_text(json.dumps({"auths": {place.host: {"auth": auth}}}))
    env = {"DOCKER_CONFIG": str(place.folder), "HOME": str(place.folder), "COSIGN_PASSWORD": ""}
    assert complaint([tool("crane"), "copy", place.source, place.target], env) == ""
    image = f"{place.host}/office/many@{place.digest()}"
    cosign, key = tool("cosign"), f"{place.folder}/cosign"
    assert complaint([cosign, "generate-key-pair", f"--output-key-prefix={key}"], env) == ""
    (place.folder / "sbom.json").write_text('{"packages": []}')
    local = ["--yes", "--tlog-upload=false", "--use-signing-config=false", f"--key={key}.key"]
    assert complaint([cosign, "sign", *local, image], env) == ""
    attest: Command = [
        cosign,
        "attest",
        *local,
        f"--predicate={place.folder}/sbom.json",
        "--type=custom",
        image,
    ]
    assert complaint(attest, env) == ""
    assert len(json.loads(place.read(f"many/referrers/{place.digest()}"))["manifests"]) == 2
    known = [f"--key={key}.pub", "--insecure-ignore-tlog=true"]
    assert complaint([cosign, "verify", *known, image], env) == ""
    assert complaint([cosign, "verify-attestation", *known, "--type=custom", image], env) == ""


@pytest.mark.needs("skopeo")
def test_skopeo_copies_an_index_whole(place: Place, library: Library) -> None:
    login = [program("skopeo"), "login", f"--authfile={place.folder}/auth.json", "--tls-verify=false"]
    assert complaint([*login, "-u", "alice", "-p", PASSWORD, place.host]) == ""
    source = f"docker://{place.host}/docker.io/{library.index.reference}"
    copy: list[str | Path] = [program("skopeo"), "--insecure-policy", "copy", "--all", "--preserve-digests"]
    push = [*copy, "--src-tls-verify=false", "--dest-tls-verify=false"]
    to = f"docker://{place.host}/office/many:1"
    assert complaint([*push, f"--authfile={place.folder}/auth.json", source, to]) == ""
    assert complaint([*copy, "--src-tls-verify=false", to, f"dir:{place.folder}/back"]) == ""
    assert len(place.pushed()["manifests"]) == 2


@pytest.mark.needs("containerd", "ctr")
def test_containerd_pushes_by_mounts_and_puts(place: Place) -> None:
    with containerd(place.folder / "c", "http://127.0.0.1:1") as ctr:
        pull = ("images", "pull", "--plain-http", "--snapshotter", "native")
        ctr(*pull, place.source)
        ctr("images", "tag", place.source, place.target)
        ctr("images", "push", "--plain-http", "--user", f"alice:{PASSWORD}", place.target)
        for each in (place.source, place.target):
            ctr("images", "rm", "--sync", each)
        ctr(*pull, place.target)
        place.pushed()


def test_newest_containerd_pushes(place: Place) -> None:
    """The transfer service pushes, and so does the client itself."""
    installed("containerd")
    programs = tool("containerd"), tool("containerd", "ctr")
    with contextmanager(start_containerd)(place, place.folder / "c", programs, NEW) as ctr:
        pull = ("images", "pull", "--local", "--plain-http", "--snapshotter", "native")
        ctr(*pull, place.source)
        for number, more in enumerate(((), ("--local",))):
            target = f"{place.host}/office/many{number}:1"
            ctr("images", "tag", place.source, target)
            ctr("images", "push", *more, "--plain-http", "--user", f"alice:{PASSWORD}", target)
            ctr("images", "rm", "--sync", target)
            ctr(*pull, target)
            place.pushed(f"many{number}")


def test_crane_and_regctl_copy(place: Place) -> None:
    installed("crane")
    installed("regctl")
    env = {"DOCKER_CONFIG": str(place.folder)}
    crane = tool("crane")
    assert complaint([crane, "auth", "login", place.host, "-u", "alice", "-p", PASSWORD], env) == ""
    assert complaint([crane, "copy", place.source, place.target], env) == ""
    place.pushed()
    env = {"REGCTL_CONFIG": str(place.folder / "regctl.json"), "HOME": str(place.folder)}
    regctl = tool("regctl")
    assert complaint([regctl, "registry", "set", "--tls=disabled", place.host], env) == ""
    assert complaint([regctl, "registry", "login", place.host, "-u", "alice", "-p", PASSWORD], env) == ""
    assert complaint([regctl, "image", "copy", place.source, f"{place.host}/office/second:1"], env) == ""
    place.pushed("second")
    assert complaint([regctl, "tag", "delete", f"{place.host}/office/second:1"], env) == ""


def test_oras_and_helm_push_artifacts(place: Place) -> None:
    installed("oras")
    installed("helm")
    (place.folder / "data.txt").write_text("data")
    config = f"--registry-config={place.folder}/oras.json"
    login = ["login", config, "--plain-http", "-u", "alice", "-p", PASSWORD, place.host]
    assert complaint([tool("oras"), *login]) == ""
    options = [config, "--plain-http", "--disable-path-validation"]
    pushed: Command = [tool("oras"), "push", *options, place.target]
    assert complaint([*pushed, f"{place.folder}/data.txt:text/plain"]) == ""
    attached: Command = [tool("oras"), "attach", *options, "--artifact-type=a/sbom"]
    assert complaint([*attached, place.target, f"{place.folder}/data.txt:text/plain"]) == ""
    listed: Command = [tool("oras"), "discover", config, "--plain-http", place.target]
    assert complaint(listed) == ""
    place.pushed()
    env = {"HOME": str(place.folder)}
    login = ["registry", "login", place.host, "--plain-http", f"--registry-config={place.folder}/helm.json"]
    assert complaint([tool("helm"), *login, "-u", "alice", "-p", PASSWORD], env) == ""
    assert complaint([tool("helm"), "create", place.folder / "chart"], env) == ""
    assert complaint([tool("helm"), "package", place.folder / "chart", "-d", place.folder], env) == ""
    chart = ["--plain-http", f"--registry-config={place.folder}/helm.json"]
    push: Command = [
        tool("helm"),
        "push",
        place.folder / "chart-0.1.0.tgz",
        f"oci://{place.host}/office",
        *chart,
    ]
    assert complaint(push, env) == ""
    (place.folder / "back").mkdir()
    pull: Command = [tool("helm"), "pull", f"oci://{place.host}/office/chart", "--version=0.1.0", *chart]
    assert complaint([*pull, "-d", place.folder / "back"], env) == ""
    original = (place.folder / "chart-0.1.0.tgz").read_bytes()
    assert (place.folder / "back" / "chart-0.1.0.tgz").read_bytes() == original


def test_buildkit_pushes_images_and_its_cache(place: Place) -> None:
    installed("buildkit")
    env = {"DOCKER_CONFIG": str(place.folder)}
    auth = b64encode(f"alice:{PASSWORD}".encode()).decode()
    (place.folder / "config.json").write_text(json.dumps({"auths": {place.host: {"auth": auth}}}))
    context = place.folder / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    with ExitStack() as stack:
        buildctl = stack.enter_context(contextmanager(start_buildkitd)(place, place.folder / "b"))
        build = [*buildctl, "build", "--frontend=dockerfile.v0", f"--local=context={context}"]
        build += [f"--local=dockerfile={context}"]
        output = f"--output=type=image,name={place.target},push=true,registry.insecure=true,compression=zstd"
        cache = f"type=registry,ref={place.host}/office/cache:1,registry.insecure=true"
        assert complaint([*build, output, f"--export-cache={cache},mode=max"], env) == ""
        assert complaint([*build, "--no-cache", f"--import-cache={cache}"], env) == ""
        inline = f"{place.host}/office/inline:1"
        output = f"--output=type=image,name={inline},push=true,registry.insecure=true"
        assert complaint([*build, output, "--export-cache=type=inline"], env) == ""
        assert complaint([*buildctl, "prune", "--all"], env) == ""
        again = f"--import-cache=type=registry,ref={inline},registry.insecure=true"
        assert complaint([*build, again], env) == ""
    place.pushed()
    place.pushed("cache")
    place.pushed("inline")

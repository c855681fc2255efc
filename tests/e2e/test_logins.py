"""Logins and real clients: by the mirror's name each one logs in, and pulls what its user may pull.

The mirror has two names here: `localhost:PORT`, at which clients log in, and `127.0.0.1:PORT`, which a Docker
daemon and containerd have as their mirror, and where no client is ever asked for a password.
"""

import shutil
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from tests.e2e.clients import POLICY, Containerd, Docker, complaint, containerd, docker
from tests.e2e.conftest import Library
from tests.e2e.matrix.daemons import start_buildkitd
from tests.e2e.matrix.tools import Command, tool
from tests.e2e.mirror import PROGRAM, Mirror
from tests.e2e.origin import Origin
from tests.e2e.processes import run, wait_until
from tests.pinned import pinned
from tests.programs import program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("docker-registry", "nginx", "busybox", root=True),
    pytest.mark.timeout(300),
]

PASSWORDS = {"alice": "wonder", "bob": "builder"}
CONFIG = """
[access]
default = "deny"
htpasswd = "{users}"
login_hosts = ["localhost"]

[[rule]]
name = "alice"
effect = "allow"
identities = ["user:alice", "token:runner"]

[[rule]]
name = "for everybody"
effect = "allow"
repositories = ["docker.io/library/many"]
"""


@pytest.fixture
def mirror(hub: Origin, tmp_path: Path) -> Iterator[Mirror]:
    """Run a mirror in which one image is for alice, and one for everybody."""
    users, file = tmp_path / "users", tmp_path / "mirror.toml"
    users.write_text(
        "".join(
            f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(5)).decode()}\n"
            for name, password in PASSWORDS.items()
        )
    )
    file.write_text(CONFIG.format(users=users))
    with Mirror(tmp_path / "mirror", hub.url, "--config", file) as running:
        yield running


@dataclass
class Client:
    """One client: `login` takes user and password, `pull` a reference; both return the complaint, or "".

    `verifies`: a wrong password is found out by `login`, not by the next pull.
    """

    login: Callable[[str, str], str]
    pull: Callable[[str], str]
    verifies: bool = True


@dataclass(frozen=True)
class Named:
    """The mirror by the name at which clients log in."""

    address: str


@dataclass
class Bench:
    """Place of one client: the name for logins, and a folder of its own."""

    host: str
    folder: Path

    def file(self, name: str, text: str = "") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


def of_docker(bench: Bench, daemon: Docker) -> Client:
    return Client(
        lambda user, password: complaint(
            [program("docker"), "login", "-u", user, "-p", password, bench.host], daemon._env
        ),
        daemon.try_pull,
    )


def of_containerd(bench: Bench, ctr: Containerd) -> Client:
    """Keep the login, which `ctr` takes with each pull."""
    known: list[str] = []

    def login(user: str, password: str) -> str:
        known[:] = ["--user", f"{user}:{password}"]
        return ""

    def pull(reference: str) -> str:
        options = ["images", "pull", "--plain-http", "--snapshotter", "native"]
        return complaint(ctr.command(*options, *known, reference))

    return Client(login, pull, verifies=False)


def of_podman(bench: Bench) -> Client:
    login = f"--authfile={bench.folder}/auth.json"
    policy = f"--signature-policy={bench.file('policy.json', POLICY)}"
    stores: list[str | Path] = ["--root", bench.folder / "root", "--runroot", bench.folder / "run"]
    command: list[str | Path] = [program("podman"), *stores, "--storage-driver", "vfs"]
    command += ["--cgroup-manager", "cgroupfs"]
    insecure = "--tls-verify=false"
    return Client(
        lambda user, password: complaint(
            [*command, "login", login, insecure, "-u", user, "-p", password, bench.host]
        ),
        lambda reference: complaint([*command, "pull", login, insecure, policy, reference]),
    )


def of_buildah(bench: Bench) -> Client:
    login = f"--authfile={bench.folder}/auth.json"
    policy = f"--signature-policy={bench.file('policy.json', POLICY)}"
    stores: list[str | Path] = ["--root", bench.folder / "root", "--runroot", bench.folder / "run"]
    command: list[str | Path] = [program("buildah"), *stores, "--storage-driver", "vfs"]
    insecure = "--tls-verify=false"
    return Client(
        lambda user, password: complaint(
            [*command, "login", login, insecure, "-u", user, "-p", password, bench.host]
        ),
        lambda reference: complaint(
            [*command, "pull", "--policy=always", login, insecure, policy, reference]
        ),
    )


def of_skopeo(bench: Bench) -> Client:
    login = f"--authfile={bench.folder}/auth.json"
    return Client(
        lambda user, password: complaint(
            [program("skopeo"), "login", login, "--tls-verify=false", "-u", user, "-p", password, bench.host]
        ),
        lambda reference: complaint(
            [
                *(
                    program("skopeo"),
                    "--insecure-policy",
                    "copy",
                    "--src-authfile",
                    bench.folder / "auth.json",
                ),
                *("--src-tls-verify=false", f"docker://{reference}", f"dir:{bench.folder}/copy"),
            ]
            if (bench.folder / "auth.json").exists()
            else [
                *(program("skopeo"), "--insecure-policy", "copy", "--src-tls-verify=false"),
                *(f"docker://{reference}", f"dir:{bench.folder}/copy"),
            ]
        ),
    )


def of_crane(bench: Bench) -> Client:
    env = {"DOCKER_CONFIG": str(bench.folder)}
    login: Command = [tool("crane"), "auth", "login", bench.host]
    return Client(
        lambda user, password: complaint([*login, "-u", user, "-p", password], env),
        lambda reference: complaint([tool("crane"), "pull", reference, bench.folder / "image.tar"], env),
        verifies=False,
    )


def of_oras(bench: Bench) -> Client:
    config = f"--registry-config={bench.folder}/oras.json"
    login: Command = [tool("oras"), "login", config, "--plain-http"]
    copy: Command = [
        tool("oras"),
        "copy",
        "--from-plain-http",
        f"--from-registry-config={bench.folder}/oras.json",
    ]
    return Client(
        lambda user, password: complaint([*login, "-u", user, "-p", password, bench.host]),
        lambda reference: complaint([*copy, "--to-oci-layout", reference, f"{bench.folder}/layout:1"]),
    )


def of_regctl(bench: Bench) -> Client:
    env = {"REGCTL_CONFIG": str(bench.folder / "regctl.json"), "HOME": str(bench.folder)}
    complaint([tool("regctl"), "registry", "set", "--tls=disabled", bench.host], env)
    login: Command = [tool("regctl"), "registry", "login", bench.host]
    return Client(
        lambda user, password: complaint([*login, "-u", user, "-p", password], env),
        lambda reference: complaint(
            [tool("regctl"), "image", "copy", reference, "ocidir://" + str(bench.folder / "oci")], env
        ),
    )


def of_helm(bench: Bench) -> Client:
    """Pull the chart, for any reference."""
    config = f"--registry-config={bench.folder}/helm.json"
    env = {"HOME": str(bench.folder)}
    chart = f"oci://{bench.host}/docker.io/library/chart"
    login: Command = [tool("helm"), "registry", "login", bench.host, "--plain-http", config]
    pull: Command = [
        tool("helm"),
        "pull",
        chart,
        "--version=1.0.0",
        "--plain-http",
        config,
        "-d",
        bench.folder,
    ]
    return Client(
        lambda user, password: complaint([*login, "-u", user, "-p", password], env),
        lambda reference: complaint(pull, env),
    )


def of_buildkit(bench: Bench, buildctl: list[str | Path]) -> Client:
    """Build from the image alone; the login is in the file of the client, as `docker login` writes it."""
    env = {"DOCKER_CONFIG": str(bench.folder)}

    def login(user: str, password: str) -> str:
        auth = b64encode(f"{user}:{password}".encode()).decode()
        bench.file("config.json", f'{{"auths": {{"{bench.host}": {{"auth": "{auth}"}}}}}}')
        return ""

    def pull(reference: str) -> str:
        file = bench.file("context/Dockerfile", f"FROM {reference}\n")
        source = [f"--local={each}={file.parent}" for each in ("context", "dockerfile")]
        return complaint([*buildctl, "build", "--frontend=dockerfile.v0", "--no-cache", *source], env)

    return Client(login, pull, verifies=False)


TOOLS: dict[str, Callable[[Bench], Client]] = {
    "podman": of_podman,
    "buildah": of_buildah,
    "skopeo": of_skopeo,
    "crane": of_crane,
    "oras": of_oras,
    "regctl": of_regctl,
    "helm": of_helm,
}
DAEMONS = ("docker", "containerd", "buildkit")
NAMES = [each for each in (*DAEMONS, *TOOLS) if each != "buildah"]


@contextmanager
def started(name: str, bench: Bench) -> Iterator[Client]:
    """Run the client, and its daemon if it has one."""
    with ExitStack() as stack:
        if name == "docker":
            yield of_docker(bench, stack.enter_context(docker(bench.folder / "d", [])))
        elif name == "containerd":
            ctr = stack.enter_context(containerd(bench.folder / "c", "http://127.0.0.1:1"))
            yield of_containerd(bench, ctr)
        elif name == "buildkit":
            start = contextmanager(start_buildkitd)
            yield of_buildkit(bench, stack.enter_context(start(Named(bench.host), bench.folder / "b")))
        else:
            yield TOOLS[name](bench)


def skip_missing(name: str) -> None:
    """Skip the test of a client that is not installed, and that no other test needs."""
    pinned_one = name in pinned() and name != "containerd"
    if (pinned_one and not pinned()[name].installed) or (name == "buildah" and not shutil.which(name)):
        pytest.skip(f"{name} is not installed")


def lines(mirror: Mirror, since: int) -> list[dict[str, Any]]:
    """Return the access lines about content, without the first `since`."""
    return [line for line in mirror.lines("") if line.get("kind") in ("manifest", "blob")][since:]


def folder(parent: Path, name: str) -> Path:
    made = parent / name
    made.mkdir()
    return made


def denied(mirror: Mirror, who: str) -> bool:
    """Return whether the mirror has refused content to this client; lines may come late."""
    return [who] in [line.get("identity") for line in lines(mirror, 0) if line["outcome"] == "denied"]


@pytest.mark.needs("docker", "dockerd", "containerd", "ctr", "podman", "skopeo")
@pytest.mark.parametrize("name", [*NAMES, pytest.param("buildah", marks=pytest.mark.nightly)])
def test_client_logs_in_and_pulls_what_its_user_may(
    library: Library, mirror: Mirror, short: Path, name: str
) -> None:
    """A client gets nothing without a login, and nothing with that of another user."""
    skip_missing(name)
    host = f"localhost:{mirror.port}"
    secret = f"{host}/docker.io/{library.small.reference}"
    # Each with a daemon of its own: BuildKit keeps the token of a user for the builds of the next one.
    with started(name, Bench(host, folder(short, "b"))) as client:
        assert client.pull(secret) != ""
        wrong = client.login("alice", "wrong")
        assert (wrong != "") is client.verifies
        assert client.pull(secret) != ""
        assert client.login("bob", PASSWORDS["bob"]) == ""
        assert client.pull(secret) != ""
        wait_until(lambda: denied(mirror, "user:bob"), "the refusal of bob")
        assert {line["outcome"] for line in lines(mirror, 0)} <= {"challenged", "denied"}
    with started(name, Bench(host, folder(short, "a"))) as client:
        assert client.login("alice", PASSWORDS["alice"]) == ""
        assert client.pull(secret) == ""


@pytest.mark.nightly
@pytest.mark.needs("docker", "dockerd", "containerd", "ctr", "podman", "skopeo")
@pytest.mark.parametrize("name", [*NAMES, "buildah"])
def test_client_shows_a_token_in_the_place_of_a_password(
    library: Library, mirror: Mirror, short: Path, name: str
) -> None:
    """A token for another repository opens nothing, and neither does one that was revoked."""
    skip_missing(name)
    host = f"localhost:{mirror.port}"
    tokens: Command = [*PROGRAM, "token"]
    folder_of: Command = ["--cache-dir", mirror.cache]
    limits = {"other": ["--repository", "docker.io/library/none"], "runner": []}
    for token, limit in limits.items():
        secret = run([*tokens, "create", token, *limit, *folder_of]).stdout.strip()
        with started(name, Bench(host, folder(short, token))) as client:
            assert client.login("any", secret) == ""
            # The chart that Helm pulls has no other name.
            assert (client.pull(f"{host}/docker.io/{library.small.reference}") == "") is (token == "runner")
            run([*tokens, "revoke", token, *folder_of])
            assert client.pull(f"{host}/docker.io/{library.small.reference}") != ""


@pytest.mark.needs("docker", "dockerd")
def test_docker_daemon_is_not_challenged_at_the_name_of_its_mirror(
    library: Library, mirror: Mirror, short: Path
) -> None:
    """The daemon pulls what everybody may pull, and is refused as by any mirror, in spite of the login."""
    with docker(short / "d", [mirror.url]) as daemon:
        client = of_docker(Bench(f"localhost:{mirror.port}", short), daemon)
        assert client.login("alice", PASSWORDS["alice"]) == ""
        before = len(lines(mirror, 0))
        assert daemon.try_pull("many:1") == ""
        assert daemon.try_pull("small:1") != ""
        small = "library/small"
        wait_until(lambda: small in [line["repository"] for line in lines(mirror, before)], "the refusal")
        seen = lines(mirror, before)
        assert {line["status"] for line in seen if line["repository"] == small} == {404}
        assert "challenged" not in {line["outcome"] for line in seen}
        assert {line.get("identity") for line in seen} == {None}


@pytest.mark.needs("containerd", "ctr")
@pytest.mark.parametrize("user", ["alice", "bob"])
def test_containerd_sends_the_header_of_its_hosts_file(
    library: Library, mirror: Mirror, short: Path, user: str
) -> None:
    """The mirror takes the header without a challenge; what the rules do not give is a 404."""
    with containerd(short / "c", mirror.url) as ctr:
        login = b64encode(f"{user}:{PASSWORDS[user]}".encode()).decode()
        hosts = short / "c" / "certs.d" / "docker.io" / "hosts.toml"
        header = f'[host."{mirror.url}".header]\nAuthorization = "Basic {login}"\n'
        hosts.write_text(
            f'server = "http://127.0.0.1:1"\n{hosts.read_text().partition(chr(10) * 2)[2]}{header}'
        )
        complained = ctr.try_pull(f"docker.io/{library.small.reference}")
        wait_until(lambda: bool(lines(mirror, 0)), "the first line")
        seen = lines(mirror, 0)
        assert (complained == "") is (user == "alice"), complained
        assert {tuple(line.get("identity", ())) for line in seen} == {(f"user:{user}",)}
        assert "challenged" not in {line["outcome"] for line in seen}

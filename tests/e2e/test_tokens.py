"""Tokens and real clients: each is let in by its secret, kept from the rest, and out after the revocation."""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirror.access.tokens import new_secret
from tests.e2e.bundle_samples import needs, tool
from tests.e2e.clients import POLICY, REGISTRIES, complaint, containerd, docker
from tests.e2e.conftest import Library
from tests.e2e.hub import mounted
from tests.e2e.mirror import PROGRAM, Mirror
from tests.e2e.origin import Origin
from tests.e2e.processes import run, wait_until
from tests.fakes.issuer import AUDIENCE, GITLAB, RSA_KEY, jwk, key_set, signed
from tests.programs import program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("docker-registry", "nginx", "busybox", root=True),
    pytest.mark.timeout(300),
]

# The bearer may have `small`, and nobody anything else. Clients log in at localhost; 127.0.0.1 asks nobody.
RULES = """
[access]
default = "deny"
login_hosts = ["localhost"]

[[rule]]
name = "runner"
effect = "allow"
identities = ["token:runner"]
repositories = ["docker.io/library/small"]
"""


class Guarded:
    """A mirror that one token opens. `secret`: the token's."""

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror
        self.wrong = new_secret()
        self.create()

    @property
    def login_host(self) -> str:
        return f"localhost:{self.mirror.port}"

    def create(self) -> None:
        self.secret = self._token("create", "runner").strip()

    def revoke(self) -> None:
        assert self._token("revoke", "runner") == "revoked runner\n"

    def shows_secret(self) -> bool:
        return any(each[4:40] in self.mirror.log.read_text() for each in (self.secret, self.wrong))

    def _token(self, *arguments: str) -> str:
        return run([*PROGRAM, "token", *arguments, "--cache-dir", self.mirror.cache]).stdout


@pytest.fixture
def guarded(hub: Origin, tmp_path: Path) -> Iterator[Guarded]:
    file = tmp_path / "mirror.toml"
    file.write_text(RULES)
    with Mirror(tmp_path / "guarded", hub.url, "--config", file) as mirror:
        yield Guarded(mirror)


def check(guarded: Guarded, show: Callable[[str], str], pull: Callable[[str], str]) -> None:
    """Go through all secrets that a client may show. `show` and `pull` return the client's complaint."""
    show(guarded.wrong)
    assert pull("small") != ""
    assert show(guarded.secret) == ""
    assert pull("small") == ""
    assert pull("many") != ""
    guarded.revoke()
    assert pull("small") != ""
    assert not guarded.shows_secret()


@pytest.mark.needs("docker")
@needs("dockerd", "containerd")
@pytest.mark.parametrize("store", ["classic", "containerd"])
def test_docker_comes_by_a_secret_path(
    library: Library, guarded: Guarded, tmp_path: Path, short: Path, store: str
) -> None:
    """The daemon has the path in its mirrors; what it may not have there it looks for at Docker Hub."""
    (tmp_path / "hosts").write_text("127.0.0.1 localhost registry-1.docker.io auth.docker.io\n")
    path = f"{tool('containerd').parent}:{os.environ['PATH']}"
    with docker(
        short / "d",
        [f"{guarded.mirror.url}/t/{guarded.secret}/"],
        wrapper=mounted({tmp_path / "hosts": "/etc/hosts"}),
        env={"PATH": path},
        daemon=tool("dockerd"),
        storage="native" if store == "containerd" else "vfs",
        features={"containerd-snapshotter": store == "containerd"},
    ) as client:
        assert client.try_pull(library.small.reference) == ""
        client("image", "rm", "--force", library.small.reference)
        assert client.try_pull(library.many.reference) != ""
        guarded.revoke()
        assert client.try_pull(library.small.reference) != ""
    log = guarded.mirror.log.read_text().splitlines()
    lines = [json.loads(line) for line in log if line.startswith("{")]
    assert any(line.get("identity") == ["token:runner"] for line in lines)
    assert any("was revoked" in str(line.get("note")) for line in lines)
    assert not guarded.shows_secret()


@pytest.mark.needs("podman")
def test_podman_logs_in_with_a_token(library: Library, guarded: Guarded, short: Path) -> None:
    """Podman refuses a wrong login itself, and keeps none."""
    folder = short / "podman"
    folder.mkdir()
    (folder / "policy.json").write_text(POLICY)
    (folder / "auth.json").write_text("{}")
    stores: list[str | Path] = ["--root", folder / "root", "--runroot", folder / "run"]
    command: list[str | Path] = [
        program("podman"),
        *stores,
        "--storage-driver",
        "vfs",
        "--cgroup-manager",
        "cgroupfs",
    ]
    options: list[str | Path] = ["--tls-verify=false", "--authfile", folder / "auth.json"]
    policy: list[str | Path] = ["--signature-policy", folder / "policy.json"]

    def show(secret: str) -> str:
        return complaint([*command, "login", *options, "-u", "me", "-p", secret, guarded.login_host])

    def pull(name: str) -> str:
        reference = f"{guarded.login_host}/docker.io/library/{name}:1"
        return complaint([*command, "pull", *policy, *options, reference])

    assert show(guarded.wrong) != ""
    check(guarded, show, pull)


@pytest.mark.needs("skopeo")
def test_skopeo_logs_in_with_a_token(library: Library, guarded: Guarded, tmp_path: Path) -> None:
    client = LoggedIn(guarded.login_host, tmp_path)
    assert client.show(guarded.wrong) != ""
    check(guarded, client.show, client.pull)


@pytest.mark.needs("skopeo")
def test_skopeo_logs_in_with_a_token_of_a_ci(library: Library, hub: Origin, tmp_path: Path) -> None:
    """The token of a job is a password of some thousand characters; that of another project opens nothing."""
    (tmp_path / "keys").write_bytes(key_set(jwk(RSA_KEY, "one")))
    file = tmp_path / "mirror.toml"
    file.write_text(
        RULES.replace("token:runner", "jwt:ci:project_path=org/app")
        + f'[[issuer]]\nname = "ci"\nissuer = "https://ci.test"\naudience = ["{AUDIENCE}"]\n'
        + f'claims = ["project_path"]\njwks_file = "{tmp_path}/keys"\n'
    )
    with Mirror(tmp_path / "guarded", hub.url, "--config", file) as mirror:
        client = LoggedIn(f"localhost:{mirror.port}", tmp_path)
        assert client.show(job_token(project_path="org/app", exp=1)) != ""
        assert client.show(job_token(project_path="org/other")) == ""
        assert client.pull("small") != ""
        assert client.show(job_token(project_path="org/app")) == ""
        assert client.pull("small") == ""
        assert client.pull("many") != ""
        assert "it expired" in mirror.log.read_text()
        assert "eyJ" not in mirror.log.read_text()


def job_token(**claims: object) -> str:
    now = time.time()
    fixed = {"iss": "https://ci.test", "aud": AUDIENCE, "iat": now, "exp": now + 300, "padding": "x" * 1500}
    return signed({**GITLAB, **fixed, **claims})


class LoggedIn:
    """skopeo with a file of logins. `show` and `pull` return the complaint, "" for none."""

    def __init__(self, host: str, folder: Path) -> None:
        self._host = host
        self._folder = folder
        self._file = folder / "auth.json"
        self._file.write_text("{}")
        self._copies = iter(range(10))

    def show(self, secret: str) -> str:
        options: list[str | Path] = ["--tls-verify=false", "--authfile", self._file]
        return complaint([program("skopeo"), "login", *options, "-u", "me", "-p", secret, self._host])

    def pull(self, name: str) -> str:
        source, target = f"docker://{self._host}/docker.io/library/{name}:1", next(self._copies)
        copy: list[str | Path] = ["--insecure-policy", "copy", "--src-tls-verify=false"]
        copy += ["--src-authfile", self._file]
        return complaint([program("skopeo"), *copy, source, f"dir:{self._folder}/{target}"])


@pytest.mark.needs("skopeo")
def test_skopeo_comes_by_a_secret_path(library: Library, guarded: Guarded, tmp_path: Path) -> None:
    """The secret is a component of the name that the mirror in registries.conf has."""
    (tmp_path / "hosts").write_text("127.0.0.1 localhost registry-1.docker.io auth.docker.io\n")
    conf, copies = tmp_path / "registries.conf", iter(range(10))
    options: list[str | Path] = ["--registries-conf", conf, "--insecure-policy", "copy"]
    command = [*mounted({tmp_path / "hosts": "/etc/hosts"}), program("skopeo"), *options]

    def show(secret: str) -> str:
        conf.write_text(REGISTRIES.format(address=f"{guarded.mirror.address}/t/{secret}/docker.io"))
        return ""

    def pull(name: str) -> str:
        source, target = f"docker://docker.io/library/{name}:1", f"dir:{tmp_path}/{next(copies)}"
        return complaint([*command, source, target])

    check(guarded, show, pull)
    assert {line["upstream"] for line in guarded.mirror.lines("library/small")} == {"docker.io"}


@needs("crane")
def test_crane_logs_in_with_a_token(library: Library, guarded: Guarded, tmp_path: Path) -> None:
    """crane asks nobody whether the login is right: the pull says so."""
    env = {"DOCKER_CONFIG": str(tmp_path / "config"), "PATH": os.environ["PATH"]}

    def show(secret: str) -> str:
        return complaint([tool("crane"), "auth", "login", "-u", "me", "-p", secret, guarded.login_host], env)

    def pull(name: str) -> str:
        image = f"{guarded.login_host}/docker.io/library/{name}:1"
        return complaint([tool("crane"), "pull", "--insecure", image, tmp_path / "image.tar"], env)

    check(guarded, show, pull)


@needs("oras")
def test_oras_logs_in_with_a_token(library: Library, guarded: Guarded, tmp_path: Path) -> None:
    config: list[str | Path] = ["--registry-config", tmp_path / "config.json"]
    copies = iter(range(10))

    def show(secret: str) -> str:
        login = ["login", "--plain-http", *config, "-u", "me", "-p", secret, guarded.login_host]
        return complaint([tool("oras"), *login])

    def pull(name: str) -> str:
        image = f"{guarded.login_host}/docker.io/library/{name}:1"
        copy: list[str | Path] = [
            "copy",
            "--from-plain-http",
            "--from-registry-config",
            tmp_path / "config.json",
        ]
        return complaint([tool("oras"), *copy, "--to-oci-layout", image, f"{tmp_path}/{next(copies)}:1"])

    assert show(guarded.wrong) != ""
    check(guarded, show, pull)


@pytest.mark.needs("containerd", "ctr")
@pytest.mark.parametrize("way", ["header", "path"])
def test_containerd_shows_a_token_unasked(library: Library, guarded: Guarded, short: Path, way: str) -> None:
    """A header of hosts.toml, or the path of the mirror: read at each pull. Nothing else is asked."""
    with containerd(short / "c", guarded.mirror.url) as ctr:
        hosts = short / "c/certs.d/docker.io/hosts.toml"

        def show(secret: str) -> str:
            url = guarded.mirror.url + (f"/t/{secret}" if way == "path" else "")
            header = f'[host."{url}".header]\nAuthorization = "Bearer {secret}"\n' if way == "header" else ""
            host = f'[host."{url}"]\ncapabilities = ["pull", "resolve"]\n'
            hosts.write_text(f'server = "{guarded.mirror.url}/none"\n{host}{header}')
            return ""

        def pull(name: str) -> str:
            found = ctr.try_pull(f"docker.io/library/{name}:1")
            if not found:
                ctr.forget(f"docker.io/library/{name}:1")
            return found

        check(guarded, show, pull)


def test_token_holds_in_all_workers_and_after_a_restart(
    library: Library, hub: Origin, tmp_path: Path
) -> None:
    """A creation and a revocation are obeyed by the next request, whichever worker has it."""
    file = tmp_path / "mirror.toml"
    file.write_text(f"{RULES}\n[server]\nworkers = 2\n")
    with Mirror(tmp_path / "guarded", hub.url, "--config", file) as mirror:
        guarded = Guarded(mirror)
        url = f"{mirror.url}/v2/library/small/manifests/1"

        def statuses() -> set[int]:
            return {status_of(url, guarded.secret) for _ in range(40)}

        def all_workers_have_answered() -> bool:
            assert statuses() == {200}
            return {line["worker"] for line in mirror.lines("library/small")} == {0, 1}

        wait_until(all_workers_have_answered, "answers of both workers")
        guarded.revoke()
        assert statuses() == {401}
        guarded.create()
        assert statuses() == {200}
        mirror.stop()
        mirror.start()
        assert statuses() == {200}
        guarded.revoke()
        mirror.stop()
        mirror.start()
        assert statuses() == {401}


def status_of(url: str, secret: str) -> int:
    """Return the status of a request on a connection of its own."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {secret}"})
    try:
        with urllib.request.urlopen(request) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code

"""Private content of a real registry with tokens: A caches; B, who has no right, gets nothing by any way."""

import base64
import http.client
import json
import random
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.images import Image, Pusher, push_image
from tests.e2e.mirror import PROGRAM, Mirror
from tests.e2e.origin import unprotected
from tests.e2e.processes import attempt, run, wait_until
from tests.e2e.rights import GuardedRegistry, Rights, guarded_registry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.needs("docker-registry")]

SECRET, OPEN = "team/secret", "library/open"
PASSWORDS = {"robot": "robot-canary", "alice": "alice-canary", "bob": "bob-canary"}
A, B = "127.0.0.1", "127.0.0.2"

NAMED = """
[[upstream]]
name = "docker.io"
username = "robot"
password = "robot-canary"
realms = ["{realm}"]

[[rule]]
name = "team"
effect = "allow"
networks = ["127.0.0.1"]
repositories = ["docker.io/team/*"]
"""
AS_UPSTREAM = """
[[upstream]]
name = "docker.io"
private = "as-upstream"
realms = ["{realm}"]
"""


@dataclass
class Answer:
    """One response."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Client:
    """A client at an address, with a header of its own."""

    mirror: Mirror
    address: str
    headers: dict[str, str]

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.mirror.port, timeout=60, source_address=(self.address, 0)
        )
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers={**self.headers, **named})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


@dataclass
class Scene:
    """A registry with an image that A may read, a mirror, and both clients."""

    registry: GuardedRegistry
    mirror: Mirror
    config: Path
    image: Image
    other: Image
    a: Client
    b: Client

    @property
    def layer(self) -> str:
        return self.image.blobs[-1]

    def pull(self, client: Client) -> set[int]:
        """Ask for all of the image, by all kinds of requests."""
        base = f"/v2/{SECRET}"
        return {
            client.ask(path).status
            for path in (
                f"{base}/manifests/1",
                f"{base}/manifests/{self.image.digest}",
                *(f"{base}/blobs/{digest}" for digest in self.image.blobs),
                f"{base}/tags/list",
                f"{base}/referrers/{self.image.digest}",
            )
        }


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Image, Image]:
    folder, storage = tmp_path_factory.mktemp("push"), tmp_path_factory.mktemp("storage")
    noise = random.Random(7).randbytes(6 * 1024 * 1024)
    with unprotected(storage, folder) as url:
        to = Pusher(url)
        secret = push_image(to, f"{SECRET}:1", [b"a private layer", noise])
        return storage, secret, push_image(to, f"{OPEN}:1", [b"public"])


@contextmanager
def running(
    registry: GuardedRegistry, folder: Path, way: str, images: tuple[Image, Image], *more: str
) -> Iterator[Scene]:
    config = folder / f"{way}.toml"
    config.write_text((NAMED if way == "named" else AS_UPSTREAM).format(realm=registry.realm) + "".join(more))
    with Mirror(folder / way, registry.url, "--config", config) as mirror:
        login = {} if way == "named" else {"alice": basic("alice"), "bob": basic("bob")}
        a = Client(mirror, A, login.get("alice", {}))
        yield Scene(registry, mirror, config, *images, a, Client(mirror, B, login.get("bob", {})))


def basic(user: str) -> dict[str, str]:
    login = base64.b64encode(f"{user}:{PASSWORDS[user]}".encode()).decode()
    return {"Authorization": f"Basic {login}"}


@pytest.fixture
def registry(storage: tuple[Path, Image, Image], tmp_path: Path) -> Iterator[GuardedRegistry]:
    rights = Rights(PASSWORDS, {SECRET: {"robot", "alice"}})
    with guarded_registry(storage[0], tmp_path / "registry", rights) as running_registry:
        yield running_registry


@pytest.fixture(params=["named", "as-upstream"])
def scene(
    registry: GuardedRegistry,
    storage: tuple[Path, Image, Image],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Scene]:
    with running(registry, tmp_path, request.param, storage[1:]) as found:
        yield found


# What B asks for: a path for the scene, the method, headers, and the statuses that are right.
Row = tuple[Callable[[Scene], str], str, dict[str, str], set[int]]
MISSING, DENIED = {404}, {403}
WAYS: dict[str, Row] = {
    "tag": (lambda s: f"/v2/{SECRET}/manifests/1", "GET", {}, MISSING),
    "digest": (lambda s: f"/v2/{SECRET}/manifests/{s.image.digest}", "GET", {}, MISSING),
    "config": (lambda s: f"/v2/{SECRET}/blobs/{s.image.blobs[0]}", "GET", {}, MISSING),
    "blob": (lambda s: f"/v2/{SECRET}/blobs/{s.layer}", "GET", {}, MISSING),
    "HEAD of a tag": (lambda s: f"/v2/{SECRET}/manifests/1", "HEAD", {}, MISSING),
    "HEAD of a digest": (lambda s: f"/v2/{SECRET}/manifests/{s.image.digest}", "HEAD", {}, MISSING),
    "HEAD of a blob": (lambda s: f"/v2/{SECRET}/blobs/{s.layer}", "HEAD", {}, MISSING),
    "Range": (lambda s: f"/v2/{SECRET}/blobs/{s.layer}", "GET", {"Range": "bytes=0-3"}, MISSING),
    "condition": (lambda s: f"/v2/{SECRET}/blobs/{s.layer}", "GET", {"If_None_Match": "*"}, MISSING),
    "ns": (lambda s: f"/v2/{SECRET}/manifests/1?ns=docker.io", "GET", {}, MISSING),
    "ns header": (lambda s: f"/v2/{SECRET}/manifests/1", "GET", {"OCI_Namespace": "docker.io"}, MISSING),
    "prefix": (lambda s: f"/v2/docker.io/{SECRET}/manifests/1", "GET", {}, DENIED),
    "prefix, blob": (lambda s: f"/v2/docker.io/{SECRET}/blobs/{s.layer}", "GET", {}, DENIED),
    "name before v2": (lambda s: f"/docker.io/v2/{SECRET}/manifests/1", "GET", {}, DENIED),
    "Host": (lambda s: f"/v2/{SECRET}/manifests/1", "GET", {"Host": "docker.io"}, MISSING),
    "absolute form": (lambda s: f"http://docker.io/v2/{SECRET}/manifests/1", "GET", {}, MISSING),
    "tags/list": (lambda s: f"/v2/{SECRET}/tags/list", "GET", {}, MISSING),
    "referrers": (lambda s: f"/v2/{SECRET}/referrers/{s.image.digest}", "GET", {}, MISSING),
    "link of another repository": (lambda s: f"/v2/{OPEN}/blobs/{s.layer}", "GET", {}, MISSING),
    "manifest by another repository": (
        lambda s: f"/v2/{OPEN}/manifests/{s.image.digest}",
        "GET",
        {},
        MISSING,
    ),
    "referrers by another repository": (lambda s: f"/v2/{OPEN}/referrers/{s.image.digest}", "GET", {}, {200}),
}


def test_nothing_private_is_given_to_who_has_no_right(scene: Scene) -> None:
    """Cold, and with all of it in the cache. What is public goes to B, too."""
    for warm in (False, True):
        if warm:
            assert scene.pull(scene.a) == {200}
        for name, (path, method, headers, right) in WAYS.items():
            answer = scene.b.ask(path(scene), method, **headers)
            assert answer.status in right, (name, warm, answer)
            assert b"a private layer" not in answer.body, (name, warm)
            assert scene.image.blobs[0].encode() not in answer.body, (name, warm)
            assert "docker-content-digest" not in answer.headers, (name, warm)
    for what in ("manifests/1", *(f"blobs/{digest}" for digest in scene.other.blobs)):
        assert scene.b.ask(f"/v2/{OPEN}/{what}").status == 200, what


def test_catalog_names_nothing_private(scene: Scene) -> None:
    scene.pull(scene.a)
    scene.b.ask(f"/v2/{OPEN}/manifests/1")
    for path in ("/v2/_catalog", "/v2/_catalog?n=1", "/v2/docker.io/_catalog"):
        names = json.loads(scene.b.ask(path).body)["repositories"]
        assert [name.removeprefix("docker.io/") for name in names] == [OPEN]
    assert f"docker.io/{SECRET}" in json.loads(scene.a.ask("/v2/_catalog").body)["repositories"]


def test_response_cache_gives_nothing_private(scene: Scene) -> None:
    """The same request again and again; A's comes between."""
    for _ in range(5):
        assert scene.a.ask(f"/v2/{SECRET}/manifests/{scene.image.digest}").status == 200
        assert scene.b.ask(f"/v2/{SECRET}/manifests/{scene.image.digest}").status == 404


def test_running_download_is_not_joined(scene: Scene) -> None:
    """The registry stands still in the middle of A's download."""
    scene.a.ask(f"/v2/{SECRET}/manifests/1")
    assert scene.b.ask(f"/v2/{SECRET}/manifests/1").status == 404
    scene.a.ask(f"/v2/{SECRET}/blobs/{scene.layer}", "HEAD")
    with ThreadPoolExecutor(1) as threads:
        scene.registry.process.signal(signal.SIGSTOP)
        try:
            first = threads.submit(scene.a.ask, f"/v2/{SECRET}/blobs/{scene.layer}")
            wait_until(lambda: waits_for(scene.registry), "the request of A's download")
            for method in ("GET", "HEAD"):
                assert scene.b.ask(f"/v2/{SECRET}/blobs/{scene.layer}", method).status == 404
        finally:
            scene.registry.process.signal(signal.SIGCONT)
        assert first.result().status == 200


def waits_for(registry: GuardedRegistry) -> bool:
    """Return whether a connection to the registry has bytes that it has not read."""
    port = f"{int(registry.url.rpartition(':')[2]):04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(each[1].endswith(f":{port}") and int(each[4].partition(":")[2], 16) > 0 for each in lines)


def test_passed_through_body_is_for_who_has_the_right(
    registry: GuardedRegistry, storage: tuple[Path, Image, Image], tmp_path: Path
) -> None:
    for way in ("named", "as-upstream"):
        small = '\n[cache]\nmax_size = "1MiB"\n'
        with running(registry, tmp_path, way, storage[1:], small) as scene:
            for client, status in ((scene.b, 404), (scene.a, 200), (scene.b, 404)):
                assert client.ask(f"/v2/{SECRET}/blobs/{scene.layer}").status == status, way


def test_bundle_opens_nothing_at_another_mirror(
    registry: GuardedRegistry, storage: tuple[Path, Image, Image], tmp_path: Path
) -> None:
    """The operator exports what A has pulled, and imports it elsewhere: there it is private, too."""
    bundle = tmp_path / "secret.tar"
    with running(registry, tmp_path, "named", storage[1:]) as scene:
        assert scene.pull(scene.a) == {200}
        cache = scene.mirror.cache
    command = [*PROGRAM, "export", "--config", scene.config, "--cache-dir", cache, "-o", bundle]
    run([*command, f"docker.io/{SECRET}:1"])
    (tmp_path / "second").mkdir()
    with running(registry, tmp_path / "second", "named", storage[1:]) as scene:
        run([*PROGRAM, "import", "--config", scene.config, "--cache-dir", scene.mirror.cache, bundle])
        for name, (path, method, headers, right) in WAYS.items():
            assert scene.b.ask(path(scene), method, **headers).status in right, name
        assert scene.pull(scene.a) == {200}


def test_secret_path_of_who_has_no_right_leads_nowhere(scene: Scene) -> None:
    """B has a token of the mirror, which no rule names for the repository: in the path, and as a header."""
    scene.pull(scene.a)
    command = [
        *PROGRAM,
        "token",
        "create",
        "of-b",
        "--config",
        scene.config,
        "--cache-dir",
        scene.mirror.cache,
    ]
    secret = run(command).stdout.split()[-1]
    b = Client(scene.mirror, B, {})
    assert b.ask(f"/t/{secret}/v2/{OPEN}/manifests/1").status == 200
    for name, (path, method, headers, right) in WAYS.items():
        if path(scene).startswith("/v2/"):
            assert b.ask(f"/t/{secret}{path(scene)}", method, **headers).status in right, name
            header = {"Authorization": f"Bearer {secret}"}
            assert b.ask(path(scene), method, **headers, **header).status in right, name


@pytest.mark.needs("skopeo")
def test_skopeo_pulls_by_the_login_of_the_upstream(
    registry: GuardedRegistry, storage: tuple[Path, Image, Image], tmp_path: Path
) -> None:
    """At a name where clients may log in; a login without the right, and none, get nothing."""
    hosts = '\n[access]\nlogin_hosts = ["*"]\n'
    with running(registry, tmp_path, "as-upstream", storage[1:], hosts) as scene:
        source = f"docker://{scene.mirror.address}/docker.io/{SECRET}:1"
        for number, (creds, right) in enumerate(
            [("bob", False), ("alice", True), ("bob", False), ("", False)]
        ):
            login = ["--src-creds", f"{creds}:{PASSWORDS[creds]}"] if creds else ["--src-no-creds"]
            target = f"dir:{tmp_path / str(number)}"
            done = attempt(["skopeo", "copy", "--src-tls-verify=false", *login, source, target])
            assert (done.returncode == 0) is right, (creds, done.stderr)


def test_access_test_promises_nothing_private(scene: Scene) -> None:
    """The command says so of B, and of A where a rule names it."""
    command = [*PROGRAM, "access", "test", "--config", scene.config]
    said = {each: attempt([*command, each, "pull", f"docker.io/{SECRET}:1"]).stdout for each in (A, B)}
    assert "if it is public" in said[B]
    assert ("if it is public" in said[A]) is ("rule" not in scene.config.read_text())


def test_no_password_of_a_client_is_in_a_file_or_in_the_log(scene: Scene) -> None:
    scene.pull(scene.a)
    scene.pull(scene.b)
    kept = scene.mirror.log.read_bytes() + b"".join(
        each.read_bytes() for each in scene.mirror.cache.rglob("*") if each.is_file()
    )
    for user in ("alice", "bob"):
        assert PASSWORDS[user].encode() not in kept
        assert basic(user)["Authorization"].partition(" ")[2].encode() not in kept

"""Client certificates of real clients: let in by name, refused without one and with a wrong one."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.clients import complaint
from tests.e2e.conftest import Library
from tests.e2e.matrix.daemons import NEW, OLD, Ctr, start_containerd
from tests.e2e.netns import Namespace, namespace
from tests.e2e.origin import Origin
from tests.e2e.processes import free_port, run, wait_until
from tests.e2e.test_setup import System, dockerd, tool
from tests.e2e.test_setup_tls import Encrypted
from tests.fakes.tls import Authority
from tests.programs import program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("docker-registry", "nginx", "busybox", root=True),
    pytest.mark.timeout(300),
]

# `small` is for a client with the right name, `many` for the network, `zstd` for neither.
RULES = """
client_ca = "{ca}"

[access]
default = "deny"

[[rule]]
name = "build machines"
effect = "allow"
identities = ["cert:build"]
repositories = ["docker.io/library/small"]

[[rule]]
name = "this network"
effect = "allow"
networks = ["{network}"]
repositories = ["docker.io/library/many"]
"""

Pair = tuple[Path, Path]


@dataclass
class Papers:
    """Authorities, and the certificates of clients."""

    authority: Authority
    right: Pair
    unnamed: Pair
    wrong: Pair


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    (tmp_path / "other").mkdir()
    authority, other = Authority(tmp_path), Authority(tmp_path / "other")
    return Papers(
        authority,
        authority.issue(tmp_path, "build"),
        authority.issue(tmp_path, "other machine"),
        other.issue(tmp_path / "other", "build"),
    )


@contextmanager
def guarded(folder: Path, hub: Origin, papers: Papers, network: str, *flags: str) -> Iterator[Encrypted]:
    """Run a mirror that asks for certificates; `network` may pull `many` without one."""
    text = RULES.format(ca=papers.authority.ca_file, network=network)
    with Encrypted(folder / "encrypted", hub.url, papers.authority, *flags, text=text) as mirror:
        yield mirror


def refusals(mirror: Encrypted) -> int:
    return mirror.log.read_text().count("client certificate refused")


def check(
    mirror: Encrypted, papers: Papers, show: Callable[[Pair | None], None], pull: Callable[[str], str]
) -> None:
    """Go through all that a client may show. `pull`: of an image by its name; returns the complaint."""
    show(None)
    assert pull("many") == ""
    assert pull("small") != ""
    wait_until(lambda: bool(mirror.lines("small")), "the access line")
    assert {(line["outcome"], line.get("digest")) for line in mirror.lines("small")} == {("denied", None)}
    show(papers.unnamed)
    assert pull("small") != ""
    assert refusals(mirror) == 0
    show(papers.wrong)
    assert pull("small") != ""
    wait_until(lambda: refusals(mirror) > 0, "the refusal in the log")
    assert "no authority in server.client_ca has signed it" in mirror.log.read_text()
    show(papers.right)
    assert pull("small") == ""
    assert pull("zstd") != ""


@pytest.fixture
def network() -> Iterator[Namespace]:
    """An address of this machine that is not on loopback, where Docker shows no certificate."""
    with namespace() as found:
        yield found


@pytest.mark.needs("dockerd", "docker", "containerd", "ip")
@pytest.mark.parametrize("store", ["20.10", "29, classic store", "29, containerd store"])
def test_docker_shows_its_certificate(
    library: Library,
    hub: Origin,
    network: Namespace,
    papers: Papers,
    tmp_path: Path,
    short: Path,
    store: str,
) -> None:
    """The files in certs.d are read at each pull: the folder of the mirror, or that of docker.io."""
    etc = short / "root/etc"
    (etc / "docker").mkdir(parents=True)
    names = f"{network.here} hub.test\n127.0.0.1 localhost registry-1.docker.io auth.docker.io\n"
    (etc / "hosts").write_text(names)
    port, containerd_store = free_port(), store.endswith("containerd store")
    daemon = program("dockerd") if store == "20.10" else tool("dockerd")
    env = None if store == "20.10" else {"PATH": f"{tool('containerd').parent}:{os.environ['PATH']}"}
    settings: dict[str, object] = {"registry-mirrors": [f"https://hub.test:{port}"]}
    if store != "20.10":
        settings["features"] = {"containerd-snapshotter": containerd_store}
    (etc / "docker/daemon.json").write_text(json.dumps(settings))
    certs = etc / "docker/certs.d" / ("docker.io" if containerd_store else f"hub.test:{port}")
    certs.mkdir(parents=True)
    shutil.copy(papers.authority.ca_file, certs / "ca.crt")

    def show(pair: Pair | None) -> None:
        for name, file in zip(("client.cert", "client.key"), pair or (None, None), strict=True):
            (certs / name).unlink(missing_ok=True)
            if file is not None:
                shutil.copy(file, certs / name)

    flags = ("--listen", f"{network.here}:{port}")
    with guarded(tmp_path, hub, papers, f"{network.here}/32", *flags) as mirror:
        system = System(short / "root", mirror)
        driver = "native" if containerd_store else "vfs"
        with dockerd(system, short / "d", daemon, driver, env=env, hosts=True) as docker:
            check(mirror, papers, show, lambda name: complaint([*docker, "pull", f"{name}:1"]))


HOSTS = """
server = "{url}"

[host."{url}"]
  capabilities = ["pull", "resolve"]
  ca = "{ca}"
"""


@pytest.mark.needs("containerd", "ctr")
@pytest.mark.parametrize("version", ["1.6", "2"])
def test_containerd_shows_its_certificate(
    library: Library, hub: Origin, papers: Papers, tmp_path: Path, short: Path, version: str
) -> None:
    """The pair is `client` in hosts.toml, which is read at each pull."""
    programs = (program("containerd"), program("ctr"))
    if version == "2":
        programs = (str(tool("containerd")), str(tool("containerd", "ctr")))
    hosts = short / "hosts/docker.io/hosts.toml"
    hosts.parent.mkdir(parents=True)
    with (
        guarded(tmp_path, hub, papers, "127.0.0.1") as mirror,
        contextmanager(start_containerd)(
            mirror, short / "c", programs, OLD if version == "1.6" else NEW
        ) as ctr,
    ):

        def show(pair: Pair | None) -> None:
            text = HOSTS.format(url=mirror.url, ca=papers.authority.ca_file)
            hosts.write_text(text + (f'  client = [["{pair[0]}", "{pair[1]}"]]\n' if pair else ""))

        check(mirror, papers, show, lambda name: _pull(ctr, short / "hosts", name))


def _pull(ctr: Ctr, hosts: Path, name: str) -> str:
    options = ("--hosts-dir", hosts, "--snapshotter", "native")
    return complaint(ctr.command("images", "pull", *options, f"docker.io/library/{name}:1"))


@pytest.mark.needs("skopeo")
def test_skopeo_shows_its_certificate(
    library: Library, hub: Origin, papers: Papers, tmp_path: Path, short: Path
) -> None:
    """The folder of certificates is that of Podman and Buildah too; a refusal has the mirror's words."""
    certs = short / "certs"
    certs.mkdir()
    shutil.copy(papers.authority.ca_file, certs / "ca.crt")
    shown: list[Pair | None] = [None]

    def show(pair: Pair | None) -> None:
        shown[0] = pair
        for name, file in zip(("client.cert", "client.key"), pair or (None, None), strict=True):
            (certs / name).unlink(missing_ok=True)
            if file is not None:
                shutil.copy(file, certs / name)

    with guarded(tmp_path, hub, papers, "127.0.0.1") as mirror:
        copy: list[str | Path] = [program("skopeo"), "--insecure-policy", "copy", "--src-cert-dir", certs]

        def pull(name: str) -> str:
            source = f"docker://{mirror.address}/docker.io/library/{name}:1"
            said = complaint([*copy, source, f"dir:{short / name}"])
            if said and shown[0] != papers.wrong:
                assert "the rules of this mirror do not let" in said
            return said

        check(mirror, papers, show, pull)


def test_curl_is_told_why_its_certificate_is_refused(
    library: Library, hub: Origin, papers: Papers, tmp_path: Path
) -> None:
    """The alert says what is wrong; without TLS's refusal the answer is that of the rules."""
    with guarded(tmp_path, hub, papers, "127.0.0.1") as mirror:
        url = f"{mirror.url}/v2/docker.io/library/small/manifests/1"
        curl: list[str | Path] = ["curl", "-sS", "--cacert", papers.authority.ca_file]
        curl += ["-o", tmp_path / "answer", "-w", "%{http_code}", url]
        for pair, status in ((None, "403"), (papers.unnamed, "403"), (papers.right, "200")):
            shown: list[str | Path] = ["--cert", pair[0], "--key", pair[1]] if pair else []
            assert run([*curl, *shown]).stdout == status
        said = complaint([*curl, "--cert", papers.wrong[0], "--key", papers.wrong[1]])
        assert "unknown ca" in said

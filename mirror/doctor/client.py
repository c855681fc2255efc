"""A client's machine: is the mirror there, is the client configured, and does its traffic arrive?

The proof is a pull: of an image that no registry has, which the mirror makes itself (`mirror.oci.marker`). A
client that gets it has it from the mirror. All calls block, and run the client's own programs.
"""

import http.client
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from secrets import token_hex
from typing import Any

from msgspec import Struct

from mirror.doctor.finding import Diagnosis, error, fine, warning
from mirror.oci.marker import marker_image, marker_reference
from mirror.setup.clients import CLIENTS, installed_version, output_of, program
from mirror.setup.containerd import CERTIFICATES, Cri
from mirror.setup.hosts_toml import parsed
from mirror.setup.plan import DOCKER_HUB, Mirror, Request, Root, SetupError, Version, changed
from mirror.setup.running_mirror import context_of, find_mirror

BYPASS = "its pulls go past the mirror, to the registries themselves, without a word"
PATIENCE = 10.0

# Clients that can be examined, and the command that makes each read its configuration again.
READ_AGAIN = {
    "docker": "systemctl reload docker",
    "containerd": "systemctl restart containerd",
    "podman": "",
    "k3s": "systemctl restart k3s",
}
NAMES = tuple(READ_AGAIN)


class Examined(Struct, frozen=True):
    """The client that is examined; `version` is that of its daemon, None if it is not known."""

    name: str
    mirror: Mirror
    version: Version | None

    @property
    def mend(self) -> str:
        """Return the command that configures the client."""
        again = READ_AGAIN[self.name]
        command = f"registry-mirror setup {self.name} --mirror {self.mirror.url} --write"
        return f"{command} && {again}" if again else command


# A pull returns the client's complaint and the digest of what it has, each "" for none.
Pull = Callable[[str], tuple[str, str]]


def examine_client(name: str, url: str, ca: str | None = None) -> list[Diagnosis]:
    """Return the findings about a client of this machine and the mirror at `url`; `ca` is PEM."""
    try:
        mirror = find_mirror(url, ca)
    except SetupError as reason:
        mend = "start it, or name the right one: --mirror URL; then firewall and route"
        return [error(url, f"the mirror cannot be reached: {reason}", BYPASS, mend)]
    findings = [fine(mirror.url, "the mirror is reached"), *_challenge(name, mirror, ca)]
    version, missing = _version(name)
    if missing is not None:
        return [*findings, missing]
    examined = Examined(name, mirror, version)
    findings += [fine(name, f"version {version}")] if version is not None else []
    arrived, traffic = _traffic(examined)
    findings += EXAMINERS[name](examined)
    findings += _configuration(examined, arrived=arrived)
    return [*findings, *traffic]


def _challenge(name: str, mirror: Mirror, ca: str | None) -> Iterator[Diagnosis]:
    """Yield whether the mirror, or a proxy in front of it, would ask this client for a password."""
    host, _, port = mirror.address.rpartition(":")
    connection: http.client.HTTPConnection = http.client.HTTPConnection(host.strip("[]"), int(port), PATIENCE)
    if mirror.tls:
        context = context_of(ca)
        connection = http.client.HTTPSConnection(
            host.strip("[]"), int(port), timeout=PATIENCE, context=context
        )
    with closing(connection):
        try:
            connection.request("GET", "/v2/")
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return
    if status == 401:
        whose = {
            "docker": "Docker's classic store sends its Docker Hub password to a mirror that asks",
            "podman": "Podman sends the login of the mirror's own name, and none without one",
        }.get(name, "containerd offers Kubernetes' pull secrets to a mirror that asks")
        yield error(
            mirror.url,
            "it asks for a password",
            f"{whose}, and mirrors of Docker cannot have one",
            "let no proxy ask in front of the mirror; limit the network in its place",
        )
    elif status != 200:
        mend = f"curl -v {mirror.url}/v2/"
        yield error(mirror.url, f"it answers {status} to /v2/", "Podman takes nothing but 200 and 401", mend)
    else:
        yield fine(mirror.url, "it asks for no password, so that no client sends one")


def _version(name: str) -> tuple[Version | None, Diagnosis | None]:
    """Return the version of the daemon, or of the program; or the finding that there is none."""
    binary = {"docker": "docker", "containerd": "containerd", "podman": "podman", "k3s": "k3s"}[name]
    found = program(binary)
    if found is None:
        mend = "run this on the client's machine"
        return None, error(name, f"{binary} is not on this machine", "nothing can be examined", mend)
    if name != "docker":
        return installed_version(CLIENTS[name]), None
    status, text = output_of([found, "version", "--format", "{{.Server.Version}}"])
    if status:
        mend = "systemctl status docker, and run this as a user that may use Docker"
        return None, error(name, f"its daemon does not answer: {text.strip()}", "nothing can be pulled", mend)
    return Version.parse(text), None


# What each client says of itself.


def _docker(examined: Examined) -> Iterator[Diagnosis]:
    """Yield what the daemon has in effect, which a file that it has not read does not show."""
    status, text = output_of([program("docker") or "docker", "info", "--format", "{{json .}}"])
    try:
        info: dict[str, Any] = json.loads(text) if status == 0 else {}
    except ValueError:
        info = {}
    mirrors = [str(each) for each in (info.get("RegistryConfig") or {}).get("Mirrors") or []]
    places = [number for number, each in enumerate(mirrors) if examined.mirror.is_named(each)]
    if not places:
        yield error("docker", "the daemon does not have the mirror in effect", BYPASS, examined.mend)
    elif places[0]:
        what = f"another mirror is asked first: {mirrors[0]}"
        yield warning("docker", what, "what that one has never comes here", examined.mend)
    new = "io.containerd.snapshotter" in json.dumps(info.get("DriverStatus") or [])
    store = "the containerd image store" if new else "the classic image store"
    rest = "and hosts.toml for other registries" if new else f"for {DOCKER_HUB} alone; others by name"
    yield fine("docker", f"{store}: registry-mirrors {rest}; a miss falls through to Docker Hub")


def _containerd(examined: Examined) -> Iterator[Diagnosis]:
    """Yield whether Kubernetes reads hosts.toml, by the configuration that containerd has in effect."""
    status, text = output_of([program("containerd") or "containerd", "config", "dump"])
    folder = CERTIFICATES
    if status == 0:
        request = Request(Root(), examined.mirror, examined.version)
        cri = Cri(text, "containerd config dump", request)
        folder = cri.folder or CERTIFICATES
        if cri.folder is None:
            what = "config_path is not set: Kubernetes reads no hosts.toml"
            yield error("containerd", what, BYPASS, examined.mend)
        elif cri.has_two_folders and request.at_least(2):
            what = "config_path has two folders, of which containerd 2 reads none for Kubernetes"
            yield error("containerd", what, BYPASS, examined.mend)
    yield from _fall_through(examined, folder)


def _fall_through(examined: Examined, folder: str) -> Iterator[Diagnosis]:
    """Yield what happens at a miss, by the `server` of hosts.toml."""
    path = f"{folder}/_default/hosts.toml"
    try:
        text = Root().text(path)
        server = str(parsed(text or "", path).get("server", ""))
    except SetupError as reason:
        yield error(examined.name, str(reason), BYPASS, examined.mend)
        return
    if server and examined.mirror.is_named(server):
        yield fine(examined.name, "a miss falls through to no registry: server in hosts.toml is the mirror")
    else:
        yield fine(examined.name, "a miss falls through to the registry itself")


def _podman(examined: Examined) -> Iterator[Diagnosis]:
    own = Path.home() / ".config/containers/registries.conf"
    if own.exists():
        yield warning(
            "podman",
            f"{own} is read in the place of the system's files",
            "what is configured for the system does not count for this user",
            f"registry-mirror setup podman --mirror {examined.mirror.url} --write "
            f"--file {own}.d/50-registry-mirror.conf",
        )
    yield fine("podman", "a miss falls through to the registry itself")


def _k3s(examined: Examined) -> Iterator[Diagnosis]:
    note = "a miss falls through to the registry itself, unless k3s runs with --disable-default-endpoint"
    yield fine("k3s", note)


EXAMINERS: dict[str, Callable[[Examined], Iterator[Diagnosis]]] = {
    "docker": _docker,
    "containerd": _containerd,
    "podman": _podman,
    "k3s": _k3s,
}


def _configuration(examined: Examined, *, arrived: bool) -> Iterator[Diagnosis]:
    """Yield each file that is not as this version of the client needs it, by the writer of `setup`."""
    client = CLIENTS[examined.name]
    try:
        plan = client.plan(Request(Root(), examined.mirror, examined.version, home=str(Path.home())))
        files = changed(Root(), plan.files)
    except SetupError as reason:
        yield error(examined.name, str(reason), BYPASS, examined.mend)
        return
    if not files:
        yield fine(examined.name, "its files are as this version needs them")
    for each in files:
        what = f"{each.path} is not as setup writes it for this version"
        why = "other registries or features may go past the mirror" if arrived else BYPASS
        yield (warning if arrived else error)(examined.name, what, why, examined.mend)


# The pull.


def _traffic(examined: Examined) -> tuple[bool, list[Diagnosis]]:
    """Return whether a pull arrives, and a finding for each registry that was tried."""
    pull = _pull_of(examined.name)
    if pull is None:
        what = "no program that pulls as Kubernetes does is here"
        mend = "install crictl, and try again"
        return False, [warning(examined.name, what, "whether its traffic arrives is not known", mend)]
    names = [each.name for each in examined.mirror.upstreams]
    tried = names[:1] if examined.name == "docker" else names[:2]
    if examined.name == "docker" and not examined.mirror.has_docker_hub:
        return False, []
    findings = [_try(examined, upstream, pull) for upstream in tried]
    return all(each.severity == "fine" for each in findings), findings


def _try(examined: Examined, upstream: str, pull: Pull) -> Diagnosis:
    marker = token_hex(8)
    complaint, digest = pull(marker_reference(upstream, marker))
    expected = str(marker_image(marker).index)
    if not complaint and expected in digest:
        return fine(examined.name, f"its pulls of {upstream} arrive at the mirror")
    last = complaint.strip().splitlines()[-1] if complaint.strip() else f"it has {digest or 'nothing'}"
    what = f"its pulls of {upstream} do not arrive at the mirror ({last[:300]})"
    return error(examined.name, what, BYPASS, examined.mend)


def _pull_of(name: str) -> Pull | None:
    """Return the way to pull by a client; None if its program is not here."""
    if name in ("docker", "podman"):
        return _by_engine(program(name) or name)
    if name == "k3s":
        return _by_crictl([program("k3s") or "k3s", "crictl"])
    if (crictl := program("crictl")) is not None:
        return _by_crictl([crictl])
    return None if program("ctr") is None else _by_ctr


def _by_engine(binary: str) -> Pull:
    def pull(reference: str) -> tuple[str, str]:
        status, text = output_of([binary, "pull", "--quiet", reference])
        if status:
            return text, ""
        shown = "{{json .RepoDigests}} {{.Digest}}" if binary.endswith("podman") else "{{json .RepoDigests}}"
        _, digests = output_of([binary, "image", "inspect", "--format", shown, reference])
        output_of([binary, "image", "rm", "--force", reference])
        return "", digests

    return pull


def _by_crictl(command: Sequence[str]) -> Pull:
    def pull(reference: str) -> tuple[str, str]:
        status, text = output_of([*command, "pull", reference])
        if status:
            return text, ""
        _, shown = output_of([*command, "inspecti", reference])
        output_of([*command, "rmi", reference])
        return "", shown

    return pull


def _by_ctr(reference: str) -> tuple[str, str]:
    ctr = program("ctr") or "ctr"
    status, text = output_of([ctr, "images", "pull", "--hosts-dir", CERTIFICATES, reference])
    if status:
        return text, ""
    _, shown = output_of([ctr, "images", "ls", f"name=={reference}"])
    output_of([ctr, "images", "rm", "--sync", reference])
    return "", shown

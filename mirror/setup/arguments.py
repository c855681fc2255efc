"""Clients that take the mirror on their command line: kaniko, kind, minikube, docker-machine."""

from mirror.setup.containerd import DEFAULT, hosts_files
from mirror.setup.docker import daemon_json
from mirror.setup.plan import DOCKER_HUB, File, Mirror, Request, SetupError, SetupPlan

# A node is a container: it sees this folder of the machine.
KIND_FOLDER = "/etc/registry-mirror/kind"
KIND_CONFIG = f"{KIND_FOLDER}/cluster.yaml"

KIND = """# Written by `registry-mirror setup kind`.
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
containerdConfigPatches:
  - |-
    [plugins."io.containerd.grpc.v1.cri".registry]
      config_path = "/etc/containerd/certs.d"
    [plugins."io.containerd.cri.v1.images".registry]
      config_path = "/etc/containerd/certs.d"
nodes:
  - role: control-plane
    extraMounts:
      - hostPath: {folder}/certs.d
        containerPath: /etc/containerd/certs.d
        readOnly: true
"""

NO_FILE = (
    "{client} has no configuration file for mirrors: the arguments above are all that there is to write."
)

LOOPBACK = (
    "{address} is a loopback address, which inside {place} is another machine: let the mirror listen on an "
    "address of the network (server.listen), and name that one with --mirror"
)


def kaniko(request: Request) -> SetupPlan:
    """Return the arguments of kaniko's executor."""
    mirror = request.mirror
    arguments = []
    for upstream in mirror.upstreams:
        place = f"{mirror.address}/{upstream.name}"
        is_hub = upstream.name == DOCKER_HUB
        arguments.append(
            f"--registry-mirror={place}" if is_hub else f"--registry-map={upstream.name}={place}"
        )
    if not mirror.tls:
        arguments.append(f"--insecure-registry={mirror.address}")
    elif mirror.ca is not None:
        arguments.append(f"--registry-certificate={mirror.address}=/kaniko/registry-mirror-ca.crt")
    notes = [
        NO_FILE.format(client="kaniko"),
        "The living fork is osscontainertools/kaniko. Without --skip-default-registry-fallback kaniko goes "
        "to the registry itself where the mirror has no answer.",
    ]
    if mirror.is_loopback:
        notes.append(LOOPBACK.format(address=mirror.address, place="kaniko's container") + ".")
    return SetupPlan((), arguments=tuple(arguments), notes=tuple(notes))


def kind(request: Request) -> SetupPlan:
    """Return a cluster's configuration, and the hosts.toml that its nodes mount."""
    _require_network(request.mirror, "a node of kind")
    path = request.file or KIND_CONFIG
    hosts = _below(request, f"{KIND_FOLDER}/certs.d", "/etc/containerd/certs.d")
    if request.root.text(path) is None or path == KIND_CONFIG:
        files = (File(path, KIND.format(folder=KIND_FOLDER)), *hosts)
        notes: tuple[str, ...] = ()
    else:
        files, notes = (
            hosts,
            (f"{path} stays as it is. Put this into it:\n{KIND.format(folder=KIND_FOLDER)}",),
        )
    return SetupPlan(files, (f"kind create cluster --config {path}",), notes=notes)


def minikube(request: Request) -> SetupPlan:
    """Return the arguments of `minikube start`, and the files that it copies into its node."""
    mirror = request.mirror
    _require_network(mirror, "minikube's node")
    home = request.file or f"{request.home}/.minikube"
    arguments = [f"--registry-mirror={mirror.url}"] if mirror.has_docker_hub else []
    if not mirror.tls:
        arguments.append(f"--insecure-registry={mirror.address}")
    files = [*_below(request, f"{home}/files/etc/containerd/certs.d", "/etc/containerd/certs.d")]
    if mirror.tls and mirror.ca is not None:
        files.append(File(f"{home}/certs/registry-mirror-ca.pem", mirror.ca))
    note = "The arguments are for the runtime docker, the files for the runtime containerd."
    return SetupPlan(tuple(files), ("minikube start " + " ".join(arguments),), tuple(arguments), (note,))


def docker_machine(request: Request) -> SetupPlan:
    """Return the arguments of `docker-machine create`."""
    mirror = request.mirror
    _require_network(mirror, "the machine of docker-machine")
    if not mirror.has_docker_hub:
        raise SetupError(f"this mirror lacks {DOCKER_HUB}, the only registry that Docker asks mirrors for")
    arguments = [f"--engine-registry-mirror={mirror.url}"]
    if not mirror.tls:
        arguments.append(f"--engine-insecure-registry={mirror.address}")
    settings = daemon_json(None, mirror.url, None if mirror.tls else mirror.address)
    notes = (
        NO_FILE.format(client="docker-machine"),
        "On a machine that exists, /etc/docker/daemon.json (docker-machine ssh NAME) does the same:\n"
        f"{settings}",
    )
    return SetupPlan((), arguments=tuple(arguments), notes=notes)


def _require_network(mirror: Mirror, place: str) -> None:
    if mirror.is_loopback:
        raise SetupError(LOOPBACK.format(address=mirror.address, place=place))


def _below(request: Request, folder: str, seen_as: str) -> tuple[File, ...]:
    """Return hosts.toml for all registries in `folder`, which the node sees as another one."""
    files = hosts_files(request, folder, ("pull", "resolve"))
    return tuple(
        File(each.path, each.text.replace(f'ca = "{folder}/', f'ca = "{seen_as}/'))
        for each in files
        if DEFAULT in each.path or each.path.endswith(".crt")
    )

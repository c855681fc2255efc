"""Lines that set a client up for this mirror, to be copied."""

from collections.abc import Sequence

from msgspec import Struct

HUB = "docker.io"


class Setup(Struct, frozen=True):
    """The set-up of one client: a file and its text, and what makes it count. `script`: address, or ""."""

    name: str
    file: str
    text: str
    then: str
    script: str = ""


def setups(mirror: str, scheme: str, upstreams: Sequence[str]) -> list[Setup]:
    """Return the set-ups for a mirror, HOST:PORT. `upstreams`: their names, the default one first."""
    address = f"{scheme}://{mirror}"
    script = f"{address}/setup/{{}}.sh".format
    return [
        Setup(
            "Docker",
            "/etc/docker/daemon.json",
            _docker(mirror, scheme, hub=HUB in upstreams),
            "systemctl reload docker",
            script("docker"),
        ),
        Setup(
            "containerd, Kubernetes",
            "/etc/containerd/certs.d/_default/hosts.toml",
            f'[host."{address}"]\n  capabilities = ["pull", "resolve"]\n',
            "crictl pull docker.io/library/busybox",
            script("containerd"),
        ),
        Setup(
            "Podman, Buildah, CRI-O",
            "/etc/containers/registries.conf.d/50-mirror.conf",
            "\n".join(_podman(mirror, each, encrypted=scheme == "https") for each in upstreams[:4]),
            "podman pull docker.io/library/busybox",
            script("podman"),
        ),
        Setup(
            "k3s, RKE2",
            "/etc/rancher/k3s/registries.yaml",
            f'mirrors:\n  "*":\n    endpoint:\n      - "{address}"\n',
            "systemctl restart k3s",
            script("k3s"),
        ),
        Setup(
            "By name", "-", f"docker pull {mirror}/{upstreams[0]}/library/busybox\n", f"curl {address}/v2/"
        ),
    ]


def _docker(mirror: str, scheme: str, *, hub: bool) -> str:
    lines = [f'  "registry-mirrors": ["{scheme}://{mirror}"]'] if hub else []
    if scheme == "http":
        lines.append(f'  "insecure-registries": ["{mirror}"]')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _podman(mirror: str, upstream: str, *, encrypted: bool) -> str:
    location = mirror if upstream == HUB else f"{mirror}/{upstream}"
    insecure = "" if encrypted else "insecure = true\n"
    registry = f'[[registry]]\nprefix = "{upstream}"\nlocation = "{upstream}"\n'
    return f'{registry}\n[[registry.mirror]]\nlocation = "{location}"\n{insecure}'

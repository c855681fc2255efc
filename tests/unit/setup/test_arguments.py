"""Clients that take the mirror as arguments."""

import tomllib

import pytest
from ruamel.yaml import YAML

from mirror.setup.arguments import KIND_CONFIG, docker_machine, kaniko, kind, minikube
from mirror.setup.plan import SetupError
from tests.unit.setup.system import LOCAL, SECURE, System, texts


def test_kaniko_arguments(system: System) -> None:
    """A mirror for Docker Hub, a map for each other registry, and how to reach the mirror."""
    assert kaniko(system.request()).arguments == (
        "--registry-mirror=mirror.lan:5000/docker.io",
        "--registry-map=quay.io=mirror.lan:5000/quay.io",
        "--insecure-registry=mirror.lan:5000",
    )
    assert any("loopback" in each for each in kaniko(system.request(LOCAL)).notes)
    assert kaniko(system.request(SECURE)).arguments[-1].startswith("--registry-certificate=mirror.lan:5000=")


def test_kind_cluster_mounts_the_hosts(system: System) -> None:
    """The configuration is YAML, its patches TOML; its nodes see the hosts.toml that is written."""
    made = texts(kind(system.request(SECURE)))
    found = YAML(typ="safe").load(made[KIND_CONFIG])
    (patch,) = found["containerdConfigPatches"]
    assert set(tomllib.loads(patch)["plugins"]) == {
        "io.containerd.grpc.v1.cri",
        "io.containerd.cri.v1.images",
    }
    folder = found["nodes"][0]["extraMounts"][0]["hostPath"]
    host = tomllib.loads(made[f"{folder}/_default/hosts.toml"])["host"]["https://mirror.lan:5000"]
    assert host["ca"] == "/etc/containerd/certs.d/registry-mirror-ca.crt"
    assert made[f"{folder}/registry-mirror-ca.crt"] == SECURE.ca


def test_kind_own_cluster_file_stays(system: System) -> None:
    """A file that somebody has written is not replaced; a note says what belongs into it."""
    system.write("/home/me/kind.yaml", "kind: Cluster\n")
    made = kind(system.request(file="/home/me/kind.yaml"))
    assert "/home/me/kind.yaml" not in texts(made)
    assert "extraMounts" in made.notes[0]


def test_minikube_has_arguments_and_files(system: System) -> None:
    """The arguments are for Docker inside, the files for containerd inside."""
    made = minikube(system.request())
    assert made.arguments == (
        "--registry-mirror=http://mirror.lan:5000",
        "--insecure-registry=mirror.lan:5000",
    )
    assert list(texts(made)) == ["/root/.minikube/files/etc/containerd/certs.d/_default/hosts.toml"]
    assert "/root/.minikube/certs/registry-mirror-ca.pem" in texts(minikube(system.request(SECURE)))


def test_docker_machine_arguments(system: System) -> None:
    """Engine options of a new machine."""
    assert docker_machine(system.request()).arguments == (
        "--engine-registry-mirror=http://mirror.lan:5000",
        "--engine-insecure-registry=mirror.lan:5000",
    )


def test_loopback_is_refused_where_it_is_another_machine(system: System) -> None:
    """127.0.0.1 in a node is the node."""
    for plan in (kind, minikube, docker_machine):
        with pytest.raises(SetupError, match="loopback"):
            plan(system.request(LOCAL))

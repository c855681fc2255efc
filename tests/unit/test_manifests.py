"""Containerfile, compose file, Kubernetes manifests and Helm chart of config/: they say what they promise."""

import importlib
import importlib.util
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from mirror.config.loader import load
from tests.pinned import pinned

CONFIG = Path(__file__).parent.parent.parent / "config"
MANIFESTS = sorted((CONFIG / "kubernetes").glob("*.yaml"))
CHART = CONFIG / "helm" / "registry-mirror"

Document = dict[str, Any]


def documents(text: str) -> list[Document]:
    return [each for each in YAML(typ="safe", pure=True).load_all(text) if each]


def helm() -> Path:
    """Return helm's path; the test is skipped where it is not made."""
    if not pinned()["helm"].installed:
        pytest.skip("helm is not made: .ci/clients")
    return pinned()["helm"].folder / "helm"


def rendered(*values: str) -> list[Document]:
    """Return what helm makes of the chart with these values, NAME=VALUE."""
    flags = [flag for each in values for flag in ("--set", each)]
    done = subprocess.run(
        [helm(), "template", "office", CHART, *flags], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return documents(done.stdout)


def workload(found: list[Document]) -> Document:
    (only,) = [each for each in found if each["kind"] in ("Deployment", "DaemonSet")]
    return only


def check_pod(found: list[Document]) -> None:
    """Hold the pod to the strictest profile of Kubernetes, but for what the kind of volume needs."""
    spec = workload(found)["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["terminationGracePeriodSeconds"] > 30, "server.shutdown_timeout"
    (container,) = spec["containers"]
    for each in (container, *spec.get("initContainers", [])):
        security = each["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"]["drop"] == ["ALL"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["resources"]["limits"]["memory"]
    names = {each["name"] for each in container["ports"]}
    assert {each["name"] for each in container["volumeMounts"]} <= {each["name"] for each in spec["volumes"]}
    for policy in (each for each in found if each["kind"] == "NetworkPolicy"):
        named = [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]]
        assert set(named) == names


def configurations(found: list[Document]) -> Iterator[str]:
    for each in found:
        if each["kind"] == "ConfigMap":
            yield each["data"]["mirror.toml"]


def check_configuration(found: list[Document], tmp_path: Path, env: Mapping[str, str]) -> None:
    """Load the file of the ConfigMap as the mirror in the pod does."""
    (text,) = configurations(found)
    (tmp_path / "mirror.toml").write_text(text)
    config = load(tmp_path / "mirror.toml", env, {}).config
    assert config.server.operations_listen == ("0.0.0.0:5001",)


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.name)
def test_kubernetes_manifests_are_confined(file: Path, tmp_path: Path) -> None:
    found = documents(file.read_text())
    check_pod(found)
    check_configuration(found, tmp_path, environment(found))


def environment(found: list[Document]) -> dict[str, str]:
    """Return the environment of the container, with secrets and an address in it."""
    (container,) = workload(found)["spec"]["template"]["spec"]["containers"]
    given = {each["name"]: each for each in container.get("env", ())}
    address = "10.1.2.3"
    return {
        name: str(each.get("value", "0123456789abcdef")).replace("$(POD_IP)", address)
        for name, each in given.items()
        if name.startswith("REGISTRY_MIRROR_")
    }


@pytest.mark.parametrize("kind", ["daemonset", "deployment"])
def test_kubernetes_manifests_share_a_tier(kind: str, tmp_path: Path) -> None:
    """Mirrors follow each other at the address of their pod; the secrets are in no file."""
    found = documents((CONFIG / "kubernetes" / f"shared-{kind}.yaml").read_text())
    (text,) = configurations(found)
    (tmp_path / "mirror.toml").write_text(text)
    shared = load(tmp_path / "mirror.toml", environment(found), {}).config.shared
    assert (shared.bucket is not None, shared.peers_url) == (True, "http://10.1.2.3:5002")
    assert (shared.peers_secret is not None, "secret" in text) == (True, False)


@pytest.mark.parametrize("kind", ["Deployment", "DaemonSet"])
def test_helm_chart_is_confined(kind: str, tmp_path: Path) -> None:
    found = rendered(f"kind={kind}", "secret=passwords", "networkPolicy.clients={10.0.0.0/8}")
    check_pod(found)
    container = workload(found)["spec"]["template"]["spec"]["containers"][0]
    check_configuration(found, tmp_path, {each["name"]: each["value"] for each in container["env"]})
    kinds = {each["kind"] for each in found}
    single = {"Service", "PersistentVolumeClaim", "PodDisruptionBudget"}
    assert kinds & single == (single if kind == "Deployment" else set())


def test_helm_chart_refuses_another_kind() -> None:
    flags = ["--set", "kind=StatefulSet"]
    command: list[str | Path] = [helm(), "template", "office", CHART, *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "choose Deployment or DaemonSet" in done.stderr


@pytest.mark.skipif(
    importlib.util.find_spec("kubernetes_validate") is None, reason="pip install kubernetes-validate"
)
def test_manifests_have_the_schema_of_kubernetes() -> None:
    """Strictly: a key that Kubernetes does not know is a fault."""
    kubernetes_validate = importlib.import_module("kubernetes_validate")

    found = [each for file in MANIFESTS for each in documents(file.read_text())]
    for each in (*found, *rendered(), *rendered("kind=DaemonSet", "secret=x")):
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)


def test_chart_and_compose_go_by_the_containerfile() -> None:
    """Paths, ports and the user's number are the same everywhere."""
    containerfile = (CONFIG / "container" / "Containerfile").read_text()
    (user,) = re.findall(r"^USER (\d+):\d+$", containerfile, re.MULTILINE)
    (port,) = re.findall(r"^EXPOSE (\d+)$", containerfile, re.MULTILINE)
    (volume,) = re.findall(r"^VOLUME (\S+)$", containerfile, re.MULTILINE)
    for file in (*MANIFESTS, CHART / "templates" / "workload.yaml"):
        text = file.read_text()
        assert f"runAsUser: {user}" in text, file.name
        assert f"containerPort: {port}" in text, file.name
        assert f"mountPath: {volume}" in text, file.name
    (compose,) = documents((CONFIG / "container" / "compose.yaml").read_text())
    service = compose["services"]["registry-mirror"]
    assert service["ports"] == [f"{port}:{port}"]
    assert service["volumes"] == [f"cache:{volume}"]
    root = (CONFIG / "container" / service["build"]["context"]).resolve()
    assert (root / service["build"]["dockerfile"]).is_file()
    env = {name: str(value) for name, value in service["environment"].items()}
    made = dict(re.findall(r"\b(REGISTRY_MIRROR_\w+)=(\S+)", containerfile))
    assert load(None, {**made, **env}, {}).config.server.listen == ("0.0.0.0:5000",)

"""Lines that set a client up."""

import json
import tomllib

from mirror.web.admin.pages.setups import setups


def test_setups_are_valid_and_lead_to_the_mirror() -> None:
    """Each is what its client reads."""
    found = {each.name: each for each in setups("mirror.lan:5000", "http", ["docker.io", "quay.io"])}
    docker = json.loads(found["Docker"].text)
    assert docker == {
        "registry-mirrors": ["http://mirror.lan:5000"],
        "insecure-registries": ["mirror.lan:5000"],
    }
    containerd = tomllib.loads(found["containerd, Kubernetes"].text)
    assert list(containerd["host"]) == ["http://mirror.lan:5000"]
    podman = tomllib.loads(found["Podman, Buildah, CRI-O"].text)
    assert [each["mirror"][0]["location"] for each in podman["registry"]] == [
        "mirror.lan:5000",
        "mirror.lan:5000/quay.io",
    ]
    secure = {each.name: each for each in setups("mirror.lan", "https", ["quay.io"])}
    assert json.loads(secure["Docker"].text) == {}
    assert "insecure" not in secure["Podman, Buildah, CRI-O"].text

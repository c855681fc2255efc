"""registries.yaml of k3s and RKE2."""

import pytest
from ruamel.yaml import YAML

from mirror.setup.k3s import plan, registries_yaml, rke2_plan
from mirror.setup.plan import SetupError
from tests.unit.setup.system import PLAIN, SECURE, System, texts

PATH = "/etc/rancher/k3s/registries.yaml"

OTHERS = """# Lab 3
mirrors:
  docker.io:   # the branch first
    endpoint:
      - "https://branch.test" # slow
    rewrite:
      "^rancher/(.*)": "mirror/$1"
  private.test:
    endpoint: ["https://p.test"]
configs:
  private.test:
    auth:
      username: me
      password: 'p#1'
"""


def test_k3s_wildcard_is_quoted(system: System) -> None:
    """An unquoted star is an alias in YAML; the file holds passwords, so that only root reads it."""
    made = plan(system.request(version="v1.31.4+k3s1"))
    text = texts(made)[PATH]
    assert text == 'mirrors:\n  "*":\n    endpoint:\n    - "http://mirror.lan:5000"\n'
    assert made.files[0].mode == 0o600
    assert made.commands[0].startswith("systemctl restart k3s")
    assert "--disable-default-endpoint" in made.notes[0]


def test_k3s_old_version_names_each_registry(system: System) -> None:
    """Before 1.26.13 a star is no wildcard."""
    found = YAML(typ="safe").load(texts(plan(system.request(version="v1.25.3+k3s1")))[PATH])
    assert list(found["mirrors"]) == ["docker.io", "quay.io"]


def test_k3s_keeps_the_rest_with_its_comments(system: System) -> None:
    """A registry with a list of its own has the mirror first; comments, quotes and passwords stay."""
    text = registries_yaml(OTHERS, PLAIN, None, PATH)
    found = YAML(typ="safe").load(text)
    assert found["mirrors"]["docker.io"]["endpoint"] == ["http://mirror.lan:5000", "https://branch.test"]
    assert found["mirrors"]["*"]["endpoint"] == ["http://mirror.lan:5000"]
    assert found["mirrors"]["private.test"]["endpoint"] == ["https://p.test"]
    for part in ("# Lab 3", "# the branch first", "# slow", "'p#1'", '"^rancher/(.*)": "mirror/$1"'):
        assert part in text
    assert registries_yaml(text, PLAIN, None, PATH) == text


def test_k3s_has_the_ca(system: System) -> None:
    """configs names the file of the CA for the mirror."""
    made = texts(rke2_plan(system.request(SECURE)))
    found = YAML(typ="safe").load(made["/etc/rancher/rke2/registries.yaml"])
    ca = found["configs"]["mirror.lan:5000"]["tls"]["ca_file"]
    assert made[ca] == SECURE.ca


def test_k3s_file_of_comments_keeps_them() -> None:
    """A file without a value is an empty map with its comments."""
    text = registries_yaml("# nothing yet\n", PLAIN, None, PATH)
    assert text.startswith("# nothing yet\n")
    assert "mirror.lan" in text


@pytest.mark.parametrize("text", ["- a\n", "mirrors: 1\n", "mirrors: {'*': {endpoint: x}}\n", "a: [\n"])
def test_k3s_wrong_file_is_named(text: str) -> None:
    """A file that k3s cannot read is not built upon."""
    with pytest.raises(SetupError, match=r"registries.yaml"):
        registries_yaml(text, PLAIN, None, PATH)

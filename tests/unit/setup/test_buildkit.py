"""buildkitd.toml."""

import tomllib

import pytest

from mirror.setup.buildkit import CONFIG, plan
from mirror.setup.plan import SetupError
from tests.unit.setup.system import PLAIN, SECURE, System, texts

OTHERS = """debug = true # for now
[worker.oci]
  max-parallelism = 4

[registry."docker.io"]
  mirrors = ["b.test"]
  http = true
"""


def test_buildkit_names_each_registry_and_plain_http(system: System) -> None:
    """Each registry has the mirror with a path; without `http` BuildKit would speak HTTPS."""
    found = tomllib.loads(texts(plan(system.request()))[CONFIG])["registry"]
    assert found == {
        "docker.io": {"mirrors": ["mirror.lan:5000/docker.io"]},
        "quay.io": {"mirrors": ["mirror.lan:5000/quay.io"]},
        "mirror.lan:5000": {"http": True},
    }


def test_buildkit_keeps_the_rest(system: System) -> None:
    """Mirrors of others come after ours; comments and other tables stay."""
    system.write(CONFIG, OTHERS)
    text = texts(plan(system.request()))[CONFIG]
    found = tomllib.loads(text)
    assert found["registry"]["docker.io"] == {
        "mirrors": ["mirror.lan:5000/docker.io", "b.test"],
        "http": True,
    }
    assert found["worker"] == {"oci": {"max-parallelism": 4}}
    assert "# for now" in text
    system.write(CONFIG, text)
    assert texts(plan(system.request()))[CONFIG] == text


def test_buildkit_changes_from_plain_http_to_tls(system: System) -> None:
    """A mirror with TLS has a CA, and no `http`."""
    system.apply(plan(system.request(PLAIN)))
    made = texts(plan(system.request(SECURE)))
    own = tomllib.loads(made[CONFIG])["registry"]["mirror.lan:5000"]
    assert made[own.pop("ca")[0]] == SECURE.ca
    assert own == {}


def test_buildkit_wrong_file_is_named(system: System) -> None:
    """A value that is no table is not replaced."""
    system.write(CONFIG, 'registry = "x"\n')
    with pytest.raises(SetupError, match=r"buildkitd.toml"):
        plan(system.request())

"""containerd's hosts.toml by version, and `config_path`."""

import tomllib

import pytest

from mirror.setup.containerd import CONFIG, nerdctl_plan, plan
from mirror.setup.plan import SetupError
from tests.unit.setup.system import PLAIN, SECURE, System, texts

DEFAULT = "/etc/containerd/certs.d/_default/hosts.toml"

DEBIAN = """version = 2

[plugins]
  # networks
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
"""

LEGACY = """version = 2
[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]
  endpoint = ["https://b.test"] # branch
[plugins."io.containerd.grpc.v1.cri".registry.mirrors."private.test"]
  endpoint = ["https://p.test"]
"""


@pytest.mark.parametrize(
    ("version", "named"),
    [
        ("1.6.20", ["pull", "resolve"]),
        ("2.1.9", ["pull", "resolve"]),
        (None, ["pull", "resolve"]),
        ("2.2.0", ["pull", "resolve", "referrers"]),
        ("2.10.0", ["pull", "resolve", "referrers"]),
    ],
)
def test_containerd_capabilities_by_version(system: System, version: str | None, named: list[str]) -> None:
    """An older containerd drops a file with "referrers", a newer one needs the word."""
    text = texts(plan(system.request(version=version)))[DEFAULT]
    assert tomllib.loads(text)["host"]["http://mirror.lan:5000"] == {"capabilities": named}


def test_containerd_1_is_told_to_read_hosts_toml(system: System) -> None:
    """A new configuration is written where there is none, and containerd must be restarted."""
    made = plan(system.request(version="1.6.20"))
    found = tomllib.loads(texts(made)[CONFIG])
    registry = found["plugins"]["io.containerd.grpc.v1.cri"]["registry"]
    assert (found["version"], registry) == (2, {"config_path": "/etc/containerd/certs.d"})
    assert made.commands == ("systemctl restart containerd",)
    system.apply(made)
    again = plan(system.request(version="1.6.20"))
    assert (list(texts(again)), again.commands) == ([DEFAULT], ())


def test_containerd_2_is_told_in_its_own_form(system: System) -> None:
    """A new configuration for containerd 2 is in version 3, where another plugin has the registries."""
    found = tomllib.loads(texts(plan(system.request(version="2.4.0")))[CONFIG])
    registry = found["plugins"]["io.containerd.cri.v1.images"]["registry"]
    assert (found["version"], registry) == (3, {"config_path": "/etc/containerd/certs.d"})


@pytest.mark.parametrize(
    ("text", "plugin"),
    [
        (DEBIAN, "io.containerd.grpc.v1.cri"),
        ('version = 3\n[plugins."io.containerd.cri.v1.images"]\n', "io.containerd.cri.v1.images"),
        ("[plugins.cri]\n", "cri"),
        ('version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n', "io.containerd.grpc.v1.cri"),
        (
            'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = ""\n',
            "io.containerd.grpc.v1.cri",
        ),
    ],
)
def test_containerd_config_path_below_the_right_plugin(system: System, text: str, plugin: str) -> None:
    """The name of the plugin depends on the version of the file; the rest of the file stays."""
    system.write(CONFIG, text)
    new = texts(plan(system.request(version="1.7.24")))[CONFIG]
    registry = tomllib.loads(new)["plugins"][plugin]["registry"]
    assert registry["config_path"] == "/etc/containerd/certs.d"
    for line in text.splitlines():
        assert line in new or "config_path" in line
    system.write(CONFIG, new)
    assert CONFIG not in texts(plan(system.request(version="1.7.24")))


def test_containerd_own_folder_is_used(system: System) -> None:
    """A `config_path` that is there stays, and the files go into its first folder."""
    text = '[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/srv/certs:/etc/x"\n'
    system.write(CONFIG, "version = 2\n" + text)
    assert list(texts(plan(system.request(version="1.7.24")))) == ["/srv/certs/_default/hosts.toml"]


@pytest.mark.parametrize("version", ["2.0.0", "2.4.2", None])
def test_containerd_2_gets_one_folder(system: System, version: str | None) -> None:
    """Two folders in `config_path` are one name for containerd 2, which then reads no hosts.toml."""
    text = "[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/srv/certs:/etc/x' # both\n"
    system.write(CONFIG, "version = 3\n" + text)
    made = plan(system.request(version=version))
    new = texts(made)[CONFIG]
    assert new.count("/srv/certs") == 1
    assert "/etc/x" not in new
    assert "# both" in new
    assert any("two folders" in each for each in made.notes)


def test_containerd_legacy_mirrors_get_the_mirror_first(system: System) -> None:
    """`config_path` beside `registry.mirrors` would stop the plugin: the lists are extended."""
    system.write(CONFIG, LEGACY)
    made = plan(system.request(version="1.7.24"))
    new = texts(made)[CONFIG]
    mirrors = tomllib.loads(new)["plugins"]["io.containerd.grpc.v1.cri"]["registry"]["mirrors"]
    assert mirrors["docker.io"]["endpoint"] == ["http://mirror.lan:5000", "https://b.test"]
    assert mirrors["private.test"]["endpoint"] == ["https://p.test"]
    assert "config_path" not in new
    assert "the old form" in made.notes[0]
    system.write(CONFIG, new)
    assert CONFIG not in texts(plan(system.request(version="1.7.24")))


def test_containerd_registry_with_a_folder_of_its_own(system: System) -> None:
    """containerd reads a registry's folder in the place of the default; a private registry's is not ours."""
    for registry in ("docker.io", "private.test"):
        system.write(f"/etc/containerd/certs.d/{registry}/hosts.toml", '[host."https://b"]\n')
    found = texts(plan(system.request(version="2.4.0")))
    assert set(found) == {CONFIG, DEFAULT, "/etc/containerd/certs.d/docker.io/hosts.toml"}
    assert found["/etc/containerd/certs.d/docker.io/hosts.toml"].endswith('\n[host."https://b"]\n')


def test_containerd_has_the_ca_by_its_path(system: System) -> None:
    """hosts.toml names the file of the CA."""
    found = texts(plan(system.request(SECURE, "2.4.0")))
    host = tomllib.loads(found[DEFAULT])["host"]["https://mirror.lan:5000"]
    assert found[host["ca"]] == SECURE.ca


def test_containerd_without_cri_is_told(system: System) -> None:
    """Docker's package disables the plugin that Kubernetes needs."""
    system.write(CONFIG, 'disabled_plugins = ["cri"]\n')
    assert any("disables the plugin cri" in each for each in plan(system.request(version="1.7.24")).notes)


def test_containerd_broken_configuration_is_named(system: System) -> None:
    """A configuration that containerd does not start with is not built upon."""
    system.write(CONFIG, "version = ")
    with pytest.raises(SetupError, match=r"config.toml is not TOML"):
        plan(system.request(version="1.7.24"))


def test_nerdctl_writes_hosts_only(system: System) -> None:
    """nerdctl needs no configuration of the daemon, and knows no newer capability for certain."""
    found = texts(nerdctl_plan(system.request(PLAIN, "2.4.0")))
    assert list(found) == [DEFAULT]
    assert "referrers" not in found[DEFAULT]

"""The shell scripts, run by a real shell in a folder in the place of the system."""

import json
import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from mirror.setup.scripts import NAMES, read_scripts
from tests.unit.setup.system import CA, System

# A PATH on which no client of containers is.
TOOLS = (
    "awk",
    "cat",
    "cmp",
    "cp",
    "diff",
    "dirname",
    "grep",
    "id",
    "mkdir",
    "mktemp",
    "mv",
    "rm",
    "sed",
    "sh",
)


def filled(name: str, address: str = "mirror.lan:5000", scheme: str = "http") -> str:
    text = read_scripts()[name]
    values = {"SCHEME": scheme, "ADDRESS": address, "UPSTREAMS": "docker.io quay.io", "VERSION": "1"}
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text


class Shell:
    """A shell that runs scripts as root would, below a folder. `shell` is its command."""

    def __init__(self, system: System, folder: Path, shell: tuple[str, ...]) -> None:
        self.system, self._shell = system, shell
        self._bin = folder / "bin"
        self._bin.mkdir()
        for tool in TOOLS:
            (self._bin / tool).symlink_to(shutil.which(tool) or tool)
        system.root.folder.mkdir()

    def __call__(self, text: str, *arguments: str, status: int = 0, env: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            [*self._shell, "-s", "--", *arguments],
            input=text,
            env={"PATH": str(self._bin), "ROOT": str(self.system.root.folder), **(env or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def files(self) -> dict[str, str]:
        folder = self.system.root.folder
        return {
            str(each.relative_to(folder)): each.read_text() for each in folder.rglob("*") if each.is_file()
        }


SHELLS = [("/bin/sh",), *([("busybox", "sh")] if shutil.which("busybox") else [])]


@pytest.fixture(params=SHELLS, ids=lambda each: each[0].rpartition("/")[2])
def shell(request: pytest.FixtureRequest, system: System, tmp_path: Path) -> Shell:
    command = (shutil.which(request.param[0]) or request.param[0], *request.param[1:])
    return Shell(system, tmp_path, command)


@pytest.mark.parametrize("name", NAMES)
def test_script_writes_once_and_takes_back(shell: Shell, name: str) -> None:
    """A second run changes nothing; --undo leaves no file behind; --dry-run writes none."""
    text = filled(name)
    assert "would write" in shell(text, "--dry-run")
    assert shell.files() == {}
    shell(text)
    written = shell.files()
    assert any("mirror.lan:5000" in each for each in written.values())
    shell(text)
    assert shell.files() == written
    shell(text, "--undo")
    assert shell.files() == {}


@pytest.mark.parametrize("name", NAMES)
def test_script_needs_root_for_the_real_system(shell: Shell, name: str) -> None:
    """Nothing is begun without root; an unknown argument is refused."""
    assert "there are --dry-run and --undo" in shell(filled(name), "--help", status=1)
    if os.geteuid() != 0:
        assert "as root" in shell(filled(name), status=1, env={"ROOT": ""})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", {}),
        ("{}", {}),
        ("{\n}\n", {}),
        ('{"debug": true}', {"debug": True}),
        ('{\n    "debug": true,\n    "x": {"a": [1]}\n}\n', {"debug": True, "x": {"a": [1]}}),
        ('{"registry-mirrors" : [ ] }', {}),
        ('{"a": 1, "registry-mirrors":\n[\n"https://b"\n]}', {"a": 1, "registry-mirrors": ["https://b"]}),
        (
            '{"insecure-registries": ["c"], "d": "a & b \\\\ c"}',
            {"insecure-registries": ["c"], "d": "a & b \\ c"},
        ),
    ],
)
def test_docker_script_keeps_the_settings(shell: Shell, before: str, after: dict[str, object]) -> None:
    """The mirror is in front of other mirrors; every other setting is as it was."""
    path = "/etc/docker/daemon.json"
    after = dict(after)
    shell.system.write(path, before)
    shell(filled("docker"))
    found = json.loads(shell.system.root.text(path) or "")
    mirrors, insecure = found.pop("registry-mirrors"), found.pop("insecure-registries")
    assert mirrors == ["http://mirror.lan:5000", *after.pop("registry-mirrors", [])]  # type: ignore[misc]
    assert insecure == ["mirror.lan:5000", *after.pop("insecure-registries", [])]  # type: ignore[misc]
    assert found == after
    written = shell.files()
    shell(filled("docker"))
    assert shell.files() == written
    shell(filled("docker"), "--undo")
    assert shell.files() == {path[1:]: before}


def test_docker_script_on_loopback_and_with_tls(shell: Shell, tmp_path: Path) -> None:
    """Neither needs an insecure registry; a CA is put where both stores look."""
    shell(filled("docker", "127.0.0.1:5000"))
    found = json.loads(shell.system.root.text("/etc/docker/daemon.json") or "")
    assert found == {"registry-mirrors": ["http://127.0.0.1:5000"]}
    (tmp_path / "ca.crt").write_text(CA)
    shell(filled("docker", scheme="https"), env={"CA": str(tmp_path / "ca.crt")})
    found = json.loads(shell.system.root.text("/etc/docker/daemon.json") or "")
    assert found == {"registry-mirrors": ["https://mirror.lan:5000", "http://127.0.0.1:5000"]}
    for folder in ("mirror.lan:5000/ca.crt", "docker.io/registry-mirror-ca.crt"):
        assert shell.system.root.text(f"/etc/docker/certs.d/{folder}") == CA


def test_docker_script_refuses_a_setting_that_is_a_flag(shell: Shell) -> None:
    """Docker would not start with the setting in both places."""
    path = "/etc/systemd/system/docker.service.d/x.conf"
    shell.system.write(path, "ExecStart=/usr/sbin/dockerd --insecure-registry a:1\n")
    assert "x.conf starts dockerd with" in shell(filled("docker"), status=1)
    shell.system.write(path, "#ExecStart=/usr/sbin/dockerd --insecure-registry a:1\n")
    shell(filled("docker"))


def test_docker_script_refuses_what_is_no_json(shell: Shell) -> None:
    """A file that is something else stays."""
    shell.system.write("/etc/docker/daemon.json", "nothing")
    assert "not JSON" in shell(filled("docker"), status=1)
    assert shell.files() == {"etc/docker/daemon.json": "nothing"}


@pytest.mark.parametrize(
    ("version", "referrers", "form"),
    [("1.6.20~ds1", False, 2), ("2.1.9", False, 3), ("2.2", True, 3), ("2.10.1", True, 3)],
)
def test_containerd_script_goes_by_the_version(
    shell: Shell, version: str, referrers: bool, form: int
) -> None:
    """The capability that an older containerd chokes on, and the form of config.toml."""
    shell(filled("containerd"), env={"VERSION": version})
    text = shell.system.root.text("/etc/containerd/certs.d/_default/hosts.toml") or ""
    assert ("referrers" in tomllib.loads(text)["host"]["http://mirror.lan:5000"]["capabilities"]) is referrers
    assert tomllib.loads(shell.system.root.text("/etc/containerd/config.toml") or "")["version"] == form


@pytest.mark.parametrize(
    ("config", "plugin"),
    [
        (
            'version = 2\n[plugins]\n  [plugins."io.containerd.grpc.v1.cri"]\n    a = 1\n',
            "io.containerd.grpc.v1.cri",
        ),
        ("version = 3\n", "io.containerd.cri.v1.images"),
        ("x = 1\n", None),
        (
            'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = ""\n  y = 1\n',
            "io.containerd.grpc.v1.cri",
        ),
    ],
)
def test_containerd_script_sets_config_path(shell: Shell, config: str, plugin: str | None) -> None:
    """`config_path` is below the plugin that the version of the file has; the rest stays."""
    path = "/etc/containerd/config.toml"
    shell.system.write(path, config)
    shell(filled("containerd"), env={"VERSION": "1.7.2"})
    found = tomllib.loads(shell.system.root.text(path) or "")
    assert found["plugins"][plugin or "cri"]["registry"]["config_path"] == "/etc/containerd/certs.d"
    written = shell.files()
    shell(filled("containerd"), env={"VERSION": "1.7.2"})
    assert shell.files() == written


@pytest.mark.parametrize(("version", "folders"), [("1.7.2", "A:B"), ("2.2.0", "A")])
def test_containerd_script_leaves_one_folder(shell: Shell, version: str, folders: str) -> None:
    """containerd 2 takes two folders for one name; containerd 1 reads both."""
    path = "/etc/containerd/config.toml"
    text = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n\tconfig_path = '{}'\n"
    both = "/etc/containerd/certs.d:/etc/docker/certs.d"
    shell.system.write(path, text.format(both))
    shell(filled("containerd"), env={"VERSION": version})
    left = both if folders == "A:B" else "/etc/containerd/certs.d"
    assert shell.system.root.text(path) == text.format(left)


def test_containerd_script_keeps_other_hosts_below(shell: Shell) -> None:
    """The mirror is the first host, also of a registry with a folder of its own."""
    path = "/etc/containerd/certs.d/quay.io/hosts.toml"
    shell.system.write(path, 'server = "https://quay.io"\n\n[host."https://b"]\n  capabilities = ["pull"]\n')
    shell(filled("containerd"), env={"VERSION": "2.4"})
    found = tomllib.loads(shell.system.root.text(path) or "")
    assert list(found["host"]) == ["http://mirror.lan:5000", "https://b"]
    assert found["server"] == "https://quay.io"


def test_containerd_script_refuses_the_old_form(shell: Shell) -> None:
    """`config_path` beside `registry.mirrors` would stop the plugin."""
    text = '[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\n  endpoint = ["https://b"]\n'
    shell.system.write("/etc/containerd/config.toml", text)
    assert "old form" in shell(filled("containerd"), status=1)
    assert len(shell.files()) == 1


def test_podman_script_refuses_a_second_entry(shell: Shell) -> None:
    """An entry of another file would be replaced without a word."""
    shell.system.write("/etc/containers/registries.conf", '[[registry]]\nlocation = "quay.io"\n')
    assert "has an entry for quay.io" in shell(filled("podman"), status=1)
    assert len(shell.files()) == 1


def test_k3s_script_leaves_a_file_that_is_there(shell: Shell) -> None:
    """YAML is not edited by a shell: the script says what to add."""
    path = "/etc/rancher/rke2/registries.yaml"
    shell.system.write(path, "configs: {}\n")
    assert '- "http://mirror.lan:5000"' in shell(filled("k3s"), status=1)
    shell.system.write(path, 'mirrors: {"*": {endpoint: ["http://mirror.lan:5000"]}}\n')
    assert "stays as it is" in shell(filled("k3s"))


def test_script_follows_no_link_that_has_the_name_of_its_new_file(
    shell: Shell, system: System, tmp_path: Path
) -> None:
    """A link in an image must not lead root to a file of this machine."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    system.write("/etc/docker/daemon.json", "{}")
    system.root.folder.joinpath("etc/docker/daemon.json.registry-mirror").symlink_to(victim)
    shell(filled("docker"))
    assert victim.read_text() == "untouched"
    assert "mirror.lan" in (system.root.text("/etc/docker/daemon.json") or "")


@pytest.mark.parametrize("arguments", [(), ("--undo",)])
@pytest.mark.parametrize("link", ["etc", "etc/docker"])
def test_script_follows_no_folder_that_leads_out_of_root(
    shell: Shell, system: System, tmp_path: Path, link: str, arguments: tuple[str, ...]
) -> None:
    """A link in an image must not lead root to a folder of this machine."""
    outside = tmp_path / "outside"
    folder = outside if link == "etc/docker" else outside / "docker"
    folder.mkdir(parents=True)
    (folder / "daemon.json").write_text("{}")
    (folder / "daemon.json.before-registry-mirror").write_text("old")
    place = system.root.folder / link
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(outside)
    assert "is a link to elsewhere" in shell(filled("docker"), *arguments, status=1)
    assert (folder / "daemon.json").read_text() == "{}"

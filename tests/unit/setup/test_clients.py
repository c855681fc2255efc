"""Versions of installed programs, and checks of what is written."""

from pathlib import Path

import pytest

from mirror.cli.setup import NAMES
from mirror.setup.clients import CLIENTS, check, installed_version, output_of, program
from mirror.setup.plan import File, Version
from tests.unit.setup.system import SECURE, System


def test_clients_are_those_of_the_command() -> None:
    """The help names each client that has a writer."""
    assert set(CLIENTS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_client_has_a_plan_that_changes_nothing_the_second_time(name: str, system: System) -> None:
    """Every file of a writer stays as it is when it runs again; and it passes the client's own check."""
    request = system.request(SECURE)
    made = CLIENTS[name].plan(request)
    assert made.files or made.arguments
    assert [check(CLIENTS[name], each, None) for each in made.files] == [""] * len(made.files)
    system.apply(made)
    again = CLIENTS[name].plan(request)
    assert {each.path: each.text for each in again.files}.items() <= {
        each.path: each.text for each in made.files
    }.items()


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("docker", "/etc/docker/daemon.json"),
        ("containerd", "/etc/containerd/config.toml"),
        ("podman", "/etc/containers/registries.conf.d/50-registry-mirror.conf"),
        ("k3s", "/etc/rancher/k3s/registries.yaml"),
        ("buildkit", "/etc/buildkit/buildkitd.toml"),
    ],
)
def test_check_finds_a_broken_file(name: str, path: str) -> None:
    """A text that no client reads is refused, with the reason."""
    assert check(CLIENTS[name], File(path, "]broken[ :\n- x"), None)


@pytest.mark.needs("podman")
def test_check_asks_podman_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is TOML, and no registries.conf, is found by Podman, however long the name of TMPDIR is."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("x" * 50)))
    (tmp_path / ("x" * 50)).mkdir()
    text = '[[registry]]\nprefix = "docker.io"\nlocation = "https://docker.io"\n'
    assert "https" in check(CLIENTS["podman"], File("/x/50-registry-mirror.conf", text), None)


@pytest.mark.needs("containerd")
def test_check_asks_containerd_itself() -> None:
    """A file that is TOML, with a value of the wrong type, is found by containerd."""
    assert (
        "unmarshal"
        in check(
            CLIENTS["containerd"], File("/etc/containerd/config.toml", 'oom_score = "x"\n'), None
        ).lower()
    )


@pytest.mark.needs("containerd")
def test_check_sees_a_setting_that_another_file_overrides(tmp_path: Path) -> None:
    """An imported file that sets another `config_path` is found by what containerd has in effect."""
    table = '[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "{}"\n'
    (tmp_path / "x.toml").write_text("version = 2\n" + table.format("/elsewhere"))
    text = f'version = 2\nimports = ["{tmp_path}/x.toml"]\n' + table.format("/etc/containerd/certs.d")
    said = check(CLIENTS["containerd"], File("/etc/containerd/config.toml", text), None)
    assert "'/elsewhere' in effect" in said


@pytest.mark.needs("containerd")
def test_version_is_asked_of_the_program() -> None:
    """The version of the installed program; None for a client without a program here."""
    found = installed_version(CLIENTS["containerd"])
    assert found is not None
    assert found >= Version(1)
    assert installed_version(CLIENTS["kaniko"]) is None


def test_program_that_cannot_run_is_reported(tmp_path: Path) -> None:
    """A program that is not there, or fails, gives its words and no exception."""
    assert program("no-such-program") is None
    assert output_of([tmp_path / "none"])[0] == 127
    assert output_of(["sh", "-c", "echo out; echo err >&2; exit 3"]) == (3, "out\nerr\n")

"""The options of accounts: one place for each password, the environment, and the common config.json."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from mirror.config.endpoints import UpstreamSettings
from mirror.config.loader import ConfigError, Loaded, load
from mirror.credentials.sources import (
    CommandSource,
    ConstantSource,
    DockerConfigSource,
    HelperSource,
    PasswordFileSource,
)
from tests.unit.config.refusals import refusal

HUB = "https://index.docker.io/v1/"


def table(*lines: str) -> str:
    return "\n".join(["[[upstream]]", "name = 'x.test'", "url = 'http://x.test'", *lines])


def loaded(folder: Path, text: str, **env: str) -> Loaded:
    file = folder / "mirror.toml"
    file.write_text(text)
    return load(file, {"HOME": "/home/me", **env}, {})


def upstream(read: Loaded, name: str = "x.test") -> UpstreamSettings:
    return next(each for each in read.config.upstreams if each.name == name)


def docker_file(folder: Path, **document: Any) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(document))
    return file


def test_logins_are_used_in_a_stated_order(tmp_path: Path) -> None:
    """The own one, further accounts, the environment, config.json, the helper."""
    password, config = tmp_path / "password", docker_file(tmp_path, auths={})
    password.write_text("geheim")
    text = table(
        f"username = 'me'\npassword_file = '{password}'",
        f"docker_config = '{config}'\ncredential_helper = 'pass'",
        "[[upstream.accounts]]\nusername = 'us'\npassword = 'x'",
        "[[upstream.accounts]]\nusername = 'AWS'\npassword_command = ['aws', 'ecr', 'get-login-password']",
    )
    read = loaded(tmp_path, text, REGISTRY_MIRROR_LOGIN_X_TEST="env:a:b")
    sources = upstream(read).logins()
    kinds = [
        PasswordFileSource,
        ConstantSource,
        CommandSource,
        ConstantSource,
        DockerConfigSource,
        HelperSource,
    ]
    assert [type(each) for each in sources] == kinds
    assert [each.name for each in sources] == [
        "me",
        "us",
        "AWS",
        "env",
        "docker_config",
        "docker-credential-pass",
    ]
    assert sources[3].initial is not None
    assert sources[3].initial.credential is not None
    assert sources[3].initial.credential.secret == "a:b"  # the first colon ends the name
    assert read.origins["upstream.x.test.accounts.3.password"] == "environment REGISTRY_MIRROR_LOGIN_X_TEST"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("username = 'me'\npassword_command = []", "belong together"),
        ("password_command = ['x']", "belong together"),
        ("username = 'me'\npassword = 'x'\npassword_command = ['x']", "and a password too: keep one of them"),
        ("username = 'me'\npassword_command = ['']", "has no program"),
        ("username = 'me'\npassword_command = ['x']\npassword_refresh = 0", "must be more than 0"),
        ("credential_helper = 'docker-credential-pass'", "write 'pass'"),
        ("credential_helper = '../pass'", "is no name of a helper"),
        ("docker_config = '/nonexistent'", "cannot be read"),
        ("docker_config = '/etc'", "cannot be read: Is a directory"),
        ("docker_config = '/etc/hostname'", "/etc/hostname is not JSON of Docker"),
    ],
)
def test_logins_that_contradict_each_other_are_refused(tmp_path: Path, lines: str, reason: str) -> None:
    """The error has the place, and what to write instead."""
    error = refusal(tmp_path, table(lines))
    assert reason in error
    assert "upstream.x.test" in error


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("REGISTRY_MIRROR_LOGIN_NO_TEST", "me:geheim", "names no upstream; there are REGISTRY_MIRROR_LOGIN_"),
        ("REGISTRY_MIRROR_LOGIN_X_TEST", "geheim", "must be USERNAME:PASSWORD"),
        ("REGISTRY_MIRROR_LOGIN_X_TEST", ":geheim", "must be USERNAME:PASSWORD"),
        ("REGISTRY_MIRROR_LOGIN_X_TEST", "me:", "must be USERNAME:PASSWORD"),
    ],
)
def test_login_of_the_environment_that_is_wrong(
    tmp_path: Path, variable: str, value: str, reason: str
) -> None:
    """The message has the variable and no part of its value."""
    with pytest.raises(ConfigError, match=reason) as raised:
        loaded(tmp_path, table(), **{variable: value})
    assert "geheim" not in str(raised.value)
    assert variable in str(raised.value)


def test_login_of_the_environment_for_two_upstreams(tmp_path: Path) -> None:
    """Names that differ in a dot and a dash have one variable: it is refused."""
    text = "\n".join([table(), "[[upstream]]", "name = 'x-test'", "url = 'http://y.test'"])
    with pytest.raises(ConfigError, match=r"is for x.test and x-test"):
        loaded(tmp_path, text, REGISTRY_MIRROR_LOGIN_X_TEST="me:geheim")


def test_login_of_the_environment_needs_no_file(tmp_path: Path) -> None:
    """A container gets it as a variable; an upstream of a flag has one too."""
    env = {"HOME": "/", "REGISTRY_MIRROR_LOGIN_DOCKER_IO": "me:x", "REGISTRY_MIRROR_LOGIN_R_LAN_5000": "us:y"}
    read = load("", env, {"upstreams": ["r.lan:5000=http://r.lan:5000"]})
    assert [each.name for each in upstream(read, "docker.io").logins()] == ["me"]
    assert [each.name for each in upstream(read, "r.lan:5000").logins()] == ["us"]


def test_common_docker_config_is_for_the_upstreams_that_it_names(tmp_path: Path) -> None:
    """An upstream with an account of its own keeps that; one that the file does not name has none."""
    auth = {"auth": base64.b64encode(b"me:geheim").decode()}
    config = docker_file(tmp_path, auths={HUB: auth, "x.test": auth}, credHelpers={"ghcr.io": "pass"})
    text = f"[credentials]\ndocker_config = '{config}'\n" + table("username = 'us'\npassword = 'x'")
    read = loaded(tmp_path, text)
    named = {each.name: [login.name for login in each.logins()] for each in read.config.upstreams}
    assert {name: logins for name, logins in named.items() if logins} == {
        "x.test": ["us"],
        "docker.io": ["docker_config"],
        "ghcr.io": ["docker_config"],
    }
    assert read.origins["upstream.ghcr.io.docker_config"].endswith("credentials.docker_config")


def test_common_docker_config_that_is_wrong_is_one_problem(tmp_path: Path) -> None:
    """The upstreams that would use it do not report it too."""
    error = refusal(tmp_path, "[credentials]\ndocker_config = '/etc/hostname'\n")
    assert error.count("\n") == 0
    assert "credentials.docker_config: /etc/hostname is not JSON of Docker" in error


def test_common_docker_config_by_the_environment(tmp_path: Path) -> None:
    """A pull secret of Kubernetes needs no file of options."""
    config = docker_file(tmp_path, auths={HUB: {"username": "me", "password": "x"}})
    env = {"HOME": "/", "REGISTRY_MIRROR_CREDENTIALS_DOCKER_CONFIG": str(config)}
    assert [each.name for each in upstream(load("", env, {}), "docker.io").logins()] == ["docker_config"]


def test_password_file_in_the_folder_of_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service knows its folder; a command beside it takes the folder of the service."""
    (tmp_path / "hub").write_text("geheim")
    text = table("username = 'me'\npassword_file = '$CREDENTIALS_DIRECTORY/hub'")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (source,) = upstream(loaded(tmp_path, text)).logins()
    assert source.label == f"password_file {tmp_path}/hub"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert "/run/credentials/registry-mirror.service/hub cannot be read" in refusal(tmp_path, text)


def test_helpers_get_the_environment_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other variable with a secret."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a")
    monkeypatch.setenv("REGISTRY_MIRROR_LOGIN_DOCKER_IO", "me:geheim")
    settings = UpstreamSettings.model_validate({"name": "x.test", "url": "http://x.test"})
    assert "AWS_SECRET_ACCESS_KEY" not in settings.helpers_environment()
    settings = settings.model_copy(update={"helper_environment": ("AWS_*",)})
    environment = settings.helpers_environment()
    assert environment["AWS_SECRET_ACCESS_KEY"] == "a"
    assert "geheim" not in str(environment)


def test_sources_of_an_upstream_have_their_own_logins(tmp_path: Path) -> None:
    """A source's password file is read again, as an upstream's is."""
    password = tmp_path / "password"
    password.write_text("geheim")
    source = {"url": "http://s.test", "username": "me", "password_file": str(password)}
    values = {"name": "x.test", "url": "http://x.test", "sources": [source]}
    (chosen,) = UpstreamSettings.model_validate(values).sources
    endpoint = UpstreamSettings(name="x.test", **chosen.endpoint())
    assert [type(each) for each in endpoint.logins()] == [PasswordFileSource]

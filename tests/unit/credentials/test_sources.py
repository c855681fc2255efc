"""Sources of credentials: files that change, Docker's config.json, helpers and commands."""

import asyncio
import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mirror.credentials.credential import CredentialError
from mirror.credentials.docker_config import HUB, servers_of
from mirror.credentials.helper import NOT_FOUND
from mirror.credentials.process import Program
from mirror.credentials.sources import (
    FILE_FRESH,
    CommandSource,
    ConstantSource,
    DockerConfigSource,
    HelperSource,
    PasswordFileSource,
)
from tests.fakes.programs import FakeProgram, write_file

HUB_SERVERS = servers_of("https://registry-1.docker.io")


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def docker_config(
    folder: Path, servers: tuple[str, ...] = HUB_SERVERS, **document: Any
) -> DockerConfigSource:
    file = folder / "config.json"
    write_file(file, json.dumps(document))
    environment = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    return DockerConfigSource(file, servers, environment, 900.0)


@pytest.fixture
def helper(tmp_path: Path) -> FakeProgram:
    return FakeProgram(tmp_path / "bin", "docker-credential-test")


async def test_constant_source_answers_what_it_was_given() -> None:
    """The login is there without asking."""
    source = ConstantSource("me", "geheim")
    assert await source.fetch() == source.initial
    assert (source.name, source.initial.credential) == ("me", (await source.fetch()).credential)


async def test_password_file_is_read_again(tmp_path: Path) -> None:
    """Line breaks at its end are none of the password."""
    file = tmp_path / "password"
    source = PasswordFileSource("me", file, "alt")
    assert source.initial.credential is not None
    assert source.initial.credential.secret == "alt"
    write_file(file, "neu\r\n")
    answer = await source.fetch()
    assert answer.credential is not None
    assert (answer.credential.secret, answer.fresh) == ("neu", FILE_FRESH)


async def test_password_file_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    """Gone, empty while it is being written, or no text."""
    file = tmp_path / "password"
    source = PasswordFileSource("me", file, "alt")
    with pytest.raises(CredentialError, match=f"{file} cannot be read: No such file"):
        await source.fetch()
    for content, reason in (("", "is empty"), ("\n", "is empty"), ("\udcff", "is not text")):
        write_file(file, content)
        with pytest.raises(CredentialError, match=reason):
            await source.fetch()


async def test_docker_config_source_reads_auths(tmp_path: Path) -> None:
    """Docker Hub's login has the key that docker writes."""
    answer = await docker_config(tmp_path, auths={HUB: auth("me", "geheim")}).fetch()
    assert answer.credential is not None
    assert (answer.credential.username, answer.credential.place) == ("me", f"auths {HUB}")
    assert (answer.fresh, answer.note) == (FILE_FRESH, "")


async def test_docker_config_source_asks_helpers(tmp_path: Path, helper: FakeProgram) -> None:
    """The key is docker's; what `auths` has is not read then, as by docker."""
    helper.knows({HUB: ("me", "geheim")})
    source = docker_config(tmp_path, auths={HUB: auth("other", "x")}, credsStore="test")
    answer = await source.fetch()
    assert answer.credential is not None
    assert answer.credential.place == f"docker-credential-test get {HUB}"
    assert (answer.fresh, helper.asked) == (900.0, [HUB])


async def test_docker_config_source_says_which_login_nobody_uses(tmp_path: Path) -> None:
    """`docker login index.docker.io` says "Login Succeeded", and docker never sends that login."""
    answer = await docker_config(tmp_path, auths={"index.docker.io": auth("me", "geheim")}).fetch()
    assert answer.credential is None
    assert f"has no login for {HUB}" in answer.note
    assert "its login for index.docker.io is used neither by docker nor here: run docker login" in answer.note
    assert "geheim" not in answer.note


async def test_docker_config_source_without_an_entry_says_so(tmp_path: Path, helper: FakeProgram) -> None:
    """The note names the file, or its helper."""
    servers = servers_of("https://quay.io")
    answer = await docker_config(tmp_path, servers, auths={}).fetch()
    assert answer.note == f"docker_config {tmp_path / 'config.json'} has no login for quay.io"
    helper.knows({}, otherwise=NOT_FOUND)
    answer = await docker_config(tmp_path, servers, credHelpers={"quay.io": "test"}).fetch()
    assert answer.note == "docker-credential-test has no login for quay.io nor https://quay.io"


async def test_docker_config_source_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    """The file is read again each time, so it may be gone or broken by now."""
    source = docker_config(tmp_path, auths={})
    write_file(tmp_path / "config.json", "geheim")
    with pytest.raises(CredentialError, match="is not JSON of Docker") as raised:
        await source.fetch()
    assert "geheim" not in str(raised.value)
    await asyncio.to_thread((tmp_path / "config.json").unlink)
    with pytest.raises(CredentialError, match="cannot be read: No such file"):
        await source.fetch()


async def test_helper_source_asks_its_helper(tmp_path: Path, helper: FakeProgram) -> None:
    """The account is named after the helper; the user may change."""
    helper.knows({"quay.io": ("AWS", "geheim")}, otherwise=NOT_FOUND)
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    source = HelperSource("test", servers_of("https://quay.io"), environment, 60.0)
    answer = await source.fetch()
    assert answer.credential is not None
    assert (source.name, answer.credential.username, answer.fresh) == ("docker-credential-test", "AWS", 60.0)
    helper.knows({}, otherwise=NOT_FOUND)
    assert (
        await source.fetch()
    ).note == "docker-credential-test has no login for quay.io nor https://quay.io"


async def test_command_source_runs_its_command(tmp_path: Path) -> None:
    """The password is its output."""
    command = FakeProgram(tmp_path / "bin", "aws")
    command.says("geheim\n")
    program = Program((str(command.path), "ecr"), {"PATH": os.environ["PATH"]})
    answer = await CommandSource("AWS", program, 60.0).fetch()
    assert answer.credential is not None
    assert (answer.credential.username, answer.credential.secret, answer.fresh) == ("AWS", "geheim", 60.0)

"""The sources of an account's credentials: constant, a file, Docker's config.json, a helper, a command."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from mirror.credentials import helper, process
from mirror.credentials.command import answer_of
from mirror.credentials.credential import Answer, Credential, CredentialError
from mirror.credentials.docker_config import (
    MOST_BYTES,
    DockerConfig,
    HelperEntry,
    find,
    parse,
    unused,
)

# How long the content of a file is used before it is read again, in seconds.
FILE_FRESH = 30.0


class ConstantSource:
    """A login of the configuration or of the environment, which is read at the start and on SIGHUP."""

    advice = "username and password_file"
    label = "password of the configuration"

    def __init__(self, username: str, secret: str) -> None:
        self.name = username
        self.initial = Answer(Credential(username, secret))

    async def fetch(self) -> Answer:
        return self.initial


class PasswordFileSource:
    """A password in a file, read again while the mirror runs. `secret`: as it was at the start."""

    advice = "username and password_file"

    def __init__(self, username: str, file: Path, secret: str) -> None:
        self.name = username
        self.label = f"password_file {file}"
        self.initial = Answer(Credential(username, secret), fresh=FILE_FRESH)
        self._file = file

    async def fetch(self) -> Answer:
        try:
            text = (await asyncio.to_thread(self._file.read_text)).rstrip("\r\n")
        except OSError as error:
            raise CredentialError(f"{self.label} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise CredentialError(f"{self.label} is not text") from None
        if not text:
            raise CredentialError(f"{self.label} is empty")
        return Answer(Credential(self.name, text), fresh=FILE_FRESH)


class DockerConfigSource:
    """Docker's config.json. `servers`: the keys of the registry, of `docker_config.servers_of`.

    `fresh`: seconds for which an answer of a helper is used.
    """

    name = "docker_config"
    advice = "docker_config"
    initial = None

    def __init__(
        self, file: Path, servers: Sequence[str], environment: Mapping[str, str], fresh: float
    ) -> None:
        self.label = f"docker_config {file}"
        self._fresh = fresh
        self._file = file
        self._servers = servers
        self._environment = environment

    async def fetch(self) -> Answer:
        try:
            config = parse(await asyncio.to_thread(_read, self._file))
            entry = find(config, self._servers)
        except OSError as error:
            raise CredentialError(f"{self.label} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise CredentialError(f"{self.label} {error}") from None
        if isinstance(entry, HelperEntry):
            answer = await helper.ask(entry.helper, self._servers, self._environment, self._fresh)
            return replace(answer, note=". ".join(filter(None, [answer.note, *self._unused(config)])))
        note = f"{self.label} has no login for {self._servers[0]}" if entry is None else ""
        return Answer(entry, fresh=FILE_FRESH, note=". ".join(filter(None, [note, *self._unused(config)])))

    def _unused(self, config: DockerConfig) -> list[str]:
        """Return a sentence about logins that look like this registry's and are not used."""
        keys = ", ".join(unused(config, self._servers))
        if not keys:
            return []
        command = "docker login" if self._servers[0].endswith("/v1/") else f"docker login {self._servers[0]}"
        return [f"its login for {keys} is used neither by docker nor here: run {command}"]


class HelperSource:
    """A credential helper of Docker, asked for one of `servers` after another; `fresh` as above."""

    advice = "credential_helper"
    initial = None

    def __init__(
        self, name: str, servers: Sequence[str], environment: Mapping[str, str], fresh: float
    ) -> None:
        self._fresh = fresh
        self.name = self.label = f"{helper.PREFIX}{name}"
        self._helper = name
        self._servers = servers
        self._environment = environment

    async def fetch(self) -> Answer:
        return await helper.ask(self._helper, self._servers, self._environment, self._fresh)


class CommandSource:
    """A command that prints the password of `username`, valid for `fresh` seconds if it does not say."""

    advice = "username and password_command"
    initial = None

    def __init__(self, username: str, program: process.Program, fresh: float) -> None:
        self.name = username
        self.label = f"password_command {program.name}"
        self._program = program
        self._fresh = fresh

    async def fetch(self) -> Answer:
        return answer_of(self._program.name, self.name, await process.run(self._program), self._fresh)


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(MOST_BYTES + 1)

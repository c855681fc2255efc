"""The options of accounts at upstreams: names, passwords, and the places that have them."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mirror.config.types import Password, ReadableFile, SecretStr, Strings, Timeout
from mirror.config.validation import After, Before, Beside, Doc, Settings, convert

if TYPE_CHECKING:
    from mirror.credentials.credential import LoginSource

# A path that begins so is in the folder that systemd fills for the service, by LoadCredential=.
CREDENTIALS = "$CREDENTIALS_DIRECTORY/"
# The folder for commands, which run beside the service. systemd tells it to the service alone.
SERVICE_CREDENTIALS = "/run/credentials/registry-mirror.service"

COMMAND_EXAMPLE = ["aws", "ecr", "get-login-password", "--region", "eu-central-1"]


def _in_credentials_directory(value: object) -> object:
    """Replace `$CREDENTIALS_DIRECTORY` at the beginning of a path."""
    if not isinstance(value, str) or not value.startswith(CREDENTIALS):
        return value
    folder = os.environ.get("CREDENTIALS_DIRECTORY") or SERVICE_CREDENTIALS
    return f"{folder}/{value.removeprefix(CREDENTIALS)}"


def _check_docker_config(value: Path) -> Path:
    from mirror.credentials.docker_config import MOST_BYTES, parse

    with value.open("rb") as opened:
        data = opened.read(MOST_BYTES + 1)
    try:
        parse(data)
    except ValueError as error:
        raise ValueError(f"{value} {error}") from None
    return value


def _check_helper(value: str) -> str:
    from mirror.credentials.docker_config import HELPER_NAME
    from mirror.credentials.helper import PREFIX

    if value.startswith(PREFIX):
        raise ValueError(f"is the name behind {PREFIX}: write {value.removeprefix(PREFIX)!r:.80}")
    if HELPER_NAME.fullmatch(value) is None:
        raise ValueError("is no name of a helper, for instance ecr-login for docker-credential-ecr-login")
    return value


def _read_password_file(value: SecretStr | None, valid: Mapping[str, Any]) -> SecretStr | None:
    """Return the content of `password_file` at the start; a running mirror reads the file again."""
    file: Path | None = valid.get("password_file")
    if file is None:
        return value
    if value is not None:
        raise ValueError("is given, and password_file too: keep one of them")
    try:
        text = file.read_text().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"password_file {file} is not text") from None
    if not text:
        raise ValueError(f"password_file {file} is empty")
    return SecretStr(text)


def _check_command(value: tuple[str, ...], valid: Mapping[str, Any]) -> tuple[str, ...]:
    if value and valid.get("password") is not None:
        raise ValueError("is given, and a password too: keep one of them")
    if value and not value[0]:
        raise ValueError(f"has no program: give a list, for instance {COMMAND_EXAMPLE}")
    return value


def check_username(value: str | None) -> str | None:
    """Refuse what cannot be sent: RFC 7617 2 ends the name at the first colon."""
    if value is not None and re.search(r"[:\x00-\x1f\x7f]", value):
        raise ValueError("has a colon or a control character in it, which no username has")
    return value


CredentialFile = Annotated[ReadableFile, Before(_in_credentials_directory)]
DockerConfigFile = Annotated[CredentialFile, After(_check_docker_config)]
HelperName = Annotated[str, After(_check_helper)]


class CredentialSettings(Settings, frozen=True, kw_only=True):
    """Logins for all upstreams together. docs/upstreams.md has the lines for each cloud."""

    docker_config: Annotated[
        DockerConfigFile | None,
        Doc(
            "Docker's config.json, as `docker login` and Kubernetes write it. An upstream that is named in "
            "it (in auths or credHelpers), and has no account of its own, uses it as its `docker_config`.",
            examples=["/etc/registry-mirror/config.json"],
        ),
    ] = None


class LoginSettings(Settings, frozen=True, kw_only=True):
    """Username and password, the latter preferably in a file of its own."""

    username: Annotated[
        str | None,
        After(check_username),
        Doc(
            "Account at the endpoint. `private` says who may read what only this account can read.",
            examples=["me"],
        ),
    ] = None
    password_file: Annotated[
        CredentialFile | None,
        Doc(
            "File with the password. It is read at the start, and again while the mirror runs: half a minute "
            "after it has changed, or when the password is refused. A path may begin with "
            "$CREDENTIALS_DIRECTORY, the folder of systemd's LoadCredential=.",
            examples=["/etc/registry-mirror/docker.io.password"],
        ),
    ] = None
    password: Annotated[
        Password | None,
        Beside(_read_password_file),
        Doc("The password itself. Prefer `password_file`.", examples=["secret"]),
    ] = None
    password_command: Annotated[
        Strings,
        Beside(_check_command),
        Doc(
            "Program with its arguments that prints the password, or JSON with `password` and `expires` (a "
            "time, or seconds since 1970) or `expires_in` (seconds). It runs without a shell. No secret "
            "belongs into it: every user of the machine can read a command in the list of processes.",
            examples=[COMMAND_EXAMPLE],
        ),
    ] = ()
    password_refresh: Annotated[
        Timeout,
        Doc(
            "Time after which `password_command` or a credential helper is asked again, in the background. "
            "Where a command tells when its password ends, it is asked after three quarters of that time.",
            examples=["6h"],
        ),
    ] = 900
    helper_environment: Annotated[
        Strings,
        Doc(
            "Environment variables that `password_command` and credential helpers get, as names or patterns, "
            "besides those without secrets: PATH, HOME, AWS_PROFILE and the like.",
            examples=[["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]],
        ),
    ] = ()

    def __post_init__(self) -> None:
        if (self.username is None) != (self.password is None and not self.password_command):
            raise ValueError(
                "username and password (better: password_file) belong together: give both or none"
            )

    def own_source(self) -> "LoginSource | None":
        """Return the source of the password, None without an account."""
        if self.username is None:
            return None
        from mirror.credentials import sources
        from mirror.credentials.process import Program

        if self.password is None:
            program = Program(self.password_command, self.helpers_environment())
            return sources.CommandSource(self.username, program, self.password_refresh)
        secret = self.password.get_secret_value()
        if self.password_file is not None:
            return sources.PasswordFileSource(self.username, self.password_file, secret)
        return sources.ConstantSource(self.username, secret)

    def helpers_environment(self) -> Mapping[str, str]:
        """Return the environment of programs that this account runs."""
        from mirror.credentials.process import small_environment

        return small_environment(os.environ, self.helper_environment)


class AccountSettings(LoginSettings, frozen=True, kw_only=True):
    """One more account at an upstream or source.

    The mirror uses accounts one after another, beginning with the endpoint's own `username`. The next account
    is used when the upstream reports that the rate limit of an account is used up, answers 429, or refuses
    the password. A private repository stays with the account that requested it first.
    """

    username: Annotated[str, After(check_username), Doc("Name of the account.", examples=["us"])]


def check_accounts(
    value: tuple[AccountSettings, ...], valid: Mapping[str, Any]
) -> tuple[AccountSettings, ...]:
    """Refuse an account that is there twice."""
    names = [valid.get("username"), *(each.username for each in value)]
    twice = next((name for name in names if name is not None and names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"has {twice!r} twice, with username counted: keep one of them")
    return value


def is_named(file: object, url: object) -> bool:
    """Return whether the config.json `file` names the registry at `url`. A file that is no such is no."""
    from mirror.credentials.docker_config import names, parse, servers_of

    try:
        path: Path = convert(file, DockerConfigFile)
        return isinstance(url, str) and names(parse(path.read_bytes()), servers_of(url))
    except (OSError, ValueError):
        return False


def docker_sources(
    settings: LoginSettings, url: str, config: Path | None, helper: str | None
) -> "Sequence[LoginSource]":
    """Return the sources that have logins of several registries, for that at `url`."""
    if config is None and helper is None:
        return ()
    from mirror.credentials import sources
    from mirror.credentials.docker_config import servers_of

    servers, environment = servers_of(url), settings.helpers_environment()
    found: list[LoginSource] = []
    if config is not None:
        found.append(sources.DockerConfigSource(config, servers, environment, settings.password_refresh))
    if helper is not None:
        found.append(sources.HelperSource(helper, servers, environment, settings.password_refresh))
    return found

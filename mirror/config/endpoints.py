"""The options of upstreams: endpoints, accounts, sources, names."""

import re
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mirror.config.types import Attempts, HostName, Hosts, Number, ReadableFile, Strings, Timeout

# A URL without its scheme, as people type one: a host, perhaps a port and a path.
BARE_URL = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?(/[^\s@?#]*)?")

# The beginning of a URL that is neither http nor https.
OTHER_SCHEME = re.compile(r"(?!https?:)[A-Za-z][A-Za-z0-9+.-]*://")


class Settings(BaseModel):
    """Frozen values; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)


class LoginSettings(Settings):
    """Username and password, the latter preferably in a file of its own."""

    username: str | None = Field(
        default=None,
        description="Account at the endpoint. Every client of the mirror can read what this account can "
        "read.",
        examples=["me"],
    )
    password_file: ReadableFile | None = Field(
        default=None,
        description="File with the password, read once at the start.",
        examples=["/etc/registry-mirror/docker.io.password"],
    )
    password: SecretStr | None = Field(
        default=None,
        validate_default=True,
        description="The password itself. Prefer `password_file`.",
        examples=["secret"],
    )

    @field_validator("password", mode="before")
    @classmethod
    def _read_password_file(cls, value: object, info: ValidationInfo) -> object:
        """Return the content of `password_file`, which is read here and nowhere else."""
        file: Path | None = info.data.get("password_file")
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
        return text

    @model_validator(mode="after")
    def _check_credentials(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError(
                "username and password (better: password_file) belong together: give both or none"
            )
        return self


class AccountSettings(LoginSettings):
    """One more account at an upstream or source.

    The mirror uses accounts one after another, beginning with the endpoint's own `username`. The next account
    is used when the upstream reports that the rate limit of an account is used up, answers 429, or refuses
    the password. A private repository stays with the account that requested it first.
    """

    username: str = Field(description="Name of the account.", examples=["us"])


class EndpointSettings(LoginSettings):
    """Location of a registry, and how to treat it."""

    url: str = Field(description="Base URL of the registry.", examples=["https://registry-1.docker.io"])
    accounts: tuple[AccountSettings, ...] = Field(
        default=(),
        description="Further accounts, used one after another.",
        examples=[[{"username": "us", "password_file": "/etc/registry-mirror/us.password"}]],
    )
    realms: Strings = Field(
        default=(),
        description="Origins that may receive the password, besides that of `url`.",
        examples=[["https://auth.docker.io"]],
    )
    ca_file: ReadableFile | None = Field(
        default=None,
        description="Certificates to trust besides those of the system, as PEM.",
        examples=["/etc/ssl/private-ca.crt"],
    )
    private_redirects: bool = Field(
        default=False,
        description="Follow redirects to private addresses even if the endpoint is public. An endpoint at "
        "a private address, and every http endpoint, may redirect there without it.",
    )
    max_connections: Annotated[int, Number, Field(ge=1, le=10_000)] = Field(
        default=32,
        description="Maximum number of connections to the endpoint. One in eight is reserved for small "
        "requests.",
    )
    connect_timeout: Timeout = Field(default=10, description="Time to connect.")
    read_timeout: Timeout = Field(
        default=30,
        description="Time between two pieces of a response, and for the whole head of a response. A body "
        "that brings less than 1 KiB per second for this time is given up.",
    )
    attempts: Attempts = Field(
        default=3, description="Attempts at a request that fails for a temporary reason."
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        if not _is_web_address(value):
            raise ValueError(f"is not a URL{_url_hint(value)}")
        parts = urlsplit(value)
        if parts.username is not None or parts.password is not None:
            raise ValueError("has a user in it: set username and password_file instead")
        if parts.query or parts.fragment:
            raise ValueError("has a query or fragment in it: give the registry's base URL")
        return value.rstrip("/")

    @field_validator("realms")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if not _is_web_address(each) or "@" in each or urlsplit(each).path.strip("/"):
                raise ValueError(
                    "has something in it that is not an origin, for instance https://auth.docker.io"
                )
        return value

    @field_validator("accounts")
    @classmethod
    def _check_accounts(
        cls, value: tuple[AccountSettings, ...], info: ValidationInfo
    ) -> tuple[AccountSettings, ...]:
        names = [info.data.get("username"), *(each.username for each in value)]
        twice = next((name for name in names if name is not None and names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"has {twice!r} twice, with username counted: keep one of them")
        return value

    def logins(self) -> tuple[LoginSettings, ...]:
        """Return the accounts in the order of their use."""
        own = (
            (LoginSettings(username=self.username, password=self.password),)
            if self.username is not None
            else ()
        )
        return (*own, *self.accounts)


class SourceSettings(EndpointSettings):
    """Another mirror of an upstream.

    The mirror requests blobs, and manifests by digest, from sources and from the upstream itself: the digest
    proves what a source sends. Tags come from the upstream alone, unless `tags` is true. The upstream's
    credentials are never sent to a source; a source may have its own.
    """

    url: str = Field(description="Base URL of the source.", examples=["https://mirror.lan"])
    prefix: Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9._/-]*[a-z0-9])?)?$")] = Field(
        default="",
        description="Prefix of every repository at the source: mirror.lan/v2/docker.io/library/...",
        examples=["docker.io"],
    )
    weight: Annotated[float, Number, Field(gt=0, le=1000, allow_inf_nan=False)] = Field(
        default=1.0,
        description="Preference: the measured speed of the source counts this many times.",
        examples=[2.0],
    )
    tags: bool = Field(
        default=False,
        description="Trust the source about tags as much as the upstream itself.",
    )

    def endpoint(self) -> dict[str, Any]:
        """Return the values that a source has in common with an upstream."""
        return {
            name: getattr(self, name) for name in EndpointSettings.model_fields if name != "password_file"
        }


class UpstreamSettings(EndpointSettings):
    """A mirrored registry: its canonical name, its own endpoint, and other mirrors of it."""

    name: HostName = Field(
        description="Canonical name, which clients use as path prefix, as `ns` and as Host.",
        examples=["docker.io"],
    )
    aliases: Hosts = Field(
        default=(), description="Other names for the upstream.", examples=[["index.docker.io"]]
    )
    hosts: Hosts = Field(
        default=(),
        description="Names of this mirror that stand for the upstream, as Host headers.",
        examples=[["hub.mirror.lan"]],
    )
    sources: tuple[SourceSettings, ...] = Field(
        default=(),
        description="Other mirrors of the upstream.",
        examples=[[{"url": "https://mirror.lan", "prefix": "docker.io"}]],
    )


def _is_web_address(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a wrong port or IPv6 address
        return False


def _url_hint(value: str) -> str:
    """Suggest the URL that was meant, name a wrong scheme, or show an example.

    Never repeat a value with a password in it.
    """
    if BARE_URL.fullmatch(value) and _is_web_address(f"https://{value}"):
        return f"; did you mean https://{value}?"
    if OTHER_SCHEME.match(value) and "@" not in value:
        return f" with http:// or https://: {value!r:.80}"
    return ", for instance https://registry-1.docker.io"

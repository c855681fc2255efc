"""The options: their names, defaults and limits.

Frozen values, made by `mirror.config.load` alone; each section is handed to what it is for.
"""

import os
import re
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from mirror.config.types import (
    MOST_WORKERS,
    Amount,
    Attempts,
    Folder,
    HostName,
    Hosts,
    Number,
    Processes,
    ReadableFile,
    Room,
    Seconds,
    Size,
    Span,
    Timeout,
    Words,
)
from mirror.oci.image_pattern import Pin
from mirror.oci.reference import UpstreamNames
from mirror.util.tls import server_context


class Settings(BaseModel):
    """Frozen, and a key that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)


class ServerSettings(Settings):
    listen: Words = ("127.0.0.1:5000",)
    workers: Processes = 1
    header_timeout: Timeout = 20
    shutdown_timeout: Seconds = 30
    when_unavailable: Literal["auto", "next", "honest"] = "auto"
    offline: bool = False
    tls_certificate: ReadableFile | None = None
    tls_key: ReadableFile | None = Field(default=None, validate_default=True)

    @field_validator("listen")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if (
                re.fullmatch(r"(\[[^]]+\]|[^:]+):[0-9]{1,5}", each) is None
                or int(each.rpartition(":")[2]) > 65535
            ):
                raise ValueError(f"{each!r} is not HOST:PORT, for instance 127.0.0.1:5000 or [::]:5000")
        if not value:
            raise ValueError("needs at least one HOST:PORT, for instance 127.0.0.1:5000")
        return value

    @field_validator("tls_key")
    @classmethod
    def _fits(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        """Tried here, so that a pair that is none is said at start and not at the first connection."""
        certificate: Path | None = info.data.get("tls_certificate")
        if "tls_certificate" in info.data and (certificate is None) != (value is None):
            raise ValueError("and tls_certificate belong together: give both or none")
        if certificate is not None and value is not None:
            server_context(certificate, value)
        return value

    def processes(self) -> int:
        """How many processes serve."""
        if self.workers == "auto":
            return min(len(os.sched_getaffinity(0)), MOST_WORKERS)
        return self.workers

    def tls(self) -> ssl.SSLContext | None:
        """What connections are answered with; None where they are plain."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return server_context(self.tls_certificate, self.tls_key)


class CacheSettings(Settings):
    dir: Folder
    max_size: Room = Amount()
    min_free: Room = Amount(1024**3)
    max_age: Span = float("inf")
    pins: Words = ()
    memory: Size = ByteSize(64 * 1024 * 1024)
    durability: Literal["safe", "fast"] = "safe"
    scrub: Size = ByteSize(0)

    @field_validator("pins")
    @classmethod
    def _are_pins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Once each: a pattern with other platforms would be no pin of its own."""
        patterns = [str(Pin.parse(each).images) for each in value]
        twice = next((each for each in patterns if patterns.count(each) > 1), None)
        if twice is not None:
            raise ValueError(f"has {twice} twice: put all its platforms behind one of them")
        return value


class TagRuleSettings(Settings):
    """What is different for repositories that match; what it does not say is as in [tags]."""

    repositories: str
    fresh: Span | None = None
    stale_while_revalidate: Span | None = None
    stale_if_error: Span | None = None
    immutable: Words = ()


class TagSettings(Settings):
    fresh: Span = 60
    stale_while_revalidate: Span = 0
    stale_if_error: Span = float("inf")
    immutable: Words = ()
    rules: tuple[TagRuleSettings, ...] = ()
    missing: Seconds = 5
    fallback_after: Seconds = 2
    serve_incomplete: bool = False


class FillSettings(Settings):
    chunk_size: Size = ByteSize(4 * 1024 * 1024)
    attempts: Attempts = 5
    parallel: Annotated[int, Number, Field(ge=1, le=64)] = 8
    parallel_above: Size = ByteSize(8 * 1024 * 1024)
    connections: Annotated[int, Number, Field(ge=1, le=10_000)] = 64
    verify_first: bool = False
    prefetch: Annotated[int, Number, Field(ge=0, le=64)] = 3

    @field_validator("chunk_size")
    @classmethod
    def _is_sensible(cls, value: ByteSize) -> ByteSize:
        if not 64 * 1024 <= value <= 1024**3:
            raise ValueError(f"must be between 64KiB and 1GiB, not {value.human_readable()}")
        return value


class LogSettings(Settings):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class LoginSettings(Settings):
    """An account: user and password, the latter best in a file of its own."""

    username: str | None = None
    password_file: ReadableFile | None = None
    password: SecretStr | None = Field(default=None, validate_default=True)

    @field_validator("password", mode="before")
    @classmethod
    def _from_file(cls, value: object, info: ValidationInfo) -> object:
        """The content of `password_file`, read once, here."""
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
    def _credentials_are_whole(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError(
                "username and password (better: password_file) belong together: give both or none"
            )
        return self


class AccountSettings(LoginSettings):
    """One more account at an upstream."""

    username: str


class EndpointSettings(LoginSettings):
    """Where something is, and how to behave towards it."""

    url: str
    accounts: tuple[AccountSettings, ...] = ()
    realms: Words = ()
    ca_file: ReadableFile | None = None
    private_redirects: bool = False
    max_connections: Annotated[int, Number, Field(ge=1, le=10_000)] = 32
    connect_timeout: Timeout = 10
    read_timeout: Timeout = 30
    attempts: Attempts = 3

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if not _is_web_address(value):
            raise ValueError("is not a URL, for instance https://registry-1.docker.io")
        parts = urlsplit(value)
        if parts.username is not None or parts.password is not None:
            raise ValueError("has a user in it: set username and password_file instead")
        if parts.query or parts.fragment:
            raise ValueError("has a query or fragment in it: give the registry's base URL")
        return value.rstrip("/")

    @field_validator("realms")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if not _is_web_address(each) or "@" in each or urlsplit(each).path.strip("/"):
                raise ValueError(
                    "has something in it that is not an origin, for instance https://auth.docker.io"
                )
        return value

    @field_validator("accounts")
    @classmethod
    def _are_different(
        cls, value: tuple[AccountSettings, ...], info: ValidationInfo
    ) -> tuple[AccountSettings, ...]:
        names = [info.data.get("username"), *(each.username for each in value)]
        twice = next((name for name in names if name is not None and names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"has {twice!r} twice, with username counted: keep one of them")
        return value

    def logins(self) -> tuple[LoginSettings, ...]:
        """The accounts in the order in which they are used."""
        own = (
            (LoginSettings(username=self.username, password=self.password),)
            if self.username is not None
            else ()
        )
        return (*own, *self.accounts)


class SourceSettings(EndpointSettings):
    """Another mirror of an upstream. `prefix` goes in front of every repository there.

    `tags`: its word on what a tag points to counts as much as the upstream's.
    """

    prefix: Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9._/-]*[a-z0-9])?)?$")] = ""
    weight: Annotated[float, Number, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    tags: bool = False

    def endpoint(self) -> dict[str, Any]:
        """The values that it has in common with an upstream."""
        return {
            name: getattr(self, name) for name in EndpointSettings.model_fields if name != "password_file"
        }


class UpstreamSettings(EndpointSettings):
    """One upstream: its canonical name, its own endpoint, and other mirrors of it."""

    name: HostName
    aliases: Hosts = ()
    hosts: Hosts = ()
    sources: tuple[SourceSettings, ...] = ()


class Config(Settings):
    """Everything, validated."""

    server: ServerSettings = Field(default_factory=ServerSettings)
    cache: CacheSettings
    tags: TagSettings = Field(default_factory=TagSettings)
    fill: FillSettings = Field(default_factory=FillSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    upstreams: tuple[UpstreamSettings, ...]

    @model_validator(mode="after")
    def _names_are_unique(self) -> "Config":
        _claim((name, each.name) for each in self.upstreams for name in (each.name, *each.aliases))
        _claim((host, each.name) for each in self.upstreams for host in each.hosts)
        return self

    def pins(self) -> tuple[Pin, ...]:
        """What is to be kept in any case."""
        return tuple(Pin.parse(each, self.names().names) for each in self.cache.pins)

    def names(self) -> UpstreamNames:
        """How clients may call the upstreams; the first one is the default."""
        return UpstreamNames(
            default=self.upstreams[0].name,
            names={name: each.name for each in self.upstreams for name in (each.name, *each.aliases)},
            hosts={host: each.name for each in self.upstreams for host in each.hosts},
        )


def _is_web_address(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        return False


def _claim(claims: Iterable[tuple[str, str]]) -> None:
    owners: dict[str, str] = {}
    for name, upstream in claims:
        owner = owners.setdefault(name, upstream)
        if owner != upstream:
            raise PydanticCustomError(
                "claimed",
                "{name} is claimed by {first} and by {second}: take it from one of them",
                {"name": name, "first": owner, "second": upstream},
            )

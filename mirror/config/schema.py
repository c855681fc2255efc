"""The options: names, defaults, limits and descriptions.

Each option has a description and an example here and nowhere else: `mirror.config.reference` renders
config/mirror.toml and docs/configuration.md from them. The values are frozen; `mirror.config.loader` alone
makes them, and the composition root hands each section to the code that it is for.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ByteSize, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from mirror.config.endpoints import Settings, UpstreamSettings
from mirror.config.types import (
    FOREVER,
    MAX_WORKERS,
    Amount,
    Attempts,
    DiskSpace,
    Duration,
    DurationOrForever,
    Folder,
    Number,
    Processes,
    ReadableFile,
    Size,
    Strings,
    Timeout,
    format_size,
)
from mirror.oci.image_pattern import Pin
from mirror.oci.reference import UpstreamNames

if TYPE_CHECKING:
    import ssl

ADDRESS = re.compile(r"(\[[^]]+\]|[^:]*):([0-9]{1,5})")


class ServerSettings(Settings):
    """Addresses, processes, TLS and timeouts of the server."""

    listen: Strings = Field(
        default=("127.0.0.1:5000",),
        description='Addresses to serve on, each as HOST:PORT. A port alone, as in ":5000", stands for every '
        "address of the machine, IPv4 and IPv6. If systemd passes sockets, the mirror uses those instead.",
        examples=[[":5000"]],
    )
    workers: Processes = Field(
        default=1,
        description='Number of processes that serve, 1 to 64, or "auto" for one process per processor.',
        examples=["auto"],
    )
    operations_listen: Strings = Field(
        default=(),
        description="Addresses for operators, each as HOST:PORT, with plain HTTP: /healthz, /readyz and "
        "/metrics. With such an address `listen` serves /healthz alone of the three, and clients learn "
        "neither account names nor upstream addresses.",
        examples=[["127.0.0.1:5001"]],
    )
    connections: Annotated[int, Number, Field(ge=16, le=1_000_000)] = Field(
        default=16_384,
        description="Maximum number of client connections of one process; fewer if its limit of open files "
        "(LimitNOFILE) is less than about twice of it. At the maximum the connections idle longest are "
        "closed.",
    )
    header_timeout: Timeout = Field(
        default=20,
        description="Time within which a client gets the head of a response, or an error. It "
        "begins when the download has a connection to the upstream.",
    )
    shutdown_timeout: Duration = Field(
        default=30, description="Time that running responses have to finish after SIGTERM."
    )
    when_unavailable: Literal["auto", "next", "honest"] = Field(
        default="auto",
        description="Response to a client when an upstream is unavailable, or the mirror cannot use its "
        'cache or stops. "next" is a 404, at which every client goes on to its next mirror or to the '
        'registry itself. "honest" is 429, 502 or 504, and 503 for the mirror itself. "auto" is "honest" '
        'for requests with the name of the upstream in the path and without `ns`, and "next" for all '
        "others. What an upstream refuses or does not have is always a 404.",
    )
    offline: bool = Field(
        default=False,
        description="Make no request to any upstream, and serve what is cached. The option `serve "
        "--offline` does the same.",
    )
    tls_certificate: ReadableFile | None = Field(
        default=None,
        description="Certificate followed by its chain, as PEM. With a certificate all addresses of "
        "`listen` are https://. The file is read at the start and on SIGHUP. Goes together with `tls_key`.",
        examples=["/etc/registry-mirror/mirror.crt"],
    )
    tls_key: ReadableFile | None = Field(
        default=None,
        validate_default=True,
        description="Private key of `tls_certificate`, as PEM and without a passphrase.",
        examples=["/etc/registry-mirror/mirror.key"],
    )

    @field_validator("listen", "operations_listen")
    @classmethod
    def _check_addresses(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """Complete a port alone to ":PORT". Refuse wrong addresses, all of them in one message."""
        addresses = tuple(each if ":" in each else f":{each}" for each in value)
        wrong = [
            given
            for given, each in zip(value, addresses, strict=True)
            if (match := ADDRESS.fullmatch(each)) is None or int(match[2]) > 65535
        ]
        if wrong:
            verb = "is" if len(wrong) == 1 else "are"
            raise ValueError(
                f"{', '.join(map(repr, wrong))} {verb} not HOST:PORT, for instance 127.0.0.1:5000, "
                "[::1]:5000, or :5000 for every address of this machine"
            )
        if both := set(addresses) & set(info.data.get("listen", ())):
            raise ValueError(f"has {', '.join(sorted(both))} like server.listen: take another port")
        if not value and info.field_name == "listen":
            raise ValueError("needs at least one HOST:PORT, for instance 127.0.0.1:5000")
        return addresses

    @field_validator("tls_key")
    @classmethod
    def _check_tls_pair(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        """Load the pair, so that a wrong pair is an error at the start and not at the first connection."""
        certificate: Path | None = info.data.get("tls_certificate")
        if "tls_certificate" in info.data and (certificate is None) != (value is None):
            raise ValueError("and tls_certificate belong together: give both or none")
        if certificate is not None and value is not None:
            _tls_context(certificate, value)
        return value

    def processes(self) -> int:
        """Return the number of processes that serve."""
        if self.workers == "auto":
            return min(len(os.sched_getaffinity(0)), MAX_WORKERS)
        return self.workers

    def tls(self) -> "ssl.SSLContext | None":
        """Return the TLS context of the listener, or None for plain HTTP."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return _tls_context(self.tls_certificate, self.tls_key)


class CacheSettings(Settings):
    """The cache on disk and in memory: place, room, pins."""

    dir: Folder = Field(
        description="Folder of the cache. Default: /var/cache/registry-mirror as root, the folder that "
        "systemd gives in CACHE_DIRECTORY, or ~/.cache/registry-mirror.",
        examples=["/var/cache/registry-mirror"],
    )
    max_size: DiskSpace = Field(
        default=Amount(),
        description="Room for blobs. Beyond this size the least recently used ones are evicted.",
        examples=["50GiB", "80%"],
        json_schema_extra={"zero": "no limit"},
    )
    min_free: DiskSpace = Field(
        default=Amount(1024**3),
        description="Room to leave free on the file system of the cache.",
        examples=["5%"],
        json_schema_extra={"zero": "no reserve"},
    )
    max_age: DurationOrForever = Field(
        default=FOREVER,
        description="Time after its last use at which a blob is evicted.",
        examples=["90d"],
    )
    durability: Literal["safe", "fast"] = Field(
        default="safe",
        description='"safe" writes a blob to the disk before the blob gets its name. "fast" does not wait '
        "for the disk: after a power failure some blobs may have to be fetched again.",
    )
    scrub: Size = Field(
        default=ByteSize(0),
        description="Bytes per second at which the scrubber reads and verifies everything that is cached, "
        "over and over. Each file counts 64 KiB more than its size.",
        examples=["1MiB"],
        json_schema_extra={"zero": "no scrubbing"},
    )
    pins: Strings = Field(
        default=(),
        description="Images that are never evicted, as patterns with optional platforms. `registry-mirror "
        "pin` adds further ones.",
        examples=[["alpine:3.20", "quay.io/org/*:v* linux/amd64"]],
    )
    memory: Size = Field(
        default=ByteSize(64 * 1024 * 1024),
        description="Memory for manifests, tags and small blobs in use, in each process.",
        examples=["256MiB"],
        json_schema_extra={"zero": "no memory cache"},
    )

    @field_validator("pins")
    @classmethod
    def _check_pins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse a pattern that is there twice: a pattern with other platforms is not another pin."""
        patterns = [str(Pin.parse(each).images) for each in value]
        twice = next((each for each in patterns if patterns.count(each) > 1), None)
        if twice is not None:
            raise ValueError(f"has {twice} twice: put all its platforms behind one of them")
        return value


class TagRuleSettings(Settings):
    """Exceptions from [tags] for some repositories.

    The first rule that matches counts. A key that the rule does not have is as in [tags].
    """

    repositories: str = Field(
        description='Pattern of `<upstream>/<repository>`. A star matches slashes too, so "quay.io/*" is '
        "all of quay.io.",
        examples=["docker.io/library/*"],
    )
    fresh: DurationOrForever | None = Field(
        default=None, description="As `tags.fresh`, for these repositories.", examples=["1h"]
    )
    stale_while_revalidate: DurationOrForever | None = Field(
        default=None,
        description="As `tags.stale_while_revalidate`, for these repositories.",
        examples=["10m"],
    )
    stale_if_error: DurationOrForever | None = Field(
        default=None, description="As `tags.stale_if_error`, for these repositories.", examples=["7d"]
    )
    immutable: Strings = Field(
        default=(),
        description="Tags that never move, besides those of `tags.immutable`.",
        examples=[["*.*.*"]],
    )


class TagSettings(Settings):
    """Freshness of tags, and behaviour without an upstream."""

    fresh: DurationOrForever = Field(
        default=60,
        description="Time for which a tag is used without a request to its upstream.",
        examples=["1h", "forever"],
    )
    stale_while_revalidate: DurationOrForever = Field(
        default=0,
        description="Time after `fresh` in which a tag is still used immediately, while the mirror "
        "revalidates it in the background.",
        examples=["10m"],
    )
    stale_if_error: DurationOrForever = Field(
        default=FOREVER,
        description="Time after `fresh` in which a tag is used if its upstream is unavailable.",
        examples=["7d"],
    )
    immutable: Strings = Field(
        default=(),
        description="Patterns of tags that never move. Such a tag is never revalidated.",
        examples=[["v*.*.*"]],
    )
    rules: tuple[TagRuleSettings, ...] = Field(
        default=(),
        description="Exceptions for some repositories, as [[tags.rules]] tables.",
        examples=[[{"repositories": "docker.io/library/*", "fresh": "1h"}]],
    )
    missing: Duration = Field(
        default=5,
        description="TTL of the negative cache: a tag or manifest that does not exist upstream is not "
        "requested again within this time.",
        examples=["1m"],
    )
    fallback_after: Duration = Field(
        default=2,
        description="Time to wait for an upstream if there is stale content to serve instead, or if the "
        "upstream did not answer the previous request.",
    )
    serve_incomplete: bool = Field(
        default=False,
        description="Serve a manifest even if blobs of it are neither cached nor available upstream.",
    )


class FillSettings(Settings):
    """Downloads of blobs."""

    chunk_size: Size = Field(
        default=ByteSize(4 * 1024 * 1024),
        description="Unit in which a download is resumed, 64KiB to 1GiB. The last chunk of a large blob is "
        "sent to clients only after the whole blob is verified.",
        examples=["16MiB"],
    )
    attempts: Attempts = Field(
        default=5,
        description="Consecutive attempts without noteworthy progress after which a running download fails.",
    )
    parallel: Annotated[int, Number, Field(ge=1, le=64)] = Field(
        default=8,
        description="Maximum number of connections for one blob, used as long as each further one adds "
        "speed. 1 downloads sequentially.",
    )
    parallel_above: Size = Field(
        default=ByteSize(8 * 1024 * 1024),
        description="Size from which a blob is downloaded over several connections.",
    )
    connections: Annotated[int, Number, Field(ge=1, le=10_000)] = Field(
        default=64,
        description="Maximum number of connections for blobs, to all upstreams and sources together. Blobs "
        "of up to 256 KiB that a manifest has named have as many of their own. Four times as many downloads "
        "may wait in each queue; a further one is refused, unless it can start at once or a waiting one has "
        "lost its clients.",
    )
    verify_first: bool = Field(
        default=False,
        description="Send nothing of a blob before the whole blob is verified.",
    )
    prefetch: Annotated[int, Number, Field(ge=0, le=64)] = Field(
        default=3,
        description="Number of layers that are downloaded at a time before the client that has their "
        "manifest requests them.",
        json_schema_extra={"zero": "no prefetch"},
    )

    @field_validator("chunk_size")
    @classmethod
    def _check_chunk_size(cls, value: ByteSize) -> ByteSize:
        if not 64 * 1024 <= value <= 1024**3:
            raise ValueError(f"must be between 64KiB and 1GiB, not {format_size(value)}")
        return value


class LogSettings(Settings):
    """The log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description='Lowest level that is logged: "debug", "info", "warning" or "error".'
    )
    format: Literal["auto", "console", "json"] = Field(
        default="auto",
        description='Form of the lines: "console", "json", or "auto", which is "console" on a terminal and '
        '"json" otherwise.',
    )


class Config(Settings):
    """The whole configuration."""

    server: ServerSettings = Field(default_factory=ServerSettings)
    cache: CacheSettings
    tags: TagSettings = Field(default_factory=TagSettings)
    fill: FillSettings = Field(default_factory=FillSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    upstreams: tuple[UpstreamSettings, ...]

    @model_validator(mode="after")
    def _check_names(self) -> "Config":
        """Refuse a name, alias or host that two upstreams claim."""
        _check_unique((name, each.name) for each in self.upstreams for name in (each.name, *each.aliases))
        _check_unique((host, each.name) for each in self.upstreams for host in each.hosts)
        return self

    def pins(self) -> tuple[Pin, ...]:
        """Return the pins of the configuration, with canonical names."""
        return tuple(Pin.parse(each, self.names().names) for each in self.cache.pins)

    def names(self) -> UpstreamNames:
        """Return the names by which clients may call the upstreams. The first upstream is the default."""
        return UpstreamNames(
            default=self.upstreams[0].name,
            names={name: each.name for each in self.upstreams for name in (each.name, *each.aliases)},
            hosts={host: each.name for each in self.upstreams for host in each.hosts},
        )


def _tls_context(certificate: Path, key: Path) -> "ssl.SSLContext":
    from mirror.util.tls import server_context  # imports ssl, which few commands need (10 ms)

    return server_context(certificate, key)


def _check_unique(claims: Iterable[tuple[str, str]]) -> None:
    owners: dict[str, str] = {}
    for name, upstream in claims:
        owner = owners.setdefault(name, upstream)
        if owner != upstream:
            raise PydanticCustomError(
                "claimed",
                "{name} is claimed by {first} and by {second}: take it from one of them",
                {"name": name, "first": owner, "second": upstream},
            )

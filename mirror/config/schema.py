"""The options: names, defaults, limits and descriptions.

Each option has a description and an example here and nowhere else: `mirror.config.reference` renders
config/mirror.toml and docs/configuration.md from them. The values are frozen; `mirror.config.loader` alone
makes them, and the composition root hands each section to the code that it is for.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from msgspec import Meta, field

from mirror.access.groups import Groups
from mirror.access.limits import LimitTable
from mirror.access.policy import Policy
from mirror.config.access import AccessSettings, GroupSettings, RuleSettings, groups_of, policy_of
from mirror.config.audit import AuditSettings
from mirror.config.cache_rules import CacheRuleSettings
from mirror.config.endpoints import UpstreamSettings
from mirror.config.hosting.hosted import HostedSettings
from mirror.config.identities.issuers import IssuerSettings
from mirror.config.limits import LimitSettings, limits_of
from mirror.config.logins import CredentialSettings
from mirror.config.pages.admin import AdminSettings
from mirror.config.server import ServerSettings
from mirror.config.tier.shared import SharedSettings
from mirror.config.tracing.otel import OtelSettings
from mirror.config.types import (
    FOREVER,
    Amount,
    Attempts,
    DiskSpace,
    Duration,
    DurationOrForever,
    Folder,
    Platform,
    PrefetchWay,
    Size,
    Strings,
    format_size,
)
from mirror.config.validation import After, Apart, Doc, Settings
from mirror.config.warm import WarmSettings
from mirror.oci.image_pattern import Pin
from mirror.oci.reference import UpstreamNames

# What becomes of content that is gone upstream.
OnGone = Literal["drop", "keep"]


class Claimed(ValueError):
    """A name, alias or host that two registries claim. `names` are theirs, and `section` that of the file."""

    def __init__(self, name: str, first: str, second: str, section: str = "upstream") -> None:
        super().__init__(f"{name} is claimed by {first} and by {second}: take it from one of them")
        self.section = section
        self.names = (second, first)


def _check_pins(value: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a pattern that is there twice: a pattern with other platforms is not another pin."""
    patterns = [str(Pin.parse(each).images) for each in value]
    twice = next((each for each in patterns if patterns.count(each) > 1), None)
    if twice is not None:
        raise ValueError(f"has {twice} twice: put all its platforms behind one of them")
    return value


def _check_chunk_size(value: int) -> int:
    if not 64 * 1024 <= value <= 1024**3:
        raise ValueError(f"must be between 64KiB and 1GiB, not {format_size(value)}")
    return value


class CacheSettings(Settings, frozen=True, kw_only=True):
    """The cache on disk and in memory: place, room, pins."""

    dir: Annotated[
        Folder,
        Doc(
            "Folder of the cache. Default: /var/cache/registry-mirror as root, the folder that systemd "
            "gives in CACHE_DIRECTORY, or ~/.cache/registry-mirror.",
            examples=["/var/cache/registry-mirror"],
        ),
    ]
    max_size: Annotated[
        DiskSpace,
        Doc(
            "Room for blobs. Beyond this size the least recently used ones are evicted.",
            examples=["50GiB", "80%"],
            zero="no limit",
        ),
    ] = Amount()
    min_free: Annotated[
        DiskSpace,
        Doc("Room to leave free on the file system of the cache.", examples=["5%"], zero="no reserve"),
    ] = Amount(1024**3)
    max_age: Annotated[
        DurationOrForever, Doc("Time after its last use at which a blob is evicted.", examples=["90d"])
    ] = FOREVER
    durability: Annotated[
        Literal["safe", "fast"],
        Doc(
            '"safe" writes a blob to the disk before the blob gets its name. "fast" does not wait for the '
            "disk: after a power failure some blobs may have to be fetched again."
        ),
    ] = "safe"
    scrub: Annotated[
        Size,
        Doc(
            "Bytes per second at which the scrubber reads and verifies everything that is cached, once a "
            "week; a tenth of it on a busy machine. Each file counts 64 KiB more than its size.",
            examples=["1MiB"],
            zero="no scrubbing",
        ),
    ] = 4 * 1024 * 1024
    pins: Annotated[
        Strings,
        After(_check_pins),
        Doc(
            "Images that are never evicted, as patterns with optional platforms. `registry-mirror pin` "
            "adds further ones.",
            examples=[["alpine:3.20", "quay.io/org/*:v* linux/amd64"]],
        ),
    ] = ()
    rules: Annotated[
        tuple[CacheRuleSettings, ...],
        Doc(
            "Limits for some repositories, as [[cache.rules]] tables.",
            examples=[[{"repositories": "ghcr.io/models/*", "max_blob": "10GiB", "max_share": "20%"}]],
        ),
    ] = ()
    memory: Annotated[
        Size,
        Doc(
            "Memory for manifests, tags and small blobs in use, in each process.",
            examples=["256MiB"],
            zero="no memory cache",
        ),
    ] = 64 * 1024 * 1024


class TagRuleSettings(Settings, frozen=True, kw_only=True):
    """Exceptions from [tags] for some repositories.

    The first rule that matches counts. A key that the rule does not have is as in [tags].
    """

    repositories: Annotated[
        str,
        Doc(
            'Pattern of `<upstream>/<repository>`. A star matches slashes too, so "quay.io/*" is all of '
            "quay.io.",
            examples=["docker.io/library/*"],
        ),
    ]
    fresh: Annotated[
        DurationOrForever | None, Doc("As `tags.fresh`, for these repositories.", examples=["1h"])
    ] = None
    stale_while_revalidate: Annotated[
        DurationOrForever | None,
        Doc("As `tags.stale_while_revalidate`, for these repositories.", examples=["10m"]),
    ] = None
    stale_if_error: Annotated[
        DurationOrForever | None, Doc("As `tags.stale_if_error`, for these repositories.", examples=["7d"])
    ] = None
    immutable: Annotated[
        Strings, Doc("Tags that never move, besides those of `tags.immutable`.", examples=[["*.*.*"]])
    ] = ()
    on_gone: Annotated[
        OnGone | None, Doc("As `tags.on_gone`, for these repositories.", examples=["keep"])
    ] = None


class TagSettings(Settings, frozen=True, kw_only=True):
    """Freshness of tags, and behaviour without an upstream."""

    fresh: Annotated[
        DurationOrForever,
        Doc("Time for which a tag is used without a request to its upstream.", examples=["1h", "forever"]),
    ] = 60
    stale_while_revalidate: Annotated[
        DurationOrForever,
        Doc(
            "Time after `fresh` in which a tag is still used immediately, while the mirror revalidates it "
            "in the background.",
            examples=["10m"],
        ),
    ] = 0
    stale_if_error: Annotated[
        DurationOrForever,
        Doc("Time after `fresh` in which a tag is used if its upstream is unavailable.", examples=["7d"]),
    ] = FOREVER
    immutable: Annotated[
        Strings,
        Doc("Patterns of tags that never move. Such a tag is never revalidated.", examples=[["v*.*.*"]]),
    ] = ()
    on_gone: Annotated[
        OnGone,
        Doc(
            'What becomes of a cached tag or manifest that its registry has removed (404 or 410). "drop": it '
            'is gone here too. "keep": it is served, with a warning that says so, until `registry-mirror rm` '
            "or the quota removes it. A registry that answers 404 to an account without access takes nothing "
            'away then, so "keep" private repositories with care.',
            examples=["keep"],
        ),
    ] = "drop"
    rules: Annotated[
        tuple[TagRuleSettings, ...],
        Doc(
            "Exceptions for some repositories, as [[tags.rules]] tables.",
            examples=[[{"repositories": "docker.io/library/*", "fresh": "1h"}]],
        ),
    ] = ()
    missing: Annotated[
        Duration,
        Doc(
            "TTL of the negative cache: a tag or manifest that does not exist upstream is not requested "
            "again within this time.",
            examples=["1m"],
        ),
    ] = 5
    fallback_after: Annotated[
        Duration,
        Doc(
            "Time to wait for an upstream if there is stale content to serve instead, or if the upstream "
            "did not answer the previous request."
        ),
    ] = 2
    single_platform: Annotated[
        Platform,
        Doc(
            "Platform whose manifest a client gets for a tag of several platforms, if its Accept header "
            "names single manifests and no list. Most clients take lists, and choose themselves.",
            examples=["linux/arm64"],
        ),
    ] = "linux/amd64"
    serve_incomplete: Annotated[
        bool, Doc("Serve a manifest even if blobs of it are neither cached nor available upstream.")
    ] = False


class FillSettings(Settings, frozen=True, kw_only=True):
    """Downloads of blobs."""

    chunk_size: Annotated[
        Size,
        After(_check_chunk_size),
        Doc(
            "Unit in which a download is resumed, 64KiB to 1GiB. The last chunk of a large blob is sent "
            "to clients only after the whole blob is verified.",
            examples=["16MiB"],
        ),
    ] = 4 * 1024 * 1024
    attempts: Annotated[
        Attempts,
        Doc("Consecutive attempts without noteworthy progress after which a running download fails."),
    ] = 5
    parallel: Annotated[
        int,
        Meta(ge=1, le=64),
        Doc(
            "Maximum number of connections for one blob, used as long as each further one adds speed. 1 "
            "downloads sequentially."
        ),
    ] = 8
    parallel_above: Annotated[Size, Doc("Size from which a blob is downloaded over several connections.")] = (
        8 * 1024 * 1024
    )
    connections: Annotated[
        int,
        Meta(ge=1, le=10_000),
        Doc(
            "Maximum number of connections for blobs, to all upstreams and sources together. Blobs of up "
            "to 256 KiB that a manifest has named have as many of their own. Four times as many downloads "
            "may wait in each queue; a further one is refused, unless it can start at once or a waiting "
            "one has lost its clients."
        ),
    ] = 64
    verify_first: Annotated[bool, Doc("Send nothing of a blob before the whole blob is verified.")] = False
    prefetch: Annotated[
        PrefetchWay,
        Doc(
            'When layers are downloaded that no client has requested yet: "layer", once a client requests '
            'a first layer of the image; "manifest", once it has the manifest, which also costs the layers '
            'of images that are only looked at; "off", never. Three at a time; a number is that many at a '
            "time, from the manifest on.",
            examples=["manifest", "off"],
            zero='"off"',
        ),
    ] = "layer"

    rest: Annotated[
        Literal["always", "idle", "never"],
        Doc(
            "When the rest of a blob is downloaded of which clients read parts by ranges, as lazy clients "
            'do (stargz, SOCI, zstd:chunked): "always", at once; "idle", while no client waits for an '
            'upstream; "never", only what was asked for, in chunks of up to 256 KiB. Blobs of up to '
            "`parallel_above`, and prefetched ones, are always downloaded as a whole.",
            examples=["never"],
        ),
    ] = "idle"


class LogSettings(Settings, frozen=True, kw_only=True):
    """The log, on standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Doc('Lowest level that is logged: "debug", "info", "warning" or "error".'),
    ] = "info"
    format: Annotated[
        Literal["auto", "console", "json"],
        Doc(
            'Form of the lines: "console", "json", or "auto", which is "console" on a terminal and "json" '
            "otherwise."
        ),
    ] = "auto"


class Config(Settings, frozen=True, kw_only=True):
    """The whole configuration."""

    server: ServerSettings = field(default_factory=ServerSettings)
    cache: CacheSettings
    tags: TagSettings = field(default_factory=TagSettings)
    fill: FillSettings = field(default_factory=FillSettings)
    access: AccessSettings = field(default_factory=AccessSettings)
    credentials: CredentialSettings = field(default_factory=CredentialSettings)
    admin: AdminSettings = field(default_factory=AdminSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    log: LogSettings = field(default_factory=LogSettings)
    otel: OtelSettings = field(default_factory=OtelSettings)
    shared: SharedSettings = field(default_factory=SharedSettings)
    rules: tuple[RuleSettings, ...] = ()
    groups: tuple[GroupSettings, ...] = ()
    limits: tuple[LimitSettings, ...] = ()
    issuers: tuple[IssuerSettings, ...] = ()
    warm: tuple[WarmSettings, ...] = ()
    hosted: tuple[HostedSettings, ...] = ()
    upstreams: tuple[UpstreamSettings, ...]
    # By dotted key, where each value comes from that is not a default: `file mirror.toml:12`.
    origins: Annotated[Mapping[str, str], Apart()] = {}

    def __post_init__(self) -> None:
        """Refuse a name, alias or host that two registries claim."""
        names = [(name, each.name) for each in self.upstreams for name in (each.name, *each.aliases)]
        hosts = [(host, each.name) for each in self.upstreams for host in each.hosts]
        _check_unique(names)
        _check_unique(hosts)
        taken, hosted = {**dict(hosts), **dict(names)}, [each.claims() for each in self.hosted]
        _check_unique((claim for each in hosted for claim in each), "hosted")
        for name, registry in (claim for each in hosted for claim in each):
            if name in taken:
                raise Claimed(name, taken[name], registry, "hosted")

    def policy(self) -> Policy:
        """Return the access rules and the default."""
        return policy_of(self.access, self.rules)

    def client_groups(self) -> Groups:
        """Return the groups that clients may be in."""
        return groups_of(self.groups)

    def limit_table(self) -> LimitTable:
        """Return the limits of clients."""
        return limits_of(self.limits)

    def pins(self) -> tuple[Pin, ...]:
        """Return the pins of the configuration, with canonical names."""
        return tuple(Pin.parse(each, self.names().names) for each in self.cache.pins)

    def names(self) -> UpstreamNames:
        """Return the names by which clients may call the upstreams. The first upstream is the default."""
        return UpstreamNames(
            default=self.upstreams[0].name,
            names={
                **{name: each.name for each in self.upstreams for name in (each.name, *each.aliases)},
                **{each.name: each.name for each in self.hosted},
            },
            hosts={
                **{host: each.name for each in self.upstreams for host in each.hosts},
                **{host: each.name for each in self.hosted for host in each.hosts},
            },
            hosted=frozenset(each.name for each in self.hosted),
        )


def _check_unique(claims: Iterable[tuple[str, str]], section: str = "upstream") -> None:
    owners: dict[str, str] = {}
    for name, registry in claims:
        owner = owners.setdefault(name, registry)
        if owner != registry:
            raise Claimed(name, owner, registry, section)

"""Layout of the configuration file: its sections, and its lists of tables that have names.

    [tags]          a section: one table, a field of Config of the same name
    [[tags.rules]]  a list of tables in a section; they count from 1
    [[upstream]]    a list of tables with names: a row of NAMED_TABLES

A new section is a row of SECTIONS, a new list with names one of NAMED_TABLES; each is a field of `Config`.
The loader, `config show`, the error messages, config/mirror.toml and docs/configuration.md go by these rows.
A list of tables within a section or another table is found by its type.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from msgspec import Struct

from mirror.config.access import AccessSettings, GroupSettings, RuleSettings
from mirror.config.audit import AuditSettings
from mirror.config.endpoints import UpstreamSettings
from mirror.config.hosting.hosted import HostedSettings
from mirror.config.identities.issuers import IssuerSettings
from mirror.config.limits import LimitSettings
from mirror.config.logins import CredentialSettings
from mirror.config.pages.admin import AdminSettings
from mirror.config.schema import CacheSettings, Config, FillSettings, LogSettings, TagSettings
from mirror.config.server import ServerSettings
from mirror.config.tier.shared import SharedSettings
from mirror.config.tracing.otel import OtelSettings
from mirror.config.validation import Option, Settings, bare
from mirror.config.warm import WarmSettings

# Names that clients use for Docker Hub. regclient sends the second as `ns`, old tools send the others.
HUB_ALIASES = ("index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "registry.docker.io")

PRECONFIGURED: dict[str, dict[str, Any]] = {
    "docker.io": {
        "url": "https://registry-1.docker.io",
        "aliases": HUB_ALIASES,
        "realms": ("https://auth.docker.io",),
    },
    "ghcr.io": {"url": "https://ghcr.io"},
    "quay.io": {"url": "https://quay.io"},
    "registry.k8s.io": {"url": "https://registry.k8s.io", "aliases": ("k8s.gcr.io",)},
    "gcr.io": {"url": "https://gcr.io"},
    "mcr.microsoft.com": {"url": "https://mcr.microsoft.com"},
    "public.ecr.aws": {"url": "https://public.ecr.aws"},
    # An API key of NVIDIA goes to its own server of tokens too.
    "nvcr.io": {"url": "https://nvcr.io", "realms": ("https://authn.nvidia.com",)},
    "docker.elastic.co": {"url": "https://docker.elastic.co"},
    "dhi.io": {"url": "https://dhi.io"},
    "lscr.io": {"url": "https://lscr.io"},
}


class Pairs(Struct, frozen=True):
    """The short form of a table with a name: NAME=VALUE, in an environment variable and in a flag.

    `key` is what VALUE is; `example` is for the error message.
    """

    key: str
    example: str


class NamedTable(Struct, frozen=True):
    """A list of tables of the file, `[[section]]`, each of which has a name.

    `field` is the list in `Config`, and `key` the option that is the name. A table with the name of a preset
    has the preset's values, except those that the table changes. `canonical`: other names, and the names that
    they stand for. `first`: options that come first in the reference. `note` is a paragraph for the
    reference, and `sample` a piece of TOML.
    """

    section: str
    field: str
    key: str
    model: type[Settings]
    example: str
    presets: Mapping[str, Mapping[str, Any]] = {}
    canonical: Mapping[str, str] = {}
    pairs: Pairs | None = None
    first: Sequence[str] = ()
    note: str = ""
    sample: str = ""

    def preset(self, name: str) -> dict[str, Any]:
        """Return the values of a preset, its name among them."""
        return {self.key: name, **self.presets[name]}

    def name_of(self, table: object) -> str | None:
        """Return the canonical name of a raw table; None without a usable name."""
        name = table.get(self.key) if isinstance(table, dict) else None
        return self.canonical.get(name, name) if isinstance(name, str) and name else None


SECTIONS: dict[str, type[Settings]] = {
    "server": ServerSettings,
    "cache": CacheSettings,
    "tags": TagSettings,
    "fill": FillSettings,
    "access": AccessSettings,
    "credentials": CredentialSettings,
    "admin": AdminSettings,
    "audit": AuditSettings,
    "log": LogSettings,
    "otel": OtelSettings,
    "shared": SharedSettings,
}

UPSTREAM = NamedTable(
    section="upstream",
    field="upstreams",
    key="name",
    model=UpstreamSettings,
    example="quay.io",
    presets=PRECONFIGURED,
    canonical={alias: name for name, keys in PRECONFIGURED.items() for alias in keys.get("aliases", ())},
    pairs=Pairs("url", "docker.io=http://10.0.0.1:5000"),
    first=("name", "url", "aliases", "hosts"),
    note="A file needs only what it adds or changes: an `[[upstream]]` with the name of a preconfigured one "
    "changes only the keys that it has. The upstreams of a file come first, in their order, and the first "
    "one of all is the default: clients that name no upstream get it.",
    sample="""\
[[upstream]]
name = "quay.io"
username = "me"
password_file = "/etc/registry-mirror/quay.io.password"

[[upstream]]
name = "registry.example.com"
url = "https://registry.example.com"
""",
)

RULE = NamedTable(
    section="rule",
    field="rules",
    key="name",
    model=RuleSettings,
    example="no betas",
    note="The first rule that matches a request allows or denies it. A key that a rule leaves out matches "
    "everything; what no rule matches is up to `access.default`. [access.md](access.md) has more.",
    sample="""\
[[rule]]
name = "no betas"
effect = "deny"
tags = ["*-rc*", "*beta*"]
""",
)

GROUP = NamedTable(
    section="group",
    field="groups",
    key="name",
    model=GroupSettings,
    example="dev",
    note="[access.md](access.md#identities) has more.",
    sample="""\
[[group]]
name = "dev"
members = ["user:alice", "user:bob"]
""",
)

LIMIT = NamedTable(
    section="limit",
    field="limits",
    key="name",
    model=LimitSettings,
    example="guests",
    first=("name", "per", "identities", "networks"),
    note="All limits that match a client apply to it. A key that a limit leaves out matches everybody, or is "
    "not bounded. [access.md](access.md#limits) has more.",
    sample="""\
[[limit]]
name = "guests"
networks = ["10.9.0.0/16"]
bandwidth = "20Mbit"
upstream_per_day = "50GiB"
""",
)

WARM = NamedTable(
    section="warm",
    field="warm",
    key="name",
    model=WarmSettings,
    example="nightly",
    note="`registry-mirror warm --status` shows the last and the next run of each list. "
    "[offline.md](offline.md#warm) has more.",
    sample="""\
[[warm]]
name = "nightly"
images = ["alpine:3.*", "quay.io/org/app:>=1.2 <2"]
schedule = "30 3 * * * Europe/Berlin"
""",
)

ISSUER = NamedTable(
    section="issuer",
    field="issuers",
    key="name",
    model=IssuerSettings,
    example="gitlab",
    note="[access.md](access.md#tokens-of-other-issuers) has examples for GitLab, GitHub and Kubernetes.",
    sample="""\
[[issuer]]
name = "gitlab"
issuer = "https://gitlab.example.com"
audience = ["https://mirror.lan:5000"]
claims = ["project_path", "ref_protected"]
""",
)

HOSTED = NamedTable(
    section="hosted",
    field="hosted",
    key="name",
    model=HostedSettings,
    example="office",
    note="[hosted.md](hosted.md) has more. Without a rule that allows it, no client may push.",
    sample="""\
[[hosted]]
name = "office"
quota = "200GiB"
immutable_tags = ["v*.*.*"]
""",
)

NAMED_TABLES = (
    UPSTREAM,
    RULE,
    GROUP,
    LIMIT,
    ISSUER,
    WARM,
    HOSTED,
)


class Layout(Struct, frozen=True):
    """The sections and named tables of a configuration, and the type that they become."""

    config: type[Config]
    sections: Mapping[str, type[Settings]]
    tables: Sequence[NamedTable]

    def table(self, section: str) -> NamedTable | None:
        """Return the named tables of a section of the file."""
        return next((each for each in self.tables if each.section == section), None)

    def table_of_field(self, field: str) -> NamedTable | None:
        """Return the named tables of a field of `Config`."""
        return next((each for each in self.tables if each.field == field), None)

    def names(self) -> list[str]:
        """Return the names of all sections and named tables."""
        return [*self.sections, *(each.section for each in self.tables)]

    def inner_tables(self) -> dict[str, type[Settings]]:
        """Return the lists of tables in sections and in other tables, by their keys."""
        models = [*self.sections.values(), *(each.model for each in self.tables)]
        return {key: inner for model in models for key, inner in inner_tables(model)}


LAYOUT = Layout(Config, SECTIONS, NAMED_TABLES)


def inner_tables(model: type[Settings]) -> Iterator[tuple[str, type[Settings]]]:
    """Yield key and type of each list of tables among the options of a table."""
    for key, option in model.options().items():
        if (inner := inner_table(option)) is not None:
            yield key, inner


def inner_table(option: Option) -> type[Settings] | None:
    """Return the type of the tables in an option that is a list of tables; None for another option."""
    kind = bare(option.kind)
    inner = bare(get_args(kind)[0]) if get_origin(kind) is tuple else None
    return inner if isinstance(inner, type) and issubclass(inner, Settings) else None

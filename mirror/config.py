"""The configuration: frozen values, read from flags, environment, file and defaults, here and nowhere else.

    flags  >  environment REGISTRY_MIRROR_<SECTION>_<KEY>  >  file (TOML)  >  defaults

Upstreams: those that are preconfigured are always there; a `[[upstream]]`, a REGISTRY_MIRROR_UPSTREAMS or an
`--upstream` that names one of them changes only the keys it gives. Those named come first, in the order
named, and the first one is the default.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mirror.oci.reference import Names

PREFIX = "REGISTRY_MIRROR_"


class ConfigError(Exception):
    """The configuration cannot be used; the message names the place, the key, and what would be right."""


def _listed(value: object) -> object:
    """A comma-separated string, as an environment variable has it, is a list."""
    return [each.strip() for each in value.split(",") if each.strip()] if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Section(BaseModel):
    """Frozen, and a key that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Server(Section):
    listen: Words = ("127.0.0.1:5000",)
    header_timeout: Seconds = 20
    shutdown_timeout: Seconds = 30
    when_unavailable: Literal["auto", "next", "honest"] = "auto"

    @field_validator("listen")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            host, _, port = each.rpartition(":")
            if not host or not port.isdigit() or int(port) > 65535:
                raise ValueError(f"{each!r} is not HOST:PORT, for instance 127.0.0.1:5000 or [::]:5000")
        if not value:
            raise ValueError("needs at least one HOST:PORT")
        return value


class CacheSettings(Section):
    dir: Path
    max_size: ByteSize = ByteSize(0)


class Tags(Section):
    fresh: Seconds = 60
    fallback_after: Seconds = 2


class Fill(Section):
    chunk_size: ByteSize = Field(default=ByteSize(4 * 1024 * 1024), ge=64 * 1024, le=1024**3)
    attempts: int = Field(default=5, ge=1, le=100)


class Log(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class UpstreamSettings(Section):
    """One upstream: its canonical name, where it is, and how to behave towards it."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?$")
    url: str
    aliases: Words = ()
    hosts: Words = ()
    username: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None
    realms: Words = ()
    ca_file: Path | None = None
    private_redirects: bool = False
    max_connections: int = Field(default=32, ge=1, le=10_000)
    connect_timeout: float = Field(default=10, gt=0, allow_inf_nan=False)
    read_timeout: float = Field(default=30, gt=0, allow_inf_nan=False)
    attempts: int = Field(default=3, ge=1, le=100)

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("is not a URL, for instance https://registry-1.docker.io")
        if parts.username or parts.password:
            raise ValueError("has a user in it: set username and password_file instead")
        if parts.query or parts.fragment:
            raise ValueError("has a query or fragment in it: give the registry's base URL")
        return value.rstrip("/")

    @field_validator("realms")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            parts = urlsplit(each)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
                raise ValueError(f"{each!r} is not an origin, for instance https://auth.docker.io")
        return value

    @field_validator("ca_file", "password_file")
    @classmethod
    def _is_readable(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and not os.access(value, os.R_OK):
            raise ValueError(f"{value} cannot be read by this user")
        return value

    @model_validator(mode="before")
    @classmethod
    def _read_password(cls, values: Any) -> Any:
        """The password of `password_file`, read once, at load."""
        if not isinstance(values, dict) or not values.get("password_file"):
            return values
        if values.get("password"):
            raise ValueError("password and password_file exclude each other")
        try:
            text = Path(values["password_file"]).read_text()
        except (OSError, ValueError) as error:
            raise ValueError(f"password_file {values['password_file']}: {error}") from None
        return {**values, "password": text.rstrip("\r\n")}

    @model_validator(mode="after")
    def _credentials_are_whole(self) -> "UpstreamSettings":
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password (or password_file) belong together")
        return self


class Config(Section):
    """Everything, validated."""

    server: Server = Server()
    cache: CacheSettings
    tags: Tags = Tags()
    fill: Fill = Fill()
    log: Log = Log()
    upstreams: tuple[UpstreamSettings, ...]

    @model_validator(mode="after")
    def _names_are_unique(self) -> "Config":
        seen: dict[str, str] = {}
        for upstream in self.upstreams:
            for name in (upstream.name, *upstream.aliases):
                if seen.setdefault(name.lower(), upstream.name) != upstream.name:
                    raise ValueError(f"{name} is claimed by upstream {seen[name.lower()]} and {upstream.name}")
        hosts = [host.lower() for upstream in self.upstreams for host in upstream.hosts]
        if len(hosts) != len(set(hosts)):
            raise ValueError("a name in `hosts` is claimed by two upstreams")
        return self

    def names(self) -> Names:
        """How clients may call the upstreams; the first one is the default."""
        return Names(
            default=self.upstreams[0].name,
            names={name.lower(): each.name for each in self.upstreams for name in (each.name, *each.aliases)},
            hosts={host.lower(): each.name for each in self.upstreams for host in each.hosts},
        )


# Names that clients use for Docker Hub; regclient sends the second as `ns`, old tools the others.
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
}

SECTIONS: dict[str, type[Section]] = {
    "server": Server,
    "cache": CacheSettings,
    "tags": Tags,
    "fill": Fill,
    "log": Log,
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and, by dotted key, where each value that is not a default came from."""

    config: Config
    origins: Mapping[str, str]


@dataclass
class _Layers:
    """Raw values as they are gathered, lowest layer first."""

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    upstreams: dict[str, dict[str, Any]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def put(self, section: str, key: str, value: object, origin: str) -> None:
        self.values.setdefault(section, {})[key] = value
        self.origins[f"{section}.{key}"] = origin

    def name_upstreams(self, named: list[dict[str, Any]], origin: str) -> None:
        """Those named come first, in order, on top of what is known about them."""
        first: dict[str, dict[str, Any]] = {}
        for each in named:
            name = self._canonical(str(each.get("name", "")))
            known = first.get(name) or self.upstreams.get(name) or PRECONFIGURED.get(name, {})
            first[name] = {**known, **each, "name": name}
            for key in each:
                self.origins[f"upstream.{name}.{key}"] = origin
        self.upstreams = {**first, **{k: v for k, v in self.upstreams.items() if k not in first}}

    def _canonical(self, name: str) -> str:
        return "docker.io" if name in HUB_ALIASES else name


def environment() -> Mapping[str, str]:
    """The process environment."""
    return os.environ


def load(file: Path | None, env: Mapping[str, str], flags: Mapping[str, object]) -> Loaded:
    """Read and check everything. Raises ConfigError.

    `flags` maps `listen` (list of HOST:PORT), `cache_dir` and `upstreams` (list of NAME=URL) to values; None
    and empty ones are as if they were not given.
    """
    layers = _Layers()
    layers.put("cache", "dir", _default_cache_dir(env), "default")
    layers.upstreams = {name: {"name": name, **keys} for name, keys in PRECONFIGURED.items()}
    if file is None and env.get(f"{PREFIX}CONFIG"):
        file = Path(env[f"{PREFIX}CONFIG"])
    if file is not None:
        _apply_file(layers, file)
    _apply_environment(layers, env)
    _apply_flags(layers, flags)
    return _validate(layers)


def _apply_file(layers: _Layers, file: Path) -> None:
    try:
        content = tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error
    for section, keys in content.items():
        if section == "upstream":
            if not isinstance(keys, list):
                raise ConfigError(f"{file}: upstream: write [[upstream]], with two brackets")
            layers.name_upstreams(keys, f"file {file}")
            continue
        _known(section, [*SECTIONS, "upstream"], f"{file}: {section}")
        if not isinstance(keys, dict):
            raise ConfigError(f"{file}: {section} is a section: write [{section}]")
        for key, value in keys.items():
            _known(key, list(SECTIONS[section].model_fields), f"{file}: {section}.{key}")
            layers.put(section, key, value, f"file {file}")


def _apply_environment(layers: _Layers, env: Mapping[str, str]) -> None:
    variables = {
        f"{PREFIX}{section}_{key}".upper(): (section, key)
        for section, model in SECTIONS.items()
        for key in model.model_fields
    }
    known = [*variables, f"{PREFIX}CONFIG", f"{PREFIX}UPSTREAMS"]
    for name in sorted(each for each in env if each.startswith(PREFIX)):
        _known(name, known, f"environment {name}")
        if name in variables:
            layers.put(*variables[name], env[name], f"environment {name}")
    if named := env.get(f"{PREFIX}UPSTREAMS"):
        pairs = _listed(named)
        layers.name_upstreams(_pairs(pairs, f"environment {PREFIX}UPSTREAMS"), f"environment {PREFIX}UPSTREAMS")


def _apply_flags(layers: _Layers, flags: Mapping[str, object]) -> None:
    if flags.get("listen"):
        layers.put("server", "listen", flags["listen"], "--listen")
    if flags.get("cache_dir"):
        layers.put("cache", "dir", flags["cache_dir"], "--cache-dir")
    if flags.get("upstreams"):
        layers.name_upstreams(_pairs(flags["upstreams"], "--upstream"), "--upstream")


def _pairs(values: object, where: str) -> list[dict[str, Any]]:
    found = []
    for each in values if isinstance(values, list) else []:
        name, separator, url = str(each).partition("=")
        if not separator or not name or not url:
            raise ConfigError(f"{where}: {each!r} is not NAME=URL, for instance docker.io=http://10.0.0.1:5000")
        found.append({"name": name, "url": url})
    return found


def _validate(layers: _Layers) -> Loaded:
    values = {**layers.values, "upstreams": list(layers.upstreams.values())}
    try:
        return Loaded(Config.model_validate(values), layers.origins)
    except ValidationError as invalid:
        names = list(layers.upstreams)
        lines = [_explain(each["loc"], each["msg"], names, layers.origins) for each in invalid.errors()]
        raise ConfigError("\n".join(lines)) from invalid


def _explain(
    location: tuple[int | str, ...], message: str, names: list[str], origins: Mapping[str, str]
) -> str:
    """One line: where the value came from, its key, what is wrong with it."""
    parts = [str(each) for each in location]
    if parts[:1] == ["upstreams"] and len(parts) > 1:
        parts = ["upstream", names[int(parts[1])], *parts[2:]]
    key = ".".join(parts[:3] if parts[:1] == ["upstream"] else parts[:2])
    origin = origins.get(key) or next((origins[each] for each in origins if each.startswith(key)), "default")
    message = message.removeprefix("Value error, ")
    if message.startswith("Extra inputs"):
        message = _suggest(parts[-1], list(UpstreamSettings.model_fields))
    return f"{origin}: {key}: {message}"


def _known(name: str, names: list[str], where: str) -> None:
    if name not in names:
        raise ConfigError(f"{where}: {_suggest(name, names)}")


def _suggest(name: str, names: list[str]) -> str:
    close = get_close_matches(name, names, 1)
    right = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(names))}"
    return f"there is no such key; {right}"


def _default_cache_dir(env: Mapping[str, str]) -> Path:
    """Systemd's folder, or the system's as root, or the user's own."""
    if given := env.get("CACHE_DIRECTORY"):
        return Path(given.split(":")[0])
    if os.geteuid() == 0:
        return Path("/var/cache/registry-mirror")
    home = env.get("XDG_CACHE_HOME") or Path(env.get("HOME", "~")).expanduser() / ".cache"
    return Path(home) / "registry-mirror"

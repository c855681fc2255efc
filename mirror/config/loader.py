"""The configuration: frozen values, read from flags, environment, file and defaults, here and nowhere else.

    flags  >  environment REGISTRY_MIRROR_<SECTION>_<KEY>  >  file (TOML)  >  defaults

Upstreams: those that are preconfigured are always there; a `[[upstream]]`, a REGISTRY_MIRROR_UPSTREAMS or an
`--upstream` that names one of them changes only the keys it gives. Those named come first, in the order
named, and the first one is the default.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mirror.config.schema import (
    AccountSettings,
    CacheSettings,
    Config,
    FillSettings,
    LogSettings,
    ServerSettings,
    Settings,
    SourceSettings,
    TagSettings,
    UpstreamSettings,
)
from mirror.config.types import reason

PREFIX = "REGISTRY_MIRROR_"

# The service's file. Commands beside the service read it too, so that they use its folder and its quota.
SYSTEM_FILE = Path("/etc/registry-mirror/mirror.toml")

# Kubernetes sets these in every pod of a namespace that has a Service called registry-mirror.
SERVICE_LINKS = re.compile(rf"{PREFIX}(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")

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

CANONICAL = {alias: name for name, keys in PRECONFIGURED.items() for alias in keys.get("aliases", ())}

SECTIONS: dict[str, type[Settings]] = {
    "server": ServerSettings,
    "cache": CacheSettings,
    "tags": TagSettings,
    "fill": FillSettings,
    "log": LogSettings,
}

# Lists of tables within an upstream.
TABLES: dict[str, type[Settings]] = {"sources": SourceSettings, "accounts": AccountSettings}


class ConfigError(Exception):
    """The configuration cannot be used; each line names the place, the key, and what would be right."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and, by dotted key, where each value that is not a default came from."""

    config: Config
    origins: Mapping[str, str]


@dataclass
class _Layers:
    """Raw values as they are gathered, lowest layer first, and what was wrong with them."""

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    upstreams: dict[str, dict[str, Any]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def put(self, section: str, key: str, value: object, origin: str) -> None:
        self.values.setdefault(section, {})[key] = value
        self.origins[f"{section}.{key}"] = origin

    def refuse(self, *parts: str) -> None:
        self.problems.append(": ".join(parts))

    def name_upstreams(self, named: list[Any], origin: str) -> None:
        """Those named come first, in order, on top of what is known about them."""
        first: dict[str, dict[str, Any]] = {}
        for each in named:
            name = each.get("name") if isinstance(each, dict) else None
            if not isinstance(name, str) or not name:
                self.refuse(origin, 'upstream: each one needs a name: [[upstream]] and then name = "quay.io"')
                continue
            name = CANONICAL.get(name, name)
            if name in first:
                self.refuse(origin, f"upstream.{name}", "is named twice: keep one of them")
            first[name] = {**self.upstreams.get(name, {}), **each, "name": name}
            self._remember(f"upstream.{name}", each, origin)
        self.upstreams = {**first, **{k: v for k, v in self.upstreams.items() if k not in first}}

    def _remember(self, dotted: str, given: dict[str, Any], origin: str) -> None:
        self.origins.update({f"{dotted}.{key}": origin for key in given})
        if given.get("password_file"):
            self.origins[f"{dotted}.password"] = f"{origin}, password_file"
        for table in TABLES:
            tables = given.get(table)
            for number, each in enumerate(tables if isinstance(tables, list) else [], 1):
                if isinstance(each, dict):
                    self._remember(f"{dotted}.{table}.{number}", each, origin)


def environment() -> Mapping[str, str]:
    """The process environment."""
    return os.environ


def config_file(file: Path | str | None, env: Mapping[str, str]) -> Path | None:
    """Return the file to read: `file`, else REGISTRY_MIRROR_CONFIG, else SYSTEM_FILE if it is readable.

    "" means no file at all.
    """
    if file is not None:
        return Path(file) if str(file) else None
    if env.get(f"{PREFIX}CONFIG"):
        return Path(env[f"{PREFIX}CONFIG"])
    return SYSTEM_FILE if os.access(SYSTEM_FILE, os.R_OK) else None


def load(file: Path | str | None, env: Mapping[str, str], flags: Mapping[str, object]) -> Loaded:
    """Read and check everything. Raises ConfigError, which lists all that is wrong.

    `file` is explained at `config_file`.
    `flags` maps `listen` (list of HOST:PORT), `cache_dir`, `upstreams` (list of NAME=URL) and `offline` to
    values; None and empty ones are as if they were not given, and so are empty variables of `env`.
    """
    layers = _Layers()
    layers.upstreams = {name: {"name": name, **keys} for name, keys in PRECONFIGURED.items()}
    _apply_cache_dir(layers, env)
    found = config_file(file, env)
    if found is not None:
        _apply_file(layers, found)
    _apply_environment(layers, env)
    _apply_flags(layers, flags)
    return _validate(layers)


def _apply_cache_dir(layers: _Layers, env: Mapping[str, str]) -> None:
    """Systemd's folder, or the system's as root, or the user's own."""
    if given := env.get("CACHE_DIRECTORY"):
        layers.put("cache", "dir", given.split(":")[0], "environment CACHE_DIRECTORY")
        return
    if os.geteuid() == 0:
        folder = "/var/cache"
    else:
        # One that is not absolute is invalid, and ignored: XDG Base Directory Specification, "Basics".
        given = env.get("XDG_CACHE_HOME", "")
        folder = given if given.startswith("/") else f"{env.get('HOME') or '~'}/.cache"
    layers.put("cache", "dir", f"{folder}/registry-mirror", "default")


def _apply_file(layers: _Layers, file: Path) -> None:
    origin = f"file {file}"
    for section, keys in _read(file).items():
        if section == "upstream":
            if isinstance(keys, list):
                layers.name_upstreams(keys, origin)
            else:
                layers.refuse(origin, "upstream", "write [[upstream]], with two brackets")
        elif section not in SECTIONS:
            layers.refuse(origin, section, _suggest(section, [*SECTIONS, "upstream"]))
        elif not isinstance(keys, dict):
            layers.refuse(origin, section, f"is a section: write [{section}], and its keys below")
        else:
            _apply_section(layers, section, keys, origin)


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"file {file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"file {file}: is not text in UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"file {file}: is not TOML: {error}") from error


def _apply_section(layers: _Layers, section: str, keys: dict[str, Any], origin: str) -> None:
    known = list(SECTIONS[section].model_fields)
    for key, value in keys.items():
        if key in known:
            layers.put(section, key, value, origin)
        else:
            layers.refuse(origin, f"{section}.{key}", _suggest(key, known))


def _apply_environment(layers: _Layers, env: Mapping[str, str]) -> None:
    variables = {
        f"{PREFIX}{section}_{key}".upper(): (section, key)
        for section, model in SECTIONS.items()
        for key in model.model_fields
    }
    others = [f"{PREFIX}CONFIG", f"{PREFIX}UPSTREAMS"]
    for name in sorted(each for each in env if each.startswith(PREFIX) and env[each]):
        if name in variables:
            layers.put(*variables[name], env[name], f"environment {name}")
        elif name not in others and SERVICE_LINKS.fullmatch(name) is None:
            layers.refuse(f"environment {name}", _suggest(name, [*variables, *others]))
    named = [each.strip() for each in env.get(f"{PREFIX}UPSTREAMS", "").split(",") if each.strip()]
    _apply_pairs(layers, named, f"environment {PREFIX}UPSTREAMS")


def _apply_flags(layers: _Layers, flags: Mapping[str, object]) -> None:
    if flags.get("listen"):
        layers.put("server", "listen", flags["listen"], "--listen")
    if flags.get("offline"):
        layers.put("server", "offline", True, "--offline")
    if flags.get("cache_dir"):
        layers.put("cache", "dir", flags["cache_dir"], "--cache-dir")
    if isinstance(named := flags.get("upstreams"), list):
        _apply_pairs(layers, named, "--upstream")


def _apply_pairs(layers: _Layers, pairs: list[str], origin: str) -> None:
    found = []
    for each in pairs:
        name, _, url = each.partition("=")
        if not name or not url:
            # Not repeated: what somebody put there may be a URL with a password in it.
            layers.refuse(origin, "must be NAME=URL, for instance docker.io=http://10.0.0.1:5000")
        else:
            found.append({"name": name, "url": url})
    layers.name_upstreams(found, origin)


def _validate(layers: _Layers) -> Loaded:
    # A section that is not given is {}: one validator is built, that of Config, instead of five (20 ms).
    sections = {section: layers.values.get(section, {}) for section in SECTIONS}
    values = {**sections, "upstreams": list(layers.upstreams.values())}
    try:
        config = Config.model_validate(values)
    except ValidationError as invalid:
        layers.problems += [_explain(layers, each) for each in invalid.errors()]
    if layers.problems:
        raise ConfigError("\n".join(layers.problems))
    return Loaded(config, layers.origins)


def _explain(layers: _Layers, error: ErrorDetails) -> str:
    """One line: where the value came from, its key, what would be right."""
    location = [str(each) for each in error["loc"]]
    if error["type"] == "claimed":
        return f"{_origin(layers, error['ctx']['second'], error['ctx']['first'])}: upstream: {reason(error)}"
    if location[0] != "upstreams":
        key = ".".join(location[:2])
        return f"{layers.origins.get(key, 'default')}: {key}: {reason(error)}"
    name = list(layers.upstreams)[int(location[1])]
    keys, model = _within(location[2:])
    dotted = ".".join(["upstream", name, *keys])
    said = (
        _suggest(keys[-1], list(model.model_fields)) if error["type"] == "extra_forbidden" else reason(error)
    )
    return f"{layers.origins.get(dotted) or _origin(layers, name)}: {dotted}: {said}"


def _within(location: list[str]) -> tuple[list[str], type[Settings]]:
    """The keys that lead to a value of an upstream, and the table it is in."""
    keys: list[str] = []
    model: type[Settings] = UpstreamSettings
    while len(location) > 1 and location[0] in TABLES:
        # Counted from 1, as people do.
        keys += [location[0], str(int(location[1]) + 1)]
        model, location = TABLES[location[0]], location[2:]
    return [*keys, *location[:1]], model


def _origin(layers: _Layers, *names: str) -> str:
    """Where any key of these upstreams was given."""
    keys = [f"upstream.{name}.{key}" for name in names for key in UpstreamSettings.model_fields]
    return next((layers.origins[key] for key in keys if key in layers.origins), "default")


def _suggest(name: str, names: list[str]) -> str:
    close = get_close_matches(name, names, 1)
    right = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(names))}"
    return f"there is no such key; {right}"

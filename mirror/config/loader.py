"""Loader of the configuration: flags, environment, file and defaults are read here and nowhere else.

    flags  >  environment REGISTRY_MIRROR_<SECTION>_<KEY>  >  file (TOML)  >  defaults

`mirror.config.tables` has the layout of a file. Presets of named tables, the preconfigured upstreams, are
always there. A `[[upstream]]`, a REGISTRY_MIRROR_UPSTREAMS or an `--upstream` with the name of one changes
only the keys that it has. Named upstreams come first, in their order, and the first one is the default.
"""

import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from mirror.config.schema import Claimed, Config
from mirror.config.tables import LAYOUT, UPSTREAM, Layout, NamedTable
from mirror.config.types import SecretStr
from mirror.config.validation import Invalid, Problem, no_such_key

PREFIX = "REGISTRY_MIRROR_"

# REGISTRY_MIRROR_LOGIN_DOCKER_IO=me:password is one more account at the upstream docker.io.
LOGIN = f"{PREFIX}LOGIN_"

# What commands that ask a running mirror read (mirror.cli.remote.admin_client): no options of a mirror.
FOR_COMMANDS = (f"{PREFIX}URL", f"{PREFIX}TOKEN")

# The service's file. Commands beside the service read it too, so that they use its folder and its quota.
SYSTEM_FILE = Path("/etc/registry-mirror/mirror.toml")

# Kubernetes sets these in every pod of a namespace that has a Service called registry-mirror.
SERVICE_LINKS = re.compile(rf"{PREFIX}(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")


class ConfigError(Exception):
    """The configuration is invalid; each line names the origin, the key, and the remedy."""


class Loaded(Struct, frozen=True):
    """A configuration, which has the origins too: by dotted key, of each value that is not a default."""

    config: Config

    @property
    def origins(self) -> Mapping[str, str]:
        """The origins of the configuration."""
        return self.config.origins


class _Layers(Struct):
    """Raw values, gathered from the lowest layer up, and the problems found on the way."""

    layout: Layout
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    # By field of Config and by name; the presets are there from the beginning.
    tables: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    # Origin, text and values of the file.
    file: tuple[str, str, Mapping[str, Any]] | None = None

    @classmethod
    def of(cls, layout: Layout) -> "_Layers":
        """Return the layers with the presets of all named tables."""
        presets = {row.field: {name: row.preset(name) for name in row.presets} for row in layout.tables}
        return cls(layout, tables=presets)

    def put(self, section: str, key: str, value: object, origin: str) -> None:
        """Set a value, overriding that of a lower layer."""
        self.values.setdefault(section, {})[key] = value
        self.origins[f"{section}.{key}"] = origin

    def refuse(self, *parts: str) -> None:
        """Note a problem: origin, key, message."""
        self.problems.append(": ".join(parts))

    def name_tables(self, row: NamedTable, named: list[Any], origin: str) -> None:
        """Put the named tables first, in order, on top of the values that a lower layer gives them."""
        known, first = self.tables[row.field], dict[str, dict[str, Any]]()
        for each in named:
            name = row.name_of(each)
            if name is None:
                example = f'[[{row.section}]] and then {row.key} = "{row.example}"'
                self.refuse(origin, f"{row.section}: each one needs a {row.key}: {example}")
                continue
            if name in first:
                self.refuse(origin, f"{row.section}.{name}", "is named twice: keep one of them")
            first[name] = {**known.get(name, {}), **each, row.key: name}
            self._note_origins(f"{row.section}.{name}", each, origin)
        self.tables[row.field] = {**first, **{k: v for k, v in known.items() if k not in first}}

    def _note_origins(self, dotted: str, table: dict[str, Any], origin: str) -> None:
        """Note the origin of each key of a table and of the tables in it."""
        self.origins.update({f"{dotted}.{key}": origin for key in table})
        if table.get("password_file"):
            self.origins[f"{dotted}.password"] = f"{origin}, password_file"
        for name in self.layout.inner_tables():
            inner = table.get(name)
            for number, each in enumerate(inner if isinstance(inner, list) else [], 1):
                if isinstance(each, dict):
                    self._note_origins(f"{dotted}.{name}.{number}", each, origin)


def environment() -> Mapping[str, str]:
    """Return the process environment."""
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


def load(
    file: Path | str | None,
    env: Mapping[str, str],
    flags: Mapping[str, object],
    layout: Layout = LAYOUT,
) -> Loaded:
    """Read and check the configuration. Raises ConfigError, which lists all problems.

    `config_file` explains `file`.
    `flags` maps `listen` (list of HOST:PORT), `cache_dir`, `upstreams` (list of NAME=URL) and `offline` to
    values. Flags that are None, empty lists, and empty variables of `env` are ignored.
    """
    layers = _Layers.of(layout)
    _apply_cache_dir(layers, env)
    found = config_file(file, env)
    if found is not None:
        _apply_file(layers, found)
    _apply_environment(layers, env)
    _apply_flags(layers, flags)
    _apply_logins(layers, env)
    _share_docker_config(layers)
    return _validate(layers)


def _apply_cache_dir(layers: _Layers, env: Mapping[str, str]) -> None:
    """Set the default cache folder: systemd's, the system's for root, or the user's own."""
    if given := env.get("CACHE_DIRECTORY"):
        layers.put("cache", "dir", given.split(":")[0], "environment CACHE_DIRECTORY")
        return
    if os.geteuid() == 0:
        folder = "/var/cache"
    else:
        # A relative path is invalid and must be ignored: XDG Base Directory Specification, "Basics".
        given = env.get("XDG_CACHE_HOME", "")
        folder = given if given.startswith("/") else f"{env.get('HOME') or '~'}/.cache"
    layers.put("cache", "dir", f"{folder}/registry-mirror", "default")


def _apply_file(layers: _Layers, file: Path) -> None:
    origin, text = f"file {file}", _text(file)
    values = _parse_toml(file, text)
    layers.file = origin, text, values
    for section, keys in values.items():
        if (row := layers.layout.table(section)) is not None:
            if isinstance(keys, list):
                layers.name_tables(row, keys, origin)
            else:
                layers.refuse(origin, section, f"write [[{section}]], with two brackets")
        elif section not in layers.layout.sections:
            layers.refuse(origin, section, no_such_key(section, layers.layout.names()))
        elif not isinstance(keys, dict):
            layers.refuse(origin, section, f"is a section: write [{section}], and its keys below")
        else:
            _apply_section(layers, section, keys, origin)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"file {file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"file {file}: is not text in UTF-8") from error


def _parse_toml(file: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        unclosed = "; a bracket or a quote is not closed" if "end of document" in str(error) else ""
        raise ConfigError(f"file {file}: is not TOML: {error}{unclosed}") from error


def _apply_section(layers: _Layers, section: str, keys: dict[str, Any], origin: str) -> None:
    known = list(layers.layout.sections[section].options())
    for key, value in keys.items():
        if key in known:
            layers.put(section, key, value, origin)
        else:
            layers.refuse(origin, f"{section}.{key}", no_such_key(key, known))


def _apply_environment(layers: _Layers, env: Mapping[str, str]) -> None:
    variables = {
        f"{PREFIX}{section}_{key}".upper(): (section, key)
        for section, model in layers.layout.sections.items()
        for key in model.options()
    }
    short = {f"{PREFIX}{row.field}".upper(): row for row in layers.layout.tables if row.pairs is not None}
    others = [f"{PREFIX}CONFIG", *FOR_COMMANDS, *short]
    for name in sorted(each for each in env if each.startswith(PREFIX) and env[each]):
        if name in variables:
            layers.put(*variables[name], env[name], f"environment {name}")
        elif name not in others and not name.startswith(LOGIN) and SERVICE_LINKS.fullmatch(name) is None:
            layers.refuse(f"environment {name}", no_such_key(name, [*variables, *others]))
    for name, row in short.items():
        named = [each.strip() for each in env.get(name, "").split(",") if each.strip()]
        _apply_pairs(layers, row, named, f"environment {name}")


def _apply_flags(layers: _Layers, flags: Mapping[str, object]) -> None:
    if flags.get("listen"):
        layers.put("server", "listen", flags["listen"], "--listen")
    if flags.get("offline"):
        layers.put("server", "offline", True, "--offline")
    if flags.get("cache_dir") is not None:
        layers.put("cache", "dir", flags["cache_dir"], "--cache-dir")
    for row in layers.layout.tables:
        if isinstance(named := flags.get(row.field), list):
            _apply_pairs(layers, row, named, f"--{row.section}")


def _apply_pairs(layers: _Layers, row: NamedTable, given: list[str], origin: str) -> None:
    """Name tables by their short form, NAME=VALUE."""
    pairs, found = row.pairs, list[dict[str, str]]()
    if pairs is None:
        return
    for each in given:
        name, _, value = each.partition("=")
        if not name or not value:
            # The message does not repeat the value, which may be a URL with a password in it.
            layers.refuse(origin, f"must be NAME={pairs.key.upper()}, for instance {pairs.example}")
        else:
            found.append({row.key: name, pairs.key: value})
    layers.name_tables(row, found, origin)


def _apply_logins(layers: _Layers, env: Mapping[str, str]) -> None:
    """Add the accounts of the environment, behind those of the file."""
    upstreams = layers.tables.get(UPSTREAM.field, {})
    for variable in sorted(each for each in env if each.startswith(LOGIN) and env[each]):
        named = [each for each in upstreams if f"{LOGIN}{_in_capitals(each)}" == variable]
        username, _, password = env[variable].partition(":")
        if len(named) != 1:
            which = f"is for {' and '.join(named)}" if named else "names no upstream"
            known = ", ".join(sorted(f"{LOGIN}{_in_capitals(each)}" for each in upstreams))
            layers.refuse(f"environment {variable}", f"{which}; there are {known}")
        elif not username or not password:
            layers.refuse(f"environment {variable}", "must be USERNAME:PASSWORD")
        else:
            _add_account(layers, named[0], username, password, f"environment {variable}")


def _in_capitals(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def _add_account(layers: _Layers, upstream: str, username: str, password: str, origin: str) -> None:
    table = layers.tables[UPSTREAM.field][upstream]
    accounts = table.get("accounts", [])
    if isinstance(accounts, list):
        account = {"username": username, "password": SecretStr(password)}
        layers.tables[UPSTREAM.field][upstream] = {**table, "accounts": [*accounts, account]}
        dotted = f"{UPSTREAM.section}.{upstream}.accounts.{len(accounts) + 1}"
        layers.origins.update({f"{dotted}.{key}": origin for key in account})


def _share_docker_config(layers: _Layers) -> None:
    """Let the upstreams that the common config.json names use it, unless they have accounts of their own."""
    file = layers.values.get("credentials", {}).get("docker_config")
    if not file:
        return
    from mirror.config.logins import is_named

    origin = layers.origins["credentials.docker_config"]
    for name, table in layers.tables.get(UPSTREAM.field, {}).items():
        own = table.keys() & {"username", "accounts", "docker_config", "credential_helper"}
        if not own and is_named(file, table.get("url")):
            table["docker_config"] = file
            layers.origins[f"{UPSTREAM.section}.{name}.docker_config"] = (
                f"{origin}, credentials.docker_config"
            )


def _validate(layers: _Layers) -> Loaded:
    values = {
        **{section: layers.values.get(section, {}) for section in layers.layout.sections},
        **{field: list(tables.values()) for field, tables in layers.tables.items()},
    }
    try:
        config = layers.layout.config.model_validate(values)
    except Invalid as invalid:
        layers.problems += [_explain(layers, each) for each in invalid.problems]
    except Claimed as claim:
        layers.refuse(_origin_of_table(layers, claim.section, *claim.names), claim.section, str(claim))
    if layers.problems:
        raise ConfigError("\n".join(layers.problems))
    return Loaded(config.model_copy(update={"origins": _origins_with_lines(layers)}))


def _origins_with_lines(layers: _Layers) -> dict[str, str]:
    if layers.file is None:
        return layers.origins
    from mirror.config.origins.file_lines import names_of, with_lines

    origin, text, values = layers.file
    return with_lines(layers.origins, origin, text, names_of(values, layers.layout))


def _explain(layers: _Layers, problem: Problem) -> str:
    """Return one line about a wrong value: its origin, its key, the remedy."""
    section, *places = problem.location
    inner = layers.layout.inner_tables()
    if (row := layers.layout.table_of_field(str(section))) is not None:
        name = list(layers.tables[row.field])[int(places[0])]
        dotted = ".".join([row.section, name, *_keys(places[1:], inner)])
        origin = layers.origins.get(dotted) or _origin_of_table(layers, row.section, name)
        return f"{origin}: {dotted}: {problem.error}"
    if not places:  # options of a section that contradict each other
        found = (origin for key, origin in layers.origins.items() if key.startswith(f"{section}."))
        return f"{next(found, 'default')}: {section}: {problem.error}"
    origin = layers.origins.get(f"{section}.{places[0]}", "default")
    if origin.startswith("--"):  # the flag is the key
        return f"{origin}: {problem.error}"
    return f"{origin}: {'.'.join([str(section), *_keys(places, inner)])}: {problem.error}"


def _keys(places: Sequence[str | int], inner: Collection[str]) -> Iterator[str]:
    """Yield the keys that lead to a value. People count tables from 1; a text in a list has no number."""
    table = False
    for place in places:
        if isinstance(place, str):
            table = place in inner
            yield place
        elif table:
            yield str(place + 1)


def _origin_of_table(layers: _Layers, section: str, *names: str) -> str:
    """Return the origin of any key of the tables with these names."""
    row = layers.layout.table(section)
    keys = [f"{section}.{name}.{key}" for name in names for key in (row.model.options() if row else ())]
    return next((layers.origins[key] for key in keys if key in layers.origins), "default")

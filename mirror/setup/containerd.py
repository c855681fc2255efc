"""containerd and nerdctl: hosts.toml, and `config_path` in config.toml for Kubernetes (CRI).

Without `config_path` no version of CRI reads hosts.toml, 2.4 included. CRI of containerd 2, which pulls by
the transfer service, takes two folders in it, "A:B", for the name of one. Both were seen with 2.4.2.
"""

from collections.abc import MutableMapping
from typing import Any

import tomlkit

from mirror.setup.hosts_toml import HostsFile, hosts_text, parsed
from mirror.setup.plan import DOCKER_HUB, File, Mirror, Request, SetupError, SetupPlan, ours_first

CONFIG = "/etc/containerd/config.toml"
CERTIFICATES = "/etc/containerd/certs.d"
DEFAULT = "_default"
CA = "registry-mirror-ca.crt"
RESTART = "systemctl restart containerd"

# Plugins that have the registries of CRI, by the version of the configuration: newer ones first.
PLUGINS = {3: "io.containerd.cri.v1.images", 2: "io.containerd.grpc.v1.cri", 1: "cri"}


def capabilities(request: Request) -> tuple[str, ...]:
    """Return the capabilities that this containerd knows: an older one drops a file with an unknown one."""
    return ("pull", "resolve", "referrers") if request.at_least(2, 2) else ("pull", "resolve")


def plan(request: Request) -> SetupPlan:
    """Return the files that make containerd use the mirror, for all registries at once."""
    path = request.file or CONFIG
    text = request.root.text(path)
    notes = [] if request.version is not None else [UNKNOWN_VERSION]
    config = Cri(text, path, request)
    folder = config.folder or CERTIFICATES
    files = hosts_files(request, folder, capabilities(request))
    new = config.with_registries(folder)
    if new != text and new is not None:
        files.append(File(path, new))
    restart = (RESTART,) if new != text else ()
    return SetupPlan(tuple(files), restart, notes=(*notes, *config.notes))


UNKNOWN_VERSION = (
    'The version of containerd is not known: the capability "referrers", which signatures need from 2.2 on, '
    "is left out, because older ones ignore a file with it. --client-version says the version."
)


def nerdctl_plan(request: Request) -> SetupPlan:
    """Return the files for nerdctl, which reads hosts.toml by itself.

    nerdctl has a containerd library of its own, which may be older than the daemon.
    """
    files = hosts_files(request, request.file or CERTIFICATES, ("pull", "resolve"))
    note = "A rootless nerdctl reads ~/.config/containerd/certs.d: name that folder with --file."
    return SetupPlan(tuple(files), notes=(note,))


def hosts_files(request: Request, folder: str, named: tuple[str, ...]) -> list[File]:
    """Return hosts.toml for all registries, and for each of the mirror's registries with a folder of its own.

    containerd reads the folder of a registry if there is one, and the default only otherwise.
    """
    mirror, files = request.mirror, []
    ca = f"{folder}/{CA}" if mirror.tls and mirror.ca is not None else None
    if ca is not None and mirror.ca is not None:
        files.append(File(ca, mirror.ca))
    present = set(request.root.names(folder))
    own = [each for each in _registry_folders(mirror) if each in present]
    for registry in (DEFAULT, *own):
        path = f"{folder}/{registry}/hosts.toml"
        entry = HostsFile(mirror.url, named, ca)
        files.append(File(path, hosts_text(request.root.text(path), entry, path)))
    return files


def _registry_folders(mirror: Mirror) -> list[str]:
    return [name for each in mirror.upstreams for name in (each.name, *each.aliases)]


class Cri:
    """The registries of CRI in containerd's config.toml. `folder`: its place for hosts.toml, or None."""

    def __init__(self, text: str | None, path: str, request: Request) -> None:
        self._text, self._path, self._request = text, path, request
        self._document = parsed(text or "", path)
        self.notes: list[str] = []
        found = (_table(self._document, "plugins", each, "registry") for each in PLUGINS.values())
        self._registry = next((each for each in found if each is not None), None)
        self.folder = self._folder()

    def _folder(self) -> str | None:
        """Return the first folder of `config_path`: the others are read for what it does not have."""
        text = str((self._registry or {}).get("config_path", ""))
        return text.partition(":")[0] or None

    @property
    def has_two_folders(self) -> bool:
        return ":" in str((self._registry or {}).get("config_path", ""))

    def with_registries(self, folder: str) -> str | None:
        """Return the text with which CRI reads hosts.toml; as it is where nothing has to change."""
        if "cri" in self._document.get("disabled_plugins", []):
            self.notes.append(
                f"{self._path} disables the plugin cri: Kubernetes cannot use this containerd until it is "
                "removed from disabled_plugins. ctr and nerdctl can."
            )
        if self.folder is not None:
            return self._with_one_folder(self.folder)
        if self._registry is not None and self._registry.get("mirrors"):
            return self._with_legacy_mirrors()
        return self._with_config_path(folder)

    def _with_one_folder(self, folder: str) -> str | None:
        """Leave one folder in `config_path` where containerd would read none of two."""
        if self._registry is None or self._registry["config_path"] == folder:
            return self._text
        if self._request.version is not None and not self._request.at_least(2):
            return self._text
        self.notes.append(
            f"{self._path} has two folders in config_path, of which containerd 2 reads none for Kubernetes: "
            f"{folder} is left. What is in the other one has to move."
        )
        self._registry["config_path"] = folder
        return tomlkit.dumps(self._document)

    def _with_config_path(self, folder: str) -> str:
        if self._registry is not None:
            self._registry["config_path"] = folder
            return tomlkit.dumps(self._document)
        is_new = not (self._text or "").strip()
        version = (3 if self._request.at_least(2) else 2) if is_new else int(self._document.get("version", 1))
        plugin = PLUGINS.get(version, PLUGINS[max(PLUGINS)])
        header = f"version = {version}\n\n" if is_new else ""
        name = plugin if plugin.isidentifier() else f'"{plugin}"'
        table = f'[plugins.{name}.registry]\n  config_path = "{folder}"\n'
        text = (self._text or "").rstrip("\n")
        new = f"{header}{text}{chr(10) * 2 if text.strip() else ''}{table}"
        parsed(new, self._path)
        return new

    def _with_legacy_mirrors(self) -> str:
        """Put the mirror in front of the old lists: `config_path` beside them would stop the plugin."""
        self.notes.append(
            f"{self._path} has `registry.mirrors`, the old form, which excludes config_path: the mirror is "
            "the first endpoint of these lists, for Kubernetes alone. Move them to hosts.toml when you can."
        )
        before = tomlkit.dumps(self._document)
        registry: MutableMapping[str, Any] = self._registry or {}
        mirrors = registry["mirrors"]
        names = {*_registry_folders(self._request.mirror), "*"}
        if "*" not in mirrors and DOCKER_HUB not in mirrors:
            mirrors["*"] = {"endpoint": []}
        for name, table in mirrors.items():
            if name not in names:
                continue
            endpoints = table.get("endpoint", [])
            if not isinstance(endpoints, list):
                raise SetupError(f"{self._path}: the endpoint of {name} is not a list: mend it first")
            table["endpoint"] = ours_first(self._request.mirror.url, endpoints)
        after = tomlkit.dumps(self._document)
        return (self._text or "") if tomlkit.parse(after) == tomlkit.parse(before) else after


def config_path(document: MutableMapping[str, Any]) -> str:
    """Return `config_path` of a configuration, of whichever version; "" if it has none."""
    found = (_table(document, "plugins", each, "registry") for each in PLUGINS.values())
    paths = [str(each.get("config_path", "")) for each in found if each is not None]
    return next(filter(None, paths), "")


def _table(document: MutableMapping[str, Any], *keys: str) -> MutableMapping[str, Any] | None:
    """Return the table at the end of `keys`, or None."""
    found: Any = document
    for key in keys:
        if not isinstance(found, MutableMapping) or key not in found:
            return None
        found = found[key]
    return found if isinstance(found, MutableMapping) else None

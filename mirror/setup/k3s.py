"""k3s and RKE2: registries.yaml."""

from collections.abc import MutableMapping
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from mirror.setup.plan import File, Mirror, Request, SetupError, SetupPlan, Version, ours_first

CA = "registry-mirror-ca.crt"
WILDCARD = "*"

# First version in which "*" stands for all registries.
WILDCARDS = Version(1, 26, 13)

# Services that read registries.yaml at their start.
RESTARTS = {
    "k3s": "systemctl restart k3s         # on an agent: systemctl restart k3s-agent",
    "rke2": "systemctl restart rke2-server # on an agent: systemctl restart rke2-agent",
}

FALLBACK = (
    "When the mirror has no answer, {name} asks the registry itself. `{name} server "
    "--disable-default-endpoint` forbids that. The embedded registry, if it is on, comes before the mirror."
)


def plan(request: Request, name: str = "k3s") -> SetupPlan:
    """Return registries.yaml with the mirror for all registries, and first where one has its own list."""
    folder = f"/etc/rancher/{name}"
    path = request.file or f"{folder}/registries.yaml"
    mirror, files = request.mirror, []
    ca = f"{folder}/{CA}" if mirror.tls and mirror.ca is not None else None
    if ca is not None and mirror.ca is not None:
        files.append(File(ca, mirror.ca))
    wildcard = request.version is None or request.version >= WILDCARDS
    text = registries_yaml(request.root.text(path), mirror, ca, path, wildcard=wildcard)
    files.append(File(path, text, 0o600))
    return SetupPlan(tuple(files), (RESTARTS[name],), notes=(FALLBACK.format(name=name),))


def rke2_plan(request: Request) -> SetupPlan:
    """Return the same file for RKE2."""
    return plan(request, "rke2")


def registries_yaml(
    text: str | None, mirror: Mirror, ca: str | None, path: str, *, wildcard: bool = True
) -> str:
    """Return registries.yaml with the mirror in it; comments and everything else stay."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096  # no line is broken that was whole
    document = _loaded(yaml, text, path)
    before = _plain(document)
    mirrors = _map(document, "mirrors", path)
    names = [WILDCARD] if wildcard else [each.name for each in mirror.upstreams]
    own = [name for each in mirror.upstreams for name in (each.name, *each.aliases) if name in mirrors]
    for name in dict.fromkeys([*names, *own]):
        key = DoubleQuotedScalarString(name) if name == WILDCARD else name
        endpoints = _map(mirrors, key, path).get("endpoint") or []
        if not isinstance(endpoints, list):
            raise SetupError(f"{path}: the endpoint of {name} is not a list: mend it first")
        _put_first(mirrors[key], DoubleQuotedScalarString(mirror.url), endpoints)
    if ca is not None:
        _map(_map(_map(document, "configs", path), mirror.address, path), "tls", path)["ca_file"] = ca
    if text is not None and _plain(document) == before:
        return text
    stream = StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _put_first(table: MutableMapping[str, Any], url: str, endpoints: list[Any]) -> None:
    """Put the mirror in front of a list, which keeps its comments."""
    if ours_first(url, endpoints) == list(endpoints):
        return
    if url in endpoints:
        endpoints.remove(url)
    endpoints.insert(0, url)
    table["endpoint"] = endpoints


def _loaded(yaml: YAML, text: str | None, path: str) -> CommentedMap:
    try:
        document = yaml.load(text or "")
    except YAMLError as error:
        raise SetupError(f"{path} is not YAML ({error}): mend it first") from None
    if document is None:
        document = CommentedMap()
        if text and text.strip():  # comments alone
            document.yaml_set_start_comment(
                "\n".join(each.lstrip("# ") for each in text.strip().splitlines())
            )
    if not isinstance(document, CommentedMap):
        raise SetupError(f"{path} is not a map: mend it first")
    return document


def _map(parent: MutableMapping[str, Any], key: str, path: str) -> MutableMapping[str, Any]:
    """Return the map at `key`, created if there is none."""
    found = parent.get(key)
    if found is None:
        found = parent[key] = CommentedMap()
    if not isinstance(found, MutableMapping):
        raise SetupError(f"{path}: {key} is not a map: mend it first")
    return found


def _plain(value: object) -> object:
    """Return a copy in plain types, to compare."""
    if isinstance(value, MutableMapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value

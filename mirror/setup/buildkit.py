"""BuildKit: buildkitd.toml."""

from collections.abc import MutableMapping
from typing import Any

import tomlkit

from mirror.setup.hosts_toml import parsed
from mirror.setup.plan import File, Request, SetupError, SetupPlan, ours_first

CONFIG = "/etc/buildkit/buildkitd.toml"
CA = "/etc/buildkit/registry-mirror-ca.crt"

NOTE = (
    "For a builder of buildx: docker buildx create --driver docker-container --buildkitd-config {path}. The "
    "BuildKit inside Docker uses registry-mirrors of daemon.json: registry-mirror setup docker."
)


def plan(request: Request) -> SetupPlan:
    """Return buildkitd.toml with the mirror for each of its registries, and how to reach it."""
    path, mirror = request.file or CONFIG, request.mirror
    files = []
    text = request.root.text(path)
    document = parsed(text or "", path)
    before = document.unwrap()
    registries = _table(document, "registry", path, is_super=True)
    for upstream in mirror.upstreams:
        table = _table(registries, upstream.name, path)
        present = table.get("mirrors", [])
        if not isinstance(present, list):
            raise SetupError(f"{path}: mirrors of {upstream.name} is not a list: mend it first")
        table["mirrors"] = ours_first(f"{mirror.address}/{upstream.name}", present)
    own = _table(registries, mirror.address, path)
    if not mirror.tls:
        own["http"] = True
    else:
        own.pop("http", None)
    if mirror.tls and mirror.ca is not None:
        files.append(File(CA, mirror.ca))
        own["ca"] = [CA]
    new = text if text is not None and document.unwrap() == before else tomlkit.dumps(document)
    files.append(File(path, new))
    return SetupPlan(tuple(files), ("systemctl restart buildkit",), notes=(NOTE.format(path=path),))


def _table(
    parent: MutableMapping[str, Any], key: str, path: str, *, is_super: bool = False
) -> MutableMapping[str, Any]:
    """Return the table at `key`, created if there is none."""
    if key not in parent:
        parent[key] = tomlkit.table(is_super)
    found = parent[key]
    if not isinstance(found, MutableMapping):
        raise SetupError(f"{path}: {key} is not a table: mend it first")
    return found

"""Podman, Buildah, Skopeo and CRI-O: a drop-in beside registries.conf."""

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct, field

from mirror.setup.hosts_toml import parsed
from mirror.setup.plan import File, Mirror, Request, SetupPlan

MAIN = "/etc/containers/registries.conf"
DROP_INS = "/etc/containers/registries.conf.d"
NAME = "50-registry-mirror.conf"
LAST_NAME = "zz-registry-mirror.conf"  # files are read in the order of their names, and the last one counts
CERTIFICATES = "/etc/containers/certs.d"

HEAD = """# Written by `registry-mirror setup`, which can take it back: --undo.
# An entry here replaces the entry with the same prefix in {main} and in files before this one.
"""

# Keys of a [[registry]] that this writes, in their order; others are kept behind them.
KEYS = ("prefix", "location", "insecure", "blocked")


class RegistryEntry(Struct, frozen=True):
    """A [[registry]] that the client has already: its keys, its mirrors, and the file that says so."""

    keys: Mapping[str, Any] = field(default_factory=dict)
    mirrors: tuple[Mapping[str, Any], ...] = ()
    file: str = ""


def plan(request: Request) -> SetupPlan:
    """Return the drop-in for Podman, Buildah and Skopeo, which read it at each pull."""
    drop_in = _drop_in(request)
    notes = [
        "A user with ~/.config/containers/registries.conf reads that file in the place of the system's: "
        "write there with --file ~/.config/containers/registries.conf.d/" + NAME + ".",
        "skopeo list-tags, and skopeo inspect without --no-tags, use no mirrors: name the mirror for them.",
    ]
    files = [drop_in, *_certificates(request.mirror)]
    if request.version is not None and not request.at_least(2):
        notes.append(f"Podman before 2.0 reads no {DROP_INS}: copy the file's entries into {MAIN}.")
    return SetupPlan(tuple(files), notes=tuple(notes))


def crio_plan(request: Request) -> SetupPlan:
    """Return the same drop-in for CRI-O, which reads it again on a reload."""
    files = [_drop_in(request), *_certificates(request.mirror)]
    return SetupPlan(tuple(files), ("systemctl reload crio",))


def _certificates(mirror: Mirror) -> list[File]:
    if not mirror.tls or mirror.ca is None:
        return []
    return [File(f"{CERTIFICATES}/{mirror.address}/ca.crt", mirror.ca)]


def _drop_in(request: Request) -> File:
    """Return the drop-in; its name is late enough to count for the mirror's registries."""
    names = [each for each in request.root.names(DROP_INS) if each.endswith(".conf")]
    others = [each for each in names if each not in (NAME, LAST_NAME)]
    entries = _entries(request, others)
    path = request.file
    if path is None:
        wanted = {each.name for each in request.mirror.upstreams}
        late = LAST_NAME in names or any(
            entry.file > NAME for prefix, entry in entries.items() if prefix in wanted and entry.file
        )
        path = f"{DROP_INS}/{LAST_NAME if late else NAME}"
    blocks = [
        _block(each.name, entries.get(each.name, RegistryEntry()), request.mirror)
        for each in request.mirror.upstreams
    ]
    return File(path, HEAD.format(main=MAIN) + "".join(f"\n{each}" for each in blocks))


def _entries(request: Request, names: list[str]) -> dict[str, RegistryEntry]:
    """Return the client's own entries by prefix: of registries.conf, then of the drop-ins in their order."""
    found: dict[str, RegistryEntry] = {}
    for name, path in [("", MAIN), *((each, f"{DROP_INS}/{each}") for each in names)]:
        text = request.root.text(path)
        if text is None:
            continue
        document = parsed(text, path).unwrap()
        found |= dict(_version_1(document))
        for registry in document.get("registry", []):
            prefix = str(registry.get("prefix") or registry.get("location") or "")
            mirrors = tuple(registry.get("mirror", []))
            keys = {key: value for key, value in registry.items() if key != "mirror"}
            found[prefix] = RegistryEntry(keys, mirrors, name)
    return found


def _version_1(document: Mapping[str, Any]) -> Iterator[tuple[str, RegistryEntry]]:
    """Yield the entries of a registries.conf in version 1, which has lists of insecure and blocked ones."""
    lists = document.get("registries", {})
    if isinstance(lists, Mapping):
        for section, key in (("insecure", "insecure"), ("block", "blocked")):
            for registry in lists.get(section, {}).get("registries", []):
                yield str(registry), RegistryEntry({key: True})


def _block(name: str, entry: RegistryEntry, mirror: Mirror) -> str:
    """Return a [[registry]] with the mirror in front of those that were there."""
    location = f"{mirror.address}/{name}"
    keys = {"prefix": name, "location": name, **entry.keys}
    ours: dict[str, Any] = {"location": location}
    if not mirror.tls:
        ours["insecure"] = True
    others = [each for each in entry.mirrors if not mirror.is_named(str(each.get("location", "")))]
    lines = ["[[registry]]", *_lines(keys)]
    for each in (ours, *others):
        lines += ["", "[[registry.mirror]]", *_lines(each)]
    return "\n".join(lines) + "\n"


def _lines(keys: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys in TOML, the known ones first; the values are text and truth."""
    ordered = [key for key in KEYS if key in keys] + [key for key in keys if key not in KEYS]
    for key in ordered:
        value = keys[key]
        yield f"{key} = {str(value).lower() if isinstance(value, bool) else _quoted(str(value))}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

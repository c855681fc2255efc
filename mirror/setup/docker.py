"""Docker: daemon.json, the CA of the mirror, and hosts.toml for the containerd image store."""

import json
import re
from collections.abc import Mapping
from typing import Any

from mirror.setup.hosts_toml import HostsFile, hosts_text
from mirror.setup.plan import DOCKER_HUB, File, Request, Root, SetupError, SetupPlan, Version, ours_first

CONFIG = "/etc/docker/daemon.json"
CERTIFICATES = "/etc/docker/certs.d"

# First versions whose mirrors may have a path (moby, ValidateMirror), that can have the containerd image
# store, and whose store reads hosts.toml below CERTIFICATES (seen with 29.7).
PATHS = Version(25)
CONTAINERD_STORE = Version(23)
HOSTS_FILES = Version(29)

RELOAD = "systemctl reload docker"

# Files with the flags of dockerd, and those of daemon.json's keys.
DROP_INS = "/etc/systemd/system/docker.service.d"
START_FILES = (
    *("/etc/default/docker", "/etc/sysconfig/docker", "/etc/systemd/system/docker.service"),
    *("/lib/systemd/system/docker.service", "/usr/lib/systemd/system/docker.service"),
)
FLAGS = {"registry-mirrors": "--registry-mirror", "insecure-registries": "--insecure-registry"}


def plan(request: Request) -> SetupPlan:
    """Return the files that make Docker use the mirror."""
    mirror, notes = request.mirror, []
    path = request.file or CONFIG
    url, why = _mirror_url(request)
    if why:
        notes.append(why)
    _require_no_flags(
        request.root, {"registry-mirrors": url, "insecure-registries": _insecure(request)}, path
    )
    text = daemon_json(request.root.text(path), url, _insecure(request), path)
    files = [File(path, text)] if text is not None else []
    files += _certificates(request)
    if request.version is None or request.version >= HOSTS_FILES:
        files += _hosts_files(request)
        notes.append(
            f"Docker's containerd image store, of 29 and newer, reads files hosts.toml in {CERTIFICATES}: "
            "with it every registry of the mirror comes here by its own name. The classic store ignores them."
        )
    elif len(mirror.upstreams) > 1:
        other = next(each.name for each in mirror.upstreams if each.name != DOCKER_HUB)
        notes.append(
            f"Docker asks a mirror for {DOCKER_HUB} only. Pull from the others by name: "
            f"docker pull {mirror.address}/{other}/..."
        )
    if mirror.tls and mirror.is_loopback:
        notes.append("Docker does not verify the certificate of a mirror on a loopback address.")
    return SetupPlan(tuple(files), (RELOAD,) if files else (), notes=tuple(notes))


def _require_no_flags(root: Root, wanted: Mapping[str, str | None], path: str) -> None:
    """Raise SetupError for a setting that dockerd has as a flag: with both, it does not start any more."""
    for file in (*START_FILES, *(f"{DROP_INS}/{each}" for each in root.names(DROP_INS))):
        lines = (root.text(file) or "").splitlines()
        text = "\n".join(each for each in lines if not each.lstrip().startswith("#"))
        for key, value in wanted.items():
            flag = FLAGS[key]
            if value is not None and re.search(rf"{flag}[\s=]", text):
                raise SetupError(
                    f"{file} starts dockerd with {flag}, and dockerd refuses to start with {key} in {path} "
                    f"as well: move the value into {path} first"
                )


def _mirror_url(request: Request) -> tuple[str | None, str]:
    """Return the URL for registry-mirrors, None if there can be none, and a note about it."""
    mirror = request.mirror
    if not mirror.has_docker_hub:
        return (
            None,
            f"This mirror does not have {DOCKER_HUB}, the only registry that Docker asks mirrors for.",
        )
    if mirror.upstreams[0].name == DOCKER_HUB:
        return mirror.url, ""
    if request.version is not None and request.version >= PATHS:
        return f"{mirror.url}/{DOCKER_HUB}", ""
    return None, (
        f"The default upstream of this mirror is {mirror.upstreams[0].name}, and Docker before 25 takes no "
        f"mirror with a path. Put {DOCKER_HUB} first in the configuration of the mirror."
    )


def _insecure(request: Request) -> str | None:
    """Return what belongs into insecure-registries: loopback needs no entry, nor does TLS."""
    mirror = request.mirror
    return None if mirror.tls or mirror.is_loopback else mirror.address


def daemon_json(text: str | None, url: str | None, insecure: str | None, path: str = CONFIG) -> str | None:
    """Return daemon.json with the mirror first; None if there is nothing to say in it."""
    settings = _parsed(text, path)
    wanted: dict[str, str] = {}
    if url is not None:
        wanted["registry-mirrors"] = url
    if insecure is not None:
        wanted["insecure-registries"] = insecure
    if not wanted:
        return text
    before = json.dumps(settings)
    for key, value in wanted.items():
        present = settings.get(key, [])
        if not isinstance(present, list):
            raise SetupError(f"{path}: {key} is not a list: mend it first")
        if key == "registry-mirrors":
            # Docker adds a slash to a mirror without one: both are the same mirror.
            present = [each for each in present if str(each).rstrip("/") != value or each == value]
            settings[key] = ours_first(value, present)
        elif value not in present:
            settings[key] = [*present, value]
    if text is not None and json.dumps(settings) == before:
        return text
    return json.dumps(settings, indent=_indent(text), ensure_ascii=False) + "\n"


def _parsed(text: str | None, path: str) -> dict[str, Any]:
    """Return the settings of daemon.json. An empty file is none, as for Docker."""
    if text is None or not text.strip():
        return {}
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise SetupError(
            f"{path} is not JSON ({error}): mend it first; Docker does not start with it"
        ) from None
    if not isinstance(settings, dict):
        raise SetupError(f"{path} is not a JSON object: mend it first; Docker does not start with it")
    return settings


def _indent(text: str | None) -> str | int:
    """Return the indentation of the file: that of its first indented line."""
    for line in (text or "").splitlines():
        if line.lstrip().startswith('"') and (blanks := line[: len(line) - len(line.lstrip())]):
            return blanks
    return 2


def _certificates(request: Request) -> list[File]:
    """Return the CA at both places: each of Docker's image stores reads another one for a mirror."""
    mirror = request.mirror
    if not mirror.tls or mirror.ca is None:
        return []
    folders = [mirror.address]
    if mirror.has_docker_hub and (request.version is None or request.version >= CONTAINERD_STORE):
        folders.append(DOCKER_HUB)
    return [
        File(
            f"{CERTIFICATES}/{each}/{'ca' if each == mirror.address else 'registry-mirror-ca'}.crt", mirror.ca
        )
        for each in folders
    ]


def _hosts_files(request: Request) -> list[File]:
    """Return a hosts.toml for each registry but Docker Hub, and for Docker Hub if it has one already."""
    mirror, files = request.mirror, []
    ca = f"{CERTIFICATES}/{mirror.address}/ca.crt" if mirror.tls and mirror.ca is not None else None
    for upstream in mirror.upstreams:
        path = f"{CERTIFICATES}/{upstream.name}/hosts.toml"
        text = request.root.text(path)
        if upstream.name == DOCKER_HUB and text is None:
            continue  # registry-mirrors has it
        entry = HostsFile(mirror.url, ("pull", "resolve"), ca)
        files.append(File(path, hosts_text(text, entry, path)))
    return files

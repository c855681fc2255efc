"""Docker's config.json: which login it has for a registry, as docker itself reads it; pure.

    {"auths": {"quay.io": {"auth": "<base64 of user:password>"}},
     "credHelpers": {"x.dkr.ecr.eu-central-1.amazonaws.com": "ecr-login"},
     "credsStore": "pass"}

1. A helper that `credHelpers` names for the registry has the login, and nothing else is asked.
2. Otherwise `credsStore`, if there is one: then docker reads no password in `auths`.
3. Otherwise the entry in `auths`. An `identitytoken` in it goes to the token server by POST.

The key is the registry's host, with or without a scheme. Docker Hub's key is HUB, whatever its hosts are
called; podman and skopeo write `docker.io`. `docker login index.docker.io` stores a login under another key,
which docker never uses: `unused` finds such keys.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from mirror.credentials.credential import Credential, checked
from mirror.oci import json_text

# Longest file, in bytes.
MOST_BYTES = 1024 * 1024

HUB = "https://index.docker.io/v1/"
HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})

# Names of helpers: they are looked for on PATH, so that no file can name a program elsewhere.
HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

# What may follow the host in a key that is for all of the registry.
WHOLE = ("", "/", "/v1", "/v1/", "/v2", "/v2/")

DEFAULT_PORTS = {"https": 443, "http": 80}


class DockerConfig(Struct, frozen=True):
    """The parts of a config.json that have logins."""

    auths: Mapping[str, Any] = {}
    helpers: Mapping[str, str] = {}
    store: str = ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({sorted(self.auths)!r}, {self.helpers!r}, {self.store!r})"


class HelperEntry(Struct, frozen=True):
    """The helper that has the login of a registry."""

    helper: str


def servers_of(url: str) -> tuple[str, ...]:
    """Return the keys of the registry at `url`, the first of which that has a login counts.

    The URL decides, not the name: the login of Docker Hub is not for a proxy of it.
    """
    parts = urlsplit(url)
    host, port = (parts.hostname or "").lower(), parts.port
    if host in HUB_HOSTS and port in (None, 443):
        return (HUB, "docker.io")
    bare = f"[{host}]" if ":" in host else host
    whole = bare if port in (None, DEFAULT_PORTS.get(parts.scheme)) else f"{bare}:{port}"
    return (whole, f"https://{whole}")


def parse(data: bytes) -> DockerConfig:
    """Return the logins of a config.json. Raises ValueError, which repeats nothing of it."""
    if len(data) > MOST_BYTES:
        raise ValueError(f"is longer than {MOST_BYTES} bytes")
    try:
        document = json_text.parse(data)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ValueError('is not JSON of Docker, for instance {"auths": {"quay.io": {"auth": "..."}}}')
    auths, helpers = document.get("auths") or {}, document.get("credHelpers") or {}
    store = document.get("credsStore") or ""
    if not isinstance(auths, dict) or not all(isinstance(each, dict) for each in auths.values()):
        raise ValueError("has an auths that is no object of objects")
    if not isinstance(helpers, dict) or not isinstance(store, str):
        raise ValueError("has a credHelpers or credsStore of another kind than docker writes")
    for name in [*helpers.values(), *([store] if store else [])]:
        if not isinstance(name, str) or HELPER_NAME.fullmatch(name) is None:
            raise ValueError("names a credential helper that is no name of a program")
    return DockerConfig(auths, helpers, store)


def find(config: DockerConfig, servers: Sequence[str]) -> HelperEntry | Credential | None:
    """Return the helper or the login for a registry; None if there is nothing for it.

    `servers` is of `servers_of`. Raises ValueError for an entry that cannot be read.
    """
    if (key := next(_matching(config.helpers, servers), None)) is not None:
        return HelperEntry(config.helpers[key])
    if config.store:
        return HelperEntry(config.store)
    for key in _matching(config.auths, servers):
        if (login := _login(key, config.auths[key])) is not None:
            return login
    return None


def names(config: DockerConfig, servers: Sequence[str]) -> bool:
    """Return whether the file has the registry in it: docker leaves an empty entry for what a store has."""
    return any(_matching([*config.auths, *config.helpers], servers))


def unused(config: DockerConfig, servers: Sequence[str]) -> list[str]:
    """Return the keys that look like the registry's, and are not read for it."""
    read = {*_matching(config.auths, servers), *_matching(config.helpers, servers)}
    hosts = HUB_HOSTS if HUB in servers else {servers[0]}
    keys = dict.fromkeys([*config.auths, *config.helpers])
    return [each for each in keys if each not in read and _host(each) in hosts]


def _matching(keys: Iterable[str], servers: Sequence[str]) -> Iterator[str]:
    """Yield the keys that are one of the servers, in the order of the servers."""
    if HUB in servers:
        yield from (each for each in servers if each in set(keys))
        return
    for key in keys:
        host = _host(key)
        if host == servers[0] and _without_scheme(key)[len(host) :] in WHOLE:
            yield key


def _host(key: str) -> str:
    return _without_scheme(key).partition("/")[0].lower()


def _without_scheme(key: str) -> str:
    return key.removeprefix("https://").removeprefix("http://")


def _login(key: str, entry: Mapping[str, Any]) -> Credential | None:
    """Return the login of an entry in `auths`; None for an empty one."""
    place = f"auths {key}"
    username, password = _user_and_password(entry)
    token = entry.get("identitytoken")
    try:
        if isinstance(token, str) and token:
            return checked(username, token, identity=True, place=place)
        return checked(username, password, place=place) if username and password else None
    except ValueError as error:
        raise ValueError(f"has an entry for {key!r:.80} that cannot be used: {error}") from None


def _user_and_password(entry: Mapping[str, Any]) -> tuple[str, str]:
    auth = entry.get("auth")
    if isinstance(auth, str) and auth:
        try:
            username, _, password = base64.b64decode(auth, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            raise ValueError("has an auth that is no base64 of user:password") from None
        return username, password.strip("\0")
    pair = entry.get("username"), entry.get("password")
    return (pair[0], pair[1]) if isinstance(pair[0], str) and isinstance(pair[1], str) else ("", "")

"""Names of repositories and tags, and the parser of request paths.

A path is parsed once, here, into a Target; no later code splits strings. A path outside the grammar is
refused with a sentence. The parser neither decodes nor normalises, so no name has a second spelling: a `%`, a
`..` and a double slash are errors, not synonyms.

A request can name its upstream in four ways, strongest first:

    prefix     /v2/quay.io/org/app/...  or  /quay.io/v2/org/app/...
    ns         /v2/org/app/...?ns=quay.io        (containerd, BuildKit, regclient)
    host       the Host header, where the configuration maps it
    root       the default upstream

Only the strongest name is checked against UpstreamNames: with a prefix, ns and host do not choose the
upstream. A prefix with ns counts as ns in `Target.via`. Names that are not configured:

    ns, and /name/v2/  refused by `_unknown_upstream`
    host               no name: the default upstream
    /v2/name/...       a part of the repository's name; refused too if it looks like a host and the request
                       came by root, without ns or a configured host

The mirror never connects to a host because a client named the host
(invariant 7).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from mirror.oci.digest import Digest
from mirror.oci.errors import Code, RegistryError

# OCI distribution-spec, "Pulling manifests".
COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")

# A registry as clients write it: a name or an address, with a port or without.
HOST = re.compile(r"[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)*(?::[0-9]{1,5})?")

# Longest path of a request, in bytes: twice the longest name, a sha512 digest and all around them. Compared
# before any character is read.
PATH_LENGTH = 1024

# Longest name of a host, with a port (RFC 1035 2.3.4, RFC 6335 6).
HOST_LENGTH = 255 + 6

# Many clients limit host, slash and name together to this length (same section).
NAME_LENGTH = 255

# Docker Hub alone gives one-component names a namespace: distribution/reference, splitDockerDomain.
DOCKER_HUB = "docker.io"
HUB_NAMESPACE = "library"

API = "v2"


@dataclass(frozen=True, slots=True, order=True)
class Repository:
    """A repository: `upstream` is its canonical name, `path` the upstream's own name for the repository."""

    upstream: str
    path: str

    def __str__(self) -> str:
        return f"{self.upstream}/{self.path}"


@dataclass(frozen=True, slots=True, order=True)
class Tag:
    name: str

    @classmethod
    def parse(cls, text: str) -> "Tag":
        """Parse a tag. Raises RegistryError TAG_INVALID (400)."""
        if TAG.fullmatch(text) is None:
            raise RegistryError(
                Code.TAG_INVALID,
                f"not a tag: {text[:140]!r}; up to 128 letters, digits, '_', and inside also '.' and '-'",
            )
        return cls(text)

    def __str__(self) -> str:
        return self.name


class TargetKind(StrEnum):
    """The kind of content that a request names."""

    BASE = "base"
    MANIFEST = "manifest"
    BLOB = "blob"
    TAGS = "tags"
    REFERRERS = "referrers"
    CATALOG = "catalog"


class Via(StrEnum):
    """The way in which the client named the upstream; decides which error an unavailable upstream causes."""

    ROOT = "root"
    NS = "ns"
    PREFIX = "prefix"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class UpstreamNames:
    """The configured upstreams by every name that a client may use (all in lower case)."""

    default: str
    names: Mapping[str, str]
    hosts: Mapping[str, str]

    def find(self, name: str) -> str | None:
        return self.names.get(name.lower()) if len(name) <= HOST_LENGTH else None

    def by_host(self, host: str | None) -> str | None:
        """Return the upstream that a Host header maps to, with its port or for every port."""
        if host is None or len(host) > HOST_LENGTH:
            return None
        host = host.lower()
        return self.hosts.get(host) or self.hosts.get(re.sub(r":\d+$", "", host))


@dataclass(frozen=True, slots=True)
class Target:
    """The content that a request names. `repository` is None for BASE and CATALOG, `upstream` for all."""

    kind: TargetKind
    via: Via
    upstream: str | None
    repository: Repository | None = None
    reference: Tag | Digest | None = None

    def path(self) -> str:
        """Return the canonical path, which parses back to the same target by way of the prefix."""
        prefix = f"/{API}/" if self.upstream is None else f"/{API}/{self.upstream}/"
        if self.kind is TargetKind.BASE:
            return prefix
        if self.kind is TargetKind.CATALOG:
            return f"{prefix}_catalog"
        name = "" if self.repository is None else self.repository.path
        if self.kind is TargetKind.TAGS:
            return f"{prefix}{name}/tags/list"
        return f"{prefix}{name}/{WORDS[self.kind]}/{self.reference}"


# The path component before the reference.
WORDS = {TargetKind.MANIFEST: "manifests", TargetKind.BLOB: "blobs", TargetKind.REFERRERS: "referrers"}
KINDS = {word: kind for kind, word in WORDS.items()}


@dataclass(frozen=True, slots=True)
class _Origin:
    """The chosen upstream, and how the client named it."""

    upstream: str
    via: Via


def parse_target(names: UpstreamNames, raw_path: str, ns: str | None, host: str | None) -> Target:
    """Parse the target of a request for `raw_path` (undecoded, without the query).

    Raises RegistryError: NAME_INVALID, TAG_INVALID, DIGEST_INVALID (400), NAME_UNKNOWN (404); for a path
    that is too long NAME_INVALID (414).
    """
    if len(raw_path) > PATH_LENGTH:
        message = f"the path is longer than {PATH_LENGTH} characters, which no name, tag or digest needs"
        raise RegistryError(Code.NAME_INVALID, message, status=414)
    components = _split(raw_path)
    prefix, rest = _prefix(names, components)
    origin = _choose(names, prefix, ns, host)
    if not rest:
        return Target(TargetKind.BASE, origin.via, origin.upstream)
    if rest == ["_catalog"]:
        everything = origin.via is Via.ROOT
        return Target(TargetKind.CATALOG, origin.via, None if everything else origin.upstream)
    return _content(names, origin, rest)


def _split(raw_path: str) -> list[str]:
    """Return the components of the path. A trailing slash is allowed only after the API root: `/v2/`."""
    if not raw_path.startswith("/"):
        raise RegistryError(Code.NAME_INVALID, "the request path does not start with '/'", status=400)
    for character in raw_path:
        if character in "%\\" or not "!" <= character <= "~":
            raise RegistryError(
                Code.NAME_INVALID,
                f"the path has {character!r} in it: names, tags and digests are never encoded",
            )
    components = raw_path.removeprefix("/").split("/")
    if components[-1] == "" and components[-2:-1] == [API]:
        components.pop()
    return components


def _prefix(names: UpstreamNames, components: list[str]) -> tuple[str | None, list[str]]:
    """Return the canonical upstream that the path names, if any, and the components behind both prefixes."""
    if components[0] == API:
        found = names.find(components[1]) if len(components) > 1 else None
        if found is None:
            return None, components[1:]
        rest = components[2:]
        return found, [] if rest == [""] else rest
    if components[0] and components[1:2] == [API]:
        found = names.find(components[0])
        if found is None:
            raise _unknown_upstream(names, components[0])
        return found, components[2:]
    raise RegistryError(
        Code.NAME_UNKNOWN, "nothing is served here: the registry API of this mirror is under /v2/", status=404
    )


def _choose(names: UpstreamNames, prefix: str | None, ns: str | None, host: str | None) -> _Origin:
    if prefix is not None:
        # A client that sends ns is configured with mirrors, and can continue with the next one.
        return _Origin(prefix, Via.PREFIX if ns is None else Via.NS)
    if ns is not None:
        found = names.find(ns)
        if found is None:
            raise _unknown_upstream(names, ns)
        return _Origin(found, Via.NS)
    found = names.by_host(host)
    if found is not None:
        return _Origin(found, Via.HOST)
    return _Origin(names.default, Via.ROOT)


def _content(names: UpstreamNames, origin: _Origin, rest: list[str]) -> Target:
    """Route from the right: a repository may have components called `blobs`, `manifests` or `tags`."""
    if rest[-2:] == ["tags", "list"]:
        repository = _repository(names, origin, rest[:-2])
        return Target(TargetKind.TAGS, origin.via, origin.upstream, repository)
    kind = KINDS.get(rest[-2]) if len(rest) > 1 else None
    if kind is None:
        if origin.via is Via.ROOT and _looks_like_host(rest[0]):
            raise _unknown_upstream(names, rest[0])
        raise RegistryError(
            Code.NAME_UNKNOWN,
            "nothing is served here: expected <name>/manifests/<tag or digest>, <name>/blobs/<digest>, "
            "<name>/tags/list or <name>/referrers/<digest>",
            status=404,
        )
    repository = _repository(names, origin, rest[:-2])
    return Target(kind, origin.via, origin.upstream, repository, _reference(kind, rest[-1]))


def _reference(kind: TargetKind, text: str) -> Tag | Digest:
    if kind is TargetKind.MANIFEST and ":" not in text:
        return Tag.parse(text)
    return Digest.parse(text)


def _repository(names: UpstreamNames, origin: _Origin, components: list[str]) -> Repository:
    if origin.via is Via.ROOT and len(components) > 1 and _looks_like_host(components[0]):
        raise _unknown_upstream(names, components[0])
    if not components:
        raise RegistryError(Code.NAME_INVALID, "the path has no repository name")
    for component in components:
        if COMPONENT.fullmatch(component) is None:
            raise RegistryError(
                Code.NAME_INVALID,
                f"not a repository name: {component[:100]!r}; lower-case letters and digits, separated by "
                "'.', '_', '__' or dashes",
            )
    if origin.upstream == DOCKER_HUB and len(components) == 1:
        components = [HUB_NAMESPACE, *components]
    repository = Repository(origin.upstream, "/".join(components))
    if len(str(repository)) > NAME_LENGTH:
        raise RegistryError(Code.NAME_INVALID, f"the name is longer than {NAME_LENGTH} characters")
    return repository


def _looks_like_host(component: str) -> bool:
    """Return whether Docker takes the component for a registry: distribution/reference, splitDockerDomain."""
    marked = "." in component or ":" in component or component == "localhost"
    return marked and HOST.fullmatch(component) is not None


def _unknown_upstream(names: UpstreamNames, name: str) -> RegistryError:
    """Return the error about an upstream that is not configured, with the lines that add it."""
    known = ", ".join(sorted(set(names.names.values())))
    message = f"{name[:100]!r} is not configured here; this mirror serves {known}"
    if len(name) <= HOST_LENGTH and HOST.fullmatch(name) is not None:
        host = name.lower()[:100]
        message += (
            f". To add {host}, append to the configuration file (its first [[upstream]] is the default):"
            f'\n\n[[upstream]]\nname = "{host}"\nurl = "https://{host}"\n'
        )
    return RegistryError(Code.NAME_UNKNOWN, message, status=404)

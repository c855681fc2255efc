"""Names of repositories and tags, and the parser of request paths.

A path is parsed once, here, into a Target; no later code splits strings. It is decoded once, as registries
do, and then judged: `a%2Fb` is `a/b`, and `%252F` is refused, because a `%` is in no name. A path outside the
grammar is refused with a sentence. The parser does not normalise: a `..` and a double slash are errors, not
synonyms.

A request can name its upstream in four ways:

    prefix     /v2/quay.io/org/app/...  or  /quay.io/v2/org/app/...
    ns         /v2/org/app/...?ns=quay.io        (containerd, BuildKit, regclient); as header OCI-Namespace
    host       the Host header: a name or alias of an upstream, or what its `hosts` has
    root       none of them: the default upstream

`/quay.io/v2/...` can mean nothing else, and decides. `/v2/quay.io/...` may also be the repository
`quay.io/...` of a registry that the client names by `ns`, or by a Host that is the registry's own name. That
word is explicit, and the prefix a guess: the word decides, and the whole path is the repository. Where both
name the same upstream, the prefix is a prefix. docs/clients.md has the table. Names that are refused (404):

    ns, and /name/v2/  any that is not configured
    host               that of a public registry (`mirror.oci.registries`) which is not configured; any other
                       unknown Host is taken for a name of this mirror
    /v2/name/...       by root, one that looks like a host and is not configured; in all other cases it is a
                       part of the repository's name

The mirror never connects to a host because a client named the host (invariant 7).
"""

import re
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.oci.errors import Code, RegistryError
from mirror.oci.registries import DEFAULT_PORTS, canonical_host, is_public_registry, split_port

# OCI distribution-spec, "Pulling manifests".
COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")

# Longest path of a request, in bytes: twice the longest name, a sha512 digest and all around them. Compared
# before any character is read or decoded.
PATH_LENGTH = 1024

# Many clients limit host, slash and name together to this length (same section).
NAME_LENGTH = 255

# Docker Hub alone gives one-component names a namespace: distribution/reference, splitDockerDomain.
DOCKER_HUB = "docker.io"
HUB_NAMESPACE = "library"

API = "v2"


class Repository(Struct, frozen=True, order=True):
    """A repository: `upstream` is its canonical name, `path` the upstream's own name for the repository."""

    upstream: str
    path: str

    def __str__(self) -> str:
        return f"{self.upstream}/{self.path}"


class Tag(Struct, frozen=True, order=True):
    """A tag. `also`: media types to ask the upstream for, besides those that it is always asked for.

    What a tag is with further types is kept apart from what the same tag is without.
    """

    name: str
    also: tuple[str, ...] = ()

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
    UPLOAD = "upload"


class Via(StrEnum):
    """The way in which the client named the upstream; decides which error an unavailable upstream causes."""

    ROOT = "root"
    NS = "ns"
    PREFIX = "prefix"
    HOST = "host"


class UpstreamNames(Struct, frozen=True):
    """The configured upstreams by every name that a client may use (all as `canonical_host` writes them).

    `hosts`: names of this mirror that stand for an upstream. `hosted`: the registries among them that are
    kept on this machine, and have no upstream.
    """

    default: str
    names: Mapping[str, str]
    hosts: Mapping[str, str]
    hosted: Collection[str] = frozenset()

    @property
    def mirrored(self) -> dict[str, str]:
        """The names of the upstreams, without registries that are hosted here."""
        return {name: each for name, each in self.names.items() if each not in self.hosted}

    def find(self, name: str) -> str | None:
        host = canonical_host(name)
        return None if host is None else self.names.get(host)

    def by_host(self, host: str | None) -> tuple[str, bool] | None:
        """Return the upstream that a Host header names, and whether by the registry's own name.

        A name in `hosts` without a port counts for every port. The name of a registry does so only if it is
        public: `registry.lan:5000` is another server than `registry.lan`, and may be this mirror.

        Raises RegistryError for the name of a public registry that is not configured (404).
        """
        found = canonical_host((host or "").rstrip("."))
        if found is None:
            return None
        bare, port = split_port(found)
        own = self.hosts.get(found) or self.hosts.get(bare)
        if own is not None:
            return own, False
        public = is_public_registry(bare)
        registry = self.names.get(found)
        if registry is None and (public or port in DEFAULT_PORTS):
            registry = self.names.get(bare)
        if registry is None and public:
            raise _unknown_upstream(self, bare)
        return None if registry is None else (registry, True)


class Target(Struct, frozen=True):
    """The content that a request names. `repository` is None for BASE and CATALOG, `upstream` for all.

    `session`: of an upload; "" for a new one.
    """

    kind: TargetKind
    via: Via
    upstream: str | None
    repository: Repository | None = None
    reference: Tag | Digest | None = None
    session: str = ""

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
        if self.kind is TargetKind.UPLOAD:
            return f"{prefix}{name}/blobs/uploads/{self.session}"
        return f"{prefix}{name}/{WORDS[self.kind]}/{self.reference}"


# The path component before the reference.
WORDS = {TargetKind.MANIFEST: "manifests", TargetKind.BLOB: "blobs", TargetKind.REFERRERS: "referrers"}
KINDS = {word: kind for kind, word in WORDS.items()}

# The path components before the session of an upload.
UPLOADS = ["blobs", "uploads"]


class _Origin(Struct, frozen=True):
    """The chosen upstream, and how the client named it.

    `overrules_prefix`: by a word that leaves no doubt, so that a prefix of another name is none.
    """

    upstream: str
    via: Via
    overrules_prefix: bool = False


def parse_target(names: UpstreamNames, raw_path: str, ns: str | None, host: str | None) -> Target:
    """Parse the target of a request for `raw_path` (undecoded, without the query).

    `ns` is decoded; `host` is the Host header.

    Raises RegistryError: NAME_INVALID, TAG_INVALID, DIGEST_INVALID (400), NAME_UNKNOWN (404); for a path
    that is too long NAME_INVALID (414).
    """
    if len(raw_path) > PATH_LENGTH:
        message = f"the path is longer than {PATH_LENGTH} characters, which no name, tag or digest needs"
        raise RegistryError(Code.NAME_INVALID, message, status=414)
    origin, rest = _origin(names, _split(_decode_path(raw_path)), ns, host)
    if not rest:
        return Target(TargetKind.BASE, origin.via, origin.upstream)
    if rest == ["_catalog"]:
        everything = origin.via is Via.ROOT
        return Target(TargetKind.CATALOG, origin.via, None if everything else origin.upstream)
    return _content(names, origin, rest)


def is_hosted(names: UpstreamNames, raw_path: str, ns: str | None, host: str | None) -> bool:
    """Return whether a request is for a hosted registry, whatever it wants there."""
    if not names.hosted or len(raw_path) > PATH_LENGTH:
        return False
    try:
        origin, _ = _origin(names, _split(_decode_path(raw_path)), ns, host)
    except RegistryError:
        return False
    return origin.upstream in names.hosted


def namespace(names: UpstreamNames, given: Sequence[str]) -> str | None:
    """Return the one `ns` among those of a request; refuse different ones (400)."""
    if len({names.find(ns) for ns in given}) > 1:
        message = "the request names more than one registry by ns and OCI-Namespace: name one"
        raise RegistryError(Code.NAME_INVALID, message)
    return given[0] if given else None


def _decode_path(raw_path: str) -> str:
    """Decode the path, once. Refuse what no path of the API has: also a `%` that is left after decoding."""
    path = raw_path
    if "%" in path and path.isascii():
        path = unquote_to_bytes(path).decode("latin-1")
    for character in path:
        if character in "%\\" or not "!" <= character <= "~":
            raise RegistryError(
                Code.NAME_INVALID,
                f"the path has {character!r} in it, which is in no name, tag or digest",
            )
    return path


def _split(path: str) -> list[str]:
    """Return the components of the path. A trailing slash is allowed only after the API root: `/v2/`."""
    if not path.startswith("/"):
        raise RegistryError(Code.NAME_INVALID, "the request path does not start with '/'", status=400)
    components = path.removeprefix("/").split("/")
    if components[-1] == "" and components[-2:-1] == [API]:
        components.pop()
    return components


def _origin(
    names: UpstreamNames, components: list[str], ns: str | None, host: str | None
) -> tuple[_Origin, list[str]]:
    """Return the upstream, and the components behind the API root and the prefix."""
    # A client that sends ns is configured with mirrors, and can continue with the next one.
    via = Via.PREFIX if ns is None else Via.NS
    if components[0] == API:
        rest = components[1:]
        prefix = names.find(rest[0]) if rest else None
        explicit = _explicit(names, ns, host)
        if prefix is None:
            return explicit or _Origin(names.default, Via.ROOT), rest
        if explicit is not None and explicit.overrules_prefix and explicit.upstream != prefix:
            return explicit, rest
        return _Origin(prefix, via), [] if rest[1:] == [""] else rest[1:]
    if components[0] and components[1:2] == [API]:
        prefix = names.find(components[0])
        if prefix is None:
            raise _unknown_upstream(names, components[0])
        return _Origin(prefix, via), components[2:]
    raise RegistryError(
        Code.NAME_UNKNOWN, "nothing is served here: the registry API of this mirror is under /v2/", status=404
    )


def _explicit(names: UpstreamNames, ns: str | None, host: str | None) -> _Origin | None:
    """Return the upstream that `ns` or Host names. Raises RegistryError if the name is not configured."""
    if ns is not None:
        found = names.find(ns)
        if found is None:
            raise _unknown_upstream(names, ns)
        return _Origin(found, Via.NS, overrules_prefix=True)
    by_host = names.by_host(host)
    return None if by_host is None else _Origin(by_host[0], Via.HOST, overrules_prefix=by_host[1])


def _content(names: UpstreamNames, origin: _Origin, rest: list[str]) -> Target:
    """Route from the right: a repository may have components called `blobs`, `manifests` or `tags`."""
    if rest[-2:] == ["tags", "list"]:
        repository = _repository(names, origin, rest[:-2])
        return Target(TargetKind.TAGS, origin.via, origin.upstream, repository)
    if origin.upstream in names.hosted and (behind := _behind_uploads(rest)) is not None:
        repository = _repository(names, origin, rest[: -len(UPLOADS) - len(behind)])
        return Target(TargetKind.UPLOAD, origin.via, origin.upstream, repository, session="".join(behind))
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


def _behind_uploads(rest: list[str]) -> list[str] | None:
    """Return the component behind `blobs/uploads`, [] without one; None for the path of something else."""
    for length in (0, 1):
        end = len(rest) - length
        if rest[max(0, end - len(UPLOADS)) : end] == UPLOADS:
            return rest[end:]
    return None


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
    return marked and canonical_host(component) is not None


def _unknown_upstream(names: UpstreamNames, name: str) -> RegistryError:
    """Return the error about an upstream that is not configured, with the lines that add it."""
    known = ", ".join(sorted(set(names.names.values())))
    message = f"{name[:100]!r} is not configured here; this mirror serves {known}"
    if (host := canonical_host(name)) is not None and len(host) <= 100:
        message += (
            f". To add {host}, append to the configuration file (its first [[upstream]] is the default):"
            f'\n\n[[upstream]]\nname = "{host}"\nurl = "https://{host}"\n'
        )
    return RegistryError(Code.NAME_UNKNOWN, message, status=404)

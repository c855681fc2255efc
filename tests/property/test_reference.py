"""The parser of request paths: a parsed path prints back, any other is refused with RegistryError."""

from hypothesis import example, given
from hypothesis import strategies as st

from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.reference import TargetKind, UpstreamNames, Via, parse_target

NAMES = UpstreamNames(
    default="docker.io",
    names={
        "docker.io": "docker.io",
        "index.docker.io": "docker.io",
        "quay.io": "quay.io",
        "r:5000": "r:5000",
    },
    hosts={"h.test": "quay.io"},
)

components = st.from_regex(r"[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}", fullmatch=True)
repositories = st.lists(
    st.one_of(components, st.sampled_from(["blobs", "tags", "list", "v2"])), min_size=1, max_size=4
)
tags = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}", fullmatch=True)
digests = st.builds(Digest.of, st.binary(max_size=5), st.sampled_from(["sha256", "sha512"]))
routes = st.one_of(
    st.builds("manifests/{}".format, st.one_of(tags, digests)),
    st.builds("blobs/{}".format, digests),
    st.builds("referrers/{}".format, digests),
    st.just("tags/list"),
)
prefixes = st.sampled_from(
    ["/v2/", "/v2/quay.io/", "/quay.io/v2/", "/v2/docker.io/", "/v2/r:5000/", "/r:5000/v2/"]
)
hints = st.sampled_from([None, "docker.io", "quay.io", "index.docker.io", "r:5000"])


@given(prefixes, repositories, routes, hints, st.sets(st.integers(0, 60)))
def test_encoded_path_is_the_same_target(
    prefix: str, repository: list[str], route: str, ns: str | None, encoded: set[int]
) -> None:
    """Whichever characters are percent-encoded, the target or the refusal is the same."""
    path = f"{prefix}{'/'.join(repository)}/{route}"
    other = path[0] + "".join(f"%{ord(c):02X}" if i in encoded else c for i, c in enumerate(path[1:]))
    assert outcome(other, ns) == outcome(path, ns)


def outcome(path: str, ns: str | None) -> object:
    try:
        return parse_target(NAMES, path, ns, None)
    except RegistryError as error:
        return error.code, error.status


@given(prefixes, repositories, routes, hints, st.sampled_from([None, "h.test", "h.test:80", "other"]))
def test_target_prints_back(
    prefix: str, repository: list[str], route: str, ns: str | None, host: str | None
) -> None:
    """The canonical path of a target parses to the same target, by prefix."""
    try:
        target = parse_target(NAMES, f"{prefix}{'/'.join(repository)}/{route}", ns, host)
    except RegistryError:
        return  # the first component looks like a registry that is not configured
    again = parse_target(NAMES, target.path(), None, None)
    assert again.via is Via.PREFIX
    assert (again.kind, again.upstream, again.repository, again.reference) == (
        target.kind,
        target.upstream,
        target.repository,
        target.reference,
    )


@given(st.text(), st.one_of(st.none(), st.text()), st.one_of(st.none(), st.text()))
@example("/v2/a/..%2f..%2fb/manifests/t", None, None)
@example("/v2/\u2025/manifests/t", "docker.io", "h.test")
def test_target_of_any_text_parses_or_is_refused(path: str, ns: str | None, host: str | None) -> None:
    """Any text gives a target of a configured upstream, or RegistryError."""
    try:
        target = parse_target(NAMES, path, ns, host)
    except RegistryError:
        return
    assert target.upstream in (None, *NAMES.names.values())


# Components that are in no path, plain or encoded.
ODD = ["..", ".", "", "%2e%2e", "a%2f", "%2fa", "a%252fb", "%", "%5c", "a\\b", "a\x00", "%00", "Ü", "%c3%9c"]


@given(
    st.lists(
        st.one_of(components, st.sampled_from(ODD)),
        min_size=1,
        max_size=5,
    ),
    routes,
)
def test_path_traversal_never_parses(parts: list[str], route: str) -> None:
    """A path with an odd component is an error, at any position."""
    odd = any(part in ODD for part in parts)
    try:
        target = parse_target(NAMES, f"/v2/quay.io/{'/'.join(parts)}/{route}", None, None)
    except RegistryError:
        return
    assert not odd
    assert target.kind is not TargetKind.BASE

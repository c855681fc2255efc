"""The parser of request paths: content and upstream."""

import tomllib

import pytest

from mirror.oci.digest import Digest
from mirror.oci.errors import Code, RegistryError
from mirror.oci.reference import (
    Repository,
    Tag,
    Target,
    TargetKind,
    UpstreamNames,
    Via,
    namespace,
    parse_target,
)

D = Digest.of(b"x")
NAMES = UpstreamNames(
    default="docker.io",
    names={
        "docker.io": "docker.io",
        "index.docker.io": "docker.io",
        "quay.io": "quay.io",
        "reg.test:5000": "reg.test:5000",
        "harbor.test": "harbor.test",
        "[::1]:5001": "[::1]:5001",
    },
    hosts={"quay.mirror.test": "quay.io", "hub.mirror.test:5001": "docker.io", "[::2]": "quay.io"},
)


def parse(path: str, ns: str | None = None, host: str | None = None) -> Target:
    return parse_target(NAMES, path, ns, host)


@pytest.mark.parametrize(
    ("path", "ns", "host", "upstream", "via"),
    [
        ("/v2/a/b/tags/list", None, None, "docker.io", Via.ROOT),
        ("/v2/a/b/tags/list", "quay.io", None, "quay.io", Via.NS),
        ("/v2/a/b/tags/list", "Index.Docker.IO", None, "docker.io", Via.NS),
        ("/v2/a/b/tags/list", "reg.test:5000", None, "reg.test:5000", Via.NS),
        ("/v2/quay.io/a/b/tags/list", None, None, "quay.io", Via.PREFIX),
        ("/quay.io/v2/a/b/tags/list", None, None, "quay.io", Via.PREFIX),
        ("/v2/reg.test:5000/a/b/tags/list", None, None, "reg.test:5000", Via.PREFIX),
        ("/v2/index.docker.io/a/b/tags/list", None, None, "docker.io", Via.PREFIX),
        ("/v2/[::1]:5001/a/b/tags/list", None, None, "[::1]:5001", Via.PREFIX),
        ("/[::1]:5001/v2/a/b/tags/list", None, None, "[::1]:5001", Via.PREFIX),
        ("/v2/%5B0:0::1%5D%3A5001/a/b/tags/list", None, None, "[::1]:5001", Via.PREFIX),
        ("/v2/a/b/tags/list", "[0:0:0:0:0:0:0:1]:5001", None, "[::1]:5001", Via.NS),
        ("/v2/a/b/tags/list", None, "[::1]:5001", "[::1]:5001", Via.HOST),
        ("/v2/a/b/tags/list", "docker.io", "quay.mirror.test", "docker.io", Via.NS),
        ("/v2/a/b/tags/list", None, "quay.mirror.test", "quay.io", Via.HOST),
        ("/v2/a/b/tags/list", None, "Quay.Mirror.Test:5000", "quay.io", Via.HOST),
        ("/v2/a/b/tags/list", None, "hub.mirror.test:5001", "docker.io", Via.HOST),
        ("/v2/a/b/tags/list", None, "hub.mirror.test:9", "docker.io", Via.ROOT),
        ("/v2/a/b/tags/list", None, "[::2]:5000", "quay.io", Via.HOST),
    ],
)
def test_upstream_by_prefix_then_ns_then_host_then_root(
    path: str, ns: str | None, host: str | None, upstream: str, via: Via
) -> None:
    """The strongest hint decides; a client that sends ns has other mirrors to try, prefix or not."""
    assert parse(path, ns, host) == Target(TargetKind.TAGS, via, upstream, Repository(upstream, "a/b"))


# What a client may say of the upstream beside a prefix: nothing, a name of the same upstream, of another one,
# of none, and what is no name at all. A Host is said as a registry's own name, as a name of this mirror that
# stands for an upstream, as the name of a public registry that is not configured, and as any other name.
NOTHING = (None, "mirror.lan:5000", "127.0.0.1:5000", "[fe80::1]", "localhost", "a b", "", "harbor.test:5000")
SAME = ("quay.io", "QUAY.IO", "quay.io:443")
OTHER = ("docker.io", "index.docker.io", "harbor.test", "reg.test:5000")
NONE = ("ghcr.io", "nvcr.io", "me.azurecr.io")
OWN = ("quay.mirror.test", "hub.mirror.test:5001")
MALFORMED = ("", " ", "quay.io/", "quay.io ", "http://quay.io", "quay..io", "a\r\nb", "[::1", "q" * 300)


@pytest.mark.parametrize("ns", [None, "quay.io", *OTHER, "ghcr.io", "evil.test", *MALFORMED])
@pytest.mark.parametrize("path", ["/v2/{}/tags/list", "/v2/quay.io/{}/tags/list", "/quay.io/v2/{}/tags/list"])
def test_table_of_the_ways_to_name_an_upstream(path: str, ns: str | None) -> None:
    """The table of docs/clients.md: an explicit word decides, and a prefix only where nothing contradicts."""
    for host in (*NOTHING, *SAME, *OTHER, *NONE, *OWN):
        expected, said = table(path, ns, host), path.format("team/app")
        if expected is None:
            with pytest.raises(RegistryError, match="is not configured here") as refused:
                parse(said, ns, host)
            assert (host, refused.value.code, refused.value.status) == (host, Code.NAME_UNKNOWN, 404)
        else:
            target = parse(said, ns, host)
            assert (host, target.repository, target.via) == (host, *expected)


def table(path: str, ns: str | None, host: str | None) -> tuple[Repository, Via] | None:
    """Return the repository of the table and the way there, None for 404. Written apart from the parser."""
    named = NAMES.names.get((host or "").lower().removesuffix(":443")) if ns is None else NAMES.names.get(ns)
    prefixed = ("quay.io", Via.PREFIX if ns is None else Via.NS)
    word = None if named is None else (named, Via.HOST if ns is None else Via.NS)
    refused = word is None and (ns is not None or host in NONE)
    if path.startswith("/quay.io/"):
        upstream, via = prefixed
    elif refused:
        return None
    elif path.startswith("/v2/quay.io/") and named in (None, "quay.io"):
        upstream, via = prefixed
    else:
        own = NAMES.hosts.get(host or "")
        upstream, via = word or ((own, Via.HOST) if own else ("docker.io", Via.ROOT))
    whole = path.startswith("/v2/quay.io/") and upstream != "quay.io"
    return Repository(upstream, "quay.io/team/app" if whole else "team/app"), via


def test_host_of_a_private_registry_counts_with_its_port_only() -> None:
    """A mirror may run beside a private registry, on another port. A public one is meant on any port."""
    for host, upstream in (
        ("harbor.test", "harbor.test"),
        ("harbor.test:80", "harbor.test"),
        ("harbor.test.", "harbor.test"),
        ("harbor.test:5000", "docker.io"),
        ("reg.test", "docker.io"),
        ("quay.io:34567", "quay.io"),
    ):
        assert parse("/v2/a/b/tags/list", None, host).upstream == upstream, host


def test_host_of_a_public_registry_that_is_not_configured_is_refused() -> None:
    """The error says what to configure, for every request under /v2/."""
    for path in ("/v2/", "/v2/_catalog", "/v2/a/manifests/t", "/v2/quay.io/a/manifests/t"):
        with pytest.raises(RegistryError, match=r"'nvcr\.io' is not configured here") as refused:
            parse(path, None, "NVCR.io:5000")
        assert 'name = "nvcr.io"' in refused.value.message


@pytest.mark.parametrize(
    ("given", "ns"),
    [([], None), (["quay.io"], "quay.io"), (["docker.io", "index.docker.io"], "docker.io"), (["x"], "x")],
)
def test_namespace_of_a_request(given: list[str], ns: str | None) -> None:
    """The same upstream may be named twice."""
    assert namespace(NAMES, given) == ns


def test_different_namespaces_are_refused() -> None:
    """Neither of two words is a guess."""
    for other in ("docker.io", "evil.test", ""):
        with pytest.raises(RegistryError, match="more than one registry") as refused:
            namespace(NAMES, ["quay.io", other])
        assert refused.value.status == 400


@pytest.mark.parametrize(
    ("path", "name", "reference"),
    [
        ("/v2/library%2Fbb/manifests/t", "library/bb", Tag("t")),
        (f"/v2/a/b/blobs/{D.algorithm}%3A{D.encoded}", "a/b", D),
        (f"/v2/a/b/blobs/{D.algorithm}%3a{D.encoded}", "a/b", D),
        ("/%76%32/a/b/manifests/%74", "a/b", Tag("t")),
        ("/v2/a%2Fb%2Fmanifests%2Ft", "a/b", Tag("t")),
        ("/v2/a/b/%6Danifests/1%2E0", "a/b", Tag("1.0")),
    ],
)
def test_path_is_decoded_once(path: str, name: str, reference: Tag | Digest) -> None:
    """An encoded path is the same target as the plain one, as at other registries."""
    target = parse(path)
    assert (target.repository, target.reference) == (Repository("docker.io", name), reference)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v2/library%252Fbb/manifests/t", Code.NAME_INVALID),
        ("/v2/a%25/manifests/t", Code.NAME_INVALID),
        ("/v2/..%2Fa/manifests/t", Code.NAME_INVALID),
        ("/v2/a/..%2F..%2Fb/manifests/t", Code.NAME_INVALID),
        ("/v2/a%2F%2Fb/manifests/t", Code.NAME_INVALID),
        ("/v2/%2Fa/manifests/t", Code.NAME_INVALID),
        ("/v2/a%5Cb/manifests/t", Code.NAME_INVALID),
        ("/v2/a%00/manifests/t", Code.NAME_INVALID),
        ("/v2/a%0D%0AX:y/manifests/t", Code.NAME_INVALID),
        ("/v2/a%20b/manifests/t", Code.NAME_INVALID),
        ("/v2/a%C3%A4/manifests/t", Code.NAME_INVALID),
        ("/v2/a%\udcbd/manifests/t", Code.NAME_INVALID),  # as aiohttp decodes a byte that is no UTF-8
        ("/v2/a%zz/manifests/t", Code.NAME_INVALID),
        ("/v2/a%2/manifests/t", Code.NAME_INVALID),
        ("/v2/a%/manifests/t", Code.NAME_INVALID),
        ("/v2/%41/manifests/t", Code.NAME_INVALID),
        ("/v2/a/manifests/t%2Fu", Code.NAME_UNKNOWN),
        ("/v2/a/manifests/t%3Fu", Code.TAG_INVALID),
        ("/v2/a/manifests/t%23u", Code.TAG_INVALID),
        ("/v2/a/manifests/..", Code.TAG_INVALID),
        ("/v2/a/manifests/%2E%2E", Code.TAG_INVALID),
        ("/v2/a/blobs/sha256%253A" + "0" * 64, Code.NAME_INVALID),
        ("/v2/evil.test%2Fa/manifests/t", Code.NAME_UNKNOWN),
        ("/evil.test%2Fv2/a/manifests/t", Code.NAME_UNKNOWN),
    ],
)
def test_decoded_path_is_judged_like_a_plain_one(path: str, code: Code) -> None:
    """Decoding opens no way around the grammar, and what is still encoded is refused."""
    with pytest.raises(RegistryError) as refused:
        parse(path)
    assert refused.value.code is code


@pytest.mark.parametrize(
    ("path", "kind", "reference"),
    [
        ("/v2/a/b/manifests/latest", TargetKind.MANIFEST, Tag("latest")),
        (f"/v2/a/b/manifests/{D}", TargetKind.MANIFEST, D),
        (f"/v2/a/b/blobs/{D}", TargetKind.BLOB, D),
        (f"/v2/a/b/referrers/{D}", TargetKind.REFERRERS, D),
        ("/v2/a/b/tags/list", TargetKind.TAGS, None),
    ],
)
def test_target_of_each_kind(path: str, kind: TargetKind, reference: Tag | Digest | None) -> None:
    """Manifests have a tag or a digest, other content has a digest."""
    expected = Target(kind, Via.ROOT, "docker.io", Repository("docker.io", "a/b"), reference)
    assert parse(path) == expected


@pytest.mark.parametrize(
    ("path", "upstream", "via"),
    [
        ("/v2", "docker.io", Via.ROOT),
        ("/v2/", "docker.io", Via.ROOT),
        ("/quay.io/v2", "quay.io", Via.PREFIX),
        ("/quay.io/v2/", "quay.io", Via.PREFIX),
        ("/v2/quay.io", "quay.io", Via.PREFIX),
        ("/v2/quay.io/", "quay.io", Via.PREFIX),
    ],
)
def test_target_of_the_api_root(path: str, upstream: str, via: Via) -> None:
    """The API root parses with and without the slash, at the root and under a prefix."""
    assert parse(path) == Target(TargetKind.BASE, via, upstream)


def test_target_of_the_catalog() -> None:
    """The catalog at the root is that of all upstreams; a named upstream has its own."""
    assert parse("/v2/_catalog") == Target(TargetKind.CATALOG, Via.ROOT, None)
    assert parse("/v2/_catalog", "quay.io") == Target(TargetKind.CATALOG, Via.NS, "quay.io")
    assert parse("/v2/_catalog", None, "quay.mirror.test") == Target(TargetKind.CATALOG, Via.HOST, "quay.io")
    for path in ("/v2/quay.io/_catalog", "/quay.io/v2/_catalog"):
        assert parse(path) == Target(TargetKind.CATALOG, Via.PREFIX, "quay.io")


@pytest.mark.parametrize(
    ("path", "repository"),
    [
        ("/v2/alpine/tags/list", "library/alpine"),
        ("/v2/docker.io/alpine/tags/list", "library/alpine"),
        ("/v2/quay.io/alpine/tags/list", "alpine"),
        ("/v2/library/alpine/tags/list", "library/alpine"),
    ],
)
def test_docker_hub_alone_has_the_library_namespace(path: str, repository: str) -> None:
    """A name of one component gets `library/` at Docker Hub and stays as written elsewhere."""
    target = parse(path)
    assert target.repository is not None
    assert target.repository.path == repository


@pytest.mark.parametrize(
    "name", ["blobs/x", "manifests/manifests", "tags/list", "v2/v2", "a/b/c/d/e", "a__b/c---d"]
)
def test_path_is_parsed_from_the_right(name: str) -> None:
    """A repository may have components that look like parts of a route."""
    target = parse(f"/v2/{name}/manifests/t")
    assert target.repository == Repository("docker.io", name)
    assert parse(target.path()).repository == target.repository


@pytest.mark.parametrize(
    ("path", "code", "status"),
    [
        ("", Code.NAME_INVALID, 400),
        ("http://quay.io/v2/", Code.NAME_INVALID, 400),
        ("/v2/A/tags/list", Code.NAME_INVALID, 400),
        ("/v2/a//b/tags/list", Code.NAME_INVALID, 400),
        ("/v2//tags/list", Code.NAME_INVALID, 400),
        ("/v2/tags/list", Code.NAME_INVALID, 400),
        ("/v2/./a/tags/list", Code.NAME_INVALID, 400),
        ("/v2/../a/tags/list", Code.NAME_INVALID, 400),
        ("/v2/a/../b/tags/list", Code.NAME_INVALID, 400),
        ("/v2/a/%2e%2e/tags/list", Code.NAME_INVALID, 400),
        ("/v2/a\\b/tags/list", Code.NAME_INVALID, 400),
        ("/v2/a\x00b/tags/list", Code.NAME_INVALID, 400),
        ("/v2/ä/tags/list", Code.NAME_INVALID, 400),
        ("/v2/a b/tags/list", Code.NAME_INVALID, 400),
        ("/v2/-a/tags/list", Code.NAME_INVALID, 400),
        ("/v2/a_/tags/list", Code.NAME_INVALID, 400),
        ("/v2/a..b/c/tags/list", Code.NAME_INVALID, 400),
        ("/v2/c/a..b/tags/list", Code.NAME_INVALID, 400),
        (f"/v2/{'a' * 256}/tags/list", Code.NAME_INVALID, 400),
        ("/v2/a/manifests/", Code.TAG_INVALID, 400),
        ("/v2/a/manifests/.t", Code.TAG_INVALID, 400),
        (f"/v2/a/manifests/{'t' * 129}", Code.TAG_INVALID, 400),
        ("/v2/a/manifests/sha256:baddigeststring", Code.DIGEST_INVALID, 400),
        ("/v2/a/blobs/t", Code.DIGEST_INVALID, 400),
        ("/v2/a/referrers/t", Code.DIGEST_INVALID, 400),
        ("/v2/a/tags/list/", Code.NAME_UNKNOWN, 404),
        ("/v2/a", Code.NAME_UNKNOWN, 404),
        ("/v2/a/b/c", Code.NAME_UNKNOWN, 404),
        ("/v2/evil.test/a/tags/list", Code.NAME_UNKNOWN, 404),
        ("/v2/localhost/a/tags/list", Code.NAME_UNKNOWN, 404),
        ("/v2/localhost:5000/a/tags/list", Code.NAME_UNKNOWN, 404),
        ("/v2/Evil.Test/a/tags/list", Code.NAME_UNKNOWN, 404),
        ("//v2/a/tags/list", Code.NAME_UNKNOWN, 404),
        ("/evil.test/v2/a/tags/list", Code.NAME_UNKNOWN, 404),
        ("/", Code.NAME_UNKNOWN, 404),
        ("/v1/a", Code.NAME_UNKNOWN, 404),
    ],
)
def test_invalid_path_is_refused(path: str, code: Code, status: int) -> None:
    """Each error has its code, its status and a sentence that helps."""
    with pytest.raises(RegistryError) as refused:
        parse(path)
    assert (refused.value.code, refused.value.status) == (code, status)
    assert len(refused.value.message) > 20


def test_unknown_upstream_error_lists_the_configured_ones() -> None:
    """The error lists the upstreams, for ns and for a prefix, and does not echo control characters."""
    for path, ns in (("/v2/a/tags/list", "evil\r\n.test"), ("/evil.test/v2/a/tags/list", None)):
        with pytest.raises(
            RegistryError, match=r"serves \[::1\]:5001, docker.io, harbor.test, quay.io, reg"
        ) as refused:
            parse(path, ns)
        assert "\r" not in refused.value.message


@pytest.mark.parametrize("name", ["evil.test", "evil.test:5000", "LAN"])
def test_unknown_upstream_error_has_the_line_to_add(name: str) -> None:
    """The message has the lines for the configuration, as TOML, if the name is a valid host name."""
    for path, ns in (("/v2/a/tags/list", name), (f"/{name}/v2/a/tags/list", None)):
        with pytest.raises(RegistryError, match="To add ") as refused:
            parse(path, ns)
        lines = tomllib.loads(refused.value.message.partition("\n")[2])
        host = name.lower()
        assert lines == {"upstream": [{"name": host, "url": f"https://{host}"}]}


@pytest.mark.parametrize(
    "path", ["/v2/evil.test", "/v2/evil.test/", "/v2/evil.test/a", "/v2/evil.test/a/tags/list"]
)
def test_unknown_upstream_is_named_whatever_follows(path: str) -> None:
    """A name that looks like a host is an upstream, also where no repository or reference follows."""
    with pytest.raises(RegistryError, match=r"'evil\.test' is not configured here") as refused:
        parse(path)
    assert refused.value.status == 404


@pytest.mark.parametrize("name", ["", "..", "a b", "http://evil.test", "a\r\nb"])
def test_unknown_upstream_error_suggests_no_invalid_name(name: str) -> None:
    """An invalid name gets no line for the configuration."""
    with pytest.raises(RegistryError, match="is not configured here") as refused:
        parse("/v2/a/tags/list", name)
    assert "To add" not in refused.value.message


def test_values_print_as_written() -> None:
    """Repositories print with their upstream, targets of every kind as paths."""
    assert str(Repository("quay.io", "a/b")) == "quay.io/a/b"
    for path in ("/v2/", "/v2/_catalog", "/v2/quay.io/", "/v2/quay.io/_catalog"):
        assert parse(parse(path).path()).kind is parse(path).kind
    assert parse("/v2/_catalog").path() == "/v2/_catalog"


def test_repository_may_begin_with_a_dotted_component() -> None:
    """A dotted first component names a registry only if the request names no upstream otherwise."""
    target = parse("/v2/my.org/app/tags/list", "quay.io")
    assert target.repository == Repository("quay.io", "my.org/app")

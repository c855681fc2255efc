"""Rules for redirects."""

import pytest
from yarl import URL

from mirror.upstream.http.redirect import (
    MAX_HOPS,
    RedirectRefused,
    RedirectRules,
    climbs,
    is_private_host,
    is_signed,
    next_hop,
    origin,
    refusal,
)

START = URL("https://registry.test/v2/a/blobs/sha256:1")
PUBLIC = RedirectRules(URL("https://registry.test"))


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://cdn.test/x", "https://cdn.test/x"),
        ("/artifacts-downloads/x", "https://registry.test/artifacts-downloads/x"),
        ("//cdn.test/x", "https://cdn.test/x"),
        ("other", "https://registry.test/v2/a/blobs/other"),
        ("https://cdn.test/x#fragment", "https://cdn.test/x"),
        ("https://user:secret@cdn.test/x", "https://cdn.test/x"),
        ("https://us%20er:se%40cret@cdn.test/x", "https://cdn.test/x"),
        ("https://cdn.test/a b?file=c d&x=%20", "https://cdn.test/a%20b?file=c%20d&x=%20"),
        (" /a b ", "https://registry.test/a%20b"),
        ("https://cdn.test/é?k=ü", "https://cdn.test/%C3%A9?k=%C3%BC"),
        ("https://cdn.test/\udce9", "https://cdn.test/%E9"),
        ("https://cdn.test/\x9b", "https://cdn.test/%C2%9B"),
        ('https://cdn.test/a"<>^`{|}', 'https://cdn.test/a"<>^`{|}'),
    ],
)
def test_redirect_target(location: str, expected: str) -> None:
    """Absolute and relative Locations are resolved; user information and fragments are dropped."""
    assert str(next_hop(PUBLIC, [START], location)) == expected


def test_redirect_keeps_a_signed_url_to_the_byte() -> None:
    """Escapes in a signed URL are neither decoded nor normalised, or the signature would not match."""
    location = "https://cdn.test/a%2Fb%7Ec?X-Sig=a%2Bb+c%252F&k=%C3%A9&empty="
    assert str(next_hop(PUBLIC, [START], location)) == location


@pytest.mark.parametrize(
    "location",
    [
        "http://cdn.test/x",
        "ftp://cdn.test/x",
        "file:///etc/passwd",
        "https://[::1/x",
        "https://cdn.test:99999/x",
        "https://cdn.test/a\r\nX: y",
        "https://cdn.test/a\x00",
        "https://cdn.test/\x1b[31m",
        "https://cdn.test\t/",
        "https://cdn .test/",
        "https://cdné.test/",
        "https://cdn%2Etest/",
        "https://127.0.0.1%2F@/",
        "https://127.0.0.1\\@cdn%/",
        "//cdn%00.test/",
    ],
)
def test_redirect_out_of_https_is_refused(location: str) -> None:
    """A redirect out of https, to another protocol, or to an invalid URL is refused."""
    with pytest.raises(RedirectRefused):
        next_hop(PUBLIC, [START], location)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "[::1]",
        "[fd00::1]",
        "localhost",
        "a.localhost.",
        "0.0.0.0",
    ],
)
def test_redirect_to_a_private_address_is_refused(host: str) -> None:
    """A public upstream cannot make the mirror connect to private addresses, unless configured."""
    location = f"https://{host}/latest/meta-data"
    with pytest.raises(RedirectRefused, match="private"):
        next_hop(PUBLIC, [START], location)
    assert next_hop(RedirectRules(PUBLIC.upstream, private=True), [START], location)


def test_redirect_within_a_private_upstream() -> None:
    """An upstream at a private address may redirect to itself."""
    own = URL("https://10.0.0.1/v2/a/blobs/x")
    assert next_hop(RedirectRules(URL("https://10.0.0.1")), [own], "/elsewhere") == URL(
        "https://10.0.0.1/elsewhere"
    )


def test_redirect_never_returns_to_http() -> None:
    """After one https hop there is no way back to http, even for an upstream over http."""
    visited = [URL("http://registry.test/x"), URL("https://cdn.test/x")]
    with pytest.raises(RedirectRefused, match="https"):
        next_hop(RedirectRules(URL("http://registry.test"), private=True), visited, "http://cdn.test/y")


@pytest.mark.parametrize(
    "location", ["//][@", "p://[]@", "https://[", "https://[::1]:99999/", "https://a\r\nb"]
)
def test_redirect_to_no_url_is_refused(location: str) -> None:
    """An upstream's nonsense is no unexpected error, whatever the library for URLs raises."""
    with pytest.raises(RedirectRefused):
        next_hop(PUBLIC, [START], location)


def test_redirect_circle_is_refused() -> None:
    """A URL that was visited is not visited again."""
    with pytest.raises(RedirectRefused, match="circle"):
        next_hop(PUBLIC, [START, URL("https://cdn.test/x")], str(START))


def test_redirect_hops_are_limited() -> None:
    """The number of hops is limited."""
    visited = [START, *(URL(f"https://cdn.test/{number}") for number in range(MAX_HOPS - 1))]
    visited.append(next_hop(PUBLIC, visited, "/last"))
    with pytest.raises(RedirectRefused, match="more than"):
        next_hop(PUBLIC, visited, "/one-too-many")


def test_redirect_refusal_has_no_signature() -> None:
    """The query of a refused target, which may be a signature, is not in the message."""
    with pytest.raises(RedirectRefused) as refused:
        next_hop(PUBLIC, [START], "http://cdn.test/x?X-Amz-Signature=geheim")
    assert "cdn.test" in str(refused.value)
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://A.test", ("https", "a.test", 443)),
        ("https://a.test:443/x", ("https", "a.test", 443)),
        ("http://a.test.", ("http", "a.test", 80)),
        ("http://a.test:5000", ("http", "a.test", 5000)),
    ],
)
def test_origin(url: str, expected: tuple[str, str, int]) -> None:
    """An origin is scheme, host and port in one spelling."""
    assert origin(URL(url)) == expected


def test_private_host_does_not_judge_names() -> None:
    """A name other than localhost is left to the resolver."""
    assert not is_private_host("registry.test")


def test_redirect_refusal_names_the_option() -> None:
    """The reason for refusing a private address says how to allow it."""
    reason = refusal(PUBLIC, URL("https://10.0.0.1/"), secure=True)
    assert reason is not None
    assert "private_redirects" in reason


@pytest.mark.parametrize(
    ("query", "signed"),
    [
        ("X-Amz-Algorithm=a&X-Amz-Signature=b", True),
        ("x-amz-security-token=t", True),
        ("X-Goog-Signature=b", True),
        ("x-oss-signature=b", True),
        ("sv=2024&sig=abc", True),
        ("Signature=abc&Expires=1", True),
        ("Policy=p&Key-Pair-Id=k", True),
        ("temp_url_sig=abc&temp_url_expires=1", True),
        ("q-signature=abc", True),
        ("token=abc", True),
        ("", False),
        ("n=100&last=signature", False),
        ("digest=sha256:abc&design=1", False),
    ],
)
def test_signed_query(query: str, signed: bool) -> None:
    """Parameters that sign a URL are known by name, in any case."""
    assert is_signed(URL(f"https://store.test/key?{query}")) is signed


@pytest.mark.parametrize(
    ("path", "climbing"),
    [
        ("/v2/../x", True),
        ("/v2/..", True),
        ("/v2/%2E%2e/x", True),
        ("/v2/a%2f..%5Cx", True),
        ("/v2/%252525252e./x", True),
        ("/v2/..%3Ba/x", True),
        ("/v2/./x", False),
        ("/v2/.../x", False),
        ("/v2/a../..b/x", False),
        ("/v2/a%2Fb:1.2..3", False),
    ],
)
def test_climbs_knows_dot_segments_in_every_spelling(path: str, climbing: bool) -> None:
    """A server decodes a path, perhaps more than once, before it resolves `..`."""
    assert climbs(URL(f"https://r.test{path}", encoded=True)) is climbing

"""Rules for redirects: a pure decision for each hop.

Registries redirect requests for blobs (registry.k8s.io also for manifests and tags) to other hosts. The
network named those hosts, not the configuration. So they get no credentials (invariant 6), and may not make
this process connect to private addresses around it (SSRF).
"""

import re
from collections.abc import Sequence
from urllib.parse import quote

from msgspec import Struct
from yarl import URL

from mirror.upstream.http.addresses import is_private_address
from mirror.util.log import redact_url

# Real chains have one or two hops (registry, store); lscr.io -> ghcr.io -> its store has three.
MAX_HOPS = 6
STATUSES = frozenset({301, 302, 303, 307, 308})

# Control characters end a request line, or reach a log. Browsers and Go escape the others that no URL has.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_AUTHORITY = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//([^/?#]*)")
# Names of parameters that sign a URL: of S3, Google, Azure, CloudFront, Alibaba, Tencent, Swift, Akamai.
_SIGNATURE = re.compile(
    r"(?i)^(x-\w+-)?(signature|credential|security-token)$|^(q-|temp_url_)?sig(nature)?$"
    r"|^(awsaccesskeyid|ossaccesskeyid|googleaccessid|key-pair-id|policy|token|hdnts|verify|hmac|auth_key)$"
)
# A component ".." of a path: its characters may be escaped, more than once too, and parameters may follow.
_SLASH, _DOT = r"(?:[/\\]|%(?:25)*(?:2f|5c))", r"(?:\.|%(?:25)*2e)"
_CLIMB = re.compile(rf"(?i){_SLASH}{_DOT}{_DOT}(?:$|;|%(?:25)*3b|{_SLASH})")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_NEEDS_ESCAPES = re.compile(r"[^!-~]")
# What no host has: escapes too would make it another one than it looks.
_NO_HOST_TEXT = re.compile(r"[^!-~]|[%\\]")


class RedirectRefused(ValueError):
    """A redirect that is not followed; the message says why and carries no secret."""


class RedirectRules(Struct, frozen=True):
    """Rules for the redirects of one upstream. `private` allows private addresses as targets."""

    upstream: URL
    private: bool = False


def origin(url: URL) -> tuple[str, str, int | None]:
    """Return scheme, host and port, which tell who reads a credential that is sent to `url`."""
    return (url.scheme, (url.host or "").rstrip(".").lower(), url.port)


def is_signed(url: URL) -> bool:
    """Return whether the query of a redirect's target is a credential, beside which no other may be sent."""
    return bool(url.raw_query_string) and any(_SIGNATURE.search(name) for name in url.query)


def climbs(url: URL) -> bool:
    """Return whether the path has a `..` that a server may resolve: it may lead to any path of the host."""
    return _CLIMB.search(url.raw_path) is not None


def next_hop(rules: RedirectRules, visited: Sequence[URL], location: str) -> URL:
    """Return the next URL, without user information and fragment. `visited[-1]` answered with `location`."""
    target = _resolve(visited[-1], location)
    if len(visited) > MAX_HOPS:
        raise RedirectRefused(f"more than {MAX_HOPS} redirects, the last to {redact_url(str(target))}")
    if target in visited:
        raise RedirectRefused(f"redirects go round in a circle at {redact_url(str(target))}")
    if reason := refusal(rules, target, secure=any(url.scheme == "https" for url in visited)):
        raise RedirectRefused(f"redirect to {redact_url(str(target))} refused: {reason}")
    return target


def refusal(rules: RedirectRules, target: URL, *, secure: bool) -> str | None:
    """Return why a URL that the network named may not be requested; None if it may.

    `secure` means that the URL was received over https, so that plain http would be a downgrade.
    """
    if target.scheme not in ("http", "https") or not target.host:
        return "it is not an http or https URL"
    if secure and target.scheme == "http":
        return "it leaves https"
    if origin(target) == origin(rules.upstream) or rules.private:
        return None
    if is_private_host(target.host):
        return "it is a private address; private_redirects = true would allow that"
    return None


def is_private_host(host: str) -> bool:
    """Return True if `host` itself, without DNS, is a private address or a name of this machine."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return is_private_address(name)
    except ValueError:
        return False


def parse_url(text: str, base: URL | None = None) -> URL:
    """Parse a URL that the network named, relative to `base`, without its fragment; raise ValueError.

    Its escapes are kept: a signed URL must be sent exactly as it came, or its signature does not match. A raw
    space and bytes beyond ASCII are escaped, as browsers and Go do; not in the host, where they are refused.
    """
    if _CONTROL.search(text):
        raise ValueError("control characters")
    authority = _AUTHORITY.match(text.lstrip(" "))
    if authority is not None and _NO_HOST_TEXT.search(authority[1].rpartition("@")[2]):
        raise ValueError("a host with characters that no host has")
    text = text.strip(" ")
    if _NEEDS_ESCAPES.search(text):
        text = quote(text, safe=_PRINTABLE, errors="surrogateescape")
    try:
        url = URL(text, encoded=True)
        url = (base.join(url) if base is not None else url).with_fragment(None)
        origin(url)  # yarl parses host and port only when they are read
    except IndexError:  # yarl's, for a host of brackets alone
        raise ValueError("a host that is none") from None
    return url


def _resolve(base: URL, location: str) -> URL:
    try:
        target = parse_url(location, base)
    except ValueError:
        raise RedirectRefused("redirect to something that is not a URL") from None
    return target.with_user(None) if target.raw_user is not None else target

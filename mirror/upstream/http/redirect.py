"""Rules for redirects: a pure decision for each hop.

Registries redirect requests for blobs (registry.k8s.io also for manifests and tags) to other hosts. The
network named those hosts, not the configuration. So they get no credentials (invariant 6), and may not make
this process connect to private addresses around it (SSRF).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from yarl import URL

from mirror.upstream.http.addresses import is_private_address
from mirror.util.log import redact_url

# Real chains have one or two hops (registry, store); lscr.io -> ghcr.io -> its store has three.
MAX_HOPS = 6
STATUSES = frozenset({301, 302, 303, 307, 308})

_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f-\x9f\ud800-\udfff]")


class RedirectRefused(ValueError):
    """A redirect that is not followed; the message says why and carries no secret."""


@dataclass(frozen=True, slots=True)
class RedirectRules:
    """Rules for the redirects of one upstream. `private` allows private addresses as targets."""

    upstream: URL
    private: bool = False


def origin(url: URL) -> tuple[str, str, int | None]:
    """Return scheme, host and port, which tell who reads a credential that is sent to `url`."""
    return (url.scheme, (url.host or "").rstrip(".").lower(), url.port)


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

    Its escapes are kept: a signed URL must be sent exactly as it came, or its signature does not match. So a
    space or a control character, which would end the request line or reach a log, is refused.
    """
    if _NOT_IN_URL.search(text):
        raise ValueError("characters that no URL has")
    url = URL(text, encoded=True)
    url = (base.join(url) if base is not None else url).with_fragment(None)
    origin(url)  # yarl parses host and port only when they are read
    return url


def _resolve(base: URL, location: str) -> URL:
    try:
        target = parse_url(location, base)
    except ValueError:
        raise RedirectRefused("redirect to something that is not a URL") from None
    return target.with_user(None) if target.raw_user is not None else target

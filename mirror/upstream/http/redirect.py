"""Where a redirect may lead: a pure decision, made anew for each hop.

Registries send blobs (registry.k8s.io even manifests and tags) to other hosts. Those hosts were named by
the network, not by the configuration, so they get no credentials (invariant 6) and may not make this
process call the machines around it.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from yarl import URL

from mirror.util.log import redact_url

# Real chains have one or two hops (registry, store), lscr.io -> ghcr.io -> its store three.
MAX_HOPS = 6
STATUSES = frozenset({301, 302, 303, 307, 308})


class RedirectRefused(ValueError):
    """A redirect that is not followed; the message says why and carries no secret."""


@dataclass(frozen=True, slots=True)
class RedirectRules:
    """What the redirects of one upstream may do. `private`: they may lead to private addresses."""

    upstream: URL
    private: bool = False


def origin(url: URL) -> tuple[str, str, int | None]:
    """Scheme, host and port: who would read a credential that is sent there."""
    return (url.scheme, (url.host or "").rstrip(".").lower(), url.port)


def next_hop(rules: RedirectRules, visited: Sequence[URL], location: str) -> URL:
    """The URL to ask next, without user information and fragment. `visited[-1]` answered `location`."""
    target = _resolve(visited[-1], location)
    if len(visited) > MAX_HOPS:
        raise RedirectRefused(f"more than {MAX_HOPS} redirects, the last to {redact_url(str(target))}")
    if target in visited:
        raise RedirectRefused(f"redirects go round in a circle at {redact_url(str(target))}")
    if reason := refusal(rules, target, secure=any(url.scheme == "https" for url in visited)):
        raise RedirectRefused(f"redirect to {redact_url(str(target))} refused: {reason}")
    return target


def refusal(rules: RedirectRules, target: URL, *, secure: bool) -> str | None:
    """Why `target`, which the network named, may not be asked; None when it may.

    `secure`: what named it came over https, so that plain http would be a downgrade.
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
    """Whether the host itself, without asking DNS, is a private address or a name of this machine."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return is_private_address(name)
    except ValueError:
        return False


def is_private_address(address: str) -> bool:
    """Whether an IP address is not on the public internet; ValueError when it is no address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return not ip.is_global or ip.is_multicast


def parse_url(text: str, base: URL | None = None) -> URL:
    """A URL the network named, relative to `base`, without its fragment. ValueError when it is none.

    Its escapes stay as they came: a signed URL must be sent back so, or its signature no longer fits.
    """
    url = URL(text, encoded=True)
    url = (base.join(url) if base is not None else url).with_fragment(None)
    origin(url)  # yarl looks at host and port only when it is asked for them
    return url


def _resolve(base: URL, location: str) -> URL:
    try:
        target = parse_url(location, base)
    except ValueError:
        raise RedirectRefused("redirect to something that is not a URL") from None
    return target.with_user(None) if target.raw_user is not None else target

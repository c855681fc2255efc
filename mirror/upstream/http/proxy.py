"""Proxies from the environment: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, in upper or lower case.

aiohttp's own `trust_env` is not used: with it, aiohttp also reads passwords from ~/.netrc and sends them to
the targets of redirects, which invariant 6 forbids.
"""

import base64
import ipaddress
from collections.abc import Mapping
from urllib.request import getproxies

from msgspec import Struct
from yarl import URL


class Proxies(Struct, frozen=True):
    """Proxy URLs, perhaps with passwords, by scheme as `getproxies` returns them; "no" holds NO_PROXY."""

    by_scheme: Mapping[str, str]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @classmethod
    def from_environment(cls) -> "Proxies":
        return cls(getproxies())

    def choose(self, url: URL) -> URL | None:
        """Return the proxy for requests to `url`; None for a direct connection."""
        text = self.by_scheme.get(url.scheme) or self.by_scheme.get("all")
        proxy = _proxy(text) if text else None
        return None if proxy is None or self._bypassed(url) else proxy

    def hosts(self) -> list[str]:
        """Return the hosts of all proxies: the operator chose these names, so they may be private."""
        proxies = [_proxy(text) for scheme, text in self.by_scheme.items() if scheme != "no"]
        return [proxy.host for proxy in proxies if proxy is not None and proxy.host]

    def secrets(self) -> list[str]:
        """Return the passwords in the URLs, plain and as they are sent."""
        proxies = [_proxy(text) for scheme, text in self.by_scheme.items() if scheme != "no"]
        logins = [(each.user or "", each.password) for each in proxies if each is not None and each.password]
        sent = [base64.b64encode(f"{user}:{password}".encode()).decode() for user, password in logins]
        return [*(password for _, password in logins), *sent]

    def _bypassed(self, url: URL) -> bool:
        entries = (entry.strip().lower() for entry in self.by_scheme.get("no", "").split(","))
        return any(_covers(entry, (url.host or "").lower(), url.port) for entry in entries if entry)


def _proxy(text: str) -> URL | None:
    """Return a proxy's URL; None for SOCKS and other schemes that aiohttp does not support."""
    # "proxy:3128", without a scheme, is common, and curl accepts it.
    proxy = URL(text if "://" in text else f"http://{text}")
    return proxy if proxy.scheme in ("http", "https") else None


def _covers(entry: str, host: str, port: int | None) -> bool:
    """Return True if an entry of NO_PROXY covers `host`, as curl and Go read such entries.

    An entry is `*`, a domain with all its subdomains, host:port, an address, or a network.
    """
    if entry == "*":
        return True
    name, _, wanted = entry.rpartition(":")
    if name and wanted.isdigit() and not (":" in name and not name.startswith("[")):
        return wanted == str(port) and _covers(name.strip("[]"), host, None)
    domain = entry.removeprefix("*").removeprefix(".")
    return host == domain or host.endswith(f".{domain}") or _in_network(entry, host)


def _in_network(entry: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False

"""The proxies of the environment: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, in either case.

aiohttp's own `trust_env` is not used: with it, aiohttp also takes passwords out of ~/.netrc and sends them
to whatever host a redirect leads to, which invariant 6 forbids.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.request import getproxies

from yarl import URL


@dataclass(frozen=True, slots=True, repr=False)
class Proxies:
    """Proxy URLs by scheme, as `getproxies` names them; "no" holds NO_PROXY. There may be passwords in it."""

    by_scheme: Mapping[str, str]

    @classmethod
    def from_environment(cls) -> "Proxies":
        return cls(getproxies())

    def choose(self, url: URL) -> URL | None:
        """The proxy to ask for `url`; None to go there directly."""
        text = self.by_scheme.get(url.scheme) or self.by_scheme.get("all")
        proxy = _proxy(text) if text else None
        return None if proxy is None or self._bypassed(url) else proxy

    def hosts(self) -> list[str]:
        """The hosts of all proxies: names that the operator chose, wherever they resolve to."""
        proxies = [_proxy(text) for scheme, text in self.by_scheme.items() if scheme != "no"]
        return [proxy.host for proxy in proxies if proxy is not None and proxy.host]

    def _bypassed(self, url: URL) -> bool:
        entries = (entry.strip().lower() for entry in self.by_scheme.get("no", "").split(","))
        return any(_covers(entry, (url.host or "").lower(), url.port) for entry in entries if entry)


def _proxy(text: str) -> URL | None:
    """A proxy's URL. SOCKS and others that aiohttp cannot speak to are as if they were not set."""
    # "proxy:3128" is what many people write, and what curl takes.
    proxy = URL(text if "://" in text else f"http://{text}")
    return proxy if proxy.scheme in ("http", "https") else None


def _covers(entry: str, host: str, port: int | None) -> bool:
    """NO_PROXY as curl and Go read it: `*`, a domain and all below it, host:port, an address, a network."""
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

"""The part of the server for machines that are to use it: /setup/mirror.json, and scripts for clients.

The scripts are plain text for a shell, to be read before they are run. They have in them the address by which
the mirror was asked, but only one that is certainly a host: whatever else a Host header says, the socket's
own address is there instead.
"""

import asyncio
import json
import re
from collections.abc import Sequence

from aiohttp import web

from mirror import __version__
from mirror.config.endpoints import UpstreamSettings
from mirror.oci.registries import canonical_host, is_public_registry, split_port
from mirror.system.sockets import format_address
from mirror.web.responses import SERVER

PREFIX = "/setup/"

# Names of a script: few, so that no other file can be meant.
SCRIPT = re.compile(r"/setup/(docker|containerd|podman|k3s)\.sh")

# Longest Host header that is read: a name of DNS and a port.
LONGEST_HOST = 261

HEADERS = {
    **SERVER,
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'",
}


class ClientSetup:
    """Handler of /setup/. The scripts are read from the package when the first one is asked for."""

    def __init__(self, upstreams: Sequence[UpstreamSettings]) -> None:
        self._names = [each.name for each in upstreams]
        described = [{"name": each.name, "aliases": list(each.aliases)} for each in upstreams]
        self._description = json.dumps({"registry-mirror": __version__, "upstreams": described}).encode()
        self._scripts: dict[str, str] | None = None

    async def answer(self, request: web.BaseRequest) -> web.Response | None:
        """Return the description or a script; None for any other request."""
        if not request.path.startswith(PREFIX) or request.method not in ("GET", "HEAD"):
            return None
        if request.path == f"{PREFIX}mirror.json":
            return web.Response(body=self._description, content_type="application/json", headers=HEADERS)
        found = SCRIPT.fullmatch(request.path)
        if found is None:
            return None
        text = await self._script(found[1])
        for name, value in self._values(request).items():
            text = text.replace(f"@{name}@", value)
        return web.Response(text=text, content_type="text/plain", charset="utf-8", headers=HEADERS)

    async def _script(self, name: str) -> str:
        if self._scripts is None:
            self._scripts = await asyncio.to_thread(_read_scripts)
        return self._scripts[name]

    def _values(self, request: web.BaseRequest) -> dict[str, str]:
        """Return what the script is for. Each value has only letters, digits and characters of addresses."""
        transport = request.transport
        secure = transport is not None and transport.get_extra_info("ssl_object") is not None
        address = _address(request, 443 if secure else 80)
        return {
            "SCHEME": "https" if secure else "http",
            "ADDRESS": address,
            "UPSTREAMS": " ".join(self._names),
            "VERSION": __version__,
        }


def _read_scripts() -> dict[str, str]:
    from mirror.setup.scripts import read_scripts

    return read_scripts()


def _address(request: web.BaseRequest, port: int) -> str:
    """Return the address that the client used, with a port; the socket's own if the Host header is none."""
    given = request.headers.get("Host", "")
    host = canonical_host(given) if len(given) <= LONGEST_HOST else None
    if host is not None and not is_public_registry(split_port(host)[0]):
        return host if split_port(host)[1] else f"{host}:{port}"
    transport = request.transport
    return format_address(transport.get_extra_info("socket")) if transport is not None else "localhost:5000"

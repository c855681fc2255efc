"""The target of a request: its path and host, as the parser of paths takes them."""

import re

from aiohttp import web

from mirror.oci.errors import Code, RegistryError
from mirror.oci.registries import canonical_host
from mirror.system.sockets import format_address

# A request target in absolute form, as for a proxy, which a server must accept (RFC 9112 3.2.2).
ABSOLUTE = re.compile(r"https?://([^/]*)", re.IGNORECASE)

# Longest query, in bytes, that is parsed; an upstream's next-page tokens are much shorter.
QUERY_BYTES = 4096


def path_and_host(request: web.BaseRequest) -> tuple[str, str | None]:
    """Return the undecoded path, and the host; both from the request target if it has absolute form."""
    target = request.raw_path.partition("?")[0]
    if absolute := ABSOLUTE.match(target):
        return target[absolute.end() :], absolute[1]
    return target, request.headers.get("Host")


def host_of(request: web.BaseRequest) -> str:
    """Return the host that the client used, and its port; the socket's own if the Host header is none."""
    host = canonical_host(request.headers.get("Host", ""))
    if host is not None:
        return host
    socket = None if request.transport is None else request.transport.get_extra_info("socket")
    return "localhost" if socket is None else format_address(socket)


def check_target(request: web.BaseRequest) -> None:
    """Refuse what no URL has, and a query that is too long. Raises RegistryError."""
    if not request.raw_path.isascii():  # aiohttp's parser in Python lets such bytes through, as surrogates
        message = "the request target has bytes that no URL has: write them as %XX"
        raise RegistryError(Code.NAME_INVALID, message)
    if len(request.rel_url.raw_query_string) > QUERY_BYTES:
        message = f"the query is longer than {QUERY_BYTES} characters"
        raise RegistryError(Code.UNSUPPORTED, message, status=414)

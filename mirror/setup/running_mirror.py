"""The running mirror: what it says of itself, for a setup.

Nothing here follows a redirect or uses a proxy: the mirror is on this network, or on this machine.
"""

import http.client
import ssl
from contextlib import closing
from urllib.parse import urlsplit

from mirror.oci import json_text
from mirror.oci.registries import canonical_host
from mirror.setup.plan import Mirror, SetupError, UpstreamEntry

# Path at which a mirror describes itself, and the key that no other server has.
PATH = "/setup/mirror.json"
KEY = "registry-mirror"

# Time limit for each step of the request, in seconds, and longest answer in bytes.
PATIENCE = 10.0
LONGEST = 1024 * 1024

# Ports of the schemes, for an address without one: configurations of clients need HOST:PORT.
PORTS = {"http": 80, "https": 443}


def find_mirror(text: str, ca: str | None = None) -> Mirror:
    """Return the mirror at a URL or HOST:PORT. Raises SetupError if there is none.

    Without a scheme, http is tried and then https. `ca` is PEM.
    """
    if "://" in text:
        return _ask(text, ca)
    try:
        return _ask(f"http://{text}", ca)
    except _NotPlain:
        return _ask(f"https://{text}", ca)


class _NotPlain(SetupError):
    """The server does not speak plain HTTP."""


def split_address(url: str) -> tuple[str, str, int]:
    """Return scheme, host as it stands in an address, and port of a mirror's URL. Raises SetupError."""
    hint = f"{url!r} is not the URL of a mirror: give http://HOST:PORT or https://HOST:PORT"
    try:
        parts = urlsplit(url)
        default = PORTS[parts.scheme]
        port = parts.port or default
        host = canonical_host(parts.netloc.rpartition(":")[0] if parts.port else parts.netloc)
    except (ValueError, KeyError):
        raise SetupError(hint) from None
    if host is None or parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise SetupError(hint)
    return parts.scheme, host, port


def _ask(url: str, ca: str | None) -> Mirror:
    scheme, host, port = split_address(url)
    address = f"{host}:{port}"
    known = True
    if scheme == "https":
        known = ca is None
    body = _get(scheme, host, port, ca)
    return Mirror(address, scheme == "https", _upstreams(body, url), None if known else ca)


def _get(scheme: str, host: str, port: int, ca: str | None) -> bytes:
    """Return the mirror's description. Raises SetupError with what to do."""
    address = f"{host}:{port}"
    bare = host.strip("[]")
    connection: http.client.HTTPConnection
    if scheme == "https":
        connection = http.client.HTTPSConnection(bare, port, timeout=PATIENCE, context=context_of(ca))
    else:
        connection = http.client.HTTPConnection(bare, port, timeout=PATIENCE)
    with closing(connection):
        try:
            connection.request("GET", PATH, headers={"Host": address, "Accept": "application/json"})
            answer = connection.getresponse()
            body = answer.read(LONGEST + 1)
        except ssl.SSLCertVerificationError as error:
            raise SetupError(
                f"the certificate of https://{address} is not trusted here ({error.verify_message}): give "
                "the certificate of its CA with --ca FILE"
            ) from None
        except (http.client.HTTPException, ConnectionResetError):
            raise _NotPlain(
                f"{address} does not speak HTTP: is it a mirror, and is https:// meant?"
            ) from None
        except OSError as error:
            reason = error.strerror or str(error) or "no answer in time"
            raise SetupError(
                f"no mirror answers at {scheme}://{address} ({reason}): start it (registry-mirror serve), or "
                "name it with --mirror URL"
            ) from None
    if answer.status != 200:
        if answer.status == 400 and scheme == "http":
            raise _NotPlain(f"{address} answered 400: is https:// meant?")
        raise SetupError(_no_mirror(address, f"it answered {answer.status} to {PATH}"))
    return body


def context_of(ca: str | None) -> ssl.SSLContext:
    """Return the TLS context for a mirror; `ca` is PEM. Raises SetupError."""
    try:
        return ssl.create_default_context(cadata=ca)
    except (ssl.SSLError, ValueError):
        raise SetupError("the file of --ca has no certificate in PEM") from None


def _no_mirror(address: str, reason: str) -> str:
    return f"{address} is no registry-mirror, or one of an older version: {reason}"


def _upstreams(body: bytes, url: str) -> tuple[UpstreamEntry, ...]:
    """Return the upstreams of a description. Names are checked: they become parts of files that root owns."""
    address = url.partition("://")[2]
    try:
        described = json_text.parse(body)
        if not isinstance(described, dict) or KEY not in described or len(body) > LONGEST:
            raise ValueError
        found = tuple(
            UpstreamEntry(_name(each["name"]), tuple(map(_name, each.get("aliases", []))))
            for each in described["upstreams"]
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SetupError(_no_mirror(address, f"{PATH} is not what a mirror says")) from None
    if not found:
        raise SetupError(f"the mirror at {address} has no upstreams")
    return found


def _name(text: object) -> str:
    name = canonical_host(text) if isinstance(text, str) else None
    if name is None:
        raise ValueError("not the name of a registry")
    return name

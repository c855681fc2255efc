"""One request to a probe of the mirror on this machine, as container runtimes make it every half minute."""

import http.client
import ssl
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mirror.config.server import ServerSettings
from mirror.system.addresses import reachable

# Bytes of an answer that are read, and of it that are shown.
LONGEST, SHOWN = 64 * 1024, 200


class Unhealthy(Exception):
    """The mirror does not answer, or answers that it is not well; the text says which."""


def probe_url(server: ServerSettings, path: str) -> str:
    """Return the URL of a probe of the mirror that this configuration makes; operators' listeners first."""
    if server.operations_listen:
        return f"http://{reachable(server.operations_listen[0])}{path}"
    scheme = "http" if server.tls_certificate is None else "https"
    return f"{scheme}://{reachable(server.listen[0])}{path}"


def check(url: str, seconds: float, certificate: Path | None = None) -> str:
    """Ask a probe. Raises Unhealthy if the answer is not 200 within `seconds` for each step.

    No proxy is used and no redirect followed. A certificate's names are not checked: the address is one of
    this machine, and nothing secret is sent. `certificate`: file in PEM; the server must have its first one.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Unhealthy(f"{url!r} is not a URL: give http://HOST:PORT/healthz")
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(
            parts.hostname, parts.port or 443, timeout=seconds, context=context
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=seconds)
    with closing(connection):
        try:
            connection.connect()
            if certificate is not None:
                compare_certificate(connection.sock, certificate)
            connection.request("GET", parts.path or "/healthz")
            answer = connection.getresponse()
            body = answer.read(LONGEST).decode(errors="replace").strip()
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or "no answer in time"
            raise Unhealthy(f"{url} does not answer: {reason}") from None
    if answer.status != 200:
        raise Unhealthy(f"{url} answered {answer.status}: {body[:SHOWN]}")
    return body[:SHOWN]


def compare_certificate(sock: Any, certificate: Path) -> None:
    """Raise Unhealthy if the server's certificate is not the first one of a file."""
    try:
        text = certificate.read_text()
        end = text.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)
        expected = ssl.PEM_cert_to_DER_cert(text[text.index(ssl.PEM_HEADER) : end])
    except (OSError, ValueError) as error:
        raise Unhealthy(f"{certificate} has no certificate that can be read: {error}") from None
    if sock.getpeercert(binary_form=True) != expected:
        raise Unhealthy(
            f"the server has another certificate than {certificate}: another program has the port, or a "
            "renewed certificate was not taken up (send SIGHUP to the mirror)"
        )

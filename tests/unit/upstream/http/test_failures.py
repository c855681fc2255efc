"""Foreign exceptions in our words: each says what is wrong, no number comes first, no URL is quoted."""

import asyncio
import socket
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http.failures import describe
from mirror.upstream.http.resolver import PrivateAddress
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.fakes.tls import Authority
from tests.fakes.upstream import registry_at

KEY = ConnectionKey("registry.test", 443, True, True, None, None, None)
SIGNED = URL("https://registry.test/x?sig=geheim")


@pytest.mark.parametrize(
    ("error", "failure", "words"),
    [
        (aiohttp.ConnectionTimeoutError(f"to {SIGNED}"), Failure.TIMEOUT, "connecting"),
        (aiohttp.SocketTimeoutError(), Failure.TIMEOUT, "too long"),
        (TimeoutError(), Failure.TIMEOUT, "too long"),
        (aiohttp.ClientConnectorDNSError(KEY, PrivateAddress("no")), Failure.INVALID, "no"),
        (
            aiohttp.ClientConnectorDNSError(KEY, OSError(-2, "Name or service not known")),
            Failure.UNREACHABLE,
            "cannot resolve the host name registry.test: Name or service not known",
        ),
        (
            aiohttp.ClientProxyConnectionError(KEY, OSError(111, "refused")),
            Failure.UNREACHABLE,
            "the proxy registry.test:443 does not answer: Connection refused",
        ),
        (aiohttp.ClientPayloadError("x"), Failure.UNREACHABLE, "middle"),
        (aiohttp.ServerDisconnectedError(), Failure.UNREACHABLE, "without an answer"),
        (aiohttp.ClientOSError(104, "Connection reset by peer"), Failure.UNREACHABLE, "reset"),
        (
            aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "[SSL] wrong version number")),
            Failure.UNREACHABLE,
            "TLS failed: wrong version number",
        ),
        (
            aiohttp.ClientConnectorSSLError(
                KEY, ssl.SSLError(1, "[SSL: TLSV1_ALERT_X] alert protocol version (_ssl.c:1006)")
            ),
            Failure.UNREACHABLE,
            "TLS failed: alert protocol version",
        ),
        (
            aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(-3, "Temporary failure")),
            Failure.UNREACHABLE,
            "cannot resolve the host name registry.test: Temporary failure",
        ),
        (
            aiohttp.ClientConnectorError(
                KEY, OSError("Multiple exceptions: [Errno 111] one, [Errno 113] two")
            ),
            Failure.UNREACHABLE,
            "connection failed",
        ),
        (aiohttp.ClientOSError(1, "write"), Failure.UNREACHABLE, "not permitted"),
        (ConnectionResetError(), Failure.UNREACHABLE, "connection failed"),
        (aiohttp.InvalidURL(SIGNED), Failure.INVALID, "not a URL"),
        (aiohttp.ClientConnectionError(f"at {SIGNED}"), Failure.UNREACHABLE, "ClientConnectionError"),
    ],
)
def test_exceptions_are_described(error: Exception, failure: Failure, words: str) -> None:
    """Each foreign exception becomes one of our failures."""
    described, message = describe(error, SIGNED)
    assert (described, words in message) == (failure, True)
    assert "geheim" not in message
    assert "Errno" not in message


def test_openssl_error_below_a_write_is_described() -> None:
    """OpenSSL's numbers are not those of the system: 1 is not EPERM."""
    error = aiohttp.ClientOSError(1, "Can not write request body")
    error.__cause__ = ssl.SSLError(1, "[SSL: BAD_LENGTH] bad length (_ssl.c:2427)")
    assert describe(error, SIGNED) == (Failure.UNREACHABLE, "TLS failed: bad length")


async def failed(url: str, **values: Any) -> UpstreamError:
    """Return the error of one request to an upstream at `url`."""
    async with registry_at(url, attempts=1, **values) as registry:
        with pytest.raises(UpstreamError) as raised:
            await registry.tags("a", "")
    return raised.value


async def test_https_to_a_plain_server_says_http() -> None:
    """The message says what to write in the place of https://."""
    async with FakeRegistry() as fake:
        error = await failed(fake.url.replace("http:", "https:"))
    place = fake.url.replace("http:", "https:")
    assert error.message == f"docker.io: {place}: this server speaks plain HTTP: use http://"
    assert error.failure is Failure.UNREACHABLE


async def test_http_to_a_tls_server_says_https() -> None:
    """A TLS alert is no HTTP: the message says what to try."""
    async with FakeRegistry() as fake:
        fake.fault(Fault(raw=b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n"))
        error = await failed(fake.url)
    assert error.message.endswith("the answer is not HTTP: use https:// if this server speaks TLS")
    assert error.failure is Failure.INVALID


async def test_certificate_of_an_unknown_authority_says_ca_file(tmp_path: Path) -> None:
    """The message has the host, the reason, and the option that helps."""
    authority = await asyncio.to_thread(Authority, tmp_path)
    async with FakeRegistry(tls=authority.server_context()) as fake:
        error = await failed(fake.url)
    assert error.message == (
        f"docker.io: {fake.url}: the TLS certificate of 127.0.0.1 is not trusted: "
        "unable to get local issuer certificate; "
        "if it is of a private CA, set ca_file to the certificate of that CA"
    )
    assert error.failure is Failure.UNREACHABLE


async def test_certificate_for_another_host_says_which(tmp_path: Path) -> None:
    """The issuer is known: ca_file is no remedy and not proposed."""
    authority = await asyncio.to_thread(Authority, tmp_path)
    async with FakeRegistry(tls=authority.server_context()) as fake:
        error = await failed(fake.url.replace("127.0.0.1", "localhost"), ca_file=authority.ca_file)
    assert error.message.endswith(
        "the TLS certificate of localhost is not trusted: "
        "Hostname mismatch, certificate is not valid for 'localhost'"
    )


async def test_certificate_that_has_expired_says_so(tmp_path: Path) -> None:
    """The reason is OpenSSL's own."""
    authority = await asyncio.to_thread(Authority, tmp_path, lifetime=timedelta(minutes=-1))
    async with FakeRegistry(tls=authority.server_context()) as fake:
        error = await failed(fake.url, ca_file=authority.ca_file)
    assert error.message.endswith("is not trusted: certificate has expired")

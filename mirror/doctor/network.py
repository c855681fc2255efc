"""The way to an upstream, step by step: proxy, name, route, TLS, HTTP, and the clock.

Each step is a check of its own, so that the finding names the first thing that fails. Of an upstream nothing
but `/v2/` is asked; no password is sent. All calls block.
"""

import base64
import errno
import http.client
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from email.utils import parsedate_to_datetime

from msgspec import Struct
from yarl import URL

from mirror.config.endpoints import EndpointSettings
from mirror.doctor.finding import Diagnosis, error, fine, warning
from mirror.upstream.http.proxy import Proxies
from mirror.util.tls import load_pair

# Limits of a step, in seconds; the second one is for IPv6 beside an IPv4 that works.
PATIENCE = 10.0
SHORT_PATIENCE = 3.0

# Differences of the clocks, in seconds: tokens of registries are valid for 60 s and more.
SKEW_WARNING = 30.0
SKEW_ERROR = 300.0

# Days before the end of a certificate at which it is worth a word.
EXPIRES_SOON = 7

# OpenSSL's X509_V_ERR_*: not yet valid, expired; a CA that is not known; a name that is another one.
BY_CLOCK = frozenset({9, 10})
UNKNOWN_CA = frozenset({2, 18, 19, 20, 21})
OTHER_NAME = frozenset({62, 64})

NOTHING_NEW = "nothing of it can be pulled that is not cached"
TOKENS_FAIL = "certificates and the tokens of registries are judged by this machine's clock"
SET_CLOCK = "timedatectl set-ntp true"


class Endpoint(Struct, frozen=True):
    """A URL that content can come from, and its name for findings."""

    name: str
    settings: EndpointSettings
    table: str = "[[upstream]]"

    @property
    def url(self) -> URL:
        return URL(self.settings.url)


class Failed(Exception):
    """The step that ends the examination of an endpoint."""

    def __init__(self, finding: Diagnosis) -> None:
        super().__init__(finding.what)
        self.finding = finding


def examine(
    endpoint: Endpoint, proxies: Proxies, clock: Callable[[], float] = time.time
) -> tuple[list[Diagnosis], bool]:
    """Return the findings, and whether the endpoint answers."""
    findings: list[Diagnosis] = []
    try:
        proxy = proxies.choose(endpoint.url)
        addresses = _resolve(endpoint, proxy)
        if proxy is None:
            findings += _families(endpoint, addresses)
        answer = _ask(endpoint, proxy)
    except Failed as failed:
        return [*findings, *_clock_behind(endpoint, failed, proxies, clock)], False
    findings += _judge(endpoint, answer, clock)
    if not findings:
        via = f" through the proxy {proxy.host}:{proxy.port}" if proxy is not None else ""
        findings.append(fine(endpoint.name, f"{endpoint.url.host} answers{via}"))
    return findings, True


def _resolve(endpoint: Endpoint, proxy: URL | None) -> dict[int, str]:
    """Return the first address of each family of the host that is connected to."""
    url = proxy or endpoint.url
    try:
        found = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as reason:
        words = getattr(reason, "strerror", None) or "it is no name of DNS"
        what = f"the name does not resolve: {words.lower()}"
        if proxy is not None:
            what = f"the name of the proxy {proxy.host} does not resolve: {words.lower()}"
        mend = f"getent hosts {url.host}, and look into /etc/resolv.conf"
        raise Failed(error(endpoint.name, what, NOTHING_NEW, mend)) from None
    addresses: dict[int, str] = {}
    for family, _, _, _, address in found:
        addresses.setdefault(family, str(address[0]))
    return addresses


def _families(endpoint: Endpoint, addresses: dict[int, str]) -> Iterator[Diagnosis]:
    """Yield a finding if IPv6 fails where IPv4 works. A machine without any IPv6 is fine."""
    if socket.AF_INET not in addresses or socket.AF_INET6 not in addresses:
        return
    address = addresses[socket.AF_INET6]
    try:
        socket.create_connection((address, endpoint.url.port or 443), SHORT_PATIENCE).close()
    except OSError as reason:
        if reason.errno in (errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            return
        words = (reason.strerror or "no answer in time").lower()
        yield warning(
            endpoint.name,
            f"IPv6 does not work to it ({words}), IPv4 does",
            "each new connection waits for IPv6 first",
            f"ip -6 route get {address}, and mend the route, or take IPv6 from this machine",
        )


def context_of(settings: EndpointSettings) -> ssl.SSLContext:
    """Return the TLS context of an endpoint. Raises OSError or ValueError for files that cannot be used."""
    context = ssl.create_default_context()
    if settings.ca_file is not None:
        context.load_verify_locations(settings.ca_file)
    if settings.client_cert is not None and settings.client_key is not None:
        load_pair(context, settings.client_cert, settings.client_key)
    return context


class ProbeAnswer(Struct, frozen=True):
    """Answer to `/v2/`. `expires`: when the certificate ends, in seconds since the epoch."""

    status: int
    date: str | None
    expires: float | None


def _ask(endpoint: Endpoint, proxy: URL | None, context: ssl.SSLContext | None = None) -> ProbeAnswer:
    """Return the answer to `/v2/`; `context` in the place of the endpoint's own, which verifies."""
    url = endpoint.url / "v2/"
    try:
        if context is None and url.scheme == "https":
            context = context_of(endpoint.settings)
        connection, target = _connection(url, proxy, context)
        with closing(connection):
            connection.request(
                "GET", target, headers={"Host": url.authority, "User-Agent": "registry-mirror"}
            )
            expires = _expiry(connection)
            answer = connection.getresponse()
            return ProbeAnswer(answer.status, answer.headers.get("Date"), expires)
    except ssl.SSLCertVerificationError as reason:
        raise Failed(_distrust(endpoint, reason)) from None
    except (OSError, ValueError, http.client.HTTPException) as reason:
        raise Failed(_failure(endpoint, proxy, reason)) from None


def _connection(
    url: URL, proxy: URL | None, context: ssl.SSLContext | None
) -> tuple[http.client.HTTPConnection, str]:
    """Return a connection to the endpoint or its proxy, and what is asked for there."""
    host, port = (proxy or url).host or "", (proxy or url).port
    login = {} if proxy is None or proxy.raw_user is None else {"Proxy-Authorization": _basic(proxy)}
    if url.scheme == "http":
        target = url.raw_path if proxy is None else str(url)
        return http.client.HTTPConnection(host, port, timeout=PATIENCE), target
    connection = http.client.HTTPSConnection(host, port, timeout=PATIENCE, context=context)
    if proxy is not None:
        connection.set_tunnel(url.host or "", url.port, login)
    return connection, url.raw_path


def _basic(proxy: URL) -> str:
    login = f"{proxy.user or ''}:{proxy.password or ''}".encode()
    return "Basic " + base64.b64encode(login).decode()


def _expiry(connection: http.client.HTTPConnection) -> float | None:
    """Return when the server's certificate ends; None without TLS or without verification."""
    certificate = connection.sock.getpeercert() if isinstance(connection.sock, ssl.SSLSocket) else None
    ends = (certificate or {}).get("notAfter")
    return ssl.cert_time_to_seconds(ends) if isinstance(ends, str) else None


def _distrust(endpoint: Endpoint, reason: ssl.SSLCertVerificationError) -> Diagnosis:
    """Return the finding for a certificate that is not trusted."""
    what = f"its TLS certificate is not trusted: {reason.verify_message.rstrip('.')}"
    mend = f"openssl s_client -connect {endpoint.url.host}:{endpoint.url.port} shows it"
    if reason.verify_code in UNKNOWN_CA:
        mend = f'ca_file = "/path/of/its/ca.crt" under {endpoint.table}, if it is of a private CA'
    elif reason.verify_code in OTHER_NAME:
        mend = f"let url under {endpoint.table} have the name that the certificate has"
    elif reason.verify_code in BY_CLOCK:
        mend = f"renew the certificate of {endpoint.url.host}, or if this clock is wrong: {SET_CLOCK}"
    return error(endpoint.name, what, NOTHING_NEW, mend)


def _failure(endpoint: Endpoint, proxy: URL | None, reason: Exception) -> Diagnosis:
    """Return the finding for a connection that fails."""
    place = f"{(proxy or endpoint.url).host}:{(proxy or endpoint.url).port}"
    whose = f"the proxy {place}" if proxy is not None else place
    mend = f"nc -vz {place.rpartition(':')[0]} {place.rpartition(':')[2]}, and look at route and firewall"
    if isinstance(reason, ssl.SSLError) and reason.reason in ("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL"):
        what = f"{whose} speaks plain HTTP where TLS is expected"
        mend = f'url = "http://{endpoint.url.authority}" under {endpoint.table}'
    elif isinstance(reason, ssl.SSLError):
        what = f"TLS with {whose} fails: {reason.reason or reason}"
    elif isinstance(reason, TimeoutError):
        what = f"{whose} does not answer within {PATIENCE:g} s"
    elif isinstance(reason, http.client.HTTPException | ConnectionResetError):
        what = f"{whose} does not speak HTTP"
        mend = f'url = "https://{endpoint.url.authority}" under {endpoint.table}, if it speaks TLS'
    elif proxy is not None and "Tunnel connection failed" in str(reason):
        what = f"{whose} refuses: {str(reason).partition(': ')[2]}"
        mend = "HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT, or the host in NO_PROXY, for the mirror's service"
    elif isinstance(reason, ValueError):
        what = str(reason)
        mend = f"correct the files under {endpoint.table}"
    else:
        what = f"{whose} cannot be reached: {(getattr(reason, 'strerror', None) or str(reason)).lower()}"
    return error(endpoint.name, what, NOTHING_NEW, mend)


def _judge(endpoint: Endpoint, answer: ProbeAnswer, clock: Callable[[], float]) -> Iterator[Diagnosis]:
    """Yield what is wrong with an answer."""
    if answer.status not in (200, 401):
        yield warning(
            endpoint.name,
            f"{endpoint.url.host} answers {answer.status} to /v2/, where a registry answers 200 or 401",
            "a login page or a gateway may stand in the place of the registry",
            f"curl -v {endpoint.url / 'v2/'}",
        )
    if answer.expires is not None and answer.expires - clock() < EXPIRES_SOON * 86400:
        days = max(0, int((answer.expires - clock()) // 86400))
        yield warning(
            endpoint.name,
            f"its TLS certificate ends in {days} days",
            f"from then on {NOTHING_NEW}",
            f"renew the certificate of {endpoint.url.host}",
        )
    yield from _clock_findings(endpoint.name, answer.date, clock())


def _clock_findings(name: str, date: str | None, now: float) -> Iterator[Diagnosis]:
    """Yield a finding if the clocks differ."""
    skew = _skew(date, now)
    if skew is None or abs(skew) < SKEW_WARNING:
        return
    what = (
        f"this machine's clock is {_length(abs(skew))} {'ahead of' if skew > 0 else 'behind'} the registry's"
    )
    make = error if abs(skew) >= SKEW_ERROR else warning
    yield make(name, what, TOKENS_FAIL, SET_CLOCK)


def _skew(date: str | None, now: float) -> float | None:
    """Return by how many seconds this machine is ahead of a Date header; None without a valid one."""
    try:
        return now - parsedate_to_datetime(date or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _length(seconds: float) -> str:
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{int(seconds // unit)} {name}"
    return f"{int(seconds)} seconds"


def _clock_behind(
    endpoint: Endpoint, failed: Failed, proxies: Proxies, clock: Callable[[], float]
) -> list[Diagnosis]:
    """Return the finding of a failure, and before it the wrong clock that may be its reason.

    The Date comes over a connection that is not verified: it is good for a hint, and for nothing else.
    """
    if "certificate is not trusted" not in failed.finding.what:
        return [failed.finding]
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    try:
        answer = _ask(endpoint, proxies.choose(endpoint.url), unverified)
    except Failed:
        return [failed.finding]
    return [*_clock_findings(endpoint.name, answer.date, clock()), failed.finding]

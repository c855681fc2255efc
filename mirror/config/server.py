"""The options of the server: addresses, processes, TLS, timeouts."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from mirror.access.rules import Network, parse_network
from mirror.config.types import (
    MAX_WORKERS,
    Duration,
    Networks,
    Processes,
    ReadableFile,
    Strings,
    Timeout,
)
from mirror.config.validation import After, Beside, Doc, Settings

if TYPE_CHECKING:
    import ssl

ADDRESS = re.compile(r"(\[[^]]+\]|[^:]*):([0-9]{1,5})")


def require_addresses(value: tuple[str, ...]) -> tuple[str, ...]:
    """Complete a port alone to ":PORT". Refuse wrong addresses, all of them in one message."""
    addresses = tuple(each if ":" in each else f":{each}" for each in value)
    wrong = [
        given
        for given, each in zip(value, addresses, strict=True)
        if (match := ADDRESS.fullmatch(each)) is None or int(match[2]) > 65535
    ]
    if wrong:
        verb = "is" if len(wrong) == 1 else "are"
        raise ValueError(
            f"{', '.join(map(repr, wrong))} {verb} not HOST:PORT, for instance 127.0.0.1:5000, "
            "[::1]:5000, or :5000 for every address of this machine"
        )
    return addresses


def _require_address(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("needs at least one HOST:PORT, for instance 127.0.0.1:5000")
    return value


def _check_not_listen(value: tuple[str, ...], valid: Mapping[str, Any]) -> tuple[str, ...]:
    if both := set(value) & set(valid.get("listen", ())):
        raise ValueError(f"has {', '.join(sorted(both))} like server.listen: take another port")
    return value


def _check_tls_pair(value: Path | None, valid: Mapping[str, Any]) -> Path | None:
    """Load the pair, so that a wrong pair is an error at the start and not at the first connection."""
    certificate: Path | None = valid.get("tls_certificate")
    if "tls_certificate" in valid and (certificate is None) != (value is None):
        raise ValueError("and tls_certificate belong together: give both or none")
    if certificate is not None and value is not None:
        _tls_context(certificate, value)
    return value


def _tls_context(
    certificate: Path, key: Path, clients: tuple[Path, bool, Path | None] | None = None
) -> "ssl.SSLContext":
    """Return the context of a listener; `clients`: CA, whether a certificate is required, revocation list."""
    from mirror.util.tls import ClientCertificates, server_context  # imports ssl, which few commands need

    return server_context(certificate, key, None if clients is None else ClientCertificates(*clients))


def _check_client_ca(value: Path | None, valid: Mapping[str, Any]) -> Path | None:
    """Load the file, and refuse one without TLS: nothing would ask for a certificate."""
    if value is None or not {"tls_certificate", "tls_key"} <= valid.keys():
        return value
    if valid["tls_certificate"] is None or valid["tls_key"] is None:
        raise ValueError("needs TLS: give tls_certificate and tls_key too, or leave it out")
    _tls_context(valid["tls_certificate"], valid["tls_key"], (value, False, None))
    return value


def _check_client_crl(value: Path | None, valid: Mapping[str, Any]) -> Path | None:
    if value is None or not {"tls_certificate", "tls_key", "client_ca"} <= valid.keys():
        return value
    if (authorities := valid["client_ca"]) is None:
        raise ValueError("needs client_ca, the authority whose certificates it revokes")
    _tls_context(valid["tls_certificate"], valid["tls_key"], (authorities, False, value))
    return value


def _check_client_certificates(value: str, valid: Mapping[str, Any]) -> str:
    if value == "required" and "client_ca" in valid and valid["client_ca"] is None:
        raise ValueError('is "required" without client_ca: say whose certificates, or leave it out')
    return value


Addresses = Annotated[Strings, After(require_addresses)]


class ServerSettings(Settings, frozen=True, kw_only=True):
    """Addresses, processes, TLS and timeouts of the server."""

    listen: Annotated[
        Addresses,
        After(_require_address),
        Doc(
            'Addresses to serve on, each as HOST:PORT. A port alone, as in ":5000", stands for every '
            "address of the machine, IPv4 and IPv6. If systemd passes sockets (registry-mirror.socket), the "
            "mirror uses those instead.",
            examples=[[":5000"]],
        ),
    ] = ("127.0.0.1:5000",)
    workers: Annotated[
        Processes,
        Doc(
            'Number of processes that serve, 1 to 64, or "auto" for one process per processor.',
            examples=["auto"],
        ),
    ] = 1
    operations_listen: Annotated[
        Addresses,
        Beside(_check_not_listen),
        Doc(
            "Addresses for operators, each as HOST:PORT, with plain HTTP: /healthz, /readyz and /metrics. "
            "With such an address `listen` serves /healthz alone of the three, and clients learn neither "
            "account names nor upstream addresses.",
            examples=[["127.0.0.1:5001"]],
        ),
    ] = ()
    trusted_proxies: Annotated[
        Networks,
        Doc(
            "Addresses and networks of proxies in front of the mirror. Their X-Forwarded-For tells the "
            "address of the client, for rules, fairness and the log; else that of the connection counts.",
            examples=[["127.0.0.1", "10.0.0.0/28"]],
        ),
    ] = ()
    connections: Annotated[
        int,
        Meta(ge=16, le=1_000_000),
        Doc(
            "Maximum number of client connections of one process; fewer if its limit of open files "
            "(LimitNOFILE) is less than about twice of it. At the maximum the connections idle longest "
            "are closed."
        ),
    ] = 16_384
    header_timeout: Annotated[
        Timeout,
        Doc(
            "Time within which a client gets the head of a response, or an error. It begins when the "
            "download has a connection to the upstream."
        ),
    ] = 20
    shutdown_timeout: Annotated[
        Duration, Doc("Time that running responses have to finish after SIGTERM.")
    ] = 30
    when_unavailable: Annotated[
        Literal["auto", "next", "honest"],
        Doc(
            "Response to a client when an upstream is unavailable, or the mirror cannot use its cache or "
            'stops. "next" is a 404, at which every client goes on to its next mirror or to the registry '
            'itself. "honest" is 429, 502 or 504, and 503 for the mirror itself. "auto" is "next", but for '
            "requests with the name of the upstream in the path and without `ns` it is 424 where the "
            "upstream does not answer or fails, at which clients stop at once, and otherwise as "
            '"honest". What an upstream refuses or does not have is always a 404.'
        ),
    ] = "auto"
    offline: Annotated[
        bool,
        Doc(
            "Make no request to any upstream, and serve what is cached. The option `serve --offline` does "
            "the same."
        ),
    ] = False
    tls_certificate: Annotated[
        ReadableFile | None,
        Doc(
            "Certificate followed by its chain, as PEM. With a certificate all addresses of `listen` are "
            "https://. The file is read at the start and on SIGHUP. Goes together with `tls_key`.",
            examples=["/etc/registry-mirror/mirror.crt"],
        ),
    ] = None
    tls_key: Annotated[
        ReadableFile | None,
        Beside(_check_tls_pair),
        Doc(
            "Private key of `tls_certificate`, as PEM and without a passphrase.",
            examples=["/etc/registry-mirror/mirror.key"],
        ),
    ] = None

    client_ca: Annotated[
        ReadableFile | None,
        Beside(_check_client_ca),
        Doc(
            "Certificate of your own authority for clients, as PEM. Clients are then asked for a "
            "certificate, and rules can name it: `cert:` and its common name, `san:` and an alternative "
            "name. Not a bundle of public authorities: everybody can have a certificate of those. The file "
            "is read at the start and on SIGHUP. Needs `tls_certificate`.",
            examples=["/etc/registry-mirror/clients-ca.crt"],
        ),
    ] = None
    client_crl: Annotated[
        ReadableFile | None,
        Beside(_check_client_crl),
        Doc(
            "Revocation list of `client_ca`, as PEM. The file is read at the start and on SIGHUP. A list "
            "that has expired refuses every certificate.",
            examples=["/etc/registry-mirror/clients.crl"],
        ),
    ] = None
    client_certificates: Annotated[
        Literal["optional", "required"],
        Beside(_check_client_certificates),
        Doc(
            'Whether a client needs a certificate of `client_ca`. "optional": a client without one may '
            'connect, and rules see that it has none. "required": it cannot connect, not for /healthz '
            "either. A wrong certificate is refused in both cases."
        ),
    ] = "optional"
    proxy_protocol: Annotated[
        Networks,
        Doc(
            "Addresses and networks of proxies that begin each connection with a PROXY header, version 1 or "
            "2, which tells the address of the client. A connection from there without it is refused, and so "
            "is the header from anywhere else.",
            examples=[["10.0.0.5"]],
        ),
    ] = ()

    def processes(self) -> int:
        """Return the number of processes that serve."""
        if self.workers == "auto":
            return min(len(os.sched_getaffinity(0)), MAX_WORKERS)
        return self.workers

    def proxies(self) -> tuple[Network, ...]:
        """Return the networks of trusted proxies."""
        return tuple(map(parse_network, self.trusted_proxies))

    def header_proxies(self) -> tuple[Network, ...]:
        """Return the networks of proxies that send a PROXY header."""
        return tuple(map(parse_network, self.proxy_protocol))

    def tls(self) -> "ssl.SSLContext | None":
        """Return the TLS context of the listener, or None for plain HTTP."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        clients = None
        if self.client_ca is not None:
            clients = self.client_ca, self.client_certificates == "required", self.client_crl
        return _tls_context(self.tls_certificate, self.tls_key, clients)

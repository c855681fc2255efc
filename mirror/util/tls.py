"""TLS contexts: of the listener, from a certificate and its key, and of clients."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NoReturn

from msgspec import Struct


class ClientCertificates(Struct, frozen=True):
    """Demand of a server for certificates of its clients, signed by `authorities`, a file.

    `required`: no connection without one. `revoked`: file of revocation lists.
    """

    authorities: Path
    required: bool = False
    revoked: Path | None = None


def server_context(certificate: Path, key: Path, clients: ClientCertificates | None = None) -> ssl.SSLContext:
    """Return a context for TLS 1.2 and newer and HTTP/1.1.

    Raises ValueError with a message that says which file to replace, and by what.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    load_pair(context, certificate, key)
    if clients is not None:
        _ask_clients(context, clients)
    return context


def _ask_clients(context: ssl.SSLContext, clients: ClientCertificates) -> None:
    """Have `context` ask for certificates of these authorities.

    No session is resumed with a ticket: it would stay valid while its certificate expires.
    """
    load_authorities(context, clients.authorities)
    if clients.revoked is not None:
        load_revoked(context, clients.revoked)
    context.verify_mode = ssl.CERT_REQUIRED if clients.required else ssl.CERT_OPTIONAL
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0


def load_authorities(context: ssl.SSLContext, file: Path) -> None:
    """Trust the authorities in `file`. Raises ValueError that says what the file must have."""
    try:
        context.load_verify_locations(file)
    except ssl.SSLError as error:
        raise ValueError(
            f"{file} must have the certificate of the authority that signs clients, as PEM"
            f" ({error.reason or error})"
        ) from None
    if not context.cert_store_stats()["x509_ca"]:
        raise ValueError(
            f"{file} has no certificate of an authority (CA:TRUE): it needs the one that signs the clients'"
            " certificates, not a certificate of a client or server"
        )


def load_revoked(context: ssl.SSLContext, file: Path) -> None:
    """Refuse certificates that a list in `file` revokes. Raises ValueError that says what the file must have.

    A list that has expired refuses every certificate of its authority.
    """
    with suppress(ssl.SSLError):
        context.load_verify_locations(file)
    if not context.cert_store_stats()["crl"]:
        raise ValueError(f"{file} must have a certificate revocation list of the authority, as PEM")
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Show the certificate in `context`. Raises ValueError that says which file to replace, and by what."""
    try:
        context.load_cert_chain(certificate, key, password=_refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"{key} is not the key of the certificate in {certificate}") from None
        raise ValueError(
            f"{certificate} must have the certificate and its chain, {key} its key, both as PEM"
            f" ({error.reason or error})"
        ) from None


def check_pair(certificate: Path, key: Path) -> None:
    """Raise ValueError if the files are not a certificate and its key."""
    load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate, key)


@cache
def client_context() -> ssl.SSLContext:
    """Return the context for servers that the system's certificates vouch for, made at the first call.

    Loading the certificates takes 20 ms and 1 MB: not in an event loop, and once for a process.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


@contextmanager
def without_certificates() -> Iterator[None]:
    """Create contexts without the system's certificates while an import runs; such a context trusts nobody.

    aiohttp creates two default contexts when it is imported, and loads the certificates for each: 40 ms of
    the start and 2 MB, for nothing, because every connector here gets a context of its own.
    """
    ssl.SSLContext.set_default_verify_paths = _load_nothing  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del ssl.SSLContext.set_default_verify_paths  # the method of the base class is found again


def _load_nothing(_context: ssl.SSLContext) -> None:
    pass


def renew(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Use a new pair for new connections. Raises ValueError as `server_context`; the old pair then stays."""
    new = server_context(certificate, key)

    def use(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = new

    # `context.load_cert_chain` would for a moment combine the new certificate with the old key.
    context.sni_callback = use


def _refuse() -> NoReturn:
    """Refuse a passphrase, for which OpenSSL would otherwise ask on the terminal."""
    raise ValueError("has a passphrase: store the key without one, readable for the mirror's user only")

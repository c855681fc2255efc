"""TLS of the listener: a certificate and its key become what connections are answered with."""

import ssl
from pathlib import Path
from typing import NoReturn


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 and newer, HTTP/1.1. Raises ValueError that says which file to replace, and by what."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"{key} is not the key of the certificate in {certificate}") from None
        raise ValueError(
            f"{certificate} must have the certificate and those it was signed by, {key} its key, both as PEM"
            f" ({error.reason or error})"
        ) from None
    return context


def renew(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Answer new connections with these. As `server_context`, and the old ones stay if these are refused."""
    new = server_context(certificate, key)

    def use(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = new

    # Loaded into the context itself, they would for a moment be a new certificate with an old key.
    context.sni_callback = use


def _refuse() -> NoReturn:
    """Instead of OpenSSL's question on the terminal."""
    raise ValueError("has a passphrase: store the key without one, readable for the mirror's user only")

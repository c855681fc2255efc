"""TLS contexts of the listener, made from a certificate and its key."""

import ssl
from pathlib import Path
from typing import NoReturn


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a context for TLS 1.2 and newer and HTTP/1.1.

    Raises ValueError with a message that says which file to replace, and by what.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"{key} is not the key of the certificate in {certificate}") from None
        raise ValueError(
            f"{certificate} must have the certificate and its chain, {key} its key, both as PEM"
            f" ({error.reason or error})"
        ) from None
    return context


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

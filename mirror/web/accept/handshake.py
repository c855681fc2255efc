"""TLS handshakes that fail: the client gets the alert, and the operator a line with address and reason.

asyncio says nothing of such a handshake, and asyncio of Python 3.11 drops the alert: the client would see a
connection that ends without a reason.
"""

import ssl
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Self

from mirror.system.admission import ClientSocket
from mirror.util.log import get_logger

log = get_logger(__name__)

# The connection whose TLS object is made in this context.
CONNECTION: ContextVar[ClientSocket] = ContextVar("connection")

# OpenSSL's numbers of what is wrong with a certificate, in words; other numbers have OpenSSL's words.
NO_AUTHORITY = "no authority in server.client_ca has signed it"
REASONS = {
    9: "it is not valid yet",
    10: "it has expired",
    12: "the revocation list in server.client_crl has expired",
    18: NO_AUTHORITY,
    19: NO_AUTHORITY,
    20: NO_AUTHORITY,
    21: NO_AUTHORITY,
    23: "it is revoked",
    26: "it is not for clients (extended key usage)",
}
MISSING = "PEER_DID_NOT_RETURN_A_CERTIFICATE"


class AlertingObject(ssl.SSLObject):
    """TLS object of a connection, which sends the alert of a handshake that failed."""

    _outgoing: ssl.MemoryBIO
    _connection: ClientSocket | None

    @classmethod
    def _create(cls, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **options: Any) -> Self:
        made: Self = super()._create(incoming, outgoing, *args, **options)  # type: ignore[misc]
        made._outgoing, made._connection = outgoing, CONNECTION.get(None)
        return made

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            if self._connection is not None:
                with suppress(OSError):
                    self._connection.send(self._outgoing.read())
            raise


def refusal(error: Exception) -> str | None:
    """Return why the client's certificate was refused; None if the handshake failed for something else."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return REASONS.get(error.verify_code, error.verify_message)
    if isinstance(error, ssl.SSLError) and getattr(error, "reason", None) == MISSING:
        return "none was shown, and server.client_certificates requires one"
    if isinstance(error, UnicodeDecodeError):
        return "a name in it is no text"
    return None


def report(error: Exception, client: str) -> bool:
    """Log a handshake that failed; return whether it was for the client's certificate."""
    reason = refusal(error)
    if reason is not None:
        log.warning("client certificate refused", client=client, reason=reason)
    else:
        log.debug("TLS handshake failed", client=client, reason=getattr(error, "reason", None) or str(error))
    return reason is not None

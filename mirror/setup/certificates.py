"""The CA of a certificate's file, for clients that do not know it."""

import re
import ssl
from pathlib import Path

from mirror.setup.plan import SetupError

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\n.+?\n-----END CERTIFICATE-----\n?", re.DOTALL)


def read_ca(path: Path) -> str:
    """Return the certificates of a file, as PEM and without anything else. Raises SetupError."""
    try:
        text = path.read_text(errors="replace").replace("\r\n", "\n")
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}") from None
    found = CERTIFICATE.findall(text)
    if not found:
        raise SetupError(f"{path} has no certificate in PEM")
    return "".join(each if each.endswith("\n") else f"{each}\n" for each in found)


def root_of(path: Path) -> str | None:
    """Return the root among the certificates of a server's file, as PEM; None if the file has none."""
    certificates: list[str] = CERTIFICATE.findall(read_ca(path))
    for each in certificates:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cadata=each)
        except ssl.SSLError:
            continue
        if any(found["subject"] == found["issuer"] for found in context.get_ca_certs()):
            return each
    return None

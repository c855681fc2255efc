"""The names in a client's certificate, as principals: `cert:` its common name, `san:` each alternative name.

TLS has verified the certificate; its text is still whatever the authority has signed. A name is escaped as in
URLs (`Alice%20B`, `J%C3%BCrgen`), letter by letter reversible: no text of one name reads as two names, as a
pattern of a rule, or as another certificate's name. The kinds of alternative names cannot stand for each
other: only a URI has a colon, only an email address has an @.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from ssl import cert_time_to_seconds
from typing import Any
from urllib.parse import quote

# The most names that are taken of a certificate, and the longest, escaped.
MOST_NAMES, NAME_LENGTH = 32, 255

# Characters besides letters, digits and "_.-~" that need no escape.
PLAIN = "@:/+="

DNS_NAME = re.compile(r"[^@:/\s]+")
EMAIL = re.compile(r"([^@:/\s]+)@([^@:/\s]+)")
URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")


class CertificateRefused(ValueError):
    """A certificate whose names cannot be told. The message says why."""


def certificate_names(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the sorted principals of a verified certificate, as `SSLSocket.getpeercert` describes it.

    Raises CertificateRefused for one that has no certain name: a rule might deny what is left out here.
    """
    alternatives = list(_alternatives(certificate.get("subjectAltName", ())))
    common = [
        value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"
    ]
    if len(common) > 1:
        raise CertificateRefused("it has more than one common name")
    if len(alternatives) > MOST_NAMES:
        raise CertificateRefused(f"it has more than {MOST_NAMES} alternative names")
    names = {f"cert:{escape(each)}" for each in common if each}
    return tuple(sorted(names | {f"san:{escape(each)}" for each in alternatives}))


def seconds_left(certificate: Mapping[str, Any], now: float | None = None) -> float:
    """Return the seconds until the certificate expires, by the clock or by the given time.

    Raises CertificateRefused if it has expired: TLS may resume a session of a client that was valid once.
    """
    seconds = cert_time_to_seconds(certificate["notAfter"]) - (time.time() if now is None else now)
    if seconds <= 0:
        raise CertificateRefused("it has expired")
    return seconds


def escape(text: str) -> str:
    """Return a name as it is written in rules. Raises CertificateRefused if it is too long."""
    escaped = quote(text, safe=PLAIN)
    if len(escaped) > NAME_LENGTH:
        raise CertificateRefused(f"a name in it is longer than {NAME_LENGTH} characters")
    return escaped


def _alternatives(names: Sequence[tuple[str, str]]) -> Iterator[str]:
    for kind, value in names:
        if kind == "DNS":
            yield _checked(DNS_NAME, "DNS name", value).lower()
        elif kind == "email":
            user, _, domain = _checked(EMAIL, "email address", value).rpartition("@")
            yield f"{user}@{domain.lower()}"
        elif kind == "URI":
            yield _checked(URI, "URI", value)


def _checked(form: re.Pattern[str], kind: str, value: str) -> str:
    if form.fullmatch(value) is None:
        raise CertificateRefused(f"a {kind} in it is none")
    return value

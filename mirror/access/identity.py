"""Identities of clients: the address that a request came from, and the principals that credentials prove.

A principal is a text with its kind in front:

    user:alice                    a user who logged in
    token:ci-runner               a token of this mirror, by its name
    cert:build1.lan               the common name of a client certificate
    san:build1.lan                a name or address that the certificate was issued for
    jwt:gitlab:project:7          a token of an issuer, by the issuer's name here and the subject
    jwt:gitlab:ref=main           a claim of such a token
    group:dev                     a group of the configuration that one of the others is in
"""

from collections.abc import Iterable

from msgspec import Struct

# Kinds of principals.
KINDS = ("user", "group", "token", "cert", "san", "jwt")


class Identity(Struct, frozen=True):
    """A client as the rules see it.

    `address`: by the word of trusted proxies; "" if the connection has none. `names`: verified principals,
    sorted, each once; none for nobody.
    """

    address: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{', '.join(self.names)} at {self.address}" if self.names else self.address

    def also(self, names: Iterable[str]) -> "Identity":
        """Return the identity with further principals."""
        return Identity(self.address, tuple(sorted({*self.names, *names})))

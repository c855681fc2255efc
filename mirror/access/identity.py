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

from mirror.access.patterns import matches
from mirror.access.rules import Action
from mirror.oci.reference import Repository

# Kinds of principals.
KINDS = ("user", "group", "token", "cert", "san", "jwt")


class Restriction(Struct, frozen=True):
    """Restrictions of credentials beyond the rules, of a token for instance. `owner`: its principal.

    An empty list restricts nothing.
    """

    owner: str
    repositories: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ()

    def permits(self, action: Action, repository: Repository) -> bool:
        """Return whether this restriction leaves the decision to the rules."""
        if self.actions and action not in self.actions:
            return False
        return not self.repositories or matches(str(repository), self.repositories)

    def covers(self, action: Action) -> bool:
        """Return whether this restriction leaves an action open for all repositories."""
        return not self.repositories and (not self.actions or action in self.actions)


class Identity(Struct, frozen=True):
    """A client as the rules see it.

    `address`: by the word of trusted proxies; "" if the connection has none. `names`: verified principals,
    sorted, each once; none for nobody. `restrictions`: all of them restrict the client.
    """

    address: str
    names: tuple[str, ...] = ()
    restrictions: tuple[Restriction, ...] = ()

    def __str__(self) -> str:
        return f"{', '.join(self.names)} at {self.address}" if self.names else self.address

    def also(self, names: Iterable[str]) -> "Identity":
        """Return the identity with further principals."""
        return Identity(self.address, tuple(sorted({*self.names, *names})), self.restrictions)

    def within(self, restrictions: Iterable[Restriction]) -> "Identity":
        """Return the identity with further restrictions."""
        return Identity(self.address, self.names, tuple(dict.fromkeys((*self.restrictions, *restrictions))))

    def forbidden_by(self, action: Action, repository: Repository) -> Restriction | None:
        """Return the restriction that forbids something, whatever the rules say; None if there is none."""
        return next((each for each in self.restrictions if not each.permits(action, repository)), None)

"""Credentials of one account, and what a source of them answers."""

import base64
import math
import re
from typing import Protocol

from msgspec import Struct

# Longest name and secret, in characters. Tokens of ECR have 2,500, those of other clouds up to 10,000.
MOST_CHARACTERS = 64 * 1024

CONTROL = re.compile(r"[\x00-\x1f\x7f]")

# Surrogates, which JSON can have one by one, and UTF-8 cannot.
HALF = re.compile(r"[\ud800-\udfff]")


class CredentialError(Exception):
    """A source gives no answer. The message has the reason and the remedy, and no secret."""


class Credential(Struct, frozen=True):
    """User and password. `place`: where the source has it, in words.

    `identity`: the secret is an identity token, which a token server takes by POST, and no server as Basic.
    """

    username: str
    secret: str
    identity: bool = False
    place: str = ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.username!r})"

    @property
    def basic(self) -> str | None:
        """The Basic header; None for an identity token."""
        if self.identity:
            return None
        return "Basic " + base64.b64encode(f"{self.username}:{self.secret}".encode()).decode()

    def same_login(self, other: "Credential | None") -> bool:
        """Return whether a registry sees no difference between the two."""
        return other is not None and (self.username, self.secret, self.identity) == (
            other.username,
            other.secret,
            other.identity,
        )


class Answer(Struct, frozen=True):
    """Answer of a source: credentials, or None if the source has none for this registry.

    `fresh`: seconds for which the answer is used before the source is asked again. `lifetime`: seconds after
    which the credentials end. `note`: what an operator should know about it; "" for nothing. `doubtful`: none
    were found, and a failure would look the same.
    """

    credential: Credential | None
    fresh: float = math.inf
    lifetime: float = math.inf
    note: str = ""
    doubtful: bool = False


class LoginSource(Protocol):
    """A place that has the credentials of one account."""

    @property
    def name(self) -> str:
        """The name of the account, for metrics: it never changes."""

    @property
    def label(self) -> str:
        """The place in words: "password_file /etc/x"."""

    @property
    def advice(self) -> str:
        """The options to check if a registry refuses the credentials: "username and password_file"."""

    @property
    def initial(self) -> Answer | None:
        """The answer that is here without asking; None if there is none."""

    async def fetch(self) -> Answer:
        """Ask the place. Raises CredentialError."""


def place_of(source: LoginSource, credential: Credential) -> str:
    """Return where credentials come from, in words."""
    if credential.place.startswith(source.label):
        return credential.place
    return ", ".join(filter(None, [source.label, credential.place]))


def checked(username: str, secret: str, *, identity: bool = False, place: str = "") -> Credential:
    """Return credentials that a header can carry. Raises ValueError, which repeats no part of them."""
    if max(len(username), len(secret)) > MOST_CHARACTERS:
        raise ValueError("a name or password is too long")
    # The key of a Google service account is a password of many lines.
    if CONTROL.search(username) or "\0" in secret:
        raise ValueError("a name has a control character in it, or a password a zero byte")
    if HALF.search(username) or HALF.search(secret):
        raise ValueError("a name or password has half of a character in it, which no header can carry")
    if not identity and ":" in username:
        raise ValueError("a username has a colon in it, which no username has")
    if not secret:
        raise ValueError("a password is empty")
    return Credential(username, secret, identity, place)

"""Secret paths: a token of this mirror in front of the API, for clients that can send nothing else.

    http://mirror.lan:5000/t/rmt_.../        in dockerd's registry-mirrors, of version 25 and later
    mirror.lan:5000/t/rmt_.../docker.io      in Podman's registries.conf; asked: /v2/t/rmt_.../docker.io/...

What is behind the secret is a path as without one. A secret is never shown: not in the access line, not in an
error, not to an upstream.
"""

import re
from urllib.parse import unquote

from msgspec import Struct

from mirror.access.tokens import PREFIX, has_secret, redacted

API = "/v2"

# A secret in front of the API, whatever it is: `/t/v2/` is the prefix of an upstream called t.
LEADING = re.compile(r"/t/(?!v2(?:/|$))([^/]+)")

# A secret behind the root of the API, where a repository's name may begin with `t/` too.
INSIDE = re.compile(rf"/v2/t/({PREFIX}[^/]*)")

# What is shown of a secret, even of one that is no token.
HIDDEN = re.compile(r"(?<=/t/)(?!v2(?:/|$))[^/]+")


class SecretPath(Struct, frozen=True):
    """A path with a secret in it: `secret`, `prefix` as it is in the path, and the path that is meant."""

    secret: str
    prefix: str
    rest: str

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def secret_path(path: str) -> SecretPath | None:
    """Return the parts of an undecoded path; None if there is no secret in it."""
    if found := LEADING.match(path):
        return SecretPath(found[1], found[0], path[found.end() :])
    if found := INSIDE.match(path):
        return SecretPath(found[1], found[0], without_secret(path, found[0]))
    return None


def without_secret(path: str, prefix: str) -> str:
    """Return the path that is meant, without the prefix of a secret path; "" for none."""
    return path if not prefix else (API if prefix.startswith(API) else "") + path.removeprefix(prefix)


def misplaced_secret(path: str) -> bool:
    """Return whether a token stands in a path where no token is taken: it would be asked of an upstream."""
    return has_secret(unquote(path) if "%" in path else path)


def shown_path(path: str) -> str:
    """Return a path for the log, without the secrets that are in it, percent-encoded ones too."""
    decoded = unquote(path) if "%" in path else path
    hidden = redacted(HIDDEN.sub("...", decoded))
    return path if hidden == decoded else hidden

"""Access to a fake registry: token server and checks, Bearer and Basic."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

from tests.fakes.faults import oci_error
from tests.fakes.site import Seen


@dataclass(slots=True)
class TokenAuth:
    """Bearer tokens.

    `realm` is where the challenge sends clients; empty means `/token` of the registry itself. A client
    without credentials gets a token for everything outside `private`. `issued` maps valid tokens to their
    scope: clear it and all tokens have expired. `users` are further users, `owners` maps tokens to users. No
    user has access to repositories in `denied`.
    """

    realm: str = ""
    service: str = "fake"
    user: str | None = None
    password: str = ""
    private: set[str] = field(default_factory=set)
    scope: str | None = None
    answer: Mapping[str, object] = field(default_factory=lambda: {"expires_in": 300})
    key: str = "token"
    issued: dict[str, str] = field(default_factory=dict)
    count: int = 0
    users: dict[str, str] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)
    owners: dict[str, str] = field(default_factory=dict)
    granted_answer: tuple[int, bytes] | None = None  # of the registry to a client with a valid token
    rejection: int = 401  # the registry's status for an expired token
    identity_tokens: dict[str, str] = field(default_factory=dict)  # token -> user, by POST
    # By repository, who may read it; a user who may not gets a token for nothing, as from Docker Hub.
    readers: dict[str, set[str]] = field(default_factory=dict)

    def owner(self, header: str | None) -> str:
        """Return the user whose token an Authorization header has; empty for an anonymous token or none."""
        return self.owners.get((header or "").partition(" ")[2], "")

    def challenges(self, url: str, repository: str) -> list[str]:
        scope = self.scope or f"repository:{repository}:pull"
        return [f'Bearer realm="{self.realm or url + "/token"}",service="{self.service}",scope="{scope}"']

    def allows(self, header: str | None, repository: str) -> bool:
        scheme, _, token = (header or "").partition(" ")
        granted = self.issued.get(token) == f"repository:{repository}:pull"
        return scheme == "Bearer" and granted and repository not in self.denied

    async def token(self, request: web.BaseRequest, seen: Seen) -> web.Response:
        """Answer as the token server. Can be the handler of a `Site` of its own."""
        scope = request.rel_url.query.get("scope", "")
        login = basic_login(request.headers.get("Authorization"))
        if request.method == "POST":
            form = await request.post()
            scope, user = str(form.get("scope", "")), self.identity_tokens.get(str(form.get("refresh_token")))
            if form.get("grant_type") != "refresh_token" or user is None:
                return web.Response(status=401, body=oci_error("UNAUTHORIZED", "invalid refresh token"))
            login = (user, "")
        elif login is not None and login not in {(self.user, self.password), *self.users.items()}:
            return web.Response(status=401, body=oci_error("UNAUTHORIZED", "incorrect username or password"))
        if login is None and scope.split(":")[1:2] and scope.split(":")[1] in self.private:
            return web.Response(status=403, body=oci_error("DENIED", "requested access is denied"))
        self.count += 1
        token = f"token-{self.count}"
        readers = self.readers.get(scope.split(":")[1]) if scope.split(":")[1:2] else None
        self.issued[token] = scope if readers is None or (login and login[0] in readers) else ""
        self.owners[token] = login[0] if login is not None else ""
        body = json.dumps({self.key: token, **self.answer}).encode()
        return web.Response(body=body, headers={"Content-Type": "application/json"})


@dataclass(slots=True)
class BasicAuth:
    """User and password with every request, as ECR and many Nexus servers want it.

    For a repository in `denied` the answer is 401 although the password is right.
    """

    user: str
    password: str
    denied: set[str] = field(default_factory=set)

    def challenges(self, url: str, repository: str) -> list[str]:
        return ['Basic realm="fake"']

    def allows(self, header: str | None, repository: str) -> bool:
        return basic_login(header) == (self.user, self.password) and repository not in self.denied


def basic_login(header: str | None) -> tuple[str, str] | None:
    """Return user and password of an Authorization header; None if it is not Basic."""
    scheme, _, value = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return ("", "")
    return (user, password)

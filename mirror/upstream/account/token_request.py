"""Requests for a token: GET, with user and password or without; POST with an identity token.

The POST is the OAuth2 flow of the Distribution token specification, as docker does it for an `identitytoken`.
"""

from collections.abc import Callable
from urllib.parse import urlencode

from msgspec import Struct
from yarl import URL

from mirror.credentials.credential import Credential
from mirror.upstream.account.realms import Realms
from mirror.upstream.http.follow import get_following
from mirror.upstream.http.transport import Response, Transport

CLIENT_ID = "registry-mirror"


class TokenRequest(Struct, frozen=True):
    """Scope and service of a token, and the URL of its server."""

    realm: URL
    service: str
    scope: str


async def ask(
    transport: Transport,
    realms: Realms,
    request: TokenRequest,
    login: Credential | None,
    is_trusted: Callable[[URL], bool],
) -> tuple[Response, bool]:
    """Return the token server's answer, and whether it got the login. Raises UpstreamError."""
    headers = {"Accept": "application/json"}
    service = {"service": request.service} if request.service else {}
    if login is not None and login.identity and is_trusted(request.realm):
        form = {
            "grant_type": "refresh_token",
            **service,
            "client_id": CLIENT_ID,
            "scope": request.scope,
            "refresh_token": login.secret,
        }
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        # No redirect is followed: it would take the identity token along.
        return await transport.post(request.realm, headers, urlencode(form).encode()), True
    scopes = [("scope", each) for each in request.scope.split(" ")]
    url = request.realm.extend_query([*service.items(), *scopes])
    basic = login.basic if login is not None else None
    return await get_following(transport, realms.rules(request.realm), url, headers, basic, is_trusted)

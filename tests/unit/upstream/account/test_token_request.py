"""Requests for tokens: by GET with a password, by POST with an identity token."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from yarl import URL

from mirror.credentials.credential import Credential
from mirror.metrics.metrics import Metrics
from mirror.upstream.account.realms import Realms, trust_nobody
from mirror.upstream.account.token_request import TokenRequest, ask
from mirror.upstream.http.transport import Transport
from tests.fakes.access import basic_login
from tests.fakes.site import Seen, Site
from tests.fakes.upstream import settings


class TokenSite:
    """A token server that notes forms, and answers with `status` and `headers`."""

    def __init__(self) -> None:
        self.forms: list[dict[str, str]] = []
        self.status, self.headers = 200, dict[str, str]()
        self.site = Site(self._answer)

    async def _answer(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        self.forms.append({key: str(value) for key, value in (await request.post()).items()})
        return web.Response(status=self.status, headers=self.headers, body=b"{}")

    async def ask(self, login: Credential | None, *, trusted: bool = True) -> tuple[int, bool]:
        transport = Transport(settings(self.site.url), Metrics())
        try:
            realms = Realms(transport, ())
            request = TokenRequest(URL(f"{self.site.url}/token"), "fake", "repository:org/a:pull")
            trust = realms.trusts if trusted else trust_nobody
            response, sent = await ask(transport, realms, request, login, trust)
            response.close()
            return response.status, sent
        finally:
            await transport.close()


@pytest.fixture
async def server() -> AsyncIterator[TokenSite]:
    server = TokenSite()
    async with server.site:
        yield server


async def test_token_request_with_a_password(server: TokenSite) -> None:
    """The password goes as Basic, service and scope as the query."""
    assert await server.ask(Credential("me", "geheim")) == (200, True)
    (seen,) = server.site.log
    assert (seen.method, seen.query) == ("GET", "service=fake&scope=repository:org/a:pull")
    assert basic_login(seen.headers["Authorization"]) == ("me", "geheim")


async def test_token_request_without_an_account(server: TokenSite) -> None:
    """The target of a redirect gets no login either, whatever the account has."""
    assert await server.ask(None) == (200, False)
    for login in (Credential("me", "geheim"), Credential("me", "geheim", identity=True)):
        assert await server.ask(login, trusted=False) == (200, False)
    assert [(seen.method, "Authorization" in seen.headers) for seen in server.site.log] == [
        ("GET", False)
    ] * 3


async def test_token_request_with_an_identity_token(server: TokenSite) -> None:
    """The form is docker's; the token is in no URL."""
    assert await server.ask(Credential("<token>", "geheim&x=y", identity=True)) == (200, True)
    (seen,) = server.site.log
    assert (seen.method, seen.path, seen.query) == ("POST", "/token", "")
    assert "Authorization" not in seen.headers
    assert server.forms == [
        {
            "grant_type": "refresh_token",
            "service": "fake",
            "client_id": "registry-mirror",
            "scope": "repository:org/a:pull",
            "refresh_token": "geheim&x=y",
        }
    ]


async def test_identity_token_follows_no_redirect(server: TokenSite) -> None:
    """Neither to another host nor to another path."""
    async with TokenSite().site as other:
        server.status, server.headers = 307, {"Location": f"{other.url}/token"}
        assert await server.ask(Credential("me", "geheim", identity=True)) == (307, True)
        assert other.log == []

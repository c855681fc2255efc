"""Redirects of token servers: followed as others are, and the password goes to trusted origins only."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mirror.oci.reference import Tag
from mirror.upstream.errors import Failure, UpstreamError
from tests.fakes.access import TokenAuth, basic_login
from tests.fakes.registry import FakeRegistry
from tests.fakes.site import Handler, Seen, Site
from tests.fakes.tls import Authority
from tests.fakes.upstream import registry_at

LOGIN: dict[str, Any] = {"username": "me", "password": "geheim"}
LATEST = Tag("latest")


def moved(location: str, status: int = 307) -> Handler:
    """Answer every request with a redirect; `{query}` stands for the request's query."""

    async def answer(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": location.format(query=seen.query)})

    return answer


def guarded(fake: FakeRegistry, **values: Any) -> TokenAuth:
    fake.add_image("org/a", "latest", [b"x"])
    fake.auth = auth = TokenAuth(**values)
    return auth


def logins(site: Site) -> list[tuple[str, str] | None]:
    return [basic_login(seen.headers.get("Authorization")) for seen in site.log]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_token_server_that_redirects(status: int) -> None:
    """Each kind of redirect is followed by a GET, with scope and service as the Location has them."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        auth = guarded(fake)
        async with (
            Site(auth.token) as real,
            Site(moved(f"{real.url}/v2/token?{{query}}", status)) as first,
        ):
            auth.realm = f"{first.url}/token"
            await registry.get_manifest("org/a", LATEST)
            assert [seen.method for seen in (*first.log, *real.log)] == ["GET", "GET"]
            assert real.log[0].query == "service=fake&scope=repository:org/a:pull"


async def test_password_follows_within_its_origins() -> None:
    """The password goes from one path of a realm to another, and to another origin of `realms`."""
    async with FakeRegistry() as fake:
        auth = guarded(fake, user="me", password="geheim", private={"org/a"})
        async with Site(auth.token) as real, Site(moved(f"{real.url}/x?{{query}}")) as first:
            auth.realm = f"{first.url}/token"
            realms = (first.url, real.url)
            async with registry_at(fake.url, realms=realms, **LOGIN) as registry:
                await registry.get_manifest("org/a", LATEST)
            assert logins(first) + logins(real) == [("me", "geheim"), ("me", "geheim")]


async def test_password_stays_behind_at_another_origin() -> None:
    """The target is asked without it, and its refusal is none of the password (invariant 6)."""
    async with FakeRegistry() as fake:
        auth = guarded(fake, user="me", password="geheim", private={"org/a"})
        async with Site(auth.token) as real, Site(moved(f"{real.url}/x?{{query}}")) as first:
            auth.realm = f"{first.url}/token"
            async with registry_at(fake.url, realms=(first.url,), **LOGIN) as registry:
                with pytest.raises(UpstreamError, match="origins in realms") as raised:
                    await registry.get_manifest("org/a", LATEST)
                assert raised.value.failure is Failure.DENIED
                assert not any(account.auth.password_refused for account in registry.accounts.all)
            assert logins(first) == [("me", "geheim")]
            assert logins(real) == [None]


async def test_password_does_not_return_from_another_origin() -> None:
    """A server outside that sends back to the realm chooses the request: it gets no password."""
    async with FakeRegistry() as fake:
        auth = guarded(fake, user="me", password="geheim")
        async with Site(auth.token) as realm, Site(moved(f"{realm.url}/back?{{query}}")) as outside:
            realm_handler = moved(f"{outside.url}/x?{{query}}")

            async def first_away(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
                away = seen.path == "/token"
                return await (realm_handler if away else auth.token)(request, seen)

            realm._handler = first_away
            auth.realm = f"{realm.url}/token"
            async with registry_at(fake.url, realms=(realm.url,), **LOGIN) as registry:
                await registry.get_manifest("org/a", LATEST)
            assert logins(realm) == [("me", "geheim"), None]
            assert logins(outside) == [None]


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("ftp://x/y", "not an http"),
        ("/token?{query}", "circle"),
        ("http://[::1", "not a URL"),
        ("http://me:geheim@127.0.0.1:1/", "did not answer|refused"),
    ],
)
async def test_redirect_of_a_token_server_that_is_refused(location: str, words: str) -> None:
    """The same rules as for other redirects, and nothing secret in the message."""
    async with FakeRegistry() as fake, Site(moved(location)) as site, registry_at(fake.url) as registry:
        guarded(fake).realm = f"{site.url}/token"
        with pytest.raises(UpstreamError, match=f"(?i){words}") as raised:
            await registry.get_manifest("org/a", LATEST)
        assert "geheim" not in str(raised.value)


async def test_redirects_of_a_token_server_end() -> None:
    """A chain without an end is given up."""

    async def further(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": f"/{len(site.log)}?{seen.query}"})

    async with FakeRegistry() as fake, Site(further) as site, registry_at(fake.url) as registry:
        guarded(fake).realm = f"{site.url}/token"
        with pytest.raises(UpstreamError, match="more than"):
            await registry.get_manifest("org/a", LATEST)
        assert len(site.log) < 10


async def test_token_server_over_https_does_not_lead_to_http(tmp_path: Path) -> None:
    """Neither anonymously: a token that travels in the clear can be read."""
    authority = await asyncio.to_thread(Authority, tmp_path)
    async with FakeRegistry(tls=authority.server_context()) as fake:
        auth = guarded(fake)
        async with Site(auth.token) as plain:
            async with Site(moved(f"{plain.url}/?{{query}}"), authority.server_context()) as site:
                auth.realm = f"{site.url}/token"
                async with registry_at(fake.url, ca_file=authority.ca_file) as registry:
                    with pytest.raises(UpstreamError, match="leaves https"):
                        await registry.get_manifest("org/a", LATEST)
            assert plain.log == []


async def test_login_page_behind_a_token_server() -> None:
    """A redirect to a page for browsers brings no token."""

    async def page(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        return web.Response(text="<html>log in</html>", content_type="text/html")

    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        auth = guarded(fake)
        async with Site(page) as login, Site(moved(f"{login.url}/")) as site:
            auth.realm = f"{site.url}/token"
            with pytest.raises(UpstreamError, match="holds no token"):
                await registry.get_manifest("org/a", LATEST)

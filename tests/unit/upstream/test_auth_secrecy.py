"""Secrecy of tokens and passwords: which hosts get them (invariant 6)."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mirror.metrics.metrics import Metrics
from mirror.oci.challenge import Challenge
from mirror.oci.reference import Tag
from mirror.upstream.auth import AuthDemand, Authorizer
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http.transport import Transport
from tests.fakes.access import BasicAuth, TokenAuth, basic_login
from tests.fakes.faults import Fault, oci_error
from tests.fakes.registry import FakeRegistry
from tests.fakes.site import Seen, Site
from tests.fakes.tls import Authority
from tests.fakes.upstream import FakeTime, registry_at, settings

LOGIN: dict[str, Any] = {"username": "me", "password": "geheim"}
LATEST = Tag("latest")


def guarded(fake: FakeRegistry, **values: Any) -> TokenAuth:
    """Turn token authentication on, with two repositories behind it."""
    for name in ("org/a", "org/b"):
        fake.add_image(name, "latest", [b"layer of " + name.encode()])
    fake.auth = auth = TokenAuth(**values)
    return auth


def tokens(fake: FakeRegistry) -> list[Seen]:
    return [seen for seen in fake.log if seen.path == "/token"]


def logins(log: list[Seen]) -> list[tuple[str, str] | None]:
    return [basic_login(seen.headers.get("Authorization")) for seen in log]


async def test_realm_on_another_origin_is_asked_anonymously() -> None:
    """A realm on an origin that the configuration does not name gets no password (invariant 6)."""
    async with FakeRegistry() as fake:
        auth = guarded(fake, user="me", password="geheim")
        async with Site(auth.token) as site, registry_at(fake.url, **LOGIN) as registry:
            auth.realm = f"{site.url}/token"
            await registry.head_manifest("org/a", LATEST)
            assert logins(site.log) == [None]
            assert logins(fake.log) == [None, None]


async def test_realm_in_the_configuration_gets_the_password() -> None:
    """A realm whose origin is in `realms` gets user and password."""
    async with FakeRegistry() as fake:
        auth = guarded(fake, user="me", password="geheim", private={"org/a"})
        async with Site(auth.token) as site:
            auth.realm = f"{site.url}/token"
            async with registry_at(fake.url, realms=(site.url,), **LOGIN) as registry:
                await registry.head_manifest("org/a", LATEST)
            assert logins(site.log) == [("me", "geheim")]


async def test_realm_without_password_that_refuses_says_why() -> None:
    """A refusal of a realm that gets no password says what would change that."""
    async with FakeRegistry() as fake:
        auth = guarded(fake, user="me", password="geheim", private={"org/a"})
        async with Site(auth.token) as site, registry_at(fake.url, **LOGIN) as registry:
            auth.realm = f"{site.url}/token"
            with pytest.raises(UpstreamError, match="origins in realms") as raised:
                await registry.head_manifest("org/a", LATEST)
            assert raised.value.failure is Failure.DENIED


async def test_realm_over_http_of_an_https_upstream_is_refused(tmp_path: Path) -> None:
    """A token server over http is not asked for an upstream over https, even if it is in `realms`."""
    authority = await asyncio.to_thread(Authority, tmp_path)
    async with FakeRegistry(tls=authority.server_context()) as fake:
        auth = guarded(fake)
        async with Site(auth.token) as site:
            auth.realm = f"{site.url}/token"
            values: dict[str, Any] = {"ca_file": authority.ca_file, "realms": (site.url,)}
            async with registry_at(fake.url, **values) as registry:
                with pytest.raises(UpstreamError, match="leaves https") as raised:
                    await registry.head_manifest("org/a", LATEST)
            assert raised.value.failure is Failure.DENIED
            assert site.log == []


@pytest.mark.parametrize(
    ("realm", "words"),
    [
        ("https://10.0.0.1/token", "private"),
        ("https://localhost/token", "private"),
        ("http://auth.test/token", "leaves https"),
        ("https://me:geheim@auth.test/token", "names a user"),
        ("/token", "not an http"),
        ("", "not an http"),
        ("https://auth.test:99999/", "not a URL"),
    ],
)
async def test_realm_that_is_refused(realm: str, words: str) -> None:
    """The network names the realm: private, plain, relative and malformed ones are refused."""
    configured = settings("https://registry.test")
    authorizer = Authorizer(configured, Transport(configured, Metrics()), FakeTime())
    demand = AuthDemand((Challenge("bearer", {"realm": realm}),), "org/a", own=True)
    with pytest.raises(UpstreamError, match=words) as raised:
        await authorizer.answer(demand)
    assert raised.value.failure is Failure.DENIED
    assert "geheim" not in str(raised.value)


async def test_password_that_is_echoed_is_masked() -> None:
    """An upstream that quotes the password in its error does not get it into our message."""
    async with FakeRegistry() as fake, registry_at(fake.url, **LOGIN) as registry:
        guarded(fake)
        fake.fault(Fault(status=403, body=oci_error("DENIED", "bad password geheim")), match="/token")
        with pytest.raises(UpstreamError, match=r"bad password \*\*\*"):
            await registry.head_manifest("org/a", LATEST)


async def test_credentials_do_not_follow_a_redirect() -> None:
    """Neither token nor password reaches the store that blobs are redirected to (invariant 6)."""
    for auth in (TokenAuth(user="me", password="geheim"), BasicAuth("me", "geheim")):
        async with FakeRegistry() as fake, registry_at(fake.url, **LOGIN) as registry:
            image = fake.add_image("org/a", "latest", [b"layer"])
            fake.auth, fake.cdn = auth, True
            async with registry.open_blob("org/a", image.layers[0]) as body:
                assert b"".join([piece async for piece in body.chunks()]) == b"layer"
            assert [seen.headers.get("Authorization") for seen in fake.cdn_log] == [None]
            assert fake.log[-1].headers.get("Authorization") is not None


async def test_credentials_do_not_follow_a_redirect_and_back() -> None:
    """A redirect that leaves the upstream and comes back gets no credentials either."""
    async with FakeRegistry() as fake, registry_at(fake.url, **LOGIN) as registry:
        image = fake.add_image("org/a", "latest", [b"layer"])
        fake.auth = BasicAuth("me", "geheim")
        back = f"{fake.url}/v2/org/a/blobs/{image.layers[0]}?back"

        async def bounce(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": back})

        async with Site(bounce) as site:
            fake.location = f"{site.url}/bounce"
            with pytest.raises(UpstreamError) as raised:
                await registry.head_blob("org/a", image.layers[0])
            assert raised.value.failure is Failure.DENIED
            assert [seen.query for seen in fake.log] == ["", "", "back"]
            assert logins([*fake.log, *site.log]) == [None, ("me", "geheim"), None, None]


async def test_password_is_not_sent_to_a_redirect_target() -> None:
    """A Basic challenge of a redirect's target is not answered, configured password or not."""

    async def store(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        return web.Response(status=401, headers={"WWW-Authenticate": "Basic realm=store"})

    async with FakeRegistry() as fake, Site(store) as site, registry_at(fake.url, **LOGIN) as registry:
        image = fake.add_image("org/a", "latest", [b"layer"])
        fake.location = f"{site.url}/x"
        with pytest.raises(UpstreamError, match="no password is sent to the target of a redirect") as raised:
            await registry.head_blob("org/a", image.layers[0])
        assert raised.value.failure is Failure.DENIED
        assert logins(site.log) == [None]


async def test_challenge_of_a_redirect_target_is_answered_anonymously() -> None:
    """A Bearer challenge of a redirect's target gets an anonymous token, even from a realm of ours."""
    async with FakeRegistry() as fake, FakeRegistry() as target, registry_at(fake.url, **LOGIN) as registry:
        image = target.add_image("org/other", "latest", [b"layer"])
        target.auth = TokenAuth(realm=f"{fake.url}/token")
        fake.auth = TokenAuth(user="me", password="geheim", issued=target.auth.issued)
        fake.add_image("org/a", "latest", [b"layer"])
        fake.location = f"{target.url}/v2/org/other/blobs/{image.layers[0]}"
        assert await registry.head_blob("org/a", image.layers[0]) == 5
        assert logins(tokens(fake)) == [("me", "geheim"), None]
        assert tokens(fake)[1].query.endswith("scope=repository:org/other:pull")
        assert len(target.log) == 2


async def test_secrets_are_in_no_log_and_no_repr(caplog: pytest.LogCaptureFixture) -> None:
    """Neither password nor token shows in logs, representations or errors, in failures too."""
    caplog.set_level(logging.DEBUG)
    async with FakeRegistry() as fake, registry_at(fake.url, attempts=1, **LOGIN) as registry:
        guarded(fake, user="me", password="geheim")
        await registry.head_manifest("org/a", LATEST)
        fake.fault(Fault(reset_at=0), times=9)
        with pytest.raises(UpstreamError) as raised:
            await registry.get_manifest("org/a", LATEST)
        demand = AuthDemand((), "org/a", own=True, rejected="Bearer token-1")
        shown = [caplog.text, str(raised.value), repr(raised.value), repr(registry), repr(demand)]
        shown += [repr(value) for value in vars(registry).values()]
    for text in shown:
        assert "geheim" not in text
        assert "token-1" not in text

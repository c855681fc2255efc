from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mirror.config.endpoints import UpstreamSettings
from mirror.metrics.metrics import Metrics
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.guests.guest_login import GuestLogin
from mirror.upstream.registry_client import RegistryClient
from mirror.upstream.rights.grant import Grant
from tests.fakes.access import BasicAuth, TokenAuth
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry

SECRET, OPEN = "org/secret", "org/open"


@asynccontextmanager
async def client_of(fake: FakeRegistry) -> AsyncIterator[RegistryClient]:
    settings = UpstreamSettings.model_validate(
        {
            "name": "quay.io",
            "url": fake.url,
            "attempts": 1,
            "username": "u",
            "password": "p",
            "private": "as-upstream",
        }
    )
    client = RegistryClient(settings, Metrics())
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture
async def fake() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        for repository in (SECRET, OPEN):
            fake.add_image(repository, "1", [b"layer"])
        fake.auth = TokenAuth(
            user="u", password="p", private={SECRET}, users={"me": "x"}, readers={SECRET: {"u"}}
        )
        yield fake


@pytest.mark.parametrize("reference", ["1", None])
async def test_grant_of_nobody(fake: FakeRegistry, reference: str | None) -> None:
    async with client_of(fake) as client:
        assert await client.grant(OPEN, reference, None) is Grant.GRANTED
        assert fake.requests("GET", "/manifests/") == 0  # which counts at Docker Hub
        assert await client.grant(SECRET, reference, None) is Grant.REFUSED


async def test_grant_of_a_client(fake: FakeRegistry) -> None:
    """The token server gives tokens to all users; the registry decides."""
    async with client_of(fake) as client:
        assert await client.grant(SECRET, "1", GuestLogin("u", "p")) is Grant.GRANTED
        assert await client.grant(SECRET, "1", GuestLogin("me", "x")) is Grant.REFUSED
        assert await client.grant(SECRET, "1", GuestLogin("me", "y")) is Grant.WRONG


async def test_wrong_password_is_sent_once(fake: FakeRegistry) -> None:
    async with client_of(fake) as client:
        before = fake.requests("GET", "/token")
        assert await client.grant(SECRET, "1", GuestLogin("me", "y")) is Grant.WRONG
        assert fake.requests("GET", "/token") == before + 1


async def test_grant_at_a_registry_with_basic_authentication(fake: FakeRegistry) -> None:
    fake.auth = BasicAuth("me", "x")
    async with client_of(fake) as client:
        assert await client.grant(OPEN, "1", None) is Grant.REFUSED
        assert await client.grant(OPEN, "1", GuestLogin("me", "x")) is Grant.GRANTED
        assert await client.grant(OPEN, "1", GuestLogin("me", "y")) is Grant.WRONG


async def test_missing_manifest_is_asked_about_by_the_list_of_tags(fake: FakeRegistry) -> None:
    async with client_of(fake) as client:
        assert await client.grant(OPEN, "none", None) is Grant.GRANTED
        fake.fault(Fault(status=404, body=b""), "tags/list", times=10)
        assert await client.grant(OPEN, "none", None) is Grant.ABSENT
        assert await client.grant("org/none", None, None) is Grant.ABSENT


async def test_head_that_fails_is_no_answer(fake: FakeRegistry) -> None:
    fake.head = False
    fake.fault(Fault(status=405), "tags/list", times=10)
    async with client_of(fake) as client:
        assert await client.grant(OPEN, "1", None) is Grant.GRANTED


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", b"<html"),
        ("text/plain", b"please log in"),
        ("application/json", b'{"login":"/here"}'),
        ("application/json", b"[]"),
        ("application/json", b""),
    ],
)
async def test_login_page_grants_nothing(fake: FakeRegistry, kind: str, body: bytes) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    for method, sent in (("HEAD", b""), ("GET", body)):
        fake.fault(Fault(raw=head.encode() + sent), f"/v2/{OPEN}/", method, times=10)
    async with client_of(fake) as client:
        assert await client.grant(OPEN, "1", None) is Grant.ABSENT


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_outage_is_no_answer(fake: FakeRegistry, status: int) -> None:
    fake.fault(Fault(status=status), times=10)
    async with client_of(fake) as client:
        with pytest.raises(UpstreamError) as raised:
            await client.grant(OPEN, "1", None)
        limited = status == 429
        assert raised.value.failure is (Failure.RATE_LIMITED if limited else Failure.SERVER_ERROR)
    # No pull is counted for nobody where none is left.
    assert fake.requests("GET", "/manifests/") == (0 if limited else 1)

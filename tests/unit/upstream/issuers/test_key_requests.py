"""Requests for an issuer's keys: discovery, bounds, and where they may lead."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mirror.access.jwt.keys import parse_key_set
from mirror.config.identities.issuers import IssuerSettings
from mirror.metrics.metrics import Metrics
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.issuers import key_requests
from mirror.upstream.issuers.key_requests import KEYS_BYTES, KeyRequests
from tests.fakes.issuer import AUDIENCE, FakeIssuer
from tests.fakes.tls import Authority


def settings(url: str, **values: Any) -> IssuerSettings:
    """An issuer at `url`."""
    return IssuerSettings.model_validate({"name": "ci", "issuer": url, "audience": [AUDIENCE], **values})


@asynccontextmanager
async def requests_to(url: str, **values: Any) -> AsyncIterator[KeyRequests]:
    """Requests, closed at the end."""
    requests = KeyRequests(await asyncio.to_thread(settings, url, **values), Metrics())
    yield requests
    await requests.close()


async def test_key_set_is_discovered() -> None:
    """The issuer's configuration names the URL; the document is passed on as it is."""
    async with FakeIssuer() as issuer, requests_to(issuer.url) as requests:
        keys = parse_key_set(await requests.fetch())
        assert [each.kid for each in keys.keys] == ["one", "two"]
        assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]


async def test_key_set_of_a_configured_url_is_not_discovered() -> None:
    async with FakeIssuer() as issuer, requests_to(issuer.url, jwks_url=f"{issuer.url}/keys") as requests:
        await requests.fetch()
        assert issuer.asked == ["/keys"]


async def test_key_set_follows_a_redirect_of_the_issuer() -> None:
    async with FakeIssuer() as issuer, requests_to(issuer.url) as requests:
        issuer.redirects["/.well-known/openid-configuration"] = "/other/.well-known/openid-configuration"
        await requests.fetch()


def _another_issuer(issuer: FakeIssuer) -> None:
    issuer.overrides["issuer"] = f"{issuer.url}/"


def _no_url(issuer: FakeIssuer) -> None:
    issuer.overrides["jwks_uri"] = None


def _a_file(issuer: FakeIssuer) -> None:
    issuer.overrides["jwks_uri"] = "file:///etc/passwd"


def _a_user(issuer: FakeIssuer) -> None:
    issuer.overrides["jwks_uri"] = issuer.url.replace("://", "://me:secret@") + "/keys"


def _a_circle(issuer: FakeIssuer) -> None:
    issuer.redirects["/keys"] = "/keys"


def _an_error(issuer: FakeIssuer) -> None:
    issuer.status = 500


def _too_long(issuer: FakeIssuer) -> None:
    issuer.keys_document = b" " * (KEYS_BYTES + 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_another_issuer, "correct `issuer`"),
        (_no_url, "may not be asked"),
        (_a_file, "may not be asked"),
        (_a_user, "may not be asked"),
        (_a_circle, "circle"),
        (_an_error, "answered 500"),
        (_too_long, "longer than"),
    ],
)
async def test_key_set_from_elsewhere_is_refused(change: Callable[[FakeIssuer], None], words: str) -> None:
    """Each failure says what is wrong, without a secret."""
    async with FakeIssuer() as issuer, requests_to(issuer.url) as requests:
        change(issuer)
        with pytest.raises(UpstreamError, match=words) as failed:
            await requests.fetch()
        assert "secret" not in str(failed.value)


async def test_key_set_of_a_tls_issuer_never_comes_without_tls(tmp_path: Path) -> None:
    """Neither a URL in its configuration nor a redirect leads to plain http; its certificate is verified."""
    authority = await asyncio.to_thread(Authority, tmp_path)
    async with FakeIssuer(authority.server_context()) as issuer, FakeIssuer() as plain:
        async with requests_to(issuer.url) as requests:
            with pytest.raises(UpstreamError, match="certificate"):
                await requests.fetch()
        async with requests_to(issuer.url, ca_file=str(authority.ca_file)) as requests:
            await requests.fetch()
            issuer.overrides["jwks_uri"] = f"{plain.url}/keys"
            with pytest.raises(UpstreamError, match="may not be asked"):
                await requests.fetch()
            issuer.overrides.clear()
            issuer.redirects["/keys"] = f"{plain.url}/keys"
            with pytest.raises(UpstreamError, match="leaves https"):
                await requests.fetch()
        assert plain.asked == []


async def test_key_set_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_requests, "SECONDS", 0.01)
    async with FakeIssuer() as issuer, requests_to(issuer.url) as requests:
        issuer.hold = asyncio.Event()
        with pytest.raises(UpstreamError) as failed:
            await requests.fetch()
        assert failed.value.failure is Failure.TIMEOUT


async def test_key_set_is_not_asked_for_offline() -> None:
    async with FakeIssuer() as issuer:
        requests = KeyRequests(settings(issuer.url), Metrics(), offline=True)
        with pytest.raises(UpstreamError, match="offline"):
            await requests.fetch()
        assert issuer.asked == []

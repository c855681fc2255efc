"""Tokens of configured issuers as credentials."""

import asyncio
import base64
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from mirror.config.identities.issuers import IssuerSettings
from mirror.metrics.metrics import Metrics
from mirror.upstream.issuers.key_source import REFRESH_SECONDS, RETRY_SECONDS
from mirror.web.identity.credentials import Credentials, NotVerified, WrongCredentials, parse_login
from mirror.web.identity.issued import JwtAuthenticator, JwtVerdict
from mirror.web.identity.signer import TokenSigner
from tests.fakes.issuer import (
    AUDIENCE,
    EC_KEY,
    GITHUB,
    GITLAB,
    KUBERNETES,
    OTHER_RSA_KEY,
    FakeIssuer,
    jwk,
    key_set,
    raw_token,
)


def settings(url: str, name: str = "ci", **values: Any) -> IssuerSettings:
    return IssuerSettings.model_validate({"name": name, "issuer": url, "audience": [AUDIENCE], **values})


@asynccontextmanager
async def authenticator(*issuers: IssuerSettings, **options: Any) -> AsyncIterator[JwtAuthenticator]:
    found = JwtAuthenticator(issuers, Metrics(), **options)
    yield found
    await found.close()


def bearer(token: str) -> Credentials:
    return Credentials("", "/v2/", "bearer", token)


def basic(token: str) -> Credentials:
    value = base64.b64encode(f"jwt:{token}".encode()).decode()
    return Credentials("", "/v2/", "basic", value, parse_login(value))


async def names(issued: JwtAuthenticator, token: str) -> tuple[str, ...]:
    claim = await issued.claim(bearer(token))
    assert claim is not None
    return claim.names


@pytest.mark.parametrize(
    ("claims", "wanted", "expected"),
    [
        (GITLAB, "project_path", "jwt:ci:project_path=org/app"),
        (GITHUB, "repository", "jwt:ci:repository=octo-org/octo-repo"),
        (KUBERNETES, "kubernetes.io/namespace", "jwt:ci:kubernetes.io/namespace=ci"),
    ],
    ids=["gitlab", "github", "kubernetes"],
)
async def test_jwt_identifies_a_job(claims: dict[str, Any], wanted: str, expected: str) -> None:
    """Tokens come as Bearer, and as the password of any user; signed by either kind of key."""
    async with FakeIssuer() as issuer, authenticator(settings(issuer.url, claims=[wanted])) as issued:
        for token in (issuer.token(claims), issuer.token(claims, EC_KEY, "ES256", "two")):
            for shown in (bearer(token), basic(token), basic(f" {token}\n")):
                claim = await issued.claim(shown)
                assert claim is not None
                assert expected in claim.names
                assert f"jwt:ci:{claims['sub']}" in claim.names
                assert 200 < claim.seconds <= 300
        assert issuer.asked.count("/keys") == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aud": "https://other.test"}, "its audience must be"),
        ({"exp": time.time() - 100}, "expired"),
        ({"nbf": time.time() + 3600}, "not valid before"),
        ({"exp": None}, "never expires"),
        ({"key": OTHER_RSA_KEY}, "signature is wrong"),
        ({"kid": "nine"}, "no such key"),
        ({"sub": None, "claims": {}}, "neither a subject nor a claim"),
    ],
)
async def test_jwt_that_is_wrong_is_refused(changes: dict[str, Any], reason: str) -> None:
    """One line in the log has the reason; the client has none, and a repeated token has no second proof."""
    async with FakeIssuer() as issuer, authenticator(settings(issuer.url)) as issued:
        token = issuer.token(**changes)
        with capture_logs() as logs:
            for _ in range(3):
                with pytest.raises(WrongCredentials) as refused:
                    await issued.claim(bearer(token))
        assert refused.value.status == 401
        assert reason not in refused.value.message
        assert [each["event"] for each in logs] == ["token of an issuer refused"]
        assert reason in logs[0]["reason"]
        assert token not in str(logs)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS256", "kid": "one"},
        {"alg": "RS256", "kid": 7},
        {"alg": "RS256", "crit": []},
    ],
)
async def test_jwt_that_is_refused_in_any_case_causes_no_request(header: dict[str, Any]) -> None:
    async with FakeIssuer() as issuer, authenticator(settings(issuer.url)) as issued:
        token = raw_token(header, {"iss": issuer.url, "aud": AUDIENCE, "sub": "me", "exp": time.time() + 9})
        with pytest.raises(WrongCredentials):
            await issued.claim(bearer(token))
        assert issuer.asked == []


async def test_jwt_of_another_issuer_is_none_of_this_kind() -> None:
    """dockerd shows Docker Hub's token to a mirror; nobody asks for keys because a token names a URL."""
    async with FakeIssuer() as issuer, FakeIssuer() as other, authenticator(settings(issuer.url)) as issued:
        assert await issued.claim(bearer(other.token())) is None
        assert await issued.claim(bearer("opaque")) is None
        assert await issued.claim(basic("password")) is None
        assert await issued.claim(Credentials("")) is None
        assert issuer.asked + other.asked == []


async def test_jwt_that_is_none_or_huge_is_refused() -> None:
    async with FakeIssuer() as issuer, authenticator(settings(issuer.url)) as issued:
        for token in ("eyJ.eyJ.x", "eyJ" + "A" * 20_000 + ".e30.x", issuer.token(huge="x" * 20_000)):
            with capture_logs() as logs, pytest.raises(WrongCredentials):
                await issued.claim(bearer(token))
            assert len(logs) == 1
        assert issuer.asked == []


async def test_jwt_of_one_issuer_for_two_tables() -> None:
    """The table whose audience the token has decides."""
    async with FakeIssuer() as issuer:
        tables = (settings(issuer.url, "one", audience=["a"]), settings(issuer.url, "two", audience=["b"]))
        async with authenticator(*tables) as issued:
            assert "jwt:two:sub=me" in await names(issued, issuer.token({"sub": "me"}, aud="b"))


async def test_jwt_key_rotation_and_withdrawal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new key is taken at its first token; with a withdrawn one go the verdicts that rest on it."""
    async with FakeIssuer() as issuer, authenticator(settings(issuer.url)) as issued:
        now = 0.0
        monkeypatch.setattr(issued._issuers[0].source, "_clock", lambda: now)
        old = issuer.token()
        await names(issued, old)
        issuer.keys = [jwk(OTHER_RSA_KEY, "three")]
        now = RETRY_SECONDS
        assert "jwt:ci:sub=me" in await names(issued, issuer.token({"sub": "me"}, OTHER_RSA_KEY, kid="three"))
        with pytest.raises(WrongCredentials):
            await issued.claim(bearer(old))
        assert issuer.asked.count("/keys") == 2


async def test_jwt_outage_of_the_issuer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that are known stay good; without any, no token is."""
    async with FakeIssuer() as issuer, authenticator(settings(issuer.url)) as issued:
        now = 0.0
        monkeypatch.setattr(issued._issuers[0].source, "_clock", lambda: now)
        issuer.status = 503
        with pytest.raises(WrongCredentials):
            await issued.claim(bearer(issuer.token()))
        issuer.status, now = 200, RETRY_SECONDS
        await names(issued, issuer.token())
        issuer.status, now = 503, RETRY_SECONDS + REFRESH_SECONDS
        await names(issued, issuer.token(GITHUB))


async def test_jwt_of_a_login_is_recalled_by_any_worker() -> None:
    """The token of the token service stands for the principals, and ends with the issuer's token."""
    now = time.time()
    async with FakeIssuer() as issuer, authenticator(settings(issuer.url), clock=lambda: now) as issued:
        groups = [f"group-{each}-{'x' * 40}" for each in range(60)]
        table = settings(issuer.url, claims=["groups"])
        async with authenticator(table, clock=lambda: now) as other:
            claim = await other.claim(basic(issuer.token(groups=groups)))
        assert claim is not None
        again = await issued.recall(claim.handle)
        assert again is not None
        assert f"jwt:ci:{GITLAB['sub']}" in again.names
        assert set(again.names) < set(claim.names)
        assert again.seconds == claim.seconds
        signer = TokenSigner(bytes(32))
        assert signer.read(signer.make([claim.handle])).handles == (claim.handle,)
        now += 301
        assert await issued.recall(claim.handle) is None
        assert await issued.recall(claim.handle.replace("jwt:ci:", "jwt:other:")) is None
        assert await issued.recall("user:1:alice") is None


async def test_jwt_keys_of_a_file(tmp_path: Path) -> None:
    """Nothing is fetched, so that an issuer within a cluster needs no way to it."""
    async with FakeIssuer() as issuer:
        file = tmp_path / "keys"
        await asyncio.to_thread(file.write_bytes, key_set(jwk(EC_KEY, "two")))
        table = await asyncio.to_thread(settings, issuer.url, jwks_file=str(file))
        async with authenticator(table, offline=True) as issued:
            token = issuer.token(KUBERNETES, EC_KEY, "ES256", "two")
            assert "jwt:ci:system:serviceaccount:ci:builder" in await names(issued, token)
        assert issuer.asked == []


async def test_signatures_are_verified_off_the_loop_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """All who show a token wait for one proof; the loop goes on, and too many proofs are refused."""
    monkeypatch.setattr("mirror.web.identity.issued.WAITING", 1)
    began, go_on = threading.Event(), threading.Event()
    proven: list[int] = []

    def prove(self: JwtAuthenticator, *arguments: Any) -> JwtVerdict:
        proven.append(threading.get_ident())
        began.set()
        go_on.wait(60)
        return original(self, *arguments)

    original = JwtAuthenticator._prove
    monkeypatch.setattr(JwtAuthenticator, "_prove", prove)
    async with FakeIssuer() as issuer, authenticator(settings(issuer.url)) as issued:
        first, second = issuer.token(GITLAB), issuer.token(GITHUB)
        waiting = [asyncio.ensure_future(names(issued, first)) for _ in range(3)]
        await asyncio.to_thread(began.wait, 60)
        with pytest.raises(NotVerified):
            await issued.claim(bearer(second))
        go_on.set()
        assert len(set(await asyncio.gather(*waiting))) == 1
        assert len(proven) == 1
        assert proven[0] != threading.get_ident()

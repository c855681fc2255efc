"""Tokens of this mirror as credentials: each way to show one, right, wrong, expired, revoked."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from mirror.access.identity import Restriction
from mirror.access.tokens import new_secret
from mirror.manage.tokens import WantedToken, create_token, tokens_of
from mirror.store.cache_dir import CacheDirectory
from mirror.web.access_control import AccessDenied
from mirror.web.identity.credentials import Claim, Credentials, WrongCredentials, parse_login
from mirror.web.identity.tokens import TokenAuthenticator
from tests.fakes.cached import open_folder


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[CacheDirectory]:
    folder = await asyncio.to_thread(open_folder, tmp_path)
    yield folder
    await asyncio.to_thread(folder.close)


def bearer(secret: str, path: str = "/v2/") -> Credentials:
    return Credentials("", path, "bearer", secret)


def basic(secret: str, user: str = "anybody") -> Credentials:
    value = base64.b64encode(f"{user}:{secret}".encode()).decode()
    return Credentials("", "/v2/", "basic", value, parse_login(value))


def in_path(secret: str, form: str = "/t/{}/v2/") -> Credentials:
    return Credentials("", form.format(secret))


async def test_token_is_taken_by_each_way(folder: CacheDirectory) -> None:
    """The claim is the same, and a path names the part that is not the API's."""
    tokens = TokenAuthenticator(folder)
    wanted = WantedToken("ci", None, ("quay.io/*",))
    secret, entry = await asyncio.to_thread(create_token, folder, wanted)
    claim = Claim(
        ("token:ci",), handle=f"token:{entry.sha256}", restrictions=(Restriction("token:ci", ("quay.io/*",)),)
    )
    for shown in (bearer(secret), basic(secret), basic(secret, "<token>")):
        assert await tokens.claim(shown) == claim
    assert await tokens.claim(in_path(secret)) == replace(claim, path_prefix=f"/t/{secret}")
    inside = in_path(secret, "/v2/t/{}/quay.io/org/app/manifests/1")
    assert await tokens.claim(inside) == replace(claim, path_prefix=f"/v2/t/{secret}")
    await tokens.close()
    (listed,) = await asyncio.to_thread(tokens_of(folder).listed)
    assert listed.used is not None
    assert abs(listed.used - time.time()) < 3600


@pytest.mark.parametrize(
    "shown",
    [
        Credentials("", "/v2/"),
        bearer("eyJhbGciOiJSUzI1NiJ9.e30.x"),
        basic("password"),
        Credentials("", "/v2/", "negotiate", "rmt_"),
        Credentials("", "/v2/", "basic", "rmt_"),
        Credentials("", "/v2/t/app/manifests/1"),
        Credentials("", "/v2/rmt_tools/app/manifests/1"),
    ],
)
async def test_other_credentials_are_none_of_this_kind(folder: CacheDirectory, shown: Credentials) -> None:
    """Nothing is read for them."""
    tokens = TokenAuthenticator(folder)
    assert await tokens.claim(shown) is None
    await tokens.close()


async def test_wrong_token_is_refused(folder: CacheDirectory) -> None:
    """Unknown, mistyped, cut off: 401 in a header, 404 in a path; no message has the secret."""
    tokens = TokenAuthenticator(folder)
    secret, _ = await asyncio.to_thread(create_token, folder, WantedToken("ci"))
    unknown, mistyped = new_secret(), secret[:-1] + ("a" if secret[-1] != "a" else "b")
    for wrong, words in ((unknown, "not known"), (mistyped, "mistyped"), (secret[:30], "mistyped")):
        for shown in (bearer(wrong), basic(wrong)):
            with pytest.raises(WrongCredentials, match=words) as refused:
                await tokens.claim(shown)
            assert wrong not in str(refused.value)
            assert refused.value.status == 401
        for form in ("/t/{}/v2/", "/t/{}", "/v2/t/{}/docker.io/a/manifests/1"):
            with pytest.raises(AccessDenied, match=words) as denied:
                await tokens.claim(in_path(wrong, form))
            assert wrong not in denied.value.message + denied.value.note
            assert denied.value.status == 404
    await tokens.close()


async def test_token_with_something_around_it_is_refused(folder: CacheDirectory) -> None:
    """No other authenticator gets it, which might log a user's name, or ask an upstream about a password."""
    tokens = TokenAuthenticator(folder)
    secret = new_secret()
    for wrong in (f" {secret}", f"{secret}\n", secret.upper(), f"x{secret}"):
        for shown in (bearer(wrong), basic(wrong)):
            with pytest.raises(WrongCredentials, match="mistyped"):
                await tokens.claim(shown)
    with pytest.raises(WrongCredentials, match="in the place of the user") as refused:
        await tokens.claim(basic("password", user=secret))
    assert secret not in refused.value.message
    await tokens.close()


async def test_revoked_token_is_refused_at_once(folder: CacheDirectory) -> None:
    tokens = TokenAuthenticator(folder)
    secret, _ = await asyncio.to_thread(create_token, folder, WantedToken("ci"))
    assert await tokens.claim(bearer(secret)) is not None
    await asyncio.to_thread(tokens_of(folder).remove, "ci")
    with pytest.raises(WrongCredentials, match="revoked"):
        await tokens.claim(bearer(secret))
    with pytest.raises(AccessDenied, match="revoked"):
        await tokens.claim(in_path(secret))
    await tokens.close()


async def test_expired_token_is_refused(folder: CacheDirectory) -> None:
    """The claim ends with the token, so that nothing is remembered for longer."""
    later = 0.0
    tokens = TokenAuthenticator(folder, lambda: time.time() + later)
    secret, _ = await asyncio.to_thread(create_token, folder, WantedToken("ci", 60.0))
    claim = await tokens.claim(bearer(secret))
    assert claim is not None
    assert 0 < claim.seconds <= 60
    later = 60.0
    with pytest.raises(WrongCredentials, match="ci has expired"):
        await tokens.claim(bearer(secret))
    assert await tokens.recall(claim.handle) is None
    await tokens.close()


async def test_token_is_recalled_by_its_handle(folder: CacheDirectory) -> None:
    """Another authenticator, in another worker, finds the same claim; none after the revocation."""
    here, there = TokenAuthenticator(folder), TokenAuthenticator(folder)
    secret, _ = await asyncio.to_thread(create_token, folder, WantedToken("ci"))
    claim = await here.claim(bearer(secret))
    assert claim is not None
    assert secret not in claim.handle
    assert await there.recall(claim.handle) == claim
    assert await there.recall("user:alice") is None
    await asyncio.to_thread(tokens_of(folder).remove, "ci")
    assert await there.recall(claim.handle) is None
    await here.close()
    await there.close()


async def test_token_in_a_wrong_place_of_the_path_is_refused(folder: CacheDirectory) -> None:
    """A secret there would be asked of an upstream as a name, and be in its log."""
    tokens = TokenAuthenticator(folder)
    secret = new_secret()
    for path in (f"/v2/{secret}/app/manifests/1", f"/{secret}/v2/", f"/t/x/v2/{secret}/blobs/x"):
        with pytest.raises(AccessDenied, match="where none is taken") as denied:
            await tokens.claim(Credentials("", path))
        assert secret not in denied.value.message
    await tokens.close()

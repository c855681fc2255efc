"""The token service and its tokens: what stands behind a token is verified with each request."""

import json
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from mirror.oci.errors import RegistryError
from mirror.web.identity.credentials import Authenticator, Claim, Credentials, WrongCredentials
from mirror.web.identity.signer import TokenSigner, new_key
from mirror.web.identity.token_service import SignedTokens, TokenService
from mirror.web.request_log import RequestRecord


class Guests(Authenticator):
    """Authenticator of those on a list, by the handles `guest:NAME`."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)

    async def recall(self, handle: str) -> Claim | None:
        name = handle.removeprefix("guest:")
        return Claim((f"user:{name}",), seconds=100.0, handle=handle) if name in self.names else None


def bearer(token: str) -> Credentials:
    return Credentials("10.0.0.1", "/v2/", "bearer", token)


@pytest.fixture
def guests() -> Guests:
    return Guests("alice")


@pytest.fixture
async def tokens(tmp_path: Path, guests: Guests) -> SignedTokens:
    signer = TokenSigner(new_key())
    tokens = SignedTokens(signer, tmp_path / "key", [Guests("bob"), guests])
    await tokens.start()
    return tokens


async def made(tokens: SignedTokens, *handles: str) -> str:
    record = RequestRecord(make_mocked_request("GET", "/token"))
    record.handles = handles
    response = await TokenService(tokens._signer, []).answer(record)
    answer = json.loads(response.body)  # type: ignore[attr-defined]
    return str(answer["token"])


async def test_token_proves_what_its_handles_prove_now(tokens: SignedTokens, guests: Guests) -> None:
    token = await made(tokens, "guest:alice", "guest:bob")
    claim = await tokens.claim(bearer(token))
    assert claim is not None
    assert (claim.names, claim.seconds, claim.handle) == (("user:bob", "user:alice")[::-1], 100.0, "")
    guests.names.clear()
    with pytest.raises(WrongCredentials, match="not valid any more"):
        await tokens.claim(bearer(token))


async def test_token_of_nobody_is_a_login_without_names(tokens: SignedTokens) -> None:
    claim = await tokens.claim(bearer(await made(tokens)))
    assert claim is not None
    assert claim.names == ()


async def test_other_tokens_are_another_authenticators(tokens: SignedTokens) -> None:
    assert await tokens.claim(bearer("eyJ.x.y")) is None
    assert await tokens.claim(Credentials("10.0.0.1", "/v2/", "basic", "rmt1.x.y")) is None


async def test_folder_without_a_key_still_has_tokens(tmp_path: Path) -> None:
    """A read-only disk costs tokens their life beyond this worker, and no login."""
    tokens = SignedTokens(TokenSigner(new_key()), tmp_path / "missing" / "key", [])
    await tokens.start()
    assert await tokens.claim(bearer(await made(tokens))) is not None


async def test_post_without_a_form_is_refused_as_a_login(tokens: SignedTokens) -> None:
    record = RequestRecord(make_mocked_request("POST", "/token"))
    with pytest.raises(WrongCredentials):
        await TokenService(tokens._signer, []).answer(record)


async def test_other_methods_are_not_allowed(tokens: SignedTokens) -> None:
    record = RequestRecord(make_mocked_request("PUT", "/token"))
    with pytest.raises(RegistryError) as refused:
        await TokenService(tokens._signer, []).answer(record)
    assert refused.value.status == 405

"""Identification: every authenticator adds what it has verified, and a wrong credential is refused."""

import pytest
from aiohttp.test_utils import make_mocked_request

from mirror.access.identity import Identity
from mirror.access.rules import parse_network
from mirror.web.identity.credentials import Authenticator, Claim, Credentials, WrongCredentials
from mirror.web.identity.identification import Identification
from mirror.web.request_log import RequestRecord
from tests.fakes.badge import Badge


class Path(Authenticator):
    """Authenticator of a name in the path."""

    async def claim(self, shown: Credentials) -> Claim | None:
        first, _, rest = shown.path.removeprefix("/").partition("/")
        return Claim((f"token:{first}",), seconds=60.0, path_prefix=f"/{first}") if rest else None


def record(path: str = "/v2/", **headers: str) -> RequestRecord:
    return RequestRecord(make_mocked_request("GET", path, headers=headers))


async def test_client_without_credentials_is_its_address() -> None:
    seen = record()
    await Identification(authenticators=[Badge()]).identify(seen)
    assert seen.identity == Identity(seen.request.remote or "")
    assert seen.identity_ttl == float("inf")


async def test_authenticators_add_up() -> None:
    """The shortest time of all counts, and what held credentials is no part of what is asked for."""
    seen = record("/ci/v2/x", Authorization="Badge alice")
    await Identification(authenticators=[Path(), Badge(seconds=90.0)]).identify(seen)
    assert seen.identity.names == ("token:ci", "user:alice")
    assert (seen.identity_ttl, seen.path_prefix) == (60.0, "/ci")


async def test_wrong_credential_is_refused() -> None:
    with pytest.raises(WrongCredentials):
        await Identification(authenticators=[Badge()]).identify(record(Authorization="Badge mallory"))


async def test_credentials_are_not_read_without_an_authenticator() -> None:
    """A Docker daemon may send its login for a registry to a mirror that has not asked for one."""
    seen = record(Authorization="Basic " + "x" * 100_000)
    await Identification().identify(seen)
    assert seen.identity.names == ()


async def test_address_is_the_word_of_trusted_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = record(**{"X-Forwarded-For": "192.0.2.7"})
    peer = seen.request.remote or "127.0.0.1"
    await Identification([parse_network(peer)]).identify(seen)
    assert seen.client == "192.0.2.7"

"""Identification: every authenticator adds what it has verified, and a wrong credential is refused."""

import pytest
from aiohttp.test_utils import make_mocked_request

from mirror.access.identity import Identity
from mirror.access.rules import parse_network
from mirror.oci.errors import Code
from mirror.oci.reference import Repository, Target, TargetKind, Via
from mirror.util.fairness.client import current_client
from mirror.web.access_control import AccessDenied
from mirror.web.identity.challenge import Challenges, LoginRequired
from mirror.web.identity.credentials import (
    Authenticator,
    Claim,
    Credentials,
    NotVerified,
    WrongCredentials,
)
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
    assert current_client() == seen.identity.address


async def test_authenticators_add_up() -> None:
    """The shortest time of all counts, and what held credentials is no part of what is asked for."""
    seen = record("/ci/v2/x", Authorization="Badge alice")
    await Identification(authenticators=[Path(), Badge(seconds=90.0)]).identify(seen)
    assert seen.identity.names == ("token:ci", "user:alice")
    assert current_client() == "token:ci user:alice"
    assert (seen.identity_ttl, seen.path_prefix) == (60.0, "/ci")


async def test_wrong_credential_is_refused_where_clients_log_in() -> None:
    everywhere = Identification(authenticators=[Badge()], challenges=Challenges(["*"]))
    for header in ("Badge mallory", "Unknown x"):
        seen = record(Authorization=header)
        with pytest.raises(WrongCredentials) as refused:
            await everywhere.identify(seen)
        assert refused.value.headers["WWW-Authenticate"].startswith("Bearer ")


async def test_wrong_credential_is_ignored_elsewhere_and_named() -> None:
    seen = record(Authorization="Badge mallory")
    await Identification(authenticators=[Badge()]).identify(seen)
    assert (seen.identity.names, seen.note) == ((), "credentials not taken: no such badge")
    assert seen.identity_ttl == float("inf")


async def test_credential_that_could_not_be_verified_is_not_remembered_as_wrong() -> None:
    class Busy(Authenticator):
        async def claim(self, shown: Credentials) -> Claim | None:
            raise NotVerified("busy", 1)

    seen = record(Authorization="Badge alice")
    await Identification(authenticators=[Busy()]).identify(seen)
    assert seen.identity_ttl == 0.0


BASE = Target(TargetKind.BASE, Via.ROOT, "docker.io")
TAGS = Target(TargetKind.TAGS, Via.ROOT, "docker.io", Repository("docker.io", "library/x"))
DENIED = AccessDenied(Code.DENIED, "no", 403, "rule 1")


async def test_client_that_has_not_logged_in_is_asked_to() -> None:
    """At the start of a pull, and in place of a refusal; not in place of what it may have."""
    everywhere = Identification(authenticators=[Badge()], challenges=Challenges(["*"]))
    seen = record()
    await everywhere.identify(seen)
    with pytest.raises(LoginRequired):
        everywhere.insist(seen, BASE)
    everywhere.insist(seen, TAGS)
    answer = everywhere.instead_of(DENIED, seen, TAGS)
    assert isinstance(answer, LoginRequired)
    assert answer.message.startswith("no: log in at ")
    assert seen.ttl == float("inf")


@pytest.mark.parametrize(("hosts", "header"), [(("*",), "Badge alice"), ((), "Badge alice"), ((), "")])
async def test_other_clients_are_not_asked_to_log_in(hosts: tuple[str, ...], header: str) -> None:
    identification = Identification(authenticators=[Badge()], challenges=Challenges(hosts))
    seen = record(**({"Authorization": header} if header else {}))
    await identification.identify(seen)
    identification.insist(seen, BASE)
    assert identification.instead_of(DENIED, seen, TAGS) is DENIED


async def test_credentials_are_not_read_without_an_authenticator() -> None:
    """A Docker daemon may send its login for a registry to a mirror that has not asked for one."""
    seen = record(Authorization="Basic " + "x" * 100_000)
    await Identification().identify(seen)
    assert seen.identity.names == ()


async def test_address_is_the_word_of_trusted_proxies() -> None:
    seen = record(**{"X-Forwarded-For": "192.0.2.7"})
    seen.request = seen.request.clone(remote="10.0.0.1")
    await Identification([parse_network("10.0.0.1")]).identify(seen)
    assert seen.client == "192.0.2.7"

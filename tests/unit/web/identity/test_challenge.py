"""Challenges: only where the operator wants them, and by the address that the client used."""

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from mirror.access.rules import parse_network
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Target, TargetKind, Via
from mirror.web.identity.challenge import NOWHERE, Challenges, is_token_request
from mirror.web.identity.credentials import NotVerified, WrongCredentials

BASE = Target(TargetKind.BASE, Via.ROOT, "docker.io")


def request(host: str | None = "mirror.lan:5000", path: str = "/v2/", **headers: str) -> web.BaseRequest:
    return make_mocked_request("GET", path, headers={**({"Host": host} if host else {}), **headers})


def header(challenges: Challenges, made: web.BaseRequest | None = None, target: Target = BASE) -> str:
    return challenges.login(made or request(), target).headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("hosts", "host", "covered"),
    [
        ((), "mirror.lan:5000", False),
        (("mirror.lan:5000",), "mirror.lan:5000", True),
        (("mirror.lan:5000",), "MIRROR.lan:5000", True),
        (("mirror.lan:5000",), "mirror.lan", False),
        (("mirror.lan:5000",), "mirror.lan:5001", False),
        (("mirror.lan",), "mirror.lan:5001", True),
        (("mirror.lan",), "mirror.lan.", True),
        (("mirror.lan",), "other.lan", False),
        (("[::1]:5000",), "[0::1]:5000", True),
        (("mirror.lan",), "mirror.lan/..", False),
        (("mirror.lan",), None, False),
        (("*",), "anything", True),
        (("*",), None, True),
    ],
)
def test_clients_log_in_at_the_names_of_the_configuration(
    hosts: tuple[str, ...], host: str | None, covered: bool
) -> None:
    assert Challenges(hosts).cover(request(host)) is covered
    assert not NOWHERE.cover(request(host))


def test_challenge_is_bearer_alone_with_an_absolute_realm() -> None:
    """Clients take the first scheme of a line, and refuse a realm at another port."""
    challenges = Challenges(["*"])
    assert header(challenges) == 'Bearer realm="http://mirror.lan:5000/token",service="mirror.lan:5000"'
    assert (
        header(challenges, request("[0::1]:80")) == 'Bearer realm="http://[::1]:80/token",service="[::1]:80"'
    )


@pytest.mark.parametrize(
    ("target", "scope"),
    [
        (Target(TargetKind.CATALOG, Via.ROOT, None), "registry:catalog:*"),
        (
            Target(TargetKind.TAGS, Via.PREFIX, "quay.io", Repository("quay.io", "org/app")),
            "repository:quay.io/org/app:pull",
        ),
        (
            Target(TargetKind.BLOB, Via.ROOT, "quay.io", Repository("quay.io", "a"), Digest.of(b"")),
            "repository:a:pull",
        ),
    ],
)
def test_challenge_has_the_scope_by_the_name_that_the_client_used(target: Target, scope: str) -> None:
    assert header(Challenges(["*"]), target=target).endswith(f',scope="{scope}"')


def test_realm_is_https_behind_a_trusted_proxy_with_tls() -> None:
    made = request(**{"X-Forwarded-Proto": "https"}).clone(remote="10.0.0.1")
    assert 'realm="http://' in header(Challenges(["*"]), made)
    assert 'realm="https://' in header(Challenges(["*"], [parse_network("10.0.0.1")]), made)


@pytest.mark.parametrize("host", ['x"y', "a b", "http://x", "", "x/y", "x\\y", "ä"])
def test_host_header_that_is_none_gets_into_no_challenge(host: str) -> None:
    assert header(Challenges(["*"]), request(host)).count('"') == 4
    assert host not in header(Challenges(["*"]), request(host)) or not host


def test_refused_bearer_is_an_invalid_token() -> None:
    """Newer clients ask for another one only then."""
    challenges, wrong = Challenges(["*"]), WrongCredentials("no")
    made = request(Authorization="Bearer x")
    assert challenges.refusal(made, wrong).headers["WWW-Authenticate"].endswith(',error="invalid_token"')
    made = request(Authorization="Basic x")
    assert "error" not in challenges.refusal(made, wrong).headers["WWW-Authenticate"]


def test_token_service_asks_for_a_password() -> None:
    made = request(path="/token?service=x", Authorization="Basic x")
    refused = Challenges(["*"]).refusal(made, WrongCredentials("no"))
    assert refused.headers["WWW-Authenticate"] == 'Basic realm="registry-mirror"'
    assert is_token_request(made)
    assert not is_token_request(request(path="/token/x"))


def test_client_that_should_wait_gets_no_challenge() -> None:
    refused = Challenges(["*"]).refusal(request(), NotVerified("busy", 7))
    assert dict(refused.headers) == {"Retry-After": "7"}

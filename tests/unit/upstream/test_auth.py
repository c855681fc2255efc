"""Tokens and passwords: how they are obtained, how long they last, how often they are asked for."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from mirror.oci.reference import Tag
from mirror.upstream.auth import MAX_TOKEN_BYTES
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.registry_client import RegistryClient
from mirror.util.tasks import Tasks
from tests.fakes.access import BasicAuth, TokenAuth, basic_login
from tests.fakes.faults import Fault, Gate, oci_error
from tests.fakes.registry import FakeRegistry
from tests.fakes.site import Seen
from tests.fakes.upstream import FakeTime, registry_at

LOGIN: dict[str, Any] = {"username": "me", "password": "geheim"}
LATEST = Tag("latest")
REFUSED = "docker.io: 127.0.0.1 refused the password of user me: check username and password_file"


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


async def test_token_is_anonymous_without_an_account() -> None:
    """A 401 is answered with an anonymous token for pulling that repository, used from then on."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        guarded(fake)
        await registry.head_manifest("org/a", LATEST)
        await registry.get_manifest("org/a", LATEST)
        assert [(seen.method, seen.status) for seen in fake.log] == [
            ("HEAD", 401),
            ("GET", 200),
            ("HEAD", 200),
            ("GET", 200),
        ]
        assert tokens(fake)[0].query == "service=fake&scope=repository:org/a:pull"
        assert "Authorization" not in tokens(fake)[0].headers


async def test_token_is_for_one_repository() -> None:
    """A token is asked for one repository at a time, without another 401 once the realm is known."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        guarded(fake)
        await registry.head_manifest("org/a", LATEST)
        await registry.head_manifest("org/b", LATEST)
        assert [seen.query.rpartition("=")[2] for seen in tokens(fake)] == [
            "repository:org/a:pull",
            "repository:org/b:pull",
        ]
        assert [seen.status for seen in fake.log].count(401) == 1


@pytest.mark.parametrize(
    ("answer", "lifetime"),
    [
        ({"expires_in": 300}, 270),
        ({}, 54),
        ({"expires_in": 0}, 54),
        ({"expires_in": -5}, 54),
        ({"expires_in": "300"}, 54),
        ({"expires_in": True}, 54),
        ({"expires_in": 10**12}, 54),
        ({"expires_in": 10}, 9),
    ],
)
async def test_token_lifetime(answer: dict[str, object], lifetime: float) -> None:
    """A token is renewed at nine tenths of expires_in, or of 60 s if that is missing or nonsense."""
    time = FakeTime()
    async with FakeRegistry() as fake, registry_at(fake.url, time) as registry:
        guarded(fake, answer=answer)
        await registry.head_manifest("org/a", LATEST)
        time.now += lifetime - 1
        await registry.head_manifest("org/a", LATEST)
        assert len(tokens(fake)) == 1
        time.now += 1
        await registry.head_manifest("org/a", LATEST)
        assert len(tokens(fake)) == 2
        assert [seen.status for seen in fake.log].count(401) == 1


async def test_token_called_access_token() -> None:
    """A token may be called access_token, as in OAuth 2."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        guarded(fake, key="access_token")
        await registry.head_manifest("org/a", LATEST)


async def test_password_goes_to_the_token_server_only() -> None:
    """User and password go to the upstream's own token server; the registry itself gets the token."""
    async with FakeRegistry() as fake, registry_at(fake.url, **LOGIN) as registry:
        guarded(fake, user="me", password="geheim", private={"org/a"})
        await registry.head_manifest("org/a", LATEST)
        assert logins(fake.log) == [None, ("me", "geheim"), None]


async def test_token_that_is_refused_is_renewed_once() -> None:
    """A token that the upstream no longer accepts is replaced, once, within the same request."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        auth = guarded(fake)
        await registry.head_manifest("org/a", LATEST)
        auth.issued.clear()
        await registry.head_manifest("org/a", LATEST)
        assert auth.count == 2


async def test_token_that_is_refused_twice_is_final() -> None:
    """A refusal of the new token too is the answer."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        auth = guarded(fake)
        await registry.get_manifest("org/a", LATEST)
        fake.fault(
            Fault(status=401, headers={"WWW-Authenticate": auth.challenges(fake.url, "x")[0]}), times=9
        )
        fake.log.clear()
        with pytest.raises(UpstreamError) as raised:
            await registry.get_manifest("org/a", LATEST)
        assert raised.value.failure is Failure.DENIED
        # The first 401 leads to a token request, which meets the fault as well.
        assert len(fake.log) == 2


async def test_token_is_shared_by_concurrent_requests() -> None:
    """Ten requests that meet a 401 together ask for one token."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        auth = guarded(fake)
        gate = fake.hold("/token", after=-1)
        asked = asyncio.gather(*(registry.head_manifest("org/a", LATEST) for _ in range(10)))
        await gate.reached.wait()
        gate.release()
        assert len(await asked) == 10
        assert auth.count == 1


async def test_token_request_that_is_cancelled_is_repeated(tasks: Tasks) -> None:
    """A request that is cancelled while it fetches a token leaves that to the next request."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        guarded(fake)
        await registry.head_manifest("org/b", LATEST)
        gate = fake.hold("/token", after=-1)
        first = tasks.spawn(registry.head_manifest("org/a", LATEST), name="first")
        await gate.reached.wait()
        second = tasks.spawn(registry.head_manifest("org/a", LATEST), name="second")
        await asyncio.sleep(0)  # now it waits behind the first
        first.cancel()
        assert (await second).digest is not None
        assert first.cancelling()


async def test_token_server_that_is_dead_is_asked_once_for_all(tasks: Tasks) -> None:
    """All callers that waited for a failed token get the same failure, without a request each."""
    async with FakeRegistry() as fake, registry_at(fake.url, attempts=1) as registry:
        guarded(fake)
        await registry.head_manifest("org/a", LATEST)
        fake.log.clear()
        gate = Gate()
        fake.fault(Fault(status=503, hold=gate, after=-1), match="/token", times=9)
        asked = [tasks.spawn(registry.head_manifest("org/b", LATEST), name=str(n)) for n in range(5)]
        await gate.reached.wait()
        gate.release()
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(each, UpstreamError) for each in results)
        assert len(tokens(fake)) == 1


async def test_basic_authentication() -> None:
    """A registry that wants Basic gets user and password, without a 401 from the second request on."""
    async with FakeRegistry() as fake, registry_at(fake.url, **LOGIN) as registry:
        guarded(fake)
        fake.auth = BasicAuth("me", "geheim")
        await registry.head_manifest("org/a", LATEST)
        await registry.head_manifest("org/b", LATEST)
        assert [seen.status for seen in fake.log] == [401, 200, 200]


async def test_basic_authentication_without_credentials() -> None:
    """A registry that wants a password from a mirror without one is DENIED; the message says what to set."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        guarded(fake)
        fake.auth = BasicAuth("me", "geheim")
        with pytest.raises(UpstreamError) as raised:
            await registry.head_manifest("org/a", LATEST)
        assert raised.value.message == (
            "docker.io: cannot authenticate: 127.0.0.1 wants user and password, and none are configured: "
            "set username and password_file"
        )
        assert (raised.value.failure, raised.value.final) == (Failure.DENIED, True)
        assert [seen.method for seen in fake.log] == ["HEAD", "GET"]


async def test_basic_authentication_with_a_wrong_password() -> None:
    """A wrong password is tried once per request and stays out of the message."""
    async with FakeRegistry() as fake, registry_at(fake.url, **LOGIN) as registry:
        guarded(fake)
        fake.auth = BasicAuth("me", "other")
        for requests in (2, 3):
            with pytest.raises(UpstreamError) as raised:
                await registry.head_manifest("org/a", LATEST)
            assert raised.value.failure is Failure.DENIED
            assert raised.value.message == REFUSED
            assert len(fake.log) == requests


async def test_challenge_bearer_is_preferred_to_basic() -> None:
    """Bearer is answered if one header has several challenges."""
    async with FakeRegistry() as fake, registry_at(fake.url, **LOGIN) as registry:
        auth = guarded(fake, user="me", password="geheim")
        fake.challenges = ['Basic realm="fake"', *auth.challenges(fake.url, "org/a"), "Negotiate"]
        await registry.head_manifest("org/a", LATEST)
        assert fake.log[-1].headers["Authorization"].startswith("Bearer ")


async def test_challenge_basic_is_answered_if_bearer_is_unusable() -> None:
    """The Basic challenge is answered if the realm of the Bearer challenge may not be asked."""
    async with FakeRegistry() as fake, registry_at(fake.url, **LOGIN) as registry:
        guarded(fake)
        fake.auth = BasicAuth("me", "geheim")
        fake.challenges = ['Bearer realm="ftp://x/token"', 'Basic realm="fake"']
        await registry.head_manifest("org/a", LATEST)
        assert logins(fake.log) == [None, ("me", "geheim")]


async def test_challenge_in_a_header_line_of_its_own() -> None:
    """Challenges may come in several header lines."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        auth = guarded(fake)
        lines = ["Basic realm=x", *auth.challenges(fake.url, "org/a")]
        head = "".join(f"WWW-Authenticate: {line}\r\n" for line in lines)
        fake.fault(Fault(raw=f"HTTP/1.1 401 No\r\n{head}Content-Length: 0\r\n\r\n".encode()))
        await registry.head_manifest("org/a", LATEST)
        assert fake.log[-1].headers["Authorization"].startswith("Bearer ")


@pytest.mark.parametrize("challenges", [[], ["Negotiate"], ["%%%"]])
async def test_challenge_that_is_unknown(challenges: list[str]) -> None:
    """A 401 without a known challenge is DENIED."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        guarded(fake)
        fake.challenges = challenges
        with pytest.raises(
            UpstreamError, match="cannot authenticate: the upstream did not say how"
        ) as raised:
            await registry.head_manifest("org/a", LATEST)
        assert raised.value.failure is Failure.DENIED


@pytest.mark.parametrize(
    "body",
    [
        b"x" * (MAX_TOKEN_BYTES + 1),
        b"<html>",
        b"[]",
        b"{}",
        b'{"token": ""}',
        b'{"token": 5}',
        b'{"token": "a\\r\\nX-Evil: b"}',
        b"[" * 100_000,
    ],
)
async def test_token_answer_that_is_invalid(body: bytes) -> None:
    """An answer without a token, too long, or with a token that would break out of a header, is INVALID."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        guarded(fake)
        fake.fault(Fault(status=200, body=body), match="/token")
        with pytest.raises(UpstreamError) as raised:
            await registry.get_manifest("org/a", LATEST)
        assert raised.value.failure is Failure.INVALID


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (401, Failure.DENIED),
        (403, Failure.DENIED),
        (404, Failure.INVALID),
        (408, Failure.TIMEOUT),
        (429, Failure.RATE_LIMITED),
        (503, Failure.SERVER_ERROR),
    ],
)
async def test_token_server_failures(status: int, failure: Failure) -> None:
    """Failures of the token server are told apart as any other."""
    async with FakeRegistry() as fake, registry_at(fake.url, attempts=1) as registry:
        guarded(fake)
        headers = {"Retry-After": "7", "Location": "/elsewhere"}
        fake.fault(Fault(status=status, body=oci_error("X", "the reason"), headers=headers), match="/token")
        with pytest.raises(UpstreamError, match="the reason") as raised:
            await registry.head_manifest("org/a", LATEST)
        assert (raised.value.failure, raised.value.status, raised.value.retry_after) == (failure, status, 7.0)


async def test_refused_password_is_not_sent_again_at_once() -> None:
    """Docker Hub locks accounts after wrong passwords: for a minute no request sends it again."""
    time = FakeTime()
    async with FakeRegistry() as fake, registry_at(fake.url, time, **LOGIN) as registry:
        guarded(fake, user="me", password="other")
        for path in ("org/a", "org/b", "org/a"):
            with pytest.raises(UpstreamError) as raised:
                await registry.head_manifest(path, LATEST)
            assert raised.value.failure is Failure.DENIED
            assert raised.value.message.startswith(REFUSED)
        assert logins(tokens(fake)) == [("me", "geheim")]
        time.now += 61
        with pytest.raises(UpstreamError):
            await registry.head_manifest("org/a", LATEST)
        assert len(tokens(fake)) == 2


def lines_about_passwords(lines: list[Any]) -> list[tuple[str, str]]:
    """Return level and event of each line, all of them with upstream and account."""
    for line in lines:
        assert (line["upstream"], line["account"]) == ("docker.io", "me")
    return [(line["log_level"], line["event"]) for line in lines]


WARNED = ("warning", "password refused, check username and password_file")
ACCEPTED = ("info", "password accepted again")


async def pull(registry: RegistryClient, times: int = 1) -> list[str]:
    """Return the outcomes of `times` requests."""
    outcomes = []
    for _ in range(times):
        try:
            await registry.head_manifest("org/a", LATEST)
        except UpstreamError as error:
            outcomes.append(error.failure.value)
        else:
            outcomes.append("ok")
    return outcomes


async def test_refused_basic_password_is_logged_once_until_it_works() -> None:
    """One warning for all requests, one line when the password is accepted; the account's state agrees."""
    async with FakeRegistry() as fake, registry_at(fake.url, **LOGIN) as registry:
        guarded(fake)
        fake.auth = basic = BasicAuth("me", "other")
        (account,) = registry.accounts.all
        with capture_logs() as lines:
            assert await pull(registry, 3) == ["denied"] * 3
            assert (account.auth.refused, account.state()["refused"]) == (True, True)
            basic.password = "geheim"
            assert await pull(registry, 2) == ["ok"] * 2
        assert (account.auth.refused, account.state()["refused"]) == (False, False)
    assert lines_about_passwords(lines) == [WARNED, ACCEPTED]
    assert lines[0]["server"] == "127.0.0.1"
    assert "geheim" not in str(lines)


async def test_refused_password_at_the_token_server_is_logged_once_until_it_works() -> None:
    """The warning names the host that refused; an hour of refusals is one warning."""
    time = FakeTime()
    async with FakeRegistry() as fake, registry_at(fake.url, time, **LOGIN) as registry:
        auth = guarded(fake, user="me", password="other")
        (account,) = registry.accounts.all
        with capture_logs() as lines:
            for _ in range(60):
                assert await pull(registry, 2) == ["denied"] * 2
                time.now += 61
            assert (account.auth.refused, account.state()["refused"]) == (False, True)
            auth.password = "geheim"
            assert await pull(registry, 2) == ["ok"] * 2
        assert account.state()["refused"] is False
    assert lines_about_passwords(lines) == [WARNED, ACCEPTED]
    assert "geheim" not in str(lines)


async def test_refused_password_is_not_a_refused_token() -> None:
    """A refused token, and a 404 behind the password, do not make the password a wrong one."""
    async with FakeRegistry() as fake, registry_at(fake.url, **LOGIN) as registry:
        auth = guarded(fake, user="me", password="geheim")
        (account,) = registry.accounts.all
        with capture_logs() as lines:
            challenge = {"WWW-Authenticate": auth.challenges(fake.url, "org/a")[0]}
            fake.fault(Fault(status=401, headers=challenge), "manifests", times=4)
            assert await pull(registry) == ["denied"]
            assert account.state()["refused"] is False
            fake.auth = BasicAuth("me", "geheim")
            fake.fault(Fault(status=404), "manifests", times=4)
            assert await pull(registry) == ["not_found"]
    assert (account.state()["refused"], lines) == (False, [])


async def test_denied_repository_is_not_a_refused_password() -> None:
    """A 401 may be for a repository that is denied to the user: /v2/ proves the password right."""
    async with FakeRegistry() as fake, registry_at(fake.url, **LOGIN) as registry:
        guarded(fake)
        fake.auth = basic = BasicAuth("me", "geheim", denied={"org/b"})
        (account,) = registry.accounts.all
        with capture_logs() as lines:
            assert await pull(registry) == ["ok"]
            for _ in range(2):
                with pytest.raises(UpstreamError, match="not for org/b") as raised:
                    await registry.head_manifest("org/b", LATEST)
                assert raised.value.failure is Failure.DENIED
            assert [seen.path for seen in fake.log][-2:] == ["/v2/org/b/manifests/latest", "/v2/"]
            assert (account.auth.refused, account.state()["refused"], lines) == (False, False, [])
            basic.password = "other"
            assert await pull(registry) == ["denied"]
    assert account.state()["refused"] is True
    assert lines_about_passwords(lines) == [WARNED]

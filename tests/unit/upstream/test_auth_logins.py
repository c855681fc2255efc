"""Accounts whose credentials change while the mirror runs: files, helpers, commands, identity tokens."""

import asyncio
import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mirror.credentials.helper import NOT_FOUND
from mirror.credentials.login import RETRY
from mirror.oci.reference import Tag
from mirror.upstream.errors import Failure, UpstreamError
from tests.fakes.access import BasicAuth, TokenAuth, basic_login
from tests.fakes.faults import Fault, oci_error
from tests.fakes.limit import RateLimit
from tests.fakes.programs import FakeProgram, write_file
from tests.fakes.registry import FakeRegistry
from tests.fakes.upstream import FakeTime, registry_at

LATEST = Tag("latest")
CLOSED = "org/closed"


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeProgram:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return FakeProgram(tmp_path / "bin", "docker-credential-test")


@pytest.fixture
def basic(fake: FakeRegistry) -> BasicAuth:
    fake.add_image(CLOSED, "latest", [b"layer"])
    fake.auth = auth = BasicAuth("AWS", "neu")
    return auth


@pytest.fixture
def bearer(fake: FakeRegistry) -> TokenAuth:
    fake.add_image(CLOSED, "latest", [b"layer"])
    fake.auth = auth = TokenAuth(user="me", password="neu", private={CLOSED})
    return auth


def host_of(fake: FakeRegistry) -> str:
    return fake.url.removeprefix("http://")


def logins(fake: FakeRegistry) -> list[tuple[str, str]]:
    """Return the passwords that were sent, one after another."""
    sent = [basic_login(seen.headers.get("Authorization")) for seen in fake.log]
    return [each for each in sent if each is not None]


async def test_password_file_that_changes_is_used_without_a_failure(
    fake: FakeRegistry, bearer: TokenAuth, tmp_path: Path
) -> None:
    """The token server refuses the old password; the new one is read, and the same request goes on."""
    file = tmp_path / "password"
    write_file(file, "alt")
    async with registry_at(fake.url, username="me", password_file=str(file)) as registry:
        write_file(file, "neu")
        await registry.head_manifest(CLOSED, LATEST)
    assert logins(fake) == [("me", "alt"), ("me", "neu")]


async def test_basic_password_that_expires_early_is_renewed(
    fake: FakeRegistry, basic: BasicAuth, helper: FakeProgram
) -> None:
    """ECR's is such a password; the client sees nothing of it."""
    time = FakeTime()
    helper.knows({host_of(fake): ("AWS", "neu")})
    async with registry_at(fake.url, time, credential_helper="test") as registry:
        await registry.head_manifest(CLOSED, LATEST)
        time.now += RETRY
        basic.password = "neuer"
        helper.knows({host_of(fake): ("AWS", "neuer")})
        await registry.head_manifest(CLOSED, LATEST)
        await registry.head_manifest(CLOSED, LATEST)
        assert not registry.accounts.all[0].auth.password_refused
    assert len(helper.calls) == 2
    assert logins(fake)[-2:] == [("AWS", "neuer")] * 2


async def test_basic_password_refused_at_its_first_use_is_renewed(
    fake: FakeRegistry, basic: BasicAuth, tmp_path: Path
) -> None:
    """The file has changed since the start."""
    file = tmp_path / "password"
    write_file(file, "alt")
    async with registry_at(fake.url, username="AWS", password_file=str(file)) as registry:
        write_file(file, "neu")
        await registry.head_manifest(CLOSED, LATEST)
    assert logins(fake) == [("AWS", "alt"), ("AWS", "neu")]


async def test_password_that_stays_wrong_is_refused_as_before(
    fake: FakeRegistry, bearer: TokenAuth, helper: FakeProgram
) -> None:
    """One run and one attempt for a minute, and the error names the option."""
    helper.knows({host_of(fake): ("me", "alt")})
    async with registry_at(fake.url, credential_helper="test") as registry:
        for _ in range(3):
            with pytest.raises(UpstreamError, match="check credential_helper") as raised:
                await registry.head_manifest(CLOSED, LATEST)
            assert (raised.value.failure, raised.value.vague) == (Failure.DENIED, True)
    assert logins(fake) == [("me", "alt")]
    assert len(helper.calls) == 1


async def test_helper_runs_when_a_registry_wants_a_password(fake: FakeRegistry, helper: FakeProgram) -> None:
    """Not before: an open registry needs none."""
    fake.add_image("org/open", "latest", [b"layer"])
    async with registry_at(fake.url, credential_helper="test") as registry:
        await registry.head_manifest("org/open", LATEST)
    assert helper.calls == []


async def test_helper_that_fails_is_named_to_the_client(
    fake: FakeRegistry, bearer: TokenAuth, helper: FakeProgram
) -> None:
    """The error has no word of the helper, which is run again after a pause only."""
    helper.says("geheim", status=1)
    async with registry_at(fake.url, credential_helper="test") as registry:
        for _ in range(3):
            with pytest.raises(
                UpstreamError, match=r"no credentials: docker-credential-test ended"
            ) as raised:
                await registry.head_manifest(CLOSED, LATEST)
            assert raised.value.failure is Failure.DENIED
            assert "geheim" not in raised.value.message
        assert registry.accounts.all[0].auth.password_refused
    assert len(helper.calls) == 1


async def test_helper_without_a_login_leaves_public_pulls_alone(
    fake: FakeRegistry, bearer: TokenAuth, helper: FakeProgram
) -> None:
    """Public repositories are asked for anonymously."""
    fake.add_image("org/open", "latest", [b"layer"])
    helper.knows({}, otherwise=NOT_FOUND)
    async with registry_at(fake.url, credential_helper="test") as registry:
        await registry.head_manifest("org/open", LATEST)
        with pytest.raises(UpstreamError):
            await registry.head_manifest(CLOSED, LATEST)
    assert logins(fake) == []


async def test_basic_registry_without_a_login_says_where_none_was_found(
    fake: FakeRegistry, basic: BasicAuth, helper: FakeProgram
) -> None:
    """The helper's own words do not tell a foreign host from missing credentials."""
    helper.knows({}, otherwise=NOT_FOUND)
    async with registry_at(fake.url, credential_helper="test") as registry:
        with pytest.raises(UpstreamError, match=f"docker-credential-test has no login for {host_of(fake)}"):
            await registry.get_manifest(CLOSED, LATEST)


async def test_account_without_a_login_comes_last(
    fake: FakeRegistry, bearer: TokenAuth, helper: FakeProgram
) -> None:
    """Another account is used from the beginning, and a source that fails is passed over as well."""
    fake.limit = RateLimit(20)
    second: dict[str, Any] = {"accounts": [{"username": "me", "password": "neu"}]}
    for fails in (False, True):
        if fails:
            helper.says("x", status=1)
        else:
            helper.knows({}, otherwise=NOT_FOUND)
        command = {"username": "first", "password_command": [str(helper.path)]}
        for first in ({"credential_helper": "test"}, command):
            async with registry_at(fake.url, **first, **second) as registry:
                await registry.get_manifest(CLOSED, LATEST)
    assert set(logins(fake)) <= {("me", "neu"), ("first", "{}")}
    assert ("me", "neu") in logins(fake)


async def test_identity_token_is_exchanged_by_post(
    fake: FakeRegistry, bearer: TokenAuth, tmp_path: Path
) -> None:
    """Docker does so with the `identitytoken` of its config.json."""
    bearer.identity_tokens["tok"] = "me"
    entry = {"auth": base64.b64encode(b"me:").decode(), "identitytoken": "tok"}
    file = tmp_path / "config.json"
    write_file(file, json.dumps({"auths": {host_of(fake): entry}}))
    async with registry_at(fake.url, docker_config=str(file)) as registry:
        await registry.head_manifest(CLOSED, LATEST)
    assert [seen.method for seen in fake.log if seen.path == "/token"] == ["POST"]
    assert fake.askers(CLOSED) == {"", "me"}


async def test_identity_token_that_is_refused_is_read_again(
    fake: FakeRegistry, bearer: TokenAuth, tmp_path: Path
) -> None:
    """`docker login` has written another one meanwhile."""
    bearer.identity_tokens["neu"] = "me"
    file, time = tmp_path / "config.json", FakeTime()
    write_file(file, json.dumps({"auths": {host_of(fake): {"identitytoken": "alt"}}}))
    async with registry_at(fake.url, time, docker_config=str(file)) as registry:
        with pytest.raises(UpstreamError, match="check docker_config"):
            await registry.head_manifest(CLOSED, LATEST)
        write_file(file, json.dumps({"auths": {host_of(fake): {"identitytoken": "neu"}}}))
        time.now += 60
        await registry.head_manifest(CLOSED, LATEST)


async def test_identity_token_is_no_password(fake: FakeRegistry, basic: BasicAuth, tmp_path: Path) -> None:
    """A registry that wants Basic gets none, and the error says why."""
    file = tmp_path / "config.json"
    write_file(file, json.dumps({"auths": {host_of(fake): {"identitytoken": "tok"}}}))
    async with registry_at(fake.url, docker_config=str(file)) as registry:
        with pytest.raises(UpstreamError, match="has an identity token, which is none"):
            await registry.get_manifest(CLOSED, LATEST)


async def test_token_of_another_user_is_not_used(
    fake: FakeRegistry, bearer: TokenAuth, tmp_path: Path
) -> None:
    """A config.json that has another user by now: tokens of the former one end with it."""
    bearer.users["you"] = "x"
    file, time = tmp_path / "config.json", FakeTime()

    def write(login: str) -> None:
        entry = {"auth": base64.b64encode(login.encode()).decode()}
        write_file(file, json.dumps({"auths": {host_of(fake): entry}}))

    write("me:neu")
    async with registry_at(fake.url, time, docker_config=str(file)) as registry:
        await registry.head_manifest(CLOSED, LATEST)
        write("you:x")
        time.now += 31
        await registry.head_manifest(CLOSED, LATEST)  # starts the refresh
        login = registry.accounts.all[0].auth.login
        assert login is not None
        if login._running is not None:
            await asyncio.wait([login._running])
        await registry.head_manifest(CLOSED, LATEST)
    assert fake.askers(CLOSED) == {"", "me", "you"}


async def test_echoed_password_of_a_helper_is_masked(
    fake: FakeRegistry, bearer: TokenAuth, helper: FakeProgram
) -> None:
    """Plain, and as it was sent."""
    helper.knows({host_of(fake): ("me", "geheim-1")})
    echo = base64.b64encode(b"me:geheim-1").decode()
    fake.fault(Fault(status=403, body=oci_error("DENIED", f"bad geheim-1 or {echo}")), match="/token")
    async with registry_at(fake.url, credential_helper="test") as registry:
        with pytest.raises(UpstreamError, match=r"bad \*\*\* or \*\*\*"):
            await registry.head_manifest(CLOSED, LATEST)

"""The protocol of credential helpers, and how real helpers differ from it."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.credentials.credential import Credential, CredentialError
from mirror.credentials.helper import DOUBTED, NOT_FOUND, absence, ask, login_in
from mirror.credentials.process import Finished
from tests.fakes.programs import FakeProgram


@pytest.fixture
def helper(tmp_path: Path) -> FakeProgram:
    return FakeProgram(tmp_path / "bin", "docker-credential-test")


async def found(helper: FakeProgram, *servers: str) -> Credential | None:
    return (await ask("test", servers, environment(helper), 900.0)).credential


def environment(helper: FakeProgram) -> dict[str, str]:
    return {"PATH": f"{helper.path.parent}:{os.environ['PATH']}"}


async def test_helper_is_asked_for_the_server(helper: FakeProgram) -> None:
    """The program is found on PATH, and gets `get` and the bare server."""
    helper.knows({"quay.io": ("me", "geheim")})
    login = await found(helper, "quay.io", "https://quay.io")
    assert login == Credential("me", "geheim", place="docker-credential-test get quay.io")
    assert [call.split("|")[:2] for call in helper.calls] == [["get", "quay.io"]]


async def test_helper_that_knows_the_url_only_is_asked_again(helper: FakeProgram) -> None:
    """Stores match keys literally: `quay.io` does not find `https://quay.io`."""
    helper.knows({"https://quay.io": ("me", "geheim")}, otherwise=NOT_FOUND)
    login = await found(helper, "quay.io", "https://quay.io")
    assert login is not None
    assert login.place == "docker-credential-test get https://quay.io"
    assert helper.asked == ["quay.io", "https://quay.io"]


async def test_helper_that_answers_an_empty_login_has_none(helper: FakeProgram) -> None:
    """docker-credential-pass does so for a server that it does not know, with status 0."""
    helper.says('{"ServerURL":"quay.io","Username":"","Secret":""}')
    answer = await ask("test", ("quay.io",), environment(helper), 900.0)
    assert (answer.credential, answer.fresh, answer.doubtful) == (None, 900.0, False)


async def test_helper_that_finds_nothing_may_have_failed(helper: FakeProgram) -> None:
    """docker-credential-ecr-login says the same when AWS is not reached: that is believed for a minute."""
    helper.knows({}, otherwise=NOT_FOUND)
    answer = await ask("test", ("quay.io",), environment(helper), 900.0)
    assert (answer.credential, answer.fresh, answer.doubtful) == (None, DOUBTED, True)


def test_helper_with_a_token_user_has_an_identity_token() -> None:
    """The name `<token>` is the protocol's."""
    login = login_in("x", "s", Finished(0, b'{"Username": "<token>", "Secret": "geheim"}'))
    assert login is not None
    assert login.identity


@pytest.mark.parametrize(
    ("status", "output", "reason"),
    [
        (1, "geheim", "ended with status 1; its words: echo quay.io | docker-credential-x get"),
        (1, "pass not initialized: geheim", "status 1: pass not initialized; its words"),
        (-9, "", "ended with status -9"),
        (0, "geheim", "something else than JSON"),
        (0, '["geheim"]', "something else than JSON"),
        (0, '{"Username": 1, "Secret": "geheim"}', "no text"),
        (0, '{"Username": "a:b", "Secret": "geheim"}', "cannot be used: a username has a colon"),
        (0, json.dumps({"Username": "me", "Secret": "geheim\0"}), "zero byte"),
    ],
)
def test_helper_that_fails_is_not_quoted(status: int, output: str, reason: str) -> None:
    """Errors and secrets come by the same pipe; only words that are known to be harmless are repeated."""
    with pytest.raises(CredentialError, match=reason.replace("|", r"\|")) as raised:
        login_in("docker-credential-x", "quay.io", Finished(status, output.encode()))
    assert "geheim" not in str(raised.value)


def test_helper_absence_says_what_the_ecr_helper_does_not() -> None:
    """The helper has the same words for a host that is no ECR and for missing AWS credentials."""
    assert "finds no AWS credentials or no way to AWS" in absence("ecr-login", ("a", "https://a"))
    assert absence("pass", ("a", "https://a")) == "docker-credential-pass has no login for a nor https://a"


@given(st.integers(-15, 3), st.binary(max_size=200) | st.text(max_size=50).map(str.encode))
def test_helper_answers_raise_credential_errors_only(status: int, output: bytes) -> None:
    """Any output of a helper is a login, none, or one error."""
    try:
        login = login_in("x", "s", Finished(status, output))
    except CredentialError:
        return
    assert login is None or login.secret

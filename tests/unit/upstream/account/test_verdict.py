"""Verdict about a password: refused for a minute, announced once, and about that password only."""

from structlog.testing import capture_logs
from yarl import URL

from mirror.credentials.credential import Credential
from mirror.upstream.account.verdict import REFUSED_FOR, PasswordVerdict
from mirror.upstream.errors import Failure
from tests.fakes.upstream import FakeTime

LOGIN, SERVER = Credential("me", "geheim"), URL("https://auth.test/token")


def test_verdict_refuses_a_password_for_a_minute() -> None:
    """Another password is tried at once."""
    time = FakeTime()
    verdict = PasswordVerdict("quay.io", "its options", time)
    assert not verdict.refuses(LOGIN)
    verdict.note_refusal(LOGIN, SERVER)
    assert verdict.refuses(LOGIN)
    assert not verdict.refuses(Credential("me", "other"))
    time.now += REFUSED_FOR
    assert not verdict.refuses(LOGIN)
    assert verdict.refused  # until one is accepted


def test_verdict_is_announced_once() -> None:
    """A warning names what to check; acceptance ends it."""
    verdict = PasswordVerdict("quay.io", "its options", FakeTime())
    with capture_logs() as lines:
        for _ in range(3):
            verdict.note_refusal(LOGIN, SERVER)
        verdict.note_acceptance(LOGIN)
        verdict.note_acceptance(LOGIN)
    events = [line["event"] for line in lines]
    assert events == ["password refused, check its options", "password accepted again"]
    assert verdict.accepted
    assert not verdict.refused
    assert "geheim" not in str(lines)


def test_verdict_error_names_user_and_server() -> None:
    """The error is about this mirror, not about a repository."""
    verdict = PasswordVerdict("quay.io", "its options", FakeTime())
    verdict.note_refusal(LOGIN, SERVER)
    error = verdict.error()
    assert (error.failure, error.vague) == (Failure.DENIED, True)
    assert error.message == "quay.io: auth.test refused the password of user me: check its options"

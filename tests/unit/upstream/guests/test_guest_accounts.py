import gc

import pytest

from mirror.config.endpoints import UpstreamSettings
from mirror.metrics.metrics import Metrics
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.guests.current import serve_guest, serving_nobody
from mirror.upstream.guests.guest_accounts import ALONE_SECONDS, GuestAccounts
from mirror.upstream.guests.guest_login import GuestLogin
from mirror.upstream.http.transport import Transport

LOGIN = GuestLogin("me", "canary")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def accounts(private: str = "as-upstream", clock: Clock | None = None) -> GuestAccounts:
    settings = UpstreamSettings.model_validate(
        {"name": "quay.io", "url": "https://quay.test", "private": private}
    )
    return GuestAccounts(settings, Transport(settings, Metrics()), clock or Clock())


def test_guest_account_is_for_its_upstream_and_repository_only() -> None:
    found = accounts()
    with serving_nobody():
        assert found.current("org/app") is None
        guest = found.guest("org/app", LOGIN)
        serve_guest(guest)
        assert found.current("org/app") is guest.account
        assert found.current("org/other") is None
        assert accounts("named").current("org/app") is None


def test_guest_account_is_kept_by_its_guests_alone() -> None:
    found = accounts()
    guest = found.guest("org/app", LOGIN)
    assert found.guest("org/other", GuestLogin("me", "canary")).account is guest.account
    assert len(found._accounts) == 1
    del guest
    gc.collect()
    assert len(found._accounts) == 0


def test_repository_that_only_a_guest_can_read_is_remembered_for_a_while() -> None:
    clock = Clock()
    found = accounts(clock=clock)
    found.note_alone("org/app")
    assert found.is_alone("org/app")
    assert not found.is_alone("org/other")
    clock.now += ALONE_SECONDS
    assert not found.is_alone("org/app")


async def test_token_of_a_guest_is_sent_and_never_renewed() -> None:
    auth = accounts().account(GuestLogin(token="canary")).auth
    assert await auth.current("org/app") == "Bearer canary"
    with pytest.raises(UpstreamError) as raised:
        await auth.answer(None)  # type: ignore[arg-type]
    assert raised.value.failure is Failure.DENIED
    assert "canary" not in str(raised.value)


def test_refusal_of_a_guest_is_no_advice_for_the_operator() -> None:
    error = accounts().account(LOGIN).auth.verdict.error()
    assert str(error) == "quay.io refused the user and password that the client sent"


def test_guest_secret_is_redacted() -> None:
    found = accounts()
    with serving_nobody():
        assert found.redacted("canary") == "canary"
        serve_guest(found.guest("org/app", LOGIN))
        assert found.redacted("a canary") == "a ***"

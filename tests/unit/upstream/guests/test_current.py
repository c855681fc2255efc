from mirror.upstream.guests.current import Guest, asker, current_guest, serve_guest, serving_nobody
from mirror.upstream.guests.guest_login import GuestLogin
from mirror.util.tasks import Tasks

GUEST = Guest("quay.io", "org/app", GuestLogin("me", "canary"), object())


async def test_guest_is_inherited_by_tasks_and_ends_with_its_request() -> None:
    tasks = Tasks()

    async def asked_for() -> Guest | None:
        return current_guest()

    with serving_nobody():
        assert await tasks.spawn(asked_for(), name="before") is None
        serve_guest(GUEST)
        assert await tasks.spawn(asked_for(), name="after") is GUEST
        assert asker() == GUEST.credentials.key()
        with serving_nobody():
            assert current_guest() is None
        assert current_guest() is GUEST
    assert current_guest() is None
    assert asker() == b""
    await tasks.close()


def test_guest_shows_no_secret() -> None:
    assert "canary" not in f"{GUEST} {GUEST!r}"

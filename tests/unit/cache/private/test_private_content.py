from mirror.oci.reference import Repository
from mirror.upstream.guests.current import current_guest, serving_nobody
from mirror.upstream.guests.guest_login import GuestLogin
from tests.unit.cache.private.conftest import Scene

SECRET = Repository("quay.io", "org/secret")


async def test_upstreams_without_an_account_are_not_guarded(scene: Scene) -> None:
    assert scene.content.guarded == scene.content.open_to_guests == {"quay.io"}


async def test_guest_is_served_once_it_is_admitted(scene: Scene) -> None:
    with serving_nobody():
        assert await scene.content.admit_guest(SECRET, "1", GuestLogin("me", "y")) == 0
        assert current_guest() is None
        assert await scene.content.admit_guest(SECRET, "1", GuestLogin("me", "x")) > 0
        guest = current_guest()
        assert guest is not None
        assert (guest.upstream, guest.path) == ("quay.io", "org/secret")

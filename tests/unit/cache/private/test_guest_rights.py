import asyncio

from mirror.cache.private.guest_rights import GRANTED_SECONDS, REFUSED_SECONDS
from mirror.oci.reference import Repository
from mirror.upstream.guests.current import serving_nobody
from mirror.upstream.guests.guest_login import GuestLogin
from tests.fakes.access import TokenAuth
from tests.unit.cache.private.conftest import Scene

SECRET = Repository("quay.io", "org/secret")
ME, WRONG = GuestLogin("me", "x"), GuestLogin("me", "y")


async def test_rights_of_a_guest_are_asked_once_for_all_who_wait(scene: Scene) -> None:
    with serving_nobody():
        found = await asyncio.gather(*(scene.content.admit_guest(SECRET, "1", ME) for _ in range(5)))
    assert found == [GRANTED_SECONDS] * 5
    assert scene.quay.requests("HEAD", "org/secret") == 2  # the challenge, and its answer
    scene.now += GRANTED_SECONDS - 1
    assert scene.content.opens(SECRET, ME)
    scene.now += 1
    assert not scene.content.opens(SECRET, ME)


async def test_wrong_password_is_passed_on_once(scene: Scene) -> None:
    other = Repository("quay.io", "org/other")
    for repository in (SECRET, SECRET, other):
        assert await scene.content.admit_guest(repository, "1", WRONG) == 0
        scene.now += REFUSED_SECONDS
    assert scene.quay.requests("GET", "/token") == 1


async def test_right_that_is_refused_is_asked_for_again_after_a_minute(scene: Scene) -> None:
    assert isinstance(scene.quay.auth, TokenAuth)
    scene.quay.auth.readers["org/secret"] = set()
    assert await scene.content.admit_guest(SECRET, "1", ME) == 0
    scene.quay.auth.readers["org/secret"] = {"me"}
    assert await scene.content.admit_guest(SECRET, "1", ME) == 0
    scene.now += REFUSED_SECONDS
    with serving_nobody():
        assert await scene.content.admit_guest(SECRET, "1", ME) == GRANTED_SECONDS


async def test_rights_are_remembered_without_the_credentials(scene: Scene) -> None:
    with serving_nobody():
        await scene.content.admit_guest(SECRET, "1", GuestLogin("me", "x"))
    rights = scene.content._rights
    kept = f"{rights._answers._entries}{rights._wrong._entries}{rights._right._entries}"
    assert "'x'" not in kept

import pytest

from mirror.cache.private.visibility import PRIVATE_SECONDS, PUBLIC_SECONDS, Verdict
from mirror.oci.reference import Repository
from mirror.upstream.errors import Failure, UpstreamError
from tests.fakes.access import TokenAuth
from tests.fakes.faults import Fault
from tests.unit.cache.private.conftest import DAY, Scene

SECRET, OPEN = Repository("quay.io", "org/secret"), Repository("quay.io", "org/open")


async def test_visibility_is_asked_once_for_its_term(scene: Scene) -> None:
    assert await scene.content.visibility(OPEN, "1") == Verdict(public=True, ttl=PUBLIC_SECONDS)
    assert await scene.content.visibility(SECRET, "1") == Verdict(public=False, ttl=PRIVATE_SECONDS)
    asked = len(scene.quay.log)
    scene.now += PRIVATE_SECONDS - 1
    assert await scene.content.visibility(OPEN, None) == Verdict(
        public=True, ttl=PUBLIC_SECONDS - PRIVATE_SECONDS + 1
    )
    assert await scene.content.visibility(SECRET, None) == Verdict(public=False, ttl=1)
    assert len(scene.quay.log) == asked


async def test_visibility_changes_with_its_upstream(scene: Scene) -> None:
    assert (await scene.content.visibility(OPEN, "1")).public
    assert not (await scene.content.visibility(SECRET, "1")).public
    assert isinstance(scene.quay.auth, TokenAuth)
    scene.quay.auth.private, scene.quay.auth.readers = {"org/open"}, {}
    scene.quay.auth.issued.clear()
    scene.now += PUBLIC_SECONDS
    assert not (await scene.content.visibility(OPEN, "1")).public
    assert (await scene.content.visibility(SECRET, "1")).public


async def test_clock_that_was_set_back_makes_nothing_public(scene: Scene) -> None:
    assert (await scene.content.visibility(OPEN, "1")).public
    asked = len(scene.quay.log)
    scene.now -= DAY
    assert (await scene.content.visibility(OPEN, "1")).public
    assert len(scene.quay.log) > asked


async def test_unknown_visibility_in_an_outage_is_an_error(scene: Scene) -> None:
    scene.quay.fault(Fault(status=503), times=100)
    with pytest.raises(UpstreamError) as raised:
        await scene.content.visibility(OPEN, "1")
    assert raised.value.failure is Failure.SERVER_ERROR


async def test_known_visibility_in_an_outage_is_asked_about_once_a_minute(scene: Scene) -> None:
    await scene.content.visibility(OPEN, "1")
    scene.now += PUBLIC_SECONDS
    scene.quay.fault(Fault(status=503), times=100)
    asked = None
    for _ in range(3):
        assert await scene.content.visibility(OPEN, "1") == Verdict(public=True)
        assert asked in (None, len(scene.quay.log))
        asked = len(scene.quay.log)


async def test_repository_with_nothing_that_anybody_may_read_is_not_found(scene: Scene) -> None:
    none = Repository("quay.io", "org/none")
    for _ in range(2):
        with pytest.raises(UpstreamError) as raised:
            await scene.content.visibility(none, "1")
        assert raised.value.failure is Failure.NOT_FOUND
    assert scene.quay.requests("GET", "org/none/tags/list") == 1
    assert await scene.content.public_among([str(none)]) == set()


async def test_names_that_are_public_are_so_for_recheck_access(scene: Scene) -> None:
    await scene.content.visibility(OPEN, "1")
    names = [str(OPEN), str(SECRET)]
    assert await scene.content.public_among(names) == {str(OPEN)}
    scene.now += DAY - 1
    assert await scene.content.public_among(names) == {str(OPEN)}
    scene.now += 1
    assert await scene.content.public_among(names) == set()
    assert await scene.content.public_among([]) == set()

"""What an upstream does not have: said again for a while, without asking."""

from pathlib import Path

import pytest

from mirror.cache import negative_cache
from mirror.cache.negative_cache import NegativeCache
from mirror.upstream.errors import Failure, UpstreamError
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, serving
from tests.wire import get, head

TAG = "/v2/docker.io/library/x/manifests/t"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def asked(known: NegativeCache[str], key: str, failure: Failure = Failure.NOT_FOUND) -> bool:
    """Whether a question that fails is asked."""
    questions: list[str] = []

    def ask() -> None:
        with known.remembering(key):
            questions.append(key)
            raise UpstreamError(failure, "what happened", status=404)

    with pytest.raises(UpstreamError, match="what happened"):
        ask()
    return questions == [key]


def test_not_found_is_said_again_for_a_while() -> None:
    """With the same words; then it is asked again. Other keys are other questions."""
    clock = Clock()
    known: NegativeCache[str] = NegativeCache(5, clock)
    assert asked(known, "a")
    clock.now += 4.9
    assert not asked(known, "a")
    assert asked(known, "b")
    clock.now += 0.1
    assert asked(known, "a")


@pytest.mark.parametrize("failure", set(Failure) - {Failure.NOT_FOUND})
def test_other_failures_are_not_remembered(failure: Failure) -> None:
    """They may be over the next moment."""
    known: NegativeCache[str] = NegativeCache(5, Clock())
    assert asked(known, "a", failure)
    assert asked(known, "a", failure)


def test_nothing_is_remembered_for_no_time() -> None:
    """`missing = 0` turns it off."""
    known: NegativeCache[str] = NegativeCache(0, Clock())
    assert asked(known, "a")
    assert asked(known, "a")


def test_it_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten first."""
    monkeypatch.setattr(negative_cache, "MOST", 2)
    known: NegativeCache[str] = NegativeCache(5, Clock())
    for key in "abc":
        assert asked(known, key)
    assert not asked(known, "c")
    assert not asked(known, "b")
    assert asked(known, "a")


async def test_a_tag_that_is_missing_is_asked_for_once(hub: FakeRegistry, mirror: Running) -> None:
    """Docker's HEAD, its GET for the text, and the next pull cost the upstream one request."""
    hub.add_image("library/x", "other", [b"a"])
    assert (await head(mirror.address, TAG)).status == 404
    assert b"MANIFEST_UNKNOWN" in (await get(mirror.address, TAG)).body
    assert (await get(mirror.address, "/v2/library/x/manifests/t?ns=docker.io")).status == 404
    assert len(hub.log) == 1


async def test_a_digest_that_is_missing_is_asked_for_once(hub: FakeRegistry, mirror: Running) -> None:
    """By repository: another one may have it."""
    digest = hub.add_image("library/y", "t", [b"a"]).manifest
    hub.add_image("library/x", "other", [b"b"])
    for ask in (get, head, get):
        assert (await ask(mirror.address, f"/v2/docker.io/library/x/manifests/{digest}")).status == 404
    assert len(hub.log) == 1
    assert (await get(mirror.address, f"/v2/docker.io/library/y/manifests/{digest}")).status == 200


async def test_a_tag_that_comes_is_found_after_a_while(hub: FakeRegistry, tmp_path: Path) -> None:
    """Here at once, because nothing is remembered."""
    config = configured(tmp_path, {"docker.io": hub.url}, tags={"missing": 0})
    async with serving(config) as mirror:
        hub.add_image("library/x", "other", [b"a"])
        assert (await get(mirror.address, TAG)).status == 404
        hub.add_image("library/x", "t", [b"a"])
        assert (await get(mirror.address, TAG)).status == 200

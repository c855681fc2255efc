"""The negative cache: not found is repeated for a while, without asking."""

from pathlib import Path

import pytest

from mirror.cache import negative_cache
from mirror.cache.negative_cache import MOST_VARIANTS, NegativeCache
from mirror.upstream.errors import Failure, UpstreamError
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, serving
from tests.wire import get, head

TAG = "/v2/docker.io/library/x/manifests/t"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def asked(
    known: NegativeCache[str], key: str, failure: Failure = Failure.NOT_FOUND, variant: str | None = None
) -> bool:
    """Return whether a request that fails reaches the upstream."""
    questions: list[str] = []

    def ask() -> None:
        with known.remembering(key, variant):
            questions.append(key)
            raise UpstreamError(failure, "what happened", status=404)

    with pytest.raises(UpstreamError, match="what happened"):
        ask()
    return questions == [key]


def test_negative_cache_forgets_after_ttl() -> None:
    """The same error for the TTL; then the upstream is asked again. Each key is separate."""
    clock = Clock()
    known: NegativeCache[str] = NegativeCache(5, clock)
    assert asked(known, "a")
    clock.now += 4.9
    assert not asked(known, "a")
    assert asked(known, "b")
    clock.now += 0.1
    assert asked(known, "a")


@pytest.mark.parametrize("failure", [each for each in Failure if each is not Failure.NOT_FOUND])
def test_negative_cache_ignores_other_failures(failure: Failure) -> None:
    """Other failures may be over the next moment."""
    known: NegativeCache[str] = NegativeCache(5, Clock())
    assert asked(known, "a", failure)
    assert asked(known, "a", failure)


def test_negative_cache_is_off_with_ttl_0() -> None:
    """`missing = 0` turns the negative cache off."""
    known: NegativeCache[str] = NegativeCache(0, Clock())
    assert asked(known, "a")
    assert asked(known, "a")


def test_negative_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest entry is forgotten first."""
    monkeypatch.setattr(negative_cache, "MOST", 2)
    known: NegativeCache[str] = NegativeCache(5, Clock())
    for key in "abc":
        assert asked(known, key)
    assert not asked(known, "c")
    assert not asked(known, "b")
    assert asked(known, "a")


def test_negative_cache_keeps_few_variants_of_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variant has its own time; made up ones are not remembered, and displace no other key."""
    monkeypatch.setattr(negative_cache, "MOST", 2)
    clock = Clock()
    known: NegativeCache[str] = NegativeCache(5, clock)
    assert asked(known, "a")
    clock.now += 2
    assert asked(known, "b")
    for number in range(10 * MOST_VARIANTS):
        assert asked(known, "b", variant=f"{number}")
    assert not asked(known, "b")
    assert not asked(known, "b", variant="0")
    assert asked(known, "b", variant=f"{MOST_VARIANTS}")
    assert not asked(known, "a")
    clock.now += 3
    assert asked(known, "a")
    assert not asked(known, "b")


async def test_negative_cache_of_made_up_types(hub: FakeRegistry, mirror: Running) -> None:
    """Types that a client makes up for Accept leave a few entries; the error without them stays known."""
    hub.add_image("library/x", "other", [b"a"])
    for number in range(3 * MOST_VARIANTS):
        accept = f"Accept: application/vnd.made.up{number}+json"
        assert (await get(mirror.address, TAG, accept)).status == 404
    variants = mirror.service.cache._tags._missing._known
    assert [len(errors) for _, errors in variants._entries.values()] == [MOST_VARIANTS]
    requests = len(hub.log)
    assert (await get(mirror.address, TAG)).status == 404
    assert len(hub.log) == requests


async def test_negative_cache_of_a_missing_tag(hub: FakeRegistry, mirror: Running) -> None:
    """Docker's HEAD, its GET for the error text, and the next pull cost the upstream one request."""
    hub.add_image("library/x", "other", [b"a"])
    assert (await head(mirror.address, TAG)).status == 404
    assert b"MANIFEST_UNKNOWN" in (await get(mirror.address, TAG)).body
    assert (await get(mirror.address, "/v2/library/x/manifests/t?ns=docker.io")).status == 404
    assert len(hub.log) == 1


async def test_negative_cache_of_a_missing_digest(hub: FakeRegistry, mirror: Running) -> None:
    """The error is remembered by repository: another repository may have the digest."""
    digest = hub.add_image("library/y", "t", [b"a"]).manifest
    hub.add_image("library/x", "other", [b"b"])
    for ask in (get, head, get):
        assert (await ask(mirror.address, f"/v2/docker.io/library/x/manifests/{digest}")).status == 404
    assert len(hub.log) == 1
    assert (await get(mirror.address, f"/v2/docker.io/library/y/manifests/{digest}")).status == 200


async def test_negative_cache_of_a_tag_that_is_pushed_later(hub: FakeRegistry, tmp_path: Path) -> None:
    """The tag is found at once here, because nothing is remembered."""
    config = configured(tmp_path, {"docker.io": hub.url}, tags={"missing": 0})
    async with serving(config) as mirror:
        hub.add_image("library/x", "other", [b"a"])
        assert (await get(mirror.address, TAG)).status == 404
        hub.add_image("library/x", "t", [b"a"])
        assert (await get(mirror.address, TAG)).status == 200

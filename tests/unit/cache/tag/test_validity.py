"""Validity: age and TTL of tag entries, imported ones among them."""

import math
from pathlib import Path

import pytest

from mirror.cache.tag.validity import TagValidity
from mirror.oci.reference import Repository, Tag
from mirror.store.metadata.index import NEVER, Provenance, TagEntry
from mirror.upstream.errors import Failure, UpstreamError
from tests.fakes.registry import FakeRegistry
from tests.running import configured, serving

X = Repository("docker.io", "library/x")
IMPORTED = Provenance("imported", "usb.tar", 1_700_000_000.0)


async def test_validity_of_an_imported_tag(hub: FakeRegistry, tmp_path: Path) -> None:
    """A tag that was never confirmed has no age, and is not fresh, whatever the patterns say."""
    now = 1_700_000_010.0
    config = configured(tmp_path, {"docker.io": hub.url}, tags={"fresh": "forever", "immutable": ["t"]})
    async with serving(config, lambda: now) as mirror:
        validity: TagValidity = mirror.service.cache._tags.validity
        imported = TagEntry("sha256:" + 64 * "0", "type", 1, NEVER, IMPORTED)
        confirmed = TagEntry("sha256:" + 64 * "0", "type", 1, now - 5)
        assert (validity.age(NEVER), validity.age(now - 5)) == (math.inf, 5.0)
        for tag in (Tag("t"), Tag("other")):
            assert validity.ttl(X, tag, imported) <= 0
            assert validity.ttl(X, tag, confirmed) == math.inf


@pytest.mark.parametrize(
    ("failure", "vague", "ended"),
    [
        (Failure.NOT_FOUND, False, True),
        (Failure.DENIED, False, True),
        (Failure.DENIED, True, False),
        (Failure.UNREACHABLE, False, False),
    ],
)
async def test_validity_ends_by_the_registrys_word(
    hub: FakeRegistry, tmp_path: Path, failure: Failure, vague: bool, ended: bool
) -> None:
    """An outage, or a refusal by something before the registry, ends nothing."""
    error = UpstreamError(failure, "why")
    error.vague = vague
    async with serving(configured(tmp_path, {"docker.io": hub.url})) as mirror:
        assert mirror.service.cache._tags.validity.is_ended_by(error, X, NEVER) is ended
    async with serving(configured(tmp_path, {"docker.io": hub.url}, tags={"on_gone": "keep"})) as mirror:
        assert mirror.service.cache._tags.validity.is_ended_by(error, X, NEVER) is False


@pytest.mark.parametrize(("failure", "ended"), [(Failure.NOT_FOUND, False), (Failure.DENIED, True)])
async def test_validity_ends_by_access_that_is_revoked(
    hub: FakeRegistry, tmp_path: Path, failure: Failure, ended: bool
) -> None:
    """Kept content of an account ends with the account's access, when that is to be checked."""
    account = {"username": "me", "password": "secret", "recheck_access": 60}
    config = configured(tmp_path, {"docker.io": hub.url}, tags={"on_gone": "keep"}, upstream=account)
    now = 1_700_000_000.0
    async with serving(config, lambda: now) as mirror:
        validity = mirror.service.cache._tags.validity
        assert validity.is_ended_by(UpstreamError(failure, "why"), X, now - 61) is ended
        assert validity.is_ended_by(UpstreamError(failure, "why"), X, now - 59) is False

"""Result values: defaults that `web` and the metrics rely on."""

import math

from mirror.cache.results import FOREVER, ManifestInfo, Outcome, Staleness, TagsAnswer
from mirror.oci.digest import Digest


def test_manifest_info_is_not_cacheable_by_default() -> None:
    """An answer without a known TTL may not be repeated, and is not stale."""
    info = ManifestInfo(Digest.of(b"manifest"), "application/json", 8, Outcome.MISS)
    assert (info.ttl, info.staleness) == (0.0, None)
    assert math.inf == FOREVER


def test_staleness_without_a_known_age() -> None:
    """A listing made of known tags is stale for a reason, and has no age."""
    page = TagsAnswer(b"{}", None, Outcome.STALE, Staleness(None, "docker.io has not answered lately"))
    assert page.staleness is not None
    assert (page.staleness.age, page.outcome.value) == (None, "stale")

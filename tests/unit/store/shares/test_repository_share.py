"""The share of one repository, on real files."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.config.cache_rules import CacheRuleSettings
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.cache_dir import CacheDirectory
from mirror.store.shares.repository_share import evict_excess, limits_of, rule_of, used_share
from tests.fakes.cached import X, open_folder, put_image

Z = Repository("docker.io", "library/z")
LAYERS = [bytes([number]) * 500_000 for number in range(4)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    folder = open_folder(tmp_path / "cache")
    yield folder
    folder.close()


def ruled(folder: CacheDirectory, **limits: object) -> None:
    folder.rules = (
        CacheRuleSettings.model_validate({"repositories": "docker.io/library/x", **limits}),
        CacheRuleSettings.model_validate({"repositories": "docker.io/*", "max_blob": "1GiB"}),
    )


def used(folder: CacheDirectory, *layers: bytes) -> None:
    """Note uses, one after another."""
    for number, layer in enumerate(layers, 1):
        folder.blobs.table.touch({Digest.of(layer): float(number)})


def test_first_rule_that_matches_counts(folder: CacheDirectory) -> None:
    """A percentage is one of what the cache may hold; without a rule there is no limit."""
    assert limits_of(folder, X).refusal(2**60) is None
    ruled(folder, max_share="50%")
    share = limits_of(folder, X).share
    assert share is not None
    assert abs(share / folder.evictor.size_limit() - 0.5) < 0.05
    assert (limits_of(folder, Z).blob, limits_of(folder, Z).share) == (1024**3, None)
    assert rule_of(folder, Repository("quay.io", "x")) is None


@pytest.mark.parametrize(
    ("limits", "size", "refused"),
    [
        ({"max_blob": "2MiB"}, 2 * 2**20, False),
        ({"max_blob": "2MiB"}, 2 * 2**20 + 1, True),
        ({"max_share": "2MiB"}, 2 * 2**20 + 1, True),
        ({"max_share": "2MiB", "max_blob": "1MiB"}, 2**20, False),
    ],
)
def test_blob_beyond_a_limit_is_refused(
    folder: CacheDirectory, limits: dict[str, str], size: int, refused: bool
) -> None:
    """The reason names rule and option."""
    ruled(folder, **limits)
    reason = limits_of(folder, X).refusal(size)
    assert (reason is not None and "[[cache.rules]] for docker.io/library/x" in reason) is refused


def test_share_is_made_of_own_blobs_least_recently_used_first(folder: CacheDirectory) -> None:
    """A blob that another repository links too counts half, and stays."""
    put_image(folder, X, "1", LAYERS)
    put_image(folder, Z, "1", LAYERS[:1])
    used(folder, LAYERS[0], LAYERS[2], LAYERS[1], LAYERS[3])
    before = used_share(folder, X)
    assert 1_750_000 <= before < 1_760_000
    ruled(folder, max_share="1MiB")
    evicted = evict_excess(folder, X)
    assert [each.digest for each in evicted] == [Digest.of(LAYERS[2]), Digest.of(LAYERS[1])]
    assert [folder.reader.has(Digest.of(layer)) for layer in LAYERS] == [True, False, False, True]
    assert used_share(folder, X) == before - 1_000_000
    assert evict_excess(folder, X) == []


def test_share_makes_room_for_what_comes(folder: CacheDirectory) -> None:
    """The blob that comes is not counted twice, nor evicted."""
    put_image(folder, X, "1", LAYERS[:2])
    used(folder, LAYERS[0], LAYERS[1])
    ruled(folder, max_share="1200KiB")
    assert evict_excess(folder, X, coming=500_000, keep=Digest.of(LAYERS[0])) == []
    evicted = evict_excess(folder, X, coming=500_000, keep=Digest.of(LAYERS[3]))
    assert [each.digest for each in evicted] == [Digest.of(LAYERS[0])]


def test_share_leaves_a_blob_that_is_read(folder: CacheDirectory) -> None:
    """The next one goes."""
    put_image(folder, X, "1", LAYERS[:3])
    used(folder, *LAYERS[:3])
    ruled(folder, max_share="1200KiB")
    opened = folder.blobs.open(Digest.of(LAYERS[0]))
    assert opened is not None
    with opened.file:
        evicted = evict_excess(folder, X)
    assert [each.digest for each in evicted] == [Digest.of(LAYERS[1])]


def test_share_without_a_rule_evicts_nothing(folder: CacheDirectory) -> None:
    """A rule for the largest blob alone does not either."""
    put_image(folder, Z, "1", LAYERS)
    ruled(folder, max_share="1MiB")
    assert evict_excess(folder, Z) == []

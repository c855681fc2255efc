"""Disk usage by repository and upstream."""

from pathlib import Path

from mirror.config.cache_rules import CacheRuleSettings
from mirror.manage.disk_usage import DiskUsage
from mirror.oci.image_pattern import ImagePattern
from mirror.oci.reference import Repository
from tests.fakes.cached import X, open_folder, put_image

Z = Repository("docker.io", "library/z")
Q = Repository("quay.io", "q")


def test_disk_usage_counts_shared_blobs_once(tmp_path: Path) -> None:
    """A blob counts once for each owner, and as own for its only owner; likewise for upstreams."""
    folder = open_folder(tmp_path / "cache")
    here, there = b"1" * 1000, b"2" * 10_000
    put_image(folder, X, "1", [here, there])
    put_image(folder, X, "2", [here])
    put_image(folder, Z, "1", [here])
    put_image(folder, Q, "1", [there])
    shares = {each.name: each for each in DiskUsage(folder).all()}
    assert list(shares) == [str(X), str(Z), "docker.io", str(Q), "quay.io"]
    assert shares[str(X)].shared == 11_000
    assert shares[str(Z)].shared == 1000
    assert shares["docker.io"].shared == shares["quay.io"].shared == 10_000
    assert shares[str(X)].own + shares[str(Z)].own + 1000 == shares["docker.io"].own
    assert shares["docker.io"].own + shares["quay.io"].own + 10_000 == folder.blobs.table.size()
    assert shares["docker.io"].blobs == 7
    matching = {each.name: each for each in DiskUsage(folder).matching(ImagePattern("docker.io/*"))}
    assert matching == {name: shares[name] for name in (str(X), str(Z))}
    folder.close()


def test_disk_usage_shows_what_counts_for_a_share(tmp_path: Path) -> None:
    """Only for repositories that a rule limits; a shared blob counts in parts."""
    folder = open_folder(tmp_path / "cache")
    put_image(folder, X, "1", [b"1" * 1000, b"2" * 10_000])
    put_image(folder, Z, "1", [b"2" * 10_000])
    folder.rules = (CacheRuleSettings.model_validate({"repositories": str(X), "max_share": "1MiB"}),)
    shares = {each.name: each for each in DiskUsage(folder).all()}
    assert (shares[str(X)].max_share, shares[str(Z)].max_share) == (1024 * 1024, None)
    assert shares[str(X)].counted == shares[str(X)].size - 5000
    folder.close()


def test_disk_usage_of_an_empty_cache(tmp_path: Path) -> None:
    """Not even an upstream is listed."""
    folder = open_folder(tmp_path / "cache")
    assert list(DiskUsage(folder).all()) == []
    folder.close()

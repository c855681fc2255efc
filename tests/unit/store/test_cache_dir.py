"""The cache directory: its parts, opened and closed."""

from pathlib import Path

from mirror.oci.reference import Repository
from tests.fakes.cached import open_folder, put_image

X = Repository("docker.io", "library/x")


def test_cache_directory_has_the_same_content_when_it_is_opened_again(tmp_path: Path) -> None:
    """Content and index that one has written are there for the next one."""
    folder = open_folder(tmp_path / "cache")
    image = put_image(folder, X, "1", [b"a"])
    folder.close()
    again = open_folder(tmp_path / "cache")
    again.open_connections()
    assert all(again.reader.has(each) and again.reader.link(X, each) is not None for each in image)
    assert again.index.tags(X, "", 9) == ["1"]
    again.close()

"""One image in detail."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.manage.browse.detail import ImageDetail, ImageReader
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import Pin
from mirror.oci.reference import Repository, Tag
from mirror.store.cache_dir import CacheDirectory
from tests.fakes.cached import LONG_AGO, X, Y, age, open_folder, put_image, put_index, put_signature

NOW = 2e9


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    opened = open_folder(tmp_path / "cache")
    yield opened
    opened.close()


def detail(folder: CacheDirectory, repository: Repository, reference: Tag | Digest) -> ImageDetail:
    found = ImageReader(folder, NOW).read(repository, reference)
    assert found is not None
    return found


def test_image_has_layers_and_who_else_has_them(folder: CacheDirectory) -> None:
    """The layer that two repositories have is shared, and its bytes are not freed by a removal."""
    image = put_image(folder, X, "1", [b"a" * 1000, b"own"])
    put_image(folder, Y, "1", [b"a" * 1000])
    age(folder, *image)
    folder.pinning.pin(Pin.parse(f"{X}:1"))
    found = detail(folder, X, Tag("1"))
    (platform,) = found.platforms
    assert [(each.size, each.repositories, each.here) for each in platform.layers] == [
        (1000, 2, True),
        (3, 1, True),
    ]
    assert (found.shared, found.missing, found.pins) == (1000, 0, [f"{X}:1"])
    assert found.last_used == pytest.approx(LONG_AGO)
    assert detail(folder, X, image[0]).digest == found.digest == str(image[0])


def test_image_of_several_platforms_tells_which_are_here(folder: CacheDirectory) -> None:
    """Platforms that are not here have their digest, and no layers."""
    put_index(folder, X, "1", [[b"b"], [b"c"]])
    found = detail(folder, X, Tag("1"))
    assert [(each.platform, each.here, each.layers) for each in found.platforms] == [
        ("linux/arch0", False, []),
        ("linux/arch1", False, []),
    ]


def test_image_has_what_refers_to_it(folder: CacheDirectory) -> None:
    """A signature by its tag, and an attestation of the signature below it."""
    image = put_image(folder, X, "1", [b"a"])
    signature = put_signature(folder, X, image[0])
    put_signature(folder, X, signature[0], kind="att")
    (found,) = detail(folder, X, Tag("1")).referrers
    assert (found.digest, found.here, found.kind, found.tag.endswith(".sig")) == (
        str(signature[0]),
        True,
        "sig",
        True,
    )
    assert [each.kind for each in found.referrers] == ["att"]


def test_image_that_is_not_known_is_none(folder: CacheDirectory) -> None:
    """A blob of a repository is no image, and an image of another repository is not here."""
    manifest, config, *_ = put_image(folder, X, "1", [b"a"])
    reader = ImageReader(folder, NOW)
    assert reader.read(X, Tag("2")) is reader.read(X, config) is reader.read(Y, manifest) is None

"""The list of what a folder has."""

from pathlib import Path

from mirror.manage.carry.have import have
from mirror.oci.digest import Digest
from tests.fakes.cached import X, open_folder, put_image


def test_have_lists_every_blob(tmp_path: Path) -> None:
    """Manifests, configs and layers are in it, and nothing else."""
    folder = open_folder(tmp_path / "cache")
    image = put_image(folder, X, "1", [b"a", b"b"])
    found = have(folder)
    assert len(found) == len(image)
    assert all(each in found for each in image)
    assert Digest.of(b"c") not in found
    folder.close()

"""Images of a cache folder, exported in a test."""

from pathlib import Path

from mirror.bundle.model import BundleContents
from mirror.manage.carry.contents import Collected, collect
from mirror.manage.carry.export import OutputFolder, targets, write_target
from mirror.manage.carry.held import HeldBlobs
from mirror.manage.carry.selection import Selection
from mirror.oci.image_pattern import ImagePattern
from mirror.store.cache_dir import CacheDirectory

# Open files that an export may have.
LIMIT = 1024


def selected(*images: str, **options: object) -> Selection:
    return Selection(tuple(map(ImagePattern.parse, images)), **options)  # type: ignore[arg-type]


def collected(folder: CacheDirectory, *images: str, **options: object) -> Collected:
    """Collect without accounts, so that blobs of unknown origin are public."""
    folder.reader.trusts_unknown = True
    return collect(folder, selected(*images, **options))


def complete(folder: CacheDirectory, *images: str, **options: object) -> BundleContents:
    """Collect what lacks nothing."""
    found = collected(folder, *images, **options)
    assert found.missing == ()
    return found.contents


def exported(
    folder: CacheDirectory, path: Path, *images: str, split: int = 0, **options: object
) -> list[Path]:
    """Export images that are here; return the files."""
    contents = complete(folder, *images, **options)
    found, output = targets(path.name, contents, split), OutputFolder(path.parent)
    with HeldBlobs(folder, LIMIT) as held:
        assert held.hold(contents.blobs) == []
        for each in found:
            write_target(output, each, held.open)
    return [path.with_name(each.name) for each in found]

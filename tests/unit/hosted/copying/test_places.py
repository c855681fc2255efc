"""The two ends of a copy are what the copier needs of them."""

from mirror.hosted.copying.folder_ends import FolderSource, FolderTarget
from mirror.hosted.copying.places import CopySource, CopyTarget
from mirror.hosted.copying.registry_ends import RegistrySource, RegistryTarget


def test_all_ends_have_the_methods_of_their_protocols() -> None:
    for kind, ends in (
        (CopySource, (FolderSource, RegistrySource)),
        (CopyTarget, (FolderTarget, RegistryTarget)),
    ):
        names = {name for name in vars(kind) if not name.startswith("_")}
        for end in ends:
            assert names <= set(dir(end))

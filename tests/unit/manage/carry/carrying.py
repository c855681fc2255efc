"""Archives imported in a test."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from mirror.bundle.archives.opening import open_archive
from mirror.manage.carry.imports import Import, ImportedImage, ImportOptions
from mirror.manage.carry.names import Namer
from mirror.store.cache_dir import CacheDirectory
from mirror.util.callbacks import ignore

NAMES: Mapping[str, str] = MappingProxyType({"docker.io": "docker.io", "quay.io": "quay.io"})
NOW = 2_000_000_000.0


def options(given: str = "", **others: object) -> ImportOptions:
    return ImportOptions(Namer(NAMES, given), (), NOW, **others)  # type: ignore[arg-type]


def imported(
    folder: CacheDirectory,
    files: Path | Iterable[Path],
    wishes: ImportOptions | None = None,
    on_bytes: Callable[[int], object] = ignore,
) -> dict[str, ImportedImage]:
    """Import archives by one import; return the results by name."""
    run = Import(folder, wishes or options())
    for file in [files] if isinstance(files, Path) else files:
        with open_archive(file) as archive:
            run.read(archive, file.name, on_bytes)
    assert run.damages == []
    return {each.name: each for each in run.finish()}


def states(results: Mapping[str, ImportedImage]) -> dict[str, str]:
    return {name: each.state for name, each in results.items()}

"""Ends of a copy by their names: which registry, by which address, with which login."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mirror.config.endpoints import UpstreamSettings
from mirror.hosted.copying.copier import Copier
from mirror.hosted.copying.ends import CopyEnds, docker_config
from mirror.hosted.copying.names import parse_place
from mirror.hosted.copying.registry_ends import RegistryTarget
from mirror.oci.reference import Tag
from mirror.store.hosted.push_journal import FOLDER
from tests.hosting import APP, hosted_of, office, push_image

KNOWN = UpstreamSettings.model_validate({"name": "known.lan", "url": "https://elsewhere.lan", "prefix": "p"})


@pytest.mark.parametrize(
    ("name", "plain", "url"),
    [
        ("localhost:5000", False, "http://localhost:5000"),
        ("127.0.0.1:5000", False, "http://127.0.0.1:5000"),
        ("other.lan", False, "https://other.lan"),
        ("other.lan:5000", True, "http://other.lan:5000"),
        ("known.lan", True, "https://elsewhere.lan"),
    ],
)
def test_registries_are_asked_by_https_unless_they_are_here(name: str, plain: bool, url: str) -> None:
    ends = CopyEnds([KNOWN], [], None, {}, plain_http=plain)
    assert ends._settings(name).url == url


async def test_target_of_a_known_registry_has_its_prefix() -> None:
    ends = CopyEnds([KNOWN], [], None, {})
    target: Any = ends.target(parse_place("known.lan/a:1", ()))
    assert isinstance(target, RegistryTarget)
    assert target._path == "p/a"
    await ends.close()


def test_logins_are_found_where_clients_keep_them(tmp_path: Path) -> None:
    assert docker_config({"HOME": str(tmp_path)}) is None
    file = tmp_path / ".docker" / "config.json"
    file.parent.mkdir()
    file.write_text("{}")
    assert docker_config({"HOME": str(tmp_path)}) == file
    other = tmp_path / "auth.json"
    other.write_text("{}")
    assert docker_config({"HOME": str(tmp_path), "REGISTRY_AUTH_FILE": str(other)}) == other


async def test_images_of_one_command_share_a_file_of_the_journal(tmp_path: Path) -> None:
    """Each takes room on the disk until it is settled, and a command may bring a thousand images."""
    async with office(tmp_path / "cache") as mirror:
        registry = hosted_of(mirror)
        root = await push_image(registry, APP, "1")
        folder, journal = registry.store.folder, tmp_path / "cache" / FOLDER
        ends = CopyEnds([], [registry.settings(APP)], folder, {})
        source, _ = await ends.source(parse_place("office/app:1", ["office"]))
        before = await asyncio.to_thread(lambda: len(list(journal.iterdir())))
        for name in ("a", "b", "c"):
            place = parse_place(f"office/{name}:1", ["office"])
            target = await asyncio.to_thread(ends.target, place)
            await Copier(source, target).copy(root, [Tag("1")])
        assert await asyncio.to_thread(lambda: len(list(journal.iterdir()))) == before + 1
        await ends.close()

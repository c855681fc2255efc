"""The wheel in the ways in which people install programs: pipx and uv, each into folders of its own."""

import sys
import zipfile
from pathlib import Path

import pytest

from tests.programs import call

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.nightly, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pipx and uv."""
    folder = tmp_path_factory.mktemp("tools") / "venv"
    call(sys.executable, "-m", "venv", folder)
    call(folder / "bin/python", "-m", "pip", "install", "-q", "pipx", "uv")
    return folder / "bin"


def examine(command: Path) -> None:
    """The installed command knows its version, its commands and its pages, and a configuration."""
    assert call(command, "--version").startswith("registry-mirror ")
    assert "backup" in call(command, "--help")
    assert "server.listen" in call(command, "config", "show", "--config", "")


def test_wheel_is_installed_by_pipx(wheel: Path, tools: Path, tmp_path: Path) -> None:
    env = {"PIPX_HOME": str(tmp_path / "home"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    call(tools / "pipx", "install", wheel, **env)
    examine(tmp_path / "bin/registry-mirror")


def test_wheel_is_installed_by_uv(wheel: Path, tools: Path, tmp_path: Path) -> None:
    env = {"UV_TOOL_DIR": str(tmp_path / "home"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    call(tools / "uv", "tool", "install", "--python", sys.executable, wheel, **env)
    examine(tmp_path / "bin/registry-mirror")


def test_wheel_has_its_files(wheel: Path) -> None:
    """Templates, scripts and texts of the pages are in it; no test is."""
    names = zipfile.ZipFile(wheel).namelist()
    for each in ("mirror/web/admin/pages/templates/now.html", "mirror/web/admin/pages/text/zh.json"):
        assert each in names
    assert not [each for each in names if each.startswith("tests/")]

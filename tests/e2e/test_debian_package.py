"""The Debian package: built from this clone, unpacked under a root of its own, run from its place in /opt."""

import re
import sys
from pathlib import Path

import pytest

from tests.programs import call

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.needs("dpkg-deb", "unshare", root=True),
]

# Puts the package's /opt in the place of this machine's, for one program.
IN_PLACE = 'mount -t tmpfs opt /opt && cp -a "$0"/opt/. /opt/ && exec "$@"'


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deb")
    call(ROOT / "config/debian/build", folder, PYTHON=sys.executable)
    (found,) = folder.glob("registry-mirror_*.deb")
    return found


def test_package_has_what_a_service_needs(package: Path) -> None:
    """Nothing in it names the folder in which it was built, or belongs to its builder."""
    control = call("dpkg-deb", "--field", package)
    minor = sys.version_info.minor
    assert f"python3 (>= 3.{minor}), python3 (<< 3.{minor + 1})" in control
    listed = call("dpkg-deb", "--contents", package)
    assert {line.split()[1] for line in listed.splitlines()} == {"root/root"}
    for each in (
        "./usr/lib/systemd/system/registry-mirror.service",
        "./usr/lib/systemd/system/registry-mirror.socket",
        "./usr/lib/sysusers.d/registry-mirror.conf",
        "./etc/registry-mirror/mirror.toml",
        "./usr/share/man/man1/registry-mirror.1.gz",
        "./usr/bin/registry-mirror -> /opt/registry-mirror/bin/registry-mirror",
    ):
        assert each in listed
    assert not re.search(r"/site-packages/pip/", listed)


def test_package_runs_from_its_place(package: Path, tmp_path: Path) -> None:
    call("dpkg-deb", "--extract", package, tmp_path)
    service = (tmp_path / "usr/lib/systemd/system/registry-mirror.service").read_text()
    (command,) = re.findall(r"^ExecStart=(\S+)", service, re.MULTILINE)
    run = ("unshare", "--mount", "sh", "-c", IN_PLACE, tmp_path, command)
    assert call(*run, "--version").startswith("registry-mirror ")
    assert "server.listen" in call(*run, "config", "show", "--config", "")
    for each in (tmp_path / "opt/registry-mirror/bin").glob("*"):
        if not each.is_symlink():
            assert "/tmp" not in each.read_text(), each

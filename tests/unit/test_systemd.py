"""The systemd unit: hardened, and in step with the program."""

import configparser
import subprocess
from pathlib import Path

import pytest

from mirror.config.server import ServerSettings
from mirror.system.sockets import BACKLOG
from tests.programs import program

FOLDER = Path(__file__).parent.parent.parent / "systemd"
UNIT = FOLDER / "registry-mirror.service"


@pytest.fixture(scope="module")
def service() -> dict[str, str]:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return dict(parser["Service"])


def test_systemd_unit_runs_the_program(service: dict[str, str]) -> None:
    """The unit has a dedicated user, folders by systemd's directives, and readiness by notification."""
    assert service["Type"] == "notify"
    assert "registry-mirror serve --config /etc/registry-mirror/mirror.toml" in service["ExecStart"]
    assert service["CacheDirectory"] == service["ConfigurationDirectory"] == "registry-mirror"
    assert service["CacheDirectoryMode"] == "0700"
    user = (FOLDER / "registry-mirror.sysusers.conf").read_text().split()
    assert user[:2] == ["u", service["User"]]


def test_systemd_reload_is_a_sighup(service: dict[str, str]) -> None:
    """A stop signals the supervisor alone, which tells its workers."""
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert service["KillMode"] == "mixed"


def test_systemd_socket_has_the_default_address() -> None:
    """The socket unit and server.listen have the same default."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(FOLDER / "registry-mirror.socket")
    assert parser["Socket"]["ListenStream"] == ServerSettings().listen[0]
    assert int(parser["Socket"]["Backlog"]) == BACKLOG


def test_systemd_socket_belongs_to_the_service(service: dict[str, str]) -> None:
    """The service is enabled and started with the held address; without that unit, server.listen is it."""
    assert service["Sockets"] == "registry-mirror.socket"
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read(UNIT)
    assert parser["Install"]["Also"] == "registry-mirror.socket"
    for page in ("README.md", "README.zh.md", "docs/operations.md"):
        assert "systemd/registry-mirror.socket" in (FOLDER.parent / page).read_text()


def test_systemd_waits_longer_than_the_drain(service: dict[str, str]) -> None:
    """A shorter timeout would kill responses that may still finish."""
    assert float(service["TimeoutStopSec"]) > ServerSettings().shutdown_timeout


def test_systemd_unit_bounds_a_fault(service: dict[str, str]) -> None:
    """Memory and tasks have a limit, and a crash writes no file with passwords in it."""
    assert service["LimitCORE"] == "0"
    assert service["MemoryMax"].endswith("%")
    assert 100 < int(service["TasksMax"]) < 10_000


@pytest.mark.needs("systemd-analyze")
def test_systemd_unit_is_hardened() -> None:
    """`systemd-analyze security` rates the unit OK or better."""
    command = [program("systemd-analyze"), "security", "--offline=true", "--threshold=40", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr

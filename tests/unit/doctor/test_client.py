"""A client's machine: mirrors that are not there or ask for a password, programs that say what is wrong."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mirror.doctor.client import NAMES, examine_client
from mirror.doctor.finding import Diagnosis, Severity
from mirror.oci.marker import marker_in
from tests.unit.setup.test_running_mirror import GOOD

# A docker that has the mirror as its second one, and gets every image from nowhere.
DOCKER = """#!/bin/sh
case "$1" in
version) echo 20.10.24 ;;
info) echo '{info}' ;;
pull) echo "Error response from daemon: not found" >&2; exit 1 ;;
esac
"""


@contextmanager
def mirror(status: int = 200) -> Iterator[str]:
    """Run a mirror that answers with `status` to /v2/; yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(GOOD).encode() if self.path == "/setup/mirror.json" else b""
            self.send_response(200 if body else status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder that is the whole PATH of this process, with the shell's own tools."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("sh", "cat"):
        (folder / tool).symlink_to(f"/bin/{tool}")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def of(findings: list[Diagnosis], severity: Severity) -> str:
    return "\n".join(each.what for each in findings if each.severity is severity)


@pytest.mark.parametrize("name", NAMES)
def test_mirror_that_is_not_there_is_the_finding(name: str) -> None:
    """Nothing else is examined; the reason is that of the connection."""
    (found,) = examine_client(name, "http://127.0.0.1:1")
    assert (found.severity, "cannot be reached" in found.what) == (Severity.ERROR, True)
    assert "past the mirror" in found.why


@pytest.mark.parametrize("name", NAMES)
def test_mirror_that_asks_for_a_password_is_an_error(name: str, programs: Path) -> None:
    """A challenge makes clients send passwords of other places, or fail; each client has its own reason."""
    with mirror(401) as url:
        found = examine_client(name, url)
    assert "it asks for a password" in of(found, Severity.ERROR)
    assert f"{name} is not on this machine" in of(found, Severity.ERROR)


def test_mirror_behind_a_failing_proxy_is_an_error(programs: Path) -> None:
    """Podman takes 200 and 401 only."""
    with mirror(503) as url:
        assert "it answers 503 to /v2/" in of(examine_client("podman", url), Severity.ERROR)


def test_docker_without_its_daemon(programs: Path) -> None:
    """The client's own words are shown."""
    write(programs / "docker", "#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    with mirror() as url:
        found = examine_client("docker", url)
    assert "Cannot connect to the Docker daemon" in of(found, Severity.ERROR)
    assert "no client sends one" in of(found, Severity.FINE)


def test_docker_with_another_mirror_first(programs: Path) -> None:
    """The order in effect is told, and the pull that did not arrive, with the line that mends both."""
    with mirror() as url:
        info = {"RegistryConfig": {"Mirrors": ["https://other.test/", f"{url}/"]}, "DriverStatus": None}
        write(programs / "docker", DOCKER.format(info=json.dumps(info)))
        found = examine_client("docker", url)
    assert "another mirror is asked first: https://other.test/" in of(found, Severity.WARNING)
    assert "do not arrive at the mirror (Error response from daemon: not found)" in of(found, Severity.ERROR)
    mends = {each.mend for each in found if each.severity is Severity.ERROR}
    assert mends == {f"registry-mirror setup docker --mirror {url} --write && systemctl reload docker"}


def test_k3s_pull_with_another_digest_has_not_arrived(programs: Path, tmp_path: Path) -> None:
    """The digest of the marked image proves a pull: an image from elsewhere is none."""
    script = '#!/bin/sh\n[ "$2" != pull ] || echo "$3" >>"{0}"\n[ "$2" != inspecti ] || cat "{1}"\n'
    asked, answer = tmp_path / "asked", tmp_path / "answer"
    answer.write_text("sha256:0")
    write(programs / "k3s", script.format(asked, answer))
    with mirror() as url:
        found = examine_client("k3s", url)
    assert "its pulls of docker.io do not arrive at the mirror (it has sha256:0)" in of(found, Severity.ERROR)
    (reference,) = asked.read_text().split()
    upstream, _, rest = reference.partition("/")
    assert (upstream, bool(marker_in(rest.removesuffix(":check")))) == ("docker.io", True)

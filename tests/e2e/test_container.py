"""Container image: built as config/container/Containerfile says, run as nobody, and pulled through."""

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.clients import Skopeo
from tests.e2e.conftest import Library, package_source
from tests.e2e.origin import Origin
from tests.e2e.processes import free_port, wait_until
from tests.e2e.test_pull import each_once, is_identical
from tests.programs import program

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "config" / "container" / "Containerfile"

# What has no bearing on the image: the build's context is a copy without it.
LEFT_OUT = shutil.ignore_patterns(".*", "tests", "docs", "findings", "__pycache__", "build", "*.egg-info")

# Arguments of find: the upper folders of the image.
LISTED = ("/", "-xdev", "-maxdepth", "4")

BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.slow,
    pytest.mark.needs("podman", "debootstrap", "docker-registry", "nginx", "busybox", "skopeo", root=True),
    pytest.mark.timeout(1500),
]


class Engine:
    """Podman with a store of its own."""

    def __init__(self, folder: Path) -> None:
        self._flags: list[str | Path] = [
            "--root",
            folder / "root",
            "--runroot",
            folder / "run",
            "--cgroup-manager",
            "cgroupfs",
        ]

    def __call__(self, *arguments: str | Path, **options: object) -> str:
        command = [program("podman"), *self._flags, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
        assert done.returncode == 0, f"{arguments}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return str(done.stdout).strip()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Podman that has the image, on Debian's own Python."""
    folder = tmp_path_factory.mktemp("podman")
    base = folder / "base"
    suite, source = package_source()
    wanted = "--include=python3,python3-venv,ca-certificates"
    bootstrap: list[str | Path] = [program("debootstrap"), "--variant=minbase", wanted, suite, base, source]
    subprocess.run(bootstrap, check=True, capture_output=True)
    # The build fetches packages as this machine does.
    shutil.copy(BUNDLE, base / BUNDLE.relative_to("/"))
    (base / "etc/pip.conf").write_text(f"[global]\ncert = {BUNDLE}\n")
    podman = Engine(folder)
    subprocess.run(["tar", "-C", base, "-cf", folder / "base.tar", "."], check=True)
    podman("import", folder / "base.tar", "localhost/base:1")
    shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT)
    flags = ["--format", "docker", "--isolation", "chroot", "--network", "host"]
    arguments = ["--build-arg", "BASE=localhost/base:1", "-f", str(CONTAINERFILE), "-t", "registry-mirror"]
    podman("build", *flags, *arguments, folder / "source")
    yield podman
    with suppress(AssertionError):
        podman("rm", "--all", "--force")
    with suppress(AssertionError):
        podman("rmi", "--all", "--force")


def is_ready(address: str) -> bool:
    with suppress(OSError):
        return bool(urllib.request.urlopen(f"http://{address}/readyz", timeout=5).status == 200)
    return False


def test_container_image_serves_pulls(engine: Engine, library: Library, hub: Origin, tmp_path: Path) -> None:
    """Hold the image to a read-only root and an ordinary user: healthy, each blob once, a good end."""
    address = f"127.0.0.1:{free_port()}"
    confined = ["--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--no-healthcheck"]
    # A container gets no more of what it may open than this process has.
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    volume = [
        "--volume",
        "mirror:/var/cache/registry-mirror",
        "--env",
        f"REGISTRY_MIRROR_SERVER_LISTEN={address}",
    ]
    serve = ["registry-mirror", "serve", "--upstream", f"docker.io={hub.url}"]
    engine("run", "--detach", "--name", "mirror", "--network", "host", *confined, *limits, *volume, *serve)
    wait_until(lambda: is_ready(address), "the container is ready")
    assert engine("exec", "mirror", "registry-mirror", "healthcheck", "--ready") == "ready"
    assert engine("exec", "mirror", "id", "-u") == "65532"
    Skopeo(address).copy(library.small.reference, tmp_path / "first")
    Skopeo(address).copy(library.small.reference, tmp_path / "second")
    assert is_identical(tmp_path / "second", library.small)
    assert each_once(hub, library.small)
    assert "small" in engine("exec", "mirror", "registry-mirror", "ls")
    engine("stop", "mirror")
    assert engine("inspect", "mirror", "--format", "{{.State.ExitCode}}") == "0"


def test_container_image_is_what_its_file_says(engine: Engine) -> None:
    """Find a health check, a user that is a number, no pip, and no source tree."""
    (found,) = json.loads(engine("image", "inspect", "registry-mirror"))
    assert found["Config"]["User"] == "65532:65532"
    assert found["Healthcheck"]["Test"] == ["CMD", "registry-mirror", "healthcheck"]
    confined = ["--network", "none", "--read-only", "--no-healthcheck"]
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    listing = engine("run", "--rm", *confined, *limits, "--entrypoint", "find", "registry-mirror", *LISTED)
    paths = listing.splitlines()
    assert "/opt/registry-mirror/bin/registry-mirror" in paths
    assert not [each for each in paths if each.startswith("/src") or each.endswith("/bin/pip")]

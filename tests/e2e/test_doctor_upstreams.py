"""`registry-mirror doctor` in front of real registries: over IPv6, behind a rate limit, on broken routes.

nginx stands in front of docker-registry, and counts pulls in headers as Docker Hub does.
"""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.mirror import PROGRAM
from tests.e2e.netns import island
from tests.e2e.origin import Origin
from tests.e2e.processes import Process, attempt, free_port, run
from tests.programs import program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("docker-registry", "nginx", "busybox", "ip", "nsenter", "unshare", root=True),
    pytest.mark.timeout(120),
]

HOST = "registry.test"

# The documentation's network: no machine has it.
NOBODY = "2001:db8::2"

NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{}}
http {{
    access_log {folder}/access.log;
    server {{
        listen {listen}:{port};
        add_header RateLimit-Limit "100;w=21600" always;
        add_header RateLimit-Remaining "{left};w=21600" always;
        add_header Docker-RateLimit-Source "{counted}" always;
        {answer}
    }}
}}
"""

PASS = "location / {{ proxy_pass {url}; proxy_set_header Host $http_host; }}"
ALONE = "location / { return 401; }"


@contextmanager
def front(
    folder: Path, answer: str, listen: str, left: int, counted: str, enter: Sequence[str] = ()
) -> Iterator[str]:
    """Run nginx; yield the URL by the name of the host."""
    port = free_port()
    folder.mkdir()
    text = NGINX.format(folder=folder, listen=listen, port=port, left=left, counted=counted, answer=answer)
    (folder / "nginx.conf").write_text(text)
    command: list[str | Path] = [*enter, program("nginx"), "-c", folder / "nginx.conf", "-g", "user root;"]
    with Process(command, folder / "nginx.out", (folder / "nginx.pid").exists):
        yield f"http://{HOST}:{port}"


def findings(
    folder: Path, url: str, addresses: Sequence[str], image: str = "", enter: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Run the doctor where the host's name has these addresses; return what it says of the upstream."""
    (folder / "hosts").write_text("".join(f"{each} {HOST}\n" for each in addresses))
    (folder / "mirror.toml").write_text(
        f'[server]\nlisten = ["127.0.0.1:{free_port()}"]\n[cache]\ndir = "{folder}/cache"\n'
        f'[[upstream]]\nname = "registry.test"\nurl = "{url}"\n'
    )
    script = f'mount --bind {folder}/hosts /etc/hosts && exec "$@"'
    command = [*enter, program("unshare"), "--mount", "sh", "-c", script, "sh", *map(str, PROGRAM)]
    command += ["doctor", "--json", "--config", str(folder / "mirror.toml")]
    command += ["--image", f"registry.test/{image}"] if image else []
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.stdout.startswith("["), done.stderr
    found: list[dict[str, Any]] = [each for each in json.loads(done.stdout) if HOST in each["subject"]]
    said: dict[str, list[str]] = {}
    for each in found:
        said.setdefault(each["severity"], []).append(each["what"])
    return said


@pytest.mark.parametrize(
    ("left", "severity"), [(80, "fine"), (20, "warning"), (3, "error")], ids=["enough", "little", "out"]
)
def test_doctor_reads_the_rate_limit_of_a_registry_over_ipv6(
    hub: Origin, tmp_path: Path, left: int, severity: str
) -> None:
    """A registry that only IPv6 reaches is fine; the limit says how much is left, and who shares it."""
    answer = PASS.format(url=hub.url)
    with front(tmp_path / "front", answer, "[::1]", left, "2001:db8:1:2::") as url:
        said = findings(tmp_path, url, ["::1"], "library/multi:1")
    counted = f"{left} of 100 pulls in 6 hours are left, counted by the network 2001:db8:1:2:: (/64)"
    assert any(each.startswith(counted) for each in said[severity]), said
    assert any("library/multi:1 is found" in each for each in said["fine"]), said
    assert "IPv6" not in str(said.get("warning"))


def test_doctor_names_the_address_that_a_registry_counts(hub: Origin, tmp_path: Path) -> None:
    with front(tmp_path / "front", PASS.format(url=hub.url), "127.0.0.1", 80, "203.0.113.7") as url:
        said = findings(tmp_path, url, ["127.0.0.1"], "library/multi:1")
    assert any("counted by the address 203.0.113.7, which everybody" in each for each in said["fine"]), said


@pytest.mark.parametrize("broken", ["nothing listens", "nobody answers"])
def test_doctor_sees_ipv6_that_is_broken(tmp_path: Path, broken: str) -> None:
    """A name with both families, of which IPv6 is refused, or leads into a network without the host."""
    with island() as enter, front(tmp_path / "front", ALONE, "127.0.0.1", 80, "203.0.113.7", enter) as url:
        ip = [*enter, program("ip")]
        run([*ip, "link", "add", "d0", "type", "veth", "peer", "name", "d1"])
        for device in ("d0", "d1"):
            run([*ip, "link", "set", device, "up"])
        run([*ip, "address", "add", "2001:db8::1/64", "dev", "d0", "nodad"])
        address = "::1" if broken == "nothing listens" else NOBODY
        said = findings(tmp_path, url, [address, "127.0.0.1"], enter=enter)
        assert attempt([*ip, "-6", "route", "get", address]).returncode == 0
    (warning,) = said["warning"]
    assert warning.startswith("IPv6 does not work to it (")
    assert ("refused" in warning) == (broken == "nothing listens"), warning


def test_doctor_takes_a_machine_without_ipv6_as_fine(tmp_path: Path) -> None:
    """A name may have an address of IPv6 that no route leads to: clients go on with IPv4 at once."""
    with island() as enter, front(tmp_path / "front", ALONE, "127.0.0.1", 80, "203.0.113.7", enter) as url:
        said = findings(tmp_path, url, [NOBODY, "127.0.0.1"], enter=enter)
    assert "warning" not in said
    assert "error" not in said

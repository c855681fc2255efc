"""The command, as a user runs it: a process, its exit status, what it prints, how it stops."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirror import __version__
from mirror.cli.app import _banner, _reachable
from mirror.config.loader import load
from tests.fakes.tls import Authority

COMMAND = [sys.executable, "-m", "mirror"]


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


class Serving:
    """A running `serve`, ready."""

    def __init__(self, process: "subprocess.Popen[str]", address: str, manager: socket.socket) -> None:
        self.process = process
        self.address = address
        self.manager = manager

    def connect(self) -> socket.socket:
        host, _, port = self.address.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=30)

    def rest(self) -> str:
        """What it prints until it ends."""
        assert self.process.stderr is not None
        return self.process.stderr.read()


@contextmanager
def serving(folder: Path, upstream: str, extra: Sequence[str] = ()) -> Iterator[Serving]:
    """`serve` on a free port, up to the moment when it tells the service manager that it is ready."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(30)
        arguments = ["--listen", "127.0.0.1:0", "--cache-dir", str(folder / "cache")]
        command = [*COMMAND, "serve", *arguments, "--upstream", f"docker.io={upstream}", *extra]
        env = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify")}
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
            assert process.stderr is not None
            try:
                assert manager.recv(100) == b"READY=1"
                address = re.search(r"serves on (\S+),", process.stderr.readline())
                assert address is not None
                yield Serving(process, address[1], manager)
            finally:
                process.kill()


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """An upstream that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def url(listening: socket.socket) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_it_serves_and_ends_on_sigterm(tmp_path: Path, silent: socket.socket) -> None:
    """Ready means that it answers; SIGTERM says that it stops, and ends with 0."""
    with serving(tmp_path, url(silent)) as mirror:
        with urllib.request.urlopen(f"http://{mirror.address}/v2/", timeout=30) as answer:
            assert answer.status == 200
        mirror.process.send_signal(signal.SIGTERM)
        assert mirror.process.wait(30) == 0
        assert mirror.manager.recv(100) == b"STOPPING=1"
        assert "stopping" in mirror.rest()


def test_a_second_signal_ends_at_once(tmp_path: Path, silent: socket.socket) -> None:
    """A response that will not finish holds the first one up, and not the second."""
    with serving(tmp_path, url(silent)) as mirror, mirror.connect() as client:
        client.sendall(b"GET /v2/library/x/manifests/t HTTP/1.1\r\nHost: x\r\n\r\n")
        asked, _ = silent.accept()
        with asked:
            mirror.process.send_signal(signal.SIGTERM)
            assert mirror.manager.recv(100) == b"STOPPING=1"
            mirror.process.send_signal(signal.SIGTERM)
            assert mirror.process.wait(30) == 128 + signal.SIGTERM


def test_an_address_that_is_taken(tmp_path: Path, silent: socket.socket) -> None:
    """Exit 1, and the message names the address."""
    taken = f"127.0.0.1:{silent.getsockname()[1]}"
    done = run("serve", "--listen", taken, "--cache-dir", str(tmp_path))
    assert done.returncode == 1
    assert f"cannot listen on {taken}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cache_folder_that_cannot_be_used(tmp_path: Path) -> None:
    """Exit 1, and the message names the folder."""
    (tmp_path / "file").touch()
    done = run("serve", "--listen", "127.0.0.1:0", "--cache-dir", str(tmp_path / "file"))
    assert done.returncode == 1
    assert f"cannot use the cache folder {tmp_path / 'file'}" in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[server]\nlissten = []\n", "server.lissten: there is no such key; did you mean listen?"),
        ("[tags]\nfresh = -1\n", "tags.fresh: must be at least 0"),
        ("[[upstream]]\nname = 'x.test'\n", "upstream.x.test.url: is missing"),
        ("not toml", "is not TOML"),
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path: Path, content: str, said: str) -> None:
    """Exit 2 from `check` and from `serve`, with file, key and what would be right."""
    file = tmp_path / "mirror.toml"
    file.write_text(content)
    for arguments in (["config", "check", str(file)], ["serve", "--config", str(file)]):
        done = run(*arguments)
        assert done.returncode == 2
        assert str(file) in done.stderr
        assert said in done.stderr


def test_a_right_configuration_is_ok(tmp_path: Path) -> None:
    """`check` says so, on standard output."""
    file = tmp_path / "mirror.toml"
    file.write_text("[tags]\nfresh = 5\n")
    done = run("config", "check", str(file))
    assert (done.returncode, done.stdout) == (0, f"{file}: ok\n")


def test_show_says_where_values_come_from(tmp_path: Path) -> None:
    """Flags over environment over file over defaults, and no secret."""
    file = tmp_path / "mirror.toml"
    file.write_text(
        '[tags]\nfresh = 5\n[log]\nlevel = "error"\n'
        '[[upstream]]\nname = "quay.io"\nusername = "me"\npassword = "hunter2"\n'
        '[[upstream.sources]]\nurl = "http://s.test"\nusername = "me"\npassword = "hunter2"\n'
    )
    arguments = ["config", "show", "--config", str(file), "--cache-dir", "/srv/cache"]
    env = {"REGISTRY_MIRROR_LOG_LEVEL": "debug"}
    done = run(*arguments, env=env)
    assert done.returncode == 0
    assert "hunter2" not in done.stdout
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert f"file {file}" in lines["tags.fresh"]
    assert "environment REGISTRY_MIRROR_LOG_LEVEL" in lines["log.level"]
    assert "--cache-dir" in lines["cache.dir"]
    assert "default" in lines["tags.fallback_after"]
    assert lines["fill.verify_first"].split() == ["fill.verify_first", "false", "default"]
    assert lines["upstream.quay.io.sources.1.url"].split()[1] == "http://s.test"
    assert f"file {file}" in lines["upstream.quay.io.sources.1.url"]
    assert lines["upstream.quay.io.sources.1.weight"].split()[1:] == ["1.0", "default"]
    assert lines["upstream.quay.io.sources.1.password"].split()[1] == "**********"
    shown = json.loads(run(*arguments, "--json", env=env).stdout)
    assert shown["tags.fresh"] == {"value": "5.0", "from": f"file {file}"}
    assert shown["upstream.quay.io.password"]["value"] == "**********"


def test_offline_is_a_flag(tmp_path: Path) -> None:
    """It wins over the file, and says so."""
    file = tmp_path / "mirror.toml"
    file.write_text("[server]\noffline = false\n")
    shown = run("config", "show", "--config", str(file), "--offline").stdout
    assert re.search(r"^server.offline +true +--offline$", shown, re.MULTILINE)
    assert re.search(r"^tags.stale_if_error +forever +default$", shown, re.MULTILINE)


def test_help_teaches() -> None:
    """The commands, their options, and examples; and the version."""
    assert "serve" in run("--help").stdout
    text = run("serve", "--help").stdout
    for each in (
        "--config",
        "--listen",
        "--cache-dir",
        "--upstream",
        "registry-mirror serve --upstream",
        "SIGTERM",
    ):
        assert each in text
    assert run("--version").stdout == f"registry-mirror {__version__}\n"


def banner(*upstreams: str, file: Path | None = None) -> str:
    loaded = load(file, {"HOME": "/home/me"}, {"upstreams": list(upstreams)})
    return _banner(loaded.config, ["0.0.0.0:5000", "[::]:5001"])


def test_the_banner_says_what_to_do_next() -> None:
    """Every address and upstream, and the lines for daemon.json with an address that works."""
    text = banner()
    assert "0.0.0.0:5000, [::]:5001" in text
    assert '"registry-mirrors": ["http://127.0.0.1:5000"]' in text
    assert re.search(r"quay\.io +at http://127\.0\.0\.1:5000/v2/quay\.io/ +from https://quay\.io", text)
    assert "other upstream" not in text
    assert len({line.index(" from http") for line in text.splitlines() if " from http" in line}) == 1


def test_the_banner_of_a_mirror_with_tls(tmp_path: Path) -> None:
    """https everywhere, nothing insecure, and where a certificate of one's own goes."""
    server_file = Authority(tmp_path).server_file
    file = tmp_path / "mirror.toml"
    file.write_text(f'[server]\ntls_certificate = "{server_file}"\ntls_key = "{server_file}"\n')
    text = banner(file=file)
    assert '"registry-mirrors": ["https://127.0.0.1:5000"]' in text
    assert "/etc/docker/certs.d/127.0.0.1:5000/ca.crt" in text
    assert "https://127.0.0.1:5000/v2/quay.io/" in text
    assert "insecure" not in text
    assert "http://" not in text


def test_the_banner_warns(tmp_path: Path) -> None:
    """When the default is not what Docker mirrors; when an account makes private things public."""
    assert "docker.io only" in banner("x.test=http://x.test")
    file = tmp_path / "mirror.toml"
    file.write_text('[[upstream]]\nname = "docker.io"\nusername = "me"\npassword = "hunter2"\n')
    text = banner(file=file)
    assert "accounts at docker.io" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("bound", "shown"),
    [
        ("0.0.0.0:5000", "127.0.0.1:5000"),
        ("[::]:5000", "127.0.0.1:5000"),
        ("10.0.0.1:5000", "10.0.0.1:5000"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_an_address_to_show_can_be_reached(bound: str, shown: str) -> None:
    """What is bound to everything is shown as loopback."""
    assert _reachable(bound) == shown

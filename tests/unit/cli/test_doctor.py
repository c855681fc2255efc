"""`doctor` as a process: what it prints, and its exit status."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.fakes.registry import FakeRegistry
from tests.unit.cli.test_app import run

CONFIG = """
[server]
listen = ["127.0.0.1:1"]
connections = 16
[cache]
dir = "{folder}"
min_free = 0
[[upstream]]
name = "docker.io"
url = "{url}"
"""


def configuration(tmp_path: Path, url: str) -> str:
    """Write a configuration whose other upstreams are at a closed port."""
    others = ("ghcr.io", "quay.io", "registry.k8s.io", "gcr.io", "mcr.microsoft.com", "public.ecr.aws")
    text = CONFIG.format(folder=tmp_path, url=url)
    for name in (*others, "nvcr.io", "dhi.io", "lscr.io", "docker.elastic.co"):
        text += f'[[upstream]]\nname = "{name}"\nurl = "http://127.0.0.1:1"\n'
    (tmp_path / "mirror.toml").write_text(text)
    return str(tmp_path / "mirror.toml")


async def test_doctor_prints_what_is_wrong_and_what_mends_it(fake: FakeRegistry, tmp_path: Path) -> None:
    """Ten upstreams behind one closed port are one finding; the exit status is that of an error."""
    fake.add_image("library/busybox", "latest", [b"x"])
    config = await asyncio.to_thread(configuration, tmp_path, fake.url)
    done = await asyncio.to_thread(run, "doctor", "--config", config)
    assert done.returncode == 2, done.stderr
    assert "ok      docker.io: library/busybox:latest is found" in done.stdout
    (line,) = [each for each in done.stdout.splitlines() if "127.0.0.1:1 cannot be reached" in each]
    assert line.startswith("ERROR")
    assert all(name in line for name in ("ghcr.io", "quay.io", "docker.elastic.co"))
    assert "mend: systemctl start registry-mirror" in done.stdout


async def test_doctor_in_json_is_for_programs(fake: FakeRegistry, tmp_path: Path) -> None:
    """The same findings with their keys, and nothing else on standard output."""
    config = await asyncio.to_thread(configuration, tmp_path, fake.url)
    done = await asyncio.to_thread(run, "doctor", "--config", config, "--json")
    found = json.loads(done.stdout)
    assert all(set(each) == {"subject", "severity", "what", "why", "mend"} for each in found)
    assert {each["severity"] for each in found} == {"fine", "warning", "error"}


@pytest.mark.parametrize("image", ["none.test/a:1", "docker.io/a/*:1", "docker.io/a@sha256:" + "0" * 64])
def test_doctor_of_an_image_that_can_be_none(tmp_path: Path, image: str) -> None:
    """An image of no upstream here, and a pattern, are wrong usage."""
    done = run("doctor", "--config", configuration(tmp_path, "http://127.0.0.1:1"), "--image", image)
    assert (done.returncode, "--image" in done.stderr or "'" in done.stderr) == (2, True)

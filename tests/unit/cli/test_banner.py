"""The banner of `serve`: addresses, upstreams, and lines to paste."""

import re
from pathlib import Path

import pytest

from mirror.cli.banner import banner, reachable
from mirror.config.loader import load
from tests.fakes.tls import Authority


def shown(*upstreams: str, file: Path | None = None) -> str:
    loaded = load(file, {"HOME": "/home/me"}, {"upstreams": list(upstreams)})
    return banner(loaded.config, ["0.0.0.0:5000", "[::]:5001"])


def test_the_banner_says_what_to_do_next() -> None:
    """Every address and upstream, and the lines for daemon.json with an address that works."""
    text = shown()
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
    text = shown(file=file)
    assert '"registry-mirrors": ["https://127.0.0.1:5000"]' in text
    assert "/etc/docker/certs.d/127.0.0.1:5000/ca.crt" in text
    assert "https://127.0.0.1:5000/v2/quay.io/" in text
    assert "insecure" not in text
    assert "http://" not in text


def test_the_banner_warns(tmp_path: Path) -> None:
    """When the default is not what Docker mirrors; when an account makes private things public."""
    assert "docker.io only" in shown("x.test=http://x.test")
    file = tmp_path / "mirror.toml"
    file.write_text('[[upstream]]\nname = "docker.io"\nusername = "me"\npassword = "hunter2"\n')
    text = shown(file=file)
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
    assert reachable(bound) == shown

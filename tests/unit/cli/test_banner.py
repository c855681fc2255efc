"""The banner of `serve`: addresses, upstreams, and lines to paste."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from mirror import __version__
from mirror.cli.banner import banner, for_others, room
from mirror.config.loader import load
from mirror.system.addresses import reachable
from tests.fakes.cached import X, open_folder, put_image
from tests.fakes.tls import Authority
from tests.running import configured


def shown(
    *upstreams: str, file: Path | None = None, addresses: Sequence[str] = ("0.0.0.0:5000", "[::]:5001")
) -> str:
    loaded = load(file or "", {"HOME": "/home/me"}, {"upstreams": list(upstreams)})
    return banner(loaded.config, addresses, ["192.168.1.5", "10.0.0.2"], "20 GiB of 80 GiB free")


def test_banner_says_what_to_do_next() -> None:
    """Every address and upstream, what to type, the lines for daemon.json, version and room."""
    text = shown()
    assert text.startswith(f"registry-mirror {__version__} serves on 0.0.0.0:5000, [::]:5001, cache in ")
    assert "20 GiB of 80 GiB free" in text
    assert "on this machine:  http://127.0.0.1:5000\n" in text
    assert '"registry-mirrors": ["http://192.168.1.5:5000"]' in text
    assert '"insecure-registries": ["192.168.1.5:5000"]' in text
    assert re.search(r"docker pull 192\.168\.1\.5:5000/quay\.io/\.\.\. +from https://quay\.io", text)
    assert "docs/clients.md" in text
    assert "other upstream" not in text
    assert len({line.index(" from http") for line in text.splitlines() if " from http" in line}) == 1


def test_banner_of_an_open_mirror_names_addresses_that_others_can_use() -> None:
    """Loopback is for this machine alone; a mirror that is open to the network says so."""
    text = shown()
    for address in ("192.168.1.5:5000", "10.0.0.2:5000", "192.168.1.5:5001"):
        assert f"on this network:  http://{address}\n" in text
    assert text.count("127.0.0.1") == 1
    assert shown(addresses=["0.0.0.0:5000", "[::]:5000"]).count("http://192.168.1.5:5000\n") == 1
    assert "everybody on this network can pull" in text
    text = shown(addresses=("0.0.0.0:5000", "[::]:5000"))  # a port alone
    assert text.count("on this network:  http://192.168.1.5:5000\n") == 1


@pytest.mark.parametrize("default", ["allow", "deny"])
def test_banner_states_the_default_of_the_access_rules(tmp_path: Path, default: str) -> None:
    file = tmp_path / "mirror.toml"
    file.write_text(f'[access]\ndefault = "{default}"\n[[rule]]\nname = "x"\neffect = "deny"\n')
    word = {"allow": "allowed", "deny": "denied"}[default]
    text = shown(file=file)
    assert f"what none of the 1 access rules matches is {word} (access.default)." in text
    assert "everybody on this network" not in text


def test_banner_on_loopback_is_for_this_machine() -> None:
    """No other machine can use it, and nobody is warned."""
    text = shown(addresses=["127.0.0.1:5000"])
    assert "this network" not in text
    assert '"registry-mirrors": ["http://127.0.0.1:5000"]' in text
    assert "192.168.1.5" not in text
    assert "insecure-registries" not in text  # Docker needs none for loopback


def test_banner_of_an_offline_mirror_names_no_upstream() -> None:
    """Images come from the cache; a new cache folder is called new."""
    config = load("", {"HOME": "/home/me"}, {"offline": True}).config
    text = banner(config, ["127.0.0.1:5000"], [], new=True)
    assert "from the cache\n" in text
    assert "https://registry-1.docker.io" not in text
    assert f", new cache in {config.cache.dir}" in text


def test_banner_of_a_mirror_with_tls(tmp_path: Path) -> None:
    """https everywhere, nothing insecure, and the place for a certificate of one's own."""
    server_file = Authority(tmp_path).server_file
    file = tmp_path / "mirror.toml"
    file.write_text(f'[server]\ntls_certificate = "{server_file}"\ntls_key = "{server_file}"\n')
    text = shown(file=file)
    assert '"registry-mirrors": ["https://192.168.1.5:5000"]' in text
    assert "/etc/docker/certs.d/192.168.1.5:5000/ca.crt" in text
    assert "https://127.0.0.1:5000" in text
    assert "insecure" not in text
    assert "http://" not in text


def test_banner_warns(tmp_path: Path) -> None:
    """A default upstream that Docker does not mirror, and accounts whose images go to nobody, or to all."""
    text = shown("x.test=http://x.test")
    note = next(line for line in text.splitlines() if line.startswith("Note: "))
    assert note.startswith("Note: x.test is the default upstream")
    assert "`docker pull alpine` bypasses this mirror" in note
    file = tmp_path / "mirror.toml"
    account = '[[upstream]]\nname = "docker.io"\nusername = "me"\npassword = "hunter2"\n'
    for private, words in (
        ("", "Note: what is private at docker.io is served to nobody"),
        (
            'private = "everybody"\n',
            "Note: every client can pull whatever the accounts at docker.io can read",
        ),
    ):
        file.write_text(account + private)
        text = shown(file=file)
        assert words in text
        assert "hunter2" not in text


@pytest.mark.parametrize(
    ("bound", "here", "others"),
    [
        ("0.0.0.0:5000", "127.0.0.1:5000", ["192.168.1.5:5000"]),
        (":5000", "127.0.0.1:5000", ["192.168.1.5:5000"]),
        ("[::]:5000", "127.0.0.1:5000", ["192.168.1.5:5000"]),
        ("10.0.0.1:5000", "10.0.0.1:5000", ["10.0.0.1:5000"]),
        ("127.0.0.1:5000", "127.0.0.1:5000", []),
        ("[::1]:5000", "[::1]:5000", []),
    ],
)
def test_banner_shows_addresses_that_can_be_reached(bound: str, here: str, others: list[str]) -> None:
    """A mirror on every address is shown as loopback on this machine, and by its own addresses to others."""
    assert reachable(bound) == here
    assert for_others(bound, ["192.168.1.5"]) == others


def test_banner_knows_the_room(tmp_path: Path) -> None:
    """Free, cached and allowed bytes; an empty line if the cache cannot be read."""
    folder = open_folder(tmp_path / "cache")
    put_image(folder, X, "1", [b"a" * 2000])
    config = load("", {}, {"cache_dir": str(tmp_path / "cache")}).config
    line = room(config, folder)
    assert re.fullmatch(r"\S+ \S+ of \S+ \S+ free, 2\.\d+ KiB cached, \S+ \S+ allowed", line)
    folder.close()
    assert re.fullmatch(r"\S+ \S+ of \S+ \S+ free, 2\.\d+ KiB cached, \S+ \S+ allowed", room(config))
    (tmp_path / "file").touch()
    assert room(load("", {}, {"cache_dir": str(tmp_path / "file")}).config) == ""


def test_banner_names_the_pages(tmp_path: Path) -> None:
    """Pages without an address are not named."""
    config = configured(tmp_path, {"docker.io": "https://hub.test"}, admin={"listen": ["5002"]})
    assert "Pages that show what it does: http://127.0.0.1:5002/" in banner(config, ["127.0.0.1:5000"], [])
    without = configured(tmp_path, {"docker.io": "https://hub.test"})
    assert "Pages" not in banner(without, ["127.0.0.1:5000"], [])

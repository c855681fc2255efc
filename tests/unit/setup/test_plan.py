"""Versions, addresses and files of a setup."""

from pathlib import Path

import pytest

from mirror.setup.plan import File, Mirror, Root, SetupError, Version, changed, ours_first
from tests.unit.setup.system import HUB, LOCAL, PLAIN, System


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Docker version 20.10.24+dfsg1, build 297e128", Version(20, 10, 24)),
        ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u1", Version(1, 6, 20)),
        ("containerd github.com/containerd/containerd/v2 v2.2.0-rc.1 abc", Version(2, 2, 0)),
        ("podman version 4.3.1", Version(4, 3, 1)),
        ("k3s version v1.31.4+k3s1 (a562d090)", Version(1, 31, 4)),
        ("buildkitd github.com/moby/buildkit v0.34 x", Version(0, 34, 0)),
        ("no version here, only x86_64", None),
    ],
)
def test_version_of_what_programs_print(text: str, version: Version | None) -> None:
    """The first version in the text counts, wherever it is."""
    assert Version.parse(text) == version


def test_version_order_is_of_numbers() -> None:
    """2.10 is newer than 2.2."""
    assert Version(2, 10) > Version(2, 2) > Version(1, 99, 99)
    assert str(Version(2, 10, 1)) == "2.10.1"


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1:5000", True), ("[::1]:5000", True), ("localhost:5000", True), ("10.0.0.1:5000", False)],
)
def test_mirror_on_loopback(address: str, loopback: bool) -> None:
    """Addresses of loopback are told from others."""
    assert Mirror(address, False, (HUB,)).is_loopback is loopback


def test_mirror_is_named_with_and_without_a_scheme() -> None:
    """A path may follow; another port is another server."""
    for text in ("http://127.0.0.1:5000", "https://127.0.0.1:5000/x", "127.0.0.1:5000/docker.io"):
        assert LOCAL.is_named(text)
    assert not LOCAL.is_named("127.0.0.1:5001")
    assert not PLAIN.is_named("http://other/mirror.lan:5000")


def test_root_says_which_file_cannot_be_read(system: System) -> None:
    """No file is None; a folder, a file too large or not in UTF-8 is an error that names it."""
    assert system.root.text("/none/such") is None
    assert system.root.names("/none/such") == []
    system.write("/a/large", "x" * (4 * 1024 * 1024 + 1))
    system.root.place("/a/latin").write_bytes(b"\xe4")
    for path, reason in (("/a", "cannot be read"), ("/a/large", "larger"), ("/a/latin", "UTF-8")):
        with pytest.raises(SetupError, match=reason):
            system.root.text(path)


def test_changed_are_the_files_with_another_text(system: System) -> None:
    """A file that is there with the same text is no change."""
    system.write("/etc/x", "same")
    files = [File("/etc/x", "same"), File("/etc/y", "new")]
    assert [each.path for each in changed(system.root, files)] == ["/etc/y"]
    assert ours_first("a", ["b", "a", "c"]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "path", ["/etc/docker/daemon.json", "/etc/link.json", "/../outside/x", "/etc/../../outside/x"]
)
def test_paths_that_lead_out_of_the_root_are_refused(tmp_path: Path, path: str) -> None:
    """A link in the root of an image leads to a file of this machine, and no further."""
    image, outside = tmp_path / "image", tmp_path / "outside"
    (image / "etc").mkdir(parents=True)
    outside.mkdir()
    (outside / "x").write_text("of this machine")
    (image / "etc/docker").symlink_to(outside)
    (image / "etc/link.json").symlink_to("../../outside/x")
    root = Root(image)
    with pytest.raises(SetupError, match="leads out of"):
        root.place(path)
    with pytest.raises(SetupError, match="leads out of"):
        root.text(path)


def test_links_within_the_root_are_followed(tmp_path: Path) -> None:
    """A link to a file of the same image is where its file is."""
    (tmp_path / "x").write_text("text")
    (tmp_path / "y").symlink_to("x")
    assert Root(tmp_path).text("/y") == "text"

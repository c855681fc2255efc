"""`copy`, `push` and `retag` as processes: from files, standard input, a daemon; to the folder, over HTTP."""

import asyncio
import http.server
import json
import socketserver
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirror.bundle.plan import make_plan
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.cache_dir import CacheDirectory
from mirror.store.metadata.hosted_queries import HostedQueries
from tests.contract.hosting import hosting
from tests.fakes.bundles import Shelf, two_platforms
from tests.running import serving
from tests.unit.cli.test_app import COMMAND, run

ONE, TWO = "docker.io/library/one:2", "quay.io/org/app:1"


class Scene:
    """A cache folder with the hosted registry `office`, and a bundle of two images."""

    def __init__(self, folder: Path, options: str = "") -> None:
        self.shelf = Shelf()
        self.contents = two_platforms(self.shelf)
        self.roots = {each.name: each.root.digest for each in self.contents.images}
        self.cache = folder / "cache"
        file = folder / "mirror.toml"
        file.write_text(f"[[hosted]]\nname = 'office'\n{options}")
        self.place = ("--config", str(file), "--cache-dir", str(self.cache))
        CacheDirectory(self.cache).close()
        self.bundle = folder / "lab.tar"
        self.bundle.write_bytes(self.shelf.written(make_plan(self.contents)))

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return run(*arguments, *self.place)

    def tag(self, repository: str, tag: str) -> Digest | None:
        folder = CacheDirectory(self.cache)
        try:
            entry = folder.index.tag(Repository("office", repository), Tag(tag))
            return None if entry is None else Digest.parse(entry.digest)
        finally:
            folder.close()

    def held(self) -> int:
        folder = CacheDirectory(self.cache)
        try:
            return HostedQueries(folder.index).held("office")
        finally:
            folder.close()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_copy_of_a_bundle_keeps_all_names_and_sends_nothing_twice(scene: Scene) -> None:
    done = scene.run("copy", str(scene.bundle), "office/", "--referrers")
    assert (done.returncode, done.stderr) == (0, "")
    assert scene.tag("library/one", "2") == scene.roots[ONE]
    assert scene.tag("org/app", "1") == scene.roots[TWO]
    again = scene.run("push", str(scene.bundle), "office/", "--referrers")
    assert again.returncode == 0
    assert again.stdout.count("already here") == 2
    assert scene.run("verify").returncode == 0


def test_copy_of_a_folder_and_of_standard_input(scene: Scene, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    with tarfile.open(scene.bundle) as tar:
        tar.extractall(layout, filter="data")
    several = scene.run("copy", str(layout), "office/app:1")
    assert several.returncode == 2
    assert "end the target with a slash" in several.stderr
    assert scene.run("copy", str(layout), "office/team/").returncode == 0
    assert scene.tag("team/org/app", "1") == scene.roots[TWO]
    with scene.bundle.open("rb") as file:
        command = [*COMMAND, "copy", "-", "office/piped/", *scene.place]
        subprocess.run(command, stdin=file, check=True, capture_output=True, timeout=60)
    assert scene.tag("piped/org/app", "1") == scene.roots[TWO]


@contextmanager
def daemon(path: Path, data: bytes) -> Iterator[list[str]]:
    """A Docker daemon that has one image, at a socket; yields the paths that it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            known = self.path == "/images/app:dev/get"
            body = data if known else b'{"message":"No such image: canary"}'
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

        def address_string(self) -> str:
            return "socket"

    with socketserver.UnixStreamServer(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


def test_copy_from_the_docker_daemon(scene: Scene, tmp_path: Path) -> None:
    shelf = Shelf()
    root = shelf.image([b"a layer"])
    data = shelf.written(make_plan(shelf.contents({"docker.io/library/app:dev": root})))
    path = tmp_path / "docker.sock"
    socket = ("--docker-socket", str(path))
    with daemon(path, data) as asked:
        done = scene.run("copy", "docker-daemon:app:dev", "office/app:1", *socket)
        assert (done.returncode, done.stderr) == (0, "")
        assert asked == ["/images/app:dev/get"]
        missing = scene.run("copy", "docker-daemon:none", "office/app:1", *socket)
    assert missing.returncode == 1
    assert "No such image: canary" in missing.stderr
    assert scene.tag("app", "1") == root.digest
    without = scene.run(
        "copy", "docker-daemon:app:dev", "office/app:1", "--docker-socket", str(tmp_path / "no")
    )
    assert without.returncode == 1
    assert "does not answer" in without.stderr


def test_retag_moves_no_bytes(scene: Scene) -> None:
    scene.run("copy", str(scene.bundle), "office/")
    before = scene.held()
    done = scene.run("retag", "office/org/app:1", "office/org/app:2")
    assert (done.returncode, done.stderr) == (0, "")
    done = scene.run("retag", "office/org/app:1", "office/released/app:1", "--json")
    assert json.loads(done.stdout.splitlines()[-1])["failed"] == 0
    assert scene.tag("org/app", "2") == scene.tag("released/app", "1") == scene.roots[TWO]
    scene.run("retag", "office/org/app:2", "office/third")  # the name of the image, without another one
    assert scene.tag("third", "2") == scene.roots[TWO]
    assert scene.held() == before
    missing = scene.run("retag", "office/org/app:none", "office/org/app:2")
    assert missing.returncode == 1
    assert "has no tag none" in missing.stdout
    assert scene.run("retag", "alpine", "office/a:1").returncode == 2


def test_retag_keeps_immutable_tags_and_quotas(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "immutable_tags = ['v*']\nrepository_quota = '150KB'\n")
    full = scene.run("copy", str(scene.bundle), "office/")
    assert full.returncode == 1
    assert "the quota of office/library/one" in full.stdout
    assert scene.run("retag", "office/org/app:1", "office/org/app:v1").returncode == 0
    other = Shelf()
    single = other.image([b"other"])
    scene.bundle.write_bytes(other.written(make_plan(other.contents({"quay.io/org/app:2": single}))))
    scene.run("copy", str(scene.bundle), "office/")
    moved = scene.run("retag", "office/org/app:2", "office/org/app:v1")
    assert moved.returncode == 1
    assert "never moves" in moved.stdout
    assert scene.tag("org/app", "v1") == scene.roots[TWO]


def test_copy_says_what_is_wrong(scene: Scene, tmp_path: Path) -> None:
    assert scene.run("copy", "office/app:1").returncode == 2
    assert scene.run("copy", "office/app:1", "office/UP").returncode == 2
    refused = scene.run("copy", str(tmp_path / "none.tar"), "office/app:1")
    assert refused.returncode == 1
    assert "none.tar" in refused.stderr
    data = scene.bundle.read_bytes()
    scene.bundle.write_bytes(data[: len(data) // 2])
    cut = scene.run("copy", str(scene.bundle), "office/")
    assert cut.returncode == 1
    assert "cut short" in cut.stderr
    down = scene.run("copy", "127.0.0.1:9/app:1", "office/app:1")
    assert down.returncode == 1
    assert "refused" in down.stdout


async def test_copy_over_http_to_another_mirror_and_back(scene: Scene, tmp_path: Path) -> None:
    async with serving(await hosting(tmp_path / "other")) as mirror:
        there = f"{mirror.address}/office"
        done = await asyncio.to_thread(scene.run, "copy", str(scene.bundle), f"{there}/", "--referrers")
        assert (done.returncode, done.stderr) == (0, "")
        back = ("copy", f"{there}/org/app:1", f"{there}/library/one:2", "office/back/")
        done = await asyncio.to_thread(scene.run, *back, "--referrers")
        assert (done.returncode, done.stderr) == (0, "")
    assert await asyncio.to_thread(scene.tag, "back/office/org/app", "1") == scene.roots[TWO]
    assert await asyncio.to_thread(scene.tag, "back/office/library/one", "2") == scene.roots[ONE]

"""`registry-mirror warm`, the program: in front of a fake registry, beside a mirror and without one."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mirror.oci.manifest import OCI_INDEX
from tests.e2e.processes import free_port
from tests.fakes.content import FakeImage, image_index, some_layers
from tests.fakes.faults import Fault
from tests.fakes.limit import RateLimit
from tests.fakes.registry import FakeRegistry
from tests.programs import without_coverage
from tests.running import CHUNK, LARGE_DATA
from tests.wire import get

pytestmark = pytest.mark.slow

BIG = LARGE_DATA


class Done(NamedTuple):
    status: int
    out: str
    err: str

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the JSON events of a kind."""
        events = [json.loads(line) for line in self.out.splitlines()]
        return [each for each in events if each["event"] == kind]


class Lab:
    """A folder with a configuration whose docker.io is a fake registry."""

    def __init__(self, folder: Path, hub: FakeRegistry) -> None:
        self.folder = folder
        self.hub = hub
        self.processes: list[Process] = []
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"

    async def configure(self, more: str = "") -> None:
        text = f"""
[server]
listen = ["{self.address}"]
[cache]
dir = "{self.folder}/cache"
min_free = 0
[tags]
fresh = 0
missing = 0
[fill]
chunk_size = "{CHUNK // 1024}KiB"
prefetch = "off"
{more}
[[upstream]]
name = "docker.io"
url = "{self.hub.url}"
attempts = 1
"""
        await self.write("mirror.toml", text)

    async def write(self, name: str, text: str) -> str:
        """Write a file of the folder, and return its path."""
        await asyncio.to_thread((self.folder / name).write_text, text)
        return str(self.folder / name)

    async def start(self, *arguments: str, stdin: int | None = None) -> Process:
        """Start the program."""
        command = [sys.executable, "-m", "mirror", *arguments, "--config", str(self.folder / "mirror.toml")]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=stdin, stdout=PIPE, stderr=PIPE, env=without_coverage()
        )
        self.processes.append(process)
        return process

    async def close(self) -> None:
        """End what a test that failed has left."""
        for process in self.processes:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    async def run(self, *arguments: str, stdin: str | None = None) -> Done:
        """Run the program to its end."""
        process = await self.start(*arguments, stdin=None if stdin is None else PIPE)
        out, err = await process.communicate(None if stdin is None else stdin.encode())
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Run the mirror; the address is that of a server that is ready."""
        process = await self.start("serve")
        assert process.stderr is not None
        while b" serves on " not in (line := await process.stderr.readline()):
            assert line, "the mirror has ended"
        reading = asyncio.create_task(process.stderr.read())
        try:
            yield self.address
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()
            await reading

    def cut_off(self) -> None:
        """Let the upstream answer nothing any more."""
        self.hub.fault(Fault(status=500), times=10_000)

    async def serves(self, image: FakeImage) -> bool:
        """Return whether the running mirror gives manifest and blobs of an image."""
        tag = await get(self.address, f"/v2/{image.repository}/manifests/{image.tag or image.manifest}")
        blobs = [await get(self.address, f"/v2/{image.repository}/blobs/{each}") for each in image.blobs]
        return tag.body == image.manifest_data and [each.body for each in blobs] == list(image.blobs_data)


@pytest.fixture
async def lab(hub: FakeRegistry, tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path, hub)
    await made.configure()
    yield made
    await made.close()


def images_in(hub: FakeRegistry, names: Sequence[str]) -> list[FakeImage]:
    """Add images that have no layer in common."""
    return [hub.add_image(f"library/{name}", "1", [name.encode() * n for n in (9, 99)]) for name in names]


async def test_warm_without_a_mirror_then_offline(hub: FakeRegistry, lab: Lab) -> None:
    """The folder is made; the mirror that is started later serves the images without the upstream."""
    first, second = images_in(hub, ["x", "y"])
    done = await lab.run("warm", "x:1", "docker.io/library/y:1")
    assert done.status == 0, done.err
    assert sorted(line.partition(",")[0] for line in done.out.splitlines()) == [
        "docker.io/library/x:1: done",
        "docker.io/library/y:1: done",
    ]
    lab.cut_off()
    async with lab.serving():
        assert await lab.serves(first)
        assert await lab.serves(second)


async def test_warm_beside_a_mirror_fetches_each_blob_once(hub: FakeRegistry, lab: Lab) -> None:
    """Clients pull while the image is fetched ahead; the mirror serves it later without a restart."""
    image = hub.add_image("library/x", "1", [*some_layers(6), BIG, BIG[::-1]])
    gate = hub.hold(image.layers[-1], after=CHUNK)
    async with lab.serving():
        assert (await get(lab.address, "/v2/library/x/manifests/none")).status == 404
        running = asyncio.create_task(lab.run("warm", "x:1"))
        await gate.reached.wait()
        clients = [
            asyncio.create_task(get(lab.address, f"/v2/library/x/blobs/{each}")) for each in image.blobs
        ]
        assert (await get(lab.address, "/v2/library/x/manifests/1")).body == image.manifest_data
        gate.release()
        bodies = [(await each).body for each in clients]
        done = await running
        assert done.status == 0, done.err
        assert bodies == list(image.blobs_data)
        small = [each for each in image.blobs if each not in image.layers[-2:]]
        assert [hub.requests("GET", each) for each in small] == [1] * len(small)
        lab.cut_off()
        assert await lab.serves(image)


async def test_warm_again_asks_for_nothing_that_is_here(hub: FakeRegistry, lab: Lab) -> None:
    images_in(hub, ["x"])
    assert (await lab.run("warm", "x:1")).status == 0
    asked = hub.requests("GET")
    done = await lab.run("warm", "x:1", "--json")
    assert [each["result"] for each in done.events("image")] == ["present"]
    assert hub.requests("GET") == asked


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
async def test_warm_goes_on_where_it_was_interrupted(
    hub: FakeRegistry, lab: Lab, end: signal.Signals
) -> None:
    """The bytes of a blob that had come are not asked for again; nothing is left over."""
    await lab.configure("parallel = 1")  # a second connection would fetch what the first one waits for
    image = hub.add_image("library/x", "1", [*some_layers(2), BIG])
    gate = hub.hold(image.layers[-1], after=8 * CHUNK)
    process = await lab.start("warm", "x:1", "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    while line := await process.stdout.readline():
        if json.loads(line).get("bytes", 0) > 4 * CHUNK:
            process.send_signal(end)
            break
    told = (await process.stderr.read()).decode()
    status = await process.wait()
    gate.release()
    assert status == (-signal.SIGKILL if end == signal.SIGKILL else 130)
    if end == signal.SIGINT:
        assert "Repeat the command to go on: registry-mirror warm x:1" in told
    done = await lab.run("warm", "x:1")
    assert done.status == 0, done.err
    last = [seen for seen in hub.log if str(image.layers[-1]) in seen.path][-1]
    start = int(last.headers["Range"].removeprefix("bytes=").partition("-")[0])
    assert start >= 4 * CHUNK
    left = await asyncio.to_thread(lambda: list((lab.folder / "cache" / "partial").iterdir()))
    assert left == []


async def test_warm_names_what_is_missing(hub: FakeRegistry, lab: Lab) -> None:
    """The exit status is 1; the other images are complete."""
    first, _ = images_in(hub, ["x", "y"])
    del hub.repository("library/x").blobs[str(first.layers[1])]
    done = await lab.run("warm", "x:1", "y:1", "none:1", "--json")
    assert done.status == 1
    results = {each["image"]: each["result"] for each in done.events("image")}
    assert results == {
        "docker.io/library/x:1": "failed",
        "docker.io/library/y:1": "done",
        "docker.io/library/none:1": "failed",
    }
    (end,) = done.events("done")
    assert list(end["missing"]["docker.io/library/x:1"]) == [str(first.layers[1])]
    assert end["failed"] == 2
    text = await lab.run("warm", "x:1")
    assert text.status == 1
    assert f"docker.io/library/x:1: failed: {first.layers[1]} is missing" in text.out
    assert "1 of 1 images are not complete." in text.err


async def test_warm_from_files_names_bad_lines(hub: FakeRegistry, lab: Lab) -> None:
    """All that is good is fetched, and the exit status is 1."""
    images_in(hub, ["x", "y", "z"])
    plain = await lab.write("images.txt", "x:1\n# comment\nUPPER:1\nghcr.io/org/app\n")
    compose = await lab.write("compose.yaml", "services:\n  a:\n    image: y:$TAG\n")
    pod = "apiVersion: v1\nkind: Pod\nspec: {containers: [{image: 'z:1'}, {image: 'y:1'}]}\n"
    done = await lab.run(
        "warm", "--from", plain, "--from", compose, "--from", "-", "--env", "TAG=1", stdin=pod
    )
    assert done.status == 1
    assert f"{plain}:3: 'UPPER' is not the name of an image" in done.err
    assert f"{plain}:4: 'ghcr.io/org/app': " not in done.err  # ghcr.io is preconfigured
    assert "ghcr.io/org/app:latest: failed" in done.out
    for name in "xyz":
        assert f"docker.io/library/{name}:1: done" in done.out


async def test_warm_patterns_of_tags(hub: FakeRegistry, lab: Lab) -> None:
    """The upstream's list is read to its last page; a pattern without a match is a failure."""
    hub.page_size = 2
    for tag in ("3.17", "3.18", "3.19.1", "3.20", "4.0", "latest"):
        hub.add_image("library/x", tag, some_layers(1))
    done = await lab.run("warm", "x:>=3.18 <4", "x:3.1*", "x:9.*", "--dry-run")
    assert done.status == 1
    planned = [line for line in done.out.splitlines() if "failed" not in line]
    assert [line.partition(" ")[0].rpartition(":")[2] for line in planned] == [
        "3.18",
        "3.19.1",
        "3.20",
        "3.17",
    ]
    assert "docker.io/library/x:9.*: failed: no tag of the repository matches" in done.out
    assert hub.requests("GET", "/blobs/") == hub.requests("GET", "/manifests/") == 0


async def test_warm_platforms_and_pins(hub: FakeRegistry, lab: Lab) -> None:
    """The pin has the platforms that were fetched."""
    images = [hub.add_image("library/x", None, [layer]) for layer in some_layers(3)]
    hub.add_manifest("library/x", image_index([each.manifest_data for each in images]), OCI_INDEX, "1")
    done = await lab.run("warm", "x:1", "--platform", "linux/arch1", "--pin")
    assert done.status == 0, done.err
    assert [hub.requests("GET", each.layers[0]) for each in images] == [0, 1, 0]
    (pin,) = json.loads((await lab.run("pins", "--json")).out)
    assert (pin["pattern"], pin["platforms"]) == ("docker.io/library/x:1", ["linux/arch1"])
    assert pin["size"] == pin["here"]
    absent = await lab.run("warm", "x:1", "--platform", "linux/none")
    assert absent.status == 1
    assert "linux/none is missing: the image has no such platform, but linux/arch0" in absent.out


async def test_warm_leaves_pulls_and_says_when_it_goes_on(hub: FakeRegistry, lab: Lab) -> None:
    """The first images are fetched; before the last pulls it waits."""
    hub.limit = RateLimit(6)
    images_in(hub, ["a", "b", "c", "d"])
    process = await lab.start("warm", "a:1", "b:1", "c:1", "d:1", "--leave", "3", "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    events = []
    while line := await process.stdout.readline():
        events.append(json.loads(line))
        if events[-1]["event"] == "pause":
            break
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert events[-1]["reason"] == "3 of 6 pulls are left"
    assert events[-1]["upstream"] == "docker.io"
    assert hub.limit.left() == 3


async def test_pin_can_fetch(hub: FakeRegistry, lab: Lab) -> None:
    """`pin --fetch` fetches all that the pin keeps."""
    (image,) = images_in(hub, ["x"])
    async with lab.serving():
        pass
    done = await lab.run("pin", "x:1", "--fetch")
    assert done.status == 0, done.err
    assert hub.requests("GET", image.layers[0]) == 1
    (pin,) = json.loads((await lab.run("pins", "--json")).out)
    assert pin["here"] == pin["size"] > 0
    missing = await lab.run("pin", "none:1", "--fetch")
    assert missing.status == 1
    assert "docker.io/library/none:1: failed" in missing.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no image is named"),
        (("UPPER",), "is not the name of an image"),
        (("x", "--platform", "amd64"), "is not a platform"),
        (("--from", "/none"), "/none cannot be read"),
        (("x", "--env-file", "/none"), "--env-file: /none cannot be read"),
        (("x", "--env", "NO_SUCH"), "--env NO_SUCH: the environment has no such variable"),
        (("registry.invalid/x",), "is not configured"),
    ],
)
async def test_warm_refuses_wrong_usage(lab: Lab, arguments: tuple[str, ...], message: str) -> None:
    done = await lab.run("warm", *arguments)
    assert done.status == 2
    assert message in done.err
    assert not await asyncio.to_thread((lab.folder / "cache").exists)


async def test_warm_status_works_without_a_mirror(hub: FakeRegistry, lab: Lab) -> None:
    """The state is that of the folder; lists that never ran have their next run."""
    assert "has no [[warm]] tables" in (await lab.run("warm", "--status")).err
    await lab.configure('[[warm]]\nname = "nightly"\nschedule = "30 3 * * * Europe/Berlin"\nimages = ["x"]\n')
    await asyncio.to_thread((lab.folder / "cache").mkdir)
    state = {"due": 1.0, "began": 2.0, "ended": 3.0, "result": "failed", "images": 4, "failed": 1}
    failures = {"docker.io/library/x:1": "gone"}
    await lab.write("cache/warm-runs", json.dumps({"nightly": {**state, "failures": failures}}))
    (shown,) = json.loads((await lab.run("warm", "--status", "--json")).out)
    assert (shown["name"], shown["result"], shown["last_ended"], shown["failed"]) == (
        "nightly",
        "failed",
        3.0,
        1,
    )
    text = await lab.run("warm", "--status")
    assert "nightly\t30 3 * * * Europe/Berlin\t1970-01-01T00:00:03Z\tfailed, 1 of 4 failed" in text.out
    assert "docker.io/library/x:1: gone" in text.err

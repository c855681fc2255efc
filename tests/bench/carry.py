"""Images as a file: export and import of the mirror beside cp, skopeo and ctr, for the same image and disk.

All of them run on all cores, and each figure ends when the bytes are on the disk. cp copies the file and
checks nothing; the others compute each digest. What the mirror and skopeo read is in the page cache.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from mirror.store.cache_dir import CacheDirectory
from tests.bench.bench import Bench, check
from tests.bench.client import fetch
from tests.bench.contestants import BASE, CP, CTR, MIRROR, SKOPEO, Setup, running
from tests.bench.machine import CORES, file_system, on_core
from tests.bench.startup import program
from tests.e2e.clients import POLICY, Containerd, containerd
from tests.e2e.processes import run
from tests.programs import SYSTEM_PATH
from tests.programs import program as tool

# Name of the image in the mirror's configuration and in archives.
NAME = "docker.io/library/carried:1"

# Makes ready what a command needs, and returns the command.
Prepare = Callable[[], Sequence[str | Path]]


@dataclass(frozen=True)
class Work:
    """The folder of one round: `cache` has the image, `tar` is its bundle, `layout` has it for skopeo."""

    folder: Path

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def tar(self) -> Path:
        return self.folder / "carried.tar"

    @property
    def layout(self) -> Path:
        return self.folder / "layout"

    @property
    def policy(self) -> Path:
        return self.folder / "policy.json"

    @property
    def out(self) -> Path:
        return self.folder / "out"


@dataclass(frozen=True)
class Usage:
    """Seconds and the highest resident memory, in bytes, of a command."""

    seconds: float
    memory: int


def carry(bench: Bench) -> None:
    """Measure both directions for each contestant that is installed."""
    image = bench.site.carried
    size = image.config.size + sum(each.size for each in image.layers)
    bench.note(f"carry: the files are on {file_system(bench.site.root)}")
    rivals = [
        CP,
        *(name for name, each in ((SKOPEO, "skopeo"), (CTR, "containerd")) if which(each, path=SYSTEM_PATH)),
    ]
    for name in {SKOPEO, CTR} - set(rivals):
        bench.note(f"carry: {name} is not installed")
    with _prepared(bench) as work, ExitStack() as stack, on_core(*CORES):
        ctr = stack.enter_context(_containerd(work)) if CTR in rivals else None
        for name in bench.turns(MIRROR, *rivals):
            with bench.attempt("carry", name):
                for kind, command in _commands(bench, name, work, ctr).items():
                    used = _measured(command, work.out)
                    _add(bench, kind, name, size / used.seconds / 1e9)
                    if name in (MIRROR, BASE):
                        bench.add(f"carry-{kind}-rss", name, used.memory / 1e6)


def _add(bench: Bench, kind: str, name: str, figure: float) -> None:
    """Add a figure: one of the mirror to the row of each rival, one of a rival to its own."""
    for rival in (CP, SKOPEO, CTR):
        if name in (MIRROR, BASE, rival):
            bench.add(
                f"carry-{kind}" if rival == CP else f"carry-{kind}-{rival.partition(' ')[0]}", name, figure
            )


@contextmanager
def _prepared(bench: Bench) -> Iterator[Work]:
    """Pull the image through a mirror, which then stops, and write what the contestants read."""
    image, folder = bench.site.carried, bench.folder()
    folder.mkdir()
    try:
        with bench.origin() as origin, running(MIRROR, Setup(origin, bench.site, folder)) as server:
            fetch(server, image.by_tag)
            for blob in (image.config, *image.layers):
                check(server, blob.path)
        work = Work(folder)
        run([*program(None), *_export(work, work.tar)])
        work.policy.write_text(POLICY)
        yield work
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _containerd(work: Work) -> Iterator[Containerd]:
    """Run a containerd that has the image."""
    with containerd(work.folder / "c", "http://127.0.0.1:9") as client:
        client("images", "import", "--no-unpack", str(work.tar))
        yield client


def _commands(bench: Bench, name: str, work: Work, ctr: Containerd | None) -> dict[str, Prepare]:
    """Return the commands of a contestant by their direction; each is made ready before it is measured."""
    if name == CP:
        copy: list[str | Path] = ["cp", work.tar, work.out]
        return {"export": lambda: copy, "import": lambda: copy}
    if name == SKOPEO:
        return {
            "export": lambda: _skopeo(work, f"oci:{work.layout}:1", f"oci-archive:{work.out}:{NAME}"),
            "import": lambda: _skopeo(work, f"oci-archive:{work.tar}:{NAME}", f"oci:{work.out}:1"),
        }
    if name == CTR:
        assert ctr is not None
        return {
            "export": lambda: ctr.command("images", "export", str(work.out), NAME),
            "import": lambda: _ctr_import(ctr, work),
        }
    own = program(bench.options.base if name == BASE else None)
    return {
        "export": lambda: [*own, *_export(work, work.out)],
        "import": lambda: [*own, *_import(work)],
    }


def _export(work: Work, out: Path) -> list[str | Path]:
    return ["export", "-o", out, "--cache-dir", work.cache, NAME]


def _import(work: Work) -> list[str | Path]:
    """Return the command that imports into a new cache folder."""
    with closing(CacheDirectory(work.out)):
        return ["import", "--cache-dir", work.out, work.tar]


def _skopeo(work: Work, source: str, target: str) -> list[str | Path]:
    command: list[str | Path] = [tool("skopeo"), "--policy", work.policy, "copy"]
    if not work.layout.exists():
        run([*command, f"oci-archive:{work.tar}:{NAME}", f"oci:{work.layout}:1"])
    return [*command, source, target]


def _ctr_import(ctr: Containerd, work: Work) -> list[str | Path]:
    """Return the command that imports into a containerd that has nothing of the image any more."""
    ctr.forget(NAME)
    return ctr.command("images", "import", "--no-unpack", str(work.tar))


def _measured(command: Prepare, out: Path) -> Usage:
    """Run a command, which writes to `out`, and wait for its bytes to be on the disk."""
    arguments = command()
    os.sync()
    started = time.perf_counter()
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, said.decode(errors="replace")
    os.sync()
    seconds = time.perf_counter() - started
    if out.is_dir():
        shutil.rmtree(out)
    out.unlink(missing_ok=True)
    return Usage(seconds, usage.ru_maxrss * 1024)

"""Every fault of an origin, and what Docker, containerd and Podman see of it: DESIGN.md's failure table.

`--faults-table FILE` writes the table as this run has measured it; `-` is the terminal.
"""

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.bench import FAILED, PULLED, PULLED_NEXT, WRONG, Client, pull_all
from tests.e2e.faulty import Fault
from tests.e2e.fsck import disorder, wrong_files
from tests.e2e.images import Image
from tests.e2e.lab import NAME, REGISTRY
from tests.e2e.processes import wait_until
from tests.e2e.report import REPORT, Report, Seen
from tests.e2e.scene import CONNECT, FALLBACK, HEADERS, Scene, scene
from tests.e2e.troubles import DEAD, HEALED, MIDDLE, corrupt_once
from tests.leftovers import short_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("docker-registry", "nginx", "ip", "iptables", "unshare", "skopeo", "podman", root=True),
    pytest.mark.needs("dockerd", "docker", "containerd", "ctr"),
    pytest.mark.timeout(300),
]

SMALL, LARGE = 100_000, 6_000_000

COLD, CACHED = "nothing", "all of it"
OPEN, NONE = "works", "none"
ALL = ("docker", "containerd", "podman")

UP = f'registry_mirror_source_up{{source="{NAME}:{REGISTRY}",upstream="docker.io"}}'

# Seconds that a client itself may need for a pull, on a busy machine; most of them need one.
OWN = 30.0


@dataclass(frozen=True)
class Case:
    """`within` seconds each client sees `expected`."""

    fault: str
    cache: str
    next: str
    expected: str
    within: float
    clients: Sequence[str] = ALL

    def __str__(self) -> str:
        return f"{self.fault}-{self.cache}-{self.next}".replace(" ", "_")


Inflict = Callable[[Scene, Sequence[Image]], None]


def no_such_name(scene: Scene, images: Sequence[Image]) -> None:
    """The name is gone, and so is what was known of it."""
    scene.resolve(known=False)
    scene.mirror.kill()
    scene.mirror.start()


def no_name_server(scene: Scene, images: Sequence[Image]) -> None:
    """The same, and the name server says nothing."""
    scene.lab.net.swallow()
    no_such_name(scene, images)


def no_network(scene: Scene, images: Sequence[Image]) -> None:
    """A black hole, into which the mirror starts."""
    scene.lab.net.swallow()
    scene.mirror.kill()
    scene.mirror.start()


# What is about more than the origin.
AROUND: dict[str, Inflict] = {
    "black hole, mirror restarted": no_network,
    "no such name in DNS": no_such_name,
    "DNS never answers": no_name_server,
}
UNAVAILABLE = [*DEAD, *AROUND]
SLOW = {"black hole", "black hole, mirror restarted", "accepts, never answers", "DNS never answers"}
SLOW_TWINS = {"black hole, mirror restarted", "DNS never answers"}


def told(fault: str) -> float:
    """Seconds within which a client without anything cached knows that it must look elsewhere."""
    return HEADERS + 3 * FALLBACK if fault in SLOW else 3


CASES = [
    *(Case(fault, COLD, OPEN, PULLED_NEXT, OWN + told(fault)) for fault in UNAVAILABLE),
    # Podman goes on asking for half a minute when there is nowhere else to go: not for what is much the same.
    *(
        Case(fault, COLD, NONE, FAILED, OWN + 4 * told(fault))
        for fault in UNAVAILABLE
        if fault not in SLOW_TWINS
    ),
    *(Case(fault, CACHED, NONE, PULLED, OWN) for fault in UNAVAILABLE),
    *(Case(fault, COLD, NONE, PULLED, OWN + 8) for fault in HEALED),
    *(Case(fault, CACHED, NONE, PULLED, OWN, (ALL[number % 3],)) for number, fault in enumerate(HEALED)),
]


@pytest.fixture(scope="module")
def stage() -> Iterator[Scene]:
    """Origins and clients, started once. When all is over, nothing in the cache is wrong."""
    with short_folder() as folder, scene(folder) as made:
        yield made
        assert wrong_files(made.mirror.cache) == []
        assert disorder(made.mirror.cache, killed=True) == []


@pytest.fixture
def running(stage: Scene) -> Iterator[Scene]:
    """With a mirror that knows of no trouble, and all is well."""
    stage.resolve(known=True)
    if not stage.mirror.running:
        stage.configure(fresh=0)
        stage.mirror.start()
    yield stage
    stage.lab.heal()
    if stage.mirror.running and stage.mirror.metric(UP) != 1:
        stage.mirror.kill()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    return request.config.stash[REPORT]


def pulled(
    scene: Scene, images: dict[Client, Image], row: tuple[str, str, str], report: Report
) -> list[Seen]:
    """What all of them saw; noted in the report, and never wrong, whatever else it is."""
    seen = []
    for name, pull in pull_all(images).items():
        each = pull.seen(scene.asked_next(pull.image))
        report.saw(row, name, each)
        assert each.outcome != WRONG, name
        print(f"{name}: {each}\n{pull.complaint}")
        seen.append(each)
    return seen


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fault(case: Case, running: Scene, report: Report) -> None:
    """What is cached is served, what can be healed is healed, and otherwise clients go on at once."""
    size = LARGE if case.fault in HEALED and case.cache == COLD else SMALL
    images = {running.clients[name]: running.shelf.image(size) for name in case.clients}
    if case.cache == CACHED:
        for image in images.values():
            running.prime(image)
    running.open_next(case.next == OPEN)
    if case.fault in AROUND:
        AROUND[case.fault](running, list(images.values()))
    else:
        {**DEAD, **HEALED}[case.fault](running.lab, list(images.values()))
    seen = pulled(running, images, (case.fault, case.cache, case.next), report)
    assert {each.outcome for each in seen} == {case.expected}
    assert max(each.seconds for each in seen) < case.within
    # What a client waits for the mirror, without what it takes itself.
    deadline = FALLBACK if case.cache == CACHED else HEADERS
    for image in images.values():
        longest, *others = [*running.waits(image), 0.0]
        assert longest < deadline + 2
        assert max(others, default=0.0) < FALLBACK + 2, "it waits once"


@pytest.mark.parametrize("size", [2_000_000, LARGE])
def test_wrong_bytes(size: int, running: Scene, report: Report) -> None:
    """Once a byte is wrong: nobody keeps a wrong image, and whoever pulls again has the right one."""
    images = {client: running.shelf.image(size) for client in running.clients.values()}
    running.open_next(False)
    corrupt_once(running.lab, list(images.values()))
    name = f"one wrong byte in {size // 1_000_000} MB, once"
    pulled(running, images, (name, COLD, NONE), report)
    again = pulled(running, images, (f"{name}; then again", COLD, NONE), report)
    assert {each.outcome for each in again} == {PULLED}


def test_an_origin_that_lies(running: Scene, report: Report) -> None:
    """Every layer always wrong: each client has the right image all the same, from the next."""
    images = {client: running.shelf.image(2_000_000) for client in running.clients.values()}
    running.open_next(True)
    running.lab.break_(Fault("corrupt", at=MIDDLE, door="cdn"))
    pulled(running, images, ("always a wrong byte", COLD, OPEN), report)


def asked(scene: Scene, image: Image) -> tuple[int, float]:
    """Status and seconds of the mirror's answer to a HEAD for the image's tag."""
    url = f"{scene.mirror.url}/v2/{image.name}/manifests/{image.tag}"
    began = time.monotonic()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=60) as answer:
            status = answer.status
    except urllib.error.HTTPError as error:
        error.close()
        status = error.code
    return status, time.monotonic() - began


def test_nobody_waits_for_what_the_last_one_waited_for(running: Scene) -> None:
    """A black hole costs the first client its time, and the next one none; once healed, it is found again."""
    images = [running.shelf.image(SMALL) for _ in range(3)]
    running.lab.net.swallow()
    first, second = asked(running, images[0]), asked(running, images[1])
    assert (first[0], second[0]) == (404, 404)
    assert first[1] < HEADERS + 2
    assert second[1] < CONNECT
    running.lab.heal()
    wait_until(lambda: asked(running, images[2])[0] == 200, "half-open, then closed", 30)


@pytest.fixture
def clock(stage: Scene) -> Iterator[Path]:
    """What the mirror's wall clock is ahead, in libfaketime's words; behind it, monotonic time goes on."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    path, before = stage.folder / "clock", stage.mirror.env
    path.write_text("+0d")
    options = {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
    stage.mirror.env = {**before, **options, "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(path)}
    yield path
    stage.mirror.kill()
    stage.mirror.env = before


@pytest.mark.needs("faketime")
@pytest.mark.parametrize("works", [True, False], ids=["works", "refused"])
@pytest.mark.parametrize("jump", ["+400d", "-400d"])
def test_the_clock_jumps(jump: str, works: bool, running: Scene, clock: Path, report: Report) -> None:
    """What was confirmed long ago, or in the future, is asked about, and served if nobody answers."""
    running.mirror.kill()
    running.configure(fresh=3600)
    running.mirror.start()
    images = {client: running.shelf.image(SMALL) for client in running.clients.values()}
    for image in images.values():
        running.prime(image)
    running.open_next(False)
    before = running.lab.count()
    for image in images.values():
        assert asked(running, image)[0] == 200
    assert running.lab.count() == before
    if not works:
        running.lab.net.refuse()
    clock.write_text(jump)
    origin = "origin works" if works else "connection refused"
    seen = pulled(running, images, (f"clock jumps by {jump}, {origin}", CACHED, NONE), report)
    assert {each.outcome for each in seen} == {PULLED}
    assert max(each.seconds for each in seen) < OWN
    assert (running.lab.count() > before) == works
    # Confirmed by the new clock, they are fresh again.
    before = running.lab.count()
    assert works is False or all(asked(running, image)[0] == 200 for image in images.values())
    assert running.lab.count() == before

"""Faults of an origin as Docker, containerd and Podman see them (failure table of docs/architecture.md).

`--faults-table FILE` writes the table that this run has measured; `-` is the terminal.
"""

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.all_clients import FAILED, PULLED, PULLED_NEXT, WRONG, Client, pull_all
from tests.e2e.fault_proxy import Fault
from tests.e2e.faults import DEAD, HEALED, MIDDLE, corrupt_once
from tests.e2e.fsck import disorder, wrong_files
from tests.e2e.images import Image
from tests.e2e.lab import NAME, REGISTRY
from tests.e2e.processes import wait_until
from tests.e2e.report import REPORT, Report, Seen
from tests.e2e.scene import CONNECT, FALLBACK, HEADERS, Scene, scene
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

# Seconds that a client itself may need for a pull on a busy machine; most clients need one.
OWN = 30.0


@dataclass(frozen=True)
class Case:
    """One fault: each client sees `expected` within `within` seconds."""

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
    """Remove the name, and restart the mirror, which may know the address."""
    scene.resolve(known=False)
    scene.mirror.kill()
    scene.mirror.start()


def no_name_server(scene: Scene, images: Sequence[Image]) -> None:
    """Remove the name, and silence the name server."""
    scene.lab.net.swallow()
    no_such_name(scene, images)


def no_network(scene: Scene, images: Sequence[Image]) -> None:
    """Start the mirror into a black hole."""
    scene.lab.net.swallow()
    scene.mirror.kill()
    scene.mirror.start()


# Faults around the origin.
AROUND: dict[str, Inflict] = {
    "black hole, mirror restarted": no_network,
    "no such name in DNS": no_such_name,
    "DNS never answers": no_name_server,
}
UNAVAILABLE = [*DEAD, *AROUND]
SLOW = {"black hole", "black hole, mirror restarted", "accepts, never answers", "DNS never answers"}
SLOW_TWINS = {"black hole, mirror restarted", "DNS never answers"}


def answered_within(fault: str) -> float:
    """Return the seconds within which a client on a cold cache is told to look elsewhere."""
    return HEADERS + 3 * FALLBACK if fault in SLOW else 3


CASES = [
    *(Case(fault, COLD, OPEN, PULLED_NEXT, OWN + answered_within(fault)) for fault in UNAVAILABLE),
    # Podman asks for half a minute when there is nowhere else to go: near-twins of other faults are left out.
    *(
        Case(fault, COLD, NONE, FAILED, OWN + 4 * answered_within(fault))
        for fault in UNAVAILABLE
        if fault not in SLOW_TWINS
    ),
    *(Case(fault, CACHED, NONE, PULLED, OWN) for fault in UNAVAILABLE),
    *(Case(fault, COLD, NONE, PULLED, OWN + 8) for fault in HEALED),
    *(Case(fault, CACHED, NONE, PULLED, OWN, (ALL[number % 3],)) for number, fault in enumerate(HEALED)),
]


@pytest.fixture(scope="module")
def stage() -> Iterator[Scene]:
    """Origins and clients, started once. At the end nothing in the cache is wrong."""
    with short_folder() as folder, scene(folder) as made:
        yield made
        assert wrong_files(made.mirror.cache) == []
        assert disorder(made.mirror.cache, killed=True) == []


@pytest.fixture
def running(stage: Scene, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Healthy scene, with a mirror that has seen no fault, and waits for no answer since one."""
    stage.resolve(known=True)
    if not stage.mirror.running:
        stage.configure(fresh=0)
        stage.mirror.start()
    yield stage
    stage.lab.heal()
    call = getattr(request.node, "callspec", None)
    case = call.params.get("case") if call else None
    waits = case is not None and case.fault in SLOW  # a request may fail in the next test only
    if stage.mirror.running and (waits or stage.mirror.metric(UP) != 1):
        stage.mirror.kill()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    return request.config.stash[REPORT]


def pulled(
    scene: Scene, images: dict[Client, Image], row: tuple[str, str, str], report: Report
) -> list[Seen]:
    """Pull with all clients and report what each saw: whatever happens, never a wrong image."""
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
    """Cached images are served, faults are healed if possible, and otherwise clients go on at once."""
    size = LARGE if case.fault in HEALED and case.cache == COLD else SMALL
    images = {running.clients[name]: running.images.image(size) for name in case.clients}
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
    # The time that the mirror takes, without the client's own.
    deadline = FALLBACK if case.cache == CACHED else HEADERS
    for image in images.values():
        longest, *others = [*running.waits(image), 0.0]
        assert longest < deadline + 2
        assert max(others, default=0.0) < FALLBACK + 2, "it waits once"


@pytest.mark.parametrize("size", [2_000_000, LARGE])
def test_wrong_bytes(size: int, running: Scene, report: Report) -> None:
    """One byte is wrong, once: no client keeps a wrong image, and the next pull brings the right one."""
    images = {client: running.images.image(size) for client in running.clients.values()}
    running.open_next(False)
    corrupt_once(running.lab, list(images.values()))
    name = f"one wrong byte in {size // 1_000_000} MB, once"
    pulled(running, images, (name, COLD, NONE), report)
    again = pulled(running, images, (f"{name}; then again", COLD, NONE), report)
    assert {each.outcome for each in again} == {PULLED}


def test_wrong_bytes_always(running: Scene, report: Report) -> None:
    """Every layer is always wrong: each client has the right image all the same, from the next endpoint."""
    images = {client: running.images.image(2_000_000) for client in running.clients.values()}
    running.open_next(True)
    running.lab.break_(Fault("corrupt", at=MIDDLE, door="cdn"))
    pulled(running, images, ("always a wrong byte", COLD, OPEN), report)


def asked(scene: Scene, image: Image) -> tuple[int, float]:
    """Ask the mirror with a HEAD for the image's tag; return status and seconds."""
    url = f"{scene.mirror.url}/v2/{image.name}/manifests/{image.tag}"
    began = time.monotonic()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=60) as answer:
            status = answer.status
    except urllib.error.HTTPError as error:
        error.close()
        status = error.code
    return status, time.monotonic() - began


def test_breaker_spares_the_next_client_the_wait(running: Scene) -> None:
    """A black hole costs one client its time and the next client none; once healed, it is used again."""
    images = [running.images.image(SMALL) for _ in range(3)]
    running.lab.net.swallow()
    first, second = asked(running, images[0]), asked(running, images[1])
    assert (first[0], second[0]) == (404, 404)
    assert first[1] < HEADERS + 2
    assert second[1] < CONNECT
    running.lab.heal()
    wait_until(lambda: asked(running, images[2])[0] == 200, "half-open, then closed", 30)


@pytest.fixture
def clock(stage: Scene) -> Iterator[Path]:
    """File with the offset of the mirror's wall clock, for libfaketime; monotonic time is not faked."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    path, before = stage.folder / "clock", stage.mirror.env
    path.write_text("+0d")
    options = {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
    stage.mirror.env = {**before, **options, "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(path)}
    yield path
    pid = stage.mirror.pid
    stage.mirror.kill()
    stage.mirror.env = before
    for shared in Path("/dev/shm").glob(f"*faketime_???_{pid}"):  # libfaketime leaves its shared memory
        shared.unlink()


@pytest.mark.needs("faketime")
@pytest.mark.parametrize("works", [True, False], ids=["works", "refused"])
@pytest.mark.parametrize("jump", ["+400d", "-400d"])
def test_clock_jumps(jump: str, works: bool, running: Scene, clock: Path, report: Report) -> None:
    """Tags confirmed long ago, or in the future, are revalidated, and served stale if no upstream answers."""
    running.mirror.kill()
    running.configure(fresh=3600)
    running.mirror.start()
    images = {client: running.images.image(SMALL) for client in running.clients.values()}
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

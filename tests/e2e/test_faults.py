"""Every fault of an origin, and what Docker, containerd and Podman see of it: DESIGN.md's failure table.

The table that was measured is at the end of the run, and in the file that `--faults-table` names.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.e2e.bench import FAILED, PULLED, PULLED_NEXT, pull_all
from tests.e2e.faulty import Fault
from tests.e2e.images import Image
from tests.e2e.report import REPORT, Report
from tests.e2e.scene import FALLBACK, HEADERS, Scene, scene

pytestmark = [
    pytest.mark.needs("docker-registry", "nginx", "ip", "iptables", "unshare", "skopeo", "podman", root=True),
    pytest.mark.needs("dockerd", "docker", "containerd", "ctr"),
    pytest.mark.timeout(300),
]

SMALL, LARGE = 100_000, 6_000_000
MIDDLE = 1_000_000  # a byte of a large layer

COLD, CACHED = "nothing", "all of it"
OPEN, NONE = "works", "none"
ALL = ("docker", "containerd", "podman")

# Seconds that a client itself may need for a pull, on a busy machine; most of them need one.
OWN = 12.0


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


def answers(*faults: Fault) -> Inflict:
    """These faults, for whatever is asked."""
    return lambda scene, images: scene.lab.break_(*faults)


def of_manifests(fault: Callable[[str], Sequence[Fault]]) -> Inflict:
    """Faults by the path of each image at the registry."""
    return lambda scene, images: scene.lab.break_(
        *(each for image in images for each in fault(f"/v2/{image.name}/"))
    )


def of_layers(fault: Callable[[str], Sequence[Fault]]) -> Inflict:
    """Faults by the digest of each image's layer, in hex, as the CDN has it."""
    return lambda scene, images: scene.lab.break_(
        *(each for image in images for each in fault(image.blobs[-1].removeprefix("sha256:")))
    )


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


# Nothing can be had from the upstream, and the seconds after which a client without anything cached is told.
UNAVAILABLE: dict[str, tuple[Inflict, float]] = {
    "connection refused": (lambda scene, images: scene.lab.net.refuse(), 3),
    "black hole": (lambda scene, images: scene.lab.net.swallow(), 2 * HEADERS),
    "black hole, mirror restarted": (no_network, 2 * HEADERS),
    "accepts, never answers": (answers(Fault("stall", door="registry")), 2 * HEADERS),
    "503": (answers(Fault("status", status=503, door="registry")), 3),
    "429, Retry-After: 30": (
        answers(Fault("status", status=429, headers={"Retry-After": "30"}, door="registry")),
        3,
    ),
    "429": (answers(Fault("status", status=429, door="registry")), 3),
    "no such name in DNS": (no_such_name, 3),
    "DNS never answers": (no_name_server, 2 * HEADERS),
}

# What is healed on the way, and nobody sees.
PASSING: dict[str, Inflict] = {
    "reset before the answer, once": of_manifests(
        lambda path: [Fault("reset", match=path, door="registry", times=1)]
    ),
    "503, twice": of_manifests(
        lambda path: [Fault("status", status=503, match=path, door="registry", times=2)]
    ),
    "429, Retry-After: 1, once": of_manifests(
        lambda path: [
            Fault("status", status=429, headers={"Retry-After": "1"}, match=path, door="registry", times=1)
        ]
    ),
    "cut in mid-blob": of_layers(lambda layer: [Fault("cut", at=MIDDLE, match=layer, door="cdn", times=1)]),
    "reset in mid-blob": of_layers(
        lambda layer: [Fault("reset", at=MIDDLE, match=layer, door="cdn", times=1)]
    ),
    "stall in mid-blob": of_layers(
        lambda layer: [Fault("stall", at=MIDDLE, match=layer, door="cdn", times=1)]
    ),
    "throttled to 1 MB/s": of_layers(
        lambda layer: [Fault("throttle", rate=1_000_000, match=layer, door="cdn")]
    ),
    "token expires in mid-pull": of_manifests(
        lambda path: [Fault("expire_token", match=f"{path}blobs/", times=1)]
    ),
    "signed URL expires in mid-blob": of_layers(
        lambda layer: [
            Fault("expire_url", match=layer, door="cdn", skip=1, times=1),
            Fault("cut", at=MIDDLE, match=layer, door="cdn", times=1),
        ]
    ),
    "signed URL has expired": of_layers(
        lambda layer: [Fault("expire_url", match=layer, door="cdn", times=1)]
    ),
}

CASES = [
    *(Case(fault, COLD, OPEN, PULLED_NEXT, OWN + told) for fault, (_, told) in UNAVAILABLE.items()),
    *(Case(fault, COLD, NONE, FAILED, OWN + 3 * told) for fault, (_, told) in UNAVAILABLE.items()),
    *(Case(fault, CACHED, NONE, PULLED, OWN) for fault in UNAVAILABLE),
    *(Case(fault, COLD, NONE, PULLED, OWN + 8) for fault in PASSING),
    *(Case(fault, CACHED, NONE, PULLED, OWN, (ALL[number % 3],)) for number, fault in enumerate(PASSING)),
]


@pytest.fixture(scope="module")
def stage() -> Iterator[Scene]:
    """Origins and clients, started once."""
    with TemporaryDirectory(prefix="e2e", ignore_cleanup_errors=True) as folder, scene(Path(folder)) as made:
        yield made


@pytest.fixture
def running(stage: Scene) -> Iterator[Scene]:
    """With a mirror that has just started, and all is well, before and after."""
    stage.resolve(known=True)
    stage.mirror.start()
    yield stage
    stage.lab.heal()
    stage.mirror.kill()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    return request.config.stash[REPORT]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fault(case: Case, running: Scene, report: Report) -> None:
    """What is cached is served, what can be healed is healed, and otherwise clients go on at once."""
    inflict = PASSING.get(case.fault) or UNAVAILABLE[case.fault][0]
    size = SMALL if case.fault in UNAVAILABLE or case.cache == CACHED else LARGE
    images = {running.clients[name]: running.shelf.image(size) for name in case.clients}
    if case.cache == CACHED:
        for image in images.values():
            running.prime(image)
    running.open_next(case.next == OPEN)
    inflict(running, list(images.values()))
    pulls = pull_all(images)
    for name, pull in pulls.items():
        seen = pull.seen(running.asked_next(pull.image))
        report.saw((case.fault, case.cache, case.next), name, seen)
    for name, pull in pulls.items():
        seen = pull.seen(running.asked_next(pull.image))
        assert seen.outcome == case.expected, f"{name}: {seen}\n{pull.complaint}"
        assert pull.seconds < case.within, f"{name}: {seen}\n{pull.complaint}"
        # What a client waits for the mirror, without what it takes itself.
        deadline = FALLBACK if case.cache == CACHED else HEADERS
        assert running.slowest(pull.image) < deadline + 2

"""Faults of an origin, by their meaning for clients of a mirror (failure table of docs/architecture.md)."""

from collections.abc import Callable, Sequence

from tests.e2e.fault_proxy import Fault
from tests.e2e.images import Image
from tests.e2e.lab import Lab

# The fault strikes the pulls of these images; many faults strike every request.
Inflict = Callable[[Lab, Sequence[Image]], None]

MIDDLE = 1_000_000  # offset of a byte of a large layer


def answers(fault: Fault) -> Inflict:
    """Inject one fault into every response."""
    return lambda lab, images: lab.break_(fault)


def of_repositories(fault: Callable[[str], Sequence[Fault]]) -> Inflict:
    """Inject faults by the path of each image at the registry."""
    return lambda lab, images: lab.break_(*(each for image in images for each in fault(f"/v2/{image.name}/")))


def of_layers(fault: Callable[[str], Sequence[Fault]]) -> Inflict:
    """Inject faults by the digest of each image's layer, in hex, as in the CDN's paths."""
    return lambda lab, images: lab.break_(
        *(each for image in images for each in fault(image.blobs[-1].removeprefix("sha256:")))
    )


# The upstream is of no use.
DEAD: dict[str, Inflict] = {
    "connection refused": lambda lab, images: lab.net.refuse(),
    "black hole": lambda lab, images: lab.net.swallow(),
    "accepts, never answers": answers(Fault("stall", door="registry")),
    "503": answers(Fault("status", status=503, door="registry")),
    "429, Retry-After: 30": answers(
        Fault("status", status=429, headers={"Retry-After": "30"}, door="registry")
    ),
    "429": answers(Fault("status", status=429, door="registry")),
}

# The mirror heals these, and no client notices.
HEALED: dict[str, Inflict] = {
    "reset before the answer, once": of_repositories(
        lambda path: [Fault("reset", match=path, door="registry", times=1)]
    ),
    "503, twice": of_repositories(
        lambda path: [Fault("status", status=503, match=path, door="registry", times=2)]
    ),
    "429, Retry-After: 1, once": of_repositories(
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
    "throttled to 2 MB/s": of_layers(
        lambda layer: [Fault("throttle", rate=2_000_000, match=layer, door="cdn")]
    ),
    "token expires in mid-pull": of_repositories(
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


# A client may see a pull that fails, and never a wrong image.
corrupt_once = of_layers(lambda layer: [Fault("corrupt", at=MIDDLE, match=layer, door="cdn", times=1)])

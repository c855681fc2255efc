"""What can be wrong with an origin, by what it means for clients of a mirror (DESIGN.md, failure table)."""

from collections.abc import Callable, Sequence

from tests.e2e.faulty import Fault
from tests.e2e.images import Image
from tests.e2e.lab import Lab

# The images are those whose pulls are to meet it; much is wrong for whatever is asked.
Inflict = Callable[[Lab, Sequence[Image]], None]

MIDDLE = 1_000_000  # a byte of a large layer


def answers(fault: Fault) -> Inflict:
    """This, for whatever is asked."""
    return lambda lab, images: lab.break_(fault)


def of_repositories(fault: Callable[[str], Sequence[Fault]]) -> Inflict:
    """Faults by the path of each image at the registry."""
    return lambda lab, images: lab.break_(*(each for image in images for each in fault(f"/v2/{image.name}/")))


def of_layers(fault: Callable[[str], Sequence[Fault]]) -> Inflict:
    """Faults by the digest of each image's layer, in hex, as the CDN has it."""
    return lambda lab, images: lab.break_(
        *(each for image in images for each in fault(image.blobs[-1].removeprefix("sha256:")))
    )


# Nothing can be had from the upstream.
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

# What is healed on the way, and nobody sees.
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


# The one thing that a client may see of it is a pull that fails.
corrupt_once = of_layers(lambda layer: [Fault("corrupt", at=MIDDLE, match=layer, door="cdn", times=1)])

"""Docker, containerd and Podman side by side, each with the mirror first and Docker Hub itself next."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.clients import Containerd, Docker, Podman, containerd, docker
from tests.e2e.hub import RealHub
from tests.e2e.images import Image
from tests.e2e.report import Seen

PULLED = "pulled"
PULLED_NEXT = "pulled from the next"
FAILED = "failed"
WRONG = "wrong"


@dataclass(frozen=True)
class Client:
    """One client. `pull` returns its complaint or "", `has` tells whether it has exactly that image."""

    name: str
    pull: Callable[[Image], str]
    has: Callable[[Image], bool]
    forget: Callable[[Image], object]


def _name(image: Image) -> str:
    return image.name.removeprefix("library/")


def _short(image: Image) -> str:
    return f"{_name(image)}:{image.tag}"


def _long(image: Image) -> str:
    return f"docker.io/{image.reference}"


def of_docker(client: Docker) -> Client:
    return Client(
        "docker",
        lambda image: client.try_pull(_short(image)),
        lambda image: client.inspect(_short(image))["RepoDigests"] == [f"{_name(image)}@{image.digest}"],
        lambda image: client.forget(_short(image)),
    )


def of_containerd(client: Containerd) -> Client:
    return Client(
        "containerd",
        lambda image: client.try_pull(_long(image)),
        lambda image: image.digest in client("images", "ls", f"name=={_long(image)}"),
        lambda image: client.forget(_long(image)),
    )


def of_podman(client: Podman) -> Client:
    return Client(
        "podman",
        lambda image: client.try_pull(_long(image)),
        lambda image: image.digest in client("images", "--digests", "--noheading"),
        lambda image: client("rmi", "--force", _long(image)),
    )


@contextmanager
def all_clients(folder: Path, address: str, hub: RealHub) -> Iterator[dict[str, Client]]:
    """Run all three, by name. `address` is the mirror's; `hub` is where they go next."""
    with ExitStack() as stack:
        found = (
            of_docker(stack.enter_context(docker(folder / "d", [f"http://{address}"], hub.wrapper, hub.env))),
            of_containerd(
                stack.enter_context(containerd(folder / "c", f"http://{address}", hub.wrapper, hub.env))
            ),
            of_podman(Podman(folder / "p", address, hub.wrapper, hub.env)),
        )
        yield {client.name: client for client in found}


@dataclass(frozen=True)
class Pull:
    """Finished pull; `whole`: the client has exactly that image."""

    image: Image
    complaint: str
    seconds: float
    whole: bool

    def seen(self, asked_next: bool) -> Seen:
        if not self.complaint and self.whole:
            return Seen(PULLED_NEXT if asked_next else PULLED, self.seconds)
        return Seen(FAILED if self.complaint else WRONG, self.seconds)


def pull(client: Client, image: Image) -> Pull:
    """Pull an image, timed, and look at what the client has then."""
    began = time.monotonic()
    complaint = client.pull(image)
    seconds = time.monotonic() - began
    return Pull(image, complaint, seconds, not complaint and client.has(image))


def pull_all(clients: dict[Client, Image]) -> dict[str, Pull]:
    """Have all clients pull at once, each its own image."""
    with ThreadPoolExecutor(len(clients)) as pool:
        running = {client.name: pool.submit(pull, client, image) for client, image in clients.items()}
        return {name: each.result() for name, each in running.items()}

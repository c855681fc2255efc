"""Mirror between an origin that fails on command and three clients with another place to go, or none."""

import gzip
import itertools
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.all_clients import Client, all_clients
from tests.e2e.clients import Skopeo
from tests.e2e.hub import RealHub, mounted, real_hub
from tests.e2e.images import Image, Pusher, push_image, tar_of
from tests.e2e.lab import NAME, Lab, lab
from tests.e2e.mirror import Mirror
from tests.e2e.origin import Origin, origin, unprotected

# Short, for a short suite: the mirror gives up an upstream after CONNECT or READ seconds of silence, three
# times, and a client has its answer after HEADERS, or after FALLBACK if there is a stale one.
CONNECT, READ, HEADERS, FALLBACK = 1, 1.5, 4, 1

CONFIG = f"""
[server]
header_timeout = {HEADERS}

[tags]
fresh = {{fresh}}
fallback_after = {FALLBACK}

[fill]
chunk_size = "256KiB"
parallel_above = "1MiB"

[[upstream]]
name = "docker.io"
url = "{{url}}"
connect_timeout = {CONNECT}
read_timeout = {READ}
"""


@dataclass
class ImageFactory:
    """Maker of images that no client has pulled yet."""

    to: Pusher
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def image(self, size: int) -> Image:
        """Push an image of one layer, a little over `size` bytes, which compression does not shrink."""
        number = next(self._numbers)
        noise = tar_of({"noise": random.Random(number).randbytes(size)})
        return push_image(self.to, f"library/f{number}:1", [noise], _stored)


def _stored(data: bytes) -> bytes:
    return gzip.compress(data, 0, mtime=0)


@dataclass
class Scene:
    """Mirror, origin, clients. `next` answers as Docker Hub, while `hub` runs."""

    folder: Path
    images: ImageFactory
    lab: Lab
    next: Origin
    hub: RealHub
    mirror: Mirror
    clients: dict[str, Client]
    names: tuple[str, ...]  # command that runs a program which finds the origin by its name

    def prime(self, image: Image) -> None:
        """Have the mirror cache the image."""
        folder = self.folder / f"primed-{image.name.rpartition('/')[2]}"
        Skopeo(self.mirror.address).copy(image.reference, folder)

    def configure(self, fresh: int) -> None:
        """Write the mirror's configuration; `fresh` is `tags.fresh`: with 0 each pull asks the upstream."""
        (self.folder / "mirror.toml").write_text(CONFIG.format(url=self.lab.named, fresh=fresh))

    def resolve(self, known: bool) -> None:
        """Put the origin's name into /etc/hosts, or remove it: its name server knows no name."""
        line = f"{self.lab.net.there} {NAME}\n" if known else ""
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n{line}")

    def open_next(self, is_open: bool) -> None:
        """Have Docker Hub itself answer, or refuse connections."""
        if is_open != self.hub.process.running:
            if is_open:
                self.hub.process.start()
            else:
                self.hub.process.stop()

    def asked_next(self, image: Image) -> bool:
        return any(f"/{image.name}/" in path for _, path, _ in self.next.requests())

    def waits(self, image: Image) -> list[float]:
        """Return the seconds to the head of each response about the image's manifest, longest first."""
        lines = self.mirror.lines(image.name)
        waits = [line["first_byte_ms"] / 1000 for line in lines if line.get("kind") == "manifest"]
        return sorted(waits, reverse=True)


@contextmanager
def scene(folder: Path) -> Iterator[Scene]:
    """Run everything but the mirror, which ends with it; `folder` needs a short name."""
    storage, push = folder / "storage", folder / "push"
    push.mkdir()
    with ExitStack() as stack:
        to = Pusher(stack.enter_context(unprotected(storage, push)))
        broken = stack.enter_context(lab(storage, folder / "lab"))
        whole = stack.enter_context(origin(storage, folder / "next"))
        hub = stack.enter_context(real_hub(whole, folder / "hub"))
        (folder / "resolv").write_text(f"nameserver {broken.net.there}\n")
        (folder / "hosts").touch()
        names = mounted({folder / "hosts": "/etc/hosts", folder / "resolv": "/etc/resolv.conf"})
        flags = ("--config", folder / "mirror.toml")
        mirror = Mirror(folder / "mirror", broken.named, *flags, wrapper=names)
        stack.callback(mirror.stop)  # tests start it
        clients = stack.enter_context(all_clients(folder, mirror.address, hub))
        yield Scene(folder, ImageFactory(to), broken, whole, hub, mirror, clients, names)
